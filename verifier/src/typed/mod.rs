//! Rewards by the type of a row: the rule that decides about a response depends on what the question asks for. Names and
//! rules are those of Vero (2026). `compat` gives Vero's scores; `strict` corrects these defects:
//!
//! - Texts keep the sign and the decimal point of a number: `-12` is not `12`.
//! - `Option A` and `A) cat` name the choice A, in the label, too.
//! - A list of numbers may repeat a number, and `8-2` has no negative number.
//! - JSON may stand inside a code fence.
//! - Boxes have the full score only if all of them are found: the score is twice the sum of the matched overlaps divided
//!   by the number of boxes on both sides.
//! - A point lies in the image that the model sees, not in the original.
//! - Corners of a label's box may have any order.
//! - A label that the rule cannot use is an error, not the score 0.

mod actions;
mod boxes;
mod kind;
mod literal;
mod matching;
mod numbers;
mod response;
mod text;

use std::fmt;

use crate::{Mode, choice, compat, verify};
use boxes::{Boxes, Target};
pub use kind::{Details, RewardType};
use literal::Literal;
pub use text::normal;

/// Scores of a response.
#[derive(Clone, PartialEq, Debug)]
pub struct Scores {
    /// Share of what is right, from 0 to 1; 0 if the format is 0.
    pub accuracy: f64,
    /// 1 if the response has thinking and an answer in tags, and the number of boxes that the type requires; 0.5 if only
    /// the boxes are wrong; otherwise 0.
    pub format: f64,
    /// Text that was compared with the label.
    pub prediction: String,
}

/// A label that a rule cannot use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadLabel {
    /// Value that was found.
    pub found: String,
    /// Description of what the rule accepts.
    pub expected: &'static str,
}

impl fmt::Display for BadLabel {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}

/// The label of a row, as its rule uses it.
#[derive(Clone, PartialEq, Debug)]
pub struct Label {
    kind: RewardType,
    mode: Mode,
    right: Right,
}

#[derive(Clone, PartialEq, Debug)]
enum Right {
    /// Normalised texts, one of which must be given.
    Texts(Vec<String>),
    Choice(char),
    Number(String, Option<f64>),
    Numbers(Vec<i64>),
    Action(Vec<(String, Literal)>),
    Boxes(Boxes, Target),
    Other(String),
    /// An unusable label in `compat`.
    Nothing,
}

impl Label {
    /// Reads the label of a row. In `strict`, a label that the rule cannot use is an error.
    pub fn read(kind: RewardType, label: &str, details: &Details, mode: Mode) -> Result<Label, BadLabel> {
        let text = label.trim();
        let fault = |expected| BadLabel { found: format!("the label {label:?}"), expected };
        let texts = |all: Vec<String>| {
            let all: Vec<_> = all.iter().map(|one| text::normal(one, mode)).filter(|one| !one.is_empty()).collect();
            if all.is_empty() { Err(fault("a text with letters or digits")) } else { Ok(Right::Texts(all)) }
        };
        let right = match kind {
            RewardType::StringMatch => texts(vec![text.to_owned()]),
            RewardType::ListStringMatch => texts(literal::list(text).unwrap_or_else(|| vec![text.to_owned()])),
            RewardType::MultipleChoice => match mode {
                Mode::Strict => choice::letter(text).or_else(|| choice::named_letter(text)),
                Mode::Compat => text::choice(text),
            }
            .map_or_else(|| texts(vec![text.to_owned()]), |letter| Ok(Right::Choice(letter))),
            RewardType::Numeric => {
                let tolerance = details.tolerance.filter(|tolerance| *tolerance >= 0.0);
                match (numbers::values(text, mode).is_empty(), tolerance == details.tolerance) {
                    (true, _) if mode == Mode::Strict => Err(fault("a number")),
                    (_, false) if mode == Mode::Strict => {
                        let found = format!("the tolerance {}", details.tolerance.unwrap_or_default());
                        Err(BadLabel { found, expected: "0 or more" })
                    }
                    _ => Ok(Right::Number(text.to_owned(), tolerance)),
                }
            }
            RewardType::NumberList => match numbers::list(text, mode) {
                list if list.is_empty() => Err(fault("whole numbers, such as [3, 1, 2]")),
                list => Ok(Right::Numbers(list)),
            },
            RewardType::WebAction => actions::parts(text, mode)
                .map(|parts| actions::considered(&parts))
                .filter(|parts| !parts.is_empty())
                .map(Right::Action)
                .ok_or_else(|| fault(r#"an object with "ACTION", "MARK" or "VALUE""#)),
            RewardType::Grounding | RewardType::Clicking => {
                let target = if kind == RewardType::Grounding { Target::Boxes } else { Target::Point };
                match (Boxes::of_label(text, details, mode), details.image_size) {
                    (_, None) => Err(BadLabel { found: "no image size".to_owned(), expected: "an image" }),
                    (Some(boxes), _) => Ok(Right::Boxes(boxes, target)),
                    (None, _) => Err(fault(r#"boxes, such as [{"bbox_2d": [x1, y1, x2, y2]}]"#)),
                }
            }
            RewardType::LlmJudge | RewardType::Unknown => Ok(Right::Other(text.to_owned())),
        };
        let right = match right {
            Err(bad) if mode == Mode::Strict => return Err(bad),
            right => right.unwrap_or(Right::Nothing),
        };
        Ok(Label { kind, mode, right })
    }

    /// Scores a response. The accuracy of [`RewardType::LlmJudge`] is 0: a judge decides about it.
    pub fn score(&self, response: &str) -> Scores {
        let format = response::format(response, self.kind);
        let prediction = response::prediction(response, self.kind).into_owned();
        let accuracy = if format == 0.0 || prediction.is_empty() { 0.0 } else { self.accuracy(&prediction) };
        Scores { accuracy, format, prediction }
    }

    fn accuracy(&self, prediction: &str) -> f64 {
        let mode = self.mode;
        let is_right = match &self.right {
            Right::Numbers(list) => return numbers::accuracy(list, &numbers::list(prediction, mode), mode),
            Right::Action(parts) => return actions::accuracy(parts, prediction, mode),
            Right::Boxes(boxes, Target::Boxes) => return boxes.overlap(prediction, mode),
            Right::Boxes(boxes, Target::Point) => boxes.is_hit(prediction, mode),
            Right::Texts(all) => all.contains(&text::normal(prediction, mode)),
            Right::Choice(letter) => match mode {
                Mode::Strict => choice::named_letter(prediction) == Some(*letter),
                Mode::Compat => text::normal(prediction, mode) == letter.to_lowercase().to_string(),
            },
            Right::Number(label, None) => verify(label, prediction, mode).equal,
            Right::Number(label, Some(tolerance)) => numbers::is_within(label, prediction, *tolerance, mode),
            Right::Other(label) if self.kind == RewardType::Unknown => {
                label.to_lowercase() == prediction.to_lowercase() || compat::verify_or_text(label, prediction)
            }
            Right::Other(_) | Right::Nothing => false,
        };
        f64::from(is_right)
    }
}
