//! `omr rl`: GSPO, GRPO and DAPO with the integrated sampler.

use super::{Context, JobArgs, training};
use crate::config::RlConfig;
use crate::error::Result;
use crate::rl::run::Job;

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    let Some(mut config) = args.config.load::<RlConfig>()? else { return Ok(()) };
    config.dtype = context.dtype(config.dtype);
    let command = config.reward.command();
    let scorer =
        context.scorer(config.reward.mode, config.judge.as_ref(), (&command, "reward"), Some(&args.run.out))?;
    let judge = scorer.describe();
    let mut job = Job::new(&args.run.out, config.clone(), scorer)?;
    if job.left_out > 0 {
        context.say(&format!("{} prompts over max_prompt_length are left out", job.left_out));
    }
    let what = format!(
        "rl: {} steps of {} prompts x {} rollouts over {} questions; {judge}",
        job.total_steps(),
        config.train_batch_size,
        config.rollout.n,
        job.index.len(),
    );
    training::run(&args.run, &config, context, &mut job, &what)
}
