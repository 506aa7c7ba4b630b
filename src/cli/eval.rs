//! `omr eval`: a model measured on tasks.

use std::path::PathBuf;
use std::time::Instant;

use super::run_dir::RunDir;
use super::{Context, Overrides, RunArgs};
use crate::config::EvalConfig;
use crate::device::Plan;
use crate::error::{Error, Result};
use crate::eval::run::{self as eval, Job, Measured};
use crate::task::{self, Source, TASKS, TaskSpec, VerifiedRows};
use crate::train::plan::line;

/// Arguments of `omr eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR", required_unless_present_any = ["list", "print_config"])]
    model: Option<PathBuf>,
    /// Tasks, separated by commas; --list names them, and the first of it is the default
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
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
    /// Folder with the tasks' rows; --list says what is looked for in it
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
        return super::print(&list());
    }
    let mut overrides = args.overrides.clone();
    overrides.overrides.extend(args.mode.iter().map(|mode| format!("mode={mode}")));
    overrides.overrides.extend(args.limit.map(|limit| format!("limit={limit}")));
    let Some(mut config) = overrides.load::<EvalConfig>(None)? else { return Ok(()) };
    let (Some(model), Some(out)) = (&args.model, &args.out) else {
        return Err(Error::input("omr eval", "no --model or --out", "both"));
    };
    if !args.tasks.is_empty() {
        config.tasks = args.tasks.clone();
    }
    let tasks = tasks(&mut config)?;
    if !model.is_dir() {
        return Err(Error::input("--model", model.display().to_string(), "a model directory"));
    }
    config.dtype = context.dtype(config.dtype);
    config.model = Some(model.clone());
    config.data_dir = args.data.clone().or(config.data_dir);
    let scorer = context.scorer(config.mode, config.judge.as_ref(), (&config.reward, "reward"), Some(out))?;
    let source =
        Source { datasets: &config.data, folder: config.data_dir.as_deref(), mode: config.mode, seed: config.seed };
    let questions = |spec: &TaskSpec| VerifiedRows::scored_by(spec.name, (spec.rows)(&source)?, scorer.clone());
    let questions: Vec<VerifiedRows> = tasks.iter().map(|spec| questions(spec)).collect::<Result<_>>()?;
    let jobs: Vec<Job> =
        tasks.iter().zip(&questions).map(|(spec, rows)| Job::new(model, &config, spec, rows)).collect::<Result<_>>()?;
    let plans: Vec<Plan> = jobs.iter().map(|job| job.plan(context.target())).collect::<Result<_>>()?;
    for (job, plan) in jobs.iter().zip(&plans) {
        let (judge, memory) = (scorer.describe(), line(plan));
        context.say(&format!("eval: {} questions of {}; {judge}; {memory}", job.len(), job.spec.name));
    }
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
        let begun = Instant::now();
        let measure = |(job, plan): (&Job, &Plan)| {
            let label = if jobs.len() == 1 { "eval".to_owned() } else { format!("eval {}", job.spec.name) };
            job.run(&mut context.device(plan)?, context.observer(), &label)
        };
        let measured: Vec<Measured> = jobs.iter().zip(&plans).map(measure).collect::<Result<_>>()?;
        let seconds = begun.elapsed().as_secs_f64();
        let judge = eval::write(out, model, &config, scorer.judge(), &measured, seconds)?;
        if let Some(judge) = judge {
            context.say(&judge.line());
        }
    }
    super::print(&format!("{}\n", summary.display()))
}

/// The tasks named, each once; their own names stand in the config then.
fn tasks(config: &mut EvalConfig) -> Result<Vec<&'static TaskSpec>> {
    let mut tasks: Vec<&'static TaskSpec> = Vec::new();
    for name in &config.tasks {
        let spec = task::find(name)?;
        if !tasks.iter().any(|known| known.name == spec.name) {
            tasks.push(spec);
        }
    }
    if tasks.is_empty() {
        tasks.push(&TASKS[0]);
    }
    config.tasks = tasks.iter().map(|spec| spec.name.to_owned()).collect();
    Ok(tasks)
}

/// A task a line: its name, its other names, what it is.
fn list() -> String {
    let line = |task: &TaskSpec| {
        let names = std::iter::once(task.name).chain(task.aliases.iter().copied()).collect::<Vec<_>>().join(", ");
        format!("{names}: {}\n", task.about)
    };
    TASKS.iter().map(line).collect()
}
