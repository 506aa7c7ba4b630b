//! Presets such as `dapo`, which set the defaults of several keys at once. One table contains all presets.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::MINI_BATCH;
use super::describe::inline;
use super::table::{self, join};
use crate::error::{Error, Result};

choice! {
    /// A published algorithm, as defaults of the keys that define it. A key that the config contains takes precedence.
    pub enum Preset {
        /// Sequence-level ratios, clipped to 1 - 3e-4 .. 1 + 4e-4 (arXiv 2507.18071, section 5.1).
        Gspo = "gspo",
        /// Token-level ratios, clipped to 1 - 0.2 .. 1 + 0.2 (arXiv 2402.03300). All tokens have equal weight, as in
        /// verl. No KL term.
        Grpo = "grpo",
        /// GRPO with a higher upper clip bound and without prompts whose rollouts all have the same result (arXiv
        /// 2503.14476, verl-recipe's script).
        Dapo = "dapo",
        /// GRPO without the division by standard deviation and length (arXiv 2503.20783).
        DrGrpo = "dr_grpo",
        /// Token-level ratios without a lower bound, clipped to at most 5, as constant weights of log-probs (arXiv
        /// 2506.13585; the bound is that of TRL's documentation).
        Cispo = "cispo",
    }
}

impl Preset {
    /// Returns the keys that the preset sets, with their values.
    pub fn keys(self) -> Vec<(&'static str, Value)> {
        KEYS.iter().map(|(key, values)| (*key, value(values[self as usize]))).collect()
    }
}

/// Keys with their value in each preset, in the order of [`Preset`]. `dapo` does not include the soft penalty for long
/// responses, because the number of tokens that the penalty covers depends on the run.
const KEYS: [(&str, [&str; 5]); 8] = [
    ("loss_mode", ["gspo", "vanilla", "vanilla", "vanilla", "cispo"]),
    ("loss_agg_mode", ["seq-mean-token-mean", "token-mean", "token-mean", "seq-mean-token-sum-norm", "token-mean"]),
    ("clip_ratio_low", ["3e-4", "0.2", "0.2", "0.2", "1.0"]),
    ("clip_ratio_high", ["4e-4", "0.2", "0.28", "0.2", "4.0"]),
    ("clip_ratio_c", ["3.0", "3.0", "10.0", "3.0", "3.0"]),
    ("norm_adv_by_std_in_grpo", ["true", "true", "true", "false", "true"]),
    ("filter_groups.enable", ["false", "false", "true", "false", "false"]),
    ("filter_groups.metric", ["score", "score", "acc", "score", "score"]),
];

/// Parses a cell of the table: a number, true or false, or a word.
fn value(cell: &str) -> Value {
    serde_json::from_str(cell).unwrap_or_else(|_| json!(cell))
}

/// Adds the keys that the preset of `group` sets, except those that `group` already contains, and a mini-batch of at most
/// the batch.
pub(super) fn fill_in(group: &mut Map<String, Value>) {
    if let Some(size) = group.get("train_batch_size").and_then(Value::as_u64).filter(|size| *size < MINI_BATCH) {
        group.entry("ppo_mini_batch_size").or_insert(size.into());
    }
    // An unknown preset is rejected later, where the key is read.
    let Some(Ok(preset)) = group.get("preset").and_then(Value::as_str).map(str::parse::<Preset>) else { return };
    for (key, value) in preset.keys() {
        let (name, inner) = key.split_once('.').map_or((key, None), |(name, inner)| (name, Some(inner)));
        let Some(inner) = inner else {
            group.entry(name).or_insert(value);
            continue;
        };
        if let Some(below) = table::group(group, name) {
            below.entry(inner).or_insert(value);
        }
    }
}

/// Returns an error if the command line sets a preset and `file` contains keys that this preset sets. The keys of the
/// file (in `tree`, under `path`) would take precedence, so the run would not match the preset's name. Keys that are
/// also given on the command line (`overridden`) are allowed.
pub(super) fn refuse_typed<'a>(
    path: &str,
    file: Option<&Path>,
    tree: Option<&Value>,
    typed: Option<&Value>,
    overridden: impl Fn(&str) -> bool + 'a,
) -> Result<()> {
    let Some((file, word)) = file.zip(typed.and_then(Value::as_str)) else { return Ok(()) };
    let Ok(preset) = word.parse::<Preset>() else { return Ok(()) };
    let written = preset.keys().into_iter().filter_map(|(key, _)| {
        let found = key.split('.').try_fold(tree?, |group, name| group.get(name))?;
        let key = join(path, key);
        (!overridden(&key)).then(|| format!("{key}: {}", inline(found)))
    });
    let written: Vec<String> = written.collect();
    if written.is_empty() {
        return Ok(());
    }
    let place = format!("command line: {}", join(path, "preset"));
    let found = format!("{word} over {}, which writes {}", file.display(), written.join(", "));
    let hint = "remove these keys from the file, or also give each of them on the command line";
    Err(Error::input_hint(place, found, "a file without the keys that the preset sets", hint))
}
