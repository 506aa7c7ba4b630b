//! Finds settings with which a config's run is predicted to take less time: smaller micro-batches, of which fewer layers
//! are recomputed, and optimizer state that leaves room for activations.

use std::thread;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::assumptions::{GpuOptions, H200, Rows};
use super::changes;
use super::floor;
use super::gpu_table::COUNTS;
use super::gpus::Gpu;
use super::page::Page;
use super::training::{GpuSet, Keys, Overrides, Training, set};
use crate::training::levels;
use omr_base::config::{self, OptimizerName};
use omr_base::error::{Error, Result};
use omr_model::nn::ModelConfig;

/// Smallest micro-batch that is tried, in tokens.
const LEAST: usize = 4096;
/// Number of smaller sizes that are tried, all of them powers of two.
const SIZES: usize = 4;
/// A setting is proposed if it is predicted to take at most this share of the time of every cheaper one. The predictions
/// are not exact enough to tell smaller differences.
pub const WORTH: f64 = 0.99;

/// Settings, and the time of a step with them.
pub struct Faster {
    /// Keys to set. None for the config as it is.
    pub keys: Overrides,
    /// Seconds of a step.
    pub seconds: f64,
    /// Share of this time in which GPUs wait for one another, if it is known.
    pub waiting: Option<f64>,
    /// Bytes of the memory that is planned.
    pub memory: usize,
}

impl Faster {
    fn of(keys: Overrides, page: &Page) -> Faster {
        Faster { keys, seconds: page.step(), waiting: page.waiting, memory: page.planned.memory.total() }
    }

    /// Formats the settings as JSON.
    pub fn json(&self) -> Value {
        json!({ "set": changes::typed(&self.keys), "step_seconds": self.seconds, "waiting": self.waiting, "memory": self.memory })
    }
}

/// Returns settings that are faster than `config` on `gpus`, each faster than those before it, which change less. Returns none for GPUs
/// without predictions. `now` is the plan of the config, if it fits.
pub fn search<C: Training>(
    config: &C,
    now: Option<&Page>,
    rows: &Rows,
    gpus: GpuSet,
    model: &ModelConfig,
) -> Vec<Faster> {
    if !gpus.gpu_options.gpu.has_predictions() {
        return Vec::new();
    }
    let gpus = GpuSet { gpu_options: &GpuOptions { launches: None, ..gpus.gpu_options.clone() }, ..gpus };
    let mut config = config.clone();
    // A size that omr chooses is already the one with the least arithmetic.
    let Some(whole) = config.write()["micro_batch_tokens"].as_u64() else { return Vec::new() };
    let whole = whole as usize;
    let Keys { optimizer, training, .. } = config.keys();
    // Another number of lanes would be another division of the data.
    training.gradient_lanes.get_or_insert(gpus.count);
    let (moments, is_offloaded) = (optimizer.optim == OptimizerName::AdamwTorch, optimizer.optimizer_offload);
    let mut states = vec![Overrides::new()];
    if !is_offloaded {
        states.push(vec![("optimizer_offload", json!(true))]);
    }
    if moments {
        states.push(vec![("optim", json!("adamw_8bit"))]);
    }
    if !is_offloaded && moments {
        states.push(vec![("optimizer_offload", json!(true)), ("optim", json!("adamw_8bit"))]);
    }
    let sizes: Vec<usize> = std::iter::once(whole).chain(levels::smaller(whole, LEAST).take(SIZES)).collect();
    let search = Search { config: &config, rows, gpus, model, whole };
    let (mut fastest, mut best_size) = (now.map_or(f64::INFINITY, Page::step), None);
    let mut found = Vec::new();
    for state in states {
        // With more memory for activations, the best size is the same or the next larger one.
        let from = best_size.and_then(|best| sizes.iter().position(|&size| size == best)).map_or(0, |at| at.max(1) - 1);
        let sizes = sizes.iter().copied().skip(from).take(if best_size.is_some() { 2 } else { sizes.len() });
        let Some((size, best)) = search.fastest(&state, sizes, now.filter(|_| state.is_empty())) else { continue };
        best_size = best_size.or(Some(size));
        if best.seconds < WORTH * fastest && !best.keys.is_empty() {
            fastest = best.seconds;
            found.push(best);
        }
    }
    found
}

struct Search<'a, C> {
    config: &'a C,
    rows: &'a Rows,
    gpus: GpuSet<'a>,
    model: &'a ModelConfig,
    /// Tokens of a micro-batch of the config.
    whole: usize,
}

impl<C: Training> Search<'_, C> {
    /// Returns the fastest of `sizes`, which descend, with the keys `state`, and its settings. Returns `None` if none fits.
    /// `now` is the plan of the config itself.
    fn fastest(
        &self,
        state: &Overrides,
        sizes: impl Iterator<Item = usize>,
        now: Option<&Page>,
    ) -> Option<(usize, Faster)> {
        let mut best: Option<(usize, Faster)> = None;
        for size in sizes {
            let mut keys = state.clone();
            if size != self.whole {
                keys.insert(0, ("micro_batch_tokens", json!(size)));
            }
            let found = match now.filter(|_| keys.is_empty()) {
                Some(page) => Some(Faster::of(keys, page)),
                None => {
                    // Settings that the config refuses or that do not fit are left out.
                    let page = |config: C| config.page(self.gpus, self.rows, self.model.clone()).ok();
                    set(self.config, &keys).and_then(page).map(|page| Faster::of(keys, &page))
                }
            };
            let Some(found) = found else { continue };
            match &best {
                // Still smaller ones recompute no less and have more passes.
                Some((_, best)) if found.seconds > best.seconds => break,
                _ => best = Some((size, found)),
            }
        }
        best
    }
}

/// The fastest settings for a number of GPUs of one kind.
pub struct FasterCell {
    gpu: Gpu,
    gpus: usize,
    /// Seconds of a step of the config as it is. None if it does not fit.
    now: Option<f64>,
    fastest: Option<Faster>,
}

/// Searches on each kind of GPU that has predictions, for each number of GPUs of the table.
pub fn cells<C: Training + Sync>(config: &C, rows: &Rows, model: &ModelConfig) -> Result<Vec<FasterCell>> {
    let of = |gpu: Gpu, gpus: usize| {
        let gpu_options = GpuOptions { gpu, ..H200 };
        let set = GpuSet { gpu_options: &gpu_options, count: gpus };
        let page = config.page(set, rows, model.clone()).ok();
        let fastest = search(config, page.as_ref(), rows, set, model).pop();
        FasterCell { gpu, gpus, now: page.as_ref().map(Page::step), fastest }
    };
    let of_kind = |gpu: Gpu| COUNTS.map(|gpus| of(gpu, gpus));
    let kinds = Gpu::value_variants().iter().copied().filter(|gpu| gpu.has_predictions());
    let cells = thread::scope(|scope| {
        let threads: Vec<_> = kinds.map(|gpu| scope.spawn(move || of_kind(gpu))).collect();
        let cells = threads.into_iter().map(|thread| thread.join());
        cells.collect::<thread::Result<Vec<_>>>()
    });
    let cells = cells.map_err(|_| Error::Failed("a plan panicked".to_owned()))?;
    Ok(cells.into_iter().flatten().collect())
}

/// Formats the fastest settings as a line for each number of GPUs, below a title.
pub fn cells_text(cells: &[FasterCell]) -> String {
    let lines: String = cells.iter().map(FasterCell::text).collect();
    if lines.is_empty() {
        lines
    } else {
        format!("\nSeconds per step as configured and with faster settings, predicted:\n{lines}")
    }
}

impl FasterCell {
    fn text(&self) -> String {
        let FasterCell { gpu, gpus, now, fastest } = self;
        let unit = if *gpus == 1 { "GPU" } else { "GPUs" };
        let head = format!("{:<5} {gpus:>2} {unit:<4}", gpu.ceilings().name);
        let now = now.map_or("does not fit".to_owned(), floor::seconds);
        match fastest {
            None => format!("{head}  {now:>12}  no faster settings are known\n"),
            Some(Faster { keys, seconds, .. }) => {
                format!("{head}  {now:>12} -> {:>8}  {}\n", floor::seconds(*seconds), changes::typed(keys).join(" "))
            }
        }
    }

    /// Formats the settings as JSON.
    pub fn json(&self) -> Value {
        let name = self.gpu.to_possible_value().map(|value| value.get_name().to_owned());
        let fastest = self.fastest.as_ref().map(Faster::json);
        json!({ "gpu": name, "gpus": self.gpus, "step_seconds": self.now, "fastest": fastest })
    }
}

/// Formats settings that are faster than a step of `now` seconds as lines of YAML.
pub fn text(found: &[Faster], now: f64) -> String {
    let mut out = String::new();
    for Faster { keys, seconds, waiting, .. } in found {
        let (less, step) = (100.0 * (1.0 - seconds / now), floor::seconds(*seconds));
        let waiting = waiting.map_or(String::new(), |share| format!(", {:.1} % of the passes waiting", 100.0 * share));
        out.push_str(&format!("# predicted {step} per step, {less:.1} % less{waiting}\n"));
        out.extend(keys.iter().map(|(key, value)| format!("{key}: {}\n", config::inline(value))));
    }
    let head = format!("Faster than {}, for the config file:\n", floor::seconds(now));
    if found.is_empty() { out } else { head + &out }
}

/// Formats the fastest settings as the end of a hint.
pub fn hint(found: &[Faster]) -> String {
    found.last().map_or(String::new(), |Faster { keys, seconds, .. }| {
        format!(
            "; the fastest known is {}, predicted {} per step",
            changes::typed(keys).join(" "),
            floor::seconds(*seconds)
        )
    })
}
