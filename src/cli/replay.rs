//! `omr replay`: recomputes steps of a run and reports the first value that differs from its record.

use std::path::PathBuf;

use super::Context;
use super::stdout::print;
use crate::error::Result;
use crate::replay::{self, Steps};

/// Arguments of `omr replay`.
#[derive(clap::Args)]
#[command(
    after_help = "A step is computed from the newest checkpoint before it, or from the model the run began with, and all steps \
    up to it are compared: rollouts where rollouts/STEP.parquet is there, metrics but times, and weights where the run has a \
    checkpoint of the last. rollout_freq: 1 and keep_every: N keep what makes any step cheap to compute again.\n\
    Exit status: 0 all is as it was recorded, 1 something is not."
)]
pub struct Args {
    /// Run directory of omr sft or omr rl, or those in a recipe's
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The step to compute again
    #[arg(long, value_name = "N", required_unless_present = "sample")]
    step: Option<u64>,
    /// Of the step, only this row of its rollouts (from 0), with the others of its prompt
    #[arg(long, value_name = "K", requires = "step")]
    rollout: Option<usize>,
    /// So many recorded steps, drawn at random
    #[arg(long, value_name = "M", conflicts_with_all = ["step", "rollout"], value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
}

/// Prints what is as it was recorded; errors with what is not.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let steps = match args.step {
        Some(step) => Steps::One { step, rollout: args.rollout },
        None => Steps::Drawn(args.sample.unwrap_or(1) as usize),
    };
    print(&context.with_machine(|machine| replay::run(&args.run, &steps, machine))?)
}
