//! Reads the settings of a config file or a bash script of another system, as flat names with values.

use std::cell::Cell;
use std::path::Path;

use serde_json::{Map, Value};
use serde_saphyr::DuplicateKeyPolicy::{FirstWins, LastWins};

use super::describe::{inline, shown};
use super::expand::{MOST, expand};
use super::shell::Shell;
use super::source::{parse, parse_with};
use super::table::join;
use crate::error::{Error, Result};
use crate::files;

/// Contents of a file of another system.
#[derive(Default)]
pub(super) struct Found {
    /// Flat names with values.
    pub settings: Map<String, Value>,
    /// Words of the command before its settings: launcher and program.
    pub program: Vec<String>,
    /// Remarks for the user.
    pub remarks: Vec<String>,
}

/// Reads a YAML file, or the command with the most settings in a bash script together with the exported variables that
/// decide what it does.
pub(super) fn read(file: &Path) -> Result<Found> {
    let text = files::read_config(file).map_err(Error::io(file))?;
    let mut found = Found::default();
    if ["yaml", "yml", "json"].iter().any(|ending| file.extension().is_some_and(|own| own == *ending)) {
        found = yaml(file, &text)?;
    } else {
        let mut shell = Shell::new(file);
        shell.run(&text.replace("\r\n", "\n"))?;
        let commands = shell.commands.into_iter().map(|command| (settings(&command.arguments), command));
        let most = commands.rev().max_by_key(|(settings, command)| (!command.program.is_empty(), settings.len()));
        if let Some((settings, command)) = most.filter(|(settings, _)| !settings.is_empty()) {
            found = Found { settings, program: command.program, remarks: shell.remarks };
            let exported = command.environment.into_iter().map(|(name, value)| (name, value_of(&value)));
            found.settings.extend(exported);
        }
    }
    Ok(found)
}

/// Reads a YAML file. Like Python, it takes the last of several equal keys.
pub(super) fn yaml(file: &Path, text: &str) -> Result<Found> {
    let (mut first, mut settings, left) = (Map::new(), Map::new(), Cell::new(MOST));
    for (policy, out) in [(FirstWins, &mut first), (LastWins, &mut settings)] {
        flatten("", &parse_with(text, policy).map_err(|what| Error::format(file, what))?, out);
    }
    let unused = first.iter().filter(|(name, value)| settings.get(*name) != Some(value));
    let remark = |(name, value): (&String, &Value)| {
        format!(
            "{name}: {} is not used, because the key stands again below it, and the last one counts",
            shown(name, value)
        )
    };
    let remarks = unused.map(remark).collect();
    // The interpolation of OmegaConf.
    let keys = settings.iter().map(|(name, value)| (name.clone(), inline(value))).collect();
    for value in settings.values_mut().filter(|value| value.is_string()) {
        *value = value_of(&expand(file, &inline(value), &keys, &left)?);
    }
    Ok(Found { settings, program: Vec::new(), remarks })
}

/// Reads the settings among the words of a command, up to a redirection: `key=value`, `--key value`, `--key=value`, `--key`,
/// `--key_args name=value,name=value`, or the name of a YAML file.
fn settings(words: &[String]) -> Map<String, Value> {
    let (mut settings, mut flag) = (Map::new(), None::<String>);
    let is_setting = |word: &&String| !["$@", "${@}", "$*"].contains(&word.as_str());
    for word in words
        .iter()
        .take_while(|word| !word.trim_start_matches(['1', '2', '&']).starts_with(['>', '<']))
        .filter(is_setting)
    {
        let list = flag.as_ref().filter(|name| name.ends_with("args") && settings.get(*name) == Some(&true.into()));
        if let Some(name) = list.filter(|_| word.contains('=') && !word.starts_with('{')).cloned() {
            let pairs = word.split(',').filter_map(|pair| pair.split_once('='));
            settings.extend(pairs.map(|(part, value)| (join(&name, part), value_of(value))));
            settings.remove(&name);
        } else if let Some((name, value)) = word.split_once('=') {
            settings.insert(name.trim_start_matches(['+', '-']).to_owned(), value_of(value));
            flag = None;
        } else if let Some(name) = word.strip_prefix("--") {
            settings.insert(name.replace('-', "_"), true.into());
            flag = Some(name.replace('-', "_"));
        } else if let Some(entry) = flag.as_ref().and_then(|name| settings.get_mut(name)) {
            let value = value_of(word.trim_end_matches(','));
            *entry = match entry.take() {
                Value::Bool(true) => value,
                Value::Array(mut list) => {
                    list.push(value);
                    list.into()
                }
                one => vec![one, value].into(),
            };
        } else if word.ends_with(".yaml") || word.ends_with(".yml") {
            settings.insert("config".to_owned(), word.as_str().into());
        }
    }
    let mut flat = Map::new();
    settings.iter().for_each(|(name, value)| flatten(name, value, &mut flat));
    flat
}

/// Appends the leaves of `value` with their paths.
pub(super) fn flatten(path: &str, value: &Value, out: &mut Map<String, Value>) {
    match value.as_object().filter(|map| !map.is_empty()) {
        Some(map) => map.iter().for_each(|(name, value)| flatten(&join(path, name), value, out)),
        None => drop(out.insert(path.to_owned(), value.clone())),
    }
}

/// Parses a value as YAML; text that is not YAML stays text.
fn value_of(text: &str) -> Value {
    parse(text).unwrap_or_else(|_| text.into())
}
