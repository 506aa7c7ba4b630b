//! Cuts a bash script into commands, and replaces variables and sums.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use minijinja::Environment;
use regex::{Captures, Regex};

use crate::error::{Error, Result};

/// Fuel of an arithmetic expression. Each operation takes one unit.
const FUEL: u64 = 10_000;
/// Maximum bytes that replace the variables of a file, all together.
pub(super) const MOST: usize = 16 << 20;
/// Ends of commands.
const OPERATORS: [&str; 8] = ["&&", "||", ";;", "|", "&", ";", "\n", ")"];

/// `$((SUM))`, `${NAME}`, `${NAME:-DEFAULT}`, `${NAME:=DEFAULT}` or `$NAME`. Parentheses in a sum are nested at most twice.
static VARIABLE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let sum = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*";
    let default = r"(?::?[-=]((?:[^{}]|\{[^{}]*\})*))?";
    Regex::new(&format!(r"\\?\$(?:\(\(({sum})\)\)|\{{([\w.@*]+){default}\}}|([A-Za-z_]\w*))")).ok()
});

/// Values of variables by their names.
pub(super) type Variables = BTreeMap<String, String>;

/// Cuts a script into commands without comments, each with the operator after it: one of [`OPERATORS`], of which `)` ends a
/// pattern of `case`. The text of `<<WORD` becomes the last word of its command. `Err` is the line of a quote or bracket that
/// never ends.
pub(super) fn cut(text: &str) -> std::result::Result<Vec<(String, &'static str)>, usize> {
    let (mut out, mut now) = (Vec::new(), String::new());
    let (mut rest, mut quote, mut depth, mut opened, mut document) = (text, None, 0_usize, text, None);
    while let Some(c) = rest.chars().next() {
        let before = now.chars().next_back();
        let is_redirection = c == '&' && (before == Some('>') || rest.starts_with("&>"));
        let mut operators = OPERATORS.into_iter().filter(|_| depth == 0 && !is_redirection);
        let mut length = c.len_utf8();
        if quote.is_none() && depth == 0 {
            opened = rest;
        }
        match (quote, c) {
            (None | Some('"'), '\\') => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            (Some(open), _) => quote = quote.filter(|_| c != open),
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') if depth > 0 => depth -= 1,
            (None, '#') if before.is_none_or(|c| c.is_whitespace() || c == '(') => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            (None, '<') if depth == 0 && rest.starts_with("<<") => {
                length = if rest.starts_with("<<<") { 3 } else { 2 };
                let word = rest[length..].trim_start_matches(['-', ' ']).split([' ', '\n', ';', '|', '&', '>']).next();
                document = word.filter(|_| length == 2).map(|word| word.trim_matches(['"', '\'']));
            }
            _ => {
                if let Some(operator) = operators.find(|operator| rest.starts_with(operator)) {
                    rest = &rest[operator.len()..];
                    if let Some(word) = document.take_if(|_| operator == "\n") {
                        let lines = rest.split_inclusive('\n').take_while(|line| line.trim() != word);
                        let (body, after) = rest.split_at(lines.map(str::len).sum());
                        now.push_str(&format!(" {}", shlex::try_quote(body).unwrap_or_default()));
                        rest = &after[after.find('\n').unwrap_or(after.len())..];
                    }
                    out.push((std::mem::take(&mut now), operator));
                    continue;
                }
            }
        }
        // A line that ends in a backslash is continued. Single quotes keep both characters for the command inside them.
        let is_continued = quote != Some('\'') && (rest.starts_with("\\\n") || rest == "\\");
        now.push_str(if is_continued { "" } else { &rest[..length] });
        rest = &rest[length..];
    }
    out.push((now, "\n"));
    let line = text[..text.len() - opened.len()].matches('\n').count() + 1;
    if quote.is_some() || depth > 0 { Err(line) } else { Ok(out) }
}

/// Takes `bytes` from those that may still replace variables.
pub(super) fn spend(file: &Path, left: &Cell<usize>, bytes: usize) -> Result<()> {
    let too_much = || Error::format(file, format!("its variables stand for more than {MOST} bytes of text"));
    left.set(left.get().checked_sub(bytes).ok_or_else(too_much)?);
    Ok(())
}

/// Replaces the variables and sums in `text`. What cannot be replaced stays.
pub(super) fn expand(file: &Path, text: &str, variables: &Variables, left: &Cell<usize>) -> Result<String> {
    let Some(pattern) = &*VARIABLE else { return Ok(text.to_owned()) };
    let mut failed = None;
    let replaced = pattern.replace_all(text, |found: &Captures| {
        let part = |i: usize| found.get(i).map(|part| part.as_str());
        let set = part(2).or(part(4)).and_then(|name| variables.get(name));
        let value = match (part(1), part(3)) {
            _ if failed.is_some() => Ok(String::new()),
            (Some(sum), _) => Ok(compute(sum, variables).unwrap_or_else(|| found[0].to_owned())),
            // The value after `:-` replaces an empty one, too.
            (_, Some(default)) if set.is_none_or(String::is_empty) => expand(file, default, variables, left),
            _ => Ok(set.map_or(&found[0], String::as_str).to_owned()),
        };
        let value = value.and_then(|value| spend(file, left, value.len()).map(|()| value));
        value.map_err(|error| failed.get_or_insert(error)).unwrap_or_default()
    });
    let replaced = replaced.into_owned();
    failed.map_or(Ok(replaced), Err)
}

/// Computes a sum of whole numbers and variables, or returns `None`.
fn compute(sum: &str, variables: &Variables) -> Option<String> {
    let mut env = Environment::empty();
    env.set_fuel(Some(FUEL));
    let sum = sum.replace(['$', '{', '}'], "").replace('/', "//");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !sum.chars().all(|c| is_name(c) || c.is_ascii_whitespace() || "+-*/%()".contains(c)) {
        return None;
    }
    let names = sum.split(|c| !is_name(c)).filter(|name| !name.is_empty());
    let numbers = names.filter_map(|name| Some((name, variables.get(name)?.trim().parse::<i64>().ok()?)));
    let value = env.compile_expression(&sum).ok()?.eval(numbers.collect::<minijinja::Value>()).ok()?;
    i64::try_from(value).ok().map(|number| number.to_string())
}
