//! `omr sft`: supervised fine-tuning.

use super::{Context, JobArgs, training};
use crate::config::SftConfig;
use crate::error::Result;
use crate::eval::validation;
use crate::train::sft::Job;

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    let Some(mut config) = args.config.load::<SftConfig>()? else { return Ok(()) };
    config.dtype = context.dtype(config.dtype);
    let mut job = Job::open(&args.run.out, config.clone(), args.run.fresh)?;
    job.validation = validation::sft(&config, &job.model, None)?;
    let what = format!("sft: {} updates over {} rows", job.total_steps(), job.index.len());
    if args.run.dry_run {
        job.data.notes().iter().for_each(|note| context.say(note));
        job.validation.iter().for_each(|validation| context.say(&validation.describe()));
    }
    training::run(&args.run, &config, context, &mut job, &what)
}
