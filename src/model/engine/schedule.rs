//! The data types at the scheduler's interface: its limits, the steps it plans, and the rollouts it returns.

use std::ops::Range;

use crate::engine::block_manager::BlockCopy;
use crate::engine::sequence::Sequence;

/// Limits of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SchedulerConfig {
    /// Maximum number of rollouts in flight.
    pub max_num_seqs: usize,
    /// Maximum number of tokens computed in a step.
    pub max_num_batched_tokens: usize,
    /// Maximum number of tokens of a sequence, including the prompt.
    pub max_model_len: usize,
    /// Number of blocks of the KV cache.
    pub num_blocks: usize,
    /// Number of keys in a block.
    pub block_size: usize,
    /// Number of rows of the vision cache.
    pub vision_rows: usize,
    /// True if computed blocks are found again by content (prefix caching).
    pub enable_prefix_caching: bool,
    /// Number of rows up to which drafted tokens are added to a step with fewer sequences. 0 disables drafts.
    pub draft_rows: usize,
}

impl SchedulerConfig {
    /// Returns the number of blocks of the longest sequence.
    pub fn max_blocks(&self) -> usize {
        self.max_model_len.div_ceil(self.block_size).min(self.num_blocks)
    }
}

/// Identifies a sequence in flight by its group's slot in the scheduler and its rollout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct SeqId {
    /// Slot of the group. It is reused after the group has ended.
    pub group: usize,
    /// Index of the rollout within the group.
    pub rollout: usize,
}

/// The tokens `start..start + len` of a sequence, which are computed in this step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scheduled {
    /// The sequence.
    pub seq: SeqId,
    /// Index of the first token.
    pub start: usize,
    /// Number of tokens, including drafted ones, at least one.
    pub len: usize,
    /// Drafted tokens. They are the last tokens of the range.
    pub draft: Vec<u32>,
    /// Range of the step's samples that belong to this sequence. Without a draft, they are drawn from the row of the
    /// sequence's last token, and the range is empty if more tokens are pending. With a draft, one sample is drawn from
    /// the row before the draft and one from each drafted row.
    pub samples: Range<usize>,
}

impl Scheduled {
    /// Returns the number of this sequence's drafted tokens that precede the step's sample number `sample`.
    pub fn ahead(&self, sample: usize) -> usize {
        if self.draft.is_empty() { 0 } else { sample - self.samples.start }
    }
}

/// An image that the vision tower must compute in this step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encode {
    /// Slot of a group whose prompt contains the image.
    pub group: usize,
    /// Index of the image within the prompt.
    pub image: usize,
}

/// The plan of one step.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// Block copies to make first.
    pub copies: Vec<BlockCopy>,
    /// Images to compute before the decoder runs.
    pub encode: Vec<Encode>,
    /// Tokens to compute, by sequence.
    pub scheduled: Vec<Scheduled>,
    /// Sequence of each sample, in the order of `scheduled`. Rollouts of a prompt that was just prefilled are sampled
    /// from the same row.
    pub samples: Vec<SeqId>,
}

impl Step {
    /// Returns the number of tokens computed in the step.
    pub fn num_tokens(&self) -> usize {
        self.scheduled.iter().map(|s| s.len).sum()
    }

    /// Compares the drafts with the sampled tokens. The tokens of each draft are accepted up to the first one that
    /// differs from the sample at its position. The rest is removed from the step, from `token_ids` and from
    /// `logprobs`, as if it had never been planned.
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
    /// The caller's number for the request.
    pub request: usize,
    /// The rollout. Its blocks are already released.
    pub sequence: Sequence,
}

/// Counts since the scheduler was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SchedulerStats {
    /// Number of steps planned.
    pub steps: u64,
    /// Number of tokens computed.
    pub computed_tokens: u64,
    /// Number of tokens sampled. Rejected samples of drafts do not count.
    pub sampled_tokens: u64,
    /// Number of tokens drafted.
    pub drafted_tokens: u64,
    /// Number of drafted tokens that were accepted.
    pub accepted_tokens: u64,
    /// Number of tokens, of prompts or preempted sequences, that the prefix cache supplied.
    pub cached_tokens: u64,
    /// Number of tokens, of prompts or preempted sequences, that were looked up in the prefix cache.
    pub looked_up_tokens: u64,
    /// Number of preemptions.
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
        self.looked_up_tokens += more.looked_up_tokens;
        self.preemptions += more.preemptions;
    }
}
