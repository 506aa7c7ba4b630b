//! Golden tests of the program.

pub mod eval;
