//! Reads the settings of a config file or a bash script of another system, as flat names with values.

use std::cell::Cell;
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
/// Maximum bytes that replace the variables of a file, all together.
const EXPANDED: usize = 16 << 20;

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
/// first one counts, and all settings that are appended to a list. Errors name the line of a quote that never ends.
pub(super) fn read(file: &Path) -> Result<(Map<String, Value>, Vec<String>)> {
    let text = files::read_config(file).map_err(Error::io(file))?;
    let (mut found, mut variables, mut open) = ((Map::new(), Vec::new()), Map::new(), String::new());
    let left = Cell::new(EXPANDED);
    let too_much = || Error::format(file, format!("its variables stand for more than {EXPANDED} bytes of text"));
    let expand = |text: &str, variables: &_| expand(text, variables, &left).ok_or_else(too_much);
    if file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
        flatten("", &parse(&text).map_err(|what| Error::format(file, what))?, &mut variables);
        found.0.clone_from(&variables);
        // The interpolation of OmegaConf.
        for value in found.0.values_mut().filter(|value| value.is_string()) {
            *value = value_of(&expand(&inline(value), &variables)?);
        }
        return Ok(found);
    }
    let (Some(array), Some(all_words), mut depth) = (&*ARRAY, &*ALL_WORDS, 0) else { return Ok(found) };
    let (mut quote, mut parentheses, mut begin) = (None, 0, 0);
    // The line after the last one ends a command that is continued.
    for (i, line) in text.lines().chain([""]).enumerate() {
        if open.is_empty() {
            (quote, parentheses, begin) = (None, 0, i + 1);
        }
        let continued = line.strip_suffix('\\');
        let part = continued.unwrap_or(line);
        quote = open_quote(part, quote);
        parentheses += part.matches('(').count() as i64 - part.matches(')').count() as i64;
        open += part;
        open.push(if continued.is_some() { ' ' } else { '\n' });
        let of_array = array.captures(&open);
        if quote.is_some() || continued.is_some() || (of_array.is_some() && parentheses > 0) {
            continue;
        }
        // The value of a variable may contain a quote that has no end.
        let words = shlex::split(&expand(&all_words.replace_all(&open, "$${$1}"), &variables)?);
        let words = words.or_else(|| shlex::split(&open)).unwrap_or_default();
        let count = |names: &[&str]| words.iter().filter(|word| names.contains(&word.trim_end_matches(';'))).count();
        depth += count(&["if", "case", "for", "while"]);
        depth = depth.saturating_sub(count(&["fi", "esac", "done"]));
        let is_unset = |name: &str| depth == 0 || variables.get(name).is_none_or(Value::is_null);
        if let Some((name, appends)) = of_array.map(|found| (found[1].to_owned(), !found[2].is_empty())) {
            if appends || is_unset(&name) {
                let before = variables.get(&name).filter(|_| appends).map(inline).unwrap_or_default();
                left.set(left.get().saturating_sub(before.len()));
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
    let what = format!("line {begin}: a quote or a list that never ends");
    if open.is_empty() { Ok(found) } else { Err(Error::format(file, what)) }
}

/// Returns the quote that is open after a line, if `quote` is open before it.
fn open_quote(line: &str, mut quote: Option<char>) -> Option<char> {
    let (mut chars, mut is_start) = (line.chars(), quote.is_none());
    while let Some(c) = chars.next() {
        match quote {
            None if c == '#' && is_start => return None,
            None | Some('"') if c == '\\' => _ = chars.next(),
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        is_start = quote.is_none() && c.is_whitespace();
    }
    quote
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
                Value::Array(mut list) => {
                    list.push(value);
                    Value::Array(list)
                }
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

/// Replaces the variables and sums in `text`, by at most `left` bytes, or returns `None`. What cannot be replaced stays.
fn expand(text: &str, variables: &Map<String, Value>, left: &Cell<usize>) -> Option<String> {
    let Some(pattern) = &*VARIABLE else { return Some(text.to_owned()) };
    let compute = |sum: &str| {
        let mut env = Environment::empty();
        env.set_fuel(Some(FUEL));
        // Texts and lists are no numbers, and their products would be large.
        let sum = Some(sum.replace(['$', '{', '}'], "").replace('/', "//"));
        let sum = sum.filter(|sum| !sum.contains(['"', '\'', '[', '~']))?;
        let names = sum.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let numbers = names.filter_map(|name| Some((name, variables.get(name)?.as_i64()?)));
        let value = env.compile_expression(&sum).ok()?.eval(numbers.collect::<minijinja::Value>()).ok()?;
        i64::try_from(value).ok().map(|number| number.to_string())
    };
    let replaced = pattern.replace_all(text, |found: &Captures| {
        if left.get() == 0 {
            return String::new();
        }
        let part = |i: usize| found.get(i).map(|part| part.as_str());
        let name = part(2).or(part(4));
        // The value after `:-` replaces an empty one, too.
        let value = || variables.get(name?).filter(|value| part(3).is_none() || !value.is_null()).map(inline);
        let value = part(1).and_then(compute).or_else(value);
        let value = value.or(part(3).map(str::to_owned)).unwrap_or_else(|| found[0].to_owned());
        left.set(left.get().saturating_sub(value.len()));
        value
    });
    (left.get() > 0).then(|| replaced.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(name: &str, text: &str) -> Result<(Map<String, Value>, Vec<String>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn variables_that_double_their_text_are_refused_in_bounded_memory() {
        let command = "\npython3 -m trl grpo --learning_rate 1e-6\n";
        let doubled = format!("A=xxxxxxxx\n{}{command}", "A=$A$A\n".repeat(40));
        let list = format!("A=(x y)\n{}{command}", "A+=(\"${A[@]}\" \"${A[@]}\")\n".repeat(40));
        let appended = format!("A=({})\n{}{command}", "word ".repeat(200_000), "A+=(x)\n".repeat(40_000));
        let yaml = format!(
            "a: {}\n{}",
            "x".repeat(200_000),
            (0..100_000).map(|i| format!("k{i}: ${{a}}\n")).collect::<String>()
        );
        for (name, text) in [("a.sh", doubled), ("a.sh", list), ("a.sh", appended), ("a.yaml", yaml)] {
            let error = read_text(name, &text).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("its variables stand for more than"), "{error}");
        }
        // A sum has numbers, and no texts that could be repeated.
        for sum in ["A * 100000000000", "'x' * 100000000000", "[1] * B"] {
            let text =
                format!("A=xx\nB=100000000000\npython3 -m trl grpo --max_steps $(({sum})) --seed $((B / 2 % 7))\n");
            let (found, _) = read_text("a.sh", &text).unwrap();
            assert_eq!(found["seed"], 50_000_000_000_i64 % 7, "{found:?}");
        }
    }

    #[test]
    fn a_quote_or_a_list_that_never_ends_is_named_at_once() {
        let lines = "echo it is a line with \"quotes\" and (brackets\n".repeat(60_000);
        for (text, line) in [
            (format!("A=1\necho 'never\n{lines}"), 2),
            (format!("A=(never\n{}", "word\n".repeat(60_000)), 1),
            ("A=1\nB=2\n\necho \"never\n".to_owned(), 4),
        ] {
            let error = read_text("a.sh", &text).unwrap_err().to_string();
            assert!(error.contains(&format!("a.sh: line {line}: a quote or a list that never ends")), "{error}");
        }
        // Comments, escaped quotes and quotes in quotes open nothing; a backslash in the last line continues to nothing.
        let text = "# it's a comment\nA=\"it's\"\nB='say \"x'\nC=a\\'b\n\
                    python3 -m trl grpo --run_name \"$A\" --learning_rate 1e-6 \\";
        let (found, words) = read_text("a.sh", text).unwrap();
        assert_eq!((&found["learning_rate"], words.len()), (&Value::from(1e-6), 4), "{found:?}");
    }
}
