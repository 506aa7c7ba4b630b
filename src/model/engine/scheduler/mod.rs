//! Plans what each step computes: continuous batching, chunked prefill, one prefill per prompt for all its rollouts,
//! and preemption by recomputation. This is host code that touches no tensor. The model runner executes a [`Step`], and
//! [`Scheduler::postprocess`] receives the sampled tokens.
//!
//! No decision made here may change a sampled token or its log-prob. This holds because a row's result is the same in
//! any batch, and because noise is keyed by prompt, rollout and position (see `docs/dev/design/engine.md`).

mod leave;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::engine::block_manager::{BlockManager, extend_hashes};
use crate::engine::draft::{Drafter, Recorded};
use crate::engine::sequence::{Group, GroupRequest, ImageSpan, Prompt, Sequence};
use crate::engine::vision_cache::VisionCache;
use omr_base::error::{Error, Result};

pub use crate::engine::schedule::{Encode, Finished, Scheduled, SchedulerConfig, SchedulerStats, SeqId, Step};

/// The scheduling policy and its state.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    blocks: BlockManager,
    vision: VisionCache,
    groups: Vec<Option<Group>>,
    vacant: Vec<usize>,
    /// Groups with rollouts that have not started, in order of arrival. A group whose prompt was just prefilled goes to
    /// the front.
    waiting: VecDeque<usize>,
    /// Preempted rollouts, which lost their blocks. They are admitted before anything else.
    preempted: VecDeque<SeqId>,
    running: Vec<SeqId>,
    drafter: Drafter,
    stats: SchedulerStats,
}

impl Scheduler {
    /// Creates a scheduler without requests. Errors if a limit is zero.
    pub fn new(config: SchedulerConfig) -> Result<Scheduler> {
        let SchedulerConfig { max_num_seqs, max_num_batched_tokens, max_model_len, num_blocks, block_size, .. } =
            config;
        for (name, value) in [
            ("max_num_seqs", max_num_seqs),
            ("max_num_batched_tokens", max_num_batched_tokens),
            ("max_model_len", max_model_len),
            ("num_kv_blocks", num_blocks),
            ("block_size", block_size),
        ] {
            if value == 0 {
                return Err(Error::input(name, "0", "at least 1"));
            }
        }
        Ok(Scheduler {
            blocks: BlockManager::new(num_blocks, block_size, config.enable_prefix_caching),
            vision: VisionCache::new(config.vision_rows),
            groups: Vec::new(),
            vacant: Vec::new(),
            waiting: VecDeque::new(),
            preempted: VecDeque::new(),
            running: Vec::new(),
            drafter: Drafter::new(&config),
            stats: SchedulerStats::default(),
            config,
        })
    }

    /// Sets recorded rollouts, whose tokens are used as drafts from now on.
    pub fn expect(&mut self, recorded: Recorded) {
        self.drafter.expect(recorded);
    }

    /// Returns the limits.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Returns the state of the KV cache blocks.
    pub fn blocks(&self) -> &BlockManager {
        &self.blocks
    }

    /// Returns the state of the vision cache.
    pub fn vision(&self) -> &VisionCache {
        &self.vision
    }

    /// Returns the counts so far.
    pub fn stats(&self) -> SchedulerStats {
        self.stats
    }

    /// Returns true if every rollout has ended.
    pub fn is_finished(&self) -> bool {
        self.vacant.len() == self.groups.len()
    }

    /// Returns the number of tokens of the prompts that have not started.
    pub fn waiting_tokens(&self) -> usize {
        self.waiting.iter().map(|&slot| self.group(slot).request.prompt.token_ids.len()).sum()
    }

    /// Returns the group in a slot. Panics if the slot is vacant.
    pub fn group(&self, group: usize) -> &Group {
        self.groups[group].as_ref().expect("a group in flight")
    }

    /// Returns a sequence in flight. Panics if it has ended.
    pub fn sequence(&self, id: SeqId) -> &Sequence {
        self.group(id.group).sequences[id.rollout].as_ref().expect("a sequence in flight")
    }

    /// Drops all cached blocks and images. Callers use it after the weights have changed. Panics if a sequence is in
    /// flight.
    pub fn reset_caches(&mut self) {
        assert!(self.is_finished(), "caches reset while sequences are in flight");
        self.blocks.reset_prefix_cache();
        self.vision.reset();
    }

    /// Adds a prompt and returns the slot of its group. Errors, without adding the prompt, if it could never run: if it
    /// is empty, if it is too long for the model's context or the KV cache, if an image is larger than the vision cache,
    /// or if no rollout or no token is requested.
    pub fn add(&mut self, request: GroupRequest) -> Result<usize> {
        let place = || request.prompt.place_or(request.request);
        let len = request.prompt.token_ids.len();
        if len == 0 {
            return Err(Error::input(place(), "no tokens", "at least one token"));
        }
        if request.n == 0 || request.max_tokens == 0 {
            let found = format!("n = {}, max_tokens = {}", request.n, request.max_tokens);
            return Err(Error::input(place(), found, "at least 1 for both"));
        }
        if len >= self.config.max_model_len {
            let expected = format!("fewer than max_model_len={}", self.config.max_model_len);
            return Err(Error::input(place(), format!("{len} tokens"), expected));
        }
        let longest = len.saturating_add(request.max_tokens).min(self.config.max_model_len);
        // The key of the last sampled token is never computed.
        let (keys, cache) = (longest - 1, self.config.num_blocks * self.config.block_size);
        if keys.div_ceil(self.config.block_size) > self.config.num_blocks {
            let expected =
                format!("at most {cache}, the size of the KV cache (raise num_kv_blocks or lower max_tokens)");
            return Err(Error::input(place(), format!("{keys} keys"), expected));
        }
        if let Some(image) = request.prompt.images.iter().find(|image| image.rows > self.vision.capacity) {
            let expected = format!("at most vision_rows={}", self.vision.capacity);
            return Err(Error::input(place(), format!("an image of {} rows", image.rows), expected));
        }
        let mut block_hashes = Vec::new();
        if self.blocks.prefix_caching() {
            let prompt = &request.prompt;
            extend_hashes(&mut block_hashes, prompt, &prompt.token_ids, len, self.config.block_size);
        }
        let sequences = (0..request.n).map(|_| None).collect();
        let group = Group {
            block_hashes,
            started: 0,
            finished: 0,
            prefilling: None,
            pinned: None,
            prompt_scored: 0,
            sequences,
            request,
        };
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        self.groups[slot] = Some(group);
        self.waiting.push_back(slot);
        Ok(slot)
    }

    /// Returns the number of sequences that run, and the number of rollouts that wait.
    pub fn num_running_and_waiting(&self) -> [usize; 2] {
        let waiting = |&slot: &usize| self.group(slot).request.n - self.group(slot).started;
        [self.running.len(), self.preempted.len() + self.waiting.iter().map(waiting).sum::<usize>()]
    }

    /// Plans the next step in this order:
    ///
    /// 1. one token for each sequence whose prompt is computed
    /// 2. further tokens of prompts whose prefill has begun
    /// 3. waiting sequences, if no sequence was preempted in this step
    /// 4. drafts, if the step computes one token for each of a few sequences
    ///
    /// The step is empty only if nothing is in flight.
    pub fn schedule(&mut self) -> Result<Step> {
        let mut step = Step::default();
        let mut budget = self.config.max_num_batched_tokens;
        let preemptions = self.stats.preemptions;
        self.vision.begin_step();
        for decode in [true, false] {
            let mut i = 0;
            while i < self.running.len() && budget > 0 {
                let (id, before) = (self.running[i], self.stats.preemptions);
                if (self.sequence(id).num_pending_tokens() == 1) == decode {
                    self.schedule_running(&mut step, &mut budget, id);
                }
                i = match self.stats.preemptions == before {
                    true => i + 1,
                    // The preemption may have removed sequences before this one, or this sequence itself.
                    false => self.running.iter().position(|&r| r == id).map_or(i, |at| at + 1),
                };
            }
        }
        if self.stats.preemptions == preemptions {
            self.admit(&mut step, &mut budget);
        }
        while step.scheduled.is_empty() && !self.is_finished() {
            if !self.unpin_last() && !self.running.is_empty() {
                return Err(Error::Failed("no sequence fits into the KV cache".into()));
            }
            self.admit(&mut step, &mut budget);
        }
        self.fork_prefilled(&mut step);
        self.drafter.fill(&mut step, &mut self.groups, &mut self.blocks);
        self.stats.steps += 1;
        self.stats.computed_tokens += step.num_tokens() as u64;
        self.stats.drafted_tokens += step.scheduled.iter().map(|s| s.draft.len() as u64).sum::<u64>();
        Ok(step)
    }

    /// Stores the step's sampled tokens, given in the order of its samples, and returns the rollouts that ended. A step
    /// with drafts must have passed through [`Step::verify`] first.
    pub fn postprocess(&mut self, step: &Step, token_ids: &[u32], logprobs: &[f32]) -> Vec<Finished> {
        assert_eq!((token_ids.len(), logprobs.len()), (step.samples.len(), step.samples.len()), "samples");
        self.stats.sampled_tokens += step.samples.len() as u64;
        self.stats.accepted_tokens += step.scheduled.iter().map(|s| s.draft.len() as u64).sum::<u64>();
        let mut ended = Vec::new();
        for ((&id, &token_id), &logprob) in step.samples.iter().zip(token_ids).zip(logprobs) {
            let group = self.groups[id.group].as_mut().expect("a group in flight");
            let seq = group.sequences[id.rollout].as_mut().expect("a sequence in flight");
            if seq.append(token_id, logprob, &group.request, self.config.max_model_len) {
                ended.push(id);
            }
        }
        // Register the computed blocks before ended rollouts release them, so that the prefix cache can find them
        // again.
        step.scheduled.iter().for_each(|s| self.computed(s));
        let finished: Vec<Finished> = ended.into_iter().map(|id| self.end(id)).collect();
        if !finished.is_empty() {
            let groups = &self.groups;
            self.running.retain(|r| groups[r.group].as_ref().is_some_and(|g| g.sequences[r.rollout].is_some()));
        }
        finished
    }

    /// Records that the tokens of `s` are in the cache.
    fn computed(&mut self, s: &Scheduled) {
        let group = self.groups[s.seq.group].as_mut().expect("a group in flight");
        let seq = group.sequences[s.seq.rollout].as_mut().expect("a sequence in flight");
        seq.num_computed_tokens = s.start + s.len;
        group.prompt_scored = group.prompt_scored.max(seq.num_computed_tokens);
        if self.blocks.prefix_caching() {
            let size = self.config.block_size;
            let prompt = &group.request.prompt;
            extend_hashes(&mut seq.block_hashes, prompt, &seq.token_ids, seq.num_computed_tokens, size);
            for b in s.start / size..seq.num_computed_tokens / size {
                self.blocks.register(seq.block_table[b], seq.block_hashes[b]);
            }
        }
    }

    /// Removes a rollout that has ended.
    fn end(&mut self, id: SeqId) -> Finished {
        let group = self.groups[id.group].as_mut().expect("a group in flight");
        let mut sequence = group.sequences[id.rollout].take().expect("a sequence in flight");
        self.blocks.release(&mut sequence.block_table);
        group.finished += 1;
        let request = group.request.request;
        if group.finished == group.request.n {
            self.groups[id.group] = None;
            self.vacant.push(id.group);
        }
        Finished { request, sequence }
    }

    /// Plans as many tokens as possible of a running sequence. If necessary, sequences after it in the running list are
    /// preempted to free their blocks.
    fn schedule_running(&mut self, step: &mut Step, budget: &mut usize, id: SeqId) {
        let seq = self.sequence(id);
        let start = seq.num_computed_tokens;
        let wanted = seq.num_pending_tokens().min(*budget);
        let prompt = self.group(id.group).request.prompt.clone();
        let len = self.require_images(step, id.group, &prompt, start, wanted);
        if len == 0 {
            return;
        }
        loop {
            if self.try_schedule(step, budget, id, start, len) {
                return;
            }
            if self.unpin_last() {
                continue;
            }
            let victim = self.running.iter().rev().copied().find(|v| !step.scheduled.iter().any(|s| s.seq == *v));
            match victim {
                Some(victim) if victim != id => self.preempt(victim),
                // Other sequences run in this step and free their blocks when they end. This sequence waits and keeps
                // what is computed.
                _ if !step.scheduled.is_empty() => return,
                _ => {
                    self.preempt(id);
                    return;
                }
            }
        }
    }

    /// Reserves blocks for `len` tokens of a sequence and plans them. Returns false if there are not enough blocks.
    fn try_schedule(&mut self, step: &mut Step, budget: &mut usize, id: SeqId, start: usize, len: usize) -> bool {
        let seq = self.groups[id.group].as_mut().and_then(|g| g.sequences[id.rollout].as_mut());
        let seq = seq.expect("a sequence in flight");
        let Some(copies) = self.blocks.reserve(&mut seq.block_table, start, start + len) else { return false };
        let last = start + len == seq.num_tokens();
        step.copies.extend(copies);
        let first = step.samples.len();
        if last {
            step.samples.push(id);
        }
        let samples = first..step.samples.len();
        step.scheduled.push(Scheduled { seq: id, start, len, draft: Vec::new(), samples });
        *budget -= len;
        true
    }

    /// Makes sure that the vision cache holds the images among the `len` tokens from `start`. Returns how many of these
    /// tokens can be computed.
    fn require_images(
        &mut self,
        step: &mut Step,
        group: usize,
        prompt: &Arc<Prompt>,
        start: usize,
        len: usize,
    ) -> usize {
        let in_reach = |image: &ImageSpan| image.overlaps(start, start + len);
        for (i, image) in prompt.images.iter().enumerate().filter(|(_, image)| in_reach(image)) {
            match self.vision.require(image) {
                Some(true) => step.encode.push(Encode { group, image: i }),
                Some(false) => {}
                None => return image.start.saturating_sub(start),
            }
        }
        len
    }

    /// Admits waiting sequences while there is room: first preempted ones, then rollouts of prefilled prompts and new
    /// prompts in order of arrival. Wide requests let others pass when they have used up their places.
    fn admit(&mut self, step: &mut Step, budget: &mut usize) {
        let mut wide = self.num_wide();
        while *budget > 0 && self.running.len() < self.config.max_num_seqs {
            let has_place = |&&slot: &&usize| self.group(slot).has_place(wide, self.config.max_num_seqs);
            let id = match (self.preempted.front(), self.waiting.iter().find(has_place)) {
                (Some(&id), _) => id,
                (None, Some(&group)) => SeqId { group, rollout: self.group(group).started },
                (None, None) => return,
            };
            if !self.admit_one(step, budget, id) {
                return;
            }
            wide += usize::from(self.group(id.group).request.is_wide);
        }
    }

    /// Returns the number of running sequences of wide requests.
    fn num_wide(&self) -> usize {
        self.running.iter().filter(|id| self.group(id.group).request.is_wide).count()
    }

    fn admit_one(&mut self, step: &mut Step, budget: &mut usize, id: SeqId) -> bool {
        let resumed = self.preempted.front() == Some(&id);
        let size = self.config.block_size;
        let group = self.groups[id.group].as_mut().expect("a group in flight");
        let prompt = group.request.prompt.clone();
        let mut seq = group.sequences[id.rollout].take().unwrap_or_else(|| Sequence::new(group, id.rollout));
        let last_rollout = id.rollout + 1 == group.request.n;
        let pinned = if resumed { None } else { group.pinned.take() };
        let late = pinned.is_some();
        if let Some(table) = pinned {
            // The prompt is computed, but the row to sample from is gone, so its last token is computed again.
            seq.num_computed_tokens = prompt.token_ids.len() - 1;
            seq.block_table = table;
            if !last_rollout {
                group.pinned = Some(self.blocks.fork(&seq.block_table));
            }
        } else {
            let found = self.blocks.find(&seq.block_hashes);
            seq.block_table = self.blocks.fork(&found[..group.used_of(found.len(), seq.num_tokens(), size)]);
            seq.num_computed_tokens = seq.block_table.len() * size;
            seq.num_cached_tokens = seq.num_computed_tokens;
        }
        let looked_up = if late { 0 } else { seq.num_tokens() };
        let (start, cached) = (seq.num_computed_tokens, seq.num_cached_tokens);
        let wanted = seq.num_pending_tokens().min(*budget);
        group.sequences[id.rollout] = Some(seq);
        let len = self.require_images(step, id.group, &prompt, start, wanted);
        // If other sequences run, keep a block free for each of them (at most a sixteenth of all blocks), because
        // admitting fewer sequences is better than preempting more.
        let spare = if self.running.is_empty() { 0 } else { self.running.len().min(self.config.num_blocks / 16) };
        let needed = (start + len).div_ceil(size) - start / size;
        let fits = len > 0 && (self.running.is_empty() || needed + spare <= self.blocks.num_free_blocks());
        let placed = fits && self.try_schedule(step, budget, id, start, len);
        let group = self.groups[id.group].as_mut().expect("a group in flight");
        if placed {
            self.stats.cached_tokens += cached as u64;
            self.stats.looked_up_tokens += looked_up as u64;
            self.running.push(id);
            if resumed {
                self.preempted.pop_front();
            } else {
                group.started += 1;
                if !late {
                    group.prefilling = Some(id.rollout);
                }
                if !late || last_rollout {
                    self.waiting.retain(|&slot| slot != id.group);
                }
            }
            return true;
        }
        let seq = group.sequences[id.rollout].as_mut().expect("a sequence in flight, restored above");
        if late && last_rollout {
            group.pinned = Some(std::mem::take(&mut seq.block_table));
        } else {
            self.blocks.release(&mut seq.block_table);
        }
        seq.num_computed_tokens = 0;
        if !resumed {
            group.sequences[id.rollout] = None;
        }
        false
    }

    /// Starts the other rollouts of each prompt whose last token is computed in this step. They sample from the same
    /// row. Rollouts start while there is room; the others wait, and the prompt's blocks stay pinned for them.
    fn fork_prefilled(&mut self, step: &mut Step) {
        let (mut promised, mut wide) = (0, self.num_wide());
        let scheduled = std::mem::take(&mut step.scheduled);
        let mut samples = Vec::with_capacity(step.samples.len());
        for mut s in scheduled {
            let first = samples.len();
            samples.extend_from_slice(&step.samples[s.samples.clone()]);
            let group = self.groups[s.seq.group].as_mut().expect("a group in flight");
            if group.prefilling == Some(s.seq.rollout) && s.start + s.len >= group.request.prompt.token_ids.len() {
                group.prefilling = None;
                let table = group.sequences[s.seq.rollout].as_ref().expect("a sequence in flight").block_table.clone();
                while group.started < group.request.n
                    && self.running.len() < self.config.max_num_seqs
                    && group.has_place(wide, self.config.max_num_seqs)
                    && promised < self.blocks.num_free_blocks()
                {
                    let id = SeqId { group: s.seq.group, rollout: group.started };
                    let mut seq = Sequence::new(group, id.rollout);
                    seq.block_table = self.blocks.fork(&table);
                    seq.num_computed_tokens = seq.num_prompt_tokens;
                    group.sequences[id.rollout] = Some(seq);
                    group.started += 1;
                    self.running.push(id);
                    samples.push(id);
                    promised += 1;
                    wide += usize::from(group.request.is_wide);
                }
                if group.started < group.request.n {
                    group.pinned = Some(self.blocks.fork(&table));
                    self.waiting.push_front(s.seq.group);
                }
            }
            s.samples = first..samples.len();
            step.scheduled.push(s);
        }
        step.samples = samples;
    }

    /// Preempts a running sequence: its blocks are released, and it is computed again from its tokens later.
    fn preempt(&mut self, id: SeqId) {
        self.stats.preemptions += 1;
        self.running.retain(|&r| r != id);
        let group = self.groups[id.group].as_mut().expect("a group in flight");
        let seq = group.sequences[id.rollout].as_mut().expect("a sequence in flight");
        self.blocks.release(&mut seq.block_table);
        seq.num_computed_tokens = 0;
        self.preempted.push_front(id);
    }

    /// Releases the blocks of the last pinned prompt in the waiting queue. Its next rollout will prefill the prompt
    /// again. Returns false if no prompt is pinned.
    fn unpin_last(&mut self) -> bool {
        for &slot in self.waiting.iter().rev() {
            if let Some(mut table) = self.groups[slot].as_mut().and_then(|g| g.pinned.take()) {
                self.blocks.release(&mut table);
                return true;
            }
        }
        false
    }
}
