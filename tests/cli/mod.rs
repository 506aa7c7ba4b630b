//! The program as a user runs it: what is printed where, and the exit status.

mod config;
mod errors;
mod generate;
mod help;
mod jsonl;
mod recipe;
pub(crate) mod training;
