//! The command line: one file per command, each from arguments to a config to one job.
//!
//! A command file has `Args` (clap) and `run(&Args, &Context) -> Result<()>`. Results go to stdout, everything
//! else to stderr and, once a run directory is open, to its `log.txt`. What is not built is not listed.

#![deny(unsafe_code)]

mod args;
mod bench;
mod config;
mod console;
mod context;
mod data;
mod doctor;
mod download;
mod dry_run;
mod eval;
mod generate;
mod inspect;
mod jsonl;
mod memory;
mod plan;
pub mod progress;
mod ranks;
mod recipe;
mod referee;
mod replay;
mod report;
mod rl;
pub mod run_dir;
mod score;
mod sft;
pub mod signal;
mod training;
mod verify;

pub use args::{ConfigArgs, JobArgs, Overrides, RunArgs};
pub use context::Context;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::ranks::Seat;
use crate::error::Result;
use crate::observe::shown;

/// Reasoning models from raw data to a measured result: distillation, SFT, RL and evaluation of Qwen2.5-VL, by kernels of
/// its own or on the processor.
#[derive(Parser)]
#[command(name = "omr", version, max_term_width = 110, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Any config key can be set as a trailing key=value, such as seed=7 or rl.rollout.n=16; \
    `omr config` lists them. Running a command again on the same --out goes on where it stopped.\n\
    Exit status: 0 done, 2 the input is wrong, 1 the run failed, 130 stopped by a signal (a checkpoint is written then with save_on_stop).")]
struct Cli {
    #[command(flatten)]
    global: args::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole recipe: data, SFT, RL, evaluation of base, SFT and RL, report
    Recipe(JobArgs),
    /// Prepare data: stages from rows to rows, and a page of what is in data sets
    Data(data::Args),
    /// Fetch a model or a data set from the Hugging Face hub
    Download(download::Args),
    /// Fine-tune on rows of conversations, packed online
    Sft(JobArgs),
    /// Improve a model on questions with GSPO, GRPO or DAPO and the integrated sampler
    Rl(JobArgs),
    /// Measure a model on tasks
    Eval(eval::Args),
    /// Answer a question about text and pictures, streamed; or a file of them
    Generate(generate::Args),
    /// Score responses against their right answers: accuracy and format
    Score(score::Args),
    /// Say whether an answer equals the right one
    Verify(verify::Args),
    /// Compute recorded steps of a run again and name the first thing that is not as it was
    Replay(replay::Args),
    /// Build report.html of a run again, or one page that compares several runs
    Report(report::Args),
    /// Measure ops, a training step and rollouts beside what this machine can do at most
    Bench(bench::Args),
    /// Say what a config takes on a card: memory, a step's time (its floor, and predicted for a Hopper card), tokens a day
    Plan(plan::Args),
    /// List every config key: type, default, meaning, origin and its name in verl or lmms-engine
    Config(config::Args),
    /// Say what works on this machine and what to do about what does not
    Doctor(doctor::Args),
}

impl Command {
    /// Which rank of how many this process is; alone for what has no ranks.
    fn seat(&self) -> Result<Seat> {
        match self {
            Command::Recipe(args) | Command::Sft(args) | Command::Rl(args) => of(args.ranks),
            Command::Eval(args) => of(args.ranks),
            Command::Data(args) => args.ranks().map_or(Ok(Seat::Alone), of),
            _ => Ok(Seat::Alone),
        }
    }

    fn run(&self, context: &Context) -> Result<()> {
        match self {
            Command::Recipe(args) => recipe::run(args, context),
            Command::Data(args) => data::run(args, context),
            Command::Download(args) => download::run(args, context),
            Command::Sft(args) => sft::run(args, context),
            Command::Rl(args) => rl::run(args, context),
            Command::Eval(args) => eval::run(args, context),
            Command::Generate(args) => generate::run(args, context),
            Command::Score(args) => score::run(args, context),
            Command::Verify(args) => verify::run(args, context),
            Command::Replay(args) => replay::run(args, context),
            Command::Report(args) => report::run(args, context),
            Command::Bench(args) => bench::run(args, context),
            Command::Plan(args) => plan::run(args, context),
            Command::Config(args) => config::run(args, context),
            Command::Doctor(args) => doctor::run(args, context),
        }
    }
}

fn of(args: args::RanksArgs) -> Result<Seat> {
    Seat::of(args.gpus, &|name| std::env::var(name).ok())
}

/// Parses the command line, runs the command, maps the outcome to the exit status (FORMATS section 1).
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let (seat, refused) = match cli.command.seat() {
        Ok(seat) => (seat, Ok(())),
        Err(error) => (Seat::Alone, Err(error)),
    };
    let context = Context::new(&cli.global, seat);
    let run = || refused.and_then(|()| context.start()).and_then(|()| cli.command.run(&context));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    signal::answered();
    let ranks = context.end_ranks(matches!(done, Ok(Ok(()))));
    match done.map(|done| done.and(ranks)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            context.fail(&error);
            ExitCode::from(error.exit_code())
        }
        // A fault of this program; the panic hook has said where.
        Err(_) => ExitCode::from(1),
    }
}

/// Writes a command's result to stdout. A reader that has gone (`omr config | head`) is no fault.
pub(crate) fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut stdout = Stdout::lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(crate::error::Error::io("standard output")),
    }
}

/// Standard output: bytes as they are, but to a terminal only what does not act on it. Each write is of whole characters.
pub(crate) struct Stdout {
    out: std::io::StdoutLock<'static>,
    terminal: bool,
}

impl Stdout {
    pub(crate) fn lock() -> Stdout {
        use std::io::IsTerminal;
        let out = std::io::stdout().lock();
        Stdout { terminal: out.is_terminal(), out }
    }
}

impl std::io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.terminal {
            true => self.out.write_all(shown(&String::from_utf8_lossy(bytes)).as_bytes())?,
            false => self.out.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
