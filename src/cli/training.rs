//! What `omr sft` and `omr rl` do alike once their job is made: plan, run directory, run.

use super::plan::Page;
use super::run_dir::RunDir;
use super::{Context, RunArgs, dry_run};
use crate::config::Config;
use crate::error::Result;
use crate::model::ModelConfig;
use crate::train::job::Job;
use crate::train::plan;

/// Plans `job` of `config`, says `what` it is and what memory it takes, runs what is left of it and prints the model's
/// path to stdout; a dry run ends with the plan, and `page`, that of a card.
pub fn run<C: Config>(
    args: &RunArgs,
    config: &C,
    context: &Context,
    job: &mut dyn Job,
    what: &str,
    page: impl FnOnce(ModelConfig) -> Result<Page>,
) -> Result<()> {
    let plan = job.plan(context.target())?;
    context.say(&format!("{what}; {}", plan::line(&plan)));
    if args.dry_run {
        return dry_run::rest(context, &plan, &job.levels(), &job.trainer_config(), page);
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
