//! What ranks hand each other for an update, counted.

use omr::config::OptimConfig;
use omr::device::{Device, Isa, Plan};
use omr::dist::shards::CHUNK;
use omr::dist::{Ranks, Shards};
use omr::model::params::ParamLayout;
use omr::model::tape::Grads;
use omr::optim::Optimizer;
use omr::tensor::DType;
use omr::train::lanes::Lanes;

use super::{all_well, entries};

/// A lane's gradients go to their owners, each once; of the update go, to each other rank, a sum of the norm for each chunk
/// and the weights that a rank owns.
#[test]
fn an_update_hands_over_what_the_formula_says() {
    const LANES: usize = 5;
    for size in [1, 2, 3] {
        all_well(entries(size), |tcp| {
            let mut dev = Device::cpu(&Plan::uniform(1 << 23), 1, Isa::detect())?;
            let mut layout = ParamLayout::new(DType::F32);
            layout.linear(&mut dev, "w", [700, 300], 300, true)?;
            layout.norm(&mut dev, "norm", 300)?;
            let shards = Shards::new(&layout.lens(), size);
            let config = OptimConfig::default();
            let mut optimizer = Optimizer::sharded(&mut dev, &layout, config, 1, &shards, tcp.rank())?;
            let mut lanes = Lanes::new(LANES, tcp, &shards)?;
            let mut grads = Grads::new(&mut dev, &layout)?;
            (0..grads.len()).for_each(|id| {
                grads.touch(id);
            });

            let (all, others) = (layout.lens().iter().sum::<usize>(), size - 1);
            let ranges = shards.of(tcp.rank());
            let own: usize = ranges.iter().map(|range| range.len()).sum();
            let chunks: usize = ranges.iter().map(|range| range.len().div_ceil(CHUNK)).sum();
            for round in 0..lanes.rounds() {
                let before = tcp.sent();
                lanes.add(&mut dev, tcp, &mut grads, round)?;
                let lane = if lanes.of_round(round).is_some() { 4 * (all - own) } else { 0 };
                // A byte a parameter says whether it has a gradient.
                assert_eq!(tcp.sent() - before, (lane + others * grads.len()) as u64, "{size} ranks");
            }
            let before = tcp.sent();
            optimizer.step_guarded(tcp, &mut dev, &layout, &grads, 1e-3, None)?;
            assert_eq!(tcp.sent() - before, (others * (8 * chunks + 4 * own)) as u64, "{size} ranks");
            Ok(())
        });
    }
}
