//! Counts the bytes that ranks exchange for an update.

use omr_base::config::OptimConfig;
use omr_base::error::Result;
use omr_model::nn::GradientSink;
use omr_model::nn::weights::layout::ParamLayout;
use omr_model::nn::weights::part::Part;
use omr_model::optim::Optimizer;
use omr_runtime::device::{Device, Isa, Plan, Target};
use omr_runtime::ranks::shards::CHUNK;
use omr_runtime::ranks::{OneRank, Ranks, Shards};
use omr_runtime::tensor::DType;
use omr_runtime_tests::ranks::{all_well, entries};
use omr_train::training::exchange::{Collector, Exchange, Reach};

/// Number of micro-batches of the update.
const MICRO_BATCHES: usize = 5;

/// Runs an update and checks the bytes sent. Each gradient of a micro-batch is sent to its owner once. For the update, a
/// rank sends to each other rank one sum of squares per chunk and the weights that the sending rank owns.
fn hands_over(dev: &mut Device, ranks: &mut dyn Ranks) -> Result<u64> {
    let (rank, size) = (ranks.rank(), ranks.size());
    let mut layout = ParamLayout::new(DType::F32);
    layout.within(Part::Layer(0)).linear(dev, "model.layers.0.w", [700, 300], [700, 300], true)?;
    layout.within(Part::Layer(1)).linear(dev, "model.layers.1.w", [700, 300], [700, 300], true)?;
    layout.within(Part::Head).norm(dev, "norm", 300)?;
    let shards = Shards::new(&layout.shares(), size);
    let mut optimizer = Optimizer::sharded(dev, &layout, OptimConfig::default(), 1, &shards, rank)?;
    let exchange = Exchange::new(&layout, rank, size);
    let mut grads = exchange.new_grads(dev, &layout, optimizer.own())?;

    let (all, others) = (layout.lens().iter().sum::<usize>(), size - 1);
    let own: usize = optimizer.own().iter().map(|range| range.len()).sum();
    let chunks: usize = optimizer.own().iter().map(|range| range.len().div_ceil(CHUNK)).sum();
    let reaches = [Reach { targets: true, images: false }; MICRO_BATCHES];
    for reaches in reaches.chunks(size) {
        let before = ranks.sent();
        let mut collector = Collector::new(&exchange, ranks, &mut grads, reaches);
        if rank < reaches.len() {
            for id in (0..layout.params.len()).rev() {
                collector.param(dev, id)?.unwrap().zeroed(dev)?;
            }
        }
        collector.finish(dev)?;
        let sent = if rank < reaches.len() { 4 * (all - own) } else { 0 };
        assert_eq!(ranks.sent() - before, sent as u64, "{size} ranks");
    }
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
