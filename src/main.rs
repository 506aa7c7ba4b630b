//! The omr binary.

fn main() {}
