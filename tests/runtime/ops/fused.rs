//! Tests products of bf16 by fused multiply-adds on processors with AVX-512.

use std::arch::x86_64::*;

use bytemuck::cast_slice;
use half::bf16;
use omr_base::philox::{Purpose, key, philox4x32_10};
use omr_runtime::device::Isa;
use omr_runtime::device::amx::twin;
use omr_runtime::ops::matmul::PANEL;
use omr_runtime::ops::matmul::fused::{Fused, LANES, LOW, TALL};
use omr_runtime::ops::matmul::product::Product;
use omr_runtime::ops::matmul::tile::Tile;
use omr_runtime::tensor::DType;

/// Returns pairs of bf16. A quarter of the values are so small that their products are subnormal.
fn words(counter: u32, count: usize) -> Vec<u32> {
    let exponent = |bits: u32| if bits.is_multiple_of(4) { bits / 4 % 80 } else { 123 + bits / 4 % 8 };
    let word = |i: usize| {
        let [bits, low, high, _] = philox4x32_10(key(1, Purpose::Test, 0), [counter, i as u32, 0, 0]);
        bits & 0x807f_807f | exponent(low) << 7 | exponent(high) << 23
    };
    (0..count).map(word).collect()
}

/// Returns pairs of any bits. A third of the values are zeros, NaN, infinite, subnormal or at the ends of the range.
fn any_words(counter: u32, count: usize) -> Vec<u32> {
    const SPECIAL: [u32; 9] = [0, 0x8000, 0x0001, 0x7f7f, 0x7f80, 0xff80, 0x7fc1, 0xffc5, 0x7f81];
    let half = |bits: u32| if bits.is_multiple_of(3) { SPECIAL[(bits / 3 % 9) as usize] } else { bits & 0xffff };
    let word = |i: usize| {
        let [low, high, ..] = philox4x32_10(key(2, Purpose::Test, 0), [counter, i as u32, 0, 0]);
        half(low) | half(high) << 16
    };
    (0..count).map(word).collect()
}

/// Adds the terms of two words as the manual describes `vdpbf16ps`.
fn add(sum: f32, x: u32, w: u32) -> f32 {
    let flushed = |x: f32| if x.is_subnormal() { 0.0_f32.copysign(x) } else { x };
    let term = |sum, x, w| twin::multiply_add(flushed(f32::from_bits(x)), flushed(f32::from_bits(w)), flushed(sum));
    term(term(sum, x & 0xffff_0000, w & 0xffff_0000), x << 16, w << 16)
}

/// Returns the register that controls rounding and subnormal numbers, without the flags of exceptions.
fn control_word() -> u32 {
    let mut word = 0_u32;
    // SAFETY: the instruction writes four bytes to `word`.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack)) };
    word & !0x3f
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn dot(sums: [f32; LANES], x: [u32; LANES], w: [u32; LANES]) -> [f32; LANES] {
    // SAFETY: the types have the same 512 bits.
    unsafe {
        let [x, w] = [x, w].map(|words| std::mem::transmute::<[u32; LANES], __m512bh>(words));
        std::mem::transmute(_mm512_dpbf16_ps(std::mem::transmute::<[f32; LANES], __m512>(sums), x, w))
    }
}

#[test]
fn blocks_have_the_bits_of_vdpbf16ps() {
    if !Isa::Avx512.available() {
        return;
    }
    for (height, tiles) in [(LOW, [0..8, 8..13]), (TALL, [0..12, 12..23])] {
        for steps in [1, 15, 16, 33] {
            let (rows, panels) = (tiles[1].end, 2);
            let (x, w) = (words(1, rows * steps), words(2, panels * steps * PANEL));
            let terms = 2 * steps;
            let along_k = Product::rows::<bf16>(cast_slice(&x), rows, terms, cast_slice(&w), panels * PANEL);
            let along_rows = Product::columns(DType::Bf16, &x, rows, &w, panels * PANEL);
            // Distances between the rows and between the steps of `x`, in words.
            for (product, [row_stride, step_stride]) in [(along_k, [steps, 1]), (along_rows, [1, rows])] {
                let mut fused = Fused::widened(&product, tiles.iter().cloned(), height);
                fused.widen_panels(&product, 0..panels);
                for (index, tile) in tiles.iter().enumerate() {
                    for start in [None, Some(0.75)] {
                        let mut sums = vec![start.unwrap_or(f32::NAN); height * panels * PANEL];
                        let (row, rows, stride) = (tile.start, tile.len(), panels * PANEL);
                        let mut tile = Tile { row, rows, panel: 0, panels, sums: &mut sums, stride };
                        fused.multiply(index, &mut tile, start.is_some());
                        for (i, got) in sums.into_iter().enumerate().take(rows * stride) {
                            let (row, col) = (row + i / stride, i % stride);
                            let want = (0..steps).fold(start.unwrap_or(0.0), |sum, k| {
                                let at = row * row_stride + k * step_stride;
                                add(sum, x[at], w[(col / PANEL * steps + k) * PANEL + col % PANEL])
                            });
                            assert_eq!(got.to_bits(), want.to_bits(), "{height} rows, {steps} steps, {row}, {col}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn vdpbf16ps_computes_what_the_manual_says() {
    if !Isa::Avx512.has_bf16_dot() {
        return;
    }
    let count = 4096 * LANES;
    let [x, w, sums] = [1, 2, 3].map(|counter| words(counter, count));
    for i in (0..count).step_by(LANES) {
        let vector = |words: &[u32]| <[u32; LANES]>::try_from(&words[i..i + LANES]).expect("sixteen words");
        let start = vector(&sums).map(f32::from_bits);
        // SAFETY: `has_bf16_dot` has checked that the processor has the instruction.
        let got = unsafe { dot(start, vector(&x), vector(&w)) };
        for lane in 0..LANES {
            assert_eq!(got[lane].to_bits(), add(start[lane], x[i + lane], w[i + lane]).to_bits(), "{i} {lane}");
        }
    }
}

#[test]
fn blocks_have_the_bits_of_vdpbf16ps_also_for_nan_and_infinity() {
    if !Isa::Avx512.has_bf16_dot() {
        return;
    }
    let control = control_word();
    for counter in 0..2000 {
        let [x, w, start] = [(0, LOW), (1, PANEL), (2, LOW * PANEL)].map(|(part, n)| any_words(3 * counter + part, n));
        let product = Product::rows::<bf16>(cast_slice(&x), LOW, 2, cast_slice(&w), PANEL);
        let mut fused = Fused::widened(&product, std::iter::once(0..LOW), LOW);
        fused.widen_panels(&product, 0..1);
        let mut sums: Vec<f32> = start.iter().map(|&bits| f32::from_bits(bits)).collect();
        let mut tile = Tile { row: 0, rows: LOW, panel: 0, panels: 1, sums: &mut sums, stride: PANEL };
        fused.multiply(0, &mut tile, true);
        for at in (0..LOW * PANEL).step_by(LANES) {
            let before: [f32; LANES] = std::array::from_fn(|i| f32::from_bits(start[at + i]));
            let words = std::array::from_fn(|i| w[at % PANEL + i]);
            // SAFETY: `has_bf16_dot` has checked that the processor has the instruction.
            let want = unsafe { dot(before, [x[at / PANEL]; LANES], words) }.map(f32::to_bits);
            let got: Vec<u32> = sums[at..at + LANES].iter().map(|sum| sum.to_bits()).collect();
            assert_eq!(got, want, "{counter} {at}");
        }
    }
    assert_eq!(control_word(), control);
}
