//! A whole recipe: data, SFT, RL, control, evaluation and report, each stage in its own folder, each gone on with where it
//! stopped. What is taught is a task's ([`crate::task::recipe`]).

#![forbid(unsafe_code)]

mod announce;
mod base;
mod examples;
mod job;
mod run;
mod stages;
mod summary;

pub use job::Recipe;
