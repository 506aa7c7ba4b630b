//! `omr sft`: supervised fine-tuning.

use super::{Context, JobArgs, training};
use crate::config::SftConfig;
use crate::error::Result;
use crate::train::sft::Job;

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    let Some(mut config) = args.config.load::<SftConfig>()? else { return Ok(()) };
    config.dtype = context.dtype(config.dtype);
    let mut job = Job::new(&args.run.out, config.clone())?;
    let what = format!("sft: {} updates over {} rows", job.total_steps(), job.index.len());
    training::run(&args.run, &config, context, &mut job, &what)
}
