//! `omr man`: writes the manual pages.

use std::path::PathBuf;

use super::stdout::print;
use omr_base::error::{Error, Result};
use omr_base::files::{self, Output};

/// Arguments of `omr man`.
#[derive(clap::Args)]
#[command(after_help = "Example: omr man --out ~/.local/share/man/man1, then: man omr-sft")]
pub struct Args {
    /// Folder to write omr.1, omr-sft.1 and the other pages to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace existing pages
    #[arg(long)]
    overwrite: bool,
}

/// Writes one page per command of `commands` and prints the folder to stdout.
pub fn run(args: &Args, commands: clap::Command) -> Result<()> {
    files::make_folder(&args.out)?;
    let made = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    clap_mangen::generate_to(commands, made.path()).map_err(Error::io(made.path()))?;
    let page = |made: PathBuf| Ok((Output::open(&args.out.join(files::file_name(&made)), args.overwrite, &[])?, made));
    // No page is written if one of them would be refused.
    for (page, made) in files::entries(made.path())?.into_iter().map(page).collect::<Result<Vec<_>>>()? {
        page.write(&files::read(&made).map_err(Error::io(&made))?)?;
    }
    print(&format!("{}\n", args.out.display()))
}
