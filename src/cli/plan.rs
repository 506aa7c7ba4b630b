//! `omr plan`: what a config takes on a GPU.

use std::path::PathBuf;

use super::{Context, Overrides, print};
use crate::config::{RlConfig, SftConfig};
use crate::error::{Error, Result};
use crate::plan::{self, Asked, Card, Rows, model_config};

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
    let file = &args.config;
    let asked = Asked { gpus: args.gpus, card: &args.card, rows: &args.rows, json: args.json };
    match plan::is_rl(file)? {
        true => match args.overrides.read::<RlConfig>(Some(file))? {
            Some(config) => {
                let model = model_config(file, config.model.as_ref())?;
                print(&plan::text(&asked, model, &config, plan::rl_page, plan::rl_seats)?)
            }
            None => Ok(()),
        },
        false => match args.overrides.read::<SftConfig>(Some(file))? {
            Some(config) => {
                let model = model_config(file, config.model.as_ref())?;
                print(&plan::text(&asked, model, &config, plan::sft_page, plan::sft_seats)?)
            }
            None => Ok(()),
        },
    }
}
