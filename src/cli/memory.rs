//! The memory plan, for people and for the device.

use crate::device::{Plan, Region};
use crate::model::{Levels, ModelConfig, Stack};
use crate::observe::bytes;

/// What training passes keep, in words.
pub fn levels(levels: &Levels, model: &ModelConfig) -> String {
    let stack = |stack: Stack, count: usize| {
        let [inputs, middle, all] = counts(stack, count);
        let named = [(inputs, "inputs and attention"), (middle, "all but gate and up"), (all, "all")];
        let parts = named.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| match n == count {
            true => format!("all keep {what}"),
            false => format!("{n} keep {what}"),
        });
        parts.collect::<Vec<_>>().join(", ")
    };
    let text = stack(levels.text, model.num_hidden_layers);
    let vision = stack(levels.vision, model.vision_config.depth);
    let again = if levels.replay_tower { ", run again chunk by chunk" } else { "" };
    format!("text layers: {text}; the tower's blocks: {vision}{again}")
}

/// Layers of a stack of `count` that keep inputs and attention, all but gate and up, all.
pub fn counts(stack: Stack, count: usize) -> [usize; 3] {
    let inputs = stack.inputs.min(count);
    let middle = stack.all_but_gate_up.min(count - inputs);
    [inputs, middle, count - inputs - middle]
}

/// Bytes of a checkpoint: weights and optimizer state.
pub fn checkpoint(plan: &Plan) -> usize {
    plan.bytes(Region::Weights) + plan.bytes(Region::State)
}

/// What checkpoints take on disk.
pub fn disk(plan: &Plan, limit: usize) -> String {
    let one = checkpoint(plan) as u64;
    format!("{} for {limit} checkpoints of {} and one being written", bytes(one * (limit as u64 + 1)), bytes(one))
}
