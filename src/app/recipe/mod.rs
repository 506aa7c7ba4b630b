//! The whole recipe: data, SFT, RL, control (continued SFT), evaluation and report. Each stage has its own folder and
//! resumes where it stopped. A task provides the questions ([`omr_data::task::recipe`]).

#![forbid(unsafe_code)]

mod announce;
mod base;
mod examples;
mod job;
mod run;
mod stages;
mod summary;

pub use job::Recipe;
