//! The commands and the jobs that only they start: the data pipeline, the recipe, reports and the server.

pub mod cli;
pub mod pipeline;
pub mod recipe;
pub mod report;
pub mod serve;
