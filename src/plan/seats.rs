//! What several cards do beside computing: which of them computes what, what they hand each other, what lies on the host.

use super::gpus::{Ceilings, Links, NODE};
use crate::config::{Dtype, OptimConfig};
use crate::device::{Target, readback};
use crate::error::Result;
use crate::model::ModelConfig;
use crate::observe::bytes;
use crate::ranks::{self, OneRank};
use crate::train::lanes;
use crate::train::plan::{self, UpdateWork};

/// The cards of a plan, one for each rank.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Seats {
    /// Cards.
    pub count: usize,
    /// Gradient lanes.
    pub lanes: usize,
    /// The rank that takes most memory, among so many.
    pub fullest: OneRank,
    /// Bytes of the optimizer's state at all ranks together.
    pub state: usize,
}

/// Parts into which an update can be divided.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Parts {
    /// The key that says how many.
    pub key: &'static str,
    /// How many.
    pub count: usize,
}

/// How weights are stored and updated.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weights {
    /// Storage of weights and activations.
    pub dtype: Dtype,
    /// What updates them.
    pub optimizer: OptimConfig,
}

impl Seats {
    /// `count` cards for `asked` gradient lanes, one a card where nothing says more. Errors where the run would: fewer lanes
    /// than cards, fewer parts than lanes.
    pub fn new(
        count: usize,
        asked: Option<usize>,
        parts: Parts,
        model: &ModelConfig,
        weights: Weights,
        target: Target,
    ) -> Result<Seats> {
        let lanes = asked.unwrap_or(count);
        lanes::cover(lanes, count)?;
        lanes::check(lanes, parts.key, parts.count)?;
        let owned = plan::owned(model, weights.dtype, weights.optimizer, target, count)?;
        let most = (0..count).max_by_key(|&rank| (owned[rank], std::cmp::Reverse(rank))).unwrap_or(0);
        Ok(Seats { count, lanes, fullest: OneRank::new(most, count), state: owned.iter().sum() })
    }

    /// Lanes that the first card computes, one after another: no other has more.
    pub fn rounds(&self) -> usize {
        self.lanes.div_ceil(self.count)
    }

    /// Micro-batches of the first card where an update has so many parts, of which a micro-batch holds `at_once`: those of a
    /// lane do not mix with another's.
    pub fn passes(&self, parts: usize, at_once: usize) -> usize {
        let of_lane = |lane: usize| (parts + self.lanes - 1 - lane) / self.lanes;
        (0..self.lanes).step_by(self.count).map(|lane| of_lane(lane).div_ceil(at_once.max(1))).sum()
    }

    /// Seconds in which a card hands over what it has for an update and takes what it is given: other nodes' part over the
    /// network, beside the own node's. The slowest card is meant: most far peers has one of the smallest node.
    pub fn links(&self, update: &UpdateWork, links: &Links) -> f64 {
        let (others, near) = ((self.count - 1).max(1) as f64, (self.count.min(NODE) - 1) as f64 / links.node);
        let smallest = (self.count - 1) % NODE + 1;
        let far = (self.count - smallest) as f64 / links.network;
        update.handed.sent.max(update.handed.received) as f64 / others * near.max(far)
    }

    /// Which card computes which lanes.
    pub fn describe(&self) -> String {
        match self.rounds() {
            1 => format!("{}, each on a card of its own", self.lanes),
            rounds => format!("{}, up to {rounds} on a card one after another, added up on the host", self.lanes),
        }
    }

    /// Host memory of a process for what cards hand over, add up and save.
    pub fn host(&self, update: &UpdateWork) -> Vec<(&'static str, usize)> {
        // What is read of the card is put in order and encoded, a tensor at a time.
        let mut out = vec![("a checkpoint", readback::HOST_BYTES + 3 * update.largest_saved)];
        if update.host_bytes > 0 {
            out.push(("the sum of lanes", update.host_bytes));
        }
        if self.count > 1 {
            out.push(("what goes over TCP", ranks::host_bytes(self.count)));
        }
        out
    }
}

/// `64 H100 in 8 nodes of 8`, for people.
pub fn named(count: usize, card: &Ceilings) -> String {
    match count {
        1 => format!("one {}", card.name),
        n if n <= NODE => format!("{n} {} of one node", card.name),
        n => format!("{n} {} in {} nodes of {NODE}", card.name, n.div_ceil(NODE)),
    }
}

/// Host memory by what it is for.
pub fn host_text(parts: &[(&'static str, usize)]) -> String {
    let named = |(name, count): &(&str, usize)| format!("{name} {}", bytes(*count as u64));
    parts.iter().map(named).collect::<Vec<_>>().join(", ")
}
