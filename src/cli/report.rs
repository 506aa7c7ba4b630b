//! `omr report`: (re)builds a run's `report.html`, or one page that compares several runs.

use std::path::{Path, PathBuf};

use super::Context;
use crate::error::Result;
use crate::files;
use crate::report;

/// Arguments of `omr report`.
#[derive(clap::Args)]
pub struct Args {
    /// Run directories; of several, one comparison is made
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// File to write instead of DIR/report.html (or comparison.html)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the page and prints its path to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    let dirs: Vec<&Path> = args.dirs.iter().map(PathBuf::as_path).collect();
    let (report, default) = match dirs.as_slice() {
        [dir] => (report::report(dir)?, dir.join("report.html")),
        dirs => (report::comparison(dirs)?, PathBuf::from("comparison.html")),
    };
    let out = args.out.clone().unwrap_or(default);
    files::write(&out, report::page(&report)?.as_bytes())?;
    super::print(&format!("{}\n", out.display()))
}
