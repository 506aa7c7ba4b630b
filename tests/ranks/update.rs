//! Counts the bytes that ranks exchange for an update.

use omr::config::OptimConfig;
use omr::device::{Device, Isa, Plan, Target};
use omr::error::Result;
use omr::model::params::ParamLayout;
use omr::model::tape::Grads;
use omr::optim::Optimizer;
use omr::ranks::shards::CHUNK;
use omr::ranks::{OneRank, Ranks, Shards};
use omr::tensor::DType;
use omr::train::lanes::Lanes;

use super::{all_well, entries};

/// Runs an update and checks the bytes sent. Each gradient of a lane is sent to its owner once. For the update, a rank
/// sends to each other rank one sum of squares per chunk and the weights that the sending rank owns. If a rank has
/// several lanes, its own part of the sum goes to the host and back between the rounds.
fn hands_over(dev: &mut Device, ranks: &mut dyn Ranks) -> Result<u64> {
    const LANES: usize = 5;
    let size = ranks.size();
    let mut layout = ParamLayout::new(DType::F32);
    layout.linear(dev, "w", [700, 300], 300, true)?;
    layout.norm(dev, "norm", 300)?;
    let shards = Shards::new(&layout.lens(), size);
    let mut optimizer = Optimizer::sharded(dev, &layout, OptimConfig::default(), 1, &shards, ranks.rank())?;
    let mut lanes = Lanes::new(LANES, ranks, &shards)?;
    let mut grads = Grads::new(dev, &layout)?;
    (0..grads.num_params()).for_each(|id| {
        grads.touch(id);
    });

    let (all, others) = (layout.lens().iter().sum::<usize>(), size - 1);
    let ranges = shards.of(ranks.rank());
    let own: usize = ranges.iter().map(|range| range.len()).sum();
    let chunks: usize = ranges.iter().map(|range| range.len().div_ceil(CHUNK)).sum();
    for round in 0..lanes.rounds() {
        let before = ranks.sent();
        lanes.add(dev, ranks, &mut grads, round)?;
        let lane = if lanes.of_round(round).is_some() { 4 * (all - own) } else { 0 };
        // One byte per parameter: true if it has a gradient.
        assert_eq!(ranks.sent() - before, (lane + others * grads.num_params()) as u64, "{size} ranks");
    }
    assert_eq!((lanes.host_bytes(), lanes.moved()), (4 * own, (2 * (lanes.rounds() - 1) * 4 * own) as u64));
    let before = ranks.sent();
    optimizer.step_guarded(ranks, dev, &layout, &grads, 1e-3, None)?;
    assert_eq!(ranks.sent() - before, (others * (8 * chunks + 4 * own)) as u64, "{size} ranks");
    Ok(ranks.sent())
}

#[test]
fn an_update_hands_over_what_the_formula_says() {
    for size in [1, 2, 3] {
        let sent = all_well(entries(size), |tcp| {
            let mut dev = Device::cpu(&Plan::uniform(1 << 23), 1, Isa::detect())?;
            hands_over(&mut dev, tcp)
        });
        // A plan counts the same bytes, and every byte that one rank sends is received by another.
        let counted = |rank| {
            let mut alone = OneRank::new(rank, size);
            hands_over(&mut Device::count_for(Target::cpu(1)), &mut alone).unwrap();
            alone.handed()
        };
        let counted: Vec<_> = (0..size).map(counted).collect();
        assert_eq!(counted.iter().map(|of| of.sent).collect::<Vec<_>>(), sent);
        let received: u64 = counted.iter().map(|of| of.received).sum();
        assert_eq!(received, sent.iter().sum::<u64>());
    }
}
