//! The task We-Math, testmini split: problems of two and three steps, whose steps are also separate questions. Its
//! metric is the score over We-Math's four categories, loose and strict.

use serde_json::json;

use super::{Doc, Marks, Metrics, Prompt, PublishedResult, RowSource, TaskSpec, aggregate};
use crate::rows::Row;
use omr_base::config::Mode;
use omr_verify::python;

/// The task We-Math, testmini split.
pub const TASK: TaskSpec = TaskSpec {
    name: "wemath_testmini_thinking",
    rows: RowSource::OfHub(prompt),
    score,
    aggregate: aggregate::wemath,
    published: Some("wemath_loose"),
    ..TaskSpec::DEFAULT
};

fn prompt(doc: &Doc, _: Mode) -> PublishedResult<Prompt> {
    let text = format!("{}\n{}", doc.text("question", "TypeError")?, doc.text("option", "TypeError")?);
    let prompt = Prompt::image_then_text(doc.image("image_path")?, python::strip(&text), &text);
    let extra = ["ID", "key"].map(|column| (column.to_owned(), doc.value(column).clone()));
    // The steps of a problem and the problem itself form one cluster.
    let steps = doc.written("key").split('_').next().unwrap_or_default().to_owned();
    let cluster = Some(format!("{steps} {}", doc.written("ID")));
    Prompt { extra: extra.into_iter().collect(), cluster, ..prompt }.with_gold(doc, "answer")
}

/// Scores a question. In compat a question counts as correct if the scores of its responses add up to 1, so two correct
/// responses count as wrong.
fn score(row: &Row, marks: &Marks, mode: Mode) -> PublishedResult<Metrics> {
    let mut metrics = aggregate::accuracy_and_format(row, marks, mode)?;
    let acc: f64 = match mode {
        Mode::Compat => marks.all().map(|mark| mark.acc).sum(),
        Mode::Strict => aggregate::mean(marks.all().map(|mark| mark.acc)),
    };
    let column_text = |column: &str| row.extra.get(column).cloned().unwrap_or_default();
    let member = json!({"ID": column_text("ID"), "key": column_text("key"), "acc_score": acc});
    metrics.extend(["wemath_loose", "wemath_strict"].map(|name| (name.to_owned(), member.clone())));
    Ok(metrics)
}
