//! Launches of linear layers for few tokens whose quantised weight is read as codes: kernels/gemm_codes.cu. More tokens
//! multiply a widened copy of the weight, whose bits are the same.

use super::config::BLOCK_K;
use super::tile::{THREADS, Tile, operands};
use crate::device::{Gpu, Params};
use crate::ops::check;
use crate::ops::input::Input;
use crate::ops::matmul::Weight;
use omr_base::choice::BaseFormat;
use omr_base::error::Result;

/// Names of the kernels of an epilogue: for int8 and nf4, with the two smaller tiles.
pub(super) type CodeNames = [[&'static str; 2]; 2];

/// Makes [`CodeNames`] from the common prefix of the names.
macro_rules! code_names {
    ($base:literal) => {
        [
            [concat!($base, "_int8_m16"), concat!($base, "_int8_m64")],
            [concat!($base, "_nf4_m16"), concat!($base, "_nf4_m64")],
        ]
    };
}
pub(super) use code_names;

/// Bytes of codes that a CTA has in flight.
const IN_FLIGHT: usize = 24 << 10;
/// Stages of the ring of x of both tiles.
const STAGES: [usize; 2] = [6, 5];

/// Returns the bytes of shared memory: `gemm::CodeStages` of the kernel file, which the finished sums reuse.
fn smem(tile: Tile, format: BaseFormat) -> usize {
    let block_bytes = if format == BaseFormat::Int8 { BLOCK_K } else { BLOCK_K / 2 };
    let stages = IN_FLIGHT / (tile.cols * block_bytes) + 2;
    (STAGES[tile.index] * tile.rows + 2 * tile.cols) * BLOCK_K * 2 + stages * tile.cols * (block_bytes + 4)
}

/// Returns true if a layer with an epilogue that has [`CodeNames`] reads codes for `t` tokens.
pub(in crate::ops) fn reads_codes(w: &Weight, t: usize) -> bool {
    w.quantized.is_some() && Tile::of(t).index < 2
}

/// Launches the kernel of `names` for a quantised weight and the arguments `out` of the epilogue, with `columns` columns.
/// Returns false if the weight is not quantised.
pub(super) fn launch(
    gpu: &mut Gpu<'_>,
    names: &CodeNames,
    x: Input,
    w: &Weight,
    columns: usize,
    out: &Params,
) -> Result<bool> {
    let Some(quantized) = w.quantized else { return Ok(false) };
    let (t, format) = (x.x.rows(), usize::from(quantized.format == BaseFormat::Nf4));
    let tile = Tile::of(t);
    let ctas = t.div_ceil(tile.rows) * columns.div_ceil(tile.cols);
    let launch = check::launch(gpu.op, ctas, THREADS, smem(tile, quantized.format))?;
    // `gemm::CodeArgs` of the kernel file.
    let args = operands(gpu.op, x, w)?.with(quantized.scales).with(out.clone());
    gpu.launch("gemm_codes", names[format][tile.index], launch, args)?;
    Ok(true)
}
