//! `omr download`: downloads models and data sets from the Hugging Face hub.

use std::path::PathBuf;

use super::Context;
use super::stdout::print;
use omr_base::error::Result;
use omr_base::hub::download::Job;
use omr_base::hub::{Repo, Settings};

/// Arguments of `omr download`.
#[derive(clap::Args)]
#[command(after_help = "Files are checked against the hub's hashes. To continue a stopped download, run the same \
    command again. HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE work as in the Hugging Face libraries.")]
pub struct Args {
    /// Repository: base, coldstart or rl (models), sft-data, rl-data, or ORG/NAME, optionally with @REVISION
    #[arg(value_name = "REPO")]
    repo: String,
    /// Folder to write the files to
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Download only files whose path matches, such as '*.parquet'. May be given several times
    #[arg(long, value_name = "GLOB")]
    include: Vec<glob::Pattern>,
    /// Number of files downloaded at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    max_workers: u8,
}

/// Downloads the files and prints the folder to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let repo: Repo = args.repo.parse()?;
    let settings = Settings::of(&|name| std::env::var(name).ok())?;
    let (dir, include) = (args.to.clone(), args.include.clone());
    let job = Job { repo, dir, include, workers: args.max_workers.into() };
    context.runtime()?.block_on(job.run(&settings, context.observer()))?;
    print(&format!("{}\n", args.to.display()))
}
