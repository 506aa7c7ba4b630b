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

/// Prints the plan to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    let PlanRequest { gpus, gpu_options, .. } = &args.plan_request;
    if *gpus == 0 {
        return Err(Error::input("--gpus", "0", "at least 1"));
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
