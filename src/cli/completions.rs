//! `omr completions`: what a shell needs to complete commands and flags.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::Context;
use crate::error::Result;

/// Arguments of `omr completions`.
#[derive(clap::Args)]
#[command(after_help = "bash: omr completions bash > ~/.local/share/bash-completion/completions/omr\n\
    zsh:  omr completions zsh > DIR/_omr, DIR one of $fpath\n\
    fish: omr completions fish > ~/.config/fish/completions/omr.fish")]
pub struct Args {
    /// Whose
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    let mut out = Vec::new();
    generate(args.shell, &mut super::Cli::command(), "omr", &mut out);
    super::print(&String::from_utf8_lossy(&out))
}
