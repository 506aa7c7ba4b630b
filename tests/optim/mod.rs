//! The optimizer's state divided over ranks: the same bits as with one.

use half::bf16;
use omr::config::{OptimConfig, OptimizerName};
use omr::device::{Device, Isa, Plan, Region};
use omr::dist::{Ranks, Shards};
use omr::model::params::ParamLayout;
use omr::model::tape::Grads;
use omr::optim::Optimizer;
use omr::tensor::DType;

use crate::ranks::over;

/// Parameters of several chunks of 65,536 elements, of one, and of a few elements.
fn layout(dev: &mut Device, dtype: DType) -> ParamLayout {
    let mut layout = ParamLayout::new(dtype);
    layout.linear(dev, "model.embed_tokens", [500, 200], 200, false).unwrap();
    layout.gate_up(dev, "mlp", 200, 390, true).unwrap();
    layout.norm(dev, "norm", 5).unwrap();
    layout.linear(dev, "lm_head", [300, 700], 690, false).unwrap();
    layout
}

/// Gradients of some of the parameters; those that `own` does not cover are another's, and wrong here.
fn gradients(dev: &mut Device, layout: &ParamLayout, shards: &Shards, rank: usize, step: usize) -> Grads {
    let mut grads = Grads::new(dev, layout).unwrap();
    for (id, param) in layout.params.iter().enumerate().filter(|(id, _)| !(id + step).is_multiple_of(3)) {
        let grad = grads.touch(id);
        let value = |i: usize| ((i * 37 + i / 1000 + 11 * step + id) % 101) as f32 * 1e-3 - 0.05;
        let own = &shards.of(rank)[id];
        let values: Vec<f32> =
            (0..param.tensor.len()).map(|i| if own.contains(&i) { value(i) } else { f32::NAN }).collect();
        dev.write(grad, &values).unwrap();
    }
    grads
}

/// What three updates, and one that a loss forbids, leave at one rank: weights, norm and factor, bytes of its state.
fn trained(ranks: &mut dyn Ranks, mut dev: Device, dtype: DType, config: OptimConfig) -> (Vec<u8>, Vec<u32>, usize) {
    let layout = layout(&mut dev, dtype);
    let start = |piece: usize, r: usize, out: &mut [f32]| {
        out.iter_mut().enumerate().for_each(|(k, x)| *x = ((piece + 7 * r + 3 * k) % 19) as f32 * 0.01 - 0.09);
    };
    for param in &layout.params {
        match dtype {
            DType::Bf16 => param.fill::<bf16>(&mut dev, param.tensor, start).unwrap(),
            _ => param.fill::<f32>(&mut dev, param.tensor, start).unwrap(),
        }
    }
    let (rank, shards) = (ranks.rank(), Shards::new(&layout.lens(), ranks.size()));
    let mut optimizer = Optimizer::sharded(&mut dev, &layout, config, 5, &shards, rank).unwrap();
    let mut stats = Vec::new();
    for step in 1..=4 {
        let mark = dev.mark(Region::Overlay);
        let grads = gradients(&mut dev, &layout, &shards, rank, step);
        let losses = dev.upload(Region::Overlay, &[1.0, if step == 4 { f64::NAN } else { 2.0 }], &[2]).unwrap();
        optimizer.step_guarded(ranks, &mut dev, &layout, &grads, 1e-2, Some(losses)).unwrap();
        dev.release(mark);
        let seen = optimizer.stats(&mut dev).unwrap();
        assert_eq!(seen.finite, step != 4);
        stats.extend([seen.grad_norm.to_bits(), seen.clip.to_bits()]);
    }
    let weights = layout.params.iter().flat_map(|param| dev.read_bytes(param.tensor).unwrap()).collect();
    (weights, stats, optimizer.bytes())
}

fn config(optim: OptimizerName, bf16_stochastic_round: bool) -> OptimConfig {
    OptimConfig { optim, bf16_stochastic_round, weight_decay: 0.1, adam_beta2: 0.95, ..OptimConfig::default() }
}

fn alike(sizes: &[usize], dtype: DType, config: OptimConfig, dev: impl Fn() -> Device + Sync) {
    let (weights, stats, bytes) = over(1, |ranks| trained(ranks, dev(), dtype, config)).swap_remove(0);
    for &size in sizes {
        let found = over(size, |ranks| trained(ranks, dev(), dtype, config));
        for (rank, of) in found.iter().enumerate() {
            assert!(of.0 == weights, "weights of rank {rank} of {size}, {dtype:?} {config:?}");
            assert_eq!(of.1, stats, "norm and factor of rank {rank} of {size}");
        }
        assert_eq!(found.iter().map(|of| of.2).sum::<usize>(), bytes, "the state is divided, not copied");
    }
}

#[test]
fn ranks_that_own_ranges_update_as_one_does() {
    let dev = || Device::cpu(&Plan::uniform(1 << 24), 1, Isa::detect()).unwrap();
    for optim in [OptimizerName::AdamwTorch, OptimizerName::AdamwBf16, OptimizerName::Adamw8bit] {
        alike(&[2, 3, 4], DType::F32, config(optim, false), dev);
        alike(&[2, 3, 4], DType::Bf16, config(optim, false), dev);
        alike(&[2, 3, 4], DType::Bf16, config(optim, true), dev);
    }
}

#[test]
fn kernels_on_ranges_update_as_on_the_whole() {
    alike(&[3], DType::Bf16, config(OptimizerName::Adamw8bit, true), crate::kernels::emu);
}
