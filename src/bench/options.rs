//! The arguments of `omr bench`: what is measured, and how.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use serde_json::Value;

use super::jobs::{JobModel, ModelShape};
use crate::error::Result;
use crate::tensor::DType;
use crate::{files, plan};

/// Arguments of `omr bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Benchmarks to run, given by the first part of their names. Default: all ops and jobs on the CPU. `emu` measures
    /// the speed of the emulator, `loading` measures how fast the rows of --data are turned into samples. With --device
    /// cuda or emu: `ops` (all ops, the default), the name of one op and the first part of its shape, train-step,
    /// generate, decode, parity (checks that rollouts and the trainer have bitwise identical log-probs, with and
    /// without drafts), or a config of `omr sft` or `omr rl` with KEY=VALUE arguments (measures the largest pass and
    /// the update, which `omr plan` predicts)
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Model for whole jobs. Default: digits and 22m; on a GPU 7b
    #[arg(long, value_enum, value_name = "SHAPE")]
    pub model_shape: Option<ModelShape>,
    /// Rank of adapters of the language model, for train-step and decode. Default: no adapters
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub lora_rank: Option<usize>,
    /// Number of sequences, for decode on a GPU
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub batch_size: usize,
    /// Number of keys per sequence, for decode on a GPU
    #[arg(long, default_value_t = 1536, value_name = "N")]
    pub input_len: usize,
    /// Rows with which a config is measured.
    #[command(flatten)]
    pub rows: plan::Rows,
    /// Element type of weights and activations. Default: both
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Dtype>,
    /// Model directory with the tokenizer and image processor, for loading
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// File of rows, for loading
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Also write the results as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Minimum time to measure each case, in seconds
    #[arg(long, default_value_t = 0.3, value_name = "S")]
    pub seconds: f64,
}

/// An element type to measure with.
#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
}

impl Options {
    /// Element types of weights and activations.
    pub fn dtypes(&self) -> Vec<DType> {
        match self.dtype {
            Some(Dtype::F32) => vec![DType::F32],
            Some(Dtype::Bf16) => vec![DType::Bf16],
            None => vec![DType::F32, DType::Bf16],
        }
    }

    /// Returns the model of a job with this shape.
    pub(super) fn model_of(&self, shape: ModelShape) -> JobModel {
        JobModel { shape, lora_rank: self.lora_rank }
    }

    /// Writes `record` to the file that `--json` names, if any.
    pub(super) fn write(&self, record: &Value) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |file| files::write(file, record.to_string().as_bytes()))
    }
}
