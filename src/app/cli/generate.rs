//! `omr generate`: streams one answer, or writes a file of answers.

use std::path::{Path, PathBuf};

use super::Context;
use super::args::{Overrides, repository};
use super::stdout::{Stdout, try_write};
use crate::serve::Batch;
use omr_base::config::GenerateConfig;
use omr_base::error::{Error, Result};
use omr_base::files::Output;
use omr_base::hub::Kind;
use omr_model::llm::is_answered;

/// Arguments of `omr generate`.
#[derive(clap::Args)]
#[command(
    after_help = "The answer to a question is added to its line: response, token_ids, finish_reason; with n > 1: \
    responses, and lists of the others. A line with an error is skipped, and its place states the error. \
    max_bad_rows=0.01 ends the command if more than 1 % of the lines have errors.\n\
    Until all answers are finished, they are in OUT.partial, and the same command continues there. OUT.settings records \
    the model and the keys of these answers; other settings are an error.\n\
    Keys such as temperature=0 set the parameters that lines do not state: omr config generate lists them."
)]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Image of the question; may be given several times. `<image>` in the prompt marks the place of an image. Without
    /// it, images come first
    #[arg(long, value_name = "FILE", requires = "prompt")]
    image: Vec<PathBuf>,
    /// Question to answer
    #[arg(long, value_name = "TEXT", conflicts_with = "jsonl", required_unless_present_any = ["jsonl", "print_config"])]
    prompt: Option<String>,
    /// File of questions, one JSON line each: {"id", "messages" or "prompt", "images"?}, or OpenAI's batch lines
    /// {"custom_id", "method", "url", "body"}. A question may state n, stop, seed, temperature, top_p, top_k, min_p,
    /// max_tokens and other parameters of a request
    #[arg(long, value_name = "FILE", requires = "out")]
    jsonl: Option<PathBuf>,
    /// File to write the answers to, one line per question in the same order. The same command continues where it
    /// was stopped
    #[arg(long, value_name = "FILE", requires = "jsonl")]
    out: Option<PathBuf>,
    /// Move earlier answers in --out aside and begin anew
    #[arg(long, requires = "jsonl")]
    fresh: bool,
    /// Replace a file in --out that another command wrote
    #[arg(long, requires = "out", conflicts_with = "fresh")]
    overwrite: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Streams the answer to one question to stdout, or answers a file of questions and writes a file of answers.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(mut config) = args.overrides.load::<GenerateConfig>(None, None)? else { return Ok(()) };
    let (model, root) = (repository(&args.model, Kind::Model, "--model")?, args.model.display().to_string());
    if let (Some(jsonl), Some(out)) = (&args.jsonl, &args.out) {
        // Earlier answers of this command may stand in the folder of the model.
        let inputs: &[&Path] = if is_answered(out) { &[jsonl] } else { &[jsonl, &model] };
        Output::regular(out, true, inputs)?;
    }
    config.dtype = context.dtype(config.dtype, Some(&model));
    let batch = Batch { model, root, config };
    context.with_machine(|machine| match (&args.prompt, &args.jsonl, &args.out) {
        (Some(text), _, _) => {
            let put = |text: &str| match try_write(Stdout::lock(), text.as_bytes())? {
                true => Ok(()),
                false => Err(Error::Stopped),
            };
            batch.stream(text, &args.image, put, machine)
        }
        (None, Some(jsonl), Some(out)) => {
            let [answered, skipped] = batch.answer(jsonl, out, args.fresh, args.overwrite, machine)?;
            let skipped = match skipped {
                0 => String::new(),
                n => format!(", {n} skipped: their places state the errors"),
            };
            context.say(&format!("{}: {answered} of the lines answered{skipped}", out.display()));
            Ok(())
        }
        _ => {
            let found = "neither --prompt nor --jsonl and --out";
            Err(Error::input("omr generate", found, "--prompt TEXT, or --jsonl FILE --out FILE"))
        }
    })
}
