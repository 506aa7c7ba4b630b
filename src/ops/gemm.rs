//! Launches of kernels/gemm.cu: the tile by the number of tokens alone, so that what is planned, captured and run
//! agree. A row has the same bits from every tile. Where the device is told to (`Device::use_body`), of
//! kernels/gemm_sm90a.cu, whose tiles go by [`GemmDesc`].

mod agreement;
mod backward;
mod config;
mod sm90a;

use bytemuck::NoUninit;

pub use agreement::wgmma_fault;
pub(in crate::ops) use backward::{Sums, dgrad, dgrad_part, wgrad};
pub use config::{GemmConfig, GemmDesc, Role};
use sm90a::{Shape, Staged};
pub(in crate::ops) use sm90a::{Wide, WideNames, wide_names};

use crate::device::{Address, Gpu, Launch};
use crate::error::Result;
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::check;
use crate::ops::matmul::{Order, Weight, row_stride};
use crate::ops::paged_attention::KvCache;
use crate::tensor::Tensor;

/// Threads of every tile's CTA.
const THREADS: u32 = 128;
/// Elements over K of a stage.
const BLOCK_K: usize = 64;

/// A tile of kernels/common/gemm.cuh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ops) struct Tile {
    /// Where it stands in a kernel's [`Names`].
    index: usize,
    rows: usize,
    cols: usize,
    stages: usize,
}

/// `TileM16`, `TileM64` and `TileM128`.
const TILES: [Tile; 3] = [
    Tile { index: 0, rows: 16, cols: 64, stages: 8 },
    Tile { index: 1, rows: 64, cols: 64, stages: 5 },
    Tile { index: 2, rows: 128, cols: 128, stages: 3 },
];

impl Tile {
    /// The tile for `t` tokens. Up to 128 (decode) a product is bound by reading its weight, and 64 columns a CTA keep
    /// more multiprocessors at it: a weight of 3,584 rows makes 28 tall tiles for them, and 112 middle ones.
    pub fn of(t: usize) -> Tile {
        TILES[match t {
            ..=16 => 0,
            17..=128 => 1,
            _ => 2,
        }]
    }

    /// Bytes of shared memory: the ring of stages, and the finished sums over it.
    fn smem(&self) -> usize {
        (self.stages * (self.rows + self.cols) * BLOCK_K * 2).max(self.rows * (self.cols + 8) * 4)
    }

    /// The launch over `t` rows and `n` columns.
    fn launch(&self, op: &'static str, t: usize, n: usize) -> Result<Launch> {
        let ctas = check::grid(op, t.div_ceil(self.rows) * n.div_ceil(self.cols))?;
        Ok(Launch::new([ctas, 1, 1], THREADS, self.smem()))
    }
}

/// A kernel for each tile.
type Names = [&'static str; 3];

/// The kernels of an epilogue, by tile: of both bodies.
pub(in crate::ops) struct Bodies {
    /// Of kernels/common/gemm.cuh.
    pub tiles: Names,
    /// Of kernels/common/gemm_sm90a.cuh.
    pub wide: WideNames,
    /// Which of its tiles there are.
    pub role: Role,
}

/// The second body's file.
const SM90A: &str = "gemm_sm90a";

/// `gemm::Operands`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub(in crate::ops) struct Operands {
    x: Address,
    w: Address,
    rows: i32,
    cols: i32,
    depth: i32,
    ld: i32,
}

impl Operands {
    /// x [T, K] and w [N, K]. Errors where kernels cannot take them.
    pub fn of(op: &'static str, gpu: &Gpu<'_>, x: Tensor, w: &Weight) -> Result<Operands> {
        check::gpu_compute(op, w.data.dtype)?;
        check::that(op, w.order == Order::Rows, "a weight in rows", format!("{:?}", w.order))?;
        Ok(Operands {
            x: gpu.ptr(x),
            w: gpu.ptr(w.data),
            rows: check::count(op, "rows", x.rows())?,
            cols: check::count(op, "columns", w.n)?,
            depth: w.k as i32,
            ld: check::count(op, "columns", row_stride(w.k))?,
        })
    }
}

/// `gemm::Args` of the epilogues with two optional operands beside y.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    operands: Operands,
    /// bias, then residual, pre or gate_up.
    more: [Address; 2],
    y: Address,
}

/// `shape`: of the second body's epilogue, which else takes slices.
fn launch(
    op: &'static str,
    mut gpu: Gpu<'_>,
    (names, shape): (&Bodies, Option<Shape>),
    x: Tensor,
    w: &Weight,
    [bias, more]: [Option<Tensor>; 2],
    y: Tensor,
) -> Result<()> {
    let tile = Tile::of(x.rows());
    let operands = Operands::of(op, &gpu, x, w)?;
    let args = Args { operands, more: [bias, more].map(|t| gpu.ptr_or_null(t)), y: gpu.ptr(y) };
    let staged = shape.map(|shape| Staged { y, more, bias, shape });
    if staged.is_none_or(|staged| staged.carried(&gpu))
        && let Some(mut product) = Wide::of(op, &mut gpu, names.role, x, w, w.n, None)?
    {
        if let Some(staged) = staged {
            product = product.staged(&mut gpu, &staged)?;
        }
        return product.launch(&mut gpu, SM90A, &names.wide, &args);
    }
    gpu.launch("gemm", names.tiles[tile.index], tile.launch(op, x.rows(), w.n)?, &args)
}

/// y = x W^T (+ bias) (+ residual).
pub(in crate::ops) fn linear(
    op: &'static str,
    gpu: Gpu<'_>,
    x: Tensor,
    w: &Weight,
    bias: Option<Tensor>,
    residual: Option<Tensor>,
    y: Tensor,
) -> Result<()> {
    const BODIES: Bodies =
        Bodies { tiles: ["linear_m16", "linear_m64", "linear_m128"], wide: wide_names!("linear"), role: Role::Linear };
    launch(op, gpu, (&BODIES, Some(Shape::Linear)), x, w, [bias, residual], y)
}

/// y = gelu(x W^T (+ bias)); `pre` is the value before.
pub(in crate::ops) fn gelu(
    op: &'static str,
    gpu: Gpu<'_>,
    x: Tensor,
    w: &Weight,
    bias: Option<Tensor>,
    pre: Option<Tensor>,
    y: Tensor,
) -> Result<()> {
    const BODIES: Bodies = Bodies {
        tiles: ["linear_gelu_m16", "linear_gelu_m64", "linear_gelu_m128"],
        wide: wide_names!("linear_gelu"),
        role: Role::Activation,
    };
    launch(op, gpu, (&BODIES, None), x, w, [bias, pre], y)
}

/// y = silu(gate) * up; `gate_up` is both.
pub(in crate::ops) fn swiglu(
    op: &'static str,
    gpu: Gpu<'_>,
    x: Tensor,
    w: &Weight,
    bias: Option<Tensor>,
    gate_up: Option<Tensor>,
    y: Tensor,
) -> Result<()> {
    const BODIES: Bodies = Bodies {
        tiles: ["linear_swiglu_m16", "linear_swiglu_m64", "linear_swiglu_m128"],
        wide: wide_names!("linear_swiglu"),
        role: Role::Activation,
    };
    launch(op, gpu, (&BODIES, Some(Shape::SwiGlu)), x, w, [bias, gate_up], y)
}

/// `gemm::Args<Logits>`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct LogitsArgs {
    operands: Operands,
    y: Address,
}

/// y = x W^T in f32.
pub(in crate::ops) fn logits(op: &'static str, mut gpu: Gpu<'_>, x: Tensor, w: &Weight, y: Tensor) -> Result<()> {
    const NAMES: Names = ["linear_f32_m16", "linear_f32_m64", "linear_f32_m128"];
    let tile = Tile::of(x.rows());
    let args = LogitsArgs { operands: Operands::of(op, &gpu, x, w)?, y: gpu.ptr(y) };
    if let Some(product) = Wide::of(op, &mut gpu, Role::Linear, x, w, w.n, None)? {
        return product.launch(&mut gpu, SM90A, &wide_names!("linear_f32"), &args);
    }
    gpu.launch("gemm", NAMES[tile.index], tile.launch(op, x.rows(), w.n)?, &args)
}

/// What [`fwd_qkv`](crate::ops::linear::fwd_qkv) reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a> {
    /// `[T, K]`.
    pub x: Tensor,
    /// `[(q + 2 kv) * dim, K]`.
    pub w: &'a Weight,
    /// `[(q + 2 kv) * dim]`.
    pub bias: Option<Tensor>,
    /// Cosines, f32 `[T, dim / 2]`.
    pub cos: Tensor,
    /// Sines, f32 `[T, dim / 2]`.
    pub sin: Tensor,
    /// Heads of a row.
    pub heads: Heads,
    /// Where keys and values go, and the slot of each row, u32 `[T]`.
    pub cache: Option<(&'a KvCache, Tensor)>,
    /// `[T, (q + 2 kv) * dim]`, written.
    pub qkv: Tensor,
}

/// `gemm::Args<Qkv>`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct QkvArgs {
    operands: Operands,
    bias: Address,
    cos: Address,
    sin: Address,
    slots: Address,
    k_cache: Address,
    v_cache: Address,
    qkv: Address,
    q_heads: i32,
    kv_heads: i32,
    dim: i32,
    slots_len: i32,
}

/// qkv = rope(x W^T (+ bias)), k and v also to the cache's slots.
pub(in crate::ops) fn qkv(op: &'static str, mut gpu: Gpu<'_>, call: Qkv<'_>) -> Result<()> {
    let Qkv { x, w, bias, cos, sin, heads, cache, qkv } = call;
    const NAMES: Names = ["linear_qkv_m16", "linear_qkv_m64", "linear_qkv_m128"];
    let tile = Tile::of(x.rows());
    let slots = cache.map_or(0, |(cache, _)| cache.blocks() * BLOCK);
    let args = QkvArgs {
        operands: Operands::of(op, &gpu, x, w)?,
        bias: gpu.ptr_or_null(bias),
        cos: gpu.ptr(cos),
        sin: gpu.ptr(sin),
        slots: gpu.ptr_or_null(cache.map(|(_, slots)| slots)),
        k_cache: gpu.ptr_or_null(cache.map(|(cache, _)| cache.k)),
        v_cache: gpu.ptr_or_null(cache.map(|(cache, _)| cache.v)),
        qkv: gpu.ptr(qkv),
        q_heads: heads.q as i32,
        kv_heads: heads.kv as i32,
        dim: heads.dim as i32,
        slots_len: check::count(op, "slots", slots)?,
    };
    // The kernel's columns: groups of 32 pairs and their partners.
    let columns = (w.n / 2).next_multiple_of(32) * 2;
    if let Some(product) = Wide::of(op, &mut gpu, Role::Qkv, x, w, columns, Some(heads.dim / 2))? {
        return product.launch(&mut gpu, SM90A, &wide_names!("linear_qkv"), &args);
    }
    gpu.launch("gemm", NAMES[tile.index], tile.launch(op, x.rows(), columns)?, &args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_go_by_the_number_of_tokens() {
        let rows = |t| Tile::of(t).rows;
        assert_eq!([0, 1, 16, 17, 128, 129, 5000].map(rows), [16, 16, 16, 64, 64, 128, 128]);
        let launch = Tile::of(129).launch("test", 129, 3600).unwrap();
        assert_eq!(launch, Launch::new([2 * 29, 1, 1], 128, 98_304));
        // What compute capability 8.6 gives a CTA.
        assert!(TILES.iter().all(|t| t.smem() <= 99 << 10));
    }
}
