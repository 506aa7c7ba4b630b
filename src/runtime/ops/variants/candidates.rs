//! The start check of candidates: kernels that may replace others ([`candidates`]).

use crate::device::{Device, Region};
use crate::ops::gemm::{Product, candidates};
use crate::ops::linear;
use crate::ops::matmul::{Order, Weight};
use crate::ops::start_check::{bits, differing, values, with_many_and_few_ctas};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Sizes of the test product: three rows of tiles, so that the last pair has one tile; incomplete tiles in both
/// directions; more stages than a ring has.
const ROWS: usize = 328;
const COLUMNS: usize = 448;
const TERMS: usize = 576;

/// Runs the start check of the candidates: their bits are those of the kernels that they would replace. Returns a
/// description of the fault, or `None`.
pub fn candidates_fault(dev: &mut Device) -> Result<Option<String>> {
    for candidate in candidates() {
        let mut found = Vec::new();
        for chosen in [None, Some(candidate.name)] {
            dev.use_candidate(chosen);
            let runs = with_many_and_few_ctas(dev, |dev| computed(dev, candidate.product));
            dev.use_candidate(None);
            found.extend(runs?);
        }
        let what = || format!("values of {} and of the kernel that it may replace", candidate.name);
        if let Some(fault) = found[1..].iter().find_map(|found_by| differing(found_by, &found[0], what)) {
            return Ok(Some(fault));
        }
    }
    Ok(None)
}

/// Returns the bits of the test product.
fn computed(dev: &mut Device, product: Product) -> Result<Vec<u32>> {
    let mut put = |rows: usize, columns: usize, seed: u32| -> Result<Tensor> {
        dev.upload(Region::Workspace, &values(rows * columns, seed, 1.0), &[rows, columns])
    };
    // Rows of 448 and of 576 elements need no padding.
    let (x, dy) = (put(ROWS, TERMS, 1)?, put(ROWS, COLUMNS, 2)?);
    let w = Weight::new(put(COLUMNS, TERMS, 3)?.reshape(&[COLUMNS * TERMS]), Order::Rows, COLUMNS, TERMS);
    let mut out = |rows: usize, columns: usize| dev.zeros(Region::Workspace, DType::Bf16, &[rows, columns]);
    match product {
        Product::Linear => {
            let y = out(ROWS, COLUMNS)?;
            linear::fwd(dev, x, &w, None, Some(dy), y)?;
            bits(dev, &[y])
        }
        Product::SwiGlu => {
            let (gate_up, y) = (out(ROWS, COLUMNS)?, out(ROWS, COLUMNS / 2)?);
            linear::fwd_swiglu(dev, x, &w, None, Some(gate_up), y)?;
            bits(dev, &[gate_up, y])
        }
        Product::Dgrad => {
            let dx = out(ROWS, TERMS)?;
            linear::dgrad(dev, dy, &w, dx, false)?;
            bits(dev, &[dx])
        }
        Product::Wgrad => {
            let dw = dev.zeros(Region::Workspace, DType::F32, &[COLUMNS * TERMS])?;
            linear::wgrad(dev, x, dy, dw, None)?;
            bits(dev, &[dw])
        }
    }
}
