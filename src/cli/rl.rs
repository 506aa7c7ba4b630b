//! `omr rl`: GSPO, GRPO and DAPO with the integrated sampler.

use super::plan::{self, H200, Rows};
use super::{Context, JobArgs, dry_run, training};
use crate::answers::RunStore;
use crate::config::RlConfig;
use crate::error::Result;
use crate::eval::validation;
use crate::model::ModelConfig;
use crate::rl::run::Job;

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    let Some((mut config, missing)) = args.load::<RlConfig>()? else { return Ok(()) };
    let asked = config.clone();
    let page = |rows: &Rows, model: ModelConfig| plan::rl_page(&H200, rows, model, &asked);
    if !missing.is_empty() {
        let (what, page) = (("rl", config.total_training_steps), |model: ModelConfig| page(&Rows::default(), model));
        return dry_run::without_rows(context, what, &missing, config.model.as_deref(), page);
    }
    config.dtype = context.dtype(config.dtype);
    let reward = config.reward.scorer();
    let store = Some(RunStore::new(&args.run.out));
    let scorer = context.scorer(config.reward.mode, config.judge.as_ref(), (&reward, "reward"), store)?;
    let judge = scorer.describe();
    let mut job = Job::open(&args.run.out, config.clone(), scorer.clone(), args.run.fresh)?;
    job.validation = validation::rl(&config, &job.model, scorer, None)?;
    let what = format!(
        "rl: {} steps of {} prompts x {} rollouts over {} questions; {judge}",
        job.total_steps(),
        config.train_batch_size,
        config.rollout.n,
        job.index.len(),
    );
    if args.run.dry_run {
        job.data.notes().iter().for_each(|note| context.say(note));
        job.validation.iter().for_each(|validation| context.say(&validation.describe()));
    }
    let index = job.index.clone();
    training::run(&args.run, &config, context, &mut job, &what, |model| page(&Rows::mean(&index, &model), model))
}
