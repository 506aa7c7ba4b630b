//! Reads the commands of a bash script without running it: variables, lists, sums, conditions whose values are known, and
//! commands inside other commands, such as `bash -c TEXT`, `sbatch --wrap=TEXT` or `bash FILE`.
//!
//! The first branch of a condition that is not known is read. Its assignments do not replace earlier values.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use glob::Pattern;
use regex::Regex;

use super::expand::{MOST, Variables, cut, expand, spend};
use super::source::parse;
use crate::error::{Error, Result};
use crate::files;

/// Maximum depth of commands inside other commands.
const DEEPEST: usize = 4;

/// The beginning of `NAME=(WORDS)` or `NAME+=(WORDS)`.
static LIST: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^(?:[a-z]+\s+(?:-\w+\s+)*)?(\w+)(\+?)=\(").ok());

/// `NAME=VALUE` or `NAME+=VALUE`.
static ASSIGNMENT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?s)^([A-Za-z_]\w*)(\+?)=(.*)$").ok());

/// `"${NAME[@]}"`, `${NAME[*]}` and `"$@"`: all words of a list.
static ALL_WORDS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#""\$\{(\w+)\[[@*]\]\}"|\$\{(\w+)\[[@*]\]\}|"\$(@)""#).ok());

/// Commands whose result decides whether the command after `&&` or `||` runs. Others succeed.
const TESTS: [&str; 5] = ["[", "[[", "test", "!", "false"];

/// `NAME() COMMANDS` or `function NAME COMMANDS`.
static FUNCTION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?s)^(?:function\s+([\w.:-]+)\s*(?:\(\s*\))?|([\w.:-]+)\s*\(\s*\))\s*(\{.*|\(.*\)|)$").ok()
});

/// A command that may start a program.
pub(super) struct Command {
    /// Launcher and program. Empty if the command has no known program.
    pub program: Vec<String>,
    /// Words after the program.
    pub arguments: Vec<String>,
    /// Exported variables for which [`is_setting`] is true.
    pub environment: Variables,
}

/// A condition or a loop. A truth that is not known is `None`.
#[derive(Default)]
struct Block {
    /// True if the commands around the block run.
    outer: Option<bool>,
    /// True if the commands of this branch run.
    runs: Option<bool>,
    /// True if an earlier branch was taken.
    taken: Option<bool>,
    /// True if the condition, or a pattern of `case`, is being read.
    is_read: bool,
    /// Its parts, each with the operator after it.
    parts: Vec<(String, &'static str)>,
    /// The word that `case` compares.
    subject: Option<String>,
}

/// A script that is read.
#[derive(Default)]
pub(super) struct Shell {
    file: PathBuf,
    variables: Variables,
    exported: BTreeSet<String>,
    exports_all: bool,
    blocks: Vec<Block>,
    depth: usize,
    left: Cell<usize>,
    /// Commands of functions by name, until they are called.
    functions: Variables,
    /// Commands that may start a program.
    pub commands: Vec<Command>,
    /// Remarks on conditions.
    pub remarks: Vec<String>,
}

/// Returns true if the variable `name` of the environment decides what a training program does.
pub(super) fn is_setting(name: &str) -> bool {
    name == "USE_LLM_JUDGE" || ["OPENAI_", "WANDB_", "HF_"].iter().any(|begin| name.starts_with(begin))
}

/// Returns the file `path` that the file `of` names: in its folder or in one of the three folders above it.
pub(super) fn beside(of: &Path, path: &str) -> Option<PathBuf> {
    let of = std::path::absolute(of).ok()?;
    let folders = of.ancestors().skip(1).take(4);
    folders.map(|folder| folder.join(path.trim_start_matches("./"))).find(|path| path.is_file())
}

impl Shell {
    pub fn new(file: &Path) -> Shell {
        Shell { file: file.to_owned(), left: Cell::new(MOST), ..Shell::default() }
    }

    /// Reads a script with the content `text`.
    pub fn run(&mut self, text: &str) -> Result<()> {
        let wrong = |line| Error::format(&self.file, format!("line {line}: a quote or a list that never ends"));
        let (mut status, mut operator) = (Some(true), "\n");
        let mut parts = cut(text).map_err(wrong)?.into_iter();
        while let Some((command, end)) = parts.next() {
            let command = command.trim();
            if let Some(found) = FUNCTION.as_ref().and_then(|function| function.captures(command)) {
                let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
                let body =
                    if found[3].starts_with('(') { found[3].to_owned() } else { body(&found[3], end, &mut parts) };
                self.functions.insert(name.to_owned(), body);
                operator = "\n";
                continue;
            }
            let is_reached = match operator {
                "&&" => status,
                "||" => not(status),
                _ => Some(true),
            };
            self.step(command, end, is_reached)?;
            if is_reached != Some(false) {
                // `[[ A && B ]]` is cut into two commands.
                let is_test = command.split(' ').next().is_some_and(|word| TESTS.contains(&word));
                status = if is_test || command.ends_with(" ]]") { self.test(command)? } else { Some(true) };
            }
            operator = end;
        }
        // A function that nothing calls may be the one that trains.
        while self.depth == 0
            && let Some((_, body)) = self.functions.pop_first()
        {
            self.inside(&body)?;
        }
        Ok(())
    }

    /// Returns whether the commands of the innermost branch run.
    fn runs(&self) -> Option<bool> {
        self.blocks.last().map_or(Some(true), |block| both(block.outer, block.runs))
    }

    fn open(&mut self, block: Block) {
        self.blocks.push(Block { outer: self.runs(), ..block });
    }

    /// Opens the next branch of the innermost block, which runs if the `condition` of these parts holds.
    fn branch(&mut self, condition: Option<bool>, parts: &[(String, &'static str)]) {
        let Some(block) = self.blocks.last_mut() else { return };
        block.runs = if block.taken == Some(false) { condition } else { Some(false) };
        block.taken = either(block.taken, condition);
        if block.runs.is_none() && block.outer != Some(false) {
            let text: Vec<&str> = parts.iter().map(|(part, _)| part.as_str()).collect();
            self.remarks.push(format!("not known, so its first branch is read: {}", text.join(" ... ")));
        }
    }

    /// Reads a command, which `end` ends. `is_reached` tells whether the commands before it let it run.
    fn step(&mut self, command: &str, end: &'static str, is_reached: Option<bool>) -> Result<()> {
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (word, self.blocks.last_mut()) {
            ("fi" | "done" | "esac", _) => drop(self.blocks.pop()),
            ("then", Some(_)) => {
                self.decide()?;
                return self.step(rest.trim(), end, Some(true));
            }
            ("elif", Some(block)) => {
                block.is_read = true;
                return self.step(rest.trim(), end, Some(true));
            }
            ("else", Some(_)) => {
                self.branch(Some(true), &[]);
                return self.step(rest.trim(), end, Some(true));
            }
            (_, Some(block)) if block.is_read => {
                block.parts.extend((!command.is_empty()).then(|| (command.to_owned(), end)));
                if end == ")" {
                    self.decide()?;
                }
            }
            ("if" | "case", _) => {
                let case = rest.split_once(" in").filter(|_| word == "case");
                let subject = case.map(|(subject, _)| subject.to_owned());
                self.open(Block { taken: Some(false), is_read: true, subject, ..Block::default() });
                return self.step(case.map_or(rest, |(_, pattern)| pattern).trim(), end, Some(true));
            }
            ("for" | "while" | "until", _) => self.open(Block::default()),
            ("do" | "{", _) => return self.step(rest.trim(), end, is_reached),
            _ if command.starts_with('(') && is_reached != Some(false) => {
                let outside = self.environment()?;
                self.inside(command.trim_start_matches('(').trim_end_matches(')'))?;
                (self.variables, self.exported) = outside;
            }
            _ => self.simple(command, both(self.runs(), is_reached))?,
        }
        let case = self.blocks.last_mut().filter(|block| end == ";;" && block.subject.is_some());
        case.into_iter().for_each(|block| block.is_read = true);
        Ok(())
    }

    /// Opens the branch whose condition, or whose patterns of `case`, have been read.
    fn decide(&mut self) -> Result<()> {
        let Some(block) = self.blocks.last_mut() else { return Ok(()) };
        block.is_read = false;
        let mut parts = std::mem::take(&mut block.parts);
        if let Some(subject) = &block.subject {
            parts.iter_mut().for_each(|part| *part = (format!("[[ {subject} = {} ]]", part.0), "||"));
        }
        let condition = self.condition(&parts)?;
        self.branch(condition, &parts);
        Ok(())
    }

    /// Returns whether a condition holds.
    fn condition(&self, parts: &[(String, &'static str)]) -> Result<Option<bool>> {
        let (mut holds, mut operator) = (Some(true), "&&");
        for (part, end) in parts {
            let is_group = part.starts_with(['{', '(']);
            let value = if is_group { None } else { self.test(part)? };
            holds = match operator {
                "&&" => both(holds, value),
                "||" => either(holds, value),
                _ => value,
            };
            if is_group {
                break;
            }
            operator = end;
        }
        Ok(holds)
    }

    /// Returns whether a test such as `[ "$A" = b ]` succeeds.
    fn test(&self, command: &str) -> Result<Option<bool>> {
        let text = self.expand(command)?;
        let is_known = !text.contains(['$', '`']);
        let words = shlex::split(&text).filter(|_| is_known).unwrap_or_default();
        let (marks, mut words): (Vec<&str>, Vec<&str>) =
            words.iter().map(String::as_str).partition(|word| ["[", "[[", "]", "]]", "test"].contains(word));
        let is_negated = words.first() == Some(&"!");
        words.drain(..usize::from(is_negated));
        let holds = match words[..] {
            ["true" | "false"] if marks.is_empty() => Some(words == ["true"]),
            _ if marks.is_empty() => None,
            [a, "=" | "==", b] => Some(matches(b, a)),
            [a, "!=", b] => Some(!matches(b, a)),
            ["-z", a] => Some(a.is_empty()),
            ["-n", a] | [a] => Some(!a.is_empty()),
            [a, operator, b] => a.parse::<i64>().ok().zip(b.parse::<i64>().ok()).map(|(a, b)| match a.cmp(&b) {
                Ordering::Equal => ["-eq", "-ge", "-le"].contains(&operator),
                Ordering::Greater => ["-ne", "-gt", "-ge"].contains(&operator),
                Ordering::Less => ["-ne", "-lt", "-le"].contains(&operator),
            }),
            _ => None,
        };
        Ok(if is_negated { not(holds) } else { holds })
    }

    /// Reads a command that is part of no condition and begins no loop.
    fn simple(&mut self, command: &str, runs: Option<bool>) -> Result<()> {
        let (Some(list), Some(assignment)) = (&*LIST, &*ASSIGNMENT) else { return Ok(()) };
        if runs == Some(false) || command.is_empty() {
            return Ok(());
        }
        if let Some(found) = list.captures(command) {
            let words = &command[found[0].len()..];
            let words = self.words(words.strip_suffix(')').unwrap_or(words))?;
            let value = shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default();
            self.set(&found[1], &format!(" {value}"), !found[2].is_empty(), runs);
            return Ok(());
        }
        let words = self.words(command)?;
        let Some(first) = words.first().map(String::as_str) else { return Ok(()) };
        let is_declared = ["export", "declare", "typeset", "local", "readonly"].contains(&first);
        if !is_declared && !words.iter().all(|word| assignment.is_match(word)) {
            match (first, words.get(1).map(String::as_str)) {
                ("set", Some(flag)) if flag.contains('a') || words.last().is_some_and(|word| word == "allexport") => {
                    self.exports_all = flag.starts_with('-');
                }
                ("unset", _) => words[1..].iter().for_each(|name| drop(self.variables.remove(name))),
                (":", _) => self.set_defaults(command, runs)?,
                _ => match self.functions.remove(first) {
                    Some(body) => self.call(&body, &words[1..])?,
                    None => self.start(&words)?,
                },
            }
            return Ok(());
        }
        if first == "export" && words.get(1).is_some_and(|word| word == "-n") {
            self.exported.retain(|name| !words.contains(name));
            return Ok(());
        }
        let exports = self.exports_all || first == "export" || words.iter().any(|word| word == "-x");
        for word in words.iter().skip(usize::from(is_declared)) {
            let found = assignment.captures(word);
            let name = found.as_ref().map_or(word.as_str(), |found| found.get(1).map_or("", |name| name.as_str()));
            self.exported.extend(exports.then(|| name.to_owned()));
            found.iter().for_each(|found| self.set(&found[1], &found[3], !found[2].is_empty(), runs));
        }
        Ok(())
    }

    /// Sets a variable. A command that only may run does not replace another value.
    fn set(&mut self, name: &str, value: &str, appends: bool, runs: Option<bool>) {
        let variable = self.variables.entry(name.to_owned()).or_default();
        if appends || runs == Some(true) || variable.is_empty() {
            variable.truncate(if appends { variable.len() } else { 0 });
            variable.push_str(value);
        }
    }

    /// Sets the variables of `: ${NAME:=DEFAULT}` that have no value.
    fn set_defaults(&mut self, command: &str, runs: Option<bool>) -> Result<()> {
        for part in command.split("${") {
            let Some((name, value)) = part.split_once(":=") else { continue };
            if self.variables.get(name).is_none_or(String::is_empty) {
                let value = self.expand(value.rsplit_once('}').unwrap_or_default().0)?;
                self.set(name, &value, false, runs);
            }
        }
        Ok(())
    }

    /// Returns copies of the variables and of the names of those that are exported.
    fn environment(&self) -> Result<(Variables, BTreeSet<String>)> {
        spend(&self.file, &self.left, self.variables.len())?;
        Ok((self.variables.clone(), self.exported.clone()))
    }

    /// Reads a command that starts a program, another script, or the commands in one of its words.
    fn start(&mut self, words: &[String]) -> Result<()> {
        let module = words.iter().position(|word| word == "-m").map(|i| i + 1);
        // `trl` as a module has the same subcommands as the program.
        let module = module.map(|i| i + usize::from(words.get(i + 1).is_some_and(|word| is_program(word))));
        let program = module.or_else(|| words.iter().position(|word| is_program(word)));
        let (before, arguments) = words.split_at(program.map_or(words.len(), |i| (i + 1).min(words.len())));
        let outside = self.environment()?;
        for (i, word) in before.iter().enumerate() {
            let value =
                word.strip_prefix("--").and_then(|option| option.split_once('=')).map_or(&**word, |pair| pair.1);
            self.set_environment(word, value)?;
            if word.starts_with("--unset=") || (i > 0 && before[i - 1] == "-u") {
                self.variables.remove(value);
            }
            let is_script = word.ends_with(".sh") || (i == 1 && ["source", "."].contains(&&*before[0]));
            let script = if is_script { beside(&self.file, word) } else { None };
            let mut parts = value.split_whitespace();
            if let Some(text) = script.and_then(|path| files::read_config(path).ok()) {
                let arguments = shlex::try_join(words[i + 1..].iter().map(String::as_str)).unwrap_or_default();
                self.variables.insert("@".to_owned(), arguments);
                self.inside(&text)?;
            } else if value.contains(char::is_whitespace) && parts.any(|part| part == "-m" || is_program(part)) {
                self.inside(value)?;
            }
        }
        let exported = |name: &String| Some((name.clone(), self.variables.get(name)?.clone()));
        let environment = self.exported.iter().filter(|name| is_setting(name)).filter_map(exported).collect();
        let (program, arguments) = if program.is_some() { (before, arguments) } else { (arguments, before) };
        self.commands.push(Command { program: program.to_vec(), arguments: arguments.to_vec(), environment });
        if !["source", "."].contains(&&*words[0]) {
            (self.variables, self.exported) = outside;
        }
        Ok(())
    }

    /// Exports the variables that a word before a program sets: `NAME=VALUE`, `--export=ALL,NAME=VALUE`, and the
    /// `env_vars` of Ray's runtime environment or of its YAML file. `value` is the word without its option.
    fn set_environment(&mut self, word: &str, value: &str) -> Result<()> {
        let is_list = word.starts_with("--export=") || value.starts_with("ALL,");
        let list: Vec<&str> = if is_list { value.split(',').collect() } else { vec![value] };
        let pairs = list.iter().filter_map(|text| ASSIGNMENT.as_ref()?.captures(text));
        let mut found: Vec<_> = pairs.map(|pair| (pair[1].to_owned(), pair[3].to_owned())).collect();
        let is_yaml = value.ends_with(".yaml") || value.ends_with(".yml");
        let file = if is_yaml { beside(&self.file, value) } else { None };
        let text = file.and_then(|path| files::read_config(path).ok());
        spend(&self.file, &self.left, text.as_ref().map_or(0, String::len))?;
        let text = text.as_deref().unwrap_or(value);
        let ray = Some(text).filter(|text| text.contains("env_vars")).and_then(|text| parse(text).ok());
        let variables = ray.iter().filter_map(|ray| ray["env_vars"].as_object()).flatten();
        found.extend(variables.map(|(name, value)| (name.clone(), super::inline(value))));
        self.exported.extend(found.iter().map(|(name, _)| name.clone()));
        self.variables.extend(found);
        Ok(())
    }

    /// Reads the commands of a function with these arguments.
    fn call(&mut self, body: &str, arguments: &[String]) -> Result<()> {
        let arguments = shlex::try_join(arguments.iter().map(String::as_str)).unwrap_or_default();
        let outside = self.variables.insert("@".to_owned(), arguments);
        self.inside(body)?;
        outside.map(|arguments| self.variables.insert("@".to_owned(), arguments));
        Ok(())
    }

    /// Reads commands inside a command. A text that only looks like commands may have a quote without an end.
    fn inside(&mut self, text: &str) -> Result<()> {
        if self.depth == DEEPEST || cut(text).is_err() {
            return Ok(());
        }
        spend(&self.file, &self.left, text.len())?;
        let blocks = self.blocks.len();
        self.depth += 1;
        self.run(text)?;
        self.depth -= 1;
        self.blocks.truncate(blocks);
        Ok(())
    }

    /// Returns the words of a command, with the values of variables.
    fn words(&self, command: &str) -> Result<Vec<String>> {
        let all = ALL_WORDS.as_ref().map(|all| all.replace_all(command, "$${$1$2$3}"));
        let text = self.expand(all.as_deref().unwrap_or(command))?;
        // The value of a variable may contain a quote that has no end.
        Ok(shlex::split(&text).or_else(|| shlex::split(command)).unwrap_or_default())
    }

    fn expand(&self, text: &str) -> Result<String> {
        expand(&self.file, text, &self.variables, &self.left)
    }
}

/// Returns the commands of a function whose first one is `first`, ended by `end`. Takes them from `parts`.
fn body(first: &str, end: &str, parts: &mut impl Iterator<Item = (String, &'static str)>) -> String {
    let mut body = format!("{} {end} ", first.trim_start_matches('{'));
    let mut depth = usize::from(first.starts_with('{'));
    for (command, end) in parts {
        let command = command.trim();
        match command.chars().next() {
            Some('}') if depth < 2 => break,
            Some('}') => depth -= 1,
            Some('{') => depth += 1,
            _ => {}
        }
        body.push_str(&format!("{} {end} ", if depth == 1 { command.trim_start_matches('{') } else { command }));
    }
    body
}

/// True if `word` is a program that trains, or its subcommand.
fn is_program(word: &str) -> bool {
    let commands = ["train", "sft", "grpo", "rloo", "dpo", "kto", "reward", "rlhf", "lmms_eval", "lmms-eval"];
    !word.contains(char::is_whitespace) && (word.ends_with(".py") || commands.contains(&word))
}

fn matches(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).map_or(pattern == text, |pattern| pattern.matches(text))
}

fn not(a: Option<bool>) -> Option<bool> {
    a.map(|a| !a)
}

fn either(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    if a == Some(true) || b == Some(true) { Some(true) } else { a.zip(b).map(|_| false) }
}

fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    not(either(not(a), not(b)))
}
