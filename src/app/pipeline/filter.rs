//! Stage `filter`: keeps rows within bounds of length, pass rate and log-likelihood.

use rayon::prelude::*;

use crate::pipeline::files::{Rejection, unanswered};
use crate::pipeline::nll::Scorer;
use crate::pipeline::pass::{Fate, pass};
use crate::pipeline::stage::{Stage, StageJob, Work};
use crate::pipeline::summary::Summary;
use omr_base::config::{FilterConfig, ImageConfig, Place, RowForm, StageKeys};
use omr_base::error::{Error, Result};
use omr_data::rows::samples::encoder::{Encoder, EncodingPurpose, Measured};
use omr_data::rows::{Row, RowResult, text_of};
use omr_model::nn::ModelConfig;
use omr_runtime::machine::Machine;

/// Field of `extra_info` that [`FilterConfig::min_pass_rate`] reads and `passrate` writes.
pub const PASS_RATE: &str = "pass_rate";

impl Stage for FilterConfig {
    fn computes(&self) -> bool {
        self.max_nll.is_some()
    }

    fn job<'a>(&'a self, _: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>> {
        self.check(&Place::default(), "")?;
        let (mut encoders, mut scorer) = (None, None);
        if let Some(dir) = &self.model {
            let model_config = ModelConfig::load(&dir.join("config.json"))?;
            let train = Encoder::load(dir, &model_config.chat(), EncodingPurpose::Train, &ImageConfig::default())?;
            encoders = Some((Encoder { purpose: EncodingPurpose::Ask, ..train.clone() }, train.clone()));
            let of = |most| (most, Scorer { dir, model_config, encoder: train, dtype: self.dtype });
            scorer = self.max_nll.map(of);
        }
        Ok(Box::new(Filter { config: self, encoders, scorer }))
    }
}

struct Filter<'a> {
    config: &'a FilterConfig,
    /// Encoders for rows without an answer (prompts) and for rows with an answer (training).
    encoders: Option<(Encoder, Encoder)>,
    /// The maximum of the negative log-likelihood, and the model that it is measured with.
    scorer: Option<(f64, Scorer<'a>)>,
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
            self.scorer.as_ref().map(|(most, by)| format!("nats per token ..{most} by {}", by.dir.display())),
        ];
        let bounds: Vec<String> = bounds.into_iter().flatten().collect();
        if bounds.is_empty() { "no bounds".to_owned() } else { bounds.join(", ") }
    }

    fn run(&mut self, work: &Work) -> Result<Summary> {
        let Some((most, scorer)) = &self.scorer else {
            return pass(work, &mut |_, rows| {
                let fate = |row: Row| self.outside(&row).map_or_else(|| Fate::Kept(row), Fate::Rejected);
                Ok(rows.into_par_iter().map(|numbered| vec![fate(numbered.row)]).collect())
            });
        };
        let mut found = scorer.measure(work, &|row| self.answer(row, &scorer.encoder).ok())?.into_iter();
        pass(work, &mut |_, rows| {
            let decide = |row: Row| (self.answer(&row, &scorer.encoder).err(), row);
            let decided: Vec<(Option<Box<Fate>>, Row)> =
                rows.into_par_iter().map(|numbered| decide(numbered.row)).collect();
            let changed = || Error::Failed("the rows changed while the stage measured them".to_owned());
            let fate = |(fate, row): (Option<Box<Fate>>, Row)| match fate {
                Some(fate) => Ok(vec![*fate]),
                None => found.next().map(|found| vec![likely(row, found, *most)]).ok_or_else(changed),
            };
            decided.into_iter().map(fate).collect()
        })
    }
}

/// Decides about a row by the negative log-likelihood of its answer.
fn likely(row: Row, found: RowResult<f64>, most: f64) -> Fate {
    match found {
        Err(bad) => Fate::Bad(bad),
        Ok(nll) if nll.is_nan() || nll > most => {
            Fate::Rejected(Rejection::row("max_nll", format!("{nll} nats per token, at most {most}")))
        }
        Ok(_) => Fate::Kept(row),
    }
}

impl Filter<'_> {
    /// Returns the size of a row that violates no other bound and has an answer, or the fate of another row.
    fn answer(&self, row: &Row, encoder: &Encoder) -> std::result::Result<Measured, Box<Fate>> {
        let keys = "max_nll measures its tokens; `omr data distill` requests answers from a teacher";
        match self.outside(row).or_else(|| unanswered(row, keys)) {
            Some(rejection) => Err(Box::new(Fate::Rejected(rejection))),
            None => encoder.measure(row).map_err(|bad| Box::new(Fate::Bad(bad))),
        }
    }

    /// Returns the first bound that a row violates.
    fn outside(&self, row: &Row) -> Option<Rejection> {
        let config = self.config;
        let trained = row.trained_messages();
        let messages = if config.stage.form == RowForm::Sft { &trained } else { &row.messages[..] };
        let characters = || messages.iter().map(|m| text_of(m).chars().count()).sum();
        if config.min_characters.is_some() || config.max_characters.is_some() {
            let names = ["few_characters", "many_characters"];
            if let Some(rejection) = beyond(characters(), config.min_characters, config.max_characters, names) {
                return Some(rejection);
            }
        }
        if config.min_pass_rate.is_some() || config.max_pass_rate.is_some() {
            let Some(rate) = row.extra.get(PASS_RATE).and_then(|rate| rate.as_f64()) else {
                return Some(Rejection::row("no_pass_rate", format!("no extra_info.{PASS_RATE}")));
            };
            let names = ["low_pass_rate", "high_pass_rate"];
            if let Some(rejection) = beyond(rate, config.min_pass_rate, config.max_pass_rate, names) {
                return Some(rejection);
            }
        }
        if config.min_tokens.is_none() && config.max_tokens.is_none() {
            return None;
        }
        let (ask, train) = self.encoders.as_ref()?;
        let answered = messages.last().is_some_and(|m| m.role == "assistant");
        match (if answered { train } else { ask }).measure_samples(row) {
            Ok(found) => {
                let longest = found.iter().map(|(_, sample)| sample.tokens).max().unwrap_or(0);
                beyond(longest, config.min_tokens, config.max_tokens, ["few_tokens", "overlong"])
            }
            Err(bad) => Some(Rejection::row(bad.reason.name(), bad.error.to_string())),
        }
    }
}

/// Returns a rejection with the first of `names` if `found` is below `low`, and with the second if it is above `high`.
fn beyond<T: PartialOrd + ToString>(
    found: T,
    low: Option<T>,
    high: Option<T>,
    names: [&'static str; 2],
) -> Option<Rejection> {
    let is_low = low.is_some_and(|low| found < low);
    let name = if is_low { Some(names[0]) } else { high.filter(|high| found > *high).map(|_| names[1]) };
    name.map(|name| Rejection::row(name, found.to_string()))
}
