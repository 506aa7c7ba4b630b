//! `omr completions`: prints a shell script that completes commands and flags.

use clap_complete::{Shell, generate};

use super::stdout::print;
use omr_base::error::Result;

/// Arguments of `omr completions`.
#[derive(clap::Args)]
#[command(after_help = "bash: omr completions bash > ~/.local/share/bash-completion/completions/omr\n\
    zsh:  omr completions zsh > DIR/_omr, where DIR is a folder in $fpath\n\
    fish: omr completions fish > ~/.config/fish/completions/omr.fish")]
pub struct Args {
    /// Shell to generate completions for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for `commands` to stdout.
pub fn run(args: &Args, commands: &mut clap::Command) -> Result<()> {
    let mut out = Vec::new();
    generate(args.shell, commands, "omr", &mut out);
    print(&String::from_utf8_lossy(&out))
}
