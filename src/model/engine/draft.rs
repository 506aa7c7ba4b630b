//! Drafts for the verification of recorded rollouts. The recorded tokens that follow a rollout's own tokens are its draft.
//! A step computes the newest token and its draft together and samples after each of them. The samples that equal the
//! draft are accepted, and so is the first sample that differs.
//!
//! Noise is keyed by position, and the result for a token is bitwise identical in any batch. Therefore drafts save
//! steps and change neither tokens nor log-probs. This is host code without tensors.

use std::collections::HashMap;

use crate::engine::block_manager::BlockManager;
use crate::engine::schedule::{SchedulerConfig, SeqId, Step};
use crate::engine::sequence::Group;

/// Maximum number of tokens of a draft.
const DRAFT: usize = 8;

/// Maximum number of rows of a step with drafts. On a GPU, a step reads all weights, two bytes each. The arithmetic of
/// an H200 takes as long as this reading at 990 TFLOP/s / 4.8 TB/s = 206 rows. Its tiles have 64 rows, for which
/// `tools/roofline` predicts 4.7 ms, compared with 3.8 ms for one row.
pub const ROWS: usize = 64;

/// Tokens of recorded rollouts, by number of the request and number of the rollout within the request.
pub type Recorded = HashMap<(usize, usize), Vec<u32>>;

/// Adds drafts to the scheduler's steps.
#[derive(Debug)]
pub(super) struct Drafter {
    rows: usize,
    max_model_len: usize,
    recorded: Recorded,
}

impl Drafter {
    /// Creates a drafter within the limits of `config`.
    pub fn new(config: &SchedulerConfig) -> Drafter {
        let rows = config.draft_rows.min(config.max_num_seqs).min(config.max_num_batched_tokens);
        Drafter { rows, max_model_len: config.max_model_len, recorded: Recorded::new() }
    }

    /// Sets recorded rollouts, whose tokens are used as drafts from now on.
    pub fn expect(&mut self, recorded: Recorded) {
        self.recorded = recorded;
    }

    /// Adds drafts to a step that computes one new token for each of a few rollouts. The drafts must fit into the
    /// step's rows, into the rollouts' lengths, and into the free blocks. One free block per rollout stays in reserve,
    /// so that drafts never cause a preemption.
    pub fn fill(&mut self, step: &mut Step, groups: &mut [Option<Group>], blocks: &mut BlockManager) {
        let n = step.scheduled.len();
        let each = (self.rows / n.max(1)).saturating_sub(1).min(DRAFT);
        let alike = step.samples.len() == n && step.scheduled.iter().all(|s| s.len == 1 && s.samples.len() == 1);
        if each == 0 || !alike || self.recorded.is_empty() {
            return;
        }
        let mut samples = Vec::with_capacity(self.rows);
        for s in &mut step.scheduled {
            let group = groups[s.seq.group].as_mut().expect("a group in flight");
            if group.request.drafts {
                s.draft = self.draft(s.seq, group, each, blocks, n);
            }
            s.len += s.draft.len();
            let first = samples.len();
            samples.extend(std::iter::repeat_n(s.seq, s.len));
            s.samples = first..samples.len();
        }
        step.samples = samples;
    }

    /// Returns at most `most` recorded tokens for rollout `id`, one of `n` rollouts in the step, and reserves their blocks.
    fn draft(&self, id: SeqId, group: &mut Group, most: usize, blocks: &mut BlockManager, n: usize) -> Vec<u32> {
        let (request, seq) = (&group.request, group.sequences[id.rollout].as_mut().expect("scheduled"));
        let sampled = seq.completion().len();
        if sampled == 0 {
            // The last block of the rollout may belong to its prompt and be shared with others.
            return Vec::new();
        }
        // A step can accept one more token than was drafted. With this limit, only the last sample of a step can end a
        // rollout.
        let most = most.min(request.max_tokens - sampled - 1).min(self.max_model_len - seq.num_tokens() - 1);
        let recorded = self.recorded.get(&(request.request, id.rollout));
        let Some(rest) = recorded.and_then(|tokens| tokens.strip_prefix(seq.completion())) else { return Vec::new() };
        let mut draft = rest[..most.min(rest.len())].to_vec();
        if let Some(stop) = draft.iter().position(|token| request.stop_token_ids.contains(token)) {
            draft.truncate(stop);
        }
        let held = seq.block_table.len() * blocks.block_size - seq.num_tokens();
        if draft.len() > held && n + (draft.len() - held).div_ceil(blocks.block_size) > blocks.num_free_blocks() {
            draft.truncate(held);
        }
        if !draft.is_empty() {
            let from = seq.num_tokens();
            let copies = blocks.reserve(&mut seq.block_table, from, from + draft.len());
            debug_assert_eq!(
                copies,
                Some(Vec::new()),
                "blocks after a rollout's newest token belong to that rollout only"
            );
        }
        draft
    }
}
