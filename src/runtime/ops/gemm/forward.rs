//! Launches of linear layers and their epilogues: kernels/gemm.cu and kernels/gemm_sm90a.cu.

use super::codes::{self, CodeNames, code_names};
use super::config::Role;
use super::sm90a::{Shape, Staged, Wide, WideKernels, wide_names};
use super::tile::{KernelNames, Names, SM90A, Tile, kernel_names, operands, tile_names};
use crate::device::{Gpu, params};
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::check;
use crate::ops::gelu::GeluKind;
use crate::ops::input::Input;
use crate::ops::matmul::Weight;
use crate::ops::paged_attention::KvCache;
use crate::tensor::Tensor;
use omr_base::error::Result;

/// Tensors of a linear layer.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Forward<'a> {
    pub x: Input,
    pub w: &'a Weight,
    pub bias: Option<Tensor>,
    /// Residual that is added, or memory for the values before the activation, stored in addition to y.
    pub more: Option<Tensor>,
    pub y: Tensor,
}

/// Launches a linear layer. `shape` selects a wgmma epilogue that copies its tensors by TMA. `None` selects the wgmma
/// epilogue that processes slices of columns.
/// `codes` are the kernels for quantised weights.
fn launch(
    mut gpu: Gpu<'_>,
    names: &KernelNames,
    codes: Option<&CodeNames>,
    shape: Option<Shape>,
    call: Forward<'_>,
) -> Result<()> {
    let Forward { x, w, bias, more, y } = call;
    let t = x.x.rows();
    let tile = Tile::of(t);
    // `Gelu::Args` and `SwiGlu::Args` have `pre` and `gate_up` in the position of the residual.
    let out = params!(Linear::Args { bias, residual: more, y });
    if let Some(codes) = codes
        && codes::launch(&mut gpu, codes, x, w, w.n, &out)?
    {
        return Ok(());
    }
    let args = operands(gpu.op, x, w)?.with(out);
    let staged = shape.map(|shape| Staged { y, more, bias, shape });
    if staged.is_none_or(|staged| staged.carried(&gpu))
        && let Some(mut product) = Wide::of(&mut gpu, names.wide(SM90A), x, w, w.n, None)?
    {
        if let Some(staged) = staged {
            product = product.staged(&mut gpu, &staged)?;
        }
        return product.launch(&mut gpu, args);
    }
    gpu.launch("gemm", names.tiles[tile.index], tile.launch(gpu.op, t, w.n)?, args)
}

/// Computes y = x W^T (+ bias) (+ residual).
pub(in crate::ops) fn linear(gpu: Gpu<'_>, call: Forward<'_>) -> Result<()> {
    launch(gpu, &kernel_names!("linear", Role::Linear), Some(&code_names!("linear")), Some(Shape::Linear), call)
}

/// Computes y = gelu(x W^T (+ bias)); `more` receives the value before the activation.
pub(in crate::ops) fn gelu(mut gpu: Gpu<'_>, kind: GeluKind, call: Forward<'_>) -> Result<()> {
    if kind == GeluKind::Exact {
        return launch(gpu, &kernel_names!("linear_gelu", Role::Activation), None, None, call);
    }
    const NAMES: Names = tile_names!("linear_gelu_tanh");
    let Forward { x, w, bias, more, y } = call;
    let (t, tile) = (y.rows(), Tile::of(y.rows()));
    let args = operands(gpu.op, x, w)?.with(params!(GeluOf::Args { bias, pre: more, y }));
    gpu.launch("gemm", NAMES[tile.index], tile.launch(gpu.op, t, w.n)?, args)
}

/// Computes y = silu(gate) * up; `more` receives gate and up.
pub(in crate::ops) fn swiglu(gpu: Gpu<'_>, call: Forward<'_>) -> Result<()> {
    const NAMES: KernelNames = kernel_names!("linear_swiglu", Role::Activation);
    launch(gpu, &NAMES, Some(&code_names!("linear_swiglu")), Some(Shape::SwiGlu), call)
}

/// Computes y = x W^T in f32.
pub(in crate::ops) fn logits(mut gpu: Gpu<'_>, x: Tensor, w: &Weight, y: Tensor) -> Result<()> {
    const NAMES: Names = tile_names!("linear_f32");
    let tile = Tile::of(x.rows());
    let args = operands(gpu.op, x, w)?.with(params!(Logits::Args { y }));
    let wide = WideKernels { file: SM90A, names: wide_names!("linear_f32"), role: Role::Linear };
    if let Some(product) = Wide::of(&mut gpu, wide, x, w, w.n, None)? {
        return product.launch(&mut gpu, args);
    }
    gpu.launch("gemm", NAMES[tile.index], tile.launch(gpu.op, x.rows(), w.n)?, args)
}

/// Arguments of [`fwd_qkv`](crate::ops::linear::fwd_qkv).
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a> {
    /// Input rows `[T, K]`.
    pub x: Input,
    /// Weight `[(q + 2 kv) * dim, K]`.
    pub w: &'a Weight,
    /// Optional bias `[(q + 2 kv) * dim]`.
    pub bias: Option<Tensor>,
    /// Cosines, f32 `[T, dim / 2]`.
    pub cos: Tensor,
    /// Sines, f32 `[T, dim / 2]`.
    pub sin: Tensor,
    /// Heads of a row.
    pub heads: Heads,
    /// Cache to store keys and values in, and the slot of each row, u32 `[T]`.
    pub cache: Option<(&'a KvCache, Tensor)>,
    /// Output rows `[T, (q + 2 kv) * dim]`, written.
    pub qkv: Tensor,
}

/// Computes qkv = rope(x W^T (+ bias)) and also stores k and v at the cache's slots.
pub(in crate::ops) fn qkv(mut gpu: Gpu<'_>, call: Qkv<'_>) -> Result<()> {
    let Qkv { x, w, bias, cos, sin, heads, cache, qkv } = call;
    const NAMES: Names = tile_names!("linear_qkv");
    let t = x.x.rows();
    let tile = Tile::of(t);
    let num_slots = cache.map_or(0, |(cache, _)| cache.blocks() * BLOCK);
    let out = params!(QkvIn::Args {
        bias,
        cos,
        sin,
        slots: cache.map(|(_, slots)| slots),
        k_cache: cache.map(|(cache, _)| cache.k),
        v_cache: cache.map(|(cache, _)| cache.v),
        qkv,
        q_heads: heads.q as i32,
        kv_heads: heads.kv as i32,
        dim: heads.dim as i32,
        num_slots: check::count(gpu.op, "slots", num_slots)?,
    });
    // The kernel's columns are groups of 32 first elements and their partners.
    let columns = (w.n / 2).next_multiple_of(32) * 2;
    if codes::launch(&mut gpu, &code_names!("linear_qkv"), x, w, columns, &out)? {
        return Ok(());
    }
    let args = operands(gpu.op, x, w)?.with(out);
    let wide = WideKernels { file: SM90A, names: wide_names!("linear_qkv"), role: Role::Qkv };
    if let Some(product) = Wide::of(&mut gpu, wide, x, w, columns, Some(heads.dim / 2))? {
        return product.launch(&mut gpu, args);
    }
    gpu.launch("gemm", NAMES[tile.index], tile.launch(gpu.op, t, columns)?, args)
}
