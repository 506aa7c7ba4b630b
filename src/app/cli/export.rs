//! `omr export`: writes the model of an adapter for programs that read no adapters, or a model with quantised matrices.

use std::path::{Path, PathBuf};

use super::Context;
use super::args::{Overrides, repository};
use super::stdout::print;
use omr_base::choice::{BaseFormat, named};
use omr_base::config::GenerateConfig;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::Kind;
use omr_train::eval::{self, Onto, Probe};
use omr_train::replay;

/// Arguments of `omr export`.
#[derive(clap::Args)]
#[command(
    after_help = "The adapter's change of each weight matrix is added to the base's matrix (in LoRA's notation W + s B A, \
    with s = alpha / rank) in f32 and rounded to the type of the base's weights. In bf16 the rounding loses small \
    changes: use --rows to see how far the log-probs move, and serve or evaluate the adapter itself where every bit \
    counts. Example: omr export --merge runs/sft --out merged --rows answers.jsonl. omr export --quantize nf4 \
    MODEL --out DIR writes the linear layers of the decoder in 4 bits."
)]
pub struct Args {
    /// Run that trained an adapter, or a model directory with an adapter. The adapter is merged into its base
    #[arg(long, value_name = "RUN", required_unless_present = "quantize", conflicts_with = "quantize")]
    merge: Option<PathBuf>,
    /// Store the matrices of the model MODEL as int8 or nf4. transformers loads the directory of nf4
    #[arg(long, value_names = ["FORMAT", "MODEL"], num_args = 2)]
    quantize: Option<Vec<String>>,
    /// Weights to which an adapter of a quantised base is added: the values of the codes that it was trained on, or the
    /// original weights. For a run and its original weights, the log-probs of the last training batch are compared
    #[arg(long, value_enum, default_value_t, conflicts_with = "quantize")]
    onto: Onto,
    /// Folder to create for the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Responses whose log-probs are compared before and after the merge: a file as `omr score --logprobs` reads it.
    /// Trailing overrides are settings of `omr generate`
    #[arg(long, value_name = "FILE", conflicts_with = "quantize")]
    rows: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Writes the model and prints its path to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(config) = args.overrides.load::<GenerateConfig>(None, None)? else { return Ok(()) };
    files::is_new(&args.out)?;
    let line = match (&args.merge, args.quantize.as_deref()) {
        (_, Some([format, model])) => {
            if let Some(setting) = args.overrides.overrides.first() {
                return Err(Error::input("--quantize", setting, "no KEY=VALUE after MODEL"));
            }
            let format = named("--quantize", BaseFormat::ALL, BaseFormat::ALIASES, format)?;
            eval::quantize(&repository(Path::new(model), Kind::Model, "--quantize")?, &args.out, format)?
        }
        (merge, _) => {
            let merge = merge.as_deref().unwrap_or(Path::new(""));
            let of_run = merge.join("model");
            let dir = if of_run.is_dir() { of_run } else { repository(merge, Kind::Model, "--merge")? };
            context.with_machine(|machine| {
                let probe = match &args.rows {
                    Some(rows) => {
                        files::open(rows).map_err(Error::io(rows))?;
                        Probe::Rows(rows)
                    }
                    None if args.onto == Onto::Original && merge.join("config.yaml").exists() => {
                        Probe::Batch(replay::last_batch(merge, machine)?)
                    }
                    None => Probe::Nothing,
                };
                eval::export(&dir, &args.out, args.onto, &probe, &config, machine)
            })?
        }
    };
    context.say(&line);
    print(&format!("{}\n", args.out.display()))
}
