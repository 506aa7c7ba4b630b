//! Tests the 7B model at its full lengths. Only the first and the last CTA of each launch run, and an integer overflow
//! is a fault. The results have no meaning, because memory contains zeros. Decode and the kernels for compute
//! capability 9.0 are not tested here: they are persistent kernels, so every CTA would have to run.

use omr_base::config::{OptimConfig, OptimizerName, RlConfig, SftConfig};
use omr_data::image::Grid;
use omr_data::rows::{Index, Shape};
use omr_model::nn::{CheckpointPolicy, Grads, LayerPolicy, Model, ModelConfig};
use omr_model::optim::Optimizer;
use omr_runtime::device::emu::{Completion, Emu, Options};
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, Kind, Plan, Region};
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::emulator;
use omr_train::rl::plan;
use omr_train::training::nll;
use omr_train::training::plan::blank;
use serde_json::Value;

/// Returns the published model with only one decoder layer, with two blocks of its tower (a windowed one and a full one),
/// and with the changes that `edit` makes. The other layers use the same launches.
pub fn model(edit: impl Fn(&mut Value)) -> ModelConfig {
    let path = omr_base_tests::root().join("configs/openmmreasoner-7b/model/config.json");
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    value["num_hidden_layers"] = 1.into();
    value["vision_config"]["depth"] = 2.into();
    value["vision_config"]["fullatt_block_indexes"] = [1].into();
    edit(&mut value);
    ModelConfig::from_json(&value, "config.json").unwrap()
}

fn device() -> Device {
    let options = Options {
        arch: Arch::Sm80,
        multiprocessors: 132,
        shadow: false,
        guarded: false,
        corners: true,
        completion: Completion::Eager,
        ..Options::default()
    };
    // Memory is touched only where a CTA reads or writes.
    Device::gpu(Box::new(Emu::new(options).unwrap()), Kind::Emu, &Plan::uniform(256 << 30)).unwrap()
}

#[test]
#[ignore = "slow: minutes"]
fn no_length_of_the_7b_overflows_its_type() {
    let mut dev = device();
    let config = model(|_| ());
    let model = Model::empty(&mut dev, config.clone(), DType::Bf16).unwrap();
    let mut optimizer = Optimizer::new(
        &mut dev,
        &model.layout,
        OptimConfig { optim: OptimizerName::Adamw8bit, ..SftConfig::default().optimizer },
        0,
    )
    .unwrap();
    let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
    let mark = dev.mark(Region::Overlay);

    // The published pack: one row of 61,440 tokens and one image of the largest size.
    let grids = [Grid::image(146, 146)];
    let row = blank(&config, Shape { tokens: 61_440, targets: 61_439, grids: &grids });
    let loss = dev.zeros(Region::Overlay, DType::F64, &[1]).unwrap();
    let levels = CheckpointPolicy::from(LayerPolicy::All);
    nll::gradients(&mut dev, &model, &mut grads, &[(&row).into()], 61_440, levels, loss).unwrap();
    dev.release(mark);

    let rl = RlConfig {
        max_prompt_length: 4096,
        max_response_length: 28_696,
        micro_batch_tokens: 33_792,
        ..RlConfig::default()
    };
    let mut index = Index::default();
    index.push(Shape { tokens: 4096, targets: 0, grids: &[Grid::image(60, 60)] });
    let batch = plan::longest_micro_batch(&rl, &config, &index);
    plan::pass(&mut dev, &model, &mut grads, &rl, levels, &batch).unwrap();
    dev.release(mark);

    (0..grads.num_params()).for_each(|id| {
        grads.touch(id);
    });
    optimizer.step(&mut dev, &model.layout, &grads, 0.0).unwrap();
    optimizer.stats(&mut dev).unwrap();
    let run = emulator(&mut dev).counters().kernels;
    assert!(run > 150, "{run} launches");
}
