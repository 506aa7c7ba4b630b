//! `omr eval`: a model measured on tasks.

use std::path::PathBuf;
use std::time::Instant;

use super::run_dir::RunDir;
use super::{Context, Overrides, RunArgs, memory};
use crate::config::EvalConfig;
use crate::data::{self, read};
use crate::error::{Error, Result};
use crate::eval::run::{self as eval, Job};
use crate::task::{VerifiedRows, digits};

/// Arguments of `omr eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR", required_unless_present_any = ["list", "print_config"])]
    model: Option<PathBuf>,
    /// Tasks, separated by commas; --list names them
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_value = digits::NAME)]
    tasks: Vec<String>,
    /// Run directory; a finished one is left as it is
    #[arg(long, value_name = "DIR", required_unless_present_any = ["list", "print_config"])]
    out: Option<PathBuf>,
    /// Move what is in --out aside (never deleted) and start over
    #[arg(long)]
    fresh: bool,
    /// Check the inputs, print the plan and stop
    #[arg(long)]
    dry_run: bool,
    /// Folder with the tasks' rows: DIR/heldout.parquet for digits, as `omr recipe` leaves in its data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Scorer: strict or compat
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Measure the first N rows only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Name the tasks and stop
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Measures and prints the summary's path to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    if args.list {
        return super::print(&format!("{}\n", digits::NAME));
    }
    let mut overrides = args.overrides.clone();
    overrides.overrides.extend(args.mode.iter().map(|mode| format!("mode={mode}")));
    overrides.overrides.extend(args.limit.map(|limit| format!("limit={limit}")));
    let Some(mut config) = overrides.load::<EvalConfig>(None)? else { return Ok(()) };
    if let Some(unknown) = args.tasks.iter().find(|task| *task != digits::NAME) {
        return Err(Error::input("--tasks", unknown, format!("a task of `omr eval --list`: {}", digits::NAME)));
    }
    let (Some(model), Some(out)) = (&args.model, &args.out) else {
        return Err(Error::input("omr eval", "no --model or --out", "both"));
    };
    if !model.is_dir() {
        return Err(Error::input("--model", model.display().to_string(), "a model directory"));
    }
    config.dtype = context.dtype(config.dtype);
    config.model = Some(model.clone());
    config.tasks = args.tasks.clone();
    if let Some(folder) = &args.data {
        config.data = vec![read::entry(folder.join("heldout.parquet"))];
    }
    let rows = match config.data.is_empty() {
        true => digits::splits(&crate::config::TaskConfig::default(), config.seed)?.heldout,
        false => data::load(&config.data, config.seed)?.0,
    };
    let scorer = context.scorer(config.mode, config.judge.as_ref(), (&config.reward, "reward"), Some(out))?;
    let task = VerifiedRows::scored_by(digits::NAME, rows, scorer.clone())?;
    let job = Job::new(model, &config, &task)?;
    let plan = job.plan(context.target())?;
    let (judge, memory) = (scorer.describe(), memory::line(&plan));
    context.say(&format!("eval: {} questions of {}; {judge}; {memory}", job.len(), digits::NAME));
    if args.dry_run {
        return Ok(());
    }
    let run = RunArgs { out: out.clone(), fresh: args.fresh, dry_run: false };
    let dir = RunDir::open(&run, &config, context)?;
    let summary = dir.path().join("summary.json");
    if summary.exists() {
        context.say(&format!("{} is finished: nothing to do", dir.path().display()));
    } else {
        dir.begin(&config, context)?;
        let mut device = context.device(&plan)?;
        let begun = Instant::now();
        let samples = job.run(&mut device, context.observer(), "eval")?;
        let seconds = begun.elapsed().as_secs_f64();
        let judge = eval::write(out, model, &config, scorer.judge(), digits::NAME, &samples, seconds)?;
        if let Some(judge) = judge {
            context.say(&judge.line());
        }
    }
    super::print(&format!("{}\n", summary.display()))
}
