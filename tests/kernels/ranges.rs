//! What a profiler is shown: the ranges of a step and of the kernels inside, as a tree.

use std::sync::Arc;

use omr::device::Device;
use omr::image::ImageInput;
use omr::model::{Keep, Model, Policy};
use omr::tensor::DType;
use omr::train::step;

use super::{emu, emulator, skipped};
use crate::engine::parity;

/// A forward pass of a text with one picture, through two blocks and two layers.
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
      attention_window_fwd_hd16
      linear_m16
      rms_norm_fwd
      linear_swiglu_m16
      linear_m16
    vision.block 1
      rms_norm_fwd
      linear_qkv_m16
      attention_window_fwd_hd16
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

/// The ranges that `work` opens, one a line, two spaces deeper inside another.
fn tree(dev: &mut Device, work: impl FnOnce(&mut Device)) -> String {
    dev.driver().unwrap().profiler(true).unwrap();
    work(dev);
    dev.driver().unwrap().profiler(false).unwrap();
    let line = |(depth, name): &(usize, String)| format!("{}{name}\n", "  ".repeat(*depth));
    emulator(dev).ranges().iter().map(line).collect()
}

/// 2 x 4 patches: two tokens.
fn picture() -> Arc<ImageInput> {
    let pixels = (0..28 * 56 * 3).map(|i| (i * 31 % 251) as u8).collect();
    Arc::new(ImageInput { grid_thw: [1, 2, 4], frames: 1, pixels })
}

#[test]
fn a_forward_pass_shows_its_parts_layers_and_kernels() {
    if skipped("which ranges were opened") {
        return;
    }
    let mut dev = emu();
    let model = Model::init(&mut dev, parity::config(), DType::Bf16, 1).unwrap();
    let (ids, pictures) = ([9, 291, 290, 290, 11, 12], [picture()]);
    let mask = [true; 6];
    let sequence = step::Sequence { input_ids: &ids, images: &pictures, prompt_len: 6, loss_mask: &mask };
    let mut pass = None;
    let found = tree(&mut dev, |dev| {
        pass = Some(step::forward(dev, &model, &[sequence], Policy::default(), Keep::All, false).unwrap());
    });
    pass.unwrap().discard(&mut dev);
    assert_eq!(found, FORWARD);
    let recorded = emulator(&mut dev).ranges().len();
    let again = step::forward(&mut dev, &model, &[sequence], Policy::default(), Keep::All, false).unwrap();
    again.discard(&mut dev);
    assert_eq!(emulator(&mut dev).ranges().len(), recorded, "recorded with the profiler off");
}
