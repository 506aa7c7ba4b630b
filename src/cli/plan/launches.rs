//! `omr plan --launches`: what the run's own code launches on a card, listed without one.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;

use super::gpus::Gpu;
use crate::config::{Dtype, OptimConfig};
use crate::device::listing::{Entry, Listing};
use crate::device::{Body, Device, Kind, Plan, Properties, Region, Work};
use crate::engine::{Engine, EngineConfig, Prompt, Request};
use crate::error::{Error, Result};
use crate::model::{Grads, Levels, Model, ModelConfig};
use crate::ops::sample::SamplingParams;
use crate::optim::Optimizer;
use crate::tensor::DType;
use crate::train::nll;
use crate::train::step::Sequence;

/// Sequences that decode at once.
const BATCHES: [usize; 5] = [1, 16, 64, 256, 512];
/// Keys of each when they do.
const CONTEXT: usize = 1536;

/// Lists, a line of JSON each: `{"phase"}`, then `{"kernel", "grid", "block", "smem", "range"}` and `{"op", "flops",
/// "bytes"}`, what an op costs beside its launches.
#[derive(Default)]
pub struct Launches(String);

impl Launches {
    /// The lines.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// A training pass over `batch` and the update that follows.
    pub fn training(
        &mut self,
        gpu: Gpu,
        model: &ModelConfig,
        (dtype, optim): (Dtype, OptimConfig),
        batch: &[Sequence<'_>],
        levels: Levels,
    ) -> Result<()> {
        let mut dev = listing(gpu)?;
        let model = Model::empty(&mut dev, model.clone(), DType::of(dtype, Kind::Cuda))?;
        let mut optimizer = Optimizer::new(&mut dev, &model.layout, optim, 0)?;
        let mut grads = Grads::new(&mut dev, &model.layout)?;
        let loss = dev.zeros(Region::Overlay, DType::F64, &[1])?;
        let tokens: usize = batch.iter().map(|sequence| sequence.input_ids.len()).sum();
        take(&mut dev);
        nll::gradients(&mut dev, &model, &mut grads, batch, tokens, levels, loss)?;
        self.phase(json!({"phase": "pass", "tokens": tokens}), take(&mut dev));
        optimizer.step(&mut dev, &model.layout, &grads, 0.0)?;
        self.phase(json!({"phase": "update"}), take(&mut dev));
        Ok(())
    }

    /// A step of decoding for each of several numbers of sequences.
    pub fn decoding(&mut self, gpu: Gpu, config: &ModelConfig, dtype: Dtype) -> Result<()> {
        for batch in BATCHES {
            let mut dev = listing(gpu)?;
            let model = Model::empty(&mut dev, config.clone(), DType::of(dtype, Kind::Cuda))?;
            // All prompts in one step, so that all decode in the next.
            let limits = EngineConfig {
                max_num_seqs: batch,
                max_num_batched_tokens: batch * CONTEXT,
                ..EngineConfig::new(CONTEXT + 4)
            };
            let request = |r: usize| -> Result<Request> {
                // Ids that differ from prompt to prompt: nothing is shared.
                let ids: Vec<u32> =
                    (0..CONTEXT).map(|t| ((r * CONTEXT + t) % config.image_token_id as usize) as u32).collect();
                Ok(Request {
                    prompt: Arc::new(Prompt::new(config, &ids, &[])?),
                    n: 1,
                    sampling: SamplingParams::default(),
                    max_tokens: 3,
                    stop_token_ids: Arc::from([]),
                    noise: r as u32,
                    first_rollout: 0,
                })
            };
            let requests = (0..batch).map(request).collect::<Result<Vec<_>>>()?;
            let mut engine = Engine::new(&model, &mut dev, limits)?;
            engine.generate(&model, &mut dev, &requests, |_| Ok(()))?;
            // Of the steps the last: all decode then, and what is captured has been.
            let mut entries = take(&mut dev);
            let begins = |entry: &Entry| matches!(entry, Entry::Launch("embedding_fwd", ..));
            let last = entries.split_off(entries.iter().rposition(begins).unwrap_or(0));
            let heads = config.num_key_value_heads * config.head_dim();
            let kv_bytes = 2 * heads * DType::of(dtype, Kind::Cuda).size() * CONTEXT * batch;
            self.phase(json!({"phase": "decode", "batch": batch, "context": CONTEXT, "kv_bytes": kv_bytes}), last);
            engine.release(&mut dev);
        }
        Ok(())
    }

    fn phase(&mut self, head: serde_json::Value, entries: Vec<Entry>) {
        let mut line = |value: serde_json::Value| {
            let _ = writeln!(self.0, "{value}");
        };
        line(head);
        for entry in entries {
            line(match entry {
                Entry::Launch(kernel, launch, range) => json!({
                    "kernel": kernel, "grid": launch.grid, "block": launch.block, "smem": launch.smem, "range": range,
                }),
                Entry::Work(Work { op, flops, bytes, product }) => {
                    json!({"op": op, "flops": flops, "bytes": bytes, "product": product})
                }
            });
        }
    }
}

/// Errors where launches for a card are not listed.
pub fn check(gpu: Gpu) -> Result<()> {
    match gpu {
        Gpu::H200 | Gpu::H100 => Ok(()),
        _ => Err(Error::input("--launches", gpu.ceilings().name, "h200 or h100: launches are listed for Hopper")),
    }
}

/// A card that lists, with more memory than anything takes.
fn listing(gpu: Gpu) -> Result<Device> {
    let card = gpu.ceilings();
    let properties = Properties {
        name: card.name.to_owned(),
        compute_capability: (9, 0),
        multiprocessors: 132,
        memory: card.memory,
        shared_memory_per_block: 227 << 10,
        driver: "none".into(),
    };
    let mut dev = Device::gpu(Box::new(Listing::new(properties)), Kind::Cuda, &Plan::uniform(1 << 42))?;
    dev.use_body(Body::Wgmma)?;
    Ok(dev)
}

fn take(dev: &mut Device) -> Vec<Entry> {
    let listing = dev.driver().and_then(|driver| driver.as_any().downcast_mut::<Listing>());
    listing.map(Listing::take).unwrap_or_default()
}
