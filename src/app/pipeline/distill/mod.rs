//! Stage `distill`: requests answers from a teacher, repairs them, verifies them against the labels and keeps the
//! correct ones.
//!
//! First, every question without an answer in the run's store is requested. Then one pass over the rows writes the
//! output from the store. Therefore the output does not depend on the order in which answers arrive or on interruptions
//! of the run.

mod question;
mod repair;
mod requests;

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

pub use question::clean;
use repair::repair;

use crate::pipeline::distill::question::Question;
use crate::pipeline::distill::requests::{Distill, NoAnswer};
use crate::pipeline::files::Rejection;
use crate::pipeline::pass::{Fate, Numbered, pass};
use crate::pipeline::stage::{Stage, StageJob, Work};
use crate::pipeline::summary::Summary;
use omr_base::answers::{Key, RunStore};
use omr_base::client::{Completion, Endpoint};
use omr_base::config::{DistillConfig, EndpointConfig};
use omr_base::error::{Error, Result};
use omr_data::reward::{Item, Mode, judge};
use omr_data::rows::Row;
use omr_data::rows::forms::answer::label;
use omr_data::rows::samples::sample::SYSTEM_PROMPT;
use omr_data::text::Message;
use omr_runtime::machine::Machine;

impl Stage for DistillConfig {
    fn outcomes(&self) -> usize {
        self.num_rollouts
    }

    fn job<'a>(&'a self, _: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>> {
        let teacher = self.teacher.as_ref().ok_or_else(|| {
            Error::input("teacher", "nothing", "an OpenAI-compatible server: teacher.base_url and teacher.model")
        })?;
        let endpoint = Arc::new(Endpoint::new(teacher, "teacher")?);
        if let Some(judge) = &self.judge {
            judge::Client::new(judge, "judge", None)?;
        }
        Ok(Box::new(Distill { config: self, teacher, endpoint }))
    }
}

impl StageJob for Distill<'_> {
    fn describe(&self) -> String {
        let judge = self.config.judge.as_ref().map_or("judge off".to_owned(), |judge| format!("judge {}", judge.model));
        format!("{} answers per row from {}; {judge}", self.config.num_rollouts, self.teacher.model)
    }

    fn run(&mut self, work: &Work) -> Result<Summary> {
        let store = work.store()?;
        let missing = self.request_all(work, &store)?;
        self.write(work, store, &missing)
    }

    /// Shards are merged by running the stage: their answers are in the store, and requests that failed are repeated.
    fn gathers(&self) -> bool {
        true
    }

    fn is_final(&self, summary: &Summary) -> bool {
        let open = ["teacher_error", "empty_response"].iter().any(|reason| summary.rejected.contains_key(*reason));
        !open && summary.unjudged == 0
    }
}

/// An answer to a row before scoring: a repaired text that must be scored, or the reason why it is rejected.
type Draft = std::result::Result<String, Rejection>;

/// The drafts of a row with its label, or the fate of a row that cannot be requested.
type Drafts = std::result::Result<(Numbered, String, Vec<Draft>), Fate>;

impl Distill<'_> {
    /// Scores the answers in the store and writes the output. `missing` contains the answers that the teacher did not
    /// give.
    fn write(&self, work: &Work, store: Arc<RunStore>, missing: &HashMap<Key, NoAnswer>) -> Result<Summary> {
        let (config, teacher) = (self.config, self.teacher);
        let scorer = work.scorer(config.mode, &config.judge, store.clone())?;
        let mut judge_summary = scorer.judge().map(judge::Summary::new);
        let (mut requests, mut tokens) = (0, 0);
        let mut summary = pass(work, &mut |input, rows| {
            let look = |numbered: Numbered| drafts(config, teacher, numbered, &store, missing);
            let drafts: Vec<(Drafts, usize, u64)> = rows.into_par_iter().map(look).collect::<Result<_>>()?;
            let items = drafts
                .iter()
                .filter_map(|(drafts, ..)| drafts.as_ref().ok())
                .flat_map(|(row, label, drafts)| drafts.iter().flatten().map(|text| item(&row.row, label, text)));
            let mut scored = scorer.score_all(items.collect()).into_iter();
            let mut fates = Vec::with_capacity(drafts.len());
            for (drafts, sent, answer_tokens) in drafts {
                (requests, tokens) = (requests + sent, tokens + answer_tokens);
                let (numbered, label, drafts) = match drafts {
                    Ok(drafts) => drafts,
                    Err(fate) => {
                        fates.push(self.repeated(fate));
                        continue;
                    }
                };
                let mut row = Vec::with_capacity(drafts.len());
                for (rollout, draft) in drafts.into_iter().enumerate() {
                    row.push(match draft {
                        Err(rejection) => Fate::Rejected(rejection),
                        Ok(text) => {
                            let lost = || Err(Error::Failed("an answer was not scored".to_owned()));
                            let judged = scored.next().unwrap_or_else(lost)?;
                            judge_summary
                                .iter_mut()
                                .for_each(|judge_summary| judge_summary.count(judged.judge.as_ref()));
                            let row = || {
                                let row = self.sft_row(&input.name, &numbered, rollout, text);
                                // The label may be the answer of the source, which is no part of the row.
                                Row { ground_truth: Some(label.clone()), ..row }
                            };
                            Fate::of_answer(judged, &label, Some(rollout), row)
                        }
                    });
                }
                fates.push(row);
            }
            Ok(fates)
        })?;
        (summary.judge, summary.requests, summary.tokens) = (judge_summary, requests, tokens);
        if summary.unjudged > 0 {
            let line =
                format!("judge: {} answers unjudged; run the same command again to judge them", summary.unjudged);
            work.machine.observer.note(&line);
        }
        Ok(summary)
    }

    /// Returns the fates of a row for which nothing was requested. A rejection is repeated for each answer that the row
    /// would have had; a bad row has one fate.
    fn repeated(&self, fate: Fate) -> Vec<Fate> {
        match fate {
            Fate::Rejected(Rejection { reason, detail, .. }) => (0..self.config.num_rollouts)
                .map(|k| Fate::Rejected(Rejection { reason, detail: detail.clone(), rollout: Some(k) }))
                .collect(),
            other => vec![other],
        }
    }

    /// Converts a kept answer to a row: the system prompt for training, the row's own messages, and the repaired text.
    /// `extra_info` refers to the source row.
    fn sft_row(&self, dataset: &str, numbered: &Numbered, rollout: usize, text: String) -> Row {
        let Numbered { index, row } = numbered;
        let system = self.config.system_prompt.as_deref().unwrap_or(SYSTEM_PROMPT);
        let question_end = row.messages.iter().rposition(|m| m.role == "user").map_or(0, |last| last + 1);
        let mut messages = Vec::with_capacity(question_end + 2);
        if !system.is_empty() {
            messages.push(Message::text("system", system));
        }
        messages
            .extend(row.messages[..question_end].iter().filter(|m| system.is_empty() || m.role != "system").cloned());
        messages.push(Message::text("assistant", text));
        let mut extra = row.extra.clone();
        let source =
            [("dataset", Value::from(dataset)), ("row", Value::from(*index)), ("rollout", Value::from(rollout))];
        extra.extend(source.map(|(key, value)| (key.to_owned(), value)));
        Row { messages, extra, ..row.clone() }
    }
}

/// Returns the stored answers of a row as drafts, the number of requests and the number of completion tokens.
fn drafts(
    config: &DistillConfig,
    teacher: &EndpointConfig,
    numbered: Numbered,
    store: &RunStore,
    missing: &HashMap<Key, NoAnswer>,
) -> Result<(Drafts, usize, u64)> {
    let n = config.num_rollouts;
    let Some(label) = label(&numbered.row) else {
        return Ok((Err(Fate::Rejected(Rejection::row("no_label", "neither a ground truth nor an answer"))), 0, 0));
    };
    let question = match Question::new(&numbered.row, config.teacher_system_prompt.as_deref()) {
        Ok(question) => question,
        Err(bad) => return Ok((Err(Fate::Bad(bad)), 0, 0)),
    };
    let (mut drafts, mut tokens) = (Vec::with_capacity(n), 0);
    for rollout in 0..n {
        let key = question.key(teacher, config.seed, rollout);
        let rejection = |reason, detail: String| Err(Rejection { reason, detail, rollout: Some(rollout) });
        drafts.push(match (store.get()?.get(&key)?, missing.get(&key)) {
            (Some(completion), _) => {
                tokens += completion.completion_tokens;
                draft(&completion, config.mode, rejection)
            }
            (None, Some(NoAnswer::Bad(bad))) => return Ok((Err(Fate::Bad(bad.again())), 0, 0)),
            (None, Some(NoAnswer::Failed(what))) => rejection("teacher_error", what.clone()),
            (None, Some(NoAnswer::Refused(what))) => rejection("refused", what.clone()),
            (None, Some(NoAnswer::Empty(completion))) => {
                tokens += completion.completion_tokens;
                rejection("empty_response", completion.finish_reason.clone())
            }
            (None, None) => return Err(Error::Failed(format!("{}: no answer was requested", numbered.row.place))),
        });
    }
    Ok((Ok((numbered, label, drafts)), n, tokens))
}

/// Repairs a completion. `rejection` creates a rejection from a reason and a detail.
fn draft(completion: &Completion, mode: Mode, rejection: impl Fn(&'static str, String) -> Draft) -> Draft {
    let start = |text: &str| text.chars().take(200).collect::<String>();
    match repair(&completion.text, mode) {
        Ok(repaired) => Ok(repaired),
        Err(_) if completion.finish_reason == "length" => rejection("truncated", start(&completion.text)),
        Err(reason) => rejection(reason, start(&completion.text)),
    }
}

/// Creates the item that scores a repaired answer to `row`.
fn item(row: &Row, label: &str, text: &str) -> Item {
    let question = Some(clean(&row.question())).filter(|question| !question.is_empty());
    Item { response: text.to_owned(), ground_truth: label.to_owned(), question, ..row.item() }
}
