//! The digits task: questions about images of two real handwritten digits.
//!
//! Only this module decides which digits a row may show. Training rows never show a digit that is used for evaluation.

mod images;
mod questions;
mod reader;

use std::ops::Range;

use serde_json::json;
use tokio::runtime::Handle;

use super::made::{self, Asked, ImageQuestion, Split};
use super::recipe::{Recipe, Splits};
use super::teacher::Teacher;
use super::{RowSource, TaskSpec};
use crate::rows::Row;
use omr_base::config::TaskConfig;
use omr_base::error::Result;
use omr_base::philox::{Purpose, Random};

pub use images::{Digit, HELD_OUT, Pixels, SIDE, TRAIN, TUNING, TUNING_TRAIN, load, png, shifted};
pub use questions::{PHRASINGS, corpus, words};
pub use reader::Reader;

/// Name of the task, also the `data_source` of its rows.
pub const NAME: &str = "digits";

/// The task: held-out questions, answered greedily and at temperature 1.
pub const TASK: TaskSpec = TaskSpec {
    name: NAME,
    about: "images of two handwritten digits; generated, or read from heldout.parquet in --data",
    rows: RowSource::Made(made::questions),
    max_new_tokens: 1024,
    recipe: Some(Recipe {
        takes: "one to three minutes on two cores with configs/digits.yaml; ",
        splits,
        corpus,
        words,
        teacher,
    }),
    ..TaskSpec::AS_CONFIGURED
};

/// Returns the ranges of the digits for training and for evaluation.
pub fn ranges(tuning: bool) -> (Range<usize>, Range<usize>) {
    if tuning { (TUNING_TRAIN, TUNING) } else { (TRAIN, HELD_OUT) }
}

/// Makes the rows of a run, in RL form with embedded PNGs. Equal arguments give equal rows. Training digits are shifted
/// at random by up to `config.shift` pixels, evaluation digits by up to `config.heldout_shift`.
pub fn splits(config: &TaskConfig, seed: u64) -> Result<Splits> {
    let digits = load()?;
    let (train, measured) = ranges(config.tuning);
    let kinds = PHRASINGS.map(|(question, _)| question.name());
    made::splits(config, &kinds, |split, asked| {
        let from = if split == Split::Heldout { &measured } else { &train };
        row(&digits, split, asked, from, seed)
    })
}

fn row(digits: &[Digit], split: Split, asked: Asked, from: &Range<usize>, seed: u64) -> Result<Row> {
    let Asked { index, kind, shift } = asked;
    let mut random = Random::new(seed, Purpose::Data, split.counter(index));
    let (question, phrasings) = PHRASINGS[kind];
    let text = phrasings[random.below(2) as usize];
    let picked = [(); 2].map(|()| from.start + random.below(from.len() as u64) as usize);
    let mut augment = Random::new(seed, Purpose::Augment, split.counter(index));
    let mut by = || augment.below(2 * shift as u64 + 1) as i32 - shift;
    let [left, right] = picked.map(|i| shifted(&digits[i].pixels, [by(), by()]));
    let cluster = json!(picked.map(|i| format!("digit-{i}"))).to_string();
    let made = ImageQuestion {
        text: text.to_owned(),
        text_first: false,
        kind: question.name(),
        answer: question.answer(picked.map(|i| digits[i].label)).to_string(),
        png: png(&left, &right)?,
        extra: json!({"left": picked[0], "right": picked[1], "cluster": cluster}),
    };
    Ok(made.row(NAME, split, index))
}

/// Starts a teacher that can read the training digits.
fn teacher(config: &TaskConfig, runtime: &Handle) -> Result<Teacher> {
    let reader = Reader::new(&config.teacher, ranges(config.tuning).0, config.shift)?;
    runtime.block_on(Teacher::start(NAME, reader))
}
