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
    /// Picture of the question; give several in order. `<image>` in the text marks their places, else they come first
    #[arg(long, value_name = "FILE", requires = "prompt")]
    image: Vec<PathBuf>,
    /// The question
    #[arg(long, value_name = "TEXT", conflicts_with = "jsonl", required_unless_present_any = ["jsonl", "print_config"])]
    prompt: Option<String>,
    /// File of questions, a line each: {"id", "messages" or "prompt", "images"?}
    #[arg(long, value_name = "FILE", requires = "out")]
    jsonl: Option<PathBuf>,
    /// Where the lines go, each with `response`, `token_ids` and `finish_reason`
    #[arg(long, value_name = "FILE", requires = "jsonl")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Answers one question on stdout as it is written, or a file of questions into another.
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
        _ => Err(Error::input("omr generate", "neither --prompt nor --jsonl with --out", "one of them")),
    })
}
