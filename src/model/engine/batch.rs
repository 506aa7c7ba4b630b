//! Lays out a step as flat arrays, the inputs of the model's forward pass. This is host code without tensors. Buffers
//! are reused, so the host cost of a decode step depends only on the batch size.

use crate::engine::decode_graphs::padded_size;
use crate::engine::scheduler::{Scheduled, Scheduler, SchedulerConfig, Step};
use crate::nn::ModelConfig;
use crate::nn::rotary::{RopeTable, Rotary};
use crate::nn::weights::linear_layer::Adapted;
use omr_runtime::ops::paged_attention::DecodeStep;

/// The arrays of one step with `T` tokens of `S` sequences and `B` samples. If a sequence has a draft, its newest token
/// and each drafted token are laid out as separate sequences of one token, each with the keys before it. A step
/// of a few sequences with drafts is therefore laid out like a decode step of more sequences.
#[derive(Debug, Default)]
pub struct Batch {
    /// Token ids, `[T]`.
    pub input_ids: Vec<u32>,
    /// Rotary embedding of each token, `[T, head_dim / 2]`.
    pub rope: RopeTable,
    /// Cache slot of each token, `[T]`: block * block_size + index in the block.
    pub slot_mapping: Vec<u32>,
    /// Start offsets of the sequences, followed by `T`, `[S + 1]`.
    pub cu_seqlens_q: Vec<u32>,
    /// Number of keys of each sequence, including those of this step, `[S]`.
    pub context_lens: Vec<u32>,
    /// Blocks of each sequence, `[S, max_blocks]`, padded with block 0.
    pub block_tables: Vec<u32>,
    /// Number of columns of `block_tables`.
    pub max_blocks: usize,
    /// Rows of the vision cache that replace token embeddings.
    pub vision_rows: Vec<u32>,
    /// Index of the token that each of `vision_rows` replaces.
    pub vision_tokens: Vec<u32>,
    /// Index of the token that each sample is drawn from, `[B]`.
    pub sample_rows: Vec<u32>,
    /// True for each token to which the adapters of the model do not apply, `[T]`.
    of_base: Vec<bool>,
    rotary: Rotary,
}

impl Batch {
    /// Creates an empty batch for a model.
    pub fn new(config: &ModelConfig) -> Batch {
        Batch { rotary: Rotary::new(&config.text.rope), ..Batch::default() }
    }

    /// Returns the number of sequences.
    pub fn num_seqs(&self) -> usize {
        self.context_lens.len()
    }

    /// Fills the arrays from `step`.
    pub fn fill(&mut self, scheduler: &Scheduler, step: &Step) {
        self.clear();
        let block_size = scheduler.config().block_size;
        let blocks = |s: &Scheduled| (s.start + s.len).div_ceil(block_size);
        self.max_blocks = step.scheduled.iter().map(blocks).max().unwrap_or(0);
        self.cu_seqlens_q.push(0);
        for s in &step.scheduled {
            let (seq, end) = (scheduler.sequence(s.seq), s.start + s.len);
            let prompt = &scheduler.group(s.seq.group).request.prompt;
            for image in prompt.images.iter().filter(|image| image.overlaps(s.start, end)) {
                let rows = scheduler.vision().rows(&image.key).expect("required by the scheduler");
                let (from, to) = (s.start.max(image.start), end.min(image.start + image.rows));
                self.vision_rows.extend_from_slice(&rows[from - image.start..to - image.start]);
                let first = self.input_ids.len() + from - s.start;
                self.vision_tokens.extend(first as u32..(first + to - from) as u32);
            }
            let mut row = self.input_ids.len() as u32;
            self.input_ids.extend_from_slice(&seq.token_ids[s.start..end - s.draft.len()]);
            self.input_ids.extend_from_slice(&s.draft);
            self.of_base.resize(self.input_ids.len(), prompt.of_base);
            for i in s.start..end {
                let at = [0, 1, 2].map(|axis| prompt.position(axis, i));
                self.rotary.push(at, &mut self.rope);
                let block = seq.block_table[i / block_size] as usize;
                self.slot_mapping.push((block * block_size + i % block_size) as u32);
            }
            let each = if s.draft.is_empty() { s.len } else { 1 };
            for end in (s.start + each..=end).step_by(each) {
                let table = &seq.block_table[..end.div_ceil(block_size)];
                self.block_tables.extend_from_slice(table);
                self.block_tables.resize(self.block_tables.len() + self.max_blocks - table.len(), 0);
                self.context_lens.push(end as u32);
                row += each as u32;
                self.cu_seqlens_q.push(row);
            }
            let last = row - 1 - s.draft.len() as u32;
            self.sample_rows.extend(s.samples.clone().map(|at| last + s.ahead(at) as u32));
        }
    }

    /// Returns the tokens to which adapters apply.
    pub fn adapted(&self) -> Adapted<()> {
        match self.of_base.iter().filter(|of_base| **of_base).count() {
            0 => Adapted::All,
            n if n == self.of_base.len() => Adapted::None,
            _ => Adapted::Rows(()),
        }
    }

    /// Returns the table of [`Adapted::Rows`].
    pub fn adapted_rows(&self) -> Vec<u32> {
        let t = self.of_base.len() as u32;
        (0..t).zip(&self.of_base).map(|(row, &of_base)| if of_base { t } else { row }).collect()
    }

    /// Returns true if this is a decode step: one new token per sequence, one sample per token, and no image rows.
    pub fn is_decode(&self) -> bool {
        let s = self.num_seqs();
        let each =
            self.sample_rows.len() == s && self.sample_rows.iter().enumerate().all(|(i, &row)| row as usize == i);
        self.input_ids.len() == s && each && self.vision_rows.is_empty()
    }

    /// Pads a decode step to `size` sequences, and its block tables to `max_blocks` columns. The added sequences have
    /// one token each, whose key goes to `null_block`. At most `block_size` sequences can be added, because each of
    /// them needs a slot of its own in that block: kernels store the keys of all tokens at the same time.
    pub fn pad(&mut self, size: usize, max_blocks: usize, block_size: usize, null_block: u32) {
        let had = self.num_seqs();
        let mut tables = vec![null_block; size * max_blocks];
        for (to, from) in tables.chunks_exact_mut(max_blocks).zip(self.block_tables.chunks_exact(self.max_blocks)) {
            to[..from.len()].copy_from_slice(from);
        }
        (self.block_tables, self.max_blocks) = (tables, max_blocks);
        let half = self.rotary.width();
        self.input_ids.resize(size, 0);
        self.of_base.resize(size, self.of_base[had - 1]);
        self.rope.cos.resize(size * half, 1.0);
        self.rope.sin.resize(size * half, 0.0);
        let slots = null_block * block_size as u32..;
        self.slot_mapping.extend(slots.take(size - had));
        self.context_lens.resize(size, 1);
        self.cu_seqlens_q.extend(had as u32 + 1..=size as u32);
        self.sample_rows.extend(had as u32..size as u32);
    }

    /// Returns the decode step in the form from which attention creates its work items.
    pub fn decode_step(&self) -> DecodeStep<'_> {
        let Batch { cu_seqlens_q, context_lens, block_tables, .. } = self;
        DecodeStep { cu_seqlens_q, context_lens, block_tables }
    }

    /// Fills the largest batch that `limits` allow, for counting memory: a decode step if `decode` is true, else a step
    /// of any kind. Its contents are meaningless. With `mixed`, adapters apply to some of its tokens.
    pub fn fill_largest(&mut self, limits: &SchedulerConfig, decode: bool, mixed: bool) {
        self.clear();
        let s = padded_size(limits.max_num_seqs.min(limits.max_num_batched_tokens));
        let t = if decode { s } else { limits.max_num_batched_tokens.max(s) };
        self.max_blocks = limits.max_blocks();
        self.input_ids.resize(t, 0);
        self.of_base.push(false);
        self.of_base.resize(t, mixed);
        self.slot_mapping.resize(t, 0);
        self.rope = RopeTable::zeros(t * self.rotary.width());
        self.cu_seqlens_q.extend(0..s as u32);
        self.cu_seqlens_q.push(t as u32);
        self.context_lens.resize(s, limits.max_model_len.min(self.max_blocks * limits.block_size) as u32);
        self.block_tables.resize(s * self.max_blocks, 0);
        if !decode {
            self.vision_rows.resize(limits.vision_rows.min(t), 0);
            self.vision_tokens.resize(limits.vision_rows.min(t), 0);
        }
        self.sample_rows.resize(padded_size(limits.max_num_seqs), 0);
    }

    fn clear(&mut self) {
        let lists = [
            &mut self.input_ids,
            &mut self.slot_mapping,
            &mut self.cu_seqlens_q,
            &mut self.context_lens,
            &mut self.block_tables,
            &mut self.vision_rows,
            &mut self.vision_tokens,
            &mut self.sample_rows,
        ];
        lists.into_iter().for_each(Vec::clear);
        self.of_base.clear();
        self.rope.cos.clear();
        self.rope.sin.clear();
    }
}
