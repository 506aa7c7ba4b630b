//! Tasks: rows to prompts and scores. The same object serves RL and evaluation.

#![forbid(unsafe_code)]

pub mod digits;
pub mod digits_teacher;
