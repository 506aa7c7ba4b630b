//! Manages the blocks of the KV cache. Blocks are reference-counted, shared between sequences, copied on write, and
//! found again by content. This is host code; the model runner executes the copies.

use std::collections::{BTreeMap, HashMap};

use crate::engine::sequence::{BlockHash, OF_BASE, Prompt};

/// A copy of one block (source, destination), made before the step's keys are stored.
pub type BlockCopy = (u32, u32);

/// The blocks of one KV cache.
#[derive(Debug)]
pub struct BlockManager {
    /// Number of keys in a block.
    pub block_size: usize,
    ref_count: Vec<u32>,
    /// The free blocks, least recently used first: by [`BlockManager::freed_at`].
    free: BTreeMap<u64, u32>,
    /// Number of the release that freed each block. A new block counts as freed in the order of blocks.
    freed_at: Vec<u64>,
    releases: u64,
    hash: Vec<Option<BlockHash>>,
    /// Block by hash of its content. `None` if prefix caching is off.
    cached: Option<HashMap<BlockHash, u32>>,
}

impl BlockManager {
    /// Creates `num_blocks` free blocks of `block_size` keys each.
    pub fn new(num_blocks: usize, block_size: usize, prefix_caching: bool) -> BlockManager {
        assert!(num_blocks < u32::MAX as usize && block_size > 0, "{num_blocks} blocks of {block_size} keys");
        BlockManager {
            block_size,
            ref_count: vec![0; num_blocks],
            free: (0..num_blocks as u64).zip(0..).collect(),
            freed_at: (0..num_blocks as u64).collect(),
            releases: num_blocks as u64,
            hash: vec![None; num_blocks],
            cached: prefix_caching.then(HashMap::new),
        }
    }

    /// Returns the number of free blocks. The content of a free block can still be found by hash until the block is
    /// reused.
    pub fn num_free_blocks(&self) -> usize {
        self.free.len()
    }

    /// Returns true if blocks are found again by content.
    pub fn prefix_caching(&self) -> bool {
        self.cached.is_some()
    }

    /// Returns the number of block tables that contain `block`.
    pub fn ref_count(&self, block: u32) -> u32 {
        self.ref_count[block as usize]
    }

    /// Prepares `table` for writing the keys `start..end`: blocks in that range that are shared are replaced by new
    /// ones, and missing blocks are added. Returns the copies to make, or `None`, with nothing changed, if there are
    /// not enough free blocks.
    pub fn reserve(&mut self, table: &mut Vec<u32>, start: usize, end: usize) -> Option<Vec<BlockCopy>> {
        debug_assert!(start <= end && start <= table.len() * self.block_size, "a gap before key {start}");
        let last = end.div_ceil(self.block_size);
        let written = (start / self.block_size).min(table.len())..table.len().min(last);
        let shared = table[written.clone()].iter().filter(|&&b| self.ref_count[b as usize] > 1).count();
        let missing = last.saturating_sub(table.len());
        if shared + missing > self.free.len() {
            return None;
        }
        let mut copies = Vec::new();
        for i in written {
            let old = table[i];
            if self.ref_count[old as usize] > 1 {
                let fresh = self.take();
                self.ref_count[old as usize] -= 1;
                copies.push((old, fresh));
                table[i] = fresh;
            } else {
                self.forget(old);
            }
        }
        for _ in 0..missing {
            let fresh = self.take();
            table.push(fresh);
        }
        Some(copies)
    }

    /// Returns a second table that shares the blocks of `table`.
    pub fn fork(&mut self, table: &[u32]) -> Vec<u32> {
        for &b in table {
            self.acquire(b);
        }
        table.to_vec()
    }

    /// Releases the blocks of a table, the last one first, so that prefixes stay cached longer than the blocks after
    /// them.
    pub fn release(&mut self, table: &mut Vec<u32>) {
        for block in table.drain(..).rev() {
            let count = &mut self.ref_count[block as usize];
            assert!(*count > 0, "block {block} freed twice");
            *count -= 1;
            if *count == 0 {
                self.freed_at[block as usize] = self.releases;
                self.free.insert(self.releases, block);
                self.releases += 1;
            }
        }
    }

    /// Returns the blocks with the longest prefix of `hashes` that is in the cache.
    pub fn find(&self, hashes: &[BlockHash]) -> Vec<u32> {
        let cached = self.cached.as_ref();
        hashes.iter().map_while(|hash| cached?.get(hash).copied()).collect()
    }

    /// Registers the content of `block` under `hash`. If another block already has this content, the hash keeps
    /// referring to that block.
    pub fn register(&mut self, block: u32, hash: BlockHash) {
        let Some(cached) = &mut self.cached else { return };
        if self.hash[block as usize].is_none() && !cached.contains_key(&hash) {
            cached.insert(hash, block);
            self.hash[block as usize] = Some(hash);
        }
    }

    /// Drops the hashes of all blocks. Callers use it after the weights have changed.
    pub fn reset_prefix_cache(&mut self) {
        if let Some(cached) = &mut self.cached {
            cached.clear();
            self.hash.fill(None);
        }
    }

    fn acquire(&mut self, block: u32) {
        if self.ref_count[block as usize] == 0 {
            self.free.remove(&self.freed_at[block as usize]);
        }
        self.ref_count[block as usize] += 1;
    }

    fn take(&mut self) -> u32 {
        let (_, block) = self.free.pop_first().expect("the free blocks were counted before");
        self.forget(block);
        self.ref_count[block as usize] = 1;
        block
    }

    /// Drops the hash of a block whose content is about to change.
    fn forget(&mut self, block: u32) {
        if let (Some(hash), Some(cached)) = (self.hash[block as usize].take(), &mut self.cached) {
            cached.remove(&hash);
        }
    }
}

/// Extends `hashes` to the complete blocks of `token_ids[..computed]`. The hash of a block covers its tokens, the
/// images that overlap it (content, grid and position) and, through the hash of the previous block, everything before
/// it and whether adapters apply.
pub fn extend_hashes(
    hashes: &mut Vec<BlockHash>,
    prompt: &Prompt,
    token_ids: &[u32],
    computed: usize,
    block_size: usize,
) {
    for b in hashes.len()..computed / block_size {
        let (start, end) = (b * block_size, (b + 1) * block_size);
        let mut hasher = blake3::Hasher::new();
        match hashes.last() {
            Some(parent) => drop(hasher.update(parent.as_bytes())),
            None if prompt.of_base => drop(hasher.update(OF_BASE)),
            None => {}
        }
        hasher.update(bytemuck::cast_slice(&token_ids[start..end]));
        for image in prompt.images.iter().filter(|image| image.overlaps(start, end)) {
            hasher.update(&image.key);
            hasher.update(&(image.start as i64 - start as i64).to_le_bytes());
        }
        hashes.push(hasher.finalize());
    }
}
