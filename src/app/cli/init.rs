//! `omr init`: a small new model for the user's rows.

use std::path::PathBuf;

use super::Context;
use super::args::Overrides;
use super::inspect::named;
use super::stdout::print;
use omr_base::config::RecipeConfig;
use omr_base::error::Result;
use omr_model::llm::new_model;

/// Arguments of `omr init`.
#[derive(clap::Args)]
#[command(after_help = "The config sets the shape of the model (base, such as base.hidden_size=128) and the seed of \
    its random weights (seed). Example: omr init --like configs/digits.yaml --rows rows.jsonl --out base")]
pub struct Args {
    /// Config of a recipe (YAML)
    #[arg(long, value_name = "CONFIG")]
    like: PathBuf,
    /// Rows whose texts the tokenizer is trained on: a file, folder, pattern, or a config that contains data sets. The
    /// flag can be repeated
    #[arg(long, value_name = "ROWS|CONFIG", required = true)]
    rows: Vec<PathBuf>,
    /// Folder to create for the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
}

/// Creates the model and prints its path to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(mut config) = args.overrides.load::<RecipeConfig>(Some(&args.like), None)? else { return Ok(()) };
    config.dtype = context.dtype(config.dtype, None);
    let rows = args.rows.iter().map(|place| Ok(named(place, &[])?.datasets)).collect::<Result<Vec<_>>>()?.concat();
    let made = context.with_machine(|machine| new_model::init(&config, &rows, &args.out, machine))?;
    context.say(&made);
    print(&format!("{}\n", args.out.display()))
}
