//! Tests the exchange of gradients on one device: that backward and exchange wait for each other, and that a run with a
//! single NCCL rank is bitwise identical to a run without ranks. On a GPU it uses NVIDIA's
//! library, which then sends the test data to itself. On the emulator it uses the replacement library.

use half::bf16;
use omr_base::config::OptimConfig;
use omr_base::error::Result;
use omr_model::nn::weights::layout::ParamLayout;
use omr_model::nn::weights::part::Part;
use omr_model::nn::{GradientSink, Grads};
use omr_model::optim::Optimizer;
use omr_runtime::device::cuda::Cuda;
use omr_runtime::device::emu::{Emu, Options};
use omr_runtime::device::nccl::Library;
use omr_runtime::device::{Device, Driver, Kind};
use omr_runtime::ops::gradient::{Gradient, Holds};
use omr_runtime::ranks::shards::CHUNK;
use omr_runtime::ranks::{Nccl, OneRank, Ranks, Shards};
use omr_runtime::tensor::{DType, Tensor};
use omr_runtime_tests::kernels::{self, Outcome, equal, mutate_sites_on};
use omr_runtime_tests::ranks::nccl::StandIn;
use omr_runtime_tests::ranks::{entries, start};
use omr_train::training::exchange::{Collector, Exchange, ExchangeMode, Reach};

/// Returns the weights after two updates of three micro-batches.
fn updated(ranks: &mut dyn Ranks) -> Result<Vec<bf16>> {
    let mut dev = kernels::emu();
    let mut layout = ParamLayout::new(DType::Bf16);
    layout.within(Part::Head).linear(&mut dev, "w", [300, 250], [300, 250], true)?;
    layout.within(Part::Head).norm(&mut dev, "norm", 250)?;
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
                let Gradient { tensor, holds } = collector.param(&mut dev, id)?.unwrap();
                let (tensor, mut values) = (tensor.reshape(&[*len]), values(*len, 10 + update * 9 + round * 3 + id));
                if holds == Holds::Sum {
                    values.iter_mut().zip(dev.read::<f32>(tensor)?).for_each(|(value, sum)| *value += sum);
                }
                dev.write(tensor, &values)?;
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

/// Rank 0 of two. The other rank has the same gradients, which arrive on the stream that ops run on.
struct Twins;

impl Ranks for Twins {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        2
    }

    fn name(&self, rank: usize) -> String {
        format!("rank {rank}")
    }

    fn gather(&mut self, _: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes.to_vec(); 2])
    }

    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.gather(what, bytes)
    }

    fn exchange(
        &mut self,
        dev: &mut Device,
        _: &'static str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> Result<()> {
        recv.iter().flat_map(|to| send[0].iter().zip(to)).try_for_each(|(from, to)| dev.copy(*from, *to))
    }

    fn all_gather(&mut self, _: &mut Device, _: &'static str, _: &[(usize, Tensor)]) -> Result<()> {
        Ok(())
    }
}

/// Computes two rounds of the gradients of some layers. Each bucket is exchanged while the next one is computed.
fn exchanged_beside_backward(dev: &mut Device) -> Outcome {
    exchanged(dev, 300, |exchange| exchange)
}

/// Does the same for layers of `rows` rows in the exchange that `mode` returns.
fn exchanged(dev: &mut Device, rows: usize, mode: impl Fn(Exchange) -> Exchange) -> Outcome {
    const LAYERS: usize = 5;
    let mut layout = ParamLayout::new(DType::Bf16);
    for layer in 0..LAYERS {
        let (name, size) = (format!("model.layers.{layer}.w"), [rows, 250]);
        layout.within(Part::Layer(layer)).linear(dev, &name, size, size, true)?;
    }
    let shards = Shards::new(&layout.shares(), 2);
    let exchange = mode(Exchange::new(&layout, 0, 2));
    let mut grads = exchange.new_grads(dev, &layout, shards.of(0))?;
    let value = |id: usize, round: usize, at: usize| ((at * 37 + id * 101 + round * 7) % 1009) as f32;
    for round in 0..2 {
        let reaches = [Reach { targets: true, images: false }; 2];
        let mut ranks = Twins;
        let mut collector = Collector::new(&exchange, &mut ranks, &mut grads, &reaches);
        for id in (0..layout.params.len()).rev() {
            let grad = collector.param(dev, id)?.unwrap().tensor;
            let values: Vec<f32> = (0..grad.len()).map(|at| value(id, round, at)).collect();
            dev.write(grad.reshape(&[grad.len()]), &values)?;
        }
        collector.finish(dev)?;
    }
    for (id, own) in shards.of(0).iter().enumerate() {
        let expected: Vec<f32> = own.clone().map(|at| 2.0 * (value(id, 0, at) + value(id, 1, at))).collect();
        equal(&format!("sum {id}"), &dev.read::<f32>(grads.get(id).unwrap())?, &expected)?;
    }
    Ok(())
}

#[test]
fn neither_windows_nor_overlap_change_a_sum() {
    for overlap in [true, false] {
        for whole_layers in [true, false] {
            // A rank owns two chunks of each layer, so there are two windows of one chunk.
            let mode = ExchangeMode { whole_layers, overlap };
            exchanged(&mut kernels::emu(), 900, |all| all.in_windows_of(CHUNK).with(mode)).unwrap();
        }
    }
}

#[test]
fn every_wait_between_backward_and_the_exchange_is_needed() {
    mutate_sites_on(kernels::emu_with, &["src/runtime/device/side_stream.rs"], 6, exchanged_beside_backward);
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
    println!("NCCL took {} bytes", ranks.taken);
    assert!(updated(&mut ranks).unwrap() == alone);
    ranks.leave(Ok(())).unwrap();
    if let Some(stand_in) = stand_in {
        let tried = ["send 256 to 0 on 0x1", "recv 256 from 0 on 0x1", "group of 2"];
        let expected =
            [&["init 0 of 1, layout 22200, at most 8 CTAs in clusters of 1"], &tried[..], &["finalize", "destroy"]]
                .concat();
        assert_eq!(stand_in.log(0), expected);
    }
}
