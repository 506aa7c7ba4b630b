//! Requires that the trainer's log-probs are those of the sampler, bit for bit, before the first update of a step.

use crate::rl::group::{Group, ResponseId};
use crate::rl::update::{Differing, MicroBatch, UpdateResults};
use omr_base::config::Parity;
use omr_base::error::{Error, Result};
use omr_base::observe::Observer;
use omr_runtime::device::Kind;

/// The first update of a step, whose log-probs are compared.
pub struct FirstUpdate<'a> {
    /// Number of the step, counted from 1.
    pub step: u64,
    /// Groups of the update.
    pub groups: &'a [Group],
    /// Micro-batches of the update.
    pub micro_batches: &'a [MicroBatch],
    /// Results of the update.
    pub results: &'a UpdateResults,
    /// Kind of device that computed it.
    pub device: Kind,
}

impl FirstUpdate<'_> {
    /// Compares the log-probs as `parity` requires: a difference is an error or a note to `observer`. Micro-batches with
    /// rollouts that were sampled with another arithmetic are excepted, with a note.
    pub fn check(&self, parity: Parity, observer: &dyn Observer) -> Result<()> {
        let step = self.step;
        if parity == Parity::Off {
            return Ok(());
        }
        let rollouts = self.groups.iter().flat_map(|group| &group.rollouts);
        let others: Vec<&String> = rollouts.filter_map(|rollout| rollout.sampled_with.as_ref()).collect();
        if let Some(other) = others.first() {
            observer.note(&format!(
                "step {step}: {} rollouts of the journal were sampled with another arithmetic ({other}): their \
                 log-probs may differ from the trainer's and are not checked",
                others.len()
            ));
        }
        let wrong: Vec<&Differing> = self.results.differing.iter().filter(|part| !self.is_excepted(part)).collect();
        let Some(first) = wrong.first() else { return Ok(()) };
        let text = self.text(first, wrong.iter().map(|part| part.tokens).sum());
        if parity == Parity::Error {
            return Err(Error::Failed(format!("{text}. parity=warn continues with a note")));
        }
        observer.note(&text);
        Ok(())
    }

    fn responses(&self, part: &Differing) -> &[ResponseId] {
        &self.micro_batches[part.micro_batch].responses
    }

    fn is_excepted(&self, part: &Differing) -> bool {
        let rollout = |id: &ResponseId| self.groups[id.group].rollouts.get(id.rollout);
        self.responses(part).iter().filter_map(rollout).any(|rollout| rollout.sampled_with.is_some())
    }

    /// Describes `tokens` differing tokens, of which the first is that of `part`.
    fn text(&self, part: &Differing, tokens: u64) -> String {
        let mut position = part.first;
        let mut place = String::new();
        for id in self.responses(part) {
            let (group, response) = (&self.groups[id.group], id.of(self.groups));
            let count = response.old_log_prob.len();
            if position < count {
                let token = response.input_ids[response.input_ids.len() - count + position];
                place = format!(
                    "token {position} (id {token}) of rollout {} of prompt {}, with the log-prob {} of the sampler",
                    id.rollout, group.number, response.old_log_prob[position]
                );
                break;
            }
            position -= count;
        }
        let (step, device, most) = (self.step, self.device.name(), self.results.probs_diff.log_prob_max);
        format!(
            "step {step}: {tokens} log-probs of the trainer differ from the sampler's, at most by {most:e}; the first is \
             {place}. Run omr bench parity --device {device} and omr doctor --device {device} to find the kernel"
        )
    }
}
