//! Scores of the answers of a validation, summed per source of questions. The names of the metrics are verl's.

use std::collections::{BTreeMap, BTreeSet};

use super::subsets;
use omr_model::rollout::generate::Rollout;

/// Variables measured for each answer, named as in verl. Only the first is reported under `val-core`.
const VARIABLES: [&str; 3] = ["acc", "reward", "format_reward_score"];

/// Sums over the questions of one source.
#[derive(Default)]
pub struct SourceSums {
    /// Sums and numbers of questions by section and name.
    sums: BTreeMap<(&'static str, String), (f64, usize)>,
}

impl SourceSums {
    /// Returns the names of the metrics of `source` with `n` answers per question.
    pub fn names(source: &str, n: usize) -> Vec<String> {
        let mut sums = SourceSums::default();
        sums.of_question([(); 3].map(|()| vec![0.0; n]), &vec![""; n], n, 0);
        sums.named(source).map(|(name, _)| name).collect()
    }

    /// Adds the answers to a question. If some have no score, only the means over the others are added.
    pub fn add(&mut self, answers: &[Rollout]) {
        let scored: Vec<(&Rollout, f64)> = answers.iter().filter_map(|a| Some((a, a.score.score?))).collect();
        let of = |value: fn(&(&Rollout, f64)) -> f64| scored.iter().map(value).collect();
        let values =
            [of(|(a, _)| a.score.acc_score), of(|(_, score)| *score), of(|(a, _)| a.score.format_reward_score)];
        let votes: Vec<&str> = scored.iter().map(|(a, _)| a.score.predict_str.as_str()).collect();
        let tokens = answers.iter().map(|a| a.output.token_ids.len()).sum();
        self.of_question(values, &votes, answers.len(), tokens);
        // Further numbers of a reward program. It may give a number for some of the answers only.
        for name in answers.iter().flat_map(|a| a.score.further.keys()).collect::<BTreeSet<_>>() {
            let given: Vec<f64> = answers.iter().filter_map(|a| a.score.further.get(name).copied()).collect();
            let mean = given.iter().sum::<f64>() / given.len() as f64;
            self.add_value("val-aux", format!("{name}/mean@{}", answers.len()), mean);
        }
    }

    /// Adds a question with `n` answers of this number of tokens. `values` and `votes` are those of its scored answers.
    fn of_question(&mut self, values: [Vec<f64>; 3], votes: &[&str], n: usize, tokens: usize) {
        for (variable, values) in VARIABLES.iter().zip(&values) {
            let named = match values.len() {
                all if all == n => subsets::of_question(values, votes),
                0 => Vec::new(),
                some => vec![(format!("mean@{n}"), values.iter().sum::<f64>() / some as f64)],
            };
            for (name, value) in named {
                let core = *variable == VARIABLES[0] && subsets::is_core(&name, n);
                self.add_value(if core { "val-core" } else { "val-aux" }, format!("{variable}/{name}"), value);
            }
        }
        self.add_value("val-aux", "response_length/mean".to_owned(), tokens as f64 / n as f64);
    }

    fn add_value(&mut self, section: &'static str, name: String, value: f64) {
        let (sum, questions) = self.sums.entry((section, name)).or_default();
        *sum += value;
        *questions += 1;
    }

    /// Returns the means over the questions that have a value, under verl's names.
    pub fn named(&self, source: &str) -> impl Iterator<Item = (String, f64)> {
        let mean = |(sum, questions): &(f64, usize)| sum / *questions as f64;
        self.sums.iter().map(move |((section, name), sum)| (format!("{section}/{source}/{name}"), mean(sum)))
    }
}
