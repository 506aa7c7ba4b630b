//! Formats the memory plan for the user.

use serde_json::{Map, Value, json};

use crate::training::levels::{Ladder, Rung};
use omr_base::observe::bytes;
use omr_model::nn::{CheckpointPolicy, ModelConfig, Stack};
use omr_runtime::device::{Plan, Region};

/// Describes which activations the training passes store, in a line for each size of micro-batches that stores others.
pub fn ladder(ladder: &Ladder, model: &ModelConfig) -> Vec<String> {
    let [below @ .., largest] = &ladder.rungs[..] else { return vec![levels(&CheckpointPolicy::default(), model)] };
    let of = |rung: &Rung| format!("micro-batches of at most {} tokens: {}", rung.tokens, levels(&rung.levels, model));
    let last = levels(&largest.levels, model);
    let last = if below.is_empty() { last } else { format!("larger ones: {last}") };
    below.iter().map(of).chain([last]).collect()
}

fn levels(levels: &CheckpointPolicy, model: &ModelConfig) -> String {
    let stack = |stack: Stack, count: usize| {
        let [inputs, middle, all] = counts(stack, count);
        let named = [(inputs, "inputs and attention"), (middle, "all except gate and up"), (all, "all")];
        let parts = named.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| match n == count {
            true => format!("all layers store {what}"),
            false => format!("{n} layers store {what}"),
        });
        parts.collect::<Vec<_>>().join(", ")
    };
    let text = stack(levels.text, model.text.layers.len());
    if model.tower_depth() == 0 {
        return format!("language model: {text}");
    }
    let vision = stack(levels.vision, model.tower_depth());
    let again = if levels.replay_tower { ", recomputed chunk by chunk" } else { "" };
    format!("language model: {text}; vision tower: {vision}{again}")
}

/// Returns the numbers of layers, in a stack of `count`, that store inputs and attention, all except gate and up, and
/// all.
pub fn counts(stack: Stack, count: usize) -> [usize; 3] {
    let inputs = stack.inputs.min(count);
    let middle = stack.all_but_gate_up.min(count - inputs);
    [inputs, middle, count - inputs - middle]
}

/// Formats the activations that the training passes store as JSON, from the smallest micro-batches to the largest.
pub fn ladder_json(ladder: &Ladder, model: &ModelConfig) -> Value {
    let rung = |Rung { tokens, levels: CheckpointPolicy { text, vision, replay_tower } }: &Rung| {
        json!({
            "tokens": tokens,
            "text": counts(*text, model.text.layers.len()),
            "vision": counts(*vision, model.tower_depth()),
            "replay_tower": replay_tower,
        })
    };
    ladder.rungs.iter().map(rung).collect()
}

/// Formats a plan's bytes as JSON, in total and per region.
pub fn json(plan: &Plan) -> Value {
    let of = |region: Region| (region.name().to_owned(), plan.bytes(region).into());
    json!({ "total": plan.total(), "regions": Region::ALL.map(of).into_iter().collect::<Map<_, Value>>() })
}

/// Returns the bytes of a checkpoint: weights and optimizer state. `adapters` is the number of weights in adapters.
pub fn checkpoint(plan: &Plan, adapters: usize) -> usize {
    saved_weights(plan, adapters) + plan.bytes(Region::State) + plan.bytes(Region::Host)
}

/// Returns the bytes of the weights in a checkpoint: those of the model, or the f32 masters of its adapters.
pub fn saved_weights(plan: &Plan, adapters: usize) -> usize {
    if adapters > 0 { 4 * adapters } else { plan.bytes(Region::Weights) }
}

/// Returns the bytes on disk of `limit` checkpoints of `checkpoint` bytes each, and one that is being written.
pub fn on_disk(checkpoint: usize, limit: usize) -> usize {
    (limit + 1).saturating_mul(checkpoint)
}

/// Describes the disk space of checkpoints of `checkpoint` bytes each. `limit` is their number, if it is known.
pub fn disk(checkpoint: usize, limit: Option<usize>) -> String {
    let Some(limit) = limit else {
        return format!("{} for each checkpoint; all are kept (save_total_limit=null)", bytes(checkpoint as u64));
    };
    let (all, one) = (bytes(on_disk(checkpoint, limit) as u64), bytes(checkpoint as u64));
    format!("{all} for {limit} checkpoints of {one} each and one being written")
}
