//! `omr report`: builds or rebuilds a run's `report.html`, or one page that compares several runs.

use std::path::{Path, PathBuf};

use super::Context;
use super::stdout::print;
use crate::report;
use omr_base::error::Result;
use omr_base::files::{self, Output};

/// Arguments of `omr report`.
#[derive(clap::Args)]
pub struct Args {
    /// Run directories. Several directories are compared on one page
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// File to write. The default is DIR/report.html for one run and comparison.html for several
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace an existing file that is not the report of the run
    #[arg(long)]
    overwrite: bool,
}

/// Writes the page and prints its path to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    let dirs: Vec<&Path> = args.dirs.iter().map(PathBuf::as_path).collect();
    let own = if let [dir] = dirs.as_slice() { Some(dir.join("report.html")) } else { None };
    let out = args.out.clone().or(own.clone()).unwrap_or_else(|| PathBuf::from("comparison.html"));
    let chosen = (Some(&out) != own.as_ref()).then(|| Output::open(&out, args.overwrite, &dirs)).transpose()?;
    let page = match dirs.as_slice() {
        dirs if dirs.iter().all(|dir| report::is_evaluation(dir)) => report::evaluation(dirs)?,
        [dir] => report::page(&report::report(dir)?)?,
        dirs => report::page(&report::comparison(dirs)?)?,
    };
    match &chosen {
        Some(chosen) => chosen.write(page.as_bytes())?,
        None => files::write(&out, page.as_bytes())?,
    }
    if chosen.is_some_and(|chosen| chosen.is_stdout()) { Ok(()) } else { print(&format!("{}\n", out.display())) }
}
