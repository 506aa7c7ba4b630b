//! Tests of the ranges that a profiler shows: the tree of a step's ranges and of its kernels.

use std::sync::Arc;

use omr_base::config::SftConfig;
use omr_data::image::ImageInput;
use omr_model::nn::{Grads, LayerPolicy, Model, Policy};
use omr_model::optim::Optimizer;
use omr_runtime::device::Device;
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::{emu, emulator, skipped};
use omr_train::training::step;

use crate::engine::parity;

/// Ranges of a forward pass of a text with one image, through two blocks and two layers.
const FORWARD: &str = "\
data
forward
  embedding_fwd
  vision
    patch_rows
    linear_m16
    rows_gather
    vision.block 0
      rms_norm_fwd
      linear_qkv_m16
      attention_fwd_hd16
      linear_m16
      rms_norm_fwd
      linear_swiglu_m16
      linear_m16
    vision.block 1
      rms_norm_fwd
      linear_qkv_m16
      attention_fwd_hd16
      linear_m16
      rms_norm_fwd
      linear_swiglu_m16
      linear_m16
    rms_norm_fwd
    linear_gelu_m16
    linear_m16
    rows_gather
  rows_scatter
  text.layer 0
    rms_norm_fwd
    linear_qkv_m16
    attention_fwd_hd16
    linear_m16
    rms_norm_fwd
    linear_swiglu_m16
    linear_m16
  text.layer 1
    rms_norm_fwd
    linear_qkv_m16
    attention_fwd_hd16
    linear_m16
    rms_norm_fwd
    linear_swiglu_m16
    linear_m16
  rms_norm_fwd
loss
  rows_gather
  linear_logprob_m16
  linear_logprob_fold
";

/// Returns the ranges that `work` opens, one per line, indented by two spaces per level. Repeated lines are counted.
fn tree(dev: &mut Device, work: impl FnOnce(&mut Device)) -> String {
    dev.driver().unwrap().profiler(true).unwrap();
    work(dev);
    dev.driver().unwrap().profiler(false).unwrap();
    let mut lines: Vec<(String, usize)> = Vec::new();
    for (depth, name) in emulator(dev).ranges() {
        let line = "  ".repeat(*depth) + name;
        match lines.last_mut() {
            Some((last, count)) if *last == line => *count += 1,
            _ => lines.push((line, 1)),
        }
    }
    let counted = |(line, count): &(String, usize)| match count {
        1 => format!("{line}\n"),
        count => format!("{line} x {count}\n"),
    };
    lines.iter().map(counted).collect()
}

/// Ranges of the rest of the step: backward and update.
const BACKWARD: &str = "\
backward
  linear_logprob_dz_m16
  linear_wgrad_m64
  linear_dgrad_chain_m16
  rows_scatter_add
  rms_norm_bwd
  rms_norm_dgamma
  rms_norm_dgamma_sum
  text.layer 1
    linear_dgrad_m16
    lane_sum
    linear_wgrad_m64
    swiglu_bwd
    linear_dgrad_m16
    linear_wgrad_m64
    rms_norm_bwd
    rms_norm_dgamma
    rms_norm_dgamma_sum
    linear_dgrad_m16
    linear_wgrad_m64
    attention_bwd_dq_hd16
    attention_bwd_dkv_hd16
    rope_pairs
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    rms_norm_bwd
    rms_norm_dgamma
    rms_norm_dgamma_sum
  text.layer 0
    linear_dgrad_m16
    lane_sum
    linear_wgrad_m64
    swiglu_bwd
    linear_dgrad_m16
    linear_wgrad_m64
    rms_norm_bwd
    rms_norm_dgamma
    rms_norm_dgamma_sum
    linear_dgrad_m16
    linear_wgrad_m64
    attention_bwd_dq_hd16
    attention_bwd_dkv_hd16
    rope_pairs
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    rms_norm_bwd
    rms_norm_dgamma
    rms_norm_dgamma_sum
  rows_gather
  rows_scatter
  rows_scatter_add
  linear_dgrad_m16
  lane_sum
  linear_wgrad_m64
  linear_dbias
  gelu_bwd
  linear_dgrad_m16
  linear_wgrad_m64
  linear_dbias
  rms_norm_bwd
  rms_norm_dgamma
  rms_norm_dgamma_sum
  vision.block 1
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    swiglu_bwd
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    rms_norm_bwd
    rms_norm_dgamma
    rms_norm_dgamma_sum
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    attention_bwd_dq_hd16
    attention_bwd_dkv_hd16
    rope_vectors
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    rms_norm_bwd
    rms_norm_dgamma
    rms_norm_dgamma_sum
  vision.block 0
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    swiglu_bwd
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    rms_norm_bwd
    rms_norm_dgamma
    rms_norm_dgamma_sum
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    attention_bwd_dq_hd16
    attention_bwd_dkv_hd16
    rope_vectors
    linear_dgrad_m16
    linear_wgrad_m64
    linear_dbias
    rms_norm_bwd
    rms_norm_dgamma
    rms_norm_dgamma_sum
  rows_scatter_add
  patch_rows
  linear_wgrad_m64
  lane_sum
  embedding_bwd
  lane_sum
optimizer
  grad_norm_squares x 43
  grad_norm_finish
  adamw_f32 x 43
";

/// Returns an image of 2 x 4 patches, which is two tokens.
fn image() -> Arc<ImageInput> {
    let pixels = (0..28 * 56 * 3).map(|i| (i * 31 % 251) as u8).collect();
    Arc::new(ImageInput::image([2, 4], pixels))
}

#[test]
fn a_forward_pass_shows_its_parts_layers_and_kernels() {
    if skipped("which ranges were opened") {
        return;
    }
    let mut dev = emu();
    let model = Model::init(&mut dev, parity::config(), DType::Bf16, 1).unwrap();
    let (ids, images) = ([9, 291, 290, 290, 11, 12], [image()]);
    let mask = [true; 6];
    let sequence =
        step::Sequence { input_ids: &ids, images: &images, prompt_len: 6, loss_mask: &mask, same_prompt: false };
    let mut pass = None;
    let found = tree(&mut dev, |dev| {
        pass = Some(step::forward(dev, &model, &[sequence], Policy::default(), LayerPolicy::All, false).unwrap());
    });
    pass.unwrap().discard(&mut dev);
    assert_eq!(found, FORWARD);
    let recorded = emulator(&mut dev).ranges().len();
    let again = step::forward(&mut dev, &model, &[sequence], Policy::default(), LayerPolicy::All, false).unwrap();
    again.discard(&mut dev);
    assert_eq!(emulator(&mut dev).ranges().len(), recorded, "recorded with the profiler off");
}

#[test]
fn a_training_step_shows_its_way_back_and_the_update() {
    if skipped("which ranges were opened") {
        return;
    }
    let mut dev = emu();
    let model = Model::init(&mut dev, parity::config(), DType::Bf16, 1).unwrap();
    let (ids, images) = ([9, 291, 290, 290, 11, 12], [image()]);
    let mask = [true; 6];
    let sequence =
        step::Sequence { input_ids: &ids, images: &images, prompt_len: 6, loss_mask: &mask, same_prompt: false };
    let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
    let mut optimizer = Optimizer::new(&mut dev, &model.layout, SftConfig::default().optimizer, 1).unwrap();
    let found = tree(&mut dev, |dev| {
        let pass = step::forward(dev, &model, &[sequence], Policy::default(), LayerPolicy::All, false).unwrap();
        let dlog_prob = pass.upload(dev, &vec![-0.2f32; pass.log_prob.len()]).unwrap();
        pass.backward(dev, &mut grads, dlog_prob, None).unwrap();
        optimizer.step(dev, &model.layout, &grads, 1e-4).unwrap();
    });
    let (forward, back) = found.split_at(found.find("backward").unwrap());
    assert_eq!(forward, FORWARD);
    assert_eq!(back, BACKWARD);
}
