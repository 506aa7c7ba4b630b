//! `omr sft`: supervised fine-tuning.

use super::{Context, JobArgs, dry_run, training};
use crate::config::{Config, Place, SftConfig, deciding};
use crate::error::Result;
use crate::eval::validation;
use crate::model::ModelConfig;
use crate::plan::{self, H200, Rows};
use crate::ranks::{OneRank, Ranks};
use crate::train::sft::Job;

/// Runs the job and prints the model's path to stdout.
pub fn run(args: &JobArgs, context: &Context) -> Result<()> {
    let Some((config, missing)) = args.load::<SftConfig>()? else { return Ok(()) };
    let args = args.of_restart(context)?;
    training::over(context.ranks(&args.run.out, &config.dist)?, |ranks| {
        trained(&args, (context, ranks), config, &missing)
    })
}

fn trained(
    args: &JobArgs,
    (context, ranks): (&Context, &mut dyn Ranks),
    mut config: SftConfig,
    missing: &[String],
) -> Result<()> {
    let asked = config.clone();
    let cards = (&H200, ranks.size());
    let page = |rows: &Rows, model: ModelConfig| plan::sft_page(cards, rows, model, &asked);
    if !missing.is_empty() {
        let (what, page) = (("sft", config.max_steps), |model: ModelConfig| page(&Rows::default(), model));
        return dry_run::without_rows((&args.run, context), what, missing, config.model.as_deref(), page);
    }
    config.dtype = context.dtype(config.dtype);
    config.validate(&Place::default())?;
    config.gradient_lanes =
        training::lanes(&args.run, config.gradient_lanes, ranks.size(), |began: &SftConfig| began.gradient_lanes)?;
    training::same_config(ranks, &deciding(&config))?;
    let mut job = Job::open(&args.run.out, config.clone(), args.run.fresh)?;
    job.common.ranks = OneRank::new(ranks.rank(), ranks.size());
    job.common.validation = validation::sft(&config, &job.common.model, None)?;
    let what = format!("sft: {} updates over {} rows", job.common.total_steps, job.common.index.len());
    if args.run.dry_run {
        job.common.data.notes().iter().for_each(|note| context.say(note));
        job.common.validation.iter().for_each(|validation| context.say(&validation.describe()));
    }
    let index = job.common.index.clone();
    let page = |model| page(&Rows::mean(&index, &model), model);
    training::run(&args.run, &config, (context, ranks), &mut job, &what, page)
}
