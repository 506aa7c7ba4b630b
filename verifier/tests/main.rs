//! Tests of the verifier, one binary: what it must accept and refuse, and that no text breaks it.

#![allow(clippy::unwrap_used)]

mod compat;
mod formula;
mod fuzz;
mod lexicon;
mod pairs;
mod properties;
mod python;
#[path = "../../tests/seed.rs"]
mod seed;
mod strict;
mod unseen;
mod whole;
