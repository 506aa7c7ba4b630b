//! MMMU-Pro: MMMU's questions with ten options; and as pictures of the whole question.

use super::interleave::{self, options};
use super::{Checked, Doc, Hub, Prompt, Rows, Subject, TaskSpec};
use crate::config::Mode;
use crate::text::Part;
use omr_verify::python;

/// Questions with ten options.
pub const STANDARD: TaskSpec = TaskSpec {
    name: "mmmu_pro_standard_cot_reward",
    aliases: &["mmmu_pro_standard_cot_reasoning", "mmmu_pro_standard"],
    about: "MMMU with ten options a question",
    hub: Some(Hub {
        repo: "MMMU/MMMU_Pro",
        config: Some("standard (10 options)"),
        columns: &["question", "options", "answer"],
        pictures: interleave::PICTURES,
        subject: Subject::Column("subject"),
        ..Hub::DEFAULT
    }),
    rows: Rows::OfHub(standard),
    ..TaskSpec::DEFAULT
};

/// The question within the picture.
pub const VISION: TaskSpec = TaskSpec {
    name: "mmmu_pro_vision_cot_reward",
    aliases: &["mmmu_pro_vision_cot_reasoning", "mmmu_pro_vision"],
    about: "MMMU-Pro with the question within the picture",
    hub: Some(Hub {
        repo: "MMMU/MMMU_Pro",
        config: Some("vision"),
        columns: &["options", "answer"],
        pictures: &["image"],
        subject: Subject::Column("subject"),
        ..Hub::DEFAULT
    }),
    rows: Rows::OfHub(vision),
    ..STANDARD
};

const VISION_INSTRUCTION: &str = "Answer the question in the image.";

fn standard(doc: &Doc, mode: Mode) -> Checked<Prompt> {
    let text = format!("{}\n{}\n\n", doc.written("question"), options(doc)?);
    interleave::prompt(doc, &text, mode)?.with_gold(doc, "answer")
}

/// In compat the text stands before the picture and again behind it, and a mark in an option cuts it.
fn vision(doc: &Doc, mode: Mode) -> Checked<Prompt> {
    let text = format!("{}\n\n{VISION_INSTRUCTION}", options(doc)?);
    let picture = doc.picture("image")?;
    let prompt = match mode {
        Mode::Compat => interleave::published(&text, vec![picture]),
        Mode::Strict => {
            let parts = vec![Part::Image, Part::Text(python::strip(&text).to_owned())];
            Prompt { parts, images: vec![picture], ..Prompt::default() }
        }
    };
    Prompt { question: Some(text), ..prompt }.with_gold(doc, "answer")
}
