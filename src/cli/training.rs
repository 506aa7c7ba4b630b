//! What `omr sft` and `omr rl` do alike once their job is made: plan, run directory, run.

use super::run_dir::RunDir;
use super::{Context, RunArgs, memory};
use crate::config::Config;
use crate::error::Result;
use crate::train::job::Job;
use crate::train::plan;

/// Plans `job` of `config`, says `what` it is and what memory it takes, runs what is left of it and prints the model's
/// path to stdout; a dry run ends with the plan.
pub fn run<C: Config>(args: &RunArgs, config: &C, context: &Context, job: &mut dyn Job, what: &str) -> Result<()> {
    let plan = job.plan(context.target())?;
    context.say(&format!("{what}; {}", plan::line(&plan)));
    if args.dry_run {
        let trainer = job.trainer_config();
        let lines = memory::dry_run(&plan, &job.levels(), &trainer.model, trainer.save_total_limit)?;
        lines.iter().for_each(|line| context.say(line));
        return Ok(());
    }
    let dir = RunDir::open(args, config, context)?;
    if job.is_finished() {
        context.say(&format!("{} is finished: nothing to do", dir.path().display()));
    } else {
        dir.begin(config, context)?;
        let mut device = context.device(&plan)?;
        job.run(&mut device, context.observer())?;
    }
    super::print(&format!("{}\n", dir.path().join("model").display()))
}
