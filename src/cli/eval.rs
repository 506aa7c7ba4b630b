//! `omr eval`: evaluates a model or recorded answers on tasks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::args::{Overrides, RanksArgs, RunArgs, repository};
use super::session::Session;
use super::stdout::print;
use super::{Context, referee};
use crate::answers::RunStore;
use crate::config::{Backend, DistConfig, EvalConfig, ServerConfig};
use crate::error::{Error, Result};
use crate::eval::local::{self, Local};
use crate::eval::measured::{self, Answers};
use crate::eval::recorded::Recorded;
use crate::eval::referee::{Log, recognise};
use crate::eval::server::{self, Server};
use crate::eval::{lmms_eval, prompts};
use crate::files;
use crate::hub::Kind;
use crate::plan::memory;
use crate::ranks::{self, Ranks};
use crate::report;
use crate::reward::Scorer;
use crate::task::{self, GROUPS, TASKS, TaskFile, TaskRows, TaskSpec};
use crate::train::plan::line;

/// Arguments of `omr eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Config file (YAML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Model directory; with --model-url the name the server has the model under
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Ask an OpenAI-compatible server, its address up to /v1, in place of a model directory
    #[arg(long, value_name = "URL")]
    model_url: Option<String>,
    /// Tasks and groups of them, separated by commas; --list names them, and the first of it is the default
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tasks: Vec<String>,
    /// One's own benchmark: a file (YAML) with data, prompt template, gold column and scorer
    #[arg(long, value_name = "FILE")]
    task_file: Option<PathBuf>,
    /// Run directory; a finished one is left as it is
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Move what is in --out aside (never deleted) and start over
    #[arg(long)]
    fresh: bool,
    /// Check the inputs, print the plan and stop
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: the plan as JSON on stdout
    #[arg(long, requires = "dry_run")]
    json: bool,
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
    pub(super) ranks: RanksArgs,
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
        (Some(Format::LmmsEval), Some(out)) if context.leads() && out.join("samples.jsonl").exists() => {
            print(&format!("{}\n", lmms_eval::write(out)?.display()))
        }
        _ => Ok(()),
    }
}

fn evaluate(args: &Args, context: &Context) -> Result<()> {
    if args.list {
        return print(&list());
    }
    let mut overrides = args.overrides.clone();
    overrides.overrides.extend(args.mode.iter().map(|mode| format!("mode={mode}")));
    if let Some(url) = &args.model_url {
        let name = args.model.as_ref().map(|name| name.to_string_lossy());
        let name = name.ok_or_else(|| Error::input("--model", "nothing", "the name the server has the model under"))?;
        overrides
            .overrides
            .extend([format!("server.base_url={}", json!([url])), format!("server.model={}", json!(name))]);
    }
    overrides.overrides.extend(args.limit.map(|limit| format!("limit={limit}")));
    overrides.overrides.extend(args.strip_thinking.then(|| "strip_thinking=true".to_owned()));
    let Some(mut config) = overrides.load::<EvalConfig>(args.config.as_deref())? else { return Ok(()) };
    config.data_dir = args.data.clone().or(config.data_dir);
    config.responses = args.responses.clone().or(config.responses);
    let file = task_file(args, &mut config)?;
    file.iter().flat_map(|file| &file.notes).for_each(|note| context.say(note));
    let log = config.responses.as_deref().map(recognise).transpose()?;
    let recorded = match (&log, config.responses.as_deref()) {
        (Some(Log::Ours), Some(path)) => Some(Recorded::read(path, file.as_ref().map(|file| file.spec))?),
        _ => None,
    };
    let tasks = tasks(args, &mut config, recorded.as_ref(), file.as_ref())?;
    if let Some(path) = &args.dump_prompts {
        let lines = prompts::dump(path, &tasks, &source(&config, file.as_ref()), config.limit)?;
        context.say(&format!("{lines} questions of {}", config.tasks.join(", ")));
        return print(&format!("{}\n", path.display()));
    }
    if config.server.is_some() || config.responses.is_some() {
        context.alone("ranks answer for a model directory, not for a server or a file")?;
    }
    let Some(out) = &args.out else {
        return Err(Error::input("omr eval", "no --out", "the run directory"));
    };
    if let (Some(model), None) = (&args.model, &args.model_url) {
        config.model = Some(repository(model, Kind::Model, "--model")?);
    }
    let store = RunStore::new(out);
    let judge = config.judge.as_ref();
    let scorer = match context.leads() {
        true => context.scorer(config.mode, judge, &config.reward, Some(store.clone()))?,
        // The other ranks only generate answers. Rank 0 scores all of them.
        false => Arc::new(Scorer::rules(config.mode)),
    };
    config.dtype = context.dtype(config.dtype);
    let (data, strip) = (source(&config, file.as_ref()), config.strip_thinking);
    let rows = tasks.iter().map(|spec| TaskRows::new(spec, data, config.limit, scorer.clone(), strip));
    let rows: Vec<TaskRows> = rows.collect();
    let run = RunArgs { out: out.clone(), fresh: args.fresh, dry_run: args.dry_run, json: args.json };
    if let Some(Log::Theirs(logs)) = &log {
        return referee::run(logs, &config, &scorer, &run.of_restart(context)?, context);
    }
    let eval = Eval { config: &config, rows: &rows, scorer: &scorer, store };
    match (&recorded, &config.server, &config.model) {
        (Some(recorded), ..) => Session::alone(&run, context, |session| eval.recorded(session, recorded)),
        (None, Some(_), Some(_)) => Err(Error::input("model", "a model directory and a server", "one of both")),
        (None, Some(server), None) => Session::alone(&run, context, |session| eval.server(session, server)),
        (None, None, Some(model)) if model.is_dir() => {
            // The ranks exchange no GPU memory.
            let dist = DistConfig { backend: Backend::Tcp, ..config.dist.clone() };
            Session::over(&run, context, &dist, |session| eval.local(session, model))
        }
        (None, None, Some(model)) => Err(Error::input("--model", model.display().to_string(), "a model directory")),
        (None, None, None) => {
            Err(Error::input("omr eval", "no --model", "a model directory, --model-url or --responses"))
        }
    }
}

/// The benchmark of one's own, if any; its scorer stands in the config then, where nothing typed says otherwise.
fn task_file(args: &Args, config: &mut EvalConfig) -> Result<Option<TaskFile>> {
    config.task_file = args.task_file.clone().or(config.task_file.take());
    let Some(path) = &config.task_file else { return Ok(None) };
    let file = task::open_file(path)?;
    if !args.tasks.is_empty() {
        let found = format!("--tasks {} and --task-file", args.tasks.join(","));
        return Err(Error::input("omr eval", found, "one of them"));
    }
    let scorer = &file.config.scorer;
    if args.mode.is_none() {
        config.mode = scorer.mode;
    }
    if !scorer.command.is_empty() {
        config.reward.command.clone_from(&scorer.command);
    }
    Ok(Some(file))
}

/// What tasks make their questions from, as a config says, or one's own benchmark.
fn source<'a>(config: &'a EvalConfig, file: Option<&'a TaskFile>) -> task::Source<'a> {
    task::Source { file: file.map(|file| file as &dyn task::OwnRows), ..task::Source::of(config) }
}

/// The tasks of the arguments, of the config, of the recorded answers, or the first of the table; their own names stand
/// in the config then.
fn tasks(
    args: &Args,
    config: &mut EvalConfig,
    recorded: Option<&Recorded>,
    file: Option<&TaskFile>,
) -> Result<Vec<&'static TaskSpec>> {
    let of_answers = recorded.map_or(&[][..], |recorded| &recorded.tasks);
    let names = [&args.tasks, &config.tasks, of_answers].into_iter().find(|names| !names.is_empty());
    let tasks = match file {
        Some(file) => vec![file.spec],
        None => names.map_or_else(|| Ok(vec![&TASKS[0]]), task::named)?,
    };
    config.tasks = tasks.iter().map(|spec| spec.name.to_owned()).collect();
    Ok(tasks)
}

/// A measurement: the tasks' rows and what is needed besides who answers.
struct Eval<'a> {
    config: &'a EvalConfig,
    rows: &'a [TaskRows<'a>],
    scorer: &'a Scorer,
    store: Arc<RunStore>,
}

/// What is measured, for people and for a dry run.
struct EvalPlan {
    model: Option<String>,
    tasks: Vec<Value>,
}

/// Where a task's answers are.
type Source<'a> = (&'a TaskRows<'a>, Box<dyn Answers + 'a>);

impl Eval<'_> {
    /// A model directory, by all ranks. What is missing is said before the first task takes its hours.
    fn local(&self, session: &mut Session, dir: &Path) -> Result<()> {
        let (context, out) = (session.context, &session.args.out);
        session.same_config(self.config)?;
        let local = Local::new(dir, self.config, context.target())?;
        let (mut jobs, mut planned) = (Vec::with_capacity(self.rows.len()), Vec::new());
        for rows in self.rows {
            let job = local::Job::new(&local, rows)?;
            let plan = job.plan()?;
            let (judge, memory) = (self.scorer.describe(), line(&plan));
            context.say(&format!("eval: {} questions of {}; {judge}; {memory}", job.questions(), rows.spec.name));
            context.say(&format!("{}: {}", rows.spec.name, job.seen()));
            planned
                .push(json!({ "task": rows.spec.name, "questions": job.questions(), "memory": memory::json(&plan) }));
            jobs.push((job, self.label(rows)));
        }
        let ask = |ranks: &mut dyn Ranks| {
            context.find_device()?;
            context.with_machine(|machine| local::ask(ranks, &jobs, out, &self.store, machine))
        };
        let sources =
            || Ok(jobs.iter().map(|(job, _)| -> Source { (job.rows, Box::new(job.asked(&self.store))) }).collect());
        let plan = EvalPlan { model: Some(dir.display().to_string()), tasks: planned };
        self.finish(session, plan, ask, sources)
    }

    /// A server.
    fn server(&self, session: &mut Session, config: &ServerConfig) -> Result<()> {
        let (context, out, store) = (session.context, &session.args.out, &self.store);
        let server = Server::new(config, context.runtime()?.handle().clone())?;
        let jobs = self.rows.iter().map(|rows| server::Job::new(&server, self.config, rows));
        let jobs: Vec<server::Job> = jobs.collect::<Result<_>>()?;
        for job in &jobs {
            let (judge, who) = (self.scorer.describe(), server.describe());
            context.say(&format!("eval: {} questions of {} to {who}; {judge}", job.questions(), job.rows.spec.name));
            context.say(&format!("{}: {}", job.rows.spec.name, job.seen()));
        }
        let task = |job: &server::Job| json!({ "task": job.rows.spec.name, "questions": job.questions() });
        let plan = EvalPlan { model: Some(server.describe()), tasks: jobs.iter().map(task).collect() };
        let ask = |_: &mut dyn Ranks| {
            let mut unanswered = Vec::new();
            for job in &jobs {
                unanswered.extend(job.ask(store, context.observer(), &self.label(job.rows))?);
            }
            server::all_answered(out, &server, &unanswered)
        };
        let sources = || Ok(jobs.iter().map(|job| -> Source { (job.rows, Box::new(job.asked(store))) }).collect());
        self.finish(session, plan, ask, sources)
    }

    /// Recorded answers.
    fn recorded(&self, session: &mut Session, recorded: &Recorded) -> Result<()> {
        let (tasks, judge) = (self.config.tasks.join(", "), self.scorer.describe());
        session.context.say(&format!("eval: recorded answers to {tasks}; {judge}"));
        let model = self.config.model.as_ref().map(|model| model.display().to_string());
        let tasks = self.rows.iter().map(|rows| json!({ "task": rows.spec.name })).collect();
        let sources =
            || Ok(self.rows.iter().map(|rows| -> Source { (rows, Box::new(recorded.of(rows.spec))) }).collect());
        self.finish(session, EvalPlan { model, tasks }, |_| Ok(()), sources)
    }

    fn label(&self, rows: &TaskRows) -> String {
        if self.rows.len() == 1 { "eval".to_owned() } else { format!("eval {}", rows.spec.name) }
    }

    /// Opens the run directory, has questions asked by all ranks and, at rank 0, the answers of `sources` scored where that
    /// is not done yet, and writes what came out.
    fn finish<'b>(
        &self,
        session: &mut Session,
        EvalPlan { model, tasks }: EvalPlan,
        ask: impl FnOnce(&mut dyn Ranks) -> Result<()>,
        sources: impl FnOnce() -> Result<Vec<Source<'b>>>,
    ) -> Result<()> {
        let (config, run, context) = (self.config, session.args, session.context);
        if run.dry_run {
            let plan = || json!({ "job": "eval", "model": model, "tasks": tasks, "judge": self.scorer.describe() });
            return run.planned(context, plan);
        }
        let (dir, summary) = (session.open(config)?, run.out.join("summary.json"));
        session.finish(
            dir,
            config,
            &summary,
            || summary.exists(),
            |ranks| {
                let begun = Instant::now();
                ask(ranks)?;
                ranks::by_first(ranks, "the scores", || {
                    let all = measured::measure(&run.out, sources()?, context.observer())?;
                    report::keep_pictures(&run.out, self.rows)?;
                    all.write(&run.out, model.as_deref(), config, begun.elapsed().as_secs_f64())?;
                    files::write(run.out.join("report.html"), report::evaluation(&[&*run.out])?.as_bytes())?;
                    all.lines().iter().for_each(|line| context.say(line));
                    Ok(())
                })
            },
        )
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
