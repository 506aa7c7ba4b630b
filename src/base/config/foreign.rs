//! Finds the omr key that replaces a key of another system or of another command.
//!
//! Most answers come from the declarations of the omr keys, because a declaration also contains the key's names in other
//! systems. The table `foreign.tsv` covers the keys that have no direct counterpart. Its lines with three columns are for
//! `convert.rs`. They have names of other systems, an omr key and the Jinja expression of its value (`v` is their value, `c`
//! are all of their settings), or one of these in the second column:
//! - `SYSTEM: COMMAND`: words that identify a system, its name with the omr command, and its defaults;
//! - `METHOD: none`: words that identify a method that omr lacks, its name, and what to do;
//! - `=`: names of a fork or of a group, and the names that the other lines have for the same settings;
//! - `#`: names, and the expression of a remark;
//! - `!`: names, and an expression of what is expected instead of a value that is refused.

use std::collections::HashMap;
use std::sync::LazyLock;

use glob::Pattern;

use super::setting::Key;
use super::{Config, RlConfig, SftConfig, keys};

/// Systems whose names of keys the declarations contain.
const SYSTEMS: [&str; 8] = ["verl", "PEFT", "lmms-engine", "Hugging Face", "TRL", "LLaMA-Factory", "LLaVA", "vLLM"];

/// First parts of the nested keys of verl and lmms-engine.
const ROOTS: &str = "actor_rollout_ref algorithm critic custom_reward_function data reward_model ray_kwargs trainer \
                     worker dataset_config model_config processor_config trainer_args";

/// Group of lmms-engine with the arguments of the Hugging Face trainer.
const TRAINER_ARGS: &str = "trainer_args.";

/// A line of `foreign.tsv`.
pub(super) struct Rule {
    theirs: Vec<Pattern>,
    /// The answer for the user. With a `value`, omr keys, or `SYSTEM: COMMAND`.
    pub ours: &'static str,
    /// Expression of the value of these keys, or the defaults of the system.
    pub value: Option<&'static str>,
}

/// The lines of `foreign.tsv`.
pub(super) static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule = |line: &'static str| {
        let mut columns = line.split('\t');
        let theirs = columns.next()?.split(' ').filter_map(|name| Pattern::new(name).ok()).collect();
        Some(Rule { theirs, ours: columns.next()?, value: columns.next() })
    };
    include_str!("foreign.tsv").lines().skip(1).filter_map(rule).collect()
});

impl Rule {
    /// Returns true if the rule is about the key or word `name`.
    pub(super) fn is_of(&self, name: &str) -> bool {
        self.theirs.iter().any(|pattern| pattern.matches(name))
    }
}

/// Names of keys in other systems, each with the paths of the omr keys and a note on what differs.
type Names<'a> = HashMap<&'a str, Vec<(&'a str, &'a str)>>;

/// The keys of a kind of config, by their names in other systems.
pub(super) struct Foreign<'a> {
    own: Names<'a>,
    others: LazyLock<Vec<(&'static str, Vec<Key>)>>,
}

impl<'a> Foreign<'a> {
    /// Collects the names of the keys `own` of a config.
    pub(super) fn new(own: &'a [Key]) -> Foreign<'a> {
        let others = || vec![(SftConfig::NAME, keys::<SftConfig>()), (RlConfig::NAME, keys::<RlConfig>())];
        Foreign { own: names(own), others: LazyLock::new(others) }
    }

    /// Returns what to use instead of `theirs`, an unknown key of the group `group`. Searches the names of this config's
    /// keys first, then the table, then the keys of SFT and RL.
    pub(super) fn counterpart(&self, group: &str, theirs: &str) -> Option<String> {
        let theirs = theirs.trim_start_matches('+');
        let whole = super::table::join(group, theirs);
        let in_group = |found: &[(&'a str, &str)]| {
            let (inside, outside): (Vec<_>, Vec<_>) = found.iter().partition(|(path, _)| path.starts_with(group));
            listed(if inside.is_empty() { &outside } else { &inside })
        };
        let own = || [&whole, theirs].iter().find_map(|name| find(&self.own, name).map(&in_group));
        own().or_else(|| instead(theirs)).or_else(|| self.of_others(theirs)).or_else(|| {
            // `data` is also a group of omr, in the config of another command.
            let root = theirs.split('.').next().filter(|root| *root != "data" && *root != theirs);
            root.filter(|root| ROOTS.split(' ').any(|known| known == *root)).map(|_| "nothing in omr".to_owned())
        })
    }

    /// Returns the paths of the keys of this config that are named `theirs` and have the same values.
    pub(super) fn same(&self, theirs: &str) -> Vec<&'a str> {
        let found = find(&self.own, theirs.trim_start_matches('+')).unwrap_or_default();
        found.iter().filter(|(_, note)| note.is_empty()).map(|(path, _)| *path).collect()
    }

    /// Returns the answer for a key of SFT or RL, or for a name of such a key: the key of this config that has the same
    /// path or a name in common, or else the key with its command.
    fn of_others(&self, theirs: &str) -> Option<String> {
        self.others.iter().find_map(|(command, keys)| {
            let names = names(keys);
            let found = find(&names, theirs)?;
            let is_found = |key: &&Key| found.iter().any(|(path, _)| *path == key.path);
            let shared = |key: &Key| {
                find(&self.own, &key.path).or_else(|| named(key).find_map(|(name, _)| find(&self.own, name)))
            };
            let same = keys.iter().filter(is_found).find_map(shared);
            let paths = |same: &[(&str, &str)]| same.iter().map(|(path, _)| *path).collect::<Vec<_>>().join(" or ");
            Some(match same {
                Some(same) => paths(same),
                None if keys.iter().any(|key| key.path == theirs) => format!("nothing (a key of `omr {command}`)"),
                None => format!("{} of `omr {command}`", listed(found)),
            })
        })
    }
}

/// Returns the name that the lines of the table have for the setting `theirs`.
pub(super) fn alias(theirs: &str) -> String {
    let lines = RULES.iter().filter(|rule| rule.ours == "=");
    let mut pairs = lines.flat_map(|rule| rule.theirs.iter().zip(rule.value.unwrap_or_default().split(' ')));
    let found = pairs.find(|(pattern, _)| pattern.matches(theirs));
    found.map_or(theirs.to_owned(), |(pattern, name)| match pattern.as_str().strip_suffix('*') {
        Some(begin) => format!("{}{}", name.trim_end_matches('*'), &theirs[begin.len()..]),
        None => name.to_owned(),
    })
}

/// Returns the one of `keys` for `name`, which may also be the last part of a key or the name of another system, or what to
/// use instead.
pub fn counterpart(keys: &[Key], name: &str) -> Option<String> {
    let last = |key: &&Key| key.path.rsplit('.').next() == Some(name);
    let paths: Vec<&str> = keys.iter().filter(last).map(|key| key.path.as_str()).collect();
    let exact = paths.iter().find(|path| **path == name).map(|path| (*path).to_owned());
    let foreign = Foreign::new(keys);
    let own = exact.or_else(|| find(&foreign.own, name).map(listed));
    own.or_else(|| Some(paths.join(" or ")).filter(|paths| !paths.is_empty())).or_else(|| foreign.counterpart("", name))
}

/// Returns the answer of the table for the key `theirs`.
fn instead(theirs: &str) -> Option<String> {
    let other = alias(theirs);
    let mut rules = RULES.iter().filter(|rule| rule.value.is_none());
    rules.find(|rule| rule.is_of(theirs) || rule.is_of(&other)).map(|rule| rule.ours.to_owned())
}

/// Returns the names of `key` in other systems, each with its note or an empty text.
fn named(key: &Key) -> impl Iterator<Item = (&'static str, &'static str)> {
    key.meta.name.split("; ").filter_map(|name| {
        let name = SYSTEMS.iter().find_map(|system| name.strip_prefix(system)?.strip_prefix(' '))?;
        Some(name.split_once(' ').unwrap_or((name, "")))
    })
}

fn names(keys: &[Key]) -> Names<'_> {
    let mut names = Names::new();
    for key in keys {
        let mut found: Vec<(&str, &str)> = named(key).collect();
        // A recipe has the keys of its stages in groups.
        let stage = ["sft.", "rl."].iter().find_map(|stage| key.path.strip_prefix(stage));
        found.extend(stage.map(|name| (name, "")));
        for (name, note) in found {
            let all = names.entry(name).or_default();
            if all.iter().all(|(path, _)| *path != key.path) {
                all.push((&key.path, note));
            }
        }
    }
    // The keys of the Hugging Face trainer often have the same name.
    keys.iter().for_each(|key| _ = names.entry(&key.path).or_insert_with(|| vec![(&key.path, "")]));
    names
}

/// Returns the keys that are named `theirs`. lmms-engine has the keys of the Hugging Face trainer in a group.
fn find<'n, 'a>(names: &'n Names<'a>, theirs: &str) -> Option<&'n [(&'a str, &'a str)]> {
    let other = alias(theirs);
    let nested = format!("{TRAINER_ARGS}{other}");
    [theirs, &other, &nested].into_iter().find_map(|name| names.get(name)).map(Vec::as_slice)
}

fn listed(found: &[(&str, &str)]) -> String {
    let noted =
        found.iter().map(|(path, note)| if note.is_empty() { (*path).to_owned() } else { format!("{path} {note}") });
    noted.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn counterpart<C: Config>(group: &str, theirs: &str) -> Option<String> {
        Foreign::new(&keys::<C>()).counterpart(group, theirs)
    }

    #[test]
    fn keys_of_other_systems_and_commands_have_counterparts() {
        let rl = |theirs| counterpart::<RlConfig>("", theirs).unwrap_or_default();
        let sft = |theirs| counterpart::<SftConfig>("", theirs).unwrap_or_default();
        for (found, expected) in [
            (rl("actor_rollout_ref.rollout.n"), "rollout.n"),
            (rl("+reward_model.reward_kwargs.overlong_buffer_cfg.len"), "overlong_buffer.len"),
            (rl("critic.optim.lr"), "nothing (advantages are relative to a group: there is no critic)"),
            (rl("actor_rollout_ref.x.y"), "nothing in omr"),
            (rl("dataset_config.packing_length"), "packing_length of `omr sft`"),
            (rl("num_generations"), "rollout.n"),
            (rl("beta"), "kl_loss_coef (with use_kl_loss=true)"),
            (rl("datasets"), "train_files"),
            (rl("save_steps"), "save_freq"),
            (rl("bf16_stochastic_round"), "nothing (a key of `omr sft`)"),
            (sft("train_files"), "datasets"),
            (sft("test_freq"), "eval_steps"),
            (sft("trainer_args.eval_steps"), "eval_steps"),
            (sft("trainer_args.per_device_train_batch_size"), "micro_batch_tokens"),
            (sft("lora_rank"), "lora.rank"),
            (sft("use_dora"), "nothing (lora trains plain adapters of linear layers)"),
            (sft("load_in_4bit"), "quantization (int8 or nf4, with lora)"),
            (sft("media_dir"), "datasets[].data_folder or val_files[].data_folder"),
            (sft("num_generations"), "rollout.n of `omr rl`"),
            (sft("trainer.total_epochs"), "num_train_epochs"),
            (sft("actor_rollout_ref.actor.optim.lr"), "learning_rate"),
        ] {
            assert_eq!(found, expected);
        }
        let recipe = |group, theirs| counterpart::<super::super::RecipeConfig>(group, theirs);
        assert_eq!(recipe("data", "train_batch_size").as_deref(), Some("rl.train_batch_size"));
        assert_eq!(recipe("rl", "model_name_or_path").as_deref(), Some("rl.model"));
        for unknown in ["data.num_rollouts", "rolout.n", "trainer", "x"] {
            assert_eq!(counterpart::<RlConfig>("", unknown), None, "{unknown}");
        }
    }

    #[test]
    fn every_pattern_of_the_table_is_reached() {
        let own = [keys::<SftConfig>(), keys::<RlConfig>()];
        let own = own.each_ref().map(|keys| names(keys));
        let is_answer = |line: &&str| line.split('\t').count() == 2;
        let lines: Vec<&str> = include_str!("foreign.tsv").lines().skip(1).filter(is_answer).collect();
        let mut seen = BTreeSet::new();
        for line in &lines {
            let (theirs, ours) = line.split_once('\t').expect(line);
            for pattern in theirs.split(' ') {
                assert!(seen.insert(pattern), "{pattern} occurs twice");
                Pattern::new(pattern).expect(line);
                assert!(!ours.contains(';'), "{line}: answers are separated by semicolons");
                // A declaration must not hide the pattern in both kinds of configs, and no line before may hide it.
                assert!(own.iter().any(|names| find(names, pattern).is_none()), "{pattern} is the name of a key");
                let example = pattern.replace('*', "zz");
                assert_eq!(instead(&example).as_deref(), Some(ours), "{example}");
            }
        }
        assert_eq!(RULES.iter().filter(|rule| rule.value.is_none()).count(), lines.len());
    }
}
