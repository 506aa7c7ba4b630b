//! Tests the panel order of weights, and the kernels of matrix products.

use omr_runtime::device::Isa;
use omr_runtime::ops::matmul::block::{ContiguousAxis, kernel};
use omr_runtime::ops::matmul::*;
use omr_runtime::tensor::DType;

use super::panels::{pack_order, unpack_order};

#[test]
fn order_is_the_documented_one() {
    let (n, k) = (70, 5);
    for dtype in [DType::F32, DType::Bf16] {
        let row_major: Vec<u32> = (0..n * k).map(|i| i as u32 + 1).collect();
        let mut panels = vec![0u32; panel_len(dtype, n, k)];
        pack_order(dtype, n, k, &row_major, &mut panels);
        assert_eq!(unpack_order(dtype, n, k, &panels), row_major);
        for row in 0..n {
            for i in 0..k {
                let (p, j) = (row / 32, row % 32);
                let at = match dtype {
                    DType::Bf16 => ((p * 3 + i / 2) * 32 + j) * 2 + i % 2,
                    _ => (p * 5 + i) * 32 + j,
                };
                assert_eq!(index(dtype, k, row, i), at);
                assert_eq!(panels[at], row_major[row * k + i]);
            }
        }
    }
}

#[test]
fn a_processor_with_tiles_computes_f32_by_its_vectors() {
    for tiles in [Isa::Amx, Isa::AmxTwin] {
        let [by_tiles, by_vectors] = [tiles, tiles.vectors()].map(|isa| kernel(isa, DType::F32, ContiguousAxis::K).run);
        assert!(std::ptr::fn_addr_eq(by_tiles, by_vectors), "{tiles:?}");
    }
}
