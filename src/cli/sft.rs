//! `omr sft`: supervised fine-tuning.

use super::run_dir::RunDir;
use super::{ConfigArgs, Context, RunArgs, memory};
use crate::config::SftConfig;
use crate::error::Result;
use crate::train::sft::Job;

/// Arguments of `omr sft`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(mut config) = args.config.load::<SftConfig>()? else { return Ok(()) };
    config.dtype = context.dtype(config.dtype);
    let mut job = Job::new(&args.run.out, config.clone())?;
    let plan = job.plan(context.target())?;
    context.say(&format!("sft: {} updates over {} rows; {}", job.total_steps(), job.index.len(), memory::line(&plan)));
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
