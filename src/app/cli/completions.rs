//! `omr completions`: prints a shell script that completes commands, flags and config keys.

use std::ffi::OsString;

use clap_complete::{Shell, generate};

use super::config;
use super::stdout::print;
use omr_base::error::Result;

/// Completes keys in bash. The keys of a command line come from the program itself.
const BASH: &str = r#"
_omr_keys() {
    _omr "$@"
    local known="$("$1" completions --keys "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)"
    local keys=($(compgen -W "$known" -- "${COMP_WORDS[COMP_CWORD]}"))
    if ((${#keys[@]})); then COMPREPLY=("${keys[@]}"); compopt -o nospace 2>/dev/null; fi
}
complete -F _omr_keys -o bashdefault -o default omr
"#;

/// Completes keys in zsh.
const ZSH: &str = r#"#compdef omr
_omr_keys() {
    local -a words_before=(${(z)LBUFFER}) keys
    [[ $LBUFFER == *' ' ]] || words_before[-1]=()
    keys=(${(f)"$($words_before[1] completions --keys $words_before[2,-1] 2>/dev/null)"})
    compadd -S '' -a keys
    _files
}
"#;

/// Completes keys in fish.
const FISH: &str = "complete -c omr -a '(omr completions --keys (commandline -opc)[2..-1] 2>/dev/null)'\n";

/// Arguments of `omr completions`.
#[derive(clap::Args)]
#[command(after_help = "bash: omr completions bash > ~/.local/share/bash-completion/completions/omr\n\
    zsh:  omr completions zsh > DIR/_omr, where DIR is a folder in $fpath\n\
    fish: omr completions fish > ~/.config/fish/completions/omr.fish")]
pub struct Args {
    /// Shell to generate completions for
    #[arg(value_enum, required_unless_present = "keys")]
    shell: Option<Shell>,
    /// Print what can follow these words as a config key. The scripts call it
    #[arg(long, hide = true, num_args = 0.., allow_hyphen_values = true)]
    keys: Option<Vec<OsString>>,
}

/// Prints the script for `commands`, or the keys, to stdout.
pub fn run(args: &Args, mut commands: clap::Command) -> Result<()> {
    let Some(shell) = args.shell else {
        let words = args.keys.as_deref().unwrap_or_default();
        let is_flag = |word: &&OsString| word.as_encoded_bytes().starts_with(b"-");
        // A path follows the command, and a flag may have a value.
        let is_place =
            !words.last().is_some_and(|word| is_flag(&word)) && words.iter().filter(|word| !is_flag(word)).count() > 1;
        let keys = config::keys_of(words).into_iter().filter(|key| is_place && !key.path.contains("[]"));
        return print(&keys.map(|key| format!("{}=\n", key.path)).collect::<String>());
    };
    let mut out = Vec::new();
    generate(shell, &mut commands, "omr", &mut out);
    let script = String::from_utf8_lossy(&out).into_owned();
    print(&match shell {
        Shell::Bash => script + BASH,
        Shell::Fish => script + FISH,
        Shell::Zsh => script.replacen("#compdef omr\n", ZSH, 1).replace("YAML:_default'", "YAML:_omr_keys'"),
        _ => script,
    })
}
