//! `omr eval`: evaluates a model or recorded answers on tasks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::args::{Overrides, RanksArgs, RunArgs, repository};
use super::run_dir::RunDir;
use super::session::Session;
use super::stdout::print;
use super::{Context, benchmarks, rescore};
use crate::report;
use omr_base::answers::RunStore;
use omr_base::config::{Backend, DistConfig, EvalConfig, Mode, ServerConfig};
use omr_base::error::{Error, Result};
use omr_base::files::{self, Output};
use omr_base::hub::Kind;
use omr_data::reward::Scorer;
use omr_data::task::{self, GROUPS, TASKS, TaskFile, TaskRows, TaskSpec};
use omr_model::nn::family;
use omr_runtime::ranks::{self, Ranks};
use omr_train::eval::local::{self, Local};
use omr_train::eval::measured::{self, Answers};
use omr_train::eval::recorded::Recorded;
use omr_train::eval::rescore::{Log, UNKNOWN_OPENED, recognise};
use omr_train::eval::server::{self, Server};
use omr_train::eval::task_requests::TaskQuestions;
use omr_train::eval::{lmms_eval, prompts};
use omr_train::plan::memory;

/// Arguments of `omr eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Config file (YAML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Model directory. With --model-url: the name of the model on the server
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Address, up to and including /v1, of an OpenAI-compatible server to evaluate instead of a model directory
    #[arg(long, value_name = "URL")]
    model_url: Option<String>,
    /// Tasks and groups of tasks, separated by commas. --list shows their names; the default is the first one
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Your own benchmark: a YAML file with data, prompt template, gold column and scorer
    #[arg(long, value_name = "FILE")]
    task_file: Option<PathBuf>,
    /// Run directory. An unfinished run in it is continued, a finished run is left as it is
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Move an existing run in --out to another folder name and start over. Nothing is deleted
    #[arg(long)]
    fresh: bool,
    /// Check the inputs, print the plan and exit
    #[arg(long)]
    dry_run: bool,
    /// Print the plan of --dry-run as JSON on stdout
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Folder with one subfolder per task, named after the task or its data set, with the parquet files from the hub
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Download the files of the tasks into --data from the Hugging Face hub, after printing their size. Without --tasks and
    /// --config, all benchmarks. Without --out, nothing is evaluated
    #[arg(long)]
    download: bool,
    /// Prompts and scoring rules: strict, or compat to reproduce the published evaluation
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Evaluate only the first N rows of each task
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Remove the thinking part of answers before they are scored
    #[arg(long)]
    strip_thinking: bool,
    /// Write the prompts for the model to FILE, one line per question, and exit
    #[arg(long, value_name = "FILE")]
    dump_prompts: Option<PathBuf>,
    /// Replace an existing file of --dump-prompts
    #[arg(long, requires = "dump_prompts")]
    overwrite: bool,
    /// Score recorded answers without a model: a file of lines {"task", "index", "responses": [...]}, or a file or
    /// folder from lmms-eval's --log_samples or a tsv file from VLMEvalKit, whose verdicts are compared with omr's
    #[arg(long, value_name = "FILE")]
    responses: Option<PathBuf>,
    /// Also write the finished evaluation in the format of another program
    #[arg(long, value_name = "NAME")]
    format: Option<Format>,
    /// List the tasks and exit
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    pub(super) ranks: RanksArgs,
    #[command(flatten)]
    overrides: Overrides,
}

/// File format of another program.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// lmms-eval's `--log_samples`.
    LmmsEval,
}

/// Runs the evaluation and prints the path of the summary to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    evaluate(args, context)?;
    let writes = context.leads() && !(args.list || args.dry_run || args.overrides.print_config);
    match (args.format, &args.out) {
        (Some(Format::LmmsEval), Some(out)) if writes && out.join("samples.jsonl").exists() => {
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
        let name = name.ok_or_else(|| Error::input("--model", "nothing", "the name of the model on the server"))?;
        let server = [format!("server.base_url={}", json!([url])), format!("server.model={}", json!(name))];
        overrides.overrides.extend(server);
    }
    overrides.overrides.extend(args.limit.map(|limit| format!("limit={limit}")));
    overrides.overrides.extend(args.strip_thinking.then(|| "strip_thinking=true".to_owned()));
    let Some(mut config) = overrides.load::<EvalConfig>(args.config.as_deref(), None)? else { return Ok(()) };
    config.data_dir = args.data.clone().or(config.data_dir);
    config.responses = args.responses.clone().or(config.responses);
    let file = task_file(args, &mut config)?;
    file.iter().flat_map(|file| &file.notes).for_each(|note| context.say(note));
    let log = config.responses.as_deref().map(recognise).transpose()?;
    if let (Some(Log::Theirs(_)), Some(Format::LmmsEval)) = (&log, args.format) {
        return Err(Error::input("--format lmms-eval", "a log of another program", "answers of omr or a model"));
    }
    let recorded = match (&log, config.responses.as_deref()) {
        (Some(Log::Ours), Some(path)) => Some(Recorded::read(path, file.as_ref().map(|file| file.spec))?),
        _ => None,
    };
    if args.download && args.tasks.is_empty() && config.tasks.is_empty() && file.is_none() {
        config.tasks = TASKS.iter().filter(|spec| spec.hub.is_some()).map(|spec| spec.name.to_owned()).collect();
    }
    let tasks = tasks(args, &mut config, recorded.as_ref(), file.as_ref())?;
    announce_fixed(&tasks, &config, context);
    if args.download {
        benchmarks::download(&tasks, config.data_dir.as_deref(), args.dry_run, context)?;
        if args.out.is_none() || args.dry_run {
            return Ok(());
        }
    }
    if let Some(path) = &args.dump_prompts {
        return dump_prompts(path, args, &config, &tasks, file.as_ref(), context);
    }
    if config.server.is_some() || config.responses.is_some() {
        context.alone("several ranks are only supported for a model directory, not for a server or a file")?;
    }
    let Some(out) = &args.out else {
        return Err(Error::input("omr eval", "no --out", "--out with the run directory"));
    };
    if let (Some(model), None) = (&args.model, &args.model_url) {
        config.model = Some(repository(model, Kind::Model, "--model")?);
    }
    let store = RunStore::new(out);
    let judge = config.judge.as_ref();
    let scorer = match context.leads() {
        true => context.scorer(config.mode, judge, &config.reward, &config.rewards, Some(store.clone()))?,
        // The other ranks only generate answers. Rank 0 scores all of them.
        false => Arc::new(Scorer::rules(config.mode)),
    };
    config.dtype = context.dtype(config.dtype, config.model.as_deref());
    let (data, strip) = (source(&config, file.as_ref()), config.strip_thinking);
    let rows = tasks.iter().map(|spec| TaskRows::new(spec, data, config.limit, scorer.clone(), strip));
    let rows: Vec<TaskRows> = rows.collect();
    rows.iter().try_for_each(TaskRows::try_program)?;
    let run = RunArgs { out: out.clone(), fresh: args.fresh, dry_run: args.dry_run, json: args.json };
    if let Some(Log::Theirs(logs)) = &log {
        return rescore::run(logs, &config, &scorer, &run.of_restart(context)?, context);
    }
    let eval = Eval { config: &config, rows: &rows, scorer: &scorer, store };
    match (&recorded, &config.server, &config.model) {
        (Some(recorded), ..) => Session::alone(&run, context, |session| eval.recorded(session, recorded)),
        (None, Some(_), Some(_)) => Err(Error::input("model", "a model directory and a server", "only one of them")),
        (None, Some(server), None) => Session::alone(&run, context, |session| eval.server(session, server)),
        (None, None, Some(model)) if model.is_dir() => {
            // The ranks exchange no GPU memory.
            let dist = DistConfig { backend: Backend::Tcp, ..config.dist.clone() };
            Session::over(&run, context, &dist, |session| eval.local(session, model))
        }
        (None, None, Some(model)) => Err(family::not_a_directory("--model", model)),
        (None, None, None) => {
            Err(Error::input("omr eval", "no --model", "a model directory, --model-url or --responses"))
        }
    }
}

/// Writes the questions of the tasks to `path` and prints the path.
fn dump_prompts(
    path: &Path,
    args: &Args,
    config: &EvalConfig,
    tasks: &[&'static TaskSpec],
    file: Option<&TaskFile>,
    context: &Context,
) -> Result<()> {
    let inputs = [&args.config, &config.task_file, &config.data_dir].into_iter().flatten();
    let inputs: Vec<&Path> = inputs.map(PathBuf::as_path).collect();
    let to = Output::open(path, args.overwrite, &inputs)?;
    let lines = prompts::dump(&to, tasks, &source(config, file), config.limit)?;
    context.say(&format!("{lines} questions of {}", config.tasks.join(", ")));
    if to.is_stdout() { Ok(()) } else { print(&format!("{}\n", path.display())) }
}

/// Opens the user's own benchmark, if one is given. Copies its scorer to the config unless the command line sets
/// the mode, or the config has a command of its own.
fn task_file(args: &Args, config: &mut EvalConfig) -> Result<Option<TaskFile>> {
    config.task_file = args.task_file.clone().or(config.task_file.take());
    let Some(path) = &config.task_file else { return Ok(None) };
    let file = TaskFile::open(path)?;
    if !args.tasks.is_empty() {
        let found = format!("--tasks {} and --task-file", args.tasks.join(","));
        return Err(Error::input("omr eval", found, "only one of them"));
    }
    let scorer = &file.config.scorer;
    if args.mode.is_none() && !args.overrides.sets("mode") {
        config.mode = scorer.mode;
    }
    if config.reward.command.is_empty() {
        config.reward.command.clone_from(&scorer.command);
    }
    Ok(Some(file))
}

/// Returns the source of the tasks' questions: the folders of the config, or the user's own benchmark.
fn source<'a>(config: &'a EvalConfig, file: Option<&'a TaskFile>) -> task::Source<'a> {
    task::Source { file: file.map(|file| file as &dyn task::OwnRows), ..task::Source::of(config) }
}

/// Returns the tasks given by the arguments, by the config or by the recorded answers, or the first task of the table.
/// Writes their names to the config.
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

/// An evaluation: the rows of the tasks, and what is needed besides the source of the answers.
struct Eval<'a> {
    config: &'a EvalConfig,
    rows: &'a [TaskRows<'a>],
    scorer: &'a Scorer,
    store: Arc<RunStore>,
}

/// A task with the source of its answers.
type Source<'a> = (&'a TaskRows<'a>, Box<dyn Answers + 'a>);

/// Tells the user which tasks have a fixed number of answers, if the config asks for another one.
fn announce_fixed(tasks: &[&TaskSpec], config: &EvalConfig, context: &Context) {
    let fixed: Vec<_> =
        tasks.iter().filter(|spec| spec.answers != task::Answers::AsConfigured).map(|spec| spec.name).collect();
    if !fixed.is_empty() && (config.repeats, config.greedy) != (1, true) {
        context.say(&format!("repeats and greedy have no effect on {}, whose answers are fixed", fixed.join(", ")));
    }
}

/// Tells the user what is evaluated. `how` describes the judge and the place.
fn announce(context: &Context, questions: &TaskQuestions, how: &str) {
    let name = questions.rows.spec.name;
    context.say(&format!("eval: {} questions of {name}{how}", questions.count()));
    context.say(&format!("{name}: {}", questions.survey.seen.line()));
}

/// Returns the tasks of `all` with the answers in `store` as sources.
fn stored_answers<'a>(all: impl Iterator<Item = &'a TaskQuestions<'a>>, store: &'a Arc<RunStore>) -> Vec<Source<'a>> {
    all.map(|questions| -> Source { (questions.rows, Box::new(questions.requests(store))) }).collect()
}

impl Eval<'_> {
    /// Evaluates a model directory with all ranks. Missing inputs are reported before the first task starts.
    fn local(&self, session: &mut Session, dir: &Path) -> Result<()> {
        let (context, out) = (session.context, &session.args.out);
        session.same_config(self.config)?;
        let local = Local::new(dir, self.config, context.target())?;
        let (mut jobs, mut planned) = (Vec::with_capacity(self.rows.len()), Vec::new());
        for rows in self.rows {
            let job = local::Job::new(&local, rows)?;
            let (_, plan) = job.plan()?;
            job.questions.survey.warning.iter().for_each(|warning| context.say(&format!("warning: {warning}")));
            let (judge, memory) = (self.scorer.describe(), plan.line());
            announce(context, &job.questions, &format!("; {judge}; {memory}"));
            let (task, questions) = (rows.spec.name, job.questions.count());
            planned.push(json!({ "task": task, "questions": questions, "memory": memory::json(&plan) }));
            jobs.push((job, self.label(rows)));
        }
        let get_answers = |ranks: &mut dyn Ranks| {
            context.find_device()?;
            context.with_machine(|machine| local::generate_answers(ranks, &jobs, out, &self.store, machine))
        };
        let sources = || stored_answers(jobs.iter().map(|(job, _)| &job.questions), &self.store);
        self.finish(session, Some(dir.display().to_string()), planned, get_answers, sources)
    }

    /// Evaluates a server.
    fn server(&self, session: &mut Session, config: &ServerConfig) -> Result<()> {
        let (context, out, store) = (session.context, &session.args.out, &self.store);
        let server = Server::new(config, &self.config.chat_template_kwargs, context.runtime()?.handle().clone())?;
        let jobs = self.rows.iter().map(|rows| server::Job::new(&server, self.config, rows));
        let jobs: Vec<server::Job> = jobs.collect::<Result<_>>()?;
        for job in &jobs {
            let (judge, who) = (self.scorer.describe(), server.describe());
            announce(context, &job.questions, &format!(" to {who}; {judge}"));
        }
        let task =
            |job: &server::Job| json!({ "task": job.questions.rows.spec.name, "questions": job.questions.count() });
        let tasks = jobs.iter().map(task).collect();
        let get_answers = |_: &mut dyn Ranks| {
            let mut unanswered = Vec::new();
            for job in &jobs {
                unanswered.extend(job.request_answers(store, context.observer(), &self.label(job.questions.rows))?);
            }
            server::all_answered(out, &server, &unanswered)
        };
        let sources = || stored_answers(jobs.iter().map(|job| &job.questions), store);
        self.finish(session, Some(server.describe()), tasks, get_answers, sources)
    }

    /// Scores recorded answers.
    fn recorded(&self, session: &mut Session, recorded: &Recorded) -> Result<()> {
        let (tasks, judge) = (self.config.tasks.join(", "), self.scorer.describe());
        session.context.say(&format!("eval: recorded answers to {tasks}; {judge}"));
        if self.config.mode == Mode::Strict && recorded.is_opened_unknown() {
            session.context.say(UNKNOWN_OPENED);
        }
        let model = self.config.model.as_ref().map(|model| model.display().to_string());
        let tasks = self.rows.iter().map(|rows| json!({ "task": rows.spec.name })).collect();
        let sources = || self.rows.iter().map(|rows| -> Source { (rows, Box::new(recorded.of(rows.spec))) }).collect();
        self.finish(session, model, tasks, |_| Ok(()), sources)
    }

    fn label(&self, rows: &TaskRows) -> String {
        if self.rows.len() == 1 { "eval".to_owned() } else { format!("eval {}", rows.spec.name) }
    }

    /// Opens the run directory, lets all ranks generate answers, scores the answers of `sources` on rank 0 unless that
    /// is already done, and writes the results. `model` and `tasks` describe the evaluation.
    fn finish<'b>(
        &self,
        session: &mut Session,
        model: Option<String>,
        tasks: Vec<Value>,
        get_answers: impl FnOnce(&mut dyn Ranks) -> Result<()>,
        sources: impl FnOnce() -> Vec<Source<'b>>,
    ) -> Result<()> {
        let (config, run, context) = (self.config, session.args, session.context);
        if run.dry_run {
            let plan = || json!({ "job": "eval", "model": model, "tasks": tasks, "judge": self.scorer.describe() });
            return RunDir::planned(run, config, context, plan);
        }
        let (dir, summary) = (session.open(config)?, run.out.join("summary.json"));
        let work = |ranks: &mut dyn Ranks| {
            let begun = Instant::now();
            get_answers(ranks)?;
            ranks::by_first(ranks, "the scores", || {
                let all = measured::measure(&run.out, sources(), context.observer())?;
                report::keep_images(&run.out, self.rows)?;
                all.write(&run.out, model.as_deref(), config, begun.elapsed().as_secs_f64())?;
                let page = run.out.join("report.html");
                files::write(&page, report::evaluation(&[&*run.out])?.as_bytes())?;
                all.lines().iter().for_each(|line| context.say(line));
                context.say(&format!("report: {}", page.display()));
                Ok(())
            })
        };
        // A file of answers that is newer than the summary is scored again.
        let time = |file: &Path| files::size_and_time(file).ok().map(|(_, time)| time);
        let is_newer = || config.responses.as_ref().is_some_and(|file| time(file) > time(&summary));
        session.finish(dir, config, &summary, || summary.exists() && !is_newer(), work)
    }
}

/// Lists one task per line (name, aliases, description and source of its rows), then the groups.
fn list() -> String {
    let line = |task: &TaskSpec| {
        let names = std::iter::once(task.name).chain(task.aliases.iter().copied()).collect::<Vec<_>>().join(", ");
        let hub = task.hub.as_ref().map(|hub| format!(" [{}]", hub.describe())).unwrap_or_default();
        format!("{names}: {}{hub}\n", task.about)
    };
    let group = |(name, members): &(&str, &[&str])| format!("{name}: {}\n", members.join(", "));
    TASKS.iter().map(line).chain(GROUPS.iter().map(group)).collect()
}
