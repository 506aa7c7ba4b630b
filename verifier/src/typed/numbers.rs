//! Numbers within a tolerance, and lists of whole numbers.

use std::sync::LazyLock;

use regex::Regex;

use crate::steps::{BUDGET, Steps};
use crate::{Mode, compat, normalise, python, value};

/// Score of a right list in a wrong order, if every number stood in its place.
const REORDERED: f64 = 0.2;

/// Returns the numbers that a text may mean.
pub fn values(text: &str, mode: Mode) -> Vec<f64> {
    let steps = Steps::new(BUDGET);
    let written = python::strip(text).parse().ok().filter(|value: &f64| value.is_finite());
    let read = match mode {
        Mode::Strict => match value::parse(&normalise::normalise(text), true, &steps) {
            value::Value::Scalar(expr, _) => value::approximate(&expr, &steps).into_iter().collect(),
            _ => Vec::new(),
        },
        Mode::Compat => compat::reals(text),
    };
    written.into_iter().chain(read).collect()
}

/// True if a number of the prediction is within `tolerance` of one of the label. The tolerance is relative, or absolute if
/// the label is 0.
pub fn is_within(label: &str, prediction: &str, tolerance: f64, mode: Mode) -> bool {
    let predicted = values(prediction, mode);
    values(label, mode).into_iter().any(|right| {
        let most = if right.abs() <= 1e-12 { tolerance } else { tolerance * right.abs() };
        predicted.iter().any(|value| (right - value).abs() <= most)
    })
}

/// Returns the whole numbers in a text. In strict mode a minus behind a digit separates, and a text with a decimal number
/// has no whole numbers.
pub fn list(text: &str, mode: Mode) -> Vec<i64> {
    static WHOLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"-?\d+").expect("a valid pattern"));
    let mut numbers = Vec::new();
    for found in WHOLE.find_iter(text) {
        let (before, behind) = (&text[..found.start()], &text[found.end()..]);
        let is_fraction = behind.strip_prefix('.').is_some_and(|rest| rest.starts_with(python::is_digit));
        let mut number = found.as_str();
        if mode == Mode::Strict {
            if is_fraction {
                return Vec::new();
            }
            if before.ends_with(python::is_digit) {
                number = number.trim_start_matches('-');
            }
        }
        let Some(number) = python::int(number) else { return Vec::new() };
        numbers.push(number);
    }
    numbers
}

/// Returns 1 for the right list, and a part of [`REORDERED`] for another order of it.
pub fn accuracy(right: &[i64], predicted: &[i64], mode: Mode) -> f64 {
    let sorted = |list: &[i64]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    let (left, ordered) = (sorted(right), sorted(predicted));
    let repeats = mode == Mode::Compat && ordered.windows(2).any(|pair| pair[0] == pair[1]);
    if left != ordered || repeats {
        return 0.0;
    }
    if right == predicted {
        return 1.0;
    }
    let placed = right.iter().zip(predicted).filter(|(right, predicted)| right == predicted).count();
    REORDERED * (placed as f64 / right.len() as f64)
}
