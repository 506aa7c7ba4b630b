//! Answers without a server: one question, whose answer is streamed, or a file of questions. Finished answers are kept on
//! disk, and lines are read when their turn comes, so memory does not depend on the number of lines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::answer::Answer;
use super::app::Options;
use super::batch_line::{Failure, Lines, Outcome, Spot, content};
use super::errors::ApiError;
use super::fields::Fields;
use super::requests::{Prepared, question};
use super::server::UnloadedServer;
use super::sizes::Needs;
use omr_base::config::{GenerateConfig, deciding};
use omr_base::error::{Error, Result};
use omr_base::identity;
use omr_base::observe::Observer;
use omr_data::image::JPEG_DECODER;
use omr_data::rows::files::folder::Folder;
use omr_data::rows::readers::json::jsonl;
use omr_model::llm::{Journal, Line, Reader};
use omr_runtime::machine::Machine;

/// Number of choices that are prepared while the engine is full.
const AHEAD: usize = 16;

/// A model that answers questions.
pub struct Batch {
    /// Model directory.
    pub model: PathBuf,
    /// The model as the user named it.
    pub root: String,
    /// Settings.
    pub config: GenerateConfig,
}

impl Batch {
    /// Answers one question about images and passes the text to `put` while it is generated.
    pub fn stream(
        &self,
        text: &str,
        images: &[PathBuf],
        mut put: impl FnMut(&str) -> Result<()> + Send + 'static,
        machine: &Machine,
    ) -> Result<()> {
        let (mut draft, reader) = self.draft(None, machine)?;
        let mut parameters = self.config.parameters();
        parameters.insert("seed".to_owned(), json!(self.config.seed));
        let refused = |error: ApiError| Error::format("--prompt", error.message);
        let mut fields = Fields::new(Value::Object(parameters), "").map_err(refused)?;
        let mut request = question(&draft.app, &mut fields, reader.question(text, images)?).map_err(refused)?;
        request.output.stream = true;
        draft.needs.get_or_insert_default().add(&request);
        let server = draft.load(machine)?;
        let app = server.app.clone();
        server.with_client(machine, async move {
            let failed = |error: ApiError| Error::Failed(error.message);
            let mut answer = Answer::begin(&app, request).map_err(failed)?;
            while let Some((_, delta)) = answer.next().await.map_err(failed)? {
                put(&delta.text)?;
            }
            if answer.was_aborted { Err(Error::Stopped) } else { put("\n") }
        })
    }

    /// Answers the questions in the file `questions`, except those that the file `out` answers already. `fresh` and
    /// `overwrite` are those of [`Journal::open`]. Returns the numbers of answered and skipped lines. Errors if no line can be
    /// answered, or if more lines have errors than `max_bad_rows` allows.
    pub fn answer(
        &self,
        questions: &Path,
        out: &Path,
        fresh: bool,
        overwrite: bool,
        machine: &Machine,
    ) -> Result<[u64; 2]> {
        let mut spots = Vec::new();
        jsonl(questions, usize::MAX, |at, _| {
            let content = blake3::Hash::from_bytes([0; 32]);
            spots.push(Spot { number: at.number as u64, offset: at.offset, choices: 1, content });
            Ok(())
        })?;
        if spots.is_empty() {
            return Err(Error::input(questions, "no questions", "one line per question"));
        }
        let hash = identity::hash(questions)?;
        let folder = omr_base::files::parent(questions);
        let (mut draft, reader) = self.draft(Some(folder.to_owned()), machine)?;
        let inputs = [
            ("content of --jsonl", hash[..32].to_owned()),
            ("content of --model", draft.app.weights()),
            ("device", format!("{:?}", machine.target.kind).to_lowercase()),
            ("JPEG decoder", JPEG_DECODER.to_owned()),
        ];
        let mut settings: Map<String, Value> =
            inputs.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        settings.extend(serde_json::from_str::<Map<String, Value>>(&deciding(&self.config)).unwrap_or_default());
        let mut journal = Journal::open(out, questions, settings, fresh, overwrite)?;
        if let Some(counts) = journal.finished {
            machine.observer.note(&format!("{} is finished already", out.display()));
            return self.check(counts, None);
        }
        let [answered, bad] = journal.counts();
        if answered + bad > 0 {
            machine.observer.note(&format!("{answered} lines are answered already, {bad} are skipped"));
        }
        let lines = Arc::new(Lines {
            app: draft.app.clone(),
            reader,
            folder: Folder::open(folder)?,
            file: questions.to_owned(),
            hash,
            parameters: self.config.parameters(),
            variables: self.config.chat_template_kwargs.variables(),
            seed: self.config.seed,
            created: journal.created,
        });
        // Lines that are answered already are read, too, because their images may have changed since.
        let survey = Survey::of(&lines, spots, machine.threads, machine.observer);
        let Survey { needs, mut todo, bad: wrong, first, other_model } = (machine.runtime)()?.block_on(survey)?;
        let mut images = blake3::Hasher::new();
        for spot in &todo {
            images.update(spot.content.as_bytes());
        }
        journal.depends_on("content of the images", images.finalize().to_hex()[..32].to_owned())?;
        let first = first.map(|(number, error)| format!("{} line {number}: {error}", questions.display()));
        self.check([todo.len() as u64 - wrong, wrong], first)?;
        todo.retain(|spot| !journal.has(spot.number));
        if let Some(name) = other_model {
            machine.observer.note(&format!("lines ask for the model {name}; {} answers them", self.root));
        }
        if todo.is_empty() {
            return self.check(journal.finish()?, None);
        }
        draft.needs = Some(needs);
        let server = draft.load(machine)?;
        let done = answered + bad;
        machine.observer.begin("generate", "answers", done + todo.len() as u64, done);
        let (progress, outcomes) = mpsc::channel();
        let window = self.config.max_num_seqs.saturating_add(AHEAD);
        let job = Job { lines, todo, window, journal, progress };
        let journal = std::thread::scope(|scope| {
            let observer = machine.observer;
            scope.spawn(move || show(outcomes, done, questions, observer));
            server.with_client(machine, job.run())
        })?;
        machine.observer.end();
        self.check(journal.finish()?, None)
    }

    /// Reads everything of the model besides the weights. `media` is the folder from which images may be loaded.
    fn draft(&self, media: Option<PathBuf>, machine: &Machine) -> Result<(UnloadedServer, Reader)> {
        let reader = Reader::open(&self.model, &self.config)?;
        let options = Options {
            model: self.model.clone(),
            root: self.root.clone(),
            config: self.config.engine(),
            max_tokens: Some(self.config.max_tokens),
            allowed_local_media_path: media,
            ..Options::default()
        };
        let mut draft = UnloadedServer::new(options, machine)?;
        // After a stop request, what is not finished is generated again later.
        draft.drain = Duration::ZERO;
        Ok((draft, reader))
    }

    /// Errors unless enough lines have answers. `first` describes a line without one.
    fn check(&self, counts: [u64; 2], first: Option<String>) -> Result<[u64; 2]> {
        let ([answered, bad], most) = (counts, self.config.max_bad_rows);
        let all = answered + bad;
        if answered > 0 && bad as f64 <= most * all as f64 {
            return Ok(counts);
        }
        let found = format!("{bad} lines of {all} that cannot be answered");
        let expected = if answered == 0 {
            "a line that can".to_owned()
        } else {
            format!("at most {} % of the lines", most * 100.0)
        };
        let hint = first
            .map_or("their places in the output state the errors".to_owned(), |first| format!("the first: {first}"));
        Err(Error::input_hint("max_bad_rows", found, expected, hint))
    }
}

/// Result of one pass over the lines before the model is loaded.
#[derive(Default)]
struct Survey {
    needs: Needs,
    /// The lines with their numbers of choices.
    todo: Vec<Spot>,
    bad: u64,
    /// The first line with an error, and the error.
    first: Option<(u64, String)>,
    /// Another model that a line asks for.
    other_model: Option<String>,
}

impl Survey {
    /// Parses lines, several at a time, and keeps only their sizes.
    async fn of(lines: &Arc<Lines>, todo: Vec<Spot>, together: usize, observer: &dyn Observer) -> Result<Survey> {
        let (mut survey, mut tasks, mut rest) = (Survey::default(), JoinSet::new(), todo.into_iter());
        loop {
            while tasks.len() < together
                && let Some(spot) = rest.next()
            {
                let lines = lines.clone();
                tasks.spawn(async move { (spot, lines.request(spot).await) });
            }
            let Some(done) = tasks.join_next().await else { break };
            let (spot, request) = done.map_err(|e| Error::Failed(format!("the parser of a line: {e}")))?;
            survey.add(spot, request, &lines.app.options.root)?;
            observer.check_stop()?;
        }
        survey.todo.sort_unstable_by_key(|spot| spot.number);
        Ok(survey)
    }

    fn add(&mut self, spot: Spot, request: std::result::Result<(Line, Prepared), Failure>, root: &str) -> Result<()> {
        let (mut choices, mut hash) = (1, spot.content);
        match request {
            Ok((line, prepared)) => {
                choices = prepared.prompts.len() * prepared.sampling.n;
                hash = content(&line, &prepared);
                self.needs.add(&prepared);
                let model = line.get("body").and_then(|body| body.get("model")?.as_str());
                self.other_model = self.other_model.take().or(model.filter(|name| *name != root).map(str::to_owned));
            }
            Err(Failure::Run(error)) => return Err(error),
            Err(Failure::Line(error)) => {
                self.bad += 1;
                if self.first.as_ref().is_none_or(|(number, _)| spot.number < *number) {
                    self.first = Some((spot.number, error.message));
                }
            }
        }
        self.todo.push(Spot { choices, content: hash, ..spot });
        Ok(())
    }
}

/// The lines that wait for answers, and the answers.
struct Job {
    lines: Arc<Lines>,
    todo: Vec<Spot>,
    /// Maximum number of choices in flight.
    window: usize,
    journal: Journal,
    /// Receives what was written to the journal.
    progress: Sender<Outcome>,
}

impl Job {
    /// Answers the lines. At most `window` choices are in flight, unless a single line has more.
    async fn run(mut self) -> Result<Journal> {
        let (mut tasks, mut in_flight) = (JoinSet::new(), 0);
        for spot in std::mem::take(&mut self.todo) {
            while in_flight > 0 && in_flight + spot.choices > self.window {
                in_flight -= self.take(&mut tasks).await?;
            }
            in_flight += spot.choices;
            let lines = self.lines.clone();
            tasks.spawn(async move { lines.answer(spot).await });
        }
        while !tasks.is_empty() {
            self.take(&mut tasks).await?;
        }
        Ok(self.journal)
    }

    /// Waits for an outcome and keeps it. Returns its number of choices.
    async fn take(&mut self, tasks: &mut JoinSet<Result<Outcome>>) -> Result<usize> {
        let Some(done) = tasks.join_next().await else { return Ok(0) };
        let outcome = done.map_err(|e| Error::Failed(format!("a line: {e}")))??;
        let Spot { number, choices, .. } = outcome.spot;
        self.journal.add(number, outcome.error.is_some(), &outcome.value)?;
        // Nobody listens after an error of the engine.
        let _ = self.progress.send(outcome);
        Ok(choices)
    }
}

/// Shows the outcomes to the user. `done` lines have an answer already.
fn show(outcomes: Receiver<Outcome>, mut done: u64, file: &Path, observer: &dyn Observer) {
    let (begun, mut tokens) = (Instant::now(), 0);
    for outcome in outcomes {
        if let Some(error) = &outcome.error {
            observer.note(&format!("{} line {} is skipped: {error}", file.display(), outcome.spot.number));
        }
        (done, tokens) = (done + 1, tokens + outcome.tokens);
        observer.step(done, &[("tok/s", tokens as f64 / begun.elapsed().as_secs_f64())]);
    }
}
