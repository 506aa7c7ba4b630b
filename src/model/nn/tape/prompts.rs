//! Prompts that several sequences of a pack share. Each prompt is computed once. The keys and values of a layer are
//! stored in blocks as the sampler stores them, so the attention of each row has the bits of the sampler: the sequences
//! share the complete blocks of their prompt, and each sequence has its own copy of the last, incomplete block.

use super::Tape;
use omr_base::error::Result;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::BLOCK;
use omr_runtime::ops::attention::Pack;
use omr_runtime::ops::paged_attention::{self, KvCache, Paged};
use omr_runtime::tensor::Tensor;

/// The value in a list of slots that stands for no slot.
const NO_SLOT: u32 = u32::MAX;

/// A pack whose sequences share prompts, with the places of its keys and values in blocks.
#[derive(Clone, Copy, Debug)]
pub struct SharedPrompts {
    /// Index of each sequence's prompt, u32 `[S]` (see [`omr_runtime::ops::attention::Bwd`]).
    pub prompt_of: Tensor,
    /// Row that is stored at each of `slots`, u32 `[N]`.
    rows: Tensor,
    /// Slots of a cache, u32 `[N]`: block * 128 + position in the block.
    slots: Tensor,
    /// Blocks of each sequence, u32 `[S, columns]`.
    block_tables: Tensor,
    /// Number of keys of each sequence with those of its prompt, u32 `[S]`.
    context_lens: Tensor,
    /// Number of blocks of the cache of a layer.
    blocks: usize,
}

/// The content of [`SharedPrompts`] on the host.
#[derive(Default, PartialEq, Eq, Debug)]
struct Places {
    rows: Vec<u32>,
    slots: Vec<u32>,
    tables: Vec<Vec<u32>>,
    context_lens: Vec<u32>,
    blocks: u32,
}

impl Places {
    fn new(cu_seqlens: &[u32], prompt_of: &[u32]) -> Places {
        let mut places = Places::default();
        for (s, &prompt) in prompt_of.iter().enumerate() {
            let (own, shared) = (cu_seqlens[s]..cu_seqlens[s + 1], cu_seqlens[prompt as usize]);
            let prompt_len = if prompt as usize == s { 0 } else { cu_seqlens[prompt as usize + 1] - shared };
            let complete = prompt_len / BLOCK as u32;
            let copied = shared + complete * BLOCK as u32..shared + prompt_len;
            let mut table = match prompt_len {
                0 => Vec::new(),
                _ => places.tables[prompt as usize][..complete as usize].to_vec(),
            };
            for (at, row) in copied.chain(own).enumerate() {
                if at % BLOCK == 0 {
                    table.push(places.blocks);
                    places.blocks += 1;
                }
                places.rows.push(row);
                places.slots.push(table[table.len() - 1] * BLOCK as u32 + (at % BLOCK) as u32);
            }
            places.tables.push(table);
            places.context_lens.push(prompt_len + cu_seqlens[s + 1] - cu_seqlens[s]);
        }
        places
    }
}

impl SharedPrompts {
    /// Copies the places of all keys to the device. The memory use depends only on the numbers of rows and of sequences.
    pub fn upload(tape: &Tape, dev: &mut Device, cu_seqlens: &[u32], prompt_of: &[u32]) -> Result<SharedPrompts> {
        let (sequences, tokens) = (prompt_of.len(), cu_seqlens[prompt_of.len()] as usize);
        let mut places = Places::new(cu_seqlens, prompt_of);
        let stored = tokens + (BLOCK - 1) * sequences;
        places.rows.resize(stored, 0);
        places.slots.resize(stored, NO_SLOT);
        let columns = tokens.div_ceil(BLOCK);
        places.tables.iter_mut().for_each(|table| table.resize(columns, 0));
        Ok(SharedPrompts {
            prompt_of: tape.upload(dev, prompt_of, &[sequences])?,
            rows: tape.upload(dev, &places.rows, &[stored])?,
            slots: tape.upload(dev, &places.slots, &[stored])?,
            block_tables: tape.upload(dev, &places.tables.concat(), &[sequences, columns])?,
            context_lens: tape.upload(dev, &places.context_lens, &[sequences])?,
            // A sequence's own rows begin and end in an incomplete block.
            blocks: tokens / BLOCK + 2 * sequences,
        })
    }

    /// Computes the attention of the rows `qkv` of `pack` and their log-sum-exps. Shapes are those of
    /// [`omr_runtime::ops::attention::fwd`].
    pub fn attend(&self, dev: &mut Device, pack: &Pack, qkv: Tensor, out: Tensor, lse: Tensor) -> Result<()> {
        let &SharedPrompts { rows, slots, block_tables, context_lens, blocks, .. } = self;
        let &Pack { cu_seqlens: cu_seqlens_q, heads, scale, pairs, .. } = pack;
        dev.scope(Region::Workspace, |dev| {
            let cache = KvCache::alloc(dev, Region::Workspace, qkv.dtype, blocks, heads)?;
            paged_attention::store_rows(dev, qkv, rows, slots, &cache)?;
            let paged = Paged { cache: &cache, block_tables, cu_seqlens_q, context_lens, heads, scale, decode: None };
            paged_attention::fwd_with_lse(dev, paged, qkv, out, lse, pairs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_share_complete_blocks_and_copy_the_last_one() {
        // A prompt of 130 rows with responses of 3 and 127 rows, then a sequence of its own.
        let places = Places::new(&[0, 130, 133, 260, 265], &[0, 0, 0, 3]);
        assert_eq!(places.tables, [vec![0, 1], vec![0, 2], vec![0, 3, 4], vec![5]]);
        assert_eq!(places.context_lens, [130, 133, 257, 5]);
        assert_eq!(places.blocks, 6);
        let stored = |row: u32| -> Vec<u32> {
            places.rows.iter().zip(&places.slots).filter(|(r, _)| **r == row).map(|(_, slot)| *slot).collect()
        };
        assert_eq!([stored(127), stored(128), stored(130)], [vec![127], vec![128, 256, 384], vec![258]]);
        assert_eq!([stored(133), stored(259), stored(264)], [vec![386], vec![512], vec![644]]);
        // A prompt that ends at the border of a block has nothing to copy.
        let places = Places::new(&[0, 128, 129], &[0, 0]);
        assert_eq!((places.tables, places.rows.len()), (vec![vec![0], vec![0, 1]], 129));
    }
}
