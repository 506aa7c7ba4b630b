//! `rollouts/STEP.parquet`: every rollout of a step, verl's column names first.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};

/// One response with what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutRow {
    /// Row id of the question.
    pub id: String,
    /// The rendered prompt.
    pub input: String,
    /// The response, special tokens left out.
    pub output: String,
    /// The ground truth.
    pub gts: String,
    /// Reward used for the advantage.
    pub score: f64,
    /// Its accuracy part.
    pub acc_score: f64,
    /// Its format part.
    pub format_reward_score: f64,
    /// The extracted answer.
    pub predict_str: String,
    /// Group-normalised advantage.
    pub advantage: f64,
    /// Response tokens.
    pub response_length: u32,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// The judge's word: a number, `unjudged`, or empty where it was not asked.
    pub judge: String,
}

/// Writes `dir/rollouts/STEP.parquet` whole (temporary file, rename).
pub fn write(dir: &Path, step: u64, rows: &[RolloutRow]) -> Result<()> {
    let folder = dir.join("rollouts");
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let path = folder.join(format!("{step}.parquet"));
    let text =
        |get: fn(&RolloutRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(get))) };
    let real =
        |get: fn(&RolloutRow) -> f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(rows.iter().map(get))) };
    let lengths: ArrayRef = Arc::new(UInt32Array::from_iter_values(rows.iter().map(|r| r.response_length)));
    let steps: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows.iter().map(|_| step)));
    let broken = |e: &dyn std::fmt::Display| Error::format(&path, e.to_string());
    let batch = RecordBatch::try_from_iter([
        ("input", text(|r| &r.input)),
        ("output", text(|r| &r.output)),
        ("gts", text(|r| &r.gts)),
        ("score", real(|r| r.score)),
        ("step", steps),
        ("id", text(|r| &r.id)),
        ("acc_score", real(|r| r.acc_score)),
        ("format_reward_score", real(|r| r.format_reward_score)),
        ("predict_str", text(|r| &r.predict_str)),
        ("advantage", real(|r| r.advantage)),
        ("response_length", lengths),
        ("finish_reason", text(|r| &r.finish_reason)),
        ("judge", text(|r| &r.judge)),
    ])
    .map_err(|e| broken(&e))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).map_err(|e| broken(&e))?;
    writer.write(&batch).map_err(|e| broken(&e))?;
    let bytes = writer.into_inner().map_err(|e| broken(&e))?;
    crate::files::write(&path, &bytes)
}
