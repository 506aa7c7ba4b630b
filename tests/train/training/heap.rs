//! Tests that a training step after the first one allocates no memory of a tensor's size on the heap. Tensors are in
//! the regions of the device, which do not grow after the first step either.

use omr_base_tests::heap::largest_allocation;
use omr_model::nn::weights::part::Part;
use omr_model::nn::{Grads, LayerPolicy, Model, Policy};
use omr_model::optim::Optimizer;
use omr_runtime::device::Region;
use omr_runtime::ops::nll;
use omr_runtime::tensor::DType;
use omr_train::training::sft::SftJob;
use omr_train::training::step::{self, Sequence};

use super::tiny::{device, rows, sft_config};

#[test]
fn a_step_takes_no_tensor_from_the_heap() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let job = SftJob::new(dir.path(), config.clone()).unwrap();
    let samples: Vec<_> = (0..48).map(|i| job.samples.get(i % rows().len()).unwrap().unwrap()).collect();
    let batch: Vec<Sequence<'_>> = samples.iter().map(|sample| (&**sample).into()).collect();
    let tokens: usize = batch.iter().map(|s| s.input_ids.len()).sum();

    // With one thread, the ops do all their work on this thread.
    let mut dev = device(1);
    let model = Model::load(&mut dev, &dir.path().join("base"), DType::F32).unwrap();
    let mut optimizer = Optimizer::new(&mut dev, &model.layout, config.optimizer, config.seed).unwrap();
    let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
    let loss = dev.zeros(Region::Overlay, DType::F64, &[1]).unwrap();
    let mut step = || {
        grads.zero(&mut dev).unwrap();
        let forward = step::forward(&mut dev, &model, &batch, Policy::default(), LayerPolicy::All, true).unwrap();
        let dlog_prob = forward.like_log_prob(&mut dev).unwrap();
        nll::fwd(&mut dev, forward.log_prob, 1.0 / forward.log_prob.len() as f64, dlog_prob, loss).unwrap();
        forward.backward(&mut dev, &mut grads, dlog_prob, None).unwrap();
        optimizer.step(&mut dev, &model.layout, &grads, 1e-3).unwrap();
        assert!(optimizer.stats(&mut dev).unwrap().finite);
        dev.high_water()
    };
    let warm = step();
    let mut after = warm;
    let largest = largest_allocation(|| after = step());
    let activation = tokens * model.config.text.hidden_size * size_of::<f32>();
    println!("{tokens} tokens: largest allocation {largest} bytes, one activation {activation}");
    assert_eq!(warm, after, "the device's memory grew");
    assert!(largest > 0 && largest < activation, "{largest} bytes at once, an activation has {activation}");
}

#[test]
fn a_save_takes_blocks_of_rows_from_the_heap() {
    use half::bf16;
    use omr_model::nn::ParamLayout;
    use omr_model::nn::weights::outgoing::{create_files, fill_files, weights};
    use omr_runtime::device::{Device, Isa, Plan};
    use std::sync::Arc;

    let (n, k, dir) = (4096, 2048, tempfile::tempdir().unwrap());
    let mut dev = Device::cpu(&Plan::default().with(Region::Weights, 64 << 20), 1, Isa::detect()).unwrap();
    let mut layout = ParamLayout::new(DType::F32);
    layout.within(Part::Head).linear(&mut dev, "w", [n, k], [n, k], false).unwrap();
    let value = |r: usize, k: usize| (r * 31 + k * 7) as f32 / 1024.0;
    let row = |_: usize, r: usize, out: &mut [f32]| out.iter_mut().enumerate().for_each(|(k, x)| *x = value(r, k));
    layout.params[0].fill::<f32>(&mut dev, layout.params[0].tensor, row).unwrap();
    let (layout, own) =
        (Arc::new(layout.clone()), std::iter::once(0..layout.params[0].tensor.len()).collect::<Vec<_>>());
    for (dtype, size) in [(DType::F32, 4), (DType::Bf16, 2)] {
        let files = weights(&layout, dtype, &own);
        create_files(dir.path(), &files).unwrap();
        let largest = largest_allocation(|| drop(fill_files(dir.path(), files, &mut dev).unwrap()));
        println!("a tensor of {} bytes: largest allocation {largest} bytes", n * k * 4);
        assert!(largest <= 4 << 20, "{largest} bytes at once for a tensor of {} bytes", n * k * 4);
        let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
        let found = &bytes[bytes.len() - n * k * size..];
        let all = (0..n).flat_map(|r| (0..k).map(move |k| value(r, k)));
        let wanted: Vec<u8> = match dtype {
            DType::Bf16 => all.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
            _ => all.flat_map(f32::to_le_bytes).collect(),
        };
        assert!(found == wanted, "the file of {dtype:?} has other bytes");
    }
}
