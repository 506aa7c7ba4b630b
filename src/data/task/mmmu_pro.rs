//! The tasks of MMMU-Pro: MMMU's questions with ten options, and images that contain the whole question.

use super::interleave::{self, options};
use super::{Doc, Prompt, PublishedResult, RowSource, TaskSpec};
use crate::text::Part;
use omr_base::config::Mode;
use omr_verify::python;

/// Questions with ten options.
pub const STANDARD: TaskSpec =
    TaskSpec { name: "mmmu_pro_standard_cot_reward", rows: RowSource::OfHub(standard), ..TaskSpec::DEFAULT };

/// Questions contained in the image.
pub const VISION: TaskSpec =
    TaskSpec { name: "mmmu_pro_vision_cot_reward", rows: RowSource::OfHub(vision), ..STANDARD };

const VISION_INSTRUCTION: &str = "Answer the question in the image.";

fn standard(doc: &Doc, mode: Mode) -> PublishedResult<Prompt> {
    let text = format!("{}\n{}\n\n", doc.written("question"), options(doc)?);
    interleave::prompt(doc, &text, mode)?.with_gold(doc, "answer")
}

/// Makes the prompt. In compat the text is placed before and again after the image, and an image mark in an option cuts
/// the text, as in the published task.
fn vision(doc: &Doc, mode: Mode) -> PublishedResult<Prompt> {
    let text = format!("{}\n\n{VISION_INSTRUCTION}", options(doc)?);
    let image = doc.image("image")?;
    let prompt = match mode {
        Mode::Compat => interleave::published(&text, vec![image]),
        Mode::Strict => {
            let parts = vec![Part::Image, Part::Text(python::strip(&text).to_owned())];
            Prompt { parts, images: vec![image], ..Prompt::default() }
        }
    };
    Prompt { question: Some(text), ..prompt }.with_gold(doc, "answer")
}
