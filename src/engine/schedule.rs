//! What the scheduler is told, what it plans and what it gives back.

use std::ops::Range;

use crate::engine::block_manager::BlockCopy;
use crate::engine::sequence::Sequence;

/// Limits of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SchedulerConfig {
    /// Most rollouts in flight.
    pub max_num_seqs: usize,
    /// Most tokens computed in a step.
    pub max_num_batched_tokens: usize,
    /// Most tokens of a sequence, prompt included.
    pub max_model_len: usize,
    /// Blocks of the KV cache.
    pub num_blocks: usize,
    /// Keys in a block.
    pub block_size: usize,
    /// Rows of the vision cache.
    pub vision_rows: usize,
    /// Find computed blocks again by content.
    pub enable_prefix_caching: bool,
    /// Steps of fewer sequences are filled up to so many rows with drafted tokens; 0 drafts none.
    pub draft_rows: usize,
}

impl SchedulerConfig {
    /// Blocks of the longest sequence.
    pub fn max_blocks(&self) -> usize {
        self.max_model_len.div_ceil(self.block_size).min(self.num_blocks)
    }
}

/// A sequence in flight: a slot of `Scheduler::group` and a rollout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct SeqId {
    /// Slot of the group; used again once the group has ended.
    pub group: usize,
    /// Rollout of the group.
    pub rollout: usize,
}

/// The tokens `start..start + len` of a sequence, to be computed in this step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scheduled {
    /// Whose tokens.
    pub seq: SeqId,
    /// Index of the first token.
    pub start: usize,
    /// Number of tokens, drafted ones included; at least one.
    pub len: usize,
    /// Of these, the last: proposed to follow the sequence's own.
    pub draft: Vec<u32>,
    /// Which of the step's samples are drawn from the last token's row; empty when more tokens are pending. With a draft
    /// one from the row before it and from each of its own.
    pub samples: Range<usize>,
}

impl Scheduled {
    /// Drafted tokens before the place that sample number `sample` of the step is drawn for.
    pub fn ahead(&self, sample: usize) -> usize {
        if self.draft.is_empty() { 0 } else { sample - self.samples.start }
    }
}

/// An image the vision tower has to compute in this step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encode {
    /// Slot of a group whose prompt has it.
    pub group: usize,
    /// Index among the prompt's images.
    pub image: usize,
}

/// One step's plan.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// Block copies to be made first.
    pub copies: Vec<BlockCopy>,
    /// Images to be computed before the decoder runs.
    pub encode: Vec<Encode>,
    /// The tokens to be computed, by sequence.
    pub scheduled: Vec<Scheduled>,
    /// For whom a token is sampled, in the order of `scheduled`. Rollouts of a prompt that was just prefilled draw from the
    /// same row.
    pub samples: Vec<SeqId>,
}

impl Step {
    /// Tokens computed in it.
    pub fn num_tokens(&self) -> usize {
        self.scheduled.iter().map(|s| s.len).sum()
    }

    /// Keeps what stands of a step for which these were sampled: of each draft the tokens that were sampled at its places, up to
    /// the first that was not. The rest is taken out of the step and of both lists, as if it had never been planned.
    pub fn verify(&mut self, token_ids: &mut Vec<u32>, logprobs: &mut Vec<f32>) {
        let mut kept = 0;
        for s in &mut self.scheduled {
            let from = s.samples.clone();
            let stand = s.draft.iter().zip(&token_ids[from.clone()]).take_while(|(a, b)| a == b).count();
            let rejected = s.draft.len() - stand;
            s.draft.truncate(stand);
            s.len -= rejected;
            s.samples = kept..kept + from.len() - rejected;
            let from = from.start..from.end - rejected;
            self.samples.copy_within(from.clone(), kept);
            token_ids.copy_within(from.clone(), kept);
            logprobs.copy_within(from, kept);
            kept = s.samples.end;
        }
        self.samples.truncate(kept);
        token_ids.truncate(kept);
        logprobs.truncate(kept);
    }
}

/// A rollout that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The caller's name for the prompt.
    pub request: usize,
    /// The rollout, without blocks.
    pub sequence: Sequence,
}

/// Counts since the scheduler was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SchedulerStats {
    /// Steps planned.
    pub steps: u64,
    /// Tokens computed.
    pub computed_tokens: u64,
    /// Tokens sampled, of drafted steps those that stood.
    pub sampled_tokens: u64,
    /// Tokens drafted.
    pub drafted_tokens: u64,
    /// Of these, those that were sampled.
    pub accepted_tokens: u64,
    /// Tokens of the prompt or of preempted sequences that the prefix cache gave.
    pub cached_tokens: u64,
    /// Sequences that lost their blocks to others.
    pub preemptions: u64,
}

impl std::ops::AddAssign for SchedulerStats {
    fn add_assign(&mut self, more: SchedulerStats) {
        self.steps += more.steps;
        self.computed_tokens += more.computed_tokens;
        self.sampled_tokens += more.sampled_tokens;
        self.drafted_tokens += more.drafted_tokens;
        self.accepted_tokens += more.accepted_tokens;
        self.cached_tokens += more.cached_tokens;
        self.preemptions += more.preemptions;
    }
}
