//! `omr rl`: GSPO, GRPO and DAPO with the integrated sampler.

use super::{Context, JobArgs, dry_run, training};
use crate::answers::RunStore;
use crate::config::{RlConfig, deciding};
use crate::error::Result;
use crate::eval::validation;
use crate::model::ModelConfig;
use crate::plan::{self, H200, Rows};
use crate::ranks::{OneRank, Ranks};
use crate::rl::run::Job;

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    let Some((config, missing)) = args.load::<RlConfig>()? else { return Ok(()) };
    let args = args.of_restart(context)?;
    training::over(context.ranks(&args.run.out, &config.dist)?, |ranks| {
        trained(&args, (context, ranks), config, &missing)
    })
}

fn trained(
    args: &JobArgs,
    (context, ranks): (&Context, &mut dyn Ranks),
    mut config: RlConfig,
    missing: &[String],
) -> Result<()> {
    let asked = config.clone();
    let cards = (&H200, ranks.size());
    let page = |rows: &Rows, model: ModelConfig| plan::rl_page(cards, rows, model, &asked);
    if !missing.is_empty() {
        let (what, page) = (("rl", config.total_training_steps), |model: ModelConfig| page(&Rows::default(), model));
        return dry_run::without_rows((&args.run, context), what, missing, config.model.as_deref(), page);
    }
    config.dtype = context.dtype(config.dtype);
    config.gradient_lanes =
        training::lanes(&args.run, config.gradient_lanes, ranks.size(), |began: &RlConfig| began.gradient_lanes)?;
    training::same_config(ranks, &deciding(&config))?;
    let reward = config.reward.scorer();
    let store = Some(RunStore::of_rank(&args.run.out, ranks.rank(), ranks.size()));
    let scorer = context.scorer(config.reward.mode, config.judge.as_ref(), (&reward, "reward"), store)?;
    let judge = scorer.describe();
    let mut job = Job::open(&args.run.out, config.clone(), scorer.clone(), args.run.fresh)?;
    job.common.ranks = OneRank::new(ranks.rank(), ranks.size());
    job.common.validation = validation::rl(&config, &job.common.model, scorer, None)?;
    let what = format!(
        "rl: {} steps of {} prompts x {} rollouts over {} questions; {judge}",
        job.common.total_steps,
        config.train_batch_size,
        config.rollout.n,
        job.common.index.len(),
    );
    if args.run.dry_run {
        job.common.data.notes().iter().for_each(|note| context.say(note));
        job.common.validation.iter().for_each(|validation| context.say(&validation.describe()));
    }
    let index = job.common.index.clone();
    let page = |model| page(&Rows::mean(&index, &model), model);
    training::run(&args.run, &config, (context, ranks), &mut job, &what, page)
}
