//! `omr plan`: shows the memory and time that a config needs on GPUs.

use std::path::PathBuf;

use super::Context;
use super::args::Overrides;
use super::stdout::print;
use omr_base::config::{RlConfig, SftConfig};
use omr_base::error::{Error, Result};
use omr_base::files::Output;
use omr_train::plan::{self, PlanRequest, Training, model_config};

/// Arguments of `omr plan`.
#[derive(clap::Args)]
pub struct Args {
    /// Config file of `omr sft` or `omr rl`. Its keys decide which command it is for
    config: PathBuf,
    #[command(flatten)]
    plan_request: PlanRequest,
    #[command(flatten)]
    overrides: Overrides,
}

/// Largest number of GPUs of a plan.
const MOST_GPUS: usize = 1 << 16;

/// Prints the plan to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    let PlanRequest { gpus, gpu_options, .. } = &args.plan_request;
    if !(1..=MOST_GPUS).contains(gpus) {
        return Err(Error::input("--gpus", gpus.to_string(), format!("at least 1, at most {MOST_GPUS}")));
    }
    if !(1.0..=1e5).contains(&gpu_options.clock) {
        return Err(Error::input("--clock", gpu_options.clock.to_string(), "1 to 100000 MHz"));
    }
    if gpu_options.launches.is_some() && !gpu_options.gpu.has_predictions() {
        let expected = "h200 or h100, because launches are recorded for these two only";
        return Err(Error::input("--launches", gpu_options.gpu.ceilings().name, expected));
    }
    let open = |path: &PathBuf| Output::open(path, gpu_options.overwrite, &[&args.config]);
    gpu_options.launches.as_ref().map(open).transpose()?;
    if plan::is_rl(&args.config)? { planned::<RlConfig>(args) } else { planned::<SftConfig>(args) }
}

fn planned<C: Training + Sync>(args: &Args) -> Result<()> {
    let Some(mut config) = args.overrides.read::<C>(Some(&args.config), None)? else { return Ok(()) };
    let model = model_config(&args.config, config.keys().model)?;
    print(&plan::text(&args.plan_request, model, &config)?)
}
