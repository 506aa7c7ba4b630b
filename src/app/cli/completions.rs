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
    local IFS=$' \t\n' word="${COMP_WORDS[COMP_CWORD]}"
    local keys=($(compgen -W "$("$1" completions --keys "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "$word"))
    if [[ $word != -* && ${#keys[@]} -gt 0 ]]; then
        COMPREPLY=("${keys[@]}")
        compopt -o nospace 2>/dev/null
    fi
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
        let keys = if takes_key(&commands, words) { config::keys_of(words) } else { Vec::new() };
        let named = keys.iter().filter(|key| !key.path.contains("[]"));
        return print(&named.map(|key| format!("{}=\n", key.path)).collect::<String>());
    };
    let mut out = Vec::new();
    generate(shell, &mut commands, "omr", &mut out);
    let script = String::from_utf8_lossy(&out).into_owned();
    let with_keys = |line: &str| match line.contains("'*::overrides -- ") {
        true => line.replace(":_default'", ":_omr_keys'"),
        false => line.to_owned(),
    };
    print(&match shell {
        Shell::Bash => script + BASH,
        Shell::Fish => script + FISH,
        Shell::Zsh => script.replacen("#compdef omr\n", ZSH, 1).split_inclusive('\n').map(with_keys).collect(),
        _ => script,
    })
}

/// True if a config key can follow `words`: the words before it are complete, and the command takes keys.
fn takes_key(commands: &clap::Command, words: &[OsString]) -> bool {
    let (mut command, mut given, mut words) = (commands, 0, words.iter().map(|word| word.to_string_lossy()));
    while let Some(word) = words.next() {
        if let Some(flag) = word.strip_prefix("--") {
            let is_flag = |arg: &&clap::Arg| arg.get_long() == Some(flag) && arg.get_action().takes_values();
            if command.get_arguments().any(|arg| is_flag(&arg)) && words.next().is_none() {
                return false;
            }
        } else if let Some(sub) = command.find_subcommand(&*word).filter(|_| given == 0) {
            command = sub;
        } else {
            given += 1;
        }
    }
    let before = command.get_positionals().take_while(|arg| arg.get_id() != "overrides");
    given >= before.filter(|arg| arg.is_required_set()).count()
        && command.get_positionals().any(|arg| arg.get_id() == "overrides")
}
