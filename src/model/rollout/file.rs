//! Reads and writes `rollouts/STEP.parquet`, which contains every rollout of a step. verl's columns come first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, Float64Array, ListArray, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use omr_base::error::{Error, Result};
use omr_base::files;

/// One response with its results.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutRow {
    /// Number of the question in the run's order of prompts; it identifies the question in the sampling noise.
    pub prompt: u64,
    /// Number of the rollout within its question.
    pub rollout: u32,
    /// Row id of the question.
    pub id: String,
    /// Rendered prompt.
    pub input: String,
    /// Response, without the tokens that end it.
    pub output: String,
    /// Text of the assistant's turn before the response, such as the `<think>` of a chat template.
    pub opened: String,
    /// Ground-truth answer of the question.
    pub gts: String,
    /// Score, with the penalty for long responses. Files of older versions contain the reward here. `None` (in the file,
    /// null) if the response has no score, as for `reward` and `acc_score`.
    pub score: Option<f64>,
    /// Reward used for the advantage: the score without the divergence from the reference, if the config subtracts it.
    pub reward: Option<f64>,
    /// Accuracy part of the reward.
    pub acc_score: Option<f64>,
    /// Format part of the reward.
    pub format_reward_score: f64,
    /// Answer extracted from the response.
    pub predict_str: String,
    /// Group-normalized advantage.
    pub advantage: f64,
    /// Number of response tokens.
    pub response_length: u32,
    /// Token ids of the response.
    pub token_ids: Vec<u32>,
    /// Log-prob of each token, as computed by the sampler.
    pub log_probs: Vec<f32>,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// Verdict of the judge: a number, `unjudged`, or empty if the judge was not asked.
    pub judge: String,
    /// Text of the question, as in its row.
    pub question: String,
    /// Small versions of the question's images, encoded. Only the first rollout of a group that pages show has them.
    pub images: Vec<Vec<u8>>,
}

/// Maximum length of the longer side of a stored image, in pixels.
pub const PICTURE_SIDE: u32 = 400;

/// Maximum number of groups of a step that pages show.
const SHOWN: usize = 8;

/// Returns the indices of the groups that pages show, given the rewards of each group. Groups with the largest range of
/// rewards come first, because only groups with different rewards affect an update.
pub fn shown_groups(rewards: &[Vec<f64>]) -> Vec<usize> {
    let range = |i: &usize| {
        let of = || rewards[*i].iter().copied();
        of().fold(f64::MIN, f64::max) - of().fold(f64::MAX, f64::min)
    };
    let mut groups: Vec<usize> = (0..rewards.len()).collect();
    groups.sort_by(|a, b| range(b).total_cmp(&range(a)));
    groups.truncate(SHOWN);
    groups
}

/// Returns `dir/rollouts/STEP.parquet`.
pub fn path(dir: &Path, step: u64) -> PathBuf {
    dir.join("rollouts").join(format!("{step}.parquet"))
}

/// Writes the file of `step` atomically (temporary file, rename).
pub fn write(dir: &Path, step: u64, rows: &[RolloutRow]) -> Result<()> {
    let path = path(dir, step);
    let folder = dir.join("rollouts");
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let text =
        |get: fn(&RolloutRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(get))) };
    let real =
        |get: fn(&RolloutRow) -> f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(rows.iter().map(get))) };
    let scored =
        |get: fn(&RolloutRow) -> Option<f64>| -> ArrayRef { Arc::new(Float64Array::from_iter(rows.iter().map(get))) };
    let small =
        |get: fn(&RolloutRow) -> u32| -> ArrayRef { Arc::new(UInt32Array::from_iter_values(rows.iter().map(get))) };
    let large = |of: &mut dyn Iterator<Item = u64>| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(of)) };
    let broken = |e: &dyn std::fmt::Display| Error::format(&path, e.to_string());
    let batch = RecordBatch::try_from_iter([
        ("input", text(|r| &r.input)),
        ("output", text(|r| &r.output)),
        ("gts", text(|r| &r.gts)),
        ("score", scored(|r| r.score)),
        ("step", large(&mut rows.iter().map(|_| step))),
        ("id", text(|r| &r.id)),
        ("reward", scored(|r| r.reward)),
        ("acc_score", scored(|r| r.acc_score)),
        ("format_reward_score", real(|r| r.format_reward_score)),
        ("predict_str", text(|r| &r.predict_str)),
        ("advantage", real(|r| r.advantage)),
        ("response_length", small(|r| r.response_length)),
        ("finish_reason", text(|r| &r.finish_reason)),
        ("judge", text(|r| &r.judge)),
        ("prompt", large(&mut rows.iter().map(|r| r.prompt))),
        ("rollout", small(|r| r.rollout)),
        ("token_ids", lists::<UInt32Type>(rows.iter().map(|r| &r.token_ids[..]))),
        ("log_probs", lists::<Float32Type>(rows.iter().map(|r| &r.log_probs[..]))),
        ("question", text(|r| &r.question)),
        ("pictures", images(rows)),
        ("opened", text(|r| &r.opened)),
    ])
    .map_err(|e| broken(&e))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).map_err(|e| broken(&e))?;
    writer.write(&batch).map_err(|e| broken(&e))?;
    let bytes = writer.into_inner().map_err(|e| broken(&e))?;
    omr_base::files::write(&path, &bytes)
}

fn lists<'a, T: ArrowPrimitiveType>(rows: impl Iterator<Item = &'a [T::Native]>) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<T, _, _>(rows.map(|row| Some(row.iter().copied().map(Some)))))
}

fn images(rows: &[RolloutRow]) -> ArrayRef {
    let mut list = ListBuilder::new(BinaryBuilder::new());
    for row in rows {
        row.images.iter().for_each(|image| list.values().append_value(image));
        list.append(true);
    }
    Arc::new(list.finish())
}

/// Reads the file of `step`. Returns `None` if it does not exist. Returns an error that names the column if one is
/// missing or has another type, as in files of older versions.
pub fn read(dir: &Path, step: u64) -> Result<Option<Vec<RolloutRow>>> {
    let path = path(dir, step);
    let Some(file) = files::if_exists(&path, files::open(&path))? else { return Ok(None) };
    let broken = |e: &dyn std::fmt::Display| Error::format(&path, e.to_string());
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    let mut rows = Vec::new();
    for batch in batches.map_err(|e| broken(&e))? {
        let batch = batch.map_err(|e| broken(&e))?;
        let columns = Columns { path: &path, batch: &batch };
        for i in 0..batch.num_rows() {
            rows.push(columns.row(i)?);
        }
    }
    Ok(Some(rows))
}

struct Columns<'a> {
    path: &'a Path,
    batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    fn of<T>(&self, name: &str, get: impl FnOnce(&'a ArrayRef) -> Option<T>) -> Result<T> {
        let wrong = |what: &str| Error::format(self.path, format!("column {name}: {what}"));
        let column = self.batch.column_by_name(name).ok_or_else(|| wrong("missing"))?;
        match column.null_count() {
            0 => get(column).ok_or_else(|| wrong(&format!("unexpected type {}", column.data_type()))),
            _ => Err(wrong("contains nulls")),
        }
    }

    fn text(&self, name: &str, i: usize) -> Result<String> {
        self.of(name, |column| Some(column.as_string_opt::<i32>()?.value(i).to_owned()))
    }

    fn number<T: ArrowPrimitiveType>(&self, name: &str, i: usize) -> Result<T::Native> {
        self.of(name, |column| Some(column.as_primitive_opt::<T>()?.value(i)))
    }

    /// Returns a score; null is none.
    fn score(&self, name: &str, i: usize) -> Result<Option<f64>> {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Float64Type>());
        let Some(column) = column else { return self.number::<Float64Type>(name, i).map(Some) };
        Ok(column.is_valid(i).then(|| column.value(i)))
    }

    fn list<T: ArrowPrimitiveType>(&self, name: &str, i: usize) -> Result<Vec<T::Native>> {
        self.of(name, |column| Some(column.as_list_opt::<i32>()?.value(i).as_primitive_opt::<T>()?.values().to_vec()))
    }

    /// Returns the images of a row. Files of older versions have none.
    fn images(&self, i: usize) -> Result<Vec<Vec<u8>>> {
        if self.batch.column_by_name("pictures").is_none() {
            return Ok(Vec::new());
        }
        let all = |column: &'a ArrayRef| {
            let list = column.as_list_opt::<i32>()?.value(i);
            Some(list.as_binary_opt::<i32>()?.iter().flatten().map(<[u8]>::to_vec).collect())
        };
        self.of("pictures", all)
    }

    fn row(&self, i: usize) -> Result<RolloutRow> {
        // Files of older versions have the reward in the column `score`.
        let reward = if self.batch.column_by_name("reward").is_some() { "reward" } else { "score" };
        let question = self.batch.column_by_name("question").map(|_| self.text("question", i)).transpose()?;
        let opened = self.batch.column_by_name("opened").map(|_| self.text("opened", i)).transpose()?;
        Ok(RolloutRow {
            opened: opened.unwrap_or_default(),
            prompt: self.number::<UInt64Type>("prompt", i)?,
            rollout: self.number::<UInt32Type>("rollout", i)?,
            id: self.text("id", i)?,
            input: self.text("input", i)?,
            output: self.text("output", i)?,
            gts: self.text("gts", i)?,
            score: self.score("score", i)?,
            reward: self.score(reward, i)?,
            acc_score: self.score("acc_score", i)?,
            format_reward_score: self.number::<Float64Type>("format_reward_score", i)?,
            predict_str: self.text("predict_str", i)?,
            advantage: self.number::<Float64Type>("advantage", i)?,
            response_length: self.number::<UInt32Type>("response_length", i)?,
            token_ids: self.list::<UInt32Type>("token_ids", i)?,
            log_probs: self.list::<Float32Type>("log_probs", i)?,
            finish_reason: self.text("finish_reason", i)?,
            judge: self.text("judge", i)?,
            question: question.unwrap_or_default(),
            images: self.images(i)?,
        })
    }
}
