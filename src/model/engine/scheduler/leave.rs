//! Rollouts that leave the scheduler before their end, and the return to the start of all others. These functions must
//! not be called between [`Scheduler::schedule`] and [`Scheduler::postprocess`].

use super::{Scheduler, SeqId};

impl Scheduler {
    /// Ends all rollouts in flight and frees their blocks.
    pub fn abort(&mut self) {
        (0..self.groups.len()).for_each(|slot| self.abort_group(slot));
    }

    /// Ends the rollouts of the group in `slot`, if there is one, and frees their blocks.
    pub fn abort_group(&mut self, slot: usize) {
        let Some(mut group) = self.groups[slot].take() else { return };
        for table in group.sequences.iter_mut().flatten().map(|s| &mut s.block_table).chain(&mut group.pinned) {
            self.blocks.release(table);
        }
        self.vacant.push(slot);
        self.waiting.retain(|&waiting| waiting != slot);
        self.preempted.retain(|id| id.group != slot);
        self.running.retain(|id| id.group != slot);
    }

    /// Ends one rollout and frees its blocks. Returns false if it is not in flight: if it has ended or not started.
    pub fn abort_sequence(&mut self, id: SeqId) -> bool {
        let Some(group) = self.groups[id.group].as_mut() else { return false };
        if group.sequences[id.rollout].is_none() {
            return false;
        }
        if group.prefilling == Some(id.rollout) {
            group.prefilling = None;
            if group.started < group.request.n {
                self.waiting.push_front(id.group);
            }
        }
        self.end(id);
        self.preempted.retain(|&other| other != id);
        self.running.retain(|&other| other != id);
        true
    }

    /// Drops all cached blocks and images while rollouts are in flight. They keep their tokens and are computed again,
    /// and so are the rows of the prompts of `rescored` requests. Callers use it after the weights have changed.
    pub fn recompute(&mut self, rescored: impl Fn(usize) -> bool) {
        while let Some(&id) = self.running.last() {
            self.preempt(id);
        }
        while self.unpin_last() {}
        for group in self.groups.iter_mut().flatten() {
            if rescored(group.request.request) {
                group.prompt_scored = 0;
            }
        }
        self.blocks.reset_prefix_cache();
        self.vision.reset();
    }
}
