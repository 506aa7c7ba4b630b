//! The memory plan, for people and for the device.

use super::progress::bytes;
use crate::device::{Plan, Region};
use crate::model::{Levels, ModelConfig, Stack};

/// `memory 1.2 GiB (weights 0.3 GiB, ...)`.
pub fn line(plan: &Plan) -> String {
    let part = |region: Region| format!("{} {}", region.name(), bytes(plan.bytes(region) as u64));
    let parts: Vec<String> = Region::ALL.map(part).to_vec();
    format!("memory {} ({})", bytes(plan.total() as u64), parts.join(", "))
}

/// What training passes keep, in words.
pub fn levels(levels: &Levels, model: &ModelConfig) -> String {
    let stack = |stack: Stack, count: usize| {
        let inputs = stack.inputs.min(count);
        let middle = stack.all_but_gate_up.min(count - inputs);
        match [inputs, middle, count - inputs - middle] {
            [0, 0, _] => "all".to_owned(),
            [inputs, 0, 0] if inputs == count => "inputs and attention".to_owned(),
            [0, middle, 0] if middle == count => "all but gate and up".to_owned(),
            [inputs, middle, all] => {
                format!("inputs and attention of {inputs}, all but gate and up of {middle}, all of {all}")
            }
        }
    };
    let text = stack(levels.text, model.num_hidden_layers);
    let vision = stack(levels.vision, model.vision_config.depth);
    let tower = if levels.replay_tower { "pixels; replayed in chunks of images, then " } else { "" };
    format!("text layers: {text}; vision blocks: {tower}{vision}")
}

/// Room for responses that make other batches than the largest ones counted. On the CPU, the emulated GPU's included, a
/// region is mapped and touched only as it is used, so the slack costs nothing.
pub fn with_slack(plan: &Plan) -> Plan {
    Region::ALL.iter().fold(*plan, |plan, &region| plan.with(region, plan.bytes(region) * 2 + (64 << 20)))
}
