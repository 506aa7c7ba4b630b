//! `omr data`: runs the stages of the data pipeline.

use std::str::FromStr;

use clap::Subcommand;
use serde_json::json;

use super::args::{ConfigArgs, RanksArgs, RunArgs};
use super::run_dir::RunDir;
use super::session::Session;
use super::stdout::print;
use super::{Context, inspect, preview};
use crate::pipeline::{self, Shard, Stage, Work, list, passrate};
use omr_base::config::{
    Backend, DataConfig, DedupConfig, DistConfig, DistillConfig, FilterConfig, FormatConfig, MixConfig, PassrateConfig,
    VerifyConfig,
};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_runtime::machine::Machine;
use omr_runtime::ranks::{self, Ranks};

/// Arguments of `omr data`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    stage: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Convert rows of any supported layout to SFT or RL rows, with images embedded or by path
    Format(StageArgs),
    /// Send questions to a teacher, verify its answers against the labels and keep the correct ones
    Distill(StageArgs),
    /// Keep rows whose answer is correct according to the rules or a judge
    Verify(StageArgs),
    /// Let a model answer each question several times and record the share of correct answers
    Passrate(PassrateArgs),
    /// Remove rows whose question and images are those of another row or of a benchmark
    Dedup(StageArgs),
    /// Keep rows within limits of length, of the share of correct answers and of the answer's log-likelihood
    Filter(StageArgs),
    /// Combine several data sets into one, with weights and limits
    Mix(WholeArgs),
    /// Run all stages of a pipeline config, except finished ones
    Run(WholeArgs),
    /// Part of dedup
    #[command(hide = true)]
    Embed(EmbedArgs),
    /// Show the contents of data sets as text and as an HTML page: columns, faults, images, lengths, kinds of
    /// answers, random rows
    Inspect(inspect::Args),
    /// Show rows as a model sees them, as text and as an HTML page: the rendered chat template with the trained tokens
    /// marked, and the images
    Preview(preview::Args),
}

#[derive(clap::Args)]
struct StageArgs {
    #[command(flatten)]
    whole: WholeArgs,
    /// Process part I of N, starting at 0. When all N parts are finished, the same command without --shard joins them
    #[arg(long, value_name = "I/N", value_parser = Shard::from_str)]
    shard: Option<Shard>,
}

#[derive(clap::Args)]
struct PassrateArgs {
    #[command(flatten)]
    stage: StageArgs,
    #[command(flatten)]
    ranks: RanksArgs,
}

/// Accepts any arguments, as for the command of this name in other programs.
#[derive(clap::Args)]
struct EmbedArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<String>,
}

/// Arguments of a stage that cannot be divided into parts, or of a list of stages.
#[derive(clap::Args)]
struct WholeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    run: RunArgs,
}

impl Args {
    /// Returns the number of ranks given on the command line, for stages that support ranks.
    pub(super) fn ranks(&self) -> Option<&RanksArgs> {
        match &self.stage {
            Kind::Passrate(args) => Some(&args.ranks),
            _ => None,
        }
    }
}

/// Runs the stage and prints its result to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    match &args.stage {
        Kind::Format(args) => run_stage::<FormatConfig>(args, context),
        Kind::Distill(args) => run_stage::<DistillConfig>(args, context),
        Kind::Verify(args) => run_stage::<VerifyConfig>(args, context),
        Kind::Passrate(args) => run_passrate(args, context),
        Kind::Dedup(args) => run_stage::<DedupConfig>(args, context),
        Kind::Filter(args) => run_stage::<FilterConfig>(args, context),
        Kind::Mix(args) => run_alone::<MixConfig>(args, None, context),
        Kind::Run(args) => run_list(args, context),
        Kind::Embed(_) => {
            let expected = "omr data dedup, which computes embeddings if its config sets `model`";
            Err(Error::input("omr data", "embed", expected))
        }
        Kind::Inspect(args) => inspect::run(args, context),
        Kind::Preview(args) => preview::run(args, context),
    }
}

fn run_stage<C: Stage>(args: &StageArgs, context: &Context) -> Result<()> {
    run_alone::<C>(&args.whole, args.shard, context)
}

fn run_alone<C: Stage>(args: &WholeArgs, shard: Option<Shard>, context: &Context) -> Result<()> {
    let Some(config) = args.config.load::<C>()? else { return Ok(()) };
    Session::alone(&args.run, context, |session| stage_of(session, shard, &config, |_, _| Ok(())))
}

/// Lets all ranks generate answers. Rank 0 writes the results.
fn run_passrate(args: &PassrateArgs, context: &Context) -> Result<()> {
    let StageArgs { whole, shard } = &args.stage;
    let Some(config) = whole.config.load::<PassrateConfig>()? else { return Ok(()) };
    if shard.is_some() {
        context.alone("--shard runs in one process; ranks divide all rows among themselves")?;
    }
    // The ranks exchange no GPU memory.
    let dist = DistConfig { backend: Backend::Tcp, ..DistConfig::default() };
    Session::over(&whole.run, context, &dist, |session| {
        session.same_config(&config)?;
        stage_of(session, *shard, &config, |machine, ranks| passrate::answer(&config, &whole.run.out, ranks, machine))
    })
}

/// Runs a stage on rank 0 after all `ranks` have executed `before`.
fn stage_of<C: Stage>(
    session: &mut Session,
    shard: Option<Shard>,
    config: &C,
    before: impl FnOnce(&Machine, &mut dyn Ranks) -> Result<()>,
) -> Result<()> {
    let (run, context) = (session.args, session.context);
    context.with_machine(|machine| {
        let work = Work::open(config, &run.out, shard, machine)?;
        let (rows, sets) = (work.rows(), work.inputs.len());
        let job = config.job(machine)?.describe();
        context.say(&format!("{}: {rows} rows of {sets} data sets; {job}", C::NAME));
        if run.dry_run {
            let plan = json!({ "job": C::NAME, "what": job, "rows": rows, "data_sets": sets });
            return RunDir::planned(run, config, context, || plan);
        }
        let dir = match shard {
            None => session.open(config)?,
            Some(_) if run.fresh => {
                let expected = "--shard without --fresh, because other parts may be using the folder";
                return Err(Error::input("--shard", "--shard with --fresh", expected));
            }
            Some(shard) => Some(RunDir::open_part(run, &shard.suffix(), config, context)?),
        };
        session.same_folder()?;
        let ranks = &mut *session.ranks;
        let finished = if context.leads() { pipeline::finished(config, &run.out, shard)? } else { None };
        if !ranks::first_finds(ranks, "whether the stage is finished", || finished.is_some())? {
            if config.computes() {
                context.find_device()?;
            }
            dir.iter().try_for_each(|dir| dir.begin(config, context))?;
            before(machine, ranks)?;
        }
        ranks::by_first(ranks, "the rows", || {
            let (summary, fresh) = pipeline::run(config, &run.out, shard, machine)?;
            let done = if fresh { summary.line() } else { "finished: nothing to do".to_owned() };
            context.say(&format!("{}: {done}", run.out.display()));
            let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Failed(format!("summary: {e}")))?;
            print(&(text + "\n"))
        })
    })
}

fn run_list(args: &WholeArgs, context: &Context) -> Result<()> {
    let Some(config) = args.config.load::<DataConfig>()? else { return Ok(()) };
    if config.stages.is_empty() {
        return Err(Error::input("stages", "nothing", "at least one stage"));
    }
    context.with_machine(|machine| {
        let stages = list::plan(&config, machine)?;
        stages.iter().for_each(|stage| context.say(&stage.line));
        if args.run.dry_run {
            let lines = || stages.iter().map(|stage| &stage.line).collect::<Vec<_>>();
            return RunDir::planned(&args.run, &config, context, || json!({ "job": "run", "stages": lines() }));
        }
        let is_left = |name: &str| args.run.fresh || !args.run.out.join(name).join("summary.json").exists();
        if stages.iter().zip(&config.stages).any(|(planned, step)| planned.computes && is_left(&step.name)) {
            context.find_device()?;
        }
        let dir = RunDir::open(&args.run, &config, context)?;
        dir.begin(&config, context)?;
        let summaries = list::run(&config, &dir.out, machine, &|line| context.say(line))?;
        let stages: serde_json::Map<_, _> =
            summaries.into_iter().map(|(name, summary)| (name, json!(summary))).collect();
        let text = format!("{:#}\n", serde_json::Value::Object(stages));
        files::write(dir.out.join("summary.json"), text.as_bytes())?;
        print(&text)
    })
}
