//! The task DynaMath, test split: variants of each question. Its metrics are the average and the worst result over the
//! variants.

use serde_json::json;

use super::{Crash, Doc, Marks, Metrics, Prompt, PublishedResult, RowSource, Stage, TaskSpec, aggregate};
use crate::rows::Row;
use omr_base::config::Mode;
use omr_verify::python;

/// The task DynaMath, test split.
pub const TASK: TaskSpec = TaskSpec {
    name: "dynamath",
    rows: RowSource::OfHub(prompt),
    score,
    aggregate: aggregate::dynamath,
    published: Some("dynamath_worst"),
    ..TaskSpec::DEFAULT
};

fn prompt(doc: &Doc, _: Mode) -> PublishedResult<Prompt> {
    let image = doc.image("decoded_image")?;
    let question = doc.text("question", "AttributeError")?;
    let prompt = Prompt::image_then_text(image, python::strip(question), question);
    let extra = ["id", "question_id"].map(|column| (column.to_owned(), doc.value(column).clone()));
    Prompt { extra: extra.into_iter().collect(), ..prompt }.with_gold(doc, "ground_truth")
}

/// Scores a question. In compat only the last answer counts, in strict all answers count.
fn score(row: &Row, marks: &Marks, mode: Mode) -> PublishedResult<Metrics> {
    let Some(last) = marks.all().last() else {
        return Err(Crash::new(Stage::ProcessResults, "UnboundLocalError", "no answer", "one at least"));
    };
    let acc = match mode {
        Mode::Compat => last.acc,
        Mode::Strict => aggregate::mean(marks.all().map(|mark| mark.acc)),
    };
    let column_text = |column: &str| row.extra.get(column).cloned().unwrap_or_default();
    let variant = json!({"acc": acc, "question_id": column_text("question_id"), "variant_id": column_text("id")});
    let metrics = ["dynamath_average", "dynamath_worst"].map(|name| (name.to_owned(), variant.clone()));
    Ok(metrics.into_iter().collect())
}
