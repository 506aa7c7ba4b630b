//! Tests that a run with a single NCCL rank is bitwise identical to a run without ranks. On a GPU it uses NVIDIA's
//! library, which then sends the test data to itself. On the emulator it uses the replacement library.

use half::bf16;
use omr::config::OptimConfig;
use omr::device::cuda::Cuda;
use omr::device::emu::{Emu, Options};
use omr::device::nccl::Library;
use omr::device::{Driver, Kind};
use omr::error::Result;
use omr::model::params::ParamLayout;
use omr::model::{GradientSink, Grads};
use omr::optim::Optimizer;
use omr::ranks::{Nccl, OneRank, Ranks, Shards};
use omr::tensor::DType;
use omr::train::exchange::{Collector, Exchange, Reach};

use super::nccl::StandIn;
use super::{entries, start};
use crate::kernels;

/// Returns the weights after two updates of three micro-batches.
fn updated(ranks: &mut dyn Ranks) -> Result<Vec<bf16>> {
    let mut dev = kernels::emu();
    let mut layout = ParamLayout::new(DType::Bf16);
    layout.linear(&mut dev, "w", [300, 250], 250, true)?;
    layout.norm(&mut dev, "norm", 250)?;
    let values = |n: usize, seed: usize| -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + seed * 101) % 1009) as f32 / 504.0 - 1.0).collect()
    };
    let lens = layout.lens();
    let weights = |n: usize, id: usize| values(n, id).into_iter().map(bf16::from_f32).collect::<Vec<_>>();
    for (id, len) in lens.iter().enumerate() {
        dev.write(layout.params[id].tensor.reshape(&[*len]), &weights(*len, id))?;
    }
    let shards = Shards::new(&layout.shares(), 1);
    let mut optimizer = Optimizer::sharded(&mut dev, &layout, OptimConfig::default(), 1, &shards, 0)?;
    let exchange = Exchange::new(&layout, 0, 1);
    let reaches = [Reach { targets: true, images: false }];
    for update in 0..2 {
        let mut grads = Grads::new(&mut dev, &layout)?;
        for round in 0..3 {
            let mut collector = Collector::new(&exchange, ranks, &mut grads, &reaches);
            for (id, len) in lens.iter().enumerate() {
                let grad = collector.param(&mut dev, id)?.unwrap();
                dev.write(grad.reshape(&[*len]), &values(*len, 10 + update * 9 + round * 3 + id))?;
            }
            collector.finish(&mut dev)?;
        }
        optimizer.step_guarded(ranks, &mut dev, &layout, &grads, 1e-2, None)?;
    }
    let mut all = Vec::new();
    for (id, len) in lens.iter().enumerate() {
        let updated = dev.read::<bf16>(layout.params[id].tensor.reshape(&[*len]))?;
        assert!(updated.iter().all(|w| w.is_finite()) && updated != weights(*len, id));
        all.extend(updated);
    }
    Ok(all)
}

#[test]
fn one_rank_by_nccl_is_no_ranks() {
    // A machine with a GPU may have no C compiler.
    let stand_in = (kernels::kind() == Kind::Emu).then(|| StandIn::new(""));
    if let (None, Err(error)) = (&stand_in, Library::find()) {
        println!("skipped on a GPU: one rank by NCCL: {error}");
        return;
    }
    let open = || -> Result<(&'static Library, Box<dyn Driver>)> {
        match &stand_in {
            None => Ok((Library::find()?, Box::new(Cuda::open(0, &[])?))),
            Some(stand_in) => {
                Ok((Library::open(&[&stand_in.path()], "the stand-in")?, Box::new(Emu::new(Options::default())?)))
            }
        }
    };
    let mut none = OneRank::ALONE;
    let alone = updated(&mut none).unwrap();
    let mut ranks = Nccl::start(start(&mut entries(1).remove(0)).unwrap(), open).unwrap();
    println!("NCCL took {} bytes", ranks.taken());
    assert!(updated(&mut ranks).unwrap() == alone);
    ranks.leave(Ok(())).unwrap();
    if let Some(stand_in) = stand_in {
        let tried = ["send 256 to 0 on 0x1", "recv 256 from 0 on 0x1", "group of 2"];
        let expected = [&["init 0 of 1, layout 22200"], &tried[..], &["finalize", "destroy"]].concat();
        assert_eq!(stand_in.log(0), expected);
    }
}
