//! Drafts for speculative decoding. The code searches for earlier occurrences of a rollout's last few tokens, in its
//! prompt, in its own tokens and in the other rollouts of the prompt. The tokens that followed there become the draft.
//! A step computes the newest token and its draft together and samples after each of them. The samples that equal the
//! draft are accepted, and so is the first sample that differs.
//!
//! If a recorded version of the rollout exists, its tokens are used as the draft instead.
//!
//! Noise is keyed by position, and the result for a token is bitwise identical in any batch. Therefore drafts save
//! steps and change neither tokens nor log-probs. This is host code without tensors.

use std::collections::HashMap;

use crate::device::Kind;
use crate::engine::block_manager::BlockManager;
use crate::engine::schedule::{SchedulerConfig, SeqId, Step};
use crate::engine::sequence::{Group, Sequence};

/// Maximum number of tokens of a draft.
const DRAFT: usize = 8;

/// Minimum number of matching tokens for a draft, and the maximum number that is compared.
const MATCH: [usize; 2] = [3, 8];

/// Maximum number of earlier occurrences that are compared, the latest first.
const PLACES: usize = 32;

/// Returns the maximum number of rows of a step with drafts. A step with this number of rows takes little more time
/// than a step with one row.
///
/// On a GPU, a step reads all weights, two bytes each. The arithmetic of an H200 takes as long as this reading at 990
/// TFLOP/s / 4.8 TB/s = 206 rows. Its tiles have 64 rows, for which `tools/roofline` predicts 4.7 ms, compared with 3.8
/// ms for one row. On a CPU the time grows with each row while the weights fit into its cache: drafts saved 6 % of the
/// steps of the digits run and no time (bench/LOG.md), so drafts are off there.
pub fn rows(kind: Kind) -> usize {
    if kind.is_gpu() { 64 } else { 0 }
}

/// Returns the maximum number of rows of a step whose drafts come from a record and are normally all accepted:
/// `drafts`, the engine's own limit, or 64 if the engine uses no drafts.
pub fn rows_to_verify(drafts: usize) -> usize {
    if drafts > 0 { drafts } else { 64 }
}

/// Index of a text, and the end of a match in it.
type Place = (u32, u32);

#[derive(Debug, Default)]
struct Text {
    tokens: Vec<u32>,
    /// Previous occurrence of the tokens `i .. i + MATCH[0]`, for each index `i`.
    before: Vec<Option<Place>>,
}

/// The tokens of a prompt and its rollouts, with an index for the search. A token takes four bytes until
/// the first draft is requested, and about 50 bytes from then on.
#[derive(Debug, Default)]
struct Texts {
    texts: Vec<Text>,
    last: HashMap<[u32; MATCH[0]], Place>,
}

impl Texts {
    /// Appends the tokens of `tokens` that are not in `text` yet.
    fn learn(&mut self, text: usize, tokens: &[u32]) {
        if self.texts.len() <= text {
            self.texts.resize_with(text + 1, Text::default);
        }
        let known = &mut self.texts[text].tokens;
        known.extend_from_slice(&tokens[known.len()..]);
    }

    fn index(&mut self) {
        for (t, text) in self.texts.iter_mut().enumerate() {
            for window in text.tokens.windows(MATCH[0]).skip(text.before.len()) {
                let mut key = [0; MATCH[0]];
                key.copy_from_slice(window);
                let end = text.before.len() + MATCH[0];
                text.before.push(self.last.insert(key, (t as u32, end as u32)));
            }
        }
    }

    /// Proposes at most `most` tokens: those that followed the longest match with the end of `text`, or the latest of
    /// equally long matches.
    fn propose(&mut self, text: usize, most: usize) -> Vec<u32> {
        self.index();
        let own = &self.texts[text].tokens;
        let Some(suffix) = own.last_chunk::<{ MATCH[0] }>() else { return Vec::new() };
        let (mut longest, mut found) = (0, None);
        let mut next = self.last.get(suffix).copied();
        for _ in 0..PLACES {
            let Some((t, end)) = next else { break };
            let (place, end) = (&self.texts[t as usize], end as usize);
            next = place.before[end - MATCH[0]];
            let pairs = own.iter().rev().zip(place.tokens[..end].iter().rev());
            let same = pairs.take(MATCH[1]).take_while(|(a, b)| a == b).count();
            if same > longest && end < place.tokens.len() {
                (longest, found) = (same, Some((t as usize, end)));
            }
        }
        let mut draft = Vec::with_capacity(most);
        let Some((t, end)) = found else { return draft };
        for at in end..end + most {
            let known = self.texts[t].tokens.len();
            // If the match overlaps the end of the text, the text repeats itself, so the draft continues the
            // repetition.
            let again = (t == text && at >= known).then(|| draft[at - known]);
            match self.texts[t].tokens.get(at).copied().or(again) {
                Some(token) => draft.push(token),
                None => break,
            }
        }
        draft
    }
}

/// Proposes drafts for the scheduler's steps.
#[derive(Debug)]
pub(super) struct Drafter {
    rows: usize,
    max_model_len: usize,
    /// Texts by slot of the group: first the prompt, then its rollouts.
    texts: HashMap<usize, Texts>,
    /// Recorded rollouts, by request and rollout.
    recorded: Recorded,
}

/// Tokens of recorded rollouts, by number of the request and number of the rollout within the request.
pub type Recorded = HashMap<(usize, usize), Vec<u32>>;

impl Drafter {
    /// Creates a drafter within the limits of `config`.
    pub fn new(config: &SchedulerConfig) -> Drafter {
        let rows = config.draft_rows.min(config.max_num_seqs).min(config.max_num_batched_tokens);
        Drafter { rows, max_model_len: config.max_model_len, texts: HashMap::new(), recorded: Recorded::new() }
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
        if each == 0 || !alike {
            return;
        }
        for s in &step.scheduled {
            let group = groups[s.seq.group].as_ref().expect("a group in flight");
            let texts = self.texts.entry(s.seq.group).or_default();
            texts.learn(0, &group.request.prompt.token_ids);
            texts.learn(1 + s.seq.rollout, text(group.sequences[s.seq.rollout].as_ref().expect("scheduled")));
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

    /// Proposes at most `most` tokens for rollout `id`, one of `n` rollouts in the step, and reserves their blocks.
    fn draft(&mut self, id: SeqId, group: &mut Group, most: usize, blocks: &mut BlockManager, n: usize) -> Vec<u32> {
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
        let mut draft = match recorded.and_then(|tokens| tokens.strip_prefix(seq.completion())) {
            Some(rest) => rest[..most.min(rest.len())].to_vec(),
            None => self.texts.entry(id.group).or_default().propose(1 + id.rollout, most),
        };
        if let Some(stop) = draft.iter().position(|token| request.stop_token_ids.contains(token)) {
            draft.truncate(stop);
        }
        let held = seq.block_table.len() * blocks.block_size() - seq.num_tokens();
        if draft.len() > held && n + (draft.len() - held).div_ceil(blocks.block_size()) > blocks.num_free_blocks() {
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

    /// Keeps the tokens of a rollout that has ended, as a source of drafts for the other rollouts of its prompt.
    pub fn ended(&mut self, id: SeqId, sequence: &Sequence) {
        if self.rows > 0 {
            self.texts.entry(id.group).or_default().learn(1 + id.rollout, text(sequence));
        }
    }

    /// Drops the texts of a group that has ended.
    pub fn forget(&mut self, group: usize) {
        self.texts.remove(&group);
    }
}

/// Returns the sampled tokens, preceded by as many prompt tokens as a match can include.
fn text(sequence: &Sequence) -> &[u32] {
    &sequence.token_ids[sequence.num_prompt_tokens.saturating_sub(MATCH[1])..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the tokens that are proposed after the last of `texts`.
    fn proposed(texts: &[&[u32]], most: usize) -> Vec<u32> {
        let mut known = Texts::default();
        for (i, text) in texts.iter().enumerate() {
            // Texts are added token by token, as a rollout grows, with proposals in between. Neither may affect the
            // result.
            for end in 0..=text.len() {
                known.learn(i, &text[..end]);
                known.propose(i, most);
            }
        }
        known.propose(texts.len() - 1, most)
    }

    #[test]
    fn what_followed_the_longest_match_is_proposed() {
        let sibling: &[u32] = &[9, 1, 2, 3, 40, 41, 42, 8, 1, 2, 3, 50, 51];
        assert_eq!(proposed(&[sibling, &[9, 1, 2, 3]], 8), [40, 41, 42, 8, 1, 2, 3, 50], "the longer match");
        assert_eq!(proposed(&[sibling, &[7, 1, 2, 3]], 8), [50, 51], "the later of equal ones, to its end");
        assert_eq!(proposed(&[sibling, &[9, 1, 2, 3]], 2), [40, 41]);
        assert_eq!(proposed(&[sibling, &[5, 5, 2, 3]], 8), [0; 0], "two tokens are no match");
        assert_eq!(proposed(&[sibling, &[8, 50, 51]], 8), [0; 0]);
        assert_eq!(proposed(&[sibling, &[1, 2]], 8), [0; 0]);
    }

    #[test]
    fn no_match_is_longer_than_is_compared() {
        let long: Vec<u32> = (0..12).collect();
        let (a, b) = ([&long[..], &[100]].concat(), [&[99], &long[1..], &[200]].concat());
        assert_eq!(proposed(&[&a, &b, &long], 8), [200], "both have eight tokens and more: the later one");
    }

    #[test]
    fn a_circle_goes_on() {
        assert_eq!(proposed(&[&[1, 2, 3, 1, 2, 3]], 8), [1, 2, 3, 1, 2, 3, 1, 2]);
        assert_eq!(proposed(&[&[5, 5, 5, 5]], 3), [5, 5, 5]);
    }
}
