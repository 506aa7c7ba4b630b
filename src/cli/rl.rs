//! `omr rl`: GSPO, GRPO and DAPO with the integrated sampler.

use super::run_dir::RunDir;
use super::{ConfigArgs, Context, RunArgs, memory};
use crate::config::RlConfig;
use crate::error::Result;
use crate::rl::run::Job;

/// Arguments of `omr rl`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(mut config) = args.config.load::<RlConfig>()? else { return Ok(()) };
    config.dtype = context.dtype(config.dtype);
    let command = config.reward.command();
    let scorer =
        context.scorer(config.reward.mode, config.judge.as_ref(), (&command, "reward"), Some(&args.run.out))?;
    let judge = scorer.describe();
    let mut job = Job::new(&args.run.out, config.clone(), scorer)?;
    let plan = job.plan(context.target())?;
    if job.left_out > 0 {
        context.say(&format!("{} prompts over max_prompt_length are left out", job.left_out));
    }
    context.say(&format!(
        "rl: {} steps of {} prompts x {} rollouts over {} questions; {judge}; {}",
        job.total_steps(),
        config.train_batch_size,
        config.rollout.n,
        job.index.len(),
        memory::line(&plan)
    ));
    if args.run.dry_run {
        let lines = memory::dry_run(&plan, &job.levels(), &job.model, config.save_total_limit)?;
        lines.iter().for_each(|line| context.say(line));
        return Ok(());
    }
    let dir = RunDir::open(&args.run, &config, context)?;
    if job.is_finished() {
        context.say(&format!("{} is finished: nothing to do", dir.path().display()));
    } else {
        dir.begin(&config, context)?;
        let mut device = context.device(&plan)?;
        job.run(&mut device, context.observer())?;
    }
    super::print(&format!("{}\n", dir.path().join("model").display()))
}
