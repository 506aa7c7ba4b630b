//! `omr config`: lists every key, from the tables that also read the config, and converts configs of other systems.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use super::Context;
use super::stdout::print;
use omr_base::config::{
    self, Config, DataConfig, EvalConfig, GenerateConfig, Key, Preset, RecipeConfig, RlConfig, Rule, Safe, ScoreConfig,
    ServeConfig, SftConfig,
};
use omr_base::error::{Error, Result};
use omr_base::{files, secrets};

/// Lists the keys of a kind of config.
type Keys = fn() -> Vec<Key>;

/// Kinds of configs, with a function that returns the keys of each.
const KINDS: [(&str, Keys); 8] = [
    (RecipeConfig::NAME, config::keys::<RecipeConfig>),
    (DataConfig::NAME, config::keys::<DataConfig>),
    (SftConfig::NAME, config::keys::<SftConfig>),
    (RlConfig::NAME, config::keys::<RlConfig>),
    (EvalConfig::NAME, config::keys::<EvalConfig>),
    (GenerateConfig::NAME, config::keys::<GenerateConfig>),
    (ServeConfig::NAME, config::keys::<ServeConfig>),
    (ScoreConfig::NAME, config::keys::<ScoreConfig>),
];

/// Arguments of `omr config`.
#[derive(clap::Args)]
pub struct Args {
    /// Kind of config to list. recipe contains the keys of sft, rl, eval and of the stages of data
    #[arg(default_value = "recipe", value_parser = PossibleValuesParser::new(KINDS.map(|(name, _)| name)))]
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
    let keys = KINDS.iter().find(|(name, _)| *name == args.kind).map_or(Vec::new(), |(_, keys)| keys());
    let Some(wanted) = &args.grep else { return print(&keys.iter().map(entry).collect::<Vec<_>>().join("\n")) };
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
    let rule = rule(key.meta.rule);
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

fn rule(rule: Rule) -> String {
    match rule {
        Rule::Any => String::new(),
        Rule::AtLeast(low) => format!(", {low} or more"),
        Rule::Above(low) => format!(", more than {low}"),
        Rule::Within(low, high) if low == high => format!(", {low}"),
        Rule::Within(low, high) => format!(", from {low} to {high}"),
        Rule::NotEmpty => ", not empty".to_owned(),
    }
}
