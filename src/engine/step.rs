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
    /// Number of tokens; at least one.
    pub len: usize,
    /// Which of the step's samples are drawn from the last token's row; empty when more tokens are pending.
    pub samples: Range<usize>,
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
    /// For whom a token is sampled. Rollouts of a prompt that was just prefilled draw from the same row.
    pub samples: Vec<SeqId>,
}

impl Step {
    /// Tokens computed in it.
    pub fn num_tokens(&self) -> usize {
        self.scheduled.iter().map(|s| s.len).sum()
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
    /// Tokens sampled.
    pub sampled_tokens: u64,
    /// Tokens of the prompt or of preempted sequences that the prefix cache gave.
    pub cached_tokens: u64,
    /// Sequences that lost their blocks to others.
    pub preemptions: u64,
}
