//! `omr plan`: shows the memory and time that a config needs on GPUs.

use std::path::PathBuf;

use super::Context;
use super::args::Overrides;
use super::stdout::print;
use crate::config::{RlConfig, SftConfig};
use crate::error::{Error, Result};
use crate::plan::{self, Asked, Training, model_config};

/// Arguments of `omr plan`.
#[derive(clap::Args)]
pub struct Args {
    /// Config file of `omr sft` or `omr rl`. Its keys decide which command it is for
    config: PathBuf,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    overrides: Overrides,
}

/// Prints the plan to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    let Asked { gpus, card, .. } = &args.asked;
    if *gpus == 0 {
        return Err(Error::input("--gpus", "0", "at least 1"));
    }
    if card.launches.is_some() && !card.gpu.is_hopper() {
        let found = card.gpu.ceilings().name;
        return Err(Error::input("--launches", found, "h200 or h100, because launches are recorded for Hopper only"));
    }
    match plan::is_rl(&args.config)? {
        true => planned::<RlConfig>(args),
        false => planned::<SftConfig>(args),
    }
}

fn planned<C: Training>(args: &Args) -> Result<()> {
    let Some(mut config) = args.overrides.read::<C>(Some(&args.config))? else { return Ok(()) };
    let model = model_config(&args.config, config.keys().model)?;
    print(&plan::text(&args.asked, model, &config)?)
}
