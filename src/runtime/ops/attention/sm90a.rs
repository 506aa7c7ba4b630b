//! Launches of kernels/common/attend_sm90a.cuh, the wgmma variant of attention over packed sequences, of prefill and of
//! decode. TMA copies its operands. A start check verifies that its results are bitwise identical to those of the
//! `mma.sync` variant.

use super::names::{WideKernels, num_slots};
use crate::device::{Address, Device, Gpu, Launch, Params, Region, TensorMap, WgmmaKernels};
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::check;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Maximum number of rows (token, query head of the group) of a CTA; tokens are not split.
pub(crate) const ROWS: usize = 128;

/// Threads of a CTA: two consumer warpgroups that multiply and one producer warpgroup that copies.
pub(super) const THREADS: u32 = 384;

/// Threads of the two consumer warpgroups.
pub(super) const MATH: usize = 256;

/// Maximum number of CTAs of a launch: the multiprocessors of the largest GPU of compute capability 9.0.
const CTAS: usize = 132;

/// Columns of a panel in shared memory.
pub(super) const PANEL: usize = 64;
/// Panels of a head.
pub(super) const PANELS: usize = 2;

/// Returns the bytes of `attend::WideSmem`: queries, two stages of keys and of values, outputs of earlier chunks or
/// before their store, sums, the item, eleven barriers.
fn smem(dim: usize) -> usize {
    let panels = (ROWS + 4 * BLOCK) * PANELS * PANEL * 2;
    panels + MATH * dim / 2 * 4 + MATH * 8 + 8 + 11 * 8
}

/// Allocates the counter from which the CTAs of a launch take their tiles (`attend::WideArgs`). [`WideCall::launch`] sets
/// it to zero.
pub(crate) fn counter(dev: &mut Device) -> Result<Tensor> {
    dev.alloc(Region::Workspace, DType::U32, &[1])
}

/// Returns the tensor map of rows `[q heads | k heads | v heads]` as a tensor of three dimensions.
pub(crate) fn packed_map(address: Address, tokens: usize, heads: Heads, boxed: [usize; 2]) -> TensorMap {
    rows_map(address, [tokens, heads.q + 2 * heads.kv, heads.dim], boxed)
}

/// Returns the tensor map of `[tokens, heads, dim]`, in boxes of `boxed` = `[heads, tokens]`.
pub(super) fn rows_map(address: Address, [tokens, heads, dim]: [usize; 3], boxed: [usize; 2]) -> TensorMap {
    TensorMap {
        address,
        element: 2,
        dims: vec![dim as u64, heads as u64, tokens as u64],
        strides: vec![2 * dim as u64, 2 * (heads * dim) as u64],
        box_dims: vec![PANEL as u32, boxed[0] as u32, boxed[1] as u32],
        swizzle: 128,
    }
}

/// Returns the tensor map of packed rows. A box holds the keys, or the values, of one key head for [`BLOCK`] rows.
pub(crate) fn packed_keys(qkv: Address, tokens: usize, heads: Heads) -> TensorMap {
    packed_map(qkv, tokens, heads, [1, BLOCK])
}

/// Returns the tensor map of a paged cache, in boxes that hold one page of one key head.
pub(crate) fn paged_keys(cache: Address, blocks: usize, heads: Heads) -> TensorMap {
    rows_map(cache, [blocks * heads.kv, BLOCK, heads.dim], [BLOCK, 1])
}

/// A forward call that a wgmma kernel may run.
pub(crate) struct WideCall {
    pub qkv: Tensor,
    pub tokens: usize,
    pub sequences: usize,
    pub heads: Heads,
    /// True if all rows start at multiples of 16 bytes.
    pub wide: bool,
    /// Tensor maps of keys and of values.
    pub keys: [TensorMap; 2],
    /// Made by [`counter`].
    pub counter: Tensor,
}

impl WideCall {
    /// Launches one of `kernels`. `args` are the arguments of the `mma.sync` kernel. Returns false if the wgmma kernels
    /// do not support the device or the call.
    pub(in crate::ops) fn launch(&self, gpu: &mut Gpu<'_>, kernels: &WideKernels, args: &Params) -> Result<bool> {
        let (heads, group) = (self.heads, self.heads.group());
        if !takes(gpu, kernels, heads) || !self.wide || self.tokens == 0 {
            return Ok(false);
        }
        let tile_rows = ROWS / group * group;
        let slots = num_slots(gpu.op, self.tokens, self.sequences, group, tile_rows)?;
        let items = check::count(gpu.op, "tiles", slots as usize * heads.kv)? as usize;
        let q = packed_map(gpu.ptr(self.qkv), self.tokens, heads, [group, ROWS / group]);
        let [k, v] = &self.keys;
        // The additional fields of `attend::WideArgs`.
        let args = args.clone().with(self.counter).with(tile_rows as i32).with(slots);
        gpu.driver.fill(gpu.stream, gpu.memory.address(self.counter.span()), 0, self.counter.span().bytes)?;
        launch(gpu, kernels, heads, [&q, k, v], args, items)?;
        Ok(true)
    }
}

/// Returns true if the device runs one of `kernels` for these heads.
pub(in crate::ops) fn takes(gpu: &Gpu<'_>, kernels: &WideKernels, heads: Heads) -> bool {
    gpu.uses_wgmma(WgmmaKernels::Attention(heads.dim)) && heads.group() <= ROWS && kernels.of(heads.dim).is_some()
}

/// Launches the kernel for heads that [`takes`] accepts. The CTAs process `items` in turn. The kernel's arguments are
/// the maps of queries, keys and values, followed by `args`.
pub(in crate::ops) fn launch(
    gpu: &mut Gpu<'_>,
    kernels: &WideKernels,
    heads: Heads,
    maps: [&TensorMap; 3],
    args: Params,
    items: usize,
) -> Result<()> {
    let Some(kernel) = kernels.of(heads.dim) else { return Ok(()) };
    let args = behind_maps(gpu, maps, args)?;
    let ctas = items.min(CTAS).min(gpu.max_ctas);
    gpu.launch(kernels.file, kernel, Launch::new([ctas as u32, 1, 1], THREADS, smem(heads.dim)), args)
}

/// Returns the kernel's arguments: the tensor maps as encoded by the device, followed by `args`.
pub(super) fn behind_maps(gpu: &mut Gpu<'_>, maps: [&TensorMap; 3], args: Params) -> Result<Params> {
    let mut params = Params::default();
    for map in maps {
        params = params.with(gpu.driver.tensor_map(map)?);
    }
    Ok(params.with(args))
}
