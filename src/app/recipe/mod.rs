//! The whole recipe: data, SFT, RL, control (continued SFT), evaluation and report. Each stage has its own folder and
//! resumes where it stopped. A task provides the questions ([`crate::task::recipe`]).

#![forbid(unsafe_code)]

mod announce;
mod base;
mod examples;
mod job;
pub mod new_model;
mod run;
mod stages;
mod summary;

pub use job::Recipe;
pub use new_model::init;
