//! Lists the kernel launches of a run on a Hopper GPU with a recording driver, without a GPU, and predicts the time of
//! each launch.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;

use super::assumptions::GpuOptions;
use super::attention::{self, Pages};
use super::gpus::Ceilings;
use super::layout::Weights;
use super::pass::Pass;
use crate::training::exchange::{Collector, Exchange};
use crate::training::plan::all_reach;
use omr_base::error::Result;
use omr_base::files::Output;
use omr_model::engine::{Engine, EngineConfig, EngineCoreRequest, Prompt, RequestParams};
use omr_model::nn::{CheckpointPolicy, Model, ModelConfig};
use omr_model::optim::{Optimizer, frozen};
use omr_runtime::device::images::OWN;
use omr_runtime::device::perf_model::{Clocks, KernelCosts, Predicted, Range, Share};
use omr_runtime::device::recording_driver::{Entry, RecordingDriver};
use omr_runtime::device::{Device, KernelVariant, Kind, Launch, Plan, Region, Work};
use omr_runtime::ops::attend::BLOCK;
use omr_runtime::ranks::{OneRank, Ranks, Shards};
use omr_runtime::tensor::DType;

/// Numbers of decoding sequences in a list.
pub const BATCHES: [usize; 5] = [1, 16, 64, 256, 512];
/// Number of keys per sequence while decoding.
pub const CONTEXT: usize = 1536;

/// A list of launches with one JSON line each. A phase begins with `{"phase"}`. Each launch is `{"kernel", "grid",
/// "block", "smem", "range"}` with its part of the op's work and its prediction. Each op is `{"op", "flops", "bytes"}`
/// with its cost.
pub struct Launches {
    ceilings: Ceilings,
    clocks: Clocks,
    lines: String,
    /// True to predict t of adapters as if each sum were a single chain, for comparison.
    one_chain: bool,
}

/// Calls `fill` to list and predict launches on a GPU with predictions, and writes the list to a file if requested. Returns an
/// empty list for other GPUs.
pub fn predicted(
    gpu_options: &GpuOptions,
    fill: impl FnOnce(&mut Launches) -> Result<Vec<Range>>,
) -> Result<Vec<Range>> {
    if !gpu_options.gpu.has_predictions() {
        return Ok(Vec::new());
    }
    let mut launches = Launches::new(gpu_options.gpu.ceilings(), 1e6 * gpu_options.clock);
    let seconds = fill(&mut launches)?;
    if let Some(path) = &gpu_options.launches {
        Output::open(path, gpu_options.overwrite, &[])?.write(launches.lines.as_bytes())?;
    }
    Ok(seconds)
}

impl Launches {
    /// Makes an empty list for a Hopper GPU `ceilings` with the clock `hz` under load.
    pub fn new(ceilings: Ceilings, hz: f64) -> Launches {
        Launches { ceilings, clocks: Clocks { hz, memory: ceilings.bytes }, lines: String::new(), one_chain: false }
    }

    /// Adds a training pass with the activation checkpointing policy `levels`, and the optimizer's update of the rank's
    /// shard. Returns the predicted seconds of both.
    pub fn training(
        &mut self,
        model: &ModelConfig,
        weights: Weights,
        mut ranks: OneRank,
        pass: &Pass,
        levels: CheckpointPolicy,
    ) -> Result<[Range; 2]> {
        let mut dev = self.device(KernelVariant::Wgmma)?;
        let dtype = DType::of(weights.dtype, Kind::Cuda);
        let model = frozen(&mut dev, model.clone(), dtype, &weights.optimizer)?;
        let shards = Shards::new(&model.layout.shares(), ranks.size());
        let mut optimizer = Optimizer::sharded(&mut dev, &model.layout, weights.optimizer, 0, &shards, ranks.rank())?;
        let (exchange, reaches) = (Exchange::new(&model.layout, ranks.rank(), ranks.size()), all_reach(ranks.size()));
        let mut grads = exchange.new_grads(&mut dev, &model.layout, optimizer.own())?;
        take(&mut dev);
        pass.run(&mut dev, &model, &mut Collector::new(&exchange, &mut ranks, &mut grads, &reaches), levels)?;
        let pass = self.phase(json!({"phase": "pass", "tokens": pass.tokens()}), take(&mut dev), Pages::default());
        optimizer.step_guarded(&mut ranks, &mut dev, &model.layout, &grads, 0.0, None)?;
        Ok([pass, self.phase(json!({"phase": "update"}), take(&mut dev), Pages::default())])
    }

    /// Adds a decoding step of `batch` sequences with `context` keys each, which share no keys. Returns the predicted
    /// seconds.
    pub fn decoding(&mut self, config: &ModelConfig, weights: Weights, batch: usize, context: usize) -> Result<Range> {
        let mut dev = self.device(KernelVariant::Wgmma)?;
        let dtype = DType::of(weights.dtype, Kind::Cuda);
        let model = frozen(&mut dev, config.clone(), dtype, &weights.optimizer)?;
        generate(&mut dev, &model, batch, context)?;
        // Only the last step is used, because all sequences decode in it and graphs were captured in earlier steps.
        let mut entries = take(&mut dev);
        let begins = |entry: &Entry| matches!(entry, Entry::Launch("embedding_fwd", ..));
        let last = entries.split_off(entries.iter().rposition(begins).unwrap_or(0));
        // Each launch reads the keys and values of one layer.
        let kv_bytes = config.token_bytes(model.layout.dtype) / config.text.layers.len() * context * batch;
        let head = json!({"phase": "decode", "batch": batch, "context": context});
        Ok(self.phase(head, last, Pages { bytes: kv_bytes as f64, keys: context }))
    }

    /// Predicts the launches on `dev` (made by [`Launches::device`]) since the last call. Each launch of paged
    /// attention reads `pages`. Returns the predicted seconds, and the resource that limits the largest part of
    /// this time.
    pub fn since(&self, dev: &mut Device, pages: Pages) -> (Range, &'static str) {
        let entries = take(dev);
        let mut bounds: HashMap<&'static str, f64> = HashMap::new();
        let found: Vec<Predicted> = self.times(&entries, pages).map(|(_, found)| found).collect();
        found.iter().for_each(|found| *bounds.entry(found.bound).or_default() += found.seconds.likely);
        let most = bounds.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or("", |(bound, _)| *bound);
        (found.iter().map(|found| found.seconds).sum(), most)
    }

    /// Returns for each launch among `entries` its part of the work and its predicted time.
    fn times<'a>(&'a self, entries: &'a [Entry], pages: Pages) -> impl Iterator<Item = (Share, Predicted)> + 'a {
        let times = entries.iter().filter_map(launched).zip(shares(entries, pages));
        times.map(|((kernel, launch, _), (costs, share))| {
            let is_t = kernel.starts_with(T);
            let slices = if is_t && self.one_chain { 1 } else { launch.grid[1] };
            let grid = [launch.grid[0], slices, launch.grid[2]];
            let mut found = costs.predict(&Launch { grid, ..launch }, &share, self.clocks);
            // A CTA of t waits for its first operands. The last CTA of a tile also waits for its turn and for the sums of
            // the other slices.
            let waits = if is_t { if slices > 1 { 3.0 } else { 1.0 } } else { 0.0 };
            found.seconds = [found.seconds, waits * LATENCY].into_iter().sum();
            (share, found)
        })
    }

    /// Makes a recording device that uses the kernel variant `variant`, with more memory than anything needs.
    pub fn device(&self, variant: KernelVariant) -> Result<Device> {
        let driver = RecordingDriver::hopper(self.ceilings.name, self.ceilings.memory);
        let memory = Plan::uniform(1 << 42).with(Region::Host, 1 << 42);
        let mut dev = Device::gpu(Box::new(driver), Kind::Cuda, &memory)?;
        dev.use_variant(variant)?;
        Ok(dev)
    }

    /// Adds a phase in which paged attention reads `pages` in each layer. Returns the predicted seconds of the phase.
    fn phase(&mut self, head: serde_json::Value, entries: Vec<Entry>, pages: Pages) -> Range {
        let times: Vec<(Share, Predicted)> = self.times(&entries, pages).collect();
        let seconds = times.iter().map(|(_, found)| found.seconds).sum();
        let mut line = |value: serde_json::Value| {
            let _ = writeln!(self.lines, "{value}");
        };
        line(head);
        let mut times = times.into_iter();
        for entry in &entries {
            if let Entry::Work(Work { op, flops, bytes, product, .. }) = entry {
                line(json!({"op": op, "flops": flops, "bytes": bytes, "product": product}));
            }
            let Some(((kernel, launch, range), (share, found))) =
                launched(entry).and_then(|at| Some((at, times.next()?)))
            else {
                continue;
            };
            line(json!({
                "kernel": kernel, "grid": launch.grid, "block": launch.block, "smem": launch.smem,
                "range": range, "own_flops": share.flops, "own_bytes": share.bytes, "tile_bytes": found.tiles,
                "seconds": found.seconds.likely, "low": found.seconds.low, "high": found.seconds.high,
                "tensor": found.tensor, "bound": found.bound,
            }));
        }
        seconds
    }
}

/// Returns the kernel, the launch and the range of an entry that takes time. A fill is a kernel of CUDA; each of its
/// threads is taken to store 16 bytes.
fn launched(entry: &Entry) -> Option<(&'static str, Launch, &str)> {
    match entry {
        Entry::Launch(kernel, launch, range) => Some((kernel, *launch, range)),
        Entry::Fill(bytes) => Some(("memset", Launch::new([bytes.div_ceil(16 * 256) as u32, 1, 1], 256, 0), "")),
        Entry::Product(_) | Entry::Work(_) => None,
    }
}

/// Begin of the names of the kernels that compute t of adapters. Their grids are row tiles by slices of K.
const T: &str = "lora_t";
/// Seconds until memory answers.
const LATENCY: Range = Range { low: 0.7e-6, likely: 0.8e-6, high: 0.9e-6 };

/// Number of products in each kernel of the attention backward pass. There are five different products, of which two
/// are computed in both kernels.
const BACKWARD: [(&str, f64); 2] = [("attention_bwd_dq", 3.0), ("attention_bwd_dkv", 4.0)];

/// Kernel of a weight gradient's op that sums dy over the tokens, after the product has read it. It has few CTAs, and
/// the ring of each limits the bytes that it has in flight.
const DBIAS: &str = "linear_dbias";

/// Parts of the names of the kernels that multiply quantised weights, and the bytes of codes that a CTA has in flight
/// (kernels/gemm_codes.cu).
const CODES: [&str; 2] = ["_int8_m", "_nf4_m"];
const CODES_IN_FLIGHT: f64 = 24.0 * 1024.0;

/// Returns for each launch its performance model and its part of the work. An op records its work before its launches.
/// The work of an op with arithmetic is divided among its launches with output tiles or, without such launches, among
/// those with any products. The work of other ops is divided among all their launches. The parts are proportional to
/// the FLOPs of the launches if their products are known, or else to the numbers of CTAs or products. Paged attention
/// records no work in a decoding step.
fn shares(entries: &[Entry], pages: Pages) -> Vec<(KernelCosts, Share)> {
    let mut known_costs: HashMap<&str, KernelCosts> = HashMap::new();
    let mut found: Vec<(KernelCosts, Share)> = Vec::new();
    let (mut current, mut launches, mut product) = (None, Vec::new(), None);
    for entry in entries {
        match entry {
            Entry::Product(next) => product = Some(*next),
            Entry::Fill(bytes) => {
                found.push((KernelCosts::default(), Share { bytes: *bytes as f64, ..Share::default() }));
            }
            Entry::Launch(kernel, launch, _) => {
                let costs = *known_costs.entry(kernel).or_insert_with(|| OWN.kernel_costs(kernel).unwrap_or_default());
                let paged = kernel.starts_with("paged_attention") && !kernel.starts_with("paged_attention_prefill");
                let (bytes, items) = (if paged { pages.bytes } else { 0.0 }, attention::paged(kernel, pages));
                let in_flight = CODES.iter().any(|name| kernel.contains(name)).then_some(CODES_IN_FLIGHT);
                found.push((costs, Share { bytes, items, in_flight, ..Share::default() }));
                let product = product.take();
                if !paged {
                    let ctas = launch.grid.iter().map(|&n| f64::from(n)).product();
                    let products = BACKWARD.iter().find(|(name, _)| kernel.starts_with(name)).map(|known| known.1);
                    let flops = product.map(|sizes| sizes.iter().map(|&n| n as f64).product());
                    let (weight, made) = (products.or(flops).unwrap_or(ctas), products.unwrap_or(0.0) / 5.0);
                    launches.push(OpLaunch { at: found.len() - 1, kernel, product, weight, made });
                }
            }
            Entry::Work(work) => {
                divide(current.replace(work), std::mem::take(&mut launches), &mut found);
            }
        }
    }
    divide(current, launches, &mut found);
    found
}

/// A launch of an op.
struct OpLaunch<'a> {
    /// Its index among all launches.
    at: usize,
    kernel: &'a str,
    /// Rows, columns and length of the sums of its product, if they are known.
    product: Option<[usize; 3]>,
    /// Its part of the op's work, in any unit.
    weight: f64,
    /// The op's products that it computes, as a part of the products that the op needs. 0 if it is not known.
    made: f64,
}

/// Divides the work of an op among its launches.
fn divide(work: Option<&Work>, mut launches: Vec<OpLaunch<'_>>, found: &mut [(KernelCosts, Share)]) {
    let Some(work) = work else { return };
    if let Some(at) = launches.iter().position(|launch| launch.kernel == DBIAS) {
        let [columns, _, tokens] = work.product.unwrap_or_default();
        found[launches.remove(at).at].1.bytes = 2.0 * (columns * tokens) as f64;
    }
    let rank = |launch: &OpLaunch<'_>| {
        let costs = &found[launch.at].0;
        usize::from(costs.flops > 0.0) + usize::from(costs.tile.is_some())
    };
    let most = launches.iter().map(rank).max().filter(|_| work.flops > 0.0).unwrap_or(0);
    launches.retain(|launch| rank(launch) >= most);
    let all: f64 = launches.iter().map(|launch| launch.weight).sum();
    let single = work.product.filter(|_| launches.len() == 1);
    for OpLaunch { at, kernel, product, weight, made } in launches {
        let part = weight / all;
        let (flops, bytes) = (work.flops * part, work.bytes * part);
        let items = work.sequences.and_then(|sequences| attention::packed(kernel, sequences));
        let (again, product) = ((work.flops * made - flops).max(0.0), product.or(single));
        found[at].1 = Share { flops, again, bytes, product, items, ..found[at].1 };
    }
}

/// Generates tokens for `batch` prompts of `context` tokens, which share no keys. All prompts are prefilled in one step,
/// so that all sequences decode in the next steps.
pub fn generate(dev: &mut Device, model: &Model, batch: usize, context: usize) -> Result<()> {
    let config = &model.config;
    let limits = EngineConfig {
        max_num_seqs: batch,
        max_num_batched_tokens: batch * context,
        // For each sequence: the full blocks of its keys, and two more for the remaining keys and the generated tokens.
        num_kv_blocks: Some(batch * (context / BLOCK + 2)),
        ..EngineConfig::new(context + 4)
    };
    let request = |r: usize| -> Result<EngineCoreRequest> {
        // Ids differ between prompts, so that no blocks are shared.
        let ids: Vec<u32> = (0..context).map(|t| ((r * context + t) % config.plain_ids()) as u32).collect();
        let prompt = Arc::new(Prompt::new(config, &ids, &[])?);
        Ok(EngineCoreRequest::new(prompt, 1, RequestParams::new(3, Arc::from([]))))
    };
    let requests = (0..batch).map(request).collect::<Result<Vec<_>>>()?;
    let mut engine = Engine::new(model, dev, limits)?;
    engine.generate(model, dev, &requests)?;
    engine.release(dev);
    Ok(())
}

/// Returns the launches recorded by `dev` since the last call.
pub fn take(dev: &mut Device) -> Vec<Entry> {
    let recording = dev.driver().and_then(|driver| driver.as_any().downcast_mut::<RecordingDriver>());
    recording.map(RecordingDriver::take).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::super::gpus::Gpu;
    use super::*;
    use omr_base::config::{Dtype, LoraConfig, OptimConfig};

    /// Decoding with adapters of rank 16 must be predicted at most 16 % slower than without, if the assumptions are fast.
    #[test]
    fn adapters_slow_decoding_by_at_most_16_percent() {
        let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .join("configs/openmmreasoner-7b/model/config.json");
        let model = ModelConfig::load(&model).unwrap();
        for batch in [1, 16, 64] {
            let seconds = |lora: Option<LoraConfig>, one_chain| {
                let mut launches = Launches { one_chain, ..Launches::new(Gpu::H200.ceilings(), 1.5e9) };
                let optimizer = OptimConfig { lora, ..OptimConfig::default() };
                launches.decoding(&model, Weights { dtype: Dtype::Bf16, optimizer }, batch, CONTEXT).unwrap()
            };
            let (base, lora) = (seconds(None, false), Some(LoraConfig::default()));
            let [sliced, chained] = [false, true].map(|one_chain| seconds(lora.clone(), one_chain));
            let slower = |with: Range| [with.low / base.low, with.likely / base.likely, with.high / base.high];
            println!(
                "batch {batch}: {base:?}; with t in slices {:?}, in one chain {:?}",
                slower(sliced),
                slower(chained)
            );
            assert!(sliced.low < 1.16 * base.low && sliced.low < chained.low, "batch {batch}");
        }
    }

    /// Each launch of an op with several products must have the epilogues of its own tiles, and a part of the work that is
    /// proportional to its product.
    #[test]
    fn each_of_several_products_has_its_epilogue() {
        let [first, second] = [[4096, 8192, 3584], [4096, 3584, 2048]];
        let flops = |[m, n, k]: [usize; 3]| 2.0 * (m * n * k) as f64;
        let launch = |name| Entry::Launch(name, Launch::new([132, 1, 1], 384, 200 << 10), String::new());
        let (op, bytes, sequences) = ("linear_logprob::bwd", 0.0, None);
        let work = Work { op, flops: flops(first) + flops(second), bytes, product: None, sequences };
        let entries = [
            Entry::Work(work),
            Entry::Product(first),
            launch("linear_logprob_dz_wide"),
            Entry::Product(second),
            launch("linear_dgrad_chain_wide"),
        ];
        let found = shares(&entries, Pages::default());
        for ((costs, share), product) in found.iter().zip([first, second]) {
            assert_eq!((share.product, share.flops), (Some(product), flops(product)));
            assert!(costs.epilogue > 1000.0);
        }
    }

    /// A fill takes the time of its bytes, about 9 ms for the 33 GB of gradients of the 7B model. The sum of dy takes the
    /// time of reading dy, although another launch of its op has the product.
    #[test]
    fn fills_and_sums_of_dy_take_time() {
        let launches = Launches::new(Gpu::H200.ceilings(), 1.5e9);
        let seconds = |entries: &[Entry]| -> Vec<f64> {
            launches.times(entries, Pages::default()).map(|(_, found)| found.seconds.likely).collect()
        };
        let found = seconds(&[Entry::Fill(33_000_000_000), Entry::Fill(4)]);
        assert!((8e-3..1e-2).contains(&found[0]) && found[1] < 3e-6, "{found:?}");
        let product = [1280, 3420, 4096];
        let (op, flops, bytes) = ("linear::wgrad", 2.0 * 1280.0 * 3420.0 * 4096.0, 0.0);
        let entries = [
            Entry::Work(Work { op, flops, bytes, product: Some(product), sequences: None }),
            Entry::Launch("linear_wgrad_m128", Launch::new([270, 1, 1], 128, 96 << 10), String::new()),
            Entry::Launch("linear_dbias", Launch::new([20, 1, 1], 128, 64 << 10), String::new()),
        ];
        // 20 CTAs read 512 KiB each, 64 KiB at a time.
        assert!((6e-6..10e-6).contains(&seconds(&entries)[1]));
        let [(_, wgrad), (_, dbias)] = &shares(&entries, Pages::default())[..] else { panic!() };
        assert_eq!((wgrad.flops, dbias.flops, dbias.bytes), (flops, 0.0, 2.0 * 1280.0 * 4096.0));
    }

    /// Two CTAs of a multiprocessor have 48 KiB of codes in flight, enough for the bandwidth.
    #[test]
    fn codes_are_read_at_the_rate_of_bf16() {
        let product = [1, 37_888, 3584];
        let (op, bytes) = ("linear", (37_888 * 3584) as f64);
        let entries = |kernel| {
            [
                Entry::Work(Work { op, flops: 2.0 * bytes, bytes, product: Some(product), sequences: None }),
                Entry::Launch(kernel, Launch::new([592, 1, 1], 128, 80 << 10), String::new()),
            ]
        };
        let launches = Launches::new(Gpu::H200.ceilings(), 1.5e9);
        for (kernel, bound, rate) in [("linear_m16", "memory", 3.7e12), ("linear_int8_m16", "memory", 3.7e12)] {
            let (_, found) = launches.times(&entries(kernel), Pages::default()).next().unwrap();
            assert_eq!(found.bound, bound);
            assert!((bytes / found.seconds.likely / rate - 1.0).abs() < 0.05, "{kernel}: {found:?}");
        }
    }

    #[test]
    fn one_long_sequence_has_a_cta_for_each_chunk_and_key_head() {
        let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .join("configs/openmmreasoner-7b/model/config.json");
        let model = ModelConfig::load(&model).unwrap();
        let mut launches = Launches::new(Gpu::H200.ceilings(), 1.5e9);
        launches
            .decoding(&model, Weights { dtype: Dtype::Bf16, optimizer: OptimConfig::default() }, 1, 28_000)
            .unwrap();
        let lines = launches.lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let attends =
            |line: &Value| line["kernel"].as_str().is_some_and(|kernel| kernel.starts_with("paged_attention"));
        let found: Vec<Value> = lines.filter(attends).collect();
        assert_eq!(found.len(), 28);
        for line in found {
            assert_eq!((&line["grid"], &line["bound"]), (&json!([14 * 4, 1, 1]), &json!("items")));
        }
    }
}
