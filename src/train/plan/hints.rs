//! Finds the cheapest changes of a config that make its run fit into the memory of GPUs. Each result is counted by a
//! plan, not estimated.

use std::array;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::assumptions::{GpuOptions, H200, Rows};
use super::changes::{self, CHANGES, Change};
use super::layout::GpuLayout;
use super::training::{GpuSet, Overrides, Training, layout, set, target};
use omr_base::error::Result;
use omr_base::observe::bytes;
use omr_model::nn::ModelConfig;

/// Numbers of GPUs that a hint may suggest.
const COUNTS: [usize; 6] = [2, 4, 8, 16, 32, 64];

/// Largest number of sets of changes in a hint.
const MOST: usize = 3;

/// Number of the step of each of [`CHANGES`], from 1. 0 is no change.
type Steps = [usize; CHANGES.len()];

/// Changes that together make a run fit.
#[derive(Clone)]
pub struct Way {
    /// Number of GPUs.
    pub gpus: usize,
    /// The changes, the cheapest one first.
    pub made: Vec<Made>,
}

/// A change of a config.
#[derive(Clone)]
pub struct Made {
    /// Kind of change.
    pub change: &'static Change,
    /// Keys that it sets.
    pub step: Overrides,
    /// Bytes that it saves after the changes before it.
    saves: usize,
}

/// Counts the memory of a config and of its changes on a number of GPUs. The count does not depend on the kind of GPU.
/// Each count is made once.
pub struct Counter<'a, C> {
    config: C,
    model: &'a ModelConfig,
    rows: &'a Rows,
    gpus: usize,
    steps: Vec<Vec<Overrides>>,
    /// No change affects how the state is divided among the GPUs.
    layout: GpuLayout,
    counted: HashMap<Steps, Option<usize>>,
    /// Bytes that the config needs at least without a change.
    pub needs: usize,
}

impl<'a, C: Training> Counter<'a, C> {
    /// Counts `config`. Errors if it cannot run on this number of GPUs at all.
    pub fn new(config: &C, model: &'a ModelConfig, rows: &'a Rows, gpus: usize) -> Result<Counter<'a, C>> {
        let (config, layout) = layout(GpuSet { gpu_options: &H200, count: gpus }, model, config)?;
        let (steps, needs) = (changes::steps(&config, rows)?, config.least(model, rows, &layout)?);
        Ok(Counter { config, model, rows, gpus, layout, steps, counted: HashMap::new(), needs })
    }

    /// Returns the bytes that a run may use on one of the GPUs.
    pub fn available(&self, gpu_options: &GpuOptions) -> usize {
        let gpus = GpuSet { gpu_options, count: self.gpus };
        target(gpus, self.config.clone().keys().training.max_memory_gib).memory.unwrap_or(usize::MAX)
    }

    /// Returns at most `most` sets of changes after which `budget` bytes suffice, the cheapest one first. No change of a
    /// set can be left out, and each is made by the smallest step that suffices.
    pub fn ways(&mut self, budget: usize, most: usize) -> Vec<Way> {
        let last: Steps = array::from_fn(|i| self.steps[i].len());
        // A config may refuse all changes at once and allow some of them.
        if self.bytes(&last).is_some_and(|needs| needs > budget) {
            return Vec::new();
        }
        // Bit `i` of a set stands for change `i`.
        let members = |set: usize| (0..last.len()).filter(move |i| (set >> i) & 1 == 1);
        let possible = |set: &usize| members(*set).all(|i| last[i] > 0);
        let mut sets: Vec<usize> = (1..1 << last.len()).filter(possible).collect();
        sets.sort_by_key(|&set| (members(set).map(|i| CHANGES[i].weight).sum::<usize>(), set));
        let (mut found, mut ways): (Vec<usize>, Vec<Way>) = (Vec::new(), Vec::new());
        for set in sets {
            if ways.len() < most && !found.iter().any(|part| set & part == *part) {
                let mut steps = Steps::default();
                members(set).for_each(|i| steps[i] = last[i]);
                if self.reduce(&mut steps, budget) {
                    found.push(set);
                    ways.push(self.way(&steps));
                }
            }
        }
        ways
    }

    /// Reduces `steps`, starting with the most expensive change, to the smallest ones for which `budget` bytes suffice.
    /// Returns false if none suffice.
    fn reduce(&mut self, steps: &mut Steps, budget: usize) -> bool {
        let mut fits = |steps: &Steps| self.bytes(steps).is_some_and(|needs| needs <= budget);
        if !fits(steps) {
            return false;
        }
        for change in (0..steps.len()).rev() {
            let (mut low, mut high) = (0, steps[change]);
            while low < high {
                steps[change] = low.midpoint(high);
                if fits(steps) { high = steps[change] } else { low = steps[change] + 1 }
            }
            steps[change] = high;
        }
        true
    }

    fn way(&mut self, steps: &Steps) -> Way {
        let (mut so_far, mut needs, mut made) = (Steps::default(), self.needs, Vec::new());
        for (i, change) in CHANGES.iter().enumerate().filter(|(i, _)| steps[*i] > 0) {
            so_far[i] = steps[i];
            let less = self.bytes(&so_far).unwrap_or(needs);
            made.push(Made { change, step: self.steps[i][steps[i] - 1].clone(), saves: needs.saturating_sub(less) });
            needs = less;
        }
        Way { gpus: self.gpus, made }
    }

    /// Returns the bytes that the config needs after `steps`, or `None` if it does not allow them together.
    fn bytes(&mut self, steps: &Steps) -> Option<usize> {
        let count = || {
            let chosen = self.steps.iter().zip(steps).filter(|(_, step)| **step > 0);
            let changed = chosen.map(|(all, step)| &all[step - 1]).try_fold(self.config.clone(), |c, s| set(&c, s))?;
            changed.least(self.model, self.rows, &self.layout).ok()
        };
        *self.counted.entry(*steps).or_insert_with(count)
    }
}

/// Describes what makes `config` fit on GPUs of this kind, beginning with the cheapest: changes on `gpus`, or more of
/// them.
pub fn text<C: Training>(config: &C, model: &ModelConfig, rows: &Rows, gpus: GpuSet) -> Result<String> {
    let mut counter = Counter::new(config, model, rows, gpus.count)?;
    let mut ways = counter.ways(counter.available(gpus.gpu_options), MOST);
    let (changed, mut more) = (!ways.is_empty(), None);
    for count in COUNTS.into_iter().filter(|&count| count > gpus.count) {
        // Numbers of GPUs on which the config cannot run are left out.
        let Ok(mut counter) = Counter::new(config, model, rows, count) else { continue };
        let budget = counter.available(gpus.gpu_options);
        if counter.needs <= budget {
            more = Some(Way { gpus: count, made: Vec::new() });
            break;
        }
        more = more.or_else(|| if changed { None } else { counter.ways(budget, 1).pop() });
    }
    ways.extend(more);
    if ways.is_empty() {
        return Ok("no change of this config that omr plan knows makes it fit, on up to 64 of these GPUs".to_owned());
    }
    let ways: Vec<String> = ways.iter().map(|way| way.text(gpus.count)).collect();
    Ok(format!("it fits with {}", ways.join("; or with ")))
}

impl Way {
    /// Describes the changes, for a run that was planned on `gpus` GPUs.
    fn text(&self, gpus: usize) -> String {
        let more = (self.gpus > gpus).then(|| format!("--gpus {}", self.gpus));
        let typed = more.into_iter().chain(self.made.iter().flat_map(|made| changes::typed(&made.step)));
        let saved: Vec<String> = self.made.iter().map(|made| bytes(made.saves as u64)).collect();
        let saved = if saved.is_empty() { String::new() } else { format!(", saving {}", saved.join(" + ")) };
        typed.collect::<Vec<_>>().join(" ") + &saved
    }

    /// Formats the changes as JSON.
    pub fn json(&self) -> Value {
        let made = |made: &Made| {
            json!({
                "label": made.change.label(&made.step), "set": changes::typed(&made.step), "saves": made.saves,
                "cost": made.change.cost,
            })
        };
        json!({ "gpus": self.gpus, "changes": self.made.iter().map(made).collect::<Vec<_>>() })
    }
}
