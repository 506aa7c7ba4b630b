//! `omr replay`: recomputes steps of a run, or the answers of a server, and reports what differs from the record.

use std::path::{Path, PathBuf};

use super::args::{Overrides, repository};
use super::stdout::print;
use super::{Context, serve};
use crate::serve::{Options, Server};
use omr_base::config::ServeConfig;
use omr_base::error::{Error, Result};
use omr_base::hub::Kind;
use omr_train::replay::{self, Steps};

/// Arguments of `omr replay`.
#[derive(clap::Args)]
#[command(
    after_help = "A step is recomputed from the newest checkpoint before it, or from the model that the run started \
    with. All steps up to it are compared: rollouts if rollouts/STEP.parquet exists, metrics except times, and weights \
    if the run has a checkpoint of the step. With rollout_freq=1 and keep_every=N, each step of a run is cheap to \
    recompute.\n\
    With --requests, the requests that omr serve --record-requests FILE has recorded are answered again, and tokens and \
    log-probs are compared bit for bit. Keys such as dtype=bf16 must be those of the server.\n\
    Exit status: 0 everything equals the record, 1 something differs."
)]
pub struct Args {
    /// Run directory of omr sft or omr rl, or such a folder in a recipe's run directory
    #[arg(value_name = "RUN", required_unless_present = "requests")]
    run: Option<String>,
    /// Number of the step to recompute
    #[arg(long, value_name = "N", required_unless_present_any = ["sample", "requests"])]
    step: Option<u64>,
    /// Recompute one prompt of the step: the prompt that rollout K belongs to, with all of its rollouts. K counts the
    /// rollouts of the step from 0
    #[arg(long, value_name = "K", requires = "step")]
    rollout: Option<usize>,
    /// Recompute this number of recorded steps, drawn at random
    #[arg(long, value_name = "M", conflicts_with_all = ["step", "rollout"], value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Answer the recorded requests of a server again
    #[arg(long, value_name = "FILE", requires = "model", conflicts_with_all = ["step", "sample"])]
    requests: Option<PathBuf>,
    /// Model directory for --requests
    #[arg(long, value_name = "DIR", requires = "requests")]
    model: Option<PathBuf>,
    /// Adapter of the server, as it was given to omr serve
    #[arg(long, value_name = "NAME=DIR", requires = "requests")]
    lora_modules: Option<String>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Prints what equals the record. Returns an error if something differs.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let mut overrides = args.overrides.clone();
    if let (Some(file), Some(model)) = (&args.requests, &args.model) {
        // With --requests, the argument RUN contains the first override.
        overrides.overrides.splice(0..0, args.run.clone());
        let adapter = args.lora_modules.as_deref().map(serve::adapter).transpose()?;
        return requests(file, model, adapter, &overrides, context);
    }
    if let Some(key) = overrides.overrides.first() {
        return Err(Error::input("omr replay", key, "no keys without --requests"));
    }
    let run = Path::new(args.run.as_deref().unwrap_or_default());
    let steps = match args.step {
        Some(step) => Steps::One { step, rollout: args.rollout },
        None => Steps::Drawn(args.sample.unwrap_or(1) as usize),
    };
    print(&context.with_machine(|machine| replay::run(run, &steps, machine))?)
}

/// Answers recorded requests again. Prints what differs and returns an error if something does.
fn requests(
    file: &Path,
    model: &Path,
    adapter: Option<(String, PathBuf)>,
    overrides: &Overrides,
    context: &Context,
) -> Result<()> {
    let Some(config) = overrides.load::<ServeConfig>(None, None)? else { return Ok(()) };
    let root = model.display().to_string();
    let model = repository(model, Kind::Model, "--model")?;
    let options = Options { model, root, config, adapter, ..Options::default() };
    let replayed = context.with_machine(|machine| Server::prepare(options, machine)?.replay(file, machine))?;
    let (all, differ) = (replayed.requests, replayed.differences.len());
    for difference in &replayed.differences {
        print(&format!("{difference}\n"))?;
    }
    match differ {
        0 => print(&format!("{all} requests: all tokens and log-probs equal the record\n")),
        _ => Err(Error::Failed(format!("{differ} of {all} requests differ from the record"))),
    }
}
