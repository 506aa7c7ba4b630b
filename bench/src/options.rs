//! The arguments of `omr bench`: what is measured, and how.

use std::path::{Path, PathBuf};

use clap::builder::RangedU64ValueParser;
use serde_json::Value;

use super::case::{Make, label};
use super::jobs::{Amount, Decoding, JobModel, decode, generate, train_levels, train_step};
use super::model_shape::ModelShape;
use super::parity::parity;
use super::rl_step::rl_step;
use omr_base::choice::BaseFormat;
use omr_base::error::{Error, Result};
use omr_base::files::Output;
use omr_model::nn::CheckpointPolicy;
use omr_runtime::device::{Kind, Target};
use omr_runtime::ops::gemm::{Candidate, candidates};
use omr_runtime::tensor::DType;
use omr_train::plan;

/// Name of the benchmark of transfers between ranks.
pub const RANKS: &str = "ranks";

/// Number of tokens that each sequence generates in a repetition of `decode`.
const STEPS: usize = 32;

/// Arguments of `omr bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Benchmarks to run, given by the first part of their names. Default: all ops and jobs on the CPU. `emu` measures
    /// the speed of the emulator, `loading` measures how fast the rows of --data are turned into samples. With --device
    /// cuda or emu: `ops` (all ops, the default), the name of one op and the first part of its shape (`copy` is a copy of
    /// 1 GiB on the GPU), train-step, rl-step, generate, decode, prefill, parity (checks that rollouts and the trainer have bitwise identical
    /// log-probs, with and without drafts), variants (checks that wgmma and mma.sync have bitwise identical results),
    /// or a config of `omr sft` or `omr rl` with KEY=VALUE arguments (measures the largest pass and the update, which
    /// `omr plan` predicts). `ranks` checks and measures the transfers between the GPUs of --gpus, or between
    /// processes. `first-gpu` runs the checks and jobs of a new machine with one GPU or several in at most 20 minutes
    /// and writes a report to --json F.json and F.html; with --model DIR it also answers ten questions, with --real DIR
    /// and --data FILE it also trains a model
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Model for whole jobs. Default: digits and 22m; on a GPU 7b
    #[arg(long, value_enum, value_name = "SHAPE")]
    pub model_shape: Option<ModelShape>,
    /// Rank of adapters of the language model, for train-step, rl-step, decode and prefill. Default: no adapters
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub lora_rank: Option<usize>,
    /// Storage of the matrices of the language model, except the output matrix, for train-step, rl-step, decode and
    /// prefill: int8 or nf4, which train-step and rl-step measure with --lora-rank. Default: the element type
    #[arg(long, value_name = "FORMAT")]
    pub quantization: Option<BaseFormat>,
    /// Number of sequences, for decode and prefill. Default: 256 on a GPU, 8 on the CPU, 2 on the emulator
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    batch_size: Option<usize>,
    /// Number of keys per sequence for decode, and of tokens per prompt for prefill. Default: 1536 on a GPU, 128 on the
    /// CPU, 16 on the emulator
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    input_len: Option<usize>,
    /// Number of tokens of each response, for generate. Default: 128 on a GPU, 24 on the CPU, 4 on the emulator
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    new_tokens: Option<usize>,
    /// Draw the lengths of the responses of generate from a uniform distribution, from an eighth of their tokens to all
    #[arg(long)]
    mixed_lengths: bool,
    /// Rows with which a config is measured.
    #[command(flatten)]
    pub rows: plan::Rows,
    /// Element type of weights and activations. Default: both
    #[arg(long, value_parser = ["f32", "bf16"], value_name = "TYPE")]
    dtype: Option<String>,
    /// Number of processes of ranks, each with a GPU of its own if the machine has GPUs
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub gpus: Option<usize>,
    /// Model directory that first-gpu trains for 20 GSPO steps on all GPUs, with the questions in --data
    #[arg(long, value_name = "DIR")]
    pub real: Option<PathBuf>,
    /// Model directory with the tokenizer and image processor, for loading and first-gpu
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// File of rows, for loading and for --real of first-gpu. For ops: the numbers that they compute with, `normal` (the default) or `zeros`, with
    /// which a GPU needs less power
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Also write the results as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Replace an existing file of --json
    #[arg(long, requires = "json")]
    pub overwrite: bool,
    /// Measure a case whenever a line `turn` arrives on stdin, without a pause between repetitions, and print one line of
    /// JSON. `next` goes to the next case. A line of JSON says when a case is ready. For --device cuda or emu
    #[arg(long)]
    pub turns: bool,
    /// Measure the benchmark CASE with a kernel that may replace one of its kernels. `list` prints those of this program; it
    /// has some if it is built with the cargo feature `candidates`. For --device cuda or emu
    #[arg(long, value_name = "CASE=KERNEL")]
    pub candidate: Option<String>,
    /// Minimum time to measure each case, or a turn of it, in seconds
    #[arg(long, default_value_t = 0.3, value_name = "S")]
    pub seconds: f64,
}

impl Options {
    /// Element types of weights and activations.
    pub fn dtypes(&self) -> Vec<DType> {
        let is_chosen = |dtype: &DType| self.dtype.as_ref().is_none_or(|name| name == label(*dtype));
        [DType::F32, DType::Bf16].into_iter().filter(is_chosen).collect()
    }

    /// True if the ranks take part in the benchmark. All others run in one process.
    pub fn has_ranks(&self) -> bool {
        self.names == [RANKS]
    }

    /// Returns the candidate that --candidate names.
    pub fn candidate(&self) -> Result<Option<&'static Candidate>> {
        let Some(wanted) = &self.candidate else { return Ok(None) };
        let found = candidates().iter().find(|candidate| candidate.to_string() == *wanted);
        let names: Vec<String> = candidates().iter().map(Candidate::to_string).collect();
        let names =
            if names.is_empty() { "a program built with --features candidates".into() } else { names.join(", ") };
        found.map(Some).ok_or_else(|| Error::input("omr bench --candidate", wanted.clone(), names))
    }

    /// Returns the factor of the random numbers of ops: 0 with `--data zeros`, otherwise 1.
    pub fn scale(&self) -> Result<f32> {
        match self.data.as_ref().map(|data| data.to_string_lossy()).as_deref() {
            None | Some("normal") => Ok(1.0),
            Some("zeros") => Ok(0.0),
            Some(other) => Err(Error::input("omr bench --data", other, "normal or zeros")),
        }
    }

    /// Returns the size of the benchmark `name`, decode or prefill, on a device of this kind.
    fn decoding(&self, name: &str, kind: Kind) -> Decoding {
        let (sequences, keys) = match kind {
            Kind::Cuda => (256, 1536),
            Kind::Cpu => (8, 128),
            Kind::Emu => (2, 16),
        };
        Decoding {
            sequences: self.batch_size.unwrap_or(sequences),
            keys: self.input_len.unwrap_or(keys),
            steps: (name != "prefill").then_some(STEPS),
        }
    }

    /// Returns the cases of the job `name` with a model of `shape`, or none if no job has this name: a training step, an RL
    /// update, a round of rollouts, decoding alone, the computation of prompts alone, and the check that the sampler's
    /// log-probs equal the trainer's. A training step on a GPU leaves `reserved` bytes of its memory free.
    pub(super) fn jobs(
        &self,
        name: &str,
        target: Target,
        dtype: DType,
        shape: ModelShape,
        reserved: usize,
    ) -> Result<Vec<Make>> {
        let (kind, amount) = (target.kind, Amount::of(target.kind));
        let model = JobModel { shape, lora_rank: self.lora_rank, quantization: self.quantization };
        Ok(match name {
            "train-step" => {
                let levels = match kind.is_gpu() {
                    true => train_levels(target, dtype, model, amount, reserved)?,
                    false => CheckpointPolicy::default(),
                };
                vec![Box::new(move |dev| train_step(dev, dtype, model, amount, levels))]
            }
            "rl-step" => {
                let make = |&apart: &bool| -> Make { Box::new(move |dev| rl_step(dev, dtype, model, apart)) };
                if kind.is_gpu() { &[false][..] } else { &[false, true] }.iter().map(make).collect()
            }
            "generate" => {
                let (new_tokens, mixed) = (self.new_tokens.unwrap_or(amount.new_tokens), self.mixed_lengths);
                vec![Box::new(move |dev| generate(dev, dtype, shape, Amount { new_tokens, ..amount }, mixed))]
            }
            "decode" | "prefill" => {
                let of = self.decoding(name, kind);
                vec![Box::new(move |dev| decode(dev, dtype, model, of))]
            }
            "parity" => {
                let mut some = Amount { rows: amount.rows.min(4), rollouts: amount.rollouts.min(8), ..amount };
                if kind == Kind::Cuda {
                    // Prompt and response are together longer than a chunk of keys (2,048).
                    (some.prompt_len, some.new_tokens) = (2000, 256);
                }
                vec![Box::new(move |dev| parity(dev, dtype, shape, some))]
            }
            _ => Vec::new(),
        })
    }

    /// Writes `record` to the file that `--json` names, if any. A file of an earlier record is replaced, because
    /// [`Options::output`] was called at the start.
    pub(super) fn write(&self, record: &Value) -> Result<()> {
        self.opened(true)?.map_or(Ok(()), |output| output.write(record.to_string().as_bytes()))
    }

    /// Returns the place that `--json` names, if any. Errors if it must not be written.
    pub(super) fn output(&self) -> Result<Option<Output>> {
        self.opened(self.overwrite)
    }

    fn opened(&self, overwrite: bool) -> Result<Option<Output>> {
        let inputs: Vec<&Path> =
            self.names.iter().map(Path::new).chain(self.model.as_deref()).chain(self.data.as_deref()).collect();
        self.json.as_ref().map(|file| Output::open(file, overwrite, &inputs)).transpose()
    }
}
