//! `omr eval`: a model, or recorded answers, measured on tasks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::args::repository;
use super::run_dir::RunDir;
use super::{Context, Overrides, RunArgs, referee};
use crate::answers::RunStore;
use crate::config::EvalConfig;
use crate::device::Plan;
use crate::error::{Error, Result};
use crate::eval::recorded::Recorded;
use crate::eval::referee::{Log, recognise};
use crate::eval::run::{self as eval, Job, Measured};
use crate::eval::{lmms_eval, prompts};
use crate::hub::Kind;
use crate::reward::Scorer;
use crate::task::{self, GROUPS, Source, TASKS, Task, TaskRows, TaskSpec, hub};
use crate::train::plan::line;

/// Arguments of `omr eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Config file (YAML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Tasks and groups of them, separated by commas; --list names them, and the first of it is the default
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Run directory; a finished one is left as it is
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Move what is in --out aside (never deleted) and start over
    #[arg(long)]
    fresh: bool,
    /// Check the inputs, print the plan and stop
    #[arg(long)]
    dry_run: bool,
    /// Folder with a folder for each task, by its name or the data set's, with the hub's parquet files
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Prompts and scorer: strict, or compat for those of the published evaluation
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Measure the first N rows only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Take thinking off answers before they are scored
    #[arg(long)]
    strip_thinking: bool,
    /// Write what a model would be asked, a line a question, and stop
    #[arg(long, value_name = "FILE")]
    dump_prompts: Option<PathBuf>,
    /// Score recorded answers, lines {"task", "index", "responses": [...]}, without a model; of a file or folder of
    /// lmms-eval's --log_samples or VLMEvalKit's tsv, hold its verdicts against ours
    #[arg(long, value_name = "FILE")]
    responses: Option<PathBuf>,
    /// Write the finished evaluation in another program's files, too
    #[arg(long, value_name = "NAME")]
    format: Option<Format>,
    /// Name the tasks and stop
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Whose files.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// lmms-eval's `--log_samples`.
    LmmsEval,
}

/// Measures and prints the summary's path to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    evaluate(args, context)?;
    match (args.format, &args.out) {
        (Some(Format::LmmsEval), Some(out)) if out.join("samples.jsonl").exists() => {
            super::print(&format!("{}\n", lmms_eval::write(out)?.display()))
        }
        _ => Ok(()),
    }
}

fn evaluate(args: &Args, context: &Context) -> Result<()> {
    if args.list {
        return super::print(&list());
    }
    let mut overrides = args.overrides.clone();
    overrides.overrides.extend(args.mode.iter().map(|mode| format!("mode={mode}")));
    overrides.overrides.extend(args.limit.map(|limit| format!("limit={limit}")));
    overrides.overrides.extend(args.strip_thinking.then(|| "strip_thinking=true".to_owned()));
    let Some(mut config) = overrides.load::<EvalConfig>(args.config.as_deref())? else { return Ok(()) };
    config.data_dir = args.data.clone().or(config.data_dir);
    config.responses = args.responses.clone().or(config.responses);
    let log = config.responses.as_deref().map(recognise).transpose()?;
    let recorded = match (&log, config.responses.as_deref()) {
        (Some(Log::Ours), Some(path)) => Some(Recorded::read(path)?),
        _ => None,
    };
    let tasks = tasks(args, &mut config, recorded.as_ref())?;
    if let Some(path) = &args.dump_prompts {
        let lines = prompts::dump(path, &tasks, &source(&config), config.limit)?;
        context.say(&format!("{lines} questions of {}", config.tasks.join(", ")));
        return super::print(&format!("{}\n", path.display()));
    }
    let Some(out) = &args.out else {
        return Err(Error::input("omr eval", "no --out", "the run directory"));
    };
    if let Some(model) = &args.model {
        config.model = Some(repository(model, Kind::Model, "--model")?);
    }
    let scorer =
        context.scorer(config.mode, config.judge.as_ref(), (&config.reward, "reward"), Some(RunStore::new(out)))?;
    let run = RunArgs { out: out.clone(), fresh: args.fresh, dry_run: args.dry_run };
    if let Some(Log::Theirs(logs)) = &log {
        return referee::run(logs, &config, &scorer, &run, context);
    }
    match (&recorded, config.model.clone()) {
        (Some(recorded), _) => score(recorded, &tasks, &config, scorer, &run, context),
        (None, Some(model)) if model.is_dir() => {
            config.dtype = context.dtype(config.dtype);
            measure(&model, &tasks, &config, scorer, &run, context)
        }
        (None, Some(model)) => Err(Error::input("--model", model.display().to_string(), "a model directory")),
        (None, None) => Err(Error::input("omr eval", "no --model", "a model directory, or --responses")),
    }
}

/// What tasks make their questions from, as a config says.
pub(super) fn source(config: &EvalConfig) -> Source<'_> {
    Source {
        datasets: &config.data,
        folder: config.data_dir.as_deref(),
        mode: config.mode,
        seed: config.seed,
        shuffle_seed: config.shuffle_seed,
    }
}

/// The tasks of the arguments, of the config, of the recorded answers, or the first of the table; their own names stand
/// in the config then.
fn tasks(args: &Args, config: &mut EvalConfig, recorded: Option<&Recorded>) -> Result<Vec<&'static TaskSpec>> {
    let of_answers = recorded.map_or(&[][..], |recorded| &recorded.tasks);
    let names = [&args.tasks, &config.tasks, of_answers].into_iter().find(|names| !names.is_empty());
    let tasks = names.map_or_else(|| Ok(vec![&TASKS[0]]), task::named)?;
    config.tasks = tasks.iter().map(|spec| spec.name.to_owned()).collect();
    Ok(tasks)
}

/// Asks a model, one task after another: the pictures of one are in memory at a time.
fn measure(
    model: &Path,
    tasks: &[&'static TaskSpec],
    config: &EvalConfig,
    scorer: Arc<Scorer>,
    run: &RunArgs,
    context: &Context,
) -> Result<()> {
    let source = source(config);
    // What is missing is said before the first task takes its hours.
    for spec in tasks.iter().filter(|spec| spec.hub.is_some()) {
        hub::files(spec, &source)?;
    }
    let read = |spec| TaskRows::read(spec, &source, config.limit, true, (scorer.clone(), config.strip_thinking));
    let first = read(tasks[0])?;
    let mut first = Some(planned(model, config, &first, &scorer, context)?);
    if run.dry_run {
        drop(first);
        for spec in &tasks[1..] {
            planned(model, config, &read(spec)?, &scorer, context)?;
        }
        return Ok(());
    }
    let all = || {
        let mut measured = Vec::new();
        for spec in tasks {
            let label = if tasks.len() == 1 { "eval".to_owned() } else { format!("eval {}", spec.name) };
            let observer = context.observer();
            measured.push(match first.take() {
                Some((job, plan)) => job.run(&mut context.device(&plan)?, observer, &label)?,
                None => {
                    let rows = read(spec)?;
                    let (job, plan) = planned(model, config, &rows, &scorer, context)?;
                    job.run(&mut context.device(&plan)?, observer, &label)?
                }
            });
        }
        Ok(measured)
    };
    finish(Some(model), config, &scorer, run, context, all)
}

/// A task's prompts and memory, said.
fn planned<'a>(
    model: &'a Path,
    config: &'a EvalConfig,
    rows: &'a TaskRows,
    scorer: &Scorer,
    context: &Context,
) -> Result<(Job<'a>, Plan)> {
    say_crashed(rows, context);
    let job = Job::new(model, config, rows)?;
    let plan = job.plan(context.target())?;
    let (judge, memory) = (scorer.describe(), line(&plan));
    context.say(&format!("eval: {} questions of {}; {judge}; {memory}", job.len(), rows.name()));
    Ok((job, plan))
}

/// Scores recorded answers.
fn score(
    recorded: &Recorded,
    tasks: &[&'static TaskSpec],
    config: &EvalConfig,
    scorer: Arc<Scorer>,
    run: &RunArgs,
    context: &Context,
) -> Result<()> {
    context.say(&format!("eval: recorded answers to {}; {}", config.tasks.join(", "), scorer.describe()));
    if run.dry_run {
        return Ok(());
    }
    let all = || {
        let measure = |spec: &&'static TaskSpec| {
            let scored = (scorer.clone(), config.strip_thinking);
            let rows = TaskRows::read(spec, &source(config), config.limit, false, scored)?;
            say_crashed(&rows, context);
            recorded.measure(&rows, config.mode)
        };
        tasks.iter().map(measure).collect()
    };
    finish(config.model.as_deref(), config, &scorer, run, context, all)
}

/// Opens the run directory, measures where that is not done yet, and writes what came out.
fn finish(
    model: Option<&Path>,
    config: &EvalConfig,
    scorer: &Scorer,
    run: &RunArgs,
    context: &Context,
    measure: impl FnOnce() -> Result<Vec<Measured>>,
) -> Result<()> {
    let dir = RunDir::open(run, config, context)?;
    let summary = dir.path().join("summary.json");
    if summary.exists() {
        context.say(&format!("{} is finished: nothing to do", dir.path().display()));
    } else {
        dir.begin(config, context)?;
        let begun = Instant::now();
        let measured = measure()?;
        let seconds = begun.elapsed().as_secs_f64();
        let judge = eval::write(dir.path(), model, config, scorer.judge(), &measured, seconds)?;
        measured.iter().for_each(|task| context.say(&task.line()));
        if let Some(judge) = judge {
            context.say(&judge.line());
        }
    }
    super::print(&format!("{}\n", summary.display()))
}

/// Rows that are left out are named.
fn say_crashed(rows: &TaskRows, context: &Context) {
    for (index, crash) in &rows.crashed {
        let (stage, class, found) = (crash.stage.name(), crash.class, &crash.found);
        let name = rows.name();
        context.say(&format!(
            "{name} index {index} left out: the published evaluation ends there with {class} in {stage} ({found})"
        ));
    }
}

/// A task a line: its name, its other names, what it is and where its rows come from; then the groups.
fn list() -> String {
    let line = |task: &TaskSpec| {
        let names = std::iter::once(task.name).chain(task.aliases.iter().copied()).collect::<Vec<_>>().join(", ");
        let hub = task.hub.as_ref().map(|hub| format!(" [{}]", hub.describe())).unwrap_or_default();
        format!("{names}: {}{hub}\n", task.about)
    };
    let group = |(name, members): &(&str, &[&str])| format!("{name}: {}\n", members.join(", "));
    TASKS.iter().map(line).chain(GROUPS.iter().map(group)).collect()
}
