//! Reads the settings of a config file or a bash script of another system, as flat names with values.

use std::path::Path;
use std::sync::LazyLock;

use minijinja::Environment;
use regex::{Captures, Regex};
use serde_json::{Map, Value};

use super::describe::inline;
use super::source::parse;
use super::table::join;
use crate::error::{Error, Result};
use crate::files;

/// Fuel of an arithmetic expression. Each operation takes one unit.
const FUEL: u64 = 10_000;

/// `$((SUM))`, `${NAME}`, `${NAME:-DEFAULT}` or `$NAME`. Parentheses in a sum are nested at most twice.
static VARIABLE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let sum = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*";
    Regex::new(&format!(r"\$\(\(({sum})\)\)|\$\{{([\w.]+)(?::?-([^}}]*))?\}}|\$([A-Za-z_]\w*)")).ok()
});

/// Returns the settings of a YAML file, or of the command with the most settings in a bash script, as flat names with
/// values, and the words of the command before them: launcher and program. Variables that the script sets and integer
/// arithmetic are replaced; conditions and loops are not evaluated.
pub(super) fn read(file: &Path) -> Result<(Map<String, Value>, Vec<String>)> {
    let text = files::read_config(file).map_err(Error::io(file))?;
    let (mut found, mut variables, mut open) = ((Map::new(), Vec::new()), Map::new(), String::new());
    if file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
        flatten("", &parse(&text).map_err(|what| Error::format(file, what))?, &mut variables);
        found.0.clone_from(&variables);
        // The interpolation of OmegaConf.
        let texts = found.0.values_mut().filter(|value| value.is_string());
        texts.for_each(|value| *value = value_of(&expand(&inline(value), &variables)));
        return Ok(found);
    }
    for line in text.lines() {
        let continued = line.strip_suffix('\\');
        open += continued.unwrap_or(line);
        open.push(if continued.is_some() { ' ' } else { '\n' });
        // Without words, a quote is not closed yet.
        let words = if continued.is_some() { None } else { shlex::split(&expand(&open, &variables)) };
        let Some(words) = words else { continue };
        open.clear();
        let words = &words[usize::from(words.first().is_some_and(|word| word == "export"))..];
        let is_program = |word: &String| word.ends_with(".py") || ["train", "grpo", "sft"].contains(&word.as_str());
        let module = words.iter().position(|word| word == "-m").map(|i| i + 1);
        let program = module.or_else(|| words.iter().position(is_program)).map_or(0, |i| i + 1).min(words.len());
        let settings = settings(&words[program..]);
        if settings.len() == words.len() && !settings.keys().any(|name| name.contains('.')) {
            variables.extend(settings);
        } else if settings.len() > found.0.len() {
            found = (settings, words[..program].to_vec());
        }
    }
    Ok(found)
}

/// Reads the settings among the words of a command, up to a redirection or another command: `key=value`, `--key value`,
/// `--key=value` or `--key`.
fn settings(words: &[String]) -> Map<String, Value> {
    let (mut settings, mut flag) = (Map::new(), None);
    let is_end = |word: &&String| !["|", "&", "&&", ";", ">", ">>", "2>&1", "&>"].contains(&word.as_str());
    for word in words.iter().take_while(is_end).filter(|word| *word != "$@") {
        if let Some((name, value)) = word.split_once('=') {
            settings.insert(name.trim_start_matches(['+', '-']).to_owned(), value_of(value));
            flag = None;
        } else if let Some(name) = word.strip_prefix("--") {
            settings.insert(name.replace('-', "_"), true.into());
            flag = Some(name.replace('-', "_"));
        } else if let Some(entry) = flag.as_ref().and_then(|name| settings.get_mut(name)) {
            let value = value_of(word.trim_end_matches(','));
            *entry = match entry.take() {
                Value::Bool(true) => value,
                Value::Array(list) => list.into_iter().chain([value]).collect(),
                one => Value::Array(vec![one, value]),
            };
        }
    }
    let mut flat = Map::new();
    settings.iter().for_each(|(name, value)| flatten(name, value, &mut flat));
    flat
}

/// Appends the leaves of `value` with their paths.
fn flatten(path: &str, value: &Value, out: &mut Map<String, Value>) {
    match value.as_object().filter(|map| !map.is_empty()) {
        Some(map) => map.iter().for_each(|(name, value)| flatten(&join(path, name), value, out)),
        None => drop(out.insert(path.to_owned(), value.clone())),
    }
}

/// Parses a value as YAML; text that is not YAML stays text.
fn value_of(text: &str) -> Value {
    parse(text).unwrap_or_else(|_| text.into())
}

/// Replaces the variables and sums in `text`. What cannot be replaced stays.
fn expand(text: &str, variables: &Map<String, Value>) -> String {
    let Some(pattern) = &*VARIABLE else { return text.to_owned() };
    let compute = |sum: &str| {
        let mut env = Environment::empty();
        env.set_fuel(Some(FUEL));
        let sum = sum.replace(['$', '{', '}'], "").replace('/', "//");
        i64::try_from(env.compile_expression(&sum).ok()?.eval(variables).ok()?).ok().map(|number| number.to_string())
    };
    let replaced = pattern.replace_all(text, |found: &Captures| {
        let part = |i: usize| found.get(i).map(|part| part.as_str());
        let name = part(2).or(part(4));
        let value = part(1).and_then(compute).or_else(|| Some(inline(variables.get(name?)?)));
        value.or(part(3).map(str::to_owned)).unwrap_or_else(|| found[0].to_owned())
    });
    replaced.into_owned()
}
