//! Launches of kernels/gemm_bwd.cu, or of kernels/gemm_bwd_sm90a.cu where the device is told to: the gradients of linear
//! layers. The chain of an element does not depend on the tile.

use bytemuck::NoUninit;

use super::sm90a::{Lies, Shape, Side, Staged, Wide, wide_names};
use super::{Args, Names, Operands, Role, THREADS, TILES, Tile};
use crate::device::{Address, Gpu, Launch};
use crate::error::Result;
use crate::ops::check;
use crate::ops::matmul::{Order, Weight, row_stride};
use crate::tensor::Tensor;

/// The second body's file.
pub(super) const SM90A: &str = "gemm_bwd_sm90a";

/// `gemm::DgradArgs`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct DgradArgs {
    operands: Operands,
    dx: Address,
    from: Address,
    to: Address,
    accumulate: i32,
    terms: i32,
}

/// The operands and `gemm::DgradChain::Args`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub(super) struct WideChainArgs {
    pub operands: Operands,
    pub dx: Address,
    pub from: Address,
    pub to: Address,
}

/// dx = dy W, or dx + dy W rounded once.
pub(in crate::ops) fn dgrad(
    op: &'static str,
    gpu: &mut Gpu<'_>,
    dy: Tensor,
    w: &Weight,
    dx: Tensor,
    accumulate: bool,
) -> Result<()> {
    const NAMES: Names = ["linear_dgrad_m16", "linear_dgrad_m64", "linear_dgrad_m128"];
    launch_dgrad(op, gpu, &NAMES, Dgrad { dy, w, dx, sums: None, accumulate })
}

/// Where the chains of dx lie between products: f32 `[T][row_stride(K)]`, their padding undefined. Without `from` they
/// start at zero, without `to` they are rounded to dx.
#[derive(Clone, Copy, Default)]
pub(in crate::ops) struct Sums {
    /// What they go on from.
    pub from: Option<Tensor>,
    /// Where they end; dx is then not written.
    pub to: Option<Tensor>,
}

/// [`dgrad`] by parts of N in ascending order, each but the last of a multiple of 16 terms: the bits of one product.
/// dy is `[T, N or more]` with zeros from column N on.
pub(in crate::ops) fn dgrad_part(
    op: &'static str,
    gpu: &mut Gpu<'_>,
    dy: Tensor,
    w: &Weight,
    dx: Tensor,
    sums: Sums,
) -> Result<()> {
    const NAMES: Names = ["linear_dgrad_chain_m16", "linear_dgrad_chain_m64", "linear_dgrad_chain_m128"];
    launch_dgrad(op, gpu, &NAMES, Dgrad { dy, w, dx, sums: Some(sums), accumulate: false })
}

/// dx = dy W from and to where its chains lie, or dx + dy W.
struct Dgrad<'a> {
    dy: Tensor,
    w: &'a Weight,
    dx: Tensor,
    sums: Option<Sums>,
    accumulate: bool,
}

fn launch_dgrad(op: &'static str, gpu: &mut Gpu<'_>, names: &Names, call: Dgrad<'_>) -> Result<()> {
    let Dgrad { dy, w, dx, sums, accumulate } = call;
    check::gpu_compute(op, w.data.dtype)?;
    check::that(op, w.order == Order::Rows, "a weight in rows", format!("{:?}", w.order))?;
    let tile = Tile::of(dy.rows());
    let operands = Operands {
        x: gpu.ptr(dy),
        w: gpu.ptr(w.data),
        rows: check::count(op, "rows", dy.rows())?,
        cols: w.k as i32,
        depth: check::count(op, "columns", dy.cols())?,
        ld: check::count(op, "columns", row_stride(w.k))?,
    };
    let sides = [
        Side { address: gpu.ptr(dy), rows: dy.rows(), columns: dy.cols(), stride: dy.cols(), lies: Lies::Along },
        Side { address: gpu.ptr(w.data), rows: w.n, columns: w.k, stride: row_stride(w.k), lies: Lies::Across },
    ];
    let staged = Staged { y: dx, more: accumulate.then_some(dx), bias: None, shape: Shape::Linear };
    if (sums.is_some() || staged.carried(gpu))
        && let Some(product) = Wide::product(op, gpu, Role::Gradient, sides, w.k, None)?
    {
        let dx = gpu.ptr(dx);
        if let Some(Sums { from, to }) = sums {
            let args = WideChainArgs { operands, dx, from: gpu.ptr_or_null(from), to: gpu.ptr_or_null(to) };
            return product.launch(gpu, SM90A, &wide_names!("linear_dgrad_chain"), &args);
        }
        // The epilogue of a forward product, which has dx for a residual.
        let args = Args { operands, more: [0, if accumulate { dx } else { 0 }], y: dx };
        return product.staged(gpu, &staged)?.launch(gpu, SM90A, &wide_names!("linear_dgrad"), &args);
    }
    let sums = sums.unwrap_or_default();
    let args = DgradArgs {
        operands,
        dx: gpu.ptr(dx),
        from: gpu.ptr_or_null(sums.from),
        to: gpu.ptr_or_null(sums.to),
        accumulate: i32::from(accumulate),
        terms: w.n as i32,
    };
    gpu.launch("gemm_bwd", names[tile.index], tile.launch(op, dy.rows(), w.k)?, &args)
}

/// `gemm::WgradArgs`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct WgradArgs {
    x: Address,
    dy: Address,
    dw: Address,
    dbias: Address,
    tokens: i32,
    n: i32,
    k: i32,
    ld: i32,
    dy_stride: i32,
    pad: i32,
}

/// The operands and `gemm::Wgrad::Args`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub(super) struct WideWgradArgs {
    pub operands: Operands,
    pub dw: Address,
}

/// Columns of dy of a CTA of `linear_dbias`, and its ring: 8 stages of 64 tokens.
const BIAS_COLUMNS: usize = 64;
const BIAS_SMEM: usize = 8 * 64 * BIAS_COLUMNS * 2;

/// dw += dy^T x, and dbias += the sum of dy over tokens, of the first `n` columns of dy.
pub(in crate::ops) fn wgrad(
    op: &'static str,
    gpu: &mut Gpu<'_>,
    x: Tensor,
    dy: Tensor,
    n: usize,
    dw: Tensor,
    dbias: Option<Tensor>,
) -> Result<()> {
    check::gpu_compute(op, x.dtype)?;
    let (tokens, k) = (x.rows(), x.cols());
    if tokens == 0 {
        return Ok(());
    }
    let (tile, name) = wgrad_tile(n, k);
    let args = WgradArgs {
        x: gpu.ptr(x),
        dy: gpu.ptr(dy),
        dw: gpu.ptr(dw),
        dbias: gpu.ptr_or_null(dbias),
        tokens: check::count(op, "tokens", tokens)?,
        n: check::count(op, "columns", n)?,
        k: k as i32,
        ld: check::count(op, "columns", row_stride(k))?,
        dy_stride: check::count(op, "columns", dy.cols())?,
        pad: 0,
    };
    let side = |t: Tensor, columns| {
        let (address, lies) = (gpu.ptr(t), Lies::Across);
        Side { address, rows: tokens, columns, stride: t.cols(), lies }
    };
    let sides = [side(dy, n), side(x, k)];
    if let Some(product) = Wide::product(op, gpu, Role::Gradient, sides, k, None)? {
        let operands = Operands { x: args.dy, w: args.x, rows: args.n, cols: args.k, depth: args.tokens, ld: args.ld };
        let args = WideWgradArgs { operands, dw: args.dw };
        product.launch(gpu, SM90A, &wide_names!("linear_wgrad"), &args)?;
    } else {
        gpu.launch("gemm_bwd", name, tile.launch(op, n, k)?, &args)?;
    }
    if dbias.is_some() {
        let ctas = check::grid(op, n.div_ceil(BIAS_COLUMNS))?;
        gpu.launch("gemm_bwd", "linear_dbias", Launch::new([ctas, 1, 1], THREADS, BIAS_SMEM), &args)?;
    }
    Ok(())
}

/// The tile for dw [n, k]: the tall one unless most of it would lie outside.
fn wgrad_tile(n: usize, k: usize) -> (Tile, &'static str) {
    if n > 128 && k > 128 { (TILES[2], "linear_wgrad_m128") } else { (TILES[1], "linear_wgrad_m64") }
}
