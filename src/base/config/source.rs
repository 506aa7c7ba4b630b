//! Loads a config from a file, the environment and the command line, writes it back as YAML, and compares two configs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use serde_saphyr::DuplicateKeyPolicy;

use super::describe::{inline, shown};
use super::environment::judge_from_env;
use super::setting::{Key, Meta, Place, Safe, Setting};
use super::{preset, unknown};
use crate::error::{Error, Result};
use crate::files;
use crate::secrets::{self, HIDDEN};

/// A path in a config that may also be the name of a repository on the Hugging Face hub.
#[derive(Debug)]
pub enum Source<'a> {
    /// Path of a model.
    Model(&'a mut PathBuf),
    /// Path of rows.
    Rows(&'a mut PathBuf),
    /// Another file or folder, which must exist.
    Files(&'a mut PathBuf),
}

/// A kind of config file.
pub trait Config: Setting + Default + Clone {
    /// Name of the config in `omr config NAME`.
    const NAME: &'static str;

    /// True if keys marked [`Safe::WhenMore`] may be raised when a run is resumed. False if other stages depend on the
    /// result.
    const MORE_IS_SAFE: bool = true;

    /// Path of the group that contains the key `preset`.
    const PRESET_AT: Option<&'static str> = None;

    /// Adds values that follow from other keys or from the environment, before the tree is read. The key `judge` has
    /// already been set from the environment.
    fn prepare(_tree: &mut Map<String, Value>, _env: &dyn Fn(&str) -> Option<String>) {}

    /// Returns the paths of models and rows, each with its key.
    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        Vec::new()
    }

    /// Checks constraints between several keys.
    fn validate(&self, _place: &Place) -> Result<()> {
        Ok(())
    }
}

/// Reads `file`, applies the environment, then the `key=value` overrides, then checks everything. The environment is
/// passed in, so that nothing below this call depends on the process environment.
pub fn load<C: Config>(file: Option<&Path>, overrides: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<C> {
    let is_record = |file: &&Path| file.ends_with("config.yaml") && file.parent().is_some_and(files::is_run);
    load_for(file, overrides, env, file.filter(is_record))
}

/// Works like [`load`] for a job that may continue a run. `recorded` is the `config.yaml` of the run. Keys that are newer
/// than this file get the value with which an older run continues ([`Meta::older`]), unless they are set.
pub fn load_for<C: Config>(
    file: Option<&Path>,
    overrides: &[String],
    env: &dyn Fn(&str) -> Option<String>,
    recorded: Option<&Path>,
) -> Result<C> {
    let mut place = Place { file: file.map(Path::to_owned), overridden: Default::default() };
    let mut tree = file.map_or(Ok(json!({})), |file| read_tree(file, &place))?;
    if let Some(recorded) = recorded {
        if file == Some(recorded) {
            forget_draft(&mut tree);
        }
        keep_older::<C>(&mut tree, &read_tree(recorded, &Place::default())?)?;
    }
    let overrides = overrides.iter().map(|text| parse_override(text)).collect::<Result<Vec<_>>>()?;
    place.overridden = overrides.iter().map(|(path, _)| path.clone()).collect();
    if let Some(at) = C::PRESET_AT {
        let written = if at.is_empty() { Some(&tree) } else { tree.get(at) };
        let typed = overrides.iter().rfind(|(path, _)| *path == super::table::join(at, "preset"));
        let is_below = |key: &str, typed: &String| key == typed || key.starts_with(&format!("{typed}."));
        let is_typed = |key: &str| place.overridden.iter().any(|typed| is_below(key, typed));
        preset::refuse_typed(at, file, written, typed.map(|(_, value)| value), is_typed)?;
    }
    apply(&mut tree, &overrides)?;
    if let Value::Object(tree) = &mut tree {
        if keys::<C>().iter().any(|key| key.path == "judge") {
            judge_from_env(tree, env);
        }
        C::prepare(tree, env);
    }
    // The overrides are applied a second time, because they take precedence over values from the environment.
    apply(&mut tree, &overrides)?;
    let with_preset = C::PRESET_AT.and_then(|at| if at.is_empty() { Some(&mut tree) } else { tree.get_mut(at) });
    with_preset.and_then(Value::as_object_mut).into_iter().for_each(preset::fill_in);
    super::data::unused_columns(&mut tree);
    unknown::refuse::<C>(&place, &tree)?;
    let mut config = C::default();
    config.set(&place, "", &tree)?;
    config.validate(&place)?;
    Ok(config)
}

fn read_tree(file: &Path, place: &Place) -> Result<Value> {
    let text = files::read_config(file).map_err(Error::io(file))?;
    let value = parse(&text).map_err(|what| Error::format(file, what))?;
    Ok(super::table::entries(place, "", &value)?.cloned().unwrap_or_default().into())
}

/// Removes the key `draft`, which configs of older runs contain. It changed no result.
fn forget_draft(tree: &mut Value) {
    let group = if tree.get("rl").is_some() { "/rl/rollout" } else { "/rollout" };
    tree.pointer_mut(group).and_then(Value::as_object_mut).map(|rollout| rollout.remove("draft"));
}

/// Sets the keys that are missing in both `tree` and `recorded` to their value in older runs.
fn keep_older<C: Config>(tree: &mut Value, recorded: &Value) -> Result<()> {
    for key in keys::<C>() {
        let Some(older) = key.meta.older else { continue };
        let pointer = format!("/{}", key.path.replace('.', "/"));
        if tree.pointer(&pointer).is_none() && recorded.pointer(&pointer).is_none() {
            let value = parse(older).map_err(Error::Failed)?;
            set(tree, &key.path, value).map_err(|found| not_a_group(&key.path, &found))?;
        }
    }
    Ok(())
}

pub(super) fn parse(text: &str) -> std::result::Result<Value, String> {
    parse_with(text, DuplicateKeyPolicy::Error)
}

/// Parses YAML with this rule for equal keys.
pub(super) fn parse_with(text: &str, duplicate_keys: DuplicateKeyPolicy) -> std::result::Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { strict_booleans: true, duplicate_keys: duplicate_keys };
    let blank = |line: &str| line[..line.len() - line.trim_start().len()].contains('\t');
    let tab = |line: usize| format!("line {}: a tab in the indentation; YAML is indented with spaces", line + 1);
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| text.lines().position(blank).map_or_else(|| one_line(&error.to_string()), tab))
}

/// Messages of the YAML parser that address programmers, or that state the rule of the grammar instead of the mistake. Each
/// with the words that replace them.
const WORDS: [(&str, &str); 10] = [
    (" rejected by the configured policy", ""),
    (", set DuplicateKeyPolicy in Options if acceptable", ""),
    ("; use from_str_multiple or from_str_multiple_with_options", ", expected one"),
    (
        "mapping values are not allowed in this context",
        "a second `: `; put quotes around the value, or begin a new line",
    ),
    ("while parsing a block mapping, did not find expected key", INDENTATION),
    ("did not find expected <document start>", INDENTATION),
    ("simple key expected ':'", "a key without `: ` and a value"),
    ("alias references unknown anchor", "a value that begins with `*` needs quotes"),
    ("unexpected character:", "a value needs quotes if it begins with"),
    ("invalid indentation in multiline quoted scalar", "a quote in a line above is not closed"),
];

/// Words for a line that belongs to no group above it.
const INDENTATION: &str = "the indentation is that of no line above; all keys of a group have the same";

fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("not YAML");
    let line = line.trim_start_matches("error: ");
    WORDS.iter().fold(line.to_owned(), |line, (theirs, ours)| line.replace(theirs, ours))
}

fn parse_override(text: &str) -> Result<(String, Value)> {
    let Some((path, value)) = text.split_once('=').filter(|(path, _)| !path.is_empty()) else {
        return Err(Error::input("command line", format!("{text:?}"), "key=value, such as seed=7"));
    };
    let wrong = |what: String| {
        let what = what.strip_prefix("line 1 column 1: ").unwrap_or(&what);
        let found = if secrets::is_named(path) { HIDDEN.to_owned() } else { format!("{value} ({what})") };
        Error::input(format!("command line: {path}"), found, "a YAML value")
    };
    if value.trim().is_empty() {
        // YAML reads it as null, but a shell makes it from KEY='' too.
        let expected = format!("a value: {path}=null for none, or {path}='\"\"' for an empty text");
        return Err(Error::input(format!("command line: {path}"), "an empty value", expected));
    }
    let value = parse(value).map_err(wrong)?;
    Ok((path.to_owned(), value))
}

fn apply(tree: &mut Value, overrides: &[(String, Value)]) -> Result<()> {
    let mut each = overrides.iter();
    each.try_for_each(|(path, value)| set(tree, path, value.clone()).map_err(|found| not_a_group(path, &found)))
}

fn not_a_group(path: &str, found: &Value) -> Error {
    Error::input(format!("command line: {path}"), shown(path, found), "a group of keys, or a list that has this index")
}

/// Sets `path` in `tree` and creates missing groups. `Err` contains the value that is not a group.
pub(super) fn set(tree: &mut Value, path: &str, value: Value) -> std::result::Result<(), Value> {
    let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
    if tree.is_null() {
        *tree = Value::Object(Map::new());
    }
    let child = match tree {
        Value::Object(map) => map.entry(head).or_insert(Value::Null),
        Value::Array(list) => {
            let whole = Value::from(list.len());
            head.parse::<usize>().ok().and_then(|i| list.get_mut(i)).ok_or(whole)?
        }
        other => return Err(other.clone()),
    };
    let Some(rest) = rest else {
        *child = value;
        return Ok(());
    };
    set(child, rest, value)
}

/// Writes the resolved config as YAML that [`load`] can read. Secrets are left out.
pub fn to_yaml<C: Setting>(config: &C) -> Result<String> {
    to_text(&config.write())
}

/// Writes a tree as YAML.
pub(super) fn to_text(tree: &Value) -> Result<String> {
    serde_saphyr::to_string(tree).map_err(|error| Error::Failed(format!("config as YAML: {error}")))
}

/// Writes [`to_yaml`] with a head line for `config.yaml` of a run: the version, and the device if `place` is given.
pub fn headed<C: Setting>(config: &C, place: Option<&str>) -> Result<String> {
    let place = place.map_or(String::new(), |place| format!(", on {place}"));
    Ok(format!("{}{}{place}\n{}", files::HEAD, env!("CARGO_PKG_VERSION"), to_yaml(config)?))
}

/// Returns the settings that affect results, as text: all keys except those that may change when a run is resumed.
pub fn deciding<C: Config>(config: &C) -> String {
    let mut tree = config.write();
    for key in keys::<C>().iter().filter(|key| key.meta.safe != Safe::No) {
        let (group, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        let group = group.split('.').filter(|part| !part.is_empty()).try_fold(&mut tree, |at, part| at.get_mut(part));
        if let Some(Value::Object(map)) = group {
            map.remove(name);
        }
    }
    tree.to_string()
}

/// Returns all keys of a kind of config, in the order of their declaration.
pub fn keys<C: Config>() -> Vec<Key> {
    let mut out = Vec::new();
    C::default().describe("", "", Meta::NONE, &mut out);
    out
}

/// Returns the JSON schema of a kind of config.
pub fn schema<C: Config>() -> Value {
    let mut schema = C::default().schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = format!("Config of omr {}", C::NAME).into();
    schema
}

/// Returns a kind of config with its keys, for [`likeliest`].
pub fn kind<C: Config>() -> (&'static str, Vec<Key>) {
    (C::NAME, keys::<C>())
}

/// Returns the kind of config to which most top-level keys of `text` belong. `kinds` contains each kind with its keys.
/// If two kinds have equally many keys, the first one is returned.
pub fn likeliest(text: &str, kinds: &[(&'static str, Vec<Key>)]) -> &'static str {
    let of = |keys: &[Key]| -> usize {
        let names: BTreeSet<&str> = keys.iter().filter_map(|key| key.path.split(['.', '[']).next()).collect();
        text.lines().filter(|line| line.split_once(':').is_some_and(|(name, _)| names.contains(name))).count()
    };
    let most = kinds.iter().rev().max_by_key(|(_, keys)| of(keys));
    most.map_or("", |(name, _)| name)
}

/// A key whose value differs between two configs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Dotted path.
    pub path: String,
    /// Value in the first config.
    pub was: String,
    /// Value in the second config.
    pub now: String,
    /// True if the difference affects no result, so that a run may continue with it.
    pub safe: bool,
}

/// Returns the keys in which two configs differ.
pub fn differences<C: Config>(was: &C, now: &C) -> Vec<Difference> {
    let known = keys::<C>();
    let mut out = Vec::new();
    compare(&known, C::MORE_IS_SAFE, "", &was.write(), &now.write(), &mut out);
    out
}

fn compare(known: &[Key], more: bool, path: &str, was: &Value, now: &Value, out: &mut Vec<Difference>) {
    if was == now {
        return;
    }
    if let (Value::Object(a), Value::Object(b)) = (was, now) {
        for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
            let path = super::table::join(path, name);
            compare(known, more, &path, a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null), out);
        }
        return;
    }
    // The entries of a map are not among the keys. These two of a reward program change no score.
    let is_limit = path.starts_with("rewards.") && [".timeout_s", ".workers"].iter().any(|name| path.ends_with(name));
    let safe = match known.iter().find(|key| key.path == path).map_or(Safe::No, |key| key.meta.safe) {
        Safe::No => is_limit,
        Safe::Yes => true,
        Safe::WhenMore => match (was.as_f64(), now.as_f64()) {
            (Some(was), Some(now)) => more && now > was,
            _ => false,
        },
    };
    out.push(Difference { path: path.to_owned(), was: inline(was), now: inline(now), safe });
}

/// Returns the safe differences between the run in `dir` (`was`) and `now`. If keys differ that are not safe to change,
/// returns an error that lists all such keys.
pub fn refuse_differences<C: Config>(dir: &Path, was: &C, now: &C) -> Result<Vec<Difference>> {
    let (safe, unsafe_): (Vec<_>, Vec<_>) = differences(was, now).into_iter().partition(|difference| difference.safe);
    if unsafe_.is_empty() {
        return Ok(safe);
    }
    let list: Vec<_> = unsafe_.iter().map(|d| format!("{} was {} and is {}", d.path, d.was, d.now)).collect();
    let found = format!("a run with another config: {}", list.join("; "));
    let hint = "choose another --out, or use --fresh, which moves the old run to another folder";
    Err(Error::input_hint(dir, found, "the config it was started with", hint))
}
