//! Converts a config of another system to one of omr: `omr config --from`. The table `foreign.tsv` says how.

use std::path::Path;

use minijinja::{Environment, context};
use serde_json::{Map, Value, json};

use super::describe::{inline, shown};
use super::foreign::{Foreign, RULES, alias};
use super::script::{self, Found};
use super::setting::Place;
use super::source::{parse, set, to_text};
use super::{Config, EvalConfig, RlConfig, SftConfig, Source, keys};
use crate::error::{Error, Result};

/// Result of an expression for a setting that needs no key.
const SKIP: &str = "\0skip";
/// Word of `reward.command` that stands for the adapter that calls functions in Python.
pub const ADAPTER: &str = "omr:my_reward.py";
/// First part of the settings that a reward function gets as keywords.
const KEYWORDS: &str = "custom_reward_function.reward_kwargs.";
/// Keys that name the method. A value that omr lacks stays in the config, so that the config has to be changed.
const METHOD: [&str; 2] = ["adv_estimator", "loss_mode"];

/// Maximum number of elements of a list that an expression of the table returns.
const MOST_ELEMENTS: usize = 1 << 16;

/// Maximum number of settings of a file. Each is compared with all rules of the table.
const MOST_SETTINGS: usize = 10_000;

/// Number of updates of a generation batch in TRL, as an expression of the table.
const UPDATES: &str = "(c.generation_batch_size / (c.per_device_train_batch_size * gpus) if c.generation_batch_size \
    else c.steps_per_generation or c.gradient_accumulation_steps) / c.gradient_accumulation_steps * (c.num_iterations or 1)";

/// Last part of the model's name, as an expression of the table.
const MODEL: &str = "(c.model_name_or_path or c['actor_rollout_ref.model.path'] or c['model.path'] \
    or c['model.partial_pretrain'] or '').split('/')|last|lower";

/// Condition for a judge, as an expression of the table.
const JUDGED: &str = "(c.USE_LLM_JUDGE|string|lower) in ['true', '1', 'yes']";

/// Description of the files that can be converted.
const EXPECTED: &str = "supervised fine-tuning or RL of verl, EasyR1, LLaMA-Factory, TRL or lmms-engine (SFT), with LoRA or \
    of all weights, or an evaluation by lmms-eval";

/// Description of what can be converted instead of a script in Python.
const COMMAND: &str = "the command that starts it, as a bash script (such as `accelerate launch FILE.py --learning_rate 1e-6`), or \
    the arguments of its config (such as GRPOConfig and ModelConfig) as YAML";

/// Returns the config of omr that does what `file` does in its own system, as YAML. Comments name its command and the
/// settings without a counterpart. `gpus` is the number of GPUs of the other system.
pub fn from_other(file: &Path, gpus: u64) -> Result<String> {
    let wrong = |found: &str, expected: &str| Err(Error::input(file, found, expected));
    if file.extension().is_some_and(|ending| ending == "py") {
        return wrong("a script in Python", COMMAND);
    }
    let mut found = script::read(file)?;
    super::named::read(file, &mut found)?;
    if found.settings.is_empty() {
        return wrong("no settings", "YAML, or a script with a command of key=value or --key value");
    }
    if found.settings.len() > MOST_SETTINGS {
        return wrong(&format!("{} settings", found.settings.len()), &format!("at most {MOST_SETTINGS}"));
    }
    let pairs = found.settings.iter().map(|(name, value)| format!("{name}={}", inline(value)));
    let words: Vec<String> = pairs.chain(found.settings.keys().chain(&found.program).cloned()).collect();
    let mut systems = RULES.iter().filter_map(|rule| Some((rule, rule.ours.split_once(": ")?, rule.value?)));
    let system = systems.find(|(rule, ..)| words.iter().any(|word| rule.is_of(word)));
    match system {
        Some((_, (name, "sft"), defaults)) => convert::<SftConfig>(file, name, &found, defaults, gpus),
        Some((_, (name, "rl"), defaults)) => convert::<RlConfig>(file, name, &found, defaults, gpus),
        Some((_, (name, "eval"), defaults)) => convert::<EvalConfig>(file, name, &found, defaults, gpus),
        Some((_, (method, _), instead)) => wrong(method, &format!("{EXPECTED}{instead}")),
        None => wrong("another system or method", EXPECTED),
    }
}

fn convert<C: Config>(file: &Path, system: &str, found: &Found, defaults: &str, gpus: u64) -> Result<String> {
    let (known, place) = (keys::<C>(), Place::default());
    let names = Foreign::new(&known);
    let mut settings = found.settings.clone();
    for (name, value) in defaults.split(' ').filter_map(|pair| pair.split_once('=')) {
        settings.entry(name).or_insert_with(|| parse(value).unwrap_or_else(|_| value.into()));
    }
    let all: Map<String, Value> = settings.iter().map(|(name, value)| (alias(name), value.clone())).collect();
    let updates = evaluate(UPDATES, &context! { c => all, gpus }).unwrap_or_else(|| 1.into());
    let model = evaluate(MODEL, &context! { c => all }).unwrap_or_default();
    let judged = evaluate(JUDGED, &context! { c => all });
    let keyword = |(name, value): (&String, &Value)| Some(format!("{}={value}", name.strip_prefix(KEYWORDS)?));
    let keywords: Vec<String> = all.iter().filter_map(keyword).collect();
    let (mut values, mut notes) = (Vec::new(), found.remarks.clone());
    for (name, value) in &settings {
        let (is_default, other) = (!found.settings.contains_key(name), alias(name));
        let mut note = |answer: String| {
            let default = if is_default { format!(" (default of {system})") } else { String::new() };
            notes.push(format!("{name}: {}{default} -> {answer}", shown(name, value)));
        };
        let context = context! {
            v => value, c => all, gpus, updates, model, judged, keywords, system, skip => SKIP, adapter => ADAPTER, command => C::NAME
        };
        let rules = RULES.iter().filter_map(|rule| Some((rule, rule.value?))).filter(|(rule, _)| rule.is_of(&other));
        for remark in
            rules.clone().filter(|(rule, _)| rule.ours == "#").filter_map(|(_, text)| evaluate(text, &context))
        {
            note(inline(&remark));
        }
        let mut refused =
            rules.clone().filter(|(rule, _)| rule.ours == "!").filter_map(|(_, text)| evaluate(text, &context));
        if let Some(expected) = refused.next() {
            return Err(Error::input(format!("{}: {name}", file.display()), shown(name, value), inline(&expected)));
        }
        let ours = rules.flat_map(|(rule, value)| rule.ours.split(' ').map(move |path| (path, value)));
        let ours = ours.filter(|(path, _)| known.iter().any(|key| key.path == *path));
        let mut found: Vec<_> = ours.filter_map(|(path, value)| Some((path, evaluate(value, &context)?))).collect();
        if found.is_empty() {
            found.extend(names.same(name).into_iter().map(|path| (path, value.clone())));
        }
        if found.is_empty() && !is_default {
            note(names.counterpart("", name).unwrap_or_else(|| "nothing known in omr".to_owned()));
        }
        for (path, value) in found.into_iter().filter(|(_, value)| *value != SKIP) {
            let (mut config, mut tree) = (C::default(), json!({}));
            let is_set = path.contains("[].") || set(&mut tree, path, value.clone()).is_err();
            match if is_set { Ok(()) } else { config.set(&place, "", &tree) } {
                // Another key of the group is missing. It may come later, and the whole config is checked at the end.
                Err(Error::Input { place, .. }) if !format!("{place}.").starts_with(&format!("{path}.")) => {
                    values.push((path, value, is_default));
                }
                Err(error) => {
                    note(error.to_string());
                    // Without its method, the run would be another one.
                    METHOD.contains(&path).then(|| values.push((path, value, is_default)));
                }
                Ok(()) if is_default && config.write() == C::default().write() => {}
                Ok(()) => {
                    is_default.then(|| note(path.to_owned()));
                    values.push((path, value, is_default));
                }
            }
        }
    }
    // Defaults come first, the keys of the entries of a list after the list. Null takes precedence.
    values.sort_by_key(|(path, value, is_default)| (value.is_null(), path.contains("[]."), !is_default));
    let mut tree = json!({});
    for (path, value, _) in values {
        put(&mut tree, path, &value).map_err(|found| Error::Failed(format!("{path} in {}", inline(&found))))?;
    }
    let mut config = C::default();
    let ready = config.set(&place, "", &tree).and_then(|()| config.validate(&place));
    notes.extend(ready.err().map(|error| format!("to be changed: {error}")));
    let has = |is: fn(&Source) -> bool| config.clone().sources().iter().any(|(_, source)| is(source));
    let needs_rows = C::NAME != EvalConfig::NAME && !has(|source| matches!(source, Source::Rows(_)));
    notes.extend(needs_rows.then(|| "to be added: the rows to train on".to_owned()));
    let of_gpus = || format!("number of GPUs in the batch sizes: {gpus} (--gpus N changes it)");
    notes.extend(all.keys().any(|name| name.ends_with("per_device_train_batch_size")).then(of_gpus));
    written::<C>(file, system, &notes, &config, &tree)
}

/// Returns the text of a converted config: its first line with the command, the notes and the keys.
fn written<C: Config>(file: &Path, system: &str, notes: &[String], config: &C, tree: &Value) -> Result<String> {
    let has = |is: fn(&Source) -> bool| config.clone().sources().iter().any(|(_, source)| is(source));
    let plain = |text: &str| text.replace(char::is_control, " ");
    let lines: String = notes.iter().map(|note| format!("# {}\n", plain(note))).collect();
    let mut command = format!("omr {} THIS_FILE", C::NAME);
    if C::NAME == EvalConfig::NAME {
        let model = if has(|source| matches!(source, Source::Model(_))) { "" } else { " --model DIR" };
        let tasks = if tree["tasks"].is_null() { " --tasks A,B" } else { "" };
        command = format!("omr eval --config THIS_FILE{model}{tasks} --data DIR");
    }
    let (from, ours, text) = (plain(&file.display().to_string()), C::NAME, to_text(tree)?);
    Ok(format!("# {system} -> omr {ours}: {command} --out DIR. From {from}\n{lines}{text}"))
}

/// Returns the value of an expression of the table, or `None` if it is undefined.
fn evaluate(expression: &str, context: &minijinja::Value) -> Option<Value> {
    let mut env = Environment::new();
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    let value = env.compile_expression(expression).ok()?.eval(context).ok()?;
    // A list times a number is computed only when it is read.
    let is_large = value.len().is_some_and(|len| len > MOST_ELEMENTS);
    if is_large || value.is_undefined() { None } else { serde_json::to_value(value).ok() }
}

/// Sets a key in `tree`, in all entries of a list if the path contains `[]`. `Err` contains a value that is no group.
fn put(tree: &mut Value, path: &str, value: &Value) -> std::result::Result<(), Value> {
    let Some((list, name)) = path.split_once("[].") else { return set(tree, path, value.clone()) };
    let entries = match tree.get_mut(list) {
        Some(Value::Array(entries)) => entries.iter_mut().collect(),
        one => one.into_iter().collect::<Vec<_>>(),
    };
    entries.into_iter().try_for_each(|entry| {
        if entry.is_string() {
            *entry = json!({ "path": entry });
        }
        set(entry, name, value.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_script_are_no_part_of_the_converted_config() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a\u{7}.sh");
        let script =
            "python3 -m trl grpo --learning_rate 1e-6 --run_name 'a\u{1b}[2Jb' --unknown\u{8}key 'c\u{85}\rd'\n";
        std::fs::write(&path, script).unwrap();
        let text = from_other(&path, 1).unwrap();
        assert!(text.contains("learning_rate") && text.contains("[2Jb"), "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        parse(&text).unwrap();
    }

    #[test]
    fn every_rule_of_the_table_names_our_keys_and_has_a_valid_expression() {
        let known = [keys::<SftConfig>(), keys::<RlConfig>(), keys::<EvalConfig>()].concat();
        let known = |path: &str| known.iter().any(|key| key.path == path);
        for rule in RULES.iter().filter(|rule| rule.value.is_some() && !rule.ours.contains([':', '='])) {
            rule.ours
                .split(' ')
                .for_each(|path| assert!(["#", "!"].contains(&path) || known(path), "{path} is no key"));
            let expression = rule.value.unwrap();
            Environment::new().compile_expression(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        }
        let system = |ours: &str| RULES.iter().find(|rule| rule.ours == ours).unwrap();
        for (ours, name) in [("verl: rl", "actor_rollout_ref.model.path"), ("TRL: rl", "examples/grpo_vlm.py")] {
            assert!(system(ours).is_of(name), "{ours}");
        }
    }
}
