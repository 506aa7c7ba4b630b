//! The charts task: questions about bar charts, line charts and tables that omr draws.
//!
//! An image shows the labels A to E, F or G with values from 1 to 9. Number, values, form, colours and places are drawn
//! from Philox by seed, split and row. The values of an image, in their order, decide by a hash whether it is used for
//! training, for tuning or for evaluation: no training image has the values of an evaluation image. Labels, colours,
//! forms and kinds of questions are the same everywhere, so evaluation shows new combinations, not new elements.

mod drawing;
mod questions;
mod reader;

use serde_json::json;
use tokio::runtime::Handle;

use super::made::{self, Asked, ImageQuestion, Split};
use super::recipe::{Recipe, Splits};
use super::teacher::Teacher;
use super::{RowSource, TaskSpec};
use crate::image::png;
use crate::rows::Row;
use omr_base::config::TaskConfig;
use omr_base::error::{Error, Result};
use omr_base::philox::{Purpose, Random};

pub use drawing::{Chart, draw};
pub use questions::{KINDS, Question, corpus};
pub use reader::Reader;

/// Name of the task, also the `data_source` of its rows.
pub const NAME: &str = "charts";

/// The task: held-out questions, answered greedily and at temperature 1.
pub const TASK: TaskSpec = TaskSpec {
    name: NAME,
    about: "bar charts, line charts and tables; drawn by omr, or read from heldout.parquet in --data",
    rows: RowSource::Made(made::questions),
    max_new_tokens: 1024,
    recipe: Some(Recipe { takes: "", splits, corpus, words: corpus, teacher }),
    ..TaskSpec::AS_CONFIGURED
};

/// Makes the rows of a run, in RL form with embedded PNGs. Equal arguments give equal rows. Training images are shifted
/// at random by up to `config.shift` pixels, evaluation images by up to `config.heldout_shift`.
pub fn splits(config: &TaskConfig, seed: u64) -> Result<Splits> {
    let kinds = KINDS.map(|(_, name, _)| name);
    made::splits(config, &kinds, |split, asked| row(split, asked, config.tuning, seed))
}

fn row(split: Split, Asked { index, kind, shift }: Asked, tuning: bool, seed: u64) -> Result<Row> {
    let mut random = Random::new(seed, Purpose::Data, split.counter(index));
    let question = Question { kind: KINDS[kind].0, above: 3 + random.below(5) as u8 };
    let text = question.text(random.below(2) as usize);
    // An eighth of all sequences of values is held out, and an eighth is for tuning.
    let wanted = |values: &[u8]| match (blake3::hash(values).as_bytes()[0] % 8, split) {
        (0, _) => split == Split::Heldout && !tuning,
        (1, Split::Heldout) => tuning,
        (1, _) => !tuning,
        (_, _) => split != Split::Heldout,
    };
    let chart = loop {
        let chart = Chart::random(&mut random);
        if wanted(&chart.values) && question.is_clear(&chart) {
            break chart;
        }
    };
    let image = draw(&chart, shift, &mut Random::new(seed, Purpose::Augment, split.counter(index)));
    let made = ImageQuestion {
        text,
        // The thinking begins at the same distance from the image after every question, so that a small model can
        // learn where to look.
        text_first: true,
        kind: question.name(),
        answer: question.answer(&chart),
        png: png(&image).map_err(|e| Error::Failed(format!("cannot draw a chart: {e}")))?,
        extra: json!({"form": chart.form.name(), "values": chart.values}),
    };
    Ok(made.row(NAME, split, index))
}

/// Starts a teacher.
fn teacher(config: &TaskConfig, runtime: &Handle) -> Result<Teacher> {
    runtime.block_on(Teacher::start(NAME, Reader { config: config.teacher.clone() }))
}
