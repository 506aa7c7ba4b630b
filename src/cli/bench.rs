//! `omr bench`: how long ops and whole jobs take on this machine, beside the least time its arithmetic and memory allow.

use std::path::PathBuf;

use super::Context;
use super::stdout::print;
use crate::bench::{self, ModelShape, Options};
use crate::error::Result;
use crate::plan;
use crate::tensor::DType;

/// Arguments of `omr bench`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure, by the first part of its name; all ops and jobs of the CPU when left out. `emu` alone is the
    /// emulator's own speed, `loading` alone how fast the rows of --data become samples. With --device cuda or emu: ops
    /// (all of them, also when left out), one op's name and the first part of its shape, train-step, generate, decode,
    /// parity (that rollouts have the trainer's log-probs, to the bit, with drafts and without), or a config of `omr sft` or
    /// `omr rl` and its KEY=VALUEs: the largest pass and the update that `omr plan` predicts of it
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Model of jobs; digits and 22m when left out, on a card 7b
    #[arg(long, value_enum, value_name = "SHAPE")]
    model_shape: Option<ModelShape>,
    /// Of decode on a card: sequences
    #[arg(long, default_value_t = 256, value_name = "N")]
    batch_size: usize,
    /// Of decode on a card: keys of each
    #[arg(long, default_value_t = 1536, value_name = "N")]
    input_len: usize,
    #[command(flatten)]
    rows: plan::Rows,
    /// Element type of weights and activations; both when left out
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Dtype>,
    /// Of loading: the model whose tokenizer and image processor are used
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Of loading: rows to train on
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds to measure each for, at least
    #[arg(long, default_value_t = 0.3, value_name = "S")]
    seconds: f64,
}

/// An element type to measure with.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    F32,
    Bf16,
}

/// Measures and prints a table to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let dtypes = match args.dtype {
        Some(Dtype::F32) => vec![DType::F32],
        Some(Dtype::Bf16) => vec![DType::Bf16],
        None => vec![DType::F32, DType::Bf16],
    };
    let options = Options {
        names: &args.names,
        model_shape: args.model_shape,
        batch_size: args.batch_size,
        input_len: args.input_len,
        rows: &args.rows,
        dtypes,
        model: args.model.as_deref(),
        data: args.data.as_deref(),
        json: args.json.as_deref(),
        seconds: args.seconds,
    };
    print(&context.with_machine(|machine| bench::run(&options, machine))?)
}
