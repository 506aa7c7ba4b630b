//! Evaluates a model behind an OpenAI-compatible server. Requests are prepared when they are sent, and a bounded number
//! is in flight. Each answer is stored when it arrives. Missing answers are reported at the end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::questions;
use super::survey::Survey;
use super::task_requests::{AnswerSettings, TaskQuestions};
use omr_base::answers::RunStore;
use omr_base::client::{Completion, Endpoint, Failure, InFlight};
use omr_base::config::{ChatTemplateKwargs, EvalConfig, ServerConfig};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::observe::Observer;
use omr_base::philox::{Purpose, Random};
use omr_data::rows::Row;
use omr_data::task::TaskRows;
use omr_data::text::Part;

/// File in the run directory that lists the unanswered questions.
const UNANSWERED: &str = "unanswered.jsonl";

/// A server to evaluate.
pub struct Server {
    endpoint: Arc<Endpoint>,
    model: String,
    /// Variables of the chat template as a field of a request, after a comma. Empty without variables.
    variables: String,
    who: String,
    runtime: Handle,
    /// Number of answers whose limit of tokens the context of the server lowered.
    shortened: Arc<AtomicUsize>,
}

/// Questions of a task for a server.
pub struct Job<'a> {
    /// The questions.
    pub questions: TaskQuestions<'a>,
    server: &'a Server,
}

/// A missing answer: its name and the last error.
#[derive(Serialize)]
pub struct Unanswered {
    task: &'static str,
    index: u32,
    answer: String,
    what: String,
    /// True if the server would refuse the request again.
    refused: bool,
}

impl Server {
    /// Checks the address of the server.
    pub fn new(config: &ServerConfig, kwargs: &ChatTemplateKwargs, runtime: Handle) -> Result<Server> {
        let endpoint = Arc::new(Endpoint::new(&config.endpoint(), "server")?);
        let variables = kwargs.variables();
        let variables = match variables.is_empty() {
            true => String::new(),
            false => format!(",\"chat_template_kwargs\":{}", Value::from(variables)),
        };
        let who = format!("{} {}{variables}", endpoint.url(), config.model);
        Ok(Server { endpoint, model: config.model.clone(), variables, who, runtime, shortened: Arc::default() })
    }

    /// Returns model and address for the user.
    pub fn describe(&self) -> String {
        format!("{} at {}", self.model, self.endpoint.url())
    }
}

impl<'a> Job<'a> {
    /// Reads the rows once. Errors name the row.
    pub fn new(server: &'a Server, config: &EvalConfig, rows: &'a TaskRows<'a>) -> Result<Job<'a>> {
        let (survey, answer_settings) = (Survey::of(rows, None)?, AnswerSettings::of(rows.spec, config));
        Ok(Job { questions: TaskQuestions { rows, survey, answer_settings, who: &server.who, chat: None }, server })
    }

    /// Requests the answers that `store` lacks and returns those that could not be obtained. Returns an error if the
    /// server refuses all requests or if too many consecutive requests fail, and [`Error::Stopped`] if the user
    /// requests a stop. Finished answers stay stored.
    pub fn request_answers(
        &self,
        store: &Arc<RunStore>,
        observer: &dyn Observer,
        label: &str,
    ) -> Result<Vec<Unanswered>> {
        let task_requests = self.questions.requests(store);
        let (questions, missing) = task_requests.share(0, 1)?;
        let total = self.questions.answers();
        observer.begin(label, "answers", total as u64, (total - missing) as u64);
        let (server, spec) = (self.server, self.questions.rows.spec);
        let (mut done, mut in_a_row, mut unanswered) = (total - missing, 0, Vec::new());
        let take = |(i, k, result): (usize, usize, RequestResult)| {
            let (what, failures, refused) = match result? {
                Ok(()) => {
                    (in_a_row, done) = (0, done + 1);
                    observer.step(done as u64, &[("failed", unanswered.len() as f64)]);
                    return Ok(());
                }
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Refused(what)) => (what, 0, true),
                Err(Failure::Passing(what, _)) => (what, in_a_row + 1, false),
            };
            in_a_row = failures;
            let answer = self.questions.label(i, k);
            if in_a_row >= server.endpoint.patience() {
                let what = format!(
                    "{in_a_row} requests in a row failed, the last one for {answer}: {what}; received answers are \
                     stored: run the same command again to continue"
                );
                return Err(Error::Server { url: server.endpoint.url(), what });
            }
            let index = self.questions.survey.indices[i];
            unanswered.push(Unanswered { task: spec.name, index, answer, what, refused });
            Ok(())
        };
        let mut requests = InFlight::new(&server.runtime, observer, server.endpoint.concurrency(), take);
        let make = |row: Row| messages(&row);
        questions::stream(self.questions.rows, &self.questions.survey, &questions, 1, make, |next| {
            while let Some((i, messages)) = next()? {
                for k in task_requests.missing(i)? {
                    requests.send(self.request(store, i, k, &messages))?;
                }
            }
            requests.finish()
        })?;
        drop(requests);
        observer.end();
        if let shortened @ 1.. = server.shortened.swap(0, Relaxed) {
            let most = self.questions.answer_settings.max_tokens;
            observer.note(&format!(
                "{shortened} answers to {} were limited to fewer than {most} tokens, those that the context of the \
                 server has left (max_model_len)",
                spec.name
            ));
        }
        Ok(unanswered)
    }

    /// Requests answer `k` to question `i` and stores it.
    fn request(
        &self,
        store: &Arc<RunStore>,
        i: usize,
        k: usize,
        messages: &str,
    ) -> impl Future<Output = (usize, usize, RequestResult)> + Send + use<> {
        let most = self.questions.answer_settings.max_tokens as u64;
        let body = self.body(i, k, messages);
        let (endpoint, shortened) = (self.server.endpoint.clone(), self.server.shortened.clone());
        let (store, key, label) = (store.clone(), self.questions.key(i, k), self.questions.label(i, k));
        async move {
            let mut answer = endpoint.complete(&body(most), i).await;
            // The prompt with all these tokens may be longer than the context. An answer of one token counts the prompt.
            if let Err(Failure::Refused(_)) = &answer
                && let Some(limit) = endpoint.max_model_len().await
                && let Ok(Completion { prompt_tokens, .. }) = endpoint.complete(&body(1), i).await
                && let left = limit.saturating_sub(prompt_tokens)
                && (1..most).contains(&left)
            {
                answer = endpoint.complete(&body(left), i).await;
                shortened.fetch_add(answer.is_ok().into(), Relaxed);
            }
            let kept = match answer {
                Ok(answer) => store.get().and_then(|store| store.put(&key, &label, &answer)).map(Ok),
                Err(failure) => Ok(Err(failure)),
            };
            (i, k, kept)
        }
    }

    /// Makes the request body for answer `k` to question `i`, with a limit of tokens.
    fn body(&self, i: usize, k: usize, messages: &str) -> impl Fn(u64) -> Arc<str> + Send + use<> {
        let AnswerSettings { top_p, seed, .. } = self.questions.answer_settings;
        let (model, variables) = (Value::from(self.server.model.as_str()), &self.server.variables);
        let sampling = match self.questions.answer_settings.rollout(k) {
            None => "\"temperature\":0".to_owned(),
            Some(rollout) => {
                let counter = (rollout as u64) << 40 | u64::from(self.questions.survey.indices[i]);
                // The seed has 31 bits, because servers differ in the largest seed they accept.
                let seed = Random::new(seed, Purpose::Teacher, counter).next_u32() >> 1;
                format!("\"temperature\":1,\"top_p\":{top_p},\"seed\":{seed}")
            }
        };
        let before = format!("{{\"model\":{model},\"messages\":{messages},\"max_tokens\":");
        let after = format!(",{sampling}{variables}}}");
        move |max_tokens| format!("{before}{max_tokens}{after}").into()
    }
}

/// Result of a request: the answer was stored, or the reason why there is none.
type RequestResult = Result<std::result::Result<(), Failure>>;

/// Writes the missing answers to a file and returns an error about them. If there are none, removes the file.
pub fn all_answered(dir: &Path, server: &Server, unanswered: &[Unanswered]) -> Result<()> {
    let path = dir.join(UNANSWERED);
    let [first, ..] = unanswered else {
        return if path.exists() { std::fs::remove_file(&path).map_err(Error::io(&path)) } else { Ok(()) };
    };
    let lines: String = unanswered.iter().map(|answer| format!("{}\n", json!(answer))).collect();
    files::write(&path, lines.as_bytes())?;
    let (count, path, Unanswered { answer, what, .. }) = (unanswered.len(), path.display(), first);
    let advice = match unanswered.iter().all(|answer| answer.refused) {
        true => "change what the server refuses, in the settings or at the server, and run the command again",
        false => "run the same command again to request the rest",
    };
    let what = format!(
        "{count} answers are missing, for example {answer} ({what}); {path} lists them. Received answers are stored: \
         {advice}"
    );
    Err(Error::Server { url: server.endpoint.url(), what })
}

/// Converts [`Row::prompt`] to JSON, with the row's images in their original encoding.
fn messages(row: &Row) -> Result<String> {
    let mut images = row.images.iter();
    let mut messages = Vec::with_capacity(row.messages.len());
    for message in row.prompt() {
        if let [Part::Text(text)] = &message.content[..] {
            messages.push(json!({"role": message.role, "content": text}));
            continue;
        }
        let mut parts = Vec::with_capacity(message.content.len());
        for part in &message.content {
            parts.push(match part {
                Part::Text(text) => json!({"type": "text", "text": text}),
                Part::Image => {
                    let missing = || Error::input(&row.place, "too few images", "one image per image mark");
                    let url = url(&images.next().ok_or_else(missing)?.bytes(&row.place)?, &row.place)?;
                    json!({"type": "image_url", "image_url": {"url": url}})
                }
                Part::Video { .. } => return Err(Error::input(&row.place, "a video", "text and images only")),
            });
        }
        messages.push(json!({"role": message.role, "content": parts}));
    }
    Ok(Value::Array(messages).to_string())
}

fn url(bytes: &[u8], place: &str) -> Result<String> {
    let format = image::guess_format(bytes)
        .map_err(|e| Error::input(place, format!("unreadable image data ({e})"), "an image in a known format"))?;
    Ok(format!("data:{};base64,{}", format.to_mime_type(), STANDARD.encode(bytes)))
}
