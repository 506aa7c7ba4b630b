//! `omr man`: writes the manual pages.

use std::path::PathBuf;

use super::stdout::print;
use omr_base::error::{Error, Result};
use omr_base::files;

/// Arguments of `omr man`.
#[derive(clap::Args)]
#[command(after_help = "Example: omr man --out ~/.local/share/man/man1, then: man omr-sft")]
pub struct Args {
    /// Folder to write omr.1, omr-sft.1 and the other pages to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes one page per command of `commands` and prints the folder to stdout.
pub fn run(args: &Args, commands: clap::Command) -> Result<()> {
    files::make_folder(&args.out)?;
    clap_mangen::generate_to(commands, &args.out).map_err(Error::io(&args.out))?;
    print(&format!("{}\n", args.out.display()))
}
