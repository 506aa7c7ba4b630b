//! `omr plan`: what a config takes on a GPU.

use std::path::PathBuf;

use super::Context;
use super::args::Overrides;
use super::stdout::print;
use crate::config::{RlConfig, SftConfig};
use crate::error::{Error, Result};
use crate::plan::{self, Asked, Card, Rows, Training, model_config};

/// Arguments of `omr plan`.
#[derive(clap::Args)]
pub struct Args {
    /// Config file of `omr sft` or `omr rl`; its keys say which
    config: PathBuf,
    /// Cards, a rank each, in nodes of 8; fewer stand beside them in a table
    #[arg(long, default_value_t = 1, value_name = "N")]
    gpus: usize,
    #[command(flatten)]
    card: Card,
    #[command(flatten)]
    rows: Rows,
    /// JSON on stdout in place of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Prints the plan to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    if args.gpus == 0 {
        return Err(Error::input("--gpus", "0", "at least 1"));
    }
    if args.card.launches.is_some() && !args.card.gpu.is_hopper() {
        let found = args.card.gpu.ceilings().name;
        return Err(Error::input("--launches", found, "h200 or h100: launches are listed for Hopper"));
    }
    match plan::is_rl(&args.config)? {
        true => planned::<RlConfig>(args),
        false => planned::<SftConfig>(args),
    }
}

fn planned<C: Training>(args: &Args) -> Result<()> {
    let Some(mut config) = args.overrides.read::<C>(Some(&args.config))? else { return Ok(()) };
    let model = model_config(&args.config, config.keys().model)?;
    let asked = Asked { gpus: args.gpus, card: &args.card, rows: &args.rows, json: args.json };
    print(&plan::text(&asked, model, &config)?)
}
