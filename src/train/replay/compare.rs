//! Compares recomputed rollouts, metrics and tensors with the recorded ones. Each comparison describes the first
//! difference with both values.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

use crate::training::metrics::{Metrics, is_time};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_model::rollout::file::RolloutRow;

/// Describes the first rollout of a step that differs from the one in `recorded`.
pub fn rollouts(recorded: &[RolloutRow], again: &[RolloutRow]) -> Option<String> {
    if recorded.len() != again.len() {
        return Some(format!("{} rollouts were recorded and {} were computed", recorded.len(), again.len()));
    }
    recorded.iter().zip(again).enumerate().find_map(|(i, (was, is))| {
        let what = rollout(was, is)?;
        Some(format!("rollout {i} (answer {} to {}): {what}", was.rollout, was.id))
    })
}

fn rollout(was: &RolloutRow, is: &RolloutRow) -> Option<String> {
    let describe = |name: &str, was: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
        Some(format!("{name}: recorded {was}, computed {is}"))
    };
    let names = [("prompt", was.prompt, is.prompt), ("rollout", was.rollout.into(), is.rollout.into())];
    if let Some((name, was, is)) = names.into_iter().find(|(_, was, is)| was != is) {
        return describe(name, &was, &is);
    }
    // The log-probs before the first different token show where the weights begin to differ.
    let same = was.token_ids.iter().zip(&is.token_ids).take_while(|(was, is)| was == is).count();
    let probs = was.log_probs.iter().zip(&is.log_probs).take(same);
    if let Some((i, (was, is))) = probs.enumerate().find(|(_, (was, is))| was.to_bits() != is.to_bits()) {
        return describe(&format!("log-prob of token {i}"), was, is);
    }
    if same < was.token_ids.len().max(is.token_ids.len()) {
        let token = |ids: &[u32]| ids.get(same).map_or("none".to_owned(), u32::to_string);
        return describe(&format!("token {same}"), &token(&was.token_ids), &token(&is.token_ids));
    }
    let length = |name, was: usize, is: usize| (name, was != is, was.to_string(), is.to_string());
    let text = |name, was: &String, is: &String| (name, was != is, format!("{was:?}"), format!("{is:?}"));
    let real = |name, was: Option<f64>, is: Option<f64>| {
        let shown = |value: Option<f64>| value.map_or("no score".to_owned(), |value| value.to_string());
        (name, was.map(f64::to_bits) != is.map(f64::to_bits), shown(was), shown(is))
    };
    let fields = [
        length("log-probs", was.log_probs.len(), is.log_probs.len()),
        length("response_length", was.response_length as usize, is.response_length as usize),
        text("input", &was.input, &is.input),
        text("output", &was.output, &is.output),
        text("id", &was.id, &is.id),
        text("gts", &was.gts, &is.gts),
        text("finish_reason", &was.finish_reason, &is.finish_reason),
        text("predict_str", &was.predict_str, &is.predict_str),
        text("judge", &was.judge, &is.judge),
        real("acc_score", was.acc_score, is.acc_score),
        real("format_reward_score", Some(was.format_reward_score), Some(is.format_reward_score)),
        real("score", was.score, is.score),
        real("reward", was.reward, is.reward),
        real("advantage", Some(was.advantage), Some(is.advantage)),
    ];
    let (name, _, was, mut is) = fields.into_iter().find(|(_, differs, ..)| *differs)?;
    if name == "output" {
        is += ", with the same tokens: the omr that recorded the run turns them into another text (CHANGELOG.md, Results \
               change), and can replay it (starts.jsonl names its version)";
    }
    describe(name, &was, &is)
}

/// Describes the first metric of a step that differs from `recorded`. Times are ignored.
pub fn metrics(recorded: &Metrics, again: &Metrics) -> Option<String> {
    let names = recorded.keys().chain(again.keys().filter(|name| !recorded.contains_key(*name)));
    let value_of = |metrics: &Metrics, name: &str| metrics.get(name).map_or("nothing".to_owned(), Value::to_string);
    let name = names.filter(|name| !is_time(name)).find(|name| recorded.get(*name) != again.get(*name))?;
    Some(format!("{name}: recorded {}, computed {}", value_of(recorded, name), value_of(again, name)))
}

/// Describes the first tensor that differs between the folders `recorded` and `again`.
pub fn tensors(recorded: &Path, again: &Path) -> Result<Option<String>> {
    let mut names = BTreeSet::new();
    for folder in [recorded, again] {
        let files = files::below(folder, &mut |_, _| Ok(true))?;
        let found = files.iter().map(|path| path.to_string_lossy().into_owned());
        names.extend(found.filter(|name| name.ends_with(".safetensors")));
    }
    for name in names {
        if !recorded.join(&name).exists() || !again.join(&name).exists() {
            let what =
                if again.join(&name).exists() { "computed but not recorded" } else { "recorded but not computed" };
            return Ok(Some(format!("{name}: {what}")));
        }
        let read = |folder: &Path| {
            let path = folder.join(&name);
            files::read(&path).map_err(Error::io(&path))
        };
        let (was, is) = (read(recorded)?, read(again)?);
        if was == is {
            continue;
        }
        let parsed = |bytes| SafeTensors::deserialize(bytes).ok();
        let what = parsed(&was).zip(parsed(&is)).and_then(|(was, is)| first_tensor(&was, &is));
        let what = what.unwrap_or_else(|| "the recorded bytes differ from the computed ones".to_owned());
        return Ok(Some(format!("{name}: {what}")));
    }
    Ok(None)
}

fn first_tensor(was: &SafeTensors, is: &SafeTensors) -> Option<String> {
    let mut names = was.names();
    names.sort();
    names.into_iter().find_map(|name| {
        let (was, is) = (was.tensor(name).ok()?, is.tensor(name).ok()?);
        let differ = |(was, is): (&TensorView, &TensorView)| was.data().iter().zip(is.data()).position(|(a, b)| a != b);
        let at = differ((&was, &is))? / (was.dtype().bitsize() / 8).max(1);
        Some(format!("{name}: element {at} differs from the computed one"))
    })
}
