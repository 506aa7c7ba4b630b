//! `omr data`: the stages of the data pipeline.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::run_dir::RunDir;
use super::{ConfigArgs, Context, RunArgs};
use crate::config::{DataConfig, DatasetConfig};
use crate::data::distill::{self, Summary};
use crate::data::inspect::inspect;
use crate::data::read;
use crate::error::{Error, Result};
use crate::files;
use crate::image::Processor;
use crate::text::Chat;

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
    /// Say what is in data sets: rows, faults, pictures, lengths, and a few rows
    Inspect(InspectArgs),
}

#[derive(clap::Args)]
struct DistillArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(clap::Args)]
struct InspectArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Model directory: count tokens with its tokenizer, chat template and image sizes
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Rows of each data set to show
    #[arg(long, value_name = "N", default_value_t = 2)]
    show: usize,
    /// Also write what was found to DIR/summary.json
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the stage and prints its result to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    match &args.stage {
        Stage::Distill(args) => run_distill(args, context),
        Stage::Inspect(args) => run_inspect(args),
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

fn run_inspect(args: &InspectArgs) -> Result<()> {
    let file = &args.config.config;
    let data = file.extension().and_then(|e| e.to_str()).is_some_and(|e| ["parquet", "jsonl"].contains(&e));
    let datasets: Vec<DatasetConfig> = if data {
        vec![read::entry(file)]
    } else {
        match args.config.load::<DataConfig>()? {
            Some(config) => config.datasets,
            None => return Ok(()),
        }
    };
    if datasets.is_empty() {
        return Err(Error::input("datasets", "nothing", "at least one data set"));
    }
    let model = match &args.model {
        Some(dir) => Some((Chat::load(dir)?, Processor::load(dir)?)),
        None => None,
    };
    let mut found = Vec::with_capacity(datasets.len());
    for entry in &datasets {
        let inspection = inspect(entry, model.as_ref(), args.show)?;
        super::print(&inspection.text())?;
        found.push(inspection);
    }
    let faulty: usize = found.iter().map(|f| f.faulty).sum();
    if let Some(out) = &args.out {
        let rows: usize = found.iter().map(|f| f.rows).sum();
        let sets: Vec<_> = found.iter().map(|f| f.json()).collect();
        let summary = json!({"in": rows, "kept": rows - faulty, "rejected": {"fault": faulty}, "datasets": sets});
        files::write(out.join("summary.json"), format!("{summary:#}\n").as_bytes())?;
    }
    match found.iter().find(|f| f.faulty > 0) {
        None => Ok(()),
        Some(first) => {
            let found = format!("{faulty} rows at fault, the first: {}", first.faults.join(" ").trim());
            Err(Error::input(file.display().to_string(), found, "rows that can be used"))
        }
    }
}
