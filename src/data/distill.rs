//! Distillation: questions to a teacher, its answers repaired and verified against the labels, the right ones kept.
//!
//! A run writes, whole: `<dataset>.parquet` (kept rows in SFT form), `rejected.jsonl`, `summary.json`; and as it
//! goes `cache.jsonl`, from which a run that was stopped goes on. What it writes does not depend on the order in
//! which answers arrive.

mod ask_all;
mod cache;
mod repair;
mod request;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

pub use ask_all::{Answer, Build, Request, ask_all};
pub use cache::Cache;
pub use repair::{Malformed, Repaired, repair};
pub use request::{clean, label};

use crate::answers::RunStore;
use crate::client::Endpoint;
use crate::config::{DataConfig, EndpointConfig, Mode};
use crate::data::sample::SYSTEM_PROMPT;
use crate::data::{Form, Row, read, write};
use crate::error::{Error, Result};
use crate::files;
use crate::observe::Observer;
use crate::reward::judge::{self, Ruling};
use crate::reward::{self, Score};
use crate::text::Message;

/// What a run came to: `in * num_rollouts = kept + the rejected + unjudged`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Rows read.
    #[serde(rename = "in")]
    pub rows: usize,
    /// Answers kept.
    pub kept: usize,
    /// Answers rejected, by reason.
    pub rejected: BTreeMap<String, usize>,
    /// Answers the rules call wrong and a judge was asked about without success.
    pub unjudged: usize,
    /// Requests to the teacher, by this run and by those it goes on from.
    pub requests: usize,
    /// Tokens the teacher wrote, by its count.
    pub tokens: u64,
    /// The judge and what it said; null where none was asked.
    #[serde(default)]
    pub judge: Option<judge::Summary>,
}

/// One of a row's answers.
struct Draft {
    dataset: usize,
    index: usize,
    rollout: usize,
    verdict: Verdict,
}

enum Verdict {
    Kept(String),
    Rejected(&'static str, String),
    /// Wrong by the rules, for a judge: the repaired text, its answer and the rules' score.
    Doubted(String, String, Score),
    Unjudged(String),
}

/// How often a stop by the user is looked for while nothing arrives.
const LOOK: Duration = Duration::from_millis(100);

/// Distillation with its rows read and its servers checked.
pub struct Job {
    config: DataConfig,
    sets: Vec<(String, Arc<Vec<Row>>)>,
    teacher: EndpointConfig,
    endpoint: Arc<Endpoint>,
}

/// Runs distillation into `out`: [`Job::new`], then [`Job::run`].
pub async fn run(config: &DataConfig, out: &Path, observer: &dyn Observer) -> Result<Summary> {
    Job::new(config)?.run(out, observer).await
}

impl Job {
    /// Reads the rows. Errors name the config key, or the file and row, that is at fault.
    pub fn new(config: &DataConfig) -> Result<Job> {
        let teacher = config.teacher.clone().ok_or_else(|| {
            Error::input("teacher", "nothing", "an OpenAI-compatible server: teacher.base_url and teacher.model")
        })?;
        let endpoint = Arc::new(Endpoint::new(&teacher, "teacher")?);
        if let Some(judge) = &config.judge {
            judge::Client::new(judge, "judge", None)?;
        }
        Ok(Job { config: config.clone(), sets: datasets(config)?, teacher, endpoint })
    }

    /// Rows to ask about.
    pub fn questions(&self) -> usize {
        self.sets.iter().map(|(_, rows)| rows.len()).sum()
    }

    /// Runs the job into `out`, within a tokio runtime. `Error::Stopped` when the observer asks to stop: everything
    /// answered is in the cache then. A teacher that is down is an error; single requests that fail are counted.
    pub async fn run(&self, out: &Path, observer: &dyn Observer) -> Result<Summary> {
        std::fs::create_dir_all(out).map_err(Error::io(out))?;
        let mut cache = Cache::open(&out.join("cache.jsonl"))?;
        let (mut drafts, mut summary) = self.ask(&mut cache, observer).await?;
        drafts.sort_by_key(|d| (d.dataset, d.index, d.rollout));
        summary.judge = judge(&self.config, out, &self.sets, &mut drafts, observer).await?;
        summary.rows = self.questions();
        finish(&self.config, out, &self.sets, drafts, summary)
    }

    /// Asks the teacher about every row with a label, and holds its answers against them.
    async fn ask(&self, cache: &mut Cache, observer: &dyn Observer) -> Result<(Vec<Draft>, Summary)> {
        let config = &self.config;
        let mut drafts = Vec::new();
        let mut summary = Summary::default();
        for (dataset, (name, rows)) in self.sets.iter().enumerate() {
            let labels: Vec<Option<String>> = rows.iter().map(label).collect();
            let asked: Arc<Vec<usize>> = Arc::new((0..rows.len()).filter(|&i| labels[i].is_some()).collect());
            let questions = request::Questions::new(name, rows.clone(), &self.teacher, config.seed);
            let n = config.num_rollouts;
            let build: Arc<Build> = {
                let (asked, name, rows) = (asked.clone(), name.clone(), rows.clone());
                Arc::new(move |item| {
                    let (index, rollout) = (asked[item / n], item % n);
                    let body = questions.body(index, rollout)?;
                    Ok(Request { label: format!("{name} {} rollout {rollout}", rows[index].id), body })
                })
            };
            let answers = ask_all(self.endpoint.clone(), "distill", asked.len() * n, build, cache, observer).await?;
            for answer in &answers {
                if let Answer::Given(completion) = answer {
                    summary.tokens += completion.completion_tokens;
                }
            }
            summary.requests += answers.len();
            for index in (0..rows.len()).filter(|&i| labels[i].is_none()) {
                let verdict = || Verdict::Rejected("no_label", "neither a ground truth nor an answer".to_owned());
                drafts.extend((0..n).map(|rollout| Draft { dataset, index, rollout, verdict: verdict() }));
            }
            drafts.par_extend(answers.into_par_iter().enumerate().map(|(item, answer)| {
                let (index, rollout) = (asked[item / n], item % n);
                let label = labels[index].as_deref().unwrap_or_default();
                Draft { dataset, index, rollout, verdict: verify(answer, label, &rows[index], config.mode) }
            }));
        }
        Ok((drafts, summary))
    }
}

/// The rows of each data set, by name. Errors when two share a name, as they would share an output.
fn datasets(config: &DataConfig) -> Result<Vec<(String, Arc<Vec<Row>>)>> {
    if config.datasets.is_empty() {
        return Err(Error::input("datasets", "nothing", "at least one data set"));
    }
    let mut sets: Vec<(String, Arc<Vec<Row>>)> = Vec::new();
    for entry in &config.datasets {
        let name = read::name(entry);
        if sets.iter().any(|(other, _)| *other == name) {
            let expected = "file names that differ before their ending: they name the outputs";
            return Err(Error::input("datasets", format!("two data sets named {name}"), expected));
        }
        sets.push((name, Arc::new(read::read(entry)?)));
    }
    Ok(sets)
}

fn verify(answer: Answer, label: &str, row: &Row, mode: Mode) -> Verdict {
    let completion = match answer {
        Answer::Given(completion) => completion,
        Answer::Failed(what) => return Verdict::Rejected("teacher_error", what),
    };
    if completion.text.trim().is_empty() {
        return Verdict::Rejected("empty_response", completion.finish_reason);
    }
    let start = |text: &str| text.chars().take(200).collect::<String>();
    let repaired = match repair(&completion.text) {
        Ok(repaired) => repaired,
        Err(_) if completion.finish_reason == "length" => {
            return Verdict::Rejected("truncated", start(&completion.text));
        }
        Err(Malformed::NoThink) => return Verdict::Rejected("no_think", start(&completion.text)),
        Err(Malformed::NoAnswer) => return Verdict::Rejected("no_answer", start(&completion.text)),
    };
    let score = reward::score(&repaired.text, label, Some(&row.question()), mode);
    if score.acc_score > 0.0 {
        Verdict::Kept(repaired.text)
    } else {
        Verdict::Doubted(repaired.text, repaired.answer, score)
    }
}

/// Asks the judge, if there is one, about every answer the rules call wrong; what it came to.
async fn judge(
    config: &DataConfig,
    out: &Path,
    sets: &[(String, Arc<Vec<Row>>)],
    drafts: &mut [Draft],
    observer: &dyn Observer,
) -> Result<Option<judge::Summary>> {
    let Some(judge) = &config.judge else {
        for draft in drafts {
            settle(draft, sets, None);
        }
        return Ok(None);
    };
    let client = judge::Client::new(judge, "judge", Some(RunStore::new(out)))?;
    let mut summary = judge::Summary::new(client.model());
    let mut asking = JoinSet::new();
    for (i, draft) in drafts.iter().enumerate() {
        let row = &sets[draft.dataset].1[draft.index];
        if let Verdict::Doubted(text, _, score) = &draft.verdict {
            let (client, text, score, mode) = (client.clone(), text.clone(), score.clone(), config.mode);
            let (question, label) = (clean(&row.question()), label(row).unwrap_or_default());
            asking.spawn(async move {
                let question = Some(question.as_str()).filter(|q| !q.is_empty());
                (i, client.score(score, &text, &label, question, mode).await)
            });
        }
    }
    let total = asking.len() as u64;
    observer.begin("judge", "answers", total, 0);
    while !asking.is_empty() {
        if observer.stop_requested() {
            return Err(Error::Stopped);
        }
        let Ok(Some(told)) = tokio::time::timeout(LOOK, asking.join_next()).await else { continue };
        let (i, judged) = told.map_err(|e| Error::Failed(format!("judge: {e}")))?;
        let judged = judged?;
        summary.count(judged.judge.as_ref());
        settle(&mut drafts[i], sets, judged.judge);
        observer.step(summary.used, &[("right", summary.hits as f64), ("unjudged", summary.unjudged as f64)]);
    }
    observer.end();
    if summary.unjudged > 0 {
        observer.note(&format!("judge: {} of {total} answers unjudged; run again to ask again", summary.unjudged));
    }
    Ok(Some(summary))
}

/// What becomes of an answer the rules call wrong, after the judge's word on it.
fn settle(draft: &mut Draft, sets: &[(String, Arc<Vec<Row>>)], ruling: Option<Ruling>) {
    let row = &sets[draft.dataset].1[draft.index];
    let Verdict::Doubted(text, answer, _) = &mut draft.verdict else { return };
    draft.verdict = match ruling {
        Some(Ruling::Unjudged(what)) => Verdict::Unjudged(what),
        Some(ruling) if ruling.is_hit() => Verdict::Kept(std::mem::take(text)),
        _ => {
            let detail = format!("answered {answer}, the label is {}", label(row).unwrap_or_default());
            Verdict::Rejected("wrong_answer", detail)
        }
    };
}

/// Writes the outputs, the summary last: where it stands, the run is done.
fn finish(
    config: &DataConfig,
    out: &Path,
    sets: &[(String, Arc<Vec<Row>>)],
    drafts: Vec<Draft>,
    mut summary: Summary,
) -> Result<Summary> {
    let mut kept: Vec<Vec<Row>> = vec![Vec::new(); sets.len()];
    let (mut rejected, mut unjudged) = (String::new(), String::new());
    for draft in drafts {
        let (name, rows) = &sets[draft.dataset];
        let row = &rows[draft.index];
        let line = |reason: &str, detail: &str| {
            let line = json!({"dataset": name, "index": draft.index, "id": row.id, "rollout": draft.rollout,
                "reason": reason, "detail": detail});
            format!("{line}\n")
        };
        match draft.verdict {
            Verdict::Kept(text) => {
                kept[draft.dataset].push(sft_row(config, name, row, draft.index, draft.rollout, text))
            }
            Verdict::Rejected(reason, detail) => {
                *summary.rejected.entry(reason.to_owned()).or_default() += 1;
                rejected.push_str(&line(reason, &detail));
            }
            Verdict::Unjudged(detail) => {
                summary.unjudged += 1;
                unjudged.push_str(&line("unjudged", &detail));
            }
            Verdict::Doubted(..) => return Err(Error::Failed("an answer was left without a verdict".to_owned())),
        }
    }
    for ((name, _), rows) in sets.iter().zip(&kept) {
        summary.kept += rows.len();
        write(&out.join(format!("{name}.parquet")), rows, Form::Sft)?;
    }
    files::write(out.join("rejected.jsonl"), rejected.as_bytes())?;
    let doubts = out.join("unjudged.jsonl");
    if !unjudged.is_empty() {
        files::write(doubts, unjudged.as_bytes())?;
    } else if doubts.exists() {
        // Of an earlier run of this job, when the judge was down: all has been judged since.
        std::fs::remove_file(&doubts).map_err(Error::io(&doubts))?;
    }
    let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Failed(format!("summary: {e}")))?;
    files::write(out.join("summary.json"), (text + "\n").as_bytes())?;
    let sum: usize = summary.rejected.values().sum();
    if summary.rows * config.num_rollouts != summary.kept + sum + summary.unjudged {
        return Err(Error::Failed(format!("the summary does not add up: {summary:?}")));
    }
    Ok(summary)
}

/// A kept answer as a row: the system prompt of training, the row's own messages, the repaired text. `extra_info`
/// leads back to the source row.
fn sft_row(config: &DataConfig, dataset: &str, row: &Row, index: usize, rollout: usize, text: String) -> Row {
    let system = config.system_prompt.as_deref().unwrap_or(SYSTEM_PROMPT);
    let asked = row.messages.iter().rposition(|m| m.role == "user").map_or(0, |last| last + 1);
    let mut messages = Vec::with_capacity(asked + 2);
    if !system.is_empty() {
        messages.push(Message::text("system", system));
    }
    messages.extend(row.messages[..asked].iter().filter(|m| system.is_empty() || m.role != "system").cloned());
    messages.push(Message::text("assistant", text));
    let mut extra = row.extra.clone();
    let source = [("dataset", Value::from(dataset)), ("row", Value::from(index)), ("rollout", Value::from(rollout))];
    extra.extend(source.map(|(key, value)| (key.to_owned(), value)));
    Row { messages, extra, ..row.clone() }
}
