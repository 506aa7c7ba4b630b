//! `omr replay`: recomputes steps of a run and reports the first value that differs from its record.

use std::path::PathBuf;

use super::Context;
use super::stdout::print;
use crate::error::Result;
use crate::replay::{self, Steps};

/// Arguments of `omr replay`.
#[derive(clap::Args)]
#[command(
    after_help = "A step is recomputed from the newest checkpoint before it, or from the model that the run started \
    with. All steps up to it are compared: rollouts if rollouts/STEP.parquet exists, metrics except times, and weights \
    if the run has a checkpoint of the last step. With rollout_freq=1 and keep_every=N, each step of a run is cheap \
    to recompute.\n\
    Exit status: 0 everything equals the record, 1 something differs."
)]
pub struct Args {
    /// Run directory of omr sft or omr rl, or such a folder in a recipe's run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Number of the step to recompute
    #[arg(long, value_name = "N", required_unless_present = "sample")]
    step: Option<u64>,
    /// Recompute only this rollout of the step, counted from 0, with the other rollouts of its prompt
    #[arg(long, value_name = "K", requires = "step")]
    rollout: Option<usize>,
    /// Recompute this number of recorded steps, drawn at random
    #[arg(long, value_name = "M", conflicts_with_all = ["step", "rollout"], value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
}

/// Prints what equals the record. Returns an error if something differs.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let steps = match args.step {
        Some(step) => Steps::One { step, rollout: args.rollout },
        None => Steps::Drawn(args.sample.unwrap_or(1) as usize),
    };
    print(&context.with_machine(|machine| replay::run(&args.run, &steps, machine))?)
}
