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

/// The beginning of `NAME=(WORDS)` or `NAME+=(WORDS)`.
static ARRAY: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\s*(\w+)(\+?)=\(").ok());

/// `"${NAME[@]}"`: all words of an array.
static ALL_WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#""\$\{(\w+)\[@\]\}""#).ok());

/// Returns the settings of a YAML file, or of the program with the most settings in a bash script, as flat names with
/// values, and the words of the command before them: launcher and program. Variables that the script sets and integer
/// arithmetic are replaced. Conditions and loops are not evaluated: of several values of a variable inside them, the
/// first one counts, and all settings that are appended to a list.
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
    let (Some(array), Some(all_words), mut depth) = (&*ARRAY, &*ALL_WORDS, 0) else { return Ok(found) };
    for line in text.lines() {
        let continued = line.strip_suffix('\\');
        open += continued.unwrap_or(line);
        open.push(if continued.is_some() { ' ' } else { '\n' });
        let of_array = array.captures(&open);
        let is_open = of_array.is_some() && open.matches('(').count() > open.matches(')').count();
        if continued.is_some() || is_open {
            continue;
        }
        // Without words, a quote is not closed yet.
        let words = shlex::split(&expand(&all_words.replace_all(&open, "$${$1}"), &variables));
        let Some(words) = words else { continue };
        let count = |names: &[&str]| words.iter().filter(|word| names.contains(&word.trim_end_matches(';'))).count();
        depth += count(&["if", "case", "for", "while"]);
        depth = depth.saturating_sub(count(&["fi", "esac", "done"]));
        let is_unset = |name: &str| depth == 0 || variables.get(name).is_none_or(Value::is_null);
        if let Some((name, appends)) = of_array.map(|found| (found[1].to_owned(), !found[2].is_empty())) {
            if appends || is_unset(&name) {
                let before = variables.get(&name).filter(|_| appends).map(inline).unwrap_or_default();
                variables.insert(name, format!("{before} {}", quoted(&words)).into());
            }
            open.clear();
            continue;
        }
        open.clear();
        let words = &words[usize::from(words.first().is_some_and(|word| word == "export"))..];
        let is_program = |word: &String| word.ends_with(".py") || ["train", "grpo", "sft"].contains(&word.as_str());
        let module = words.iter().position(|word| word == "-m").map(|i| i + 1);
        let program = module.or_else(|| words.iter().position(is_program)).map_or(0, |i| i + 1).min(words.len());
        let mut settings = settings(&words[program..]);
        if settings.len() == words.len() && !settings.keys().any(|name| name.contains('.')) {
            settings.retain(|name, _| is_unset(name));
            variables.extend(settings);
        } else if (program > 0, settings.len()) > (!found.1.is_empty(), found.0.len()) {
            found = (settings, words[..program].to_vec());
        }
    }
    Ok(found)
}

/// Returns the words of an array, `NAME=(`, ..., `)`, with the quotes that bash needs.
fn quoted(words: &[String]) -> String {
    let words = words.iter().enumerate().map(|(i, word)| {
        let word = if i == 0 { word.split_once('(').map_or("", |(_, first)| first) } else { word };
        if i + 1 == words.len() { word.strip_suffix(')').unwrap_or(word) } else { word }
    });
    shlex::try_join(words.filter(|word| !word.is_empty())).unwrap_or_default()
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
        // The value after `:-` replaces an empty one, too.
        let value = || variables.get(name?).filter(|value| part(3).is_none() || !value.is_null()).map(inline);
        let value = part(1).and_then(compute).or_else(value);
        value.or(part(3).map(str::to_owned)).unwrap_or_else(|| found[0].to_owned())
    });
    replaced.into_owned()
}
