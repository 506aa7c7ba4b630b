//! Finds settings with which a config's run is predicted to take less time: smaller micro-batches, of which fewer layers
//! are recomputed, and optimizer state that leaves room for activations.

use serde_json::{Value, json};

use super::assumptions::{GpuOptions, Rows};
use super::changes;
use super::floor;
use super::page::Page;
use super::training::{GpuSet, Keys, Overrides, Training, set};
use crate::training::levels;
use omr_base::config::{self, OptimizerName};
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
    let Keys { optimizer, training, micro_batch_tokens: whole, .. } = config.keys();
    // Another number of lanes would be another division of the data.
    training.gradient_lanes.get_or_insert(gpus.count);
    let (moments, is_offloaded) = (optimizer.optim == OptimizerName::AdamwTorch, optimizer.optimizer_offload);
    if whole == usize::MAX {
        return Vec::new();
    }
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
