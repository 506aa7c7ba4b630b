//! The command line: one file per command, which turns arguments into a config and runs one job.
//!
//! Most command files have `Args` (clap) and `run(&Args, &Context) -> Result<()>`. Results go to stdout. Everything else
//! goes to stderr and, once a run directory is open, to its `log.txt`.

#![deny(unsafe_code)]

mod args;
mod bench;
mod benchmarks;
mod chat;
mod command;
mod completions;
mod config;
mod console;
mod context;
mod data;
mod doctor;
mod download;
mod dry_run;
mod dtype;
mod eval;
mod export;
mod generate;
mod global;
mod grace;
mod init;
mod inspect;
mod jsonl;
mod man;
mod plan;
mod preview;
pub mod progress;
mod ranks;
mod recipe;
mod replay;
mod report;
mod rescore;
mod rl;
pub mod run_dir;
mod score;
mod serve;
mod session;
mod sft;
mod start;
mod start_check;
mod stdout;
mod training;
mod upload;
mod verify;
mod watch;

pub use command::main;
pub use context::Context;
