//! The arguments of `omr bench`: what is measured, and how.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::Value;

use super::jobs::ModelShape;
use crate::error::Result;
use crate::tensor::DType;
use crate::{files, plan};

/// Arguments of `omr bench`.
#[derive(clap::Args)]
pub struct Options {
    /// What to measure, by the first part of its name; all ops and jobs of the CPU when left out. `emu` alone is the
    /// emulator's own speed, `loading` alone how fast the rows of --data become samples. With --device cuda or emu: ops
    /// (all of them, also when left out), one op's name and the first part of its shape, train-step, generate, decode,
    /// parity (that rollouts have the trainer's log-probs, to the bit, with drafts and without), or a config of `omr sft` or
    /// `omr rl` and its KEY=VALUEs: the largest pass and the update that `omr plan` predicts of it
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Model of jobs; digits and 22m when left out, on a card 7b
    #[arg(long, value_enum, value_name = "SHAPE")]
    pub model_shape: Option<ModelShape>,
    /// Of decode on a card: sequences
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub batch_size: usize,
    /// Of decode on a card: keys of each
    #[arg(long, default_value_t = 1536, value_name = "N")]
    pub input_len: usize,
    /// Rows that a config is measured on.
    #[command(flatten)]
    pub rows: plan::Rows,
    /// Element type of weights and activations; both when left out
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Dtype>,
    /// Of loading: the model whose tokenizer and image processor are used
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Of loading: rows to train on
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Seconds to measure each for, at least
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

    /// Writes `record` to the file that `--json` names, if any.
    pub(super) fn write(&self, record: &Value) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |file| files::write(file, record.to_string().as_bytes()))
    }
}
