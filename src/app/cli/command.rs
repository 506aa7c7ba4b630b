//! The table of commands. The command line is parsed and the help is generated from it. Also runs each command.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::args::{JobArgs, RanksArgs};
use super::global::Global;
use super::ranks::RankRole;
use super::{
    Context, bench, chat, completions, config, data, doctor, download, eval, export, generate, init, man, plan, recipe,
    replay, report, rl, score, serve, sft, upload, verify, watch,
};
use omr_base::config::{self as settings, GenerateConfig};
use omr_base::error::Result;
use omr_base::signal;
use omr_runtime::ranks::{NodeFlags, environment};

/// Trains vision-language reasoning models: distils, verifies, fine-tunes (SFT), reinforces (GSPO, GRPO, DAPO), evaluates
/// and serves Qwen2.5-VL, Qwen3-VL and the text models Llama, Qwen2 and Qwen3, on the CPU or a GPU (tried on one H200).
#[derive(Parser)]
#[command(name = "omr", version, max_term_width = 110, disable_help_subcommand = true)]
#[command(after_help = "Examples:\n  \
    omr recipe configs/digits.yaml --out runs/digits\n      \
        all stages on images of handwritten digits, on the CPU, in minutes\n  \
    omr plan configs/openmmreasoner-7b/sft.yaml --gpu h100 --gpus 8\n      \
        memory and predicted time of fine-tuning the 7B model on eight GPUs\n\n\
    Set any config key with a trailing key=value, such as seed=7; \
    `omr config` lists all keys. To continue a stopped run, run the same command with the same --out.\n\
    Exit status: 0 success, 2 wrong input, 1 the run failed, 130 stopped by a signal (see the key save_on_stop).")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Declares the commands, each with its arguments and the function that runs it.
macro_rules! commands {
    ($($(#[$about:meta])* $name:ident($args:ty) = $run:expr;)+) => {
        #[derive(Subcommand)]
        enum Command {
            $( $(#[$about])* $name($args), )+
        }

        impl Command {
            fn run(&self, context: &Context) -> Result<()> {
                match self {
                    $( Command::$name(args) => ($run)(args, context), )+
                }
            }
        }
    };
}

commands! {
    /// Run a whole recipe: data, SFT, RL, evaluation, report
    #[command(after_help = "The keys of a stage are in its group, such as rl.rollout.n=16.")]
    Recipe(JobArgs) = recipe::run;
    /// Make a small random model and a tokenizer for your rows
    Init(init::Args) = init::run;
    /// Prepare data in stages, or inspect data sets
    Data(data::Args) = data::run;
    /// Download a model or a data set from the Hugging Face hub
    Download(download::Args) = download::run;
    /// Upload a model to the Hugging Face hub, with a model card
    Upload(upload::Args) = upload::run;
    /// Fine-tune a model on conversations
    #[command(after_help = "Example:\n  \
        omr sft configs/openmmreasoner-7b/sft.yaml --out runs/sft learning_rate=1e-5 --dry-run\n\
        omr config sft lists all keys of CONFIG with their defaults; omr plan CONFIG shows memory and time on GPUs.")]
    Sft(JobArgs) = sft::run;
    /// Train a model on questions with GSPO, GRPO or DAPO
    #[command(after_help = "Example:\n  \
        omr rl configs/openmmreasoner-7b/rl.yaml --out runs/rl model=runs/sft/model rollout.n=8 --dry-run\n\
        omr config rl lists all keys of CONFIG with their defaults; omr plan CONFIG shows memory and time on GPUs.")]
    Rl(JobArgs) = rl::run;
    /// Evaluate a model on tasks
    Eval(eval::Args) = eval::run;
    /// Write the full model of an adapter, or a quantised model
    Export(export::Args) = export::run;
    /// Answer one question with text and images, or a file of questions
    Generate(generate::Args) = generate::run;
    /// Answer requests of OpenAI's API, and serve a web page for them
    Serve(Box<serve::Args>) = serve::run;
    /// Chat with a model in the terminal
    Chat(chat::Args) = chat::run;
    /// Score responses against the correct answers: accuracy and format
    Score(score::Args) = score::run;
    /// Check whether an answer equals the correct one
    Verify(verify::Args) = verify::run;
    /// Recompute recorded steps and report the first difference
    Replay(replay::Args) = replay::run;
    /// Rebuild the HTML report of a run, or compare several runs
    Report(report::Args) = report::run;
    /// Serve the live report of a run, on this machine
    Watch(watch::Args) = watch::run;
    /// Measure ops, steps and rollouts, and compare them with peak rates
    Bench(bench::Options) = bench::run;
    /// Predict memory, time and tokens per day of a config on GPUs
    Plan(plan::Args) = plan::run;
    /// List all config keys: type, default, meaning, name elsewhere
    Config(config::Args) = config::run;
    /// Check what works on this machine and how to fix the rest
    Doctor(doctor::Args) = doctor::run;
    /// Generate a completion script for bash, zsh or fish
    Completions(completions::Args) = |args, _| completions::run(args, command());
    /// Write the manual pages of all commands
    Man(man::Args) = |args, _| man::run(args, Cli::command());
}

/// Groups of commands, in the order of `omr --help`.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Run", &["recipe", "init", "sft", "rl", "eval"]),
    ("Data", &["download", "upload", "data"]),
    ("Use", &["serve", "chat", "generate", "score", "verify", "export"]),
    ("Inspect", &["watch", "report", "plan", "config", "doctor"]),
    ("Other", &["bench", "replay", "completions", "man"]),
];

/// Names of other programs for what a command here does.
const WORDS: [(&str, &str); 9] = [
    ("train fit run", "`omr sft` on conversations, or `omr rl` on questions with labels"),
    ("pretrain lora qlora", "`omr sft`"),
    ("ppo rlhf rlvr", "`omr rl`"),
    ("infer inference predict sample ask complete", "`omr generate` or `omr chat`"),
    ("api deploy webui", "`omr serve`"),
    ("merge convert gguf", "`omr export --merge`"),
    ("test benchmark", "`omr eval`"),
    ("monitor dashboard tensorboard plot", "`omr watch`"),
    ("resume continue", "the command that started the run, with the same --out"),
];

/// Returns the command line with its help: commands in groups. Flags of all commands are explained once, in `omr
/// --help`.
fn command() -> clap::Command {
    let cli = Cli::command();
    let global: Vec<Arg> = cli.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let line = |name: &&str| {
        let about = cli.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
        format!("  {name:11}  {}\n", about.unwrap_or_default())
    };
    let group = |(title, names): (&str, &[&str])| format!("{title}:\n{}\n", names.iter().map(line).collect::<String>());
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{{after-help}}\n\nOptions:\n{{options}}",
        GROUPS.map(group).concat().trim_end()
    );
    without(cli.help_template(template), &global)
}

/// Returns `command` with the flags `global` added to its subcommands. Their help only names these flags.
fn without(command: clap::Command, global: &[Arg]) -> clap::Command {
    let flags: Vec<String> = global.iter().filter_map(Arg::get_long).map(|name| format!("--{name}")).collect();
    let also = format!("Flags of all commands (see omr --help): {}", flags.join(", "));
    command.mut_subcommands(|sub| {
        let more = sub.get_after_help().map_or(String::new(), |text| format!("\n\n{text}"));
        let hidden = global.iter().map(|flag| flag.clone().hide(true));
        without(sub.args(hidden).after_help(format!("{also}{more}")), global)
    })
}

impl Command {
    /// Returns the position of this process among the ranks. Commands without ranks always run alone.
    fn rank_role(&self) -> Result<RankRole> {
        match self {
            Command::Recipe(args) | Command::Sft(args) | Command::Rl(args) => of(&args.ranks),
            Command::Eval(args) => of(&args.ranks),
            Command::Data(args) => args.ranks().map_or(Ok(RankRole::ALONE), of),
            Command::Bench(args) if args.has_ranks() => {
                RankRole::of(&NodeFlags { ranks: args.gpus, ..NodeFlags::default() }, &environment)
            }
            _ => Ok(RankRole::ALONE),
        }
    }
}

fn of(args: &RanksArgs) -> Result<RankRole> {
    RankRole::of(&args.flags(), &environment)
}

/// Parses the command line, runs the command and maps its result to the exit status (`docs/user/runs.md`).
pub fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    // `omr help rl` and `omr data help` are the help of the command.
    let place = words.iter().position(|word| word == "help");
    if place.is_some_and(|place| place == 1 || place == 2 && words[1] == "data") {
        words.retain(|word| word != "help");
        words.push("--help".into());
    }
    let matches = command().try_get_matches_from(&words).unwrap_or_else(|error| explained(error, &words[1..]).exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let (rank_role, refused) = match cli.command.rank_role() {
        Ok(rank_role) => (rank_role, Ok(())),
        Err(error) => (RankRole::ALONE, Err(error)),
    };
    let context = Context::new(&cli.global, rank_role);
    let run = || refused.and_then(|()| context.start()).and_then(|()| cli.command.run(&context));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    signal::answered();
    omr_data::image::clipped().iter().for_each(|line| context.say(line));
    let ranks = context.started.end(matches!(done, Ok(Ok(()))));
    match done.map(|done| done.and(ranks)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            context.fail(&error);
            context.tell_early(&error);
            ExitCode::from(error.exit_code())
        }
        // A panic is a bug in this program. The panic hook has printed its location.
        Err(_) => ExitCode::from(1),
    }
}

/// Returns the error about a config key that was written as a flag, such as `--learning_rate 1e-5`, or about a command
/// that other programs have, with what to write in `omr`. Returns any other `error` unchanged.
fn explained(error: clap::Error, words: &[OsString]) -> clap::Error {
    let given = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let answer = match error.kind() {
        ErrorKind::InvalidSubcommand => meant(&given(ContextKind::InvalidSubcommand)),
        ErrorKind::UnknownArgument => {
            as_key(&given(ContextKind::InvalidArg), words, error.get(ContextKind::SuggestedArg).is_some())
        }
        _ => None,
    };
    match answer {
        Some(text) => command().error(error.kind(), text),
        None => error,
    }
}

/// Returns the answer for the command `typed`: the command that does what it names in other programs, or a command with
/// this word in its name or description.
fn meant(typed: &str) -> Option<String> {
    let plain = |text: &str| text.to_lowercase().replace('-', "");
    let (cli, word) = (Cli::command(), plain(typed));
    let nested =
        |sub: &clap::Command| Some(format!("`omr {} {}`", sub.get_name(), sub.find_subcommand(&word)?.get_name()));
    let is_about = |sub: &&clap::Command| {
        let about = sub.get_about().map(|about| plain(&about.to_string())).unwrap_or_default();
        about.split(|c: char| !c.is_alphanumeric()).any(|part| part == word)
    };
    let about: Vec<_> = cli.get_subcommands().filter(is_about).map(|sub| format!("`omr {}`", sub.get_name())).collect();
    let listed = WORDS.iter().find(|(words, _)| words.split(' ').any(|listed| listed == word));
    let ours = listed.map(|(_, ours)| (*ours).to_owned()).or_else(|| cli.get_subcommands().find_map(nested));
    let ours = ours.unwrap_or_else(|| about.join(" or "));
    (!ours.is_empty()).then(|| format!("omr has no command {typed}: use {ours}"))
}

/// Returns the answer for the flag `flag` if it names a config key of the command in `words`. Unless `has_tip`, that is
/// if another flag is similar, also if a key is similar to it.
fn as_key(flag: &str, words: &[OsString], has_tip: bool) -> Option<String> {
    let flag = flag.split('=').next().unwrap_or_default();
    let name = flag.trim_start_matches('-').replace('-', "_");
    let (keys, is_served) = (config::keys_of(words), words.iter().any(|word| word == "serve"));
    let is_key = |path: &str| keys.iter().any(|key| key.path == path);
    let near = || settings::nearest(&name, keys.iter().map(|key| key.path.as_str())).filter(|_| !has_tip);
    let answer = settings::counterpart(&keys, &name);
    match answer.or_else(|| near().map(str::to_owned)).filter(|_| !keys.is_empty()) {
        Some(path) if is_key(&path) => {
            Some(format!("{flag} is a config key, which is written without dashes: {path}=VALUE"))
        }
        _ if is_served && settings::keys::<GenerateConfig>().iter().any(|key| key.path == name) => {
            Some(format!("{flag} is no setting of a server: each request states its {name}"))
        }
        answer => answer.map(|answer| format!("{flag} is no flag of this command; write instead: {answer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let cli = command();
        let mut names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
        listed.sort_unstable();
        names.sort_unstable();
        assert_eq!(listed, names);
    }
}
