//! Scores of the answers of a validation, summed per source of questions. The names of the metrics are verl's.

use std::collections::{BTreeMap, BTreeSet};

use super::subsets;
use crate::rollout::generate::Rollout;

/// Variables measured for each answer, named as in verl. Only the first is reported under `val-core`.
const VARIABLES: [&str; 3] = ["acc", "reward", "format_reward_score"];

/// Sums over the questions of one source.
#[derive(Default)]
pub struct SourceSums {
    questions: usize,
    /// Sums by section and name.
    sums: BTreeMap<(&'static str, String), f64>,
}

impl SourceSums {
    /// Returns the names of the metrics of `source` with `n` answers per question.
    pub fn names(source: &str, n: usize) -> Vec<String> {
        let mut sums = SourceSums::default();
        sums.of_question([(); 3].map(|()| vec![0.0; n]), &vec![""; n], 0);
        sums.named(source).map(|(name, _)| name).collect()
    }

    /// Adds the answers to a question.
    pub fn add(&mut self, answers: &[Rollout]) {
        let of = |value: fn(&Rollout) -> f64| answers.iter().map(value).collect();
        let values = [of(|a| a.score.acc_score), of(|a| a.score.score), of(|a| a.score.format_reward_score)];
        let votes: Vec<&str> = answers.iter().map(|a| a.score.predict_str.as_str()).collect();
        self.of_question(values, &votes, answers.iter().map(|a| a.output.token_ids.len()).sum());
        // Further numbers of a reward program.
        for name in answers.iter().flat_map(|a| a.score.further.keys()).collect::<BTreeSet<_>>() {
            let mean = answers.iter().filter_map(|a| a.score.further.get(name)).sum::<f64>() / answers.len() as f64;
            *self.sums.entry(("val-aux", format!("{name}/mean@{}", answers.len()))).or_default() += mean;
        }
    }

    /// Adds a question with the values and votes of its answers and their total number of tokens.
    fn of_question(&mut self, values: [Vec<f64>; 3], votes: &[&str], tokens: usize) {
        self.questions += 1;
        let mut add = |section, name, value| *self.sums.entry((section, name)).or_default() += value;
        for (variable, values) in VARIABLES.iter().zip(&values) {
            for (name, value) in subsets::of_question(values, votes) {
                let core = *variable == VARIABLES[0] && subsets::is_core(&name, values.len());
                add(if core { "val-core" } else { "val-aux" }, format!("{variable}/{name}"), value);
            }
        }
        add("val-aux", "response_length/mean".to_owned(), tokens as f64 / votes.len() as f64);
    }

    /// Returns the means over the questions, under verl's names.
    pub fn named(&self, source: &str) -> impl Iterator<Item = (String, f64)> {
        let mean = |sum: &f64| sum / self.questions as f64;
        self.sums.iter().map(move |((section, name), sum)| (format!("{section}/{source}/{name}"), mean(sum)))
    }
}
