//! Tests the program as users run it: its output and its exit status.

pub mod adapter;
mod config;
mod errors;
mod eval;
mod eval_model;
pub(crate) mod evaluation;
mod families;
pub mod first_gpu;
mod first_hour;
pub mod generate;
pub(crate) mod help;
mod init;
mod jsonl;
mod model_server;
mod moving_in;
mod older;
mod plan;
pub(crate) mod published;
mod ranks;
mod recipe;
mod replay;
mod reporters;
mod rescore;
mod score;
mod task_file;
pub(crate) mod training;
mod tutorial;
