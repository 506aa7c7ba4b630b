//! Stage `verify`: scores rows that have an answer and a label, and keeps the correct ones.

use std::sync::Arc;

use crate::pipeline::files::Rejection;
use crate::pipeline::pass::{Fate, Numbered, pass};
use crate::pipeline::stage::{Stage, StageJob, Work};
use crate::pipeline::summary::Summary;
use omr_base::config::VerifyConfig;
use omr_base::error::Result;
use omr_data::reward::{Item, Judged, judge};
use omr_data::rows::text_of;
use omr_runtime::machine::Machine;

impl Stage for VerifyConfig {
    fn job<'a>(&'a self, _: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>> {
        Ok(Box::new(self))
    }
}

impl StageJob for &VerifyConfig {
    fn describe(&self) -> String {
        let judge = self.judge.as_ref().map_or("judge off".to_owned(), |judge| format!("judge {}", judge.model));
        let what = if self.labels { "labels by " } else { "" };
        format!("{what}{} rules, {judge}", self.mode.name())
    }

    fn run(&mut self, work: &Work) -> Result<Summary> {
        let scorer = work.scorer(self.mode, &self.judge, work.store()?)?;
        let mut judge_summary = scorer.judge().map(judge::Summary::new);
        let scorer = Arc::new(scorer);
        let mut summary = pass(work, &mut |_, rows| {
            let items: Vec<Option<Item>> = rows.iter().map(|row| item(row, self.labels)).collect();
            let mut scored = scorer.score_all(items.iter().flatten().cloned().collect()).into_iter();
            let mut fates = Vec::with_capacity(rows.len());
            for (numbered, item) in rows.into_iter().zip(items) {
                let judged = item.as_ref().and_then(|_| scored.next()).transpose()?;
                judge_summary.iter_mut().for_each(|judge_summary| {
                    judge_summary.count(judged.as_ref().and_then(|judged| judged.judge.as_ref()))
                });
                fates.push(vec![match (item, judged) {
                    (Some(item), Some(judged)) => fate(numbered, &item, judged, self.labels),
                    _ => missing(&numbered),
                }]);
            }
            Ok(fates)
        })?;
        summary.judge = judge_summary;
        Ok(summary)
    }

    fn is_final(&self, summary: &Summary) -> bool {
        summary.unjudged == 0
    }
}

/// Returns the item that is scored against the label: the row's last message, or the label itself if `labels` is true.
fn item(numbered: &Numbered, labels: bool) -> Option<Item> {
    let row = &numbered.row;
    let label = row.ground_truth.clone()?;
    let response = match labels {
        true => format!("<answer>{label}</answer>"),
        false => text_of(row.messages.last().filter(|m| m.role == "assistant")?),
    };
    let question = Some(row.question()).filter(|question| !question.is_empty());
    Some(Item { response, ground_truth: label, question, ..row.item() })
}

fn missing(numbered: &Numbered) -> Fate {
    Fate::Rejected(match numbered.row.ground_truth {
        None => Rejection::row("no_label", "no ground truth"),
        Some(_) => Rejection::row("no_answer", "no assistant message at the end"),
    })
}

fn fate(numbered: Numbered, item: &Item, judged: Judged, labels: bool) -> Fate {
    match Fate::of_answer(judged, &item.ground_truth, None, || numbered.row) {
        Fate::Rejected(_) if labels => {
            Fate::Rejected(Rejection::row("unverifiable_label", format!("the label is {}", item.ground_truth)))
        }
        fate => fate,
    }
}
