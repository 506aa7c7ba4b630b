//! Tests of the verifier in one binary: the answers that it must accept and reject, and its robustness against any
//! text.

#![allow(clippy::unwrap_used)]

mod compat;
mod formula;
mod fuzz;
mod lexicon;
mod pairs;
mod part;
mod properties;
mod python;
mod rewards;
#[path = "../../tests/base/seed.rs"]
mod seed;
mod strict;
mod typed;
mod unseen;
mod whole;
