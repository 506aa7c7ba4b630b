//! `omr generate`: streams one answer, or writes a file of answers.

use std::io::Write;
use std::path::PathBuf;

use super::Context;
use super::args::{Overrides, repository};
use super::stdout::Stdout;
use crate::config::GenerateConfig;
use crate::error::{Error, Result};
use crate::files;
use crate::generate::{Answers, Reader, write};
use crate::hub::Kind;

/// Arguments of `omr generate`.
#[derive(clap::Args)]
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
    /// File of questions, one JSON line each: {"id", "messages" or "prompt", "images"?}
    #[arg(long, value_name = "FILE", requires = "out")]
    jsonl: Option<PathBuf>,
    /// File to write the answers to, one JSON line each with `response`, `token_ids` and `finish_reason`
    #[arg(long, value_name = "FILE", requires = "jsonl")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Streams the answer to one question to stdout, or answers a file of questions and writes a file of answers.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(config) = args.overrides.load::<GenerateConfig>(None)? else { return Ok(()) };
    let model = repository(&args.model, Kind::Model, "--model")?;
    let reader = Reader::open(&model, &config)?;
    context.with_machine(|machine| match (&args.prompt, &args.jsonl, &args.out) {
        (Some(text), _, _) => {
            let prompt = reader.question(text, &args.image)?;
            let answers = Answers::prepare(&model, &config, reader, vec![prompt], machine)?;
            let mut out = Stdout::lock();
            answers.stream(machine.observer, |text| match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Error::Stopped),
                other => other.map_err(Error::io("standard output")),
            })
        }
        (None, Some(file), Some(out)) => {
            files::writable(out)?;
            let (lines, prompts) = reader.lines(file)?;
            let responses = Answers::prepare(&model, &config, reader, prompts, machine)?.all(machine.observer)?;
            write(out, lines, responses)
        }
        _ => Err(Error::input(
            "omr generate",
            "neither --prompt nor --jsonl and --out",
            "--prompt TEXT, or --jsonl FILE --out FILE",
        )),
    })
}
