//! The program as a user runs it: what is printed where, and the exit status.

mod errors;
mod help;
mod jsonl;
