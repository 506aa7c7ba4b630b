//! Launches of kernels/common/attend_sm90a.cuh, the second body of attention over packed sequences, of prefill and of decode:
//! by wgmma, operands by TMA. It has the first body's bits (`agreement` asks at start), which windows have alone.

use super::names::WideKernels;
use super::tiles;
use crate::device::{Address, Device, Gpu, Launch, Params, Region, TensorMap};
use crate::error::Result;
use crate::ops::attend::{BLOCK, CHUNK, Heads};
use crate::ops::check;
use crate::tensor::{DType, Tensor};

/// Rows (token, query head of the group) of a CTA, at most; whole tokens.
pub(crate) const ROWS: usize = 128;

/// Threads of a CTA: two warpgroups that multiply, one that copies.
pub(super) const THREADS: u32 = 384;

/// Those that multiply.
pub(super) const MATH: usize = 256;

/// CTAs at a time, at most: the multiprocessors of the largest card of compute capability 9.0.
const CTAS: usize = 132;

/// Columns of a panel in shared memory, and panels of a head.
pub(super) const PANEL: usize = 64;
pub(super) const PANELS: usize = 2;

/// `attend::WideSmem`: queries, two stages of keys and of values, outputs on their way, sums, eleven barriers.
fn smem(dim: usize) -> usize {
    let panels = (ROWS + 4 * BLOCK) * PANELS * PANEL * 2;
    panels + tiles::shared_rows(ROWS, dim) + MATH * 8 + 11 * 8
}

/// Scratch for the states of chunks before the present one (`attend::WideArgs`), where a sequence may have `longest` keys.
/// Empty where there is one chunk, or no such kernel.
pub(crate) fn totals(dev: &mut Device, heads: Heads, longest: usize) -> Result<Tensor> {
    let ctas = if longest > CHUNK && [80, 128].contains(&heads.dim) { CTAS } else { 0 };
    dev.alloc(Region::Workspace, DType::F32, &[ctas, (heads.dim / 2 + 4) * MATH])
}

/// Rows `[q heads | k heads | v heads]` as a tensor of three dimensions.
pub(crate) fn packed_map(address: Address, tokens: usize, heads: Heads, boxed: [usize; 2]) -> TensorMap {
    rows_map(address, [tokens, heads.q + 2 * heads.kv, heads.dim], boxed)
}

/// Rows of so many heads the same, in boxes of so many heads by tokens.
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

/// Boxes of a block of a key head's keys or values in packed rows.
pub(crate) fn packed_keys(qkv: Address, tokens: usize, heads: Heads) -> TensorMap {
    packed_map(qkv, tokens, heads, [1, BLOCK])
}

/// Boxes of a key head's page.
pub(crate) fn paged_keys(cache: Address, blocks: usize, heads: Heads) -> TensorMap {
    TensorMap {
        address: cache,
        element: 2,
        dims: vec![heads.dim as u64, BLOCK as u64, (blocks * heads.kv) as u64],
        strides: vec![2 * heads.dim as u64, (2 * BLOCK * heads.dim) as u64],
        box_dims: vec![PANEL as u32, BLOCK as u32, 1],
        swizzle: 128,
    }
}

/// A call that this body may take.
pub(crate) struct WideCall {
    pub qkv: Tensor,
    pub tokens: usize,
    pub sequences: usize,
    pub heads: Heads,
    /// Whether all rows start at multiples of 16 bytes.
    pub wide: bool,
    /// Boxes of keys and of values.
    pub keys: [TensorMap; 2],
    /// Of [`totals`].
    pub totals: Tensor,
}

impl WideCall {
    /// Launches one of `kernels` with what the other body's takes; false where the device or the call is not for it.
    pub(in crate::ops) fn launch(
        &self,
        op: &'static str,
        gpu: &mut Gpu<'_>,
        kernels: &WideKernels,
        args: &Params,
    ) -> Result<bool> {
        let (heads, group) = (self.heads, self.heads.group());
        if !takes(gpu, kernels, heads) || !self.wide || self.tokens == 0 {
            return Ok(false);
        }
        let tile_rows = ROWS / group * group;
        let slots = tiles::slots(op, self.tokens, self.sequences, group, tile_rows)?;
        let items = check::count(op, "tiles", slots as usize * heads.kv)? as usize;
        let q = packed_map(gpu.ptr(self.qkv), self.tokens, heads, [group, ROWS / group]);
        let [k, v] = &self.keys;
        // `attend::WideArgs`.
        let args = args.clone().with(self.totals).with(tile_rows as i32).with(slots);
        launch(gpu, kernels, heads, [&q, k, v], args, items)?;
        Ok(true)
    }
}

/// Whether the device runs one of `kernels` for these heads.
pub(in crate::ops) fn takes(gpu: &Gpu<'_>, kernels: &WideKernels, heads: Heads) -> bool {
    gpu.wgmma_attention && heads.group() <= ROWS && kernels.of(heads.dim).is_some()
}

/// Launches the kernel that [`takes`] the heads: CTAs that take `items` in turn, with maps of queries, keys and values and
/// the arguments behind them.
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
    let ctas = items.min(CTAS).min(gpu.driver.properties().multiprocessors as usize);
    gpu.launch(kernels.file, kernel, Launch::new([ctas as u32, 1, 1], THREADS, smem(heads.dim)), args)
}

/// A kernel's arguments behind the tensor maps that they begin with, as the device encodes these.
pub(super) fn behind_maps(gpu: &mut Gpu<'_>, maps: [&TensorMap; 3], args: Params) -> Result<Params> {
    let mut params = Params::default();
    for map in maps {
        params = params.with(gpu.driver.tensor_map(map)?);
    }
    Ok(params.with(args))
}
