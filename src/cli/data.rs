//! `omr data`: the stages of the data pipeline.

use clap::Subcommand;

use super::run_dir::RunDir;
use super::{ConfigArgs, Context, RunArgs, inspect};
use crate::config::DataConfig;
use crate::data::distill::{self, Summary};
use crate::error::{Error, Result};

/// Arguments of `omr data`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    stage: Stage,
}

#[derive(Subcommand)]
enum Stage {
    /// Put questions to a teacher, verify its answers against the labels, keep the right ones
    Distill(DistillArgs),
    /// Say what is in data sets, on a page: columns, faults, pictures, lengths, kinds of answers, rows at random
    Inspect(inspect::Args),
}

#[derive(clap::Args)]
struct DistillArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the stage and prints its result to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    match &args.stage {
        Stage::Distill(args) => run_distill(args, context),
        Stage::Inspect(args) => inspect::run(args, context),
    }
}

fn run_distill(args: &DistillArgs, context: &Context) -> Result<()> {
    let Some(config) = args.config.load::<DataConfig>()? else { return Ok(()) };
    let job = distill::Job::new(&config)?;
    let judge = config.judge.as_ref().map_or("judge off".to_owned(), |judge| format!("judge {}", judge.model));
    context.say(&format!(
        "distill: {} questions x {} answers from {}; {judge}",
        job.questions(),
        config.num_rollouts,
        config.teacher.as_ref().map_or("no teacher", |teacher| &teacher.model)
    ));
    if args.run.dry_run {
        return Ok(());
    }
    let dir = RunDir::open(&args.run, &config, context)?;
    let summary = match finished(&dir)? {
        Some(summary) => {
            context.say(&format!("{} is finished: nothing to do", dir.path().display()));
            summary
        }
        None => {
            dir.begin(&config, context)?;
            context.runtime()?.block_on(job.run(dir.path(), context.observer()))?
        }
    };
    let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Failed(format!("summary: {e}")))?;
    super::print(&(text + "\n"))
}

/// The summary of a run that has nothing left to ask: where the teacher failed, another run asks again.
fn finished(dir: &RunDir) -> Result<Option<Summary>> {
    let path = dir.path().join("summary.json");
    let Ok(bytes) = std::fs::read(&path) else { return Ok(None) };
    let summary: Summary = serde_json::from_slice(&bytes).map_err(|e| Error::format(&path, e.to_string()))?;
    let open = ["teacher_error", "empty_response"].iter().any(|reason| summary.rejected.contains_key(*reason));
    Ok((!open && summary.unjudged == 0).then_some(summary))
}
