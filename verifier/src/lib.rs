#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod choice;
pub mod compat;
mod ending;
pub mod extract;
mod grade;
mod lexicon;
mod locate;
mod mode;
mod normalise;
mod number_words;
pub mod python;
pub mod question;
mod steps;
pub mod typed;
mod value;
mod verify;
mod words;

pub use grade::{Grade, NO_ANSWER, grade, grade_flexible};
pub use mode::{Format, Mode};
pub use steps::{BUDGET, Verdict};
pub use value::UNEVALUATED;
pub use verify::verify;
