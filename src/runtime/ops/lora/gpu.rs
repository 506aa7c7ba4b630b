//! Launches of kernels/lora.cu.

use super::rows::Rows;
use crate::device::{Device, Gpu, Launch, Params, Region, params};
use crate::ops::check;
use crate::ops::gemm::{Tile, operands};
use crate::ops::matmul::{Order, SLICE, Weight, row_stride};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Number of tickets with which the CTAs of a product find the last one of their tile.
pub(super) const TICKETS: usize = 128;

/// Computes t = x A^T. If there are few tiles, each slice of a tile is a CTA of its own.
pub(super) fn t(op: &'static str, dev: &mut Device, x: Tensor, a: &Weight, tickets: Tensor, t: Tensor) -> Result<()> {
    let tile = Tile::narrow(x.rows());
    let tiles = x.rows().div_ceil(tile.rows) * a.n.div_ceil(tile.cols);
    let slices = if tiles <= TICKETS { a.k.div_ceil(SLICE) } else { 1 };
    dev.scope(Region::Workspace, |dev| {
        let mut alloc = || dev.alloc(Region::Workspace, DType::F32, &[slices, x.rows(), a.n]);
        let scratch = (slices > 1).then(&mut alloc).transpose()?;
        dev.op(op).run(
            |_| (),
            |mut gpu| {
                let out = params!(Reduced::Args { t, slices: scratch, tickets });
                let args = params!(lora::TArgs { in: operands(op, x, a)?, out });
                let name = if tile.rows == 16 { "lora_t_m16" } else { "lora_t_m64" };
                let launch = tile.launch(op, x.rows(), a.n)?;
                gpu.launch("lora", name, Launch { grid: [launch.grid[0], slices as u32, 1], ..launch }, args)
            },
        )
    })
}

/// Computes out = scale * master.
pub(super) fn scaled(mut gpu: Gpu<'_>, w: Tensor, lo: Option<Tensor>, scale: f32, out: Tensor) -> Result<()> {
    check::gpu_compute(gpu.op, w.dtype)?;
    let args = params!(lora::ScaledArgs { w, lo, out, len: w.len() as i64, scale });
    gpu.launch("lora", "lora_scaled", check::by_elements(gpu.op, w.len(), 1)?, args)
}

/// Launches `lora_spread` or `lora_collect` over the rows of `s`.
pub(super) fn rows(
    mut gpu: Gpu<'_>,
    kernel: &'static str,
    rows: Rows,
    s: &Weight,
    [compact, wide]: [Tensor; 2],
    scale: f32,
) -> Result<()> {
    check::gpu_compute(gpu.op, s.data.dtype)?;
    check::that(gpu.op, s.order == Order::Rows, "a weight in row order", format!("{:?}", s.order))?;
    let op = gpu.op;
    let size = |what: &str, n: usize| check::count(op, what, n);
    let args: Params = params!(lora::RowsArgs {
        compact,
        wide,
        part: rows.parts,
        n: size("rows", s.n)?,
        rank: size("columns", rows.rank)?,
        ld: size("columns", row_stride(s.k))?,
        scale,
    });
    gpu.launch("lora", kernel, check::by_elements(gpu.op, s.n * rows.rank, 1)?, args)
}
