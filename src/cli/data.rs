//! `omr data`: the stages of the data pipeline.

use std::str::FromStr;

use clap::Subcommand;
use serde_json::json;

use super::run_dir::RunDir;
use super::{ConfigArgs, Context, RunArgs, inspect};
use crate::config::{
    DataConfig, DedupConfig, DistillConfig, FilterConfig, FormatConfig, MixConfig, PassrateConfig, VerifyConfig,
};
use crate::error::{Error, Result};
use crate::files;
use crate::pipeline::{self, Means, Shard, Stage, Work, list};

/// Arguments of `omr data`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    stage: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Write rows of any layout that is read in one: SFT or RL, pictures embedded or by path
    Format(StageArgs),
    /// Put questions to a teacher, verify its answers against the labels, keep the right ones
    Distill(StageArgs),
    /// Keep rows whose answer is right by the rules, or by a judge
    Verify(StageArgs),
    /// Have a model answer each question several times; rows carry the share of right answers
    Passrate(StageArgs),
    /// Drop rows whose question and pictures are those of another row or of a benchmark
    Dedup(StageArgs),
    /// Keep rows within bounds of length and of the share of right answers
    Filter(StageArgs),
    /// Make one data set of several, by weights and limits
    Mix(StageArgs),
    /// Run all stages of a pipeline config, those that are finished aside
    Run(ListArgs),
    /// Part of dedup
    #[command(hide = true)]
    Embed(EmbedArgs),
    /// Say what is in data sets, on a page: columns, faults, pictures, lengths, kinds of answers, rows at random
    Inspect(inspect::Args),
}

#[derive(clap::Args)]
struct StageArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Do part I of N, from 0; once all N are done the same command without it joins them
    #[arg(long, value_name = "I/N", value_parser = Shard::from_str)]
    shard: Option<Shard>,
}

/// Whatever a stage of that name was given elsewhere.
#[derive(clap::Args)]
struct EmbedArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<String>,
}

#[derive(clap::Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the stage and prints its result to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    match &args.stage {
        Kind::Format(args) => run_stage::<FormatConfig>(args, context),
        Kind::Distill(args) => run_stage::<DistillConfig>(args, context),
        Kind::Verify(args) => run_stage::<VerifyConfig>(args, context),
        Kind::Passrate(args) => run_stage::<PassrateConfig>(args, context),
        Kind::Dedup(args) => run_stage::<DedupConfig>(args, context),
        Kind::Filter(args) => run_stage::<FilterConfig>(args, context),
        Kind::Mix(args) => run_stage::<MixConfig>(args, context),
        Kind::Run(args) => run_list(args, context),
        Kind::Embed(_) => Err(Error::input(
            "omr data",
            "embed",
            "omr data dedup: embeddings are part of it, with a `model` in its config",
        )),
        Kind::Inspect(args) => inspect::run(args, context),
    }
}

/// What stages work with, given to `act`.
fn with_means<T>(context: &Context, act: impl FnOnce(&Means) -> Result<T>) -> Result<T> {
    act(&Means {
        target: context.target(),
        device: &|plan| context.device(plan),
        runtime: &|| Ok(context.runtime()?.handle().clone()),
        observer: context.observer(),
    })
}

fn run_stage<C: Stage>(args: &StageArgs, context: &Context) -> Result<()> {
    let Some(config) = args.config.load::<C>()? else { return Ok(()) };
    let StageArgs { run, shard, .. } = args;
    let summary = with_means(context, |means| {
        let work = Work::open(&config, &run.out, *shard, means)?;
        let (rows, sets) = (work.rows(), work.inputs.len());
        context.say(&format!("{}: {rows} rows of {sets} data sets; {}", C::NAME, config.job(means)?.describe()));
        if run.dry_run {
            return Ok(None);
        }
        let dir = match shard {
            None => RunDir::open(run, &config, context)?,
            Some(_) if run.fresh => {
                let expected = "no --fresh: other parts may be at work in the folder";
                return Err(Error::input("--shard", "a part that is to move the folder aside", expected));
            }
            Some(shard) => RunDir::open_part(run, &shard.suffix(), &config, context)?,
        };
        if pipeline::finished(dir.path(), *shard)?.is_none() {
            dir.begin(&config, context)?;
        }
        let (summary, fresh) = pipeline::run(&config, dir.path(), *shard, means)?;
        let done = if fresh { summary.line() } else { "finished: nothing to do".to_owned() };
        context.say(&format!("{}: {done}", dir.path().display()));
        Ok(Some(summary))
    })?;
    let Some(summary) = summary else { return Ok(()) };
    let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Failed(format!("summary: {e}")))?;
    super::print(&(text + "\n"))
}

fn run_list(args: &ListArgs, context: &Context) -> Result<()> {
    let Some(config) = args.config.load::<DataConfig>()? else { return Ok(()) };
    if config.stages.is_empty() {
        return Err(Error::input("stages", "nothing", "at least one stage"));
    }
    with_means(context, |means| {
        list::plan(&config, means)?.iter().for_each(|stage| context.say(&stage.line));
        if args.run.dry_run {
            return Ok(());
        }
        let dir = RunDir::open(&args.run, &config, context)?;
        dir.begin(&config, context)?;
        let summaries = list::run(&config, dir.path(), means, &|line| context.say(line))?;
        let stages: serde_json::Map<_, _> =
            summaries.into_iter().map(|(name, summary)| (name, json!(summary))).collect();
        let text = format!("{:#}\n", serde_json::Value::Object(stages));
        files::write(dir.path().join("summary.json"), text.as_bytes())?;
        super::print(&text)
    })
}
