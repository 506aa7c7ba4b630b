//! Stage `filter`: keeps rows within bounds of length and pass rate.

use std::path::Path;

use rayon::prelude::*;

use crate::config::{FilterConfig, StageConfig, StepConfig};
use crate::data::encoder::{Encoder, EncodingPurpose};
use crate::data::{Row, text_of};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::model::ModelConfig;
use crate::pipeline::files::Rejection;
use crate::pipeline::pass::{Fate, pass};
use crate::pipeline::stage::{Stage, StageJob, Work};
use crate::pipeline::summary::Summary;

/// Field of `extra_info` that [`FilterConfig::min_pass_rate`] reads and `passrate` writes.
pub const PASS_RATE: &str = "pass_rate";

impl Stage for FilterConfig {
    fn stage(&self) -> &StageConfig {
        &self.stage
    }

    fn stage_mut(&mut self) -> &mut StageConfig {
        &mut self.stage
    }

    fn model(&self) -> Option<&Path> {
        self.model.as_deref()
    }

    fn of(step: &StepConfig) -> Option<&Self> {
        step.filter.as_ref()
    }

    fn job<'a>(&'a self, _: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>> {
        let counted = self.min_tokens.is_some() || self.max_tokens.is_some();
        let encoders = match (&self.model, counted) {
            (_, false) => None,
            (None, true) => {
                return Err(Error::input("model", "nothing", "a model directory, whose tokenizer counts the tokens"));
            }
            (Some(dir), true) => {
                let vocab_size = ModelConfig::load(&dir.join("config.json"))?.vocab_size;
                let train = Encoder::load(dir, EncodingPurpose::Train, vocab_size, [None, None])?;
                Some((Encoder { purpose: EncodingPurpose::Ask, ..train.clone() }, train))
            }
        };
        Ok(Box::new(Filter { config: self, encoders }))
    }
}

struct Filter<'a> {
    config: &'a FilterConfig,
    /// Encoders for rows without an answer (prompts) and for rows with an answer (training).
    encoders: Option<(Encoder, Encoder)>,
}

impl StageJob for Filter<'_> {
    fn describe(&self) -> String {
        let FilterConfig { min_tokens, max_tokens, min_characters, max_characters, .. } = self.config;
        let bound = |name: &str, low: Option<String>, high: Option<String>| match (low, high) {
            (None, None) => None,
            (low, high) => Some(format!("{name} {}..{}", low.unwrap_or_default(), high.unwrap_or_default())),
        };
        let text = |n: &Option<usize>| n.map(|n| n.to_string());
        let rate = |x: Option<f64>| x.map(|x| x.to_string());
        let bounds = [
            bound("tokens", text(min_tokens), text(max_tokens)),
            bound("characters", text(min_characters), text(max_characters)),
            bound(PASS_RATE, rate(self.config.min_pass_rate), rate(self.config.max_pass_rate)),
        ];
        let bounds: Vec<String> = bounds.into_iter().flatten().collect();
        if bounds.is_empty() { "no bounds".to_owned() } else { bounds.join(", ") }
    }

    fn run(&mut self, work: &Work) -> Result<Summary> {
        pass(work, &mut |_, rows| {
            let fate = |row: Row| match self.outside(&row) {
                Some(rejection) => Fate::Rejected(rejection),
                None => Fate::KeptWriter(row),
            };
            Ok(rows.into_par_iter().map(|numbered| vec![fate(numbered.row)]).collect())
        })
    }
}

impl Filter<'_> {
    /// Returns the first bound that a row violates.
    fn outside(&self, row: &Row) -> Option<Rejection> {
        let config = self.config;
        let characters = || row.messages.iter().map(|m| text_of(m).chars().count()).sum();
        if config.min_characters.is_some() || config.max_characters.is_some() {
            let names = ["few_characters", "many_characters"];
            if let Some(rejection) = length(characters(), config.min_characters, config.max_characters, names) {
                return Some(rejection);
            }
        }
        if config.min_pass_rate.is_some() || config.max_pass_rate.is_some() {
            let Some(rate) = row.extra.get(PASS_RATE).and_then(|rate| rate.as_f64()) else {
                return Some(Rejection::row("no_pass_rate", format!("no extra_info.{PASS_RATE}")));
            };
            if config.min_pass_rate.is_some_and(|low| rate < low) {
                return Some(Rejection::row("low_pass_rate", rate.to_string()));
            }
            if config.max_pass_rate.is_some_and(|high| rate > high) {
                return Some(Rejection::row("high_pass_rate", rate.to_string()));
            }
        }
        let (ask, train) = self.encoders.as_ref()?;
        let answered = row.messages.last().is_some_and(|m| m.role == "assistant");
        match (if answered { train } else { ask }).measure(row) {
            Ok(found) => length(found.tokens, config.min_tokens, config.max_tokens, ["few_tokens", "overlong"]),
            Err(bad) => Some(Rejection::row(bad.reason.name(), bad.error.to_string())),
        }
    }
}

fn length(found: usize, low: Option<usize>, high: Option<usize>, names: [&'static str; 2]) -> Option<Rejection> {
    if low.is_some_and(|low| found < low) {
        return Some(Rejection::row(names[0], found.to_string()));
    }
    high.is_some_and(|high| found > high).then(|| Rejection::row(names[1], found.to_string()))
}
