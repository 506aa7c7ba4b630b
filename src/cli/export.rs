//! `omr export`: writes the model of an adapter for programs that read no adapters.

use std::path::PathBuf;

use super::Context;
use super::args::{Overrides, repository};
use super::stdout::print;
use crate::config::GenerateConfig;
use crate::error::Result;
use crate::eval;
use crate::hub::Kind;

/// Arguments of `omr export`.
#[derive(clap::Args)]
#[command(
    after_help = "The adapter's change of each weight matrix is added to the base's matrix (in LoRA's notation W + s B A, \
    with s = alpha / rank) in f32 and rounded to the type of the base's weights. In bf16 the rounding loses small \
    changes: use --rows to see how far the log-probs move, and serve or evaluate the adapter itself where every bit \
    counts. Example: omr export --merge runs/sft --out merged --rows answers.jsonl"
)]
pub struct Args {
    /// Run that trained an adapter, or a model directory with an adapter. The adapter is merged into its base
    #[arg(long, value_name = "RUN")]
    merge: PathBuf,
    /// Folder to create for the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Responses whose log-probs are compared before and after the merge: a file as `omr score --logprobs` reads it.
    /// Trailing overrides are settings of `omr generate`
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Writes the model and prints its path to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(config) = args.overrides.load::<GenerateConfig>(None)? else { return Ok(()) };
    let of_run = args.merge.join("model");
    let dir = if of_run.is_dir() { of_run } else { repository(&args.merge, Kind::Model, "--merge")? };
    let rows = args.rows.as_deref();
    let line = context.with_machine(|machine| eval::export(&dir, &args.out, rows, &config, machine))?;
    context.say(&line);
    print(&format!("{}\n", args.out.display()))
}
