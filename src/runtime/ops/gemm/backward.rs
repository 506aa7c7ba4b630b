//! Launches of the gradients of linear layers: kernels/gemm_bwd.cu, or kernels/gemm_bwd_sm90a.cu if the device is set
//! to use wgmma. The order in which an element is summed does not depend on the tile.

use super::config::Role;
use super::sm90a::{Major, OperandLayout, Shape, Sides, Staged, Wide, WideKernels, WideNames, wide_names};
use super::tile::{Names, THREADS, TILES, Tile, more, tile_names};
use crate::device::{Gpu, params};
use crate::ops::check;
use crate::ops::gradient::{Gradient, Holds};
use crate::ops::input::Input;
use crate::ops::matmul::{Order, Weight, row_stride};
use crate::tensor::Tensor;
use omr_base::error::Result;

/// Name of the file of the wgmma kernels.
pub(super) const SM90A: &str = "gemm_bwd_sm90a";

/// Returns the wgmma kernels with these names.
const fn wide(names: WideNames) -> WideKernels {
    WideKernels { file: SM90A, names, role: Role::Gradient }
}

/// Computes dx = dy W, or dx + dy W rounded once if `accumulate`. A second pair adds its product before the rounding.
pub(in crate::ops) fn dgrad(gpu: &mut Gpu<'_>, dy: Input, w: &Weight, dx: Tensor, accumulate: bool) -> Result<()> {
    const NAMES: Names = tile_names!("linear_dgrad");
    launch_dgrad(gpu, &NAMES, dy, w, dx, None, accumulate)
}

/// Memory for the unfinished sums of dx between products: f32 `[T][row_stride(K)]`, whose padding is undefined. Without
/// `from` the sums start at zero. Without `to` the resulting sums are rounded and written to dx.
#[derive(Clone, Copy, Default)]
pub(in crate::ops) struct Chains {
    /// Sums that the product continues.
    pub from: Option<Tensor>,
    /// Memory for the resulting sums; dx is then not written.
    pub to: Option<Tensor>,
}

/// Computes [`dgrad`] for one part of N. Calls for all parts in ascending order are bitwise identical to one product.
/// Each part except the last must have a multiple of 16 terms. dy is `[T, N or more]`, with zeros from column N on.
pub(in crate::ops) fn dgrad_part(gpu: &mut Gpu<'_>, dy: Tensor, w: &Weight, dx: Tensor, sums: Chains) -> Result<()> {
    const NAMES: Names = tile_names!("linear_dgrad_chain");
    launch_dgrad(gpu, &NAMES, dy.into(), w, dx, Some(sums), false)
}

/// Launches dx = dy W with unfinished sums in `sums`, or dx + dy W.
fn launch_dgrad(
    gpu: &mut Gpu<'_>,
    names: &Names,
    Input { x: dy, pair }: Input,
    w: &Weight,
    dx: Tensor,
    sums: Option<Chains>,
    accumulate: bool,
) -> Result<()> {
    check::gpu_compute(gpu.op, w.data.dtype)?;
    check::that(gpu.op, w.order == Order::Rows, "a weight in row order", format!("{:?}", w.order))?;
    let tile = Tile::of(dy.rows());
    let operands = params!(gemm::Operands {
        x: dy,
        w: w.data,
        rows: check::count(gpu.op, "rows", dy.rows())?,
        cols: w.k as i32,
        depth: check::count(gpu.op, "columns", dy.cols())?,
        ld: check::count(gpu.op, "columns", row_stride(w.k))?,
        more: more(pair),
    });
    let sides = |x: Tensor, w: &Weight| {
        let x =
            OperandLayout { address: gpu.ptr(x), rows: x.rows(), columns: x.cols(), stride: x.cols(), major: Major::K };
        let (address, stride) = (gpu.ptr(w.data), row_stride(w.k));
        [x, OperandLayout { address, rows: w.n, columns: w.k, stride, major: Major::Mn }]
    };
    let sides = Sides { first: sides(dy, w), more: pair.map(|pair| sides(pair.left, &pair.right)) };
    let staged = Staged { y: dx, more: accumulate.then_some(dx), bias: None, shape: Shape::Linear };
    let dgrad = if sums.is_some() { wide_names!("linear_dgrad_chain") } else { wide_names!("linear_dgrad") };
    if (sums.is_some() || staged.carried(gpu))
        && let Some(product) = Wide::product(gpu, wide(dgrad), sides, w.k, None)?
    {
        if let Some(Chains { from, to }) = sums {
            return product.launch(gpu, operands.with(params!(DgradChain::Args { dx, from, to })));
        }
        // A forward epilogue, with dx as the residual.
        let args = operands.with(params!(Linear::Args { bias: staged.bias, residual: staged.more, y: dx }));
        return product.staged(gpu, &staged)?.launch(gpu, args);
    }
    let (Chains { from, to }, terms) = (sums.unwrap_or_default(), w.n as i32);
    let args = params!(gemm::DgradArgs { operands, dx, from, to, accumulate, terms });
    gpu.launch("gemm_bwd", names[tile.index], tile.launch(gpu.op, dy.rows(), w.k)?, args)
}

/// Columns of dy that one CTA of `linear_dbias` sums.
const BIAS_COLUMNS: usize = 64;
/// Bytes of the ring of `linear_dbias`: 8 stages of 64 tokens.
const BIAS_SMEM: usize = 8 * 64 * BIAS_COLUMNS * 2;

/// Computes dw = dy^T x, or dw += dy^T x, and dbias += the sum of dy over tokens, for the first `n` columns of dy.
pub(in crate::ops) fn wgrad(
    gpu: &mut Gpu<'_>,
    x: Tensor,
    dy: Tensor,
    n: usize,
    Gradient { tensor: dw, holds }: Gradient,
    dbias: Option<Tensor>,
) -> Result<()> {
    check::gpu_compute(gpu.op, x.dtype)?;
    let (tokens, k) = (x.rows(), x.cols());
    if tokens == 0 {
        return Ok(());
    }
    let (tile, name) = wgrad_tile(n, k);
    let side = |t: Tensor, columns| {
        let (address, major) = (gpu.ptr(t), Major::Mn);
        OperandLayout { address, rows: tokens, columns, stride: t.cols(), major }
    };
    let sides = Sides { first: [side(dy, n), side(x, k)], more: None };
    let (rows, depth) = (check::count(gpu.op, "columns", n)?, check::count(gpu.op, "tokens", tokens)?);
    let (cols, ld) = (k as i32, check::count(gpu.op, "columns", row_stride(k))?);
    let dy_stride = check::count(gpu.op, "columns", dy.cols())?;
    let (from, adds) = ((holds == Holds::Gradient).then_some(dw), holds == Holds::Sum);
    let args =
        params!(gemm::WgradArgs { x, dy, from, dw, dbias, tokens: depth, n: rows, k: cols, ld, dy_stride, adds });
    let names = if adds { wide_names!("linear_wgrad_sum") } else { wide_names!("linear_wgrad") };
    if let Some(product) = Wide::product(gpu, wide(names), sides, k, None)? {
        let operands = params!(gemm::Operands { x: dy, w: x, rows, cols, depth, ld, more: more(None) });
        if adds {
            let args = operands.with(params!(StagedSums::Args { dw }));
            product.summed(gpu, dw, ld as usize)?.launch(gpu, args)?;
        } else {
            product.launch(gpu, operands.with(params!(Wgrad::Args { from, dw })))?;
        }
    } else {
        gpu.launch("gemm_bwd", name, tile.launch(gpu.op, n, k)?, args.clone())?;
    }
    if dbias.is_some() {
        let launch = check::launch(gpu.op, n.div_ceil(BIAS_COLUMNS), THREADS, BIAS_SMEM)?;
        gpu.launch("gemm_bwd", "linear_dbias", launch, args)?;
    }
    Ok(())
}

/// Returns the tile for dw `[n, k]` and the name of its kernel. A tile of 64 x 64 is used if n or k is at most 128,
/// because a tile of 128 x 128 could lie mostly outside dw.
fn wgrad_tile(n: usize, k: usize) -> (Tile, &'static str) {
    if n > 128 && k > 128 { (TILES[2], "linear_wgrad_m128") } else { (TILES[1], "linear_wgrad_m64") }
}
