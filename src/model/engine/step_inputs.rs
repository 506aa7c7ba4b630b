//! The arrays of one engine step in device memory.

use crate::engine::batch::Batch;
use crate::nn::tape::Tape;
use crate::nn::tape::layers::{Paging, Rope};
use crate::nn::weights::linear_layer::Adapted;
use omr_base::error::Result;
use omr_runtime::device::Device;
use omr_runtime::ops::paged_attention::{Decode, Split};
use omr_runtime::ops::sample::{Draw, logit_columns};
use omr_runtime::tensor::{DType, Tensor};

/// The tensors that the sampler reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples {
    /// Row that each sample is drawn from, u32 `[B]`.
    pub rows: Tensor,
    /// Table of the draws; see [`Draw::upload`].
    pub table: Tensor,
    /// Sampled tokens, u32 `[B]`, written by the step.
    pub token_ids: Tensor,
    /// Log-probs, f32 `[B]`, written by the step.
    pub logprobs: Tensor,
    /// Kept logits, f32 `[B, logit_columns(V)]`, written by the step. `None` if no row is kept in any step.
    pub logits: Option<Tensor>,
}

/// The tensors that a step's forward reads and writes, apart from weights and caches. They are allocated before
/// everything else in the forward, so two steps of equal sizes have them at equal addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepInputs {
    /// Token ids, u32 `[T]`.
    pub input_ids: Tensor,
    /// Rotary embedding of each token.
    pub rope: Rope,
    /// Cache slots and block tables.
    pub paging: Paging,
    /// Tokens to which adapters apply.
    pub adapted: Adapted,
    /// Rows of the vision cache and the tokens they replace, both u32. `None` without images.
    pub vision: Option<(Tensor, Tensor)>,
    /// Tensors of the sampler. `None` if nothing is sampled.
    pub samples: Option<Samples>,
}

impl StepInputs {
    /// Uploads `batch` and `draws` on top of the tape's region. `vocab` is the number of ids if logits are kept. For a
    /// decode step on a GPU, `split` contains the attention work items, which are also uploaded, and their arrival
    /// counters, which are already on the device.
    pub fn upload(
        dev: &mut Device,
        tape: &Tape,
        batch: &Batch,
        draws: &[Draw],
        vocab: Option<usize>,
        split: Option<(&Split, Tensor)>,
    ) -> Result<StepInputs> {
        let (t, s, b) = (batch.input_ids.len(), batch.num_seqs(), batch.sample_rows.len());
        let table = [t, batch.rope.cos.len() / t];
        let vision = match batch.vision_rows.len() {
            0 => None,
            n => Some((tape.upload(dev, &batch.vision_rows, &[n])?, tape.upload(dev, &batch.vision_tokens, &[n])?)),
        };
        let columns = vocab.filter(|_| b > 0).map(logit_columns);
        let logits = columns.map(|columns| dev.alloc(tape.region(), DType::F32, &[b, columns])).transpose()?;
        let samples = match b {
            0 => None,
            _ => Some(Samples {
                rows: tape.upload(dev, &batch.sample_rows, &[b])?,
                table: Draw::upload(dev, tape.region(), draws)?,
                token_ids: dev.alloc(tape.region(), DType::U32, &[b])?,
                logprobs: dev.alloc(tape.region(), DType::F32, &[b])?,
                logits,
            }),
        };
        let decode = split.map(|(split, tickets)| Decode::upload(dev, tape.region(), split, tickets)).transpose()?;
        let adapted = match batch.adapted() {
            Adapted::All => Adapted::All,
            Adapted::None => Adapted::None,
            Adapted::Rows(()) => Adapted::Rows(tape.upload(dev, &batch.adapted_rows(), &[t])?),
        };
        Ok(StepInputs {
            adapted,
            input_ids: tape.upload(dev, &batch.input_ids, &[t])?,
            rope: Rope {
                cos: tape.upload(dev, &batch.rope.cos, &table)?,
                sin: tape.upload(dev, &batch.rope.sin, &table)?,
            },
            paging: Paging {
                slot_mapping: tape.upload(dev, &batch.slot_mapping, &[t])?,
                block_tables: tape.upload(dev, &batch.block_tables, &[s, batch.max_blocks])?,
                cu_seqlens_q: tape.upload(dev, &batch.cu_seqlens_q, &[s + 1])?,
                context_lens: tape.upload(dev, &batch.context_lens, &[s])?,
                decode,
            },
            vision,
            samples,
        })
    }

    /// Returns the sampled tokens and their log-probs. Waits for the step.
    pub fn read(&self, dev: &mut Device) -> Result<(Vec<u32>, Vec<f32>)> {
        let Some(samples) = self.samples else { return Ok((Vec::new(), Vec::new())) };
        Ok((dev.read(samples.token_ids)?, dev.read(samples.logprobs)?))
    }
}
