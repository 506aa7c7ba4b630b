//! Metrics of a task from those of its questions.

use super::Metrics;
use crate::config::Mode;

/// The mean of every metric that all questions have as a number.
pub fn means(questions: &[Metrics], _mode: Mode) -> Metrics {
    let Some(first) = questions.first() else { return Metrics::new() };
    let mean = |name: &String| {
        let values: Option<Vec<f64>> = questions.iter().map(|metrics| metrics.get(name)?.as_f64()).collect();
        Some((name.clone(), (values?.iter().sum::<f64>() / questions.len() as f64).into()))
    };
    first.keys().filter_map(mean).collect()
}
