//! The best checkpoint of a run, and the end of a run that no longer improves. The state is in the run's checkpoints and
//! its summary, under the names of the Hugging Face trainer.

use serde_json::Value;

use super::metrics::{Metrics, VAL_LOSS};
use omr_base::config::ValidationConfig;
use omr_base::error::{Error, Result};

/// Keys of the state.
const METRIC: &str = "metric_for_best_model";
const VALUE: &str = "best_metric";
const STEP: &str = "best_global_step";
/// Number of successive validations without a better value.
const COUNTER: &str = "early_stopping_patience_counter";

/// Rule that selects the best checkpoint and ends a run early.
#[derive(Clone, PartialEq, Debug)]
pub struct BestRule {
    /// Name of the metric.
    pub metric: String,
    greater_is_better: bool,
    patience: Option<u64>,
    threshold: f64,
}

impl BestRule {
    /// Returns the rule that `config` requests, if any, for a validation with the metrics `names`. Errors if
    /// `metric_for_best_model` is not one of them, or if it is missing and there is more than one candidate.
    pub fn new(config: &ValidationConfig, names: &[String]) -> Result<Option<BestRule>> {
        let wrong = |found: &str| Error::input(METRIC, found, format!("one of {}", names.join(", ")));
        let metric = match &config.metric_for_best_model {
            Some(metric) if names.contains(metric) => metric.clone(),
            Some(metric) => return Err(wrong(metric)),
            None if !config.needs_best() => return Ok(None),
            None => {
                let loss = names.iter().find(|name| *name == VAL_LOSS);
                let core: Vec<&String> = names.iter().filter(|name| name.starts_with("val-core/")).collect();
                match (loss, &core[..]) {
                    (Some(loss), _) => loss.clone(),
                    (None, [only]) => (*only).clone(),
                    _ => return Err(wrong("null")),
                }
            }
        };
        Ok(Some(BestRule {
            greater_is_better: config.greater_is_better.unwrap_or(!metric.ends_with("loss")),
            metric,
            patience: config.early_stopping_patience,
            threshold: config.early_stopping_threshold,
        }))
    }

    /// Records that the model of `step` has this `value` of the metric. A value that is not finite is never better,
    /// and the first of equal values is the best. A value that is better by at most the threshold counts against the
    /// patience, but can be the best one, as in the Hugging Face trainer.
    pub fn record(&self, state: &mut Metrics, step: u64, value: f64) {
        if state.get(METRIC).and_then(Value::as_str) != Some(&self.metric) {
            forget(state);
        }
        let best = state.get(VALUE).and_then(Value::as_f64);
        let gain = best.map_or(f64::INFINITY, |best| if self.greater_is_better { value - best } else { best - value });
        let is_better = gain > 0.0 && value.is_finite();
        let counter = if is_better && gain > self.threshold { 0 } else { counter(state) + 1 };
        state.insert(METRIC.to_owned(), self.metric.clone().into());
        state.insert(COUNTER.to_owned(), counter.into());
        if is_better {
            state.insert(VALUE.to_owned(), value.into());
            state.insert(STEP.to_owned(), step.into());
        }
    }

    /// Returns true if a run with this state ends early. The state may also be a summary.
    pub fn is_over(&self, state: &Metrics) -> bool {
        self.patience.is_some_and(|patience| counter(state) >= patience)
    }

    /// Describes why a run with this state ends early.
    pub fn describe(&self, state: &Metrics) -> String {
        let best = match (step(state), state.get(VALUE)) {
            (Some(step), Some(value)) => format!("the best value is {value} at step {step}"),
            _ => "no value was a number".to_owned(),
        };
        format!("the run ends early: {} has not improved in {} validations; {best}", self.metric, counter(state))
    }
}

fn counter(state: &Metrics) -> u64 {
    state.get(COUNTER).and_then(Value::as_u64).unwrap_or(0)
}

/// Returns the step of the best checkpoint so far.
pub fn step(state: &Metrics) -> Option<u64> {
    state.get(STEP).and_then(Value::as_u64)
}

/// Returns the entries of `state` that describe the best checkpoint, for the summary.
pub fn entries(state: &Metrics) -> Metrics {
    let of = |name: &str| Some((name.to_owned(), state.get(name)?.clone()));
    [METRIC, VALUE, STEP, COUNTER].into_iter().filter_map(of).collect()
}

/// Removes the best checkpoint from `state`.
pub fn forget(state: &mut Metrics) {
    [METRIC, VALUE, STEP, COUNTER].into_iter().for_each(|name| drop(state.remove(name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(change: impl FnOnce(&mut ValidationConfig)) -> BestRule {
        let mut config =
            ValidationConfig { metric_for_best_model: Some("val/loss".to_owned()), ..ValidationConfig::default() };
        change(&mut config);
        BestRule::new(&config, &["val/loss".to_owned(), "val-core/a/acc/mean@1".to_owned()]).unwrap().unwrap()
    }

    /// Returns the best step and the patience counter after each of `values`.
    fn after(rule: &BestRule, values: &[f64]) -> Vec<(Option<u64>, u64)> {
        let mut state = Metrics::new();
        let record = |(at, &value): (usize, &f64)| {
            rule.record(&mut state, at as u64 + 1, value);
            (step(&state), counter(&state))
        };
        values.iter().enumerate().map(record).collect()
    }

    #[test]
    fn the_smallest_loss_is_best_and_equal_values_count_against_the_patience() {
        let found = after(&rule(|_| ()), &[3.0, 2.0, 2.0, f64::NAN, 2.5, 1.0]);
        assert_eq!(found, [(Some(1), 0), (Some(2), 0), (Some(2), 1), (Some(2), 2), (Some(2), 3), (Some(6), 0)]);
        let found = after(&rule(|c| c.greater_is_better = Some(true)), &[3.0, 2.0, 4.0]);
        assert_eq!(found, [(Some(1), 0), (Some(1), 1), (Some(3), 0)]);
        assert_eq!(after(&rule(|_| ()), &[f64::NAN, f64::INFINITY]), [(None, 1), (None, 2)]);
    }

    #[test]
    fn a_gain_within_the_threshold_is_the_best_value_and_counts_against_the_patience() {
        let found = after(&rule(|c| c.early_stopping_threshold = 0.5), &[3.0, 2.75, 2.0]);
        assert_eq!(found, [(Some(1), 0), (Some(2), 1), (Some(3), 0)]);
    }

    #[test]
    fn without_a_metric_the_loss_or_the_only_score_is_used() {
        let config = ValidationConfig { early_stopping_patience: Some(1), ..ValidationConfig::default() };
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            BestRule::new(&config, &names).map(|rule| rule.unwrap())
        };
        let (loss, one, two) = ("val/loss", "val-core/a/acc/mean@1", "val-core/b/acc/mean@1");
        let found = of(&[one, loss]).unwrap();
        assert_eq!((&*found.metric, found.greater_is_better), (loss, false));
        let found = of(&[one, "val-aux/a/reward/mean@1"]).unwrap();
        assert_eq!((&*found.metric, found.greater_is_better), (one, true));
        let error = of(&[one, two]).unwrap_err().to_string();
        assert!(error.contains("found null") && error.contains(two), "{error}");
    }
}
