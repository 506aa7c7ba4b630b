//! `omr config`: lists every key, from the tables that also read the config, and converts configs of other systems.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use serde_json::Value;

use super::Context;
use super::stdout::print;
use omr_base::config::{
    self, Config, DataConfig, DedupConfig, DistillConfig, EvalConfig, FilterConfig, FormatConfig, GenerateConfig, Key,
    MixConfig, PassrateConfig, Preset, RecipeConfig, RlConfig, Safe, ScoreConfig, ServeConfig, SftConfig, VerifyConfig,
};
use omr_base::error::{Error, Result};
use omr_base::{files, secrets};

/// First lines of a list of keys.
const LEGEND: &str = "# KEY: DEFAULT, then the meaning, and in brackets: type, names in other systems, and the value that the\n\
    # published recipe of OpenMMReasoner uses (published).\n";

/// A kind of config: its name, its keys and its JSON schema.
type Kind = (&'static str, fn() -> Vec<Key>, fn() -> Value);

macro_rules! kinds {
    ($($config:ty)+) => { [$( (<$config>::NAME, config::keys::<$config>, config::schema::<$config>) ),+] };
}

/// Kinds of configs: those of commands, then those of the stages of `omr data`.
const KINDS: [Kind; 15] = kinds! {
    RecipeConfig DataConfig SftConfig RlConfig EvalConfig GenerateConfig ServeConfig ScoreConfig
    FormatConfig DistillConfig VerifyConfig PassrateConfig DedupConfig FilterConfig MixConfig
};

/// Returns the keys that the command in `words` takes. `words` follow the name of the program.
pub fn keys_of(words: &[OsString]) -> Vec<Key> {
    let kinds = |word: &str| {
        let names: &[&str] = match word {
            "chat" | "export" => &["generate"],
            "init" => &["recipe"],
            "plan" => &["sft", "rl"],
            other => &[other],
        };
        Some(KINDS.iter().filter(|(name, ..)| names.contains(name)).collect::<Vec<_>>())
            .filter(|kinds| !kinds.is_empty())
    };
    let mut words = words.iter().filter_map(|word| word.to_str());
    let command = words.find_map(kinds).unwrap_or_default();
    let is_data = command.iter().any(|(name, ..)| *name == DataConfig::NAME);
    let stage = words.find_map(kinds).filter(|_| is_data);
    stage.unwrap_or(command).iter().flat_map(|(_, keys, _)| keys()).collect()
}

/// Arguments of `omr config`.
#[derive(clap::Args)]
pub struct Args {
    /// Kind of config to list. recipe contains the keys of sft, rl, eval and of the stages of data
    #[arg(default_value = "recipe", value_parser = PossibleValuesParser::new(KINDS.map(|(name, ..)| name)))]
    kind: String,
    /// Show only keys whose name here or in another system contains this text
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Show only the keys that a preset sets: gspo, grpo, dapo, dr_grpo or cispo
    #[arg(long, value_name = "NAME", conflicts_with = "grep")]
    preset: Option<String>,
    /// Print the config of omr for a config of another system: YAML or a bash script of verl, LLaMA-Factory or TRL.
    /// Comments name the command and the settings without a counterpart
    #[arg(long, value_name = "FILE", conflicts_with_all = ["grep", "preset"])]
    from: Option<PathBuf>,
    /// Print the JSON schema of the config, with which editors complete and check YAML files
    #[arg(long, conflicts_with_all = ["grep", "preset", "from"])]
    schema: bool,
    /// Number of GPUs of the other system, for --from
    #[arg(long, value_name = "N", default_value_t = 1, requires = "from")]
    gpus: u64,
}

/// Prints the keys to stdout.
pub fn run(args: &Args, _: &Context) -> Result<()> {
    if let Some(file) = &args.from {
        files::read_config(file).iter().for_each(|text| secrets::keep_named(text));
        return print(&secrets::redacted(&config::from_other(file, args.gpus)?));
    }
    if let Some(preset) = &args.preset {
        let sets = preset.parse::<Preset>()?.keys();
        let lines = sets.into_iter().map(|(key, value)| format!("{key}: {}\n", config::inline(&value)));
        return print(&format!("preset: {preset}\n{}", lines.collect::<String>()));
    }
    if args.schema {
        let (.., schema) = KINDS.iter().find(|(name, ..)| *name == args.kind).unwrap_or(&KINDS[0]);
        return print(&format!("{:#}\n", schema()));
    }
    let keys = keys_of(&[OsString::from(&args.kind)]);
    let Some(wanted) = &args.grep else {
        let block = |key: &Key| match key.meta.group {
            "" => format!("\n{}", entry(key)),
            group => format!("\n# {group}\n\n{}", entry(key)),
        };
        return print(&(LEGEND.to_owned() + &keys.iter().map(block).collect::<String>()));
    };
    let named = |key: &&Key| key.path.contains(wanted.as_str()) || key.meta.name.contains(wanted.as_str());
    let found: Vec<_> = keys.iter().filter(named).map(entry).collect();
    match found.is_empty() {
        true => Err(Error::input("--grep", wanted, format!("a part of the name of a key of `omr {}`", args.kind))),
        false => print(&found.join("\n")),
    }
}

fn entry(key: &Key) -> String {
    let mut out = format!("{}: {}\n    {}", key.path, key.default, key.meaning);
    let (kind, null) = key.kind.strip_suffix(" or null").map_or((key.kind.as_str(), ""), |kind| (kind, " or null"));
    let rule = key.meta.rule.words().replace("a number from", "from");
    let rule = if rule.is_empty() { rule } else { format!(", {rule}") };
    // The rule gives the allowed numbers more precisely than the kind.
    let kind = [", 0 or more", ", 0 to 2^40", ", at most 2^40"]
        .iter()
        .fold(kind.to_owned(), |kind, numbers| if rule.is_empty() { kind } else { kind.replace(numbers, "") });
    let mut facts = vec![format!("{kind}{rule}{null}")];
    if !key.meta.name.is_empty() {
        facts.push(key.meta.name.to_owned());
    }
    if !key.meta.published.is_empty() {
        facts.push(format!("published: {}", key.meta.published));
    }
    match key.meta.safe {
        Safe::No => {}
        Safe::Yes => facts.push("may be changed when a run is continued".to_owned()),
        Safe::WhenMore => facts.push("may be increased when a run is continued".to_owned()),
    }
    out.push_str(&format!("\n    [{}]\n", facts.join("; ")));
    out
}
