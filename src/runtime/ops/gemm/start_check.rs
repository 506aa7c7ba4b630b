//! Start check of products by wgmma. Every tile and role must give the same bits, also if the last terms are a second
//! pair of operands, and the sums must lie within the error bound of fp32 summation around the sums in f64. The check
//! does not compare with the CPU, the emulator or `mma.sync`, because a run uses one kernel variant throughout.

use std::ops::Range;

use half::bf16;

use super::backward::SM90A as GRADIENTS;
use super::config::{GemmConfig, Role};
use super::sm90a::{Major, OperandLayout, Sides, Wide, WideKernels, wide_names};
use super::tile::SM90A;
use crate::device::{Device, Gpu, Region, params};
use crate::ops::start_check::{bits, differing, values, with_many_and_few_ctas};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Size of the test product: more than one tile of every kind, incomplete tiles at the end of rows and columns, and
/// more stages than a ring has. Columns and terms are multiples of 64, so that rows need no padding.
const ROWS: usize = 136;
const COLUMNS: usize = 320;
const TERMS: usize = 1088;
/// Terms of the first of two pairs: complete stages.
const FIRST: usize = 1024;

/// Names and roles of the products that are checked.
const ROLES: [(&str, Role); 4] = [
    ("forward products", Role::Linear),
    ("gradients of inputs", Role::Gradient),
    ("gradients of weights", Role::Gradient),
    ("sums of gradients of weights", Role::Gradient),
];

/// Runs the start check of the sums. The device must support wgmma. Returns a description of the fault, or `None` if all
/// results agree.
pub fn wgmma_fault(dev: &mut Device) -> Result<Option<String>> {
    dev.scope(Region::Workspace, fault)
}

/// Returns the transpose of a matrix with `columns` columns.
fn transposed(x: &[bf16], columns: usize) -> Vec<bf16> {
    let rows = x.len() / columns;
    (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect()
}

fn fault(dev: &mut Device) -> Result<Option<String>> {
    let (x, w) = (values(ROWS * TERMS, 1, 1.0), values(COLUMNS * TERMS, 2, 1.0));
    let mut put = |data: &[bf16], rows: usize| dev.upload(Region::Workspace, data, &[rows, data.len() / rows]);
    let along = [put(&x, ROWS)?, put(&w, COLUMNS)?];
    let across = [put(&transposed(&x, TERMS), TERMS)?, put(&transposed(&w, TERMS), TERMS)?];
    let sums = dev.alloc(Region::Workspace, DType::F32, &[ROWS, COLUMNS])?;
    let mut first: Option<Vec<u32>> = None;
    for (i, (what, role)) in ROLES.into_iter().enumerate() {
        let sides = [if i >= 2 { across[0] } else { along[0] }, if i == 0 { along[1] } else { across[1] }];
        // Gradients of weights have no second pair.
        let lengths: &[usize] = if i >= 2 { &[TERMS] } else { &[TERMS, FIRST] };
        for (config, &length) in role.configs().iter().flat_map(|c| lengths.iter().map(move |length| (c, length))) {
            let runs = with_many_and_few_ctas(dev, |dev| {
                dev.fill_zero(sums)?;
                let op = dev.op("linear::wgmma_fault");
                op.run(|_| (), |mut gpu| launch(&mut gpu, i, config, sides, length, sums))?;
                bits(dev, &[sums])
            })?;
            for found in runs {
                let [rows, columns] = [config.rows, config.columns];
                let what = || format!("sums of {what} in tiles of {rows} x {columns}, first pair of {length} terms");
                if let Some(fault) = differing(&found, first.get_or_insert_with(|| found.clone()), what) {
                    return Ok(Some(fault));
                }
            }
        }
    }
    Ok(first.and_then(|found| far(&found, &x, &w)))
}

/// Computes the product of role `i` of [`ROLES`] into `sums`, which holds zeros. The first pair has `length` terms, and
/// the second one the others.
fn launch(
    gpu: &mut Gpu<'_>,
    i: usize,
    config: &GemmConfig,
    [x, w]: [Tensor; 2],
    length: usize,
    sums: Tensor,
) -> Result<()> {
    let side = |t: Tensor, major, terms: Range<usize>| {
        let (stride, count) = (t.cols(), terms.len());
        let (rows, columns, before) = match major {
            Major::K => (t.rows(), count, terms.start),
            Major::Mn => (count, stride, terms.start * stride),
        };
        OperandLayout { address: gpu.ptr(t) + 2 * before as u64, rows, columns, stride, major }
    };
    let [of_x, of_w] = [[Major::K, Major::K], [Major::K, Major::Mn], [Major::Mn, Major::Mn], [Major::Mn, Major::Mn]][i];
    let pair = |terms: Range<usize>| [side(x, of_x, terms.clone()), side(w, of_w, terms)];
    let sides = Sides { first: pair(0..length), more: (length < TERMS).then(|| pair(length..TERMS)) };
    let [rows, cols, depth, rest] = [ROWS, COLUMNS, length, TERMS - length].map(|n| n as i32);
    let ld = if i == 0 { depth } else { cols };
    // wgmma kernels read the operands through tensor maps; only the sizes are used.
    let more = params!(gemm::Pair { x, w, depth: rest, ld: rest });
    let operands = params!(gemm::Operands { x, w, rows, cols, depth, ld, more });
    let wide = |file, names| WideKernels { file, names, role: ROLES[i].1 };
    let (kernels, out) = match i {
        0 => (wide(SM90A, wide_names!("linear_f32")), params!(Logits::Args { y: sums })),
        1 => {
            let out = params!(DgradChain::Args { dx: None, from: None, to: sums });
            (wide(GRADIENTS, wide_names!("linear_dgrad_chain")), out)
        }
        2 => (wide(GRADIENTS, wide_names!("linear_wgrad")), params!(Wgrad::Args { from: None, dw: sums })),
        _ => (wide(GRADIENTS, wide_names!("linear_wgrad_sum")), params!(StagedSums::Args { dw: sums })),
    };
    let mut product = Wide::by(gpu, kernels, *config, sides, COLUMNS, None)?;
    if i == 3 {
        product = product.summed(gpu, sums, COLUMNS)?;
    }
    product.launch(gpu, operands.with(out))
}

/// Describes a sum that differs from the sum in f64 by more than fp32 summation in any order can (Higham, Accuracy and
/// Stability of Numerical Algorithms, section 3.1). Returns `None` if there is no such sum.
fn far(found: &[u32], x: &[bf16], w: &[bf16]) -> Option<String> {
    let wide = |v: &[bf16]| v.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
    let (x, w) = (wide(x), wide(w));
    for (i, &bits) in found.iter().enumerate() {
        let sum = f32::from_bits(bits);
        let (x, w) = (&x[i / COLUMNS * TERMS..][..TERMS], &w[i % COLUMNS * TERMS..][..TERMS]);
        let (mut want, mut size) = (0.0, 0.0);
        for (x, w) in x.iter().zip(w) {
            want += x * w;
            size += (x * w).abs();
        }
        let bound = (TERMS + 4) as f64 * 2f64.powi(-24) * size;
        let error = (f64::from(sum) - want).abs();
        if error.is_nan() || error > bound {
            return Some(format!("a sum is {sum} but {want} in f64; the error may be at most {bound:e}"));
        }
    }
    None
}
