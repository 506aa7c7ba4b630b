//! Tests of kernels/gemm_bwd_sm90a.cu: gradients of linear layers with wgmma against f64 and against
//! kernels/gemm_bwd.cu. On the emulator the bits are equal: both are one chain over ascending terms that starts from
//! the previous content.

// Batches of tokens are lists of ranges; a list of one range is intended.
#![allow(clippy::single_range_in_vec_init)]

use half::bf16;
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant, Kind};

use crate::kernels::gemm_bwd::{Case, dgrad_is_right, wgrad_is_right};
use crate::kernels::gemm_sm90a::{BODY, both, ran, wide, wide_with};
use crate::kernels::{Outcome, emu, equal, kind, mutate_sites_on, mutate_source_of, no_hopper, same_bits_on, skipped};

/// (T, N, K) on two multiprocessors. dx is [T, K] over N terms, dw is [N, K] over T terms. The shapes cover: each tile
/// of dx and dw, complete and incomplete; one stage, more stages than the ring has, and an incomplete stage; more tiles
/// than CTAs.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 8, 8),
    (17, 136, 200),
    (64, 64, 64),
    (65, 40, 104),
    (128, 128, 128),
    (130, 264, 72),
    (70, 72, 520),
    (330, 320, 136),
    (3, 600, 24),
];

#[test]
fn gradients_agree_with_f64_and_have_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    for (i, (t, n, k)) in SHAPES.into_iter().enumerate() {
        let c = Case::new(t, n, k);
        let (accumulate, bias) = (i % 2 == 0, i % 3 == 0);
        let mut dev = wide();
        dgrad_is_right(&mut dev, &c, accumulate).unwrap();
        assert!(kind() == Kind::Cuda || ran(&mut dev), "dx of {t} {n} {k} ran on the other kernel variant");
        let mut dev = wide();
        wgrad_is_right(&mut dev, &c, bias).unwrap();
        assert!(kind() == Kind::Cuda || ran(&mut dev), "dw of {t} {n} {k} ran on the other kernel variant");
        both(&format!("dx of {t} {n} {k}"), |dev| c.dgrad(dev, 0..t, accumulate));
        both(&format!("dw of {t} {n} {k}"), |dev| c.wgrad(dev, &[t], bias));
    }
}

#[test]
fn new_gradients_are_those_of_zeros() {
    if no_hopper("wgmma") {
        return;
    }
    for (t, n, k) in SHAPES {
        Case::new(t, n, k).new_gradient_is_that_of_zeros(&mut wide()).unwrap();
    }
}

#[test]
fn chains_of_weights_go_on_over_calls() {
    if no_hopper("wgmma") {
        return;
    }
    for (t, n, k) in [(150, 64, 40), (90, 136, 264)] {
        let c = Case::new(t, n, k);
        let whole = c.wgrad(&mut wide(), &[t], true).unwrap();
        for first in [16, 64, 80] {
            both("dw in parts", |dev| c.wgrad(dev, &[first, 0, t - first], true));
            let parts = c.wgrad(&mut wide(), &[first, 0, t - first], true).unwrap();
            equal(&format!("{first} of {t}"), &parts, &whole).unwrap();
        }
    }
}

#[test]
fn a_row_has_its_bits_from_every_tile_and_batch() {
    if no_hopper("wgmma") {
        return;
    }
    let c = Case::new(200, 200, 304);
    let mut dev = wide();
    let all = c.dgrad(&mut dev, 0..200, true).unwrap();
    for rows in [70..200, 136..200, 64..65] {
        let some = c.dgrad(&mut dev, rows.clone(), true).unwrap();
        equal(&format!("rows {rows:?}"), &some, &all[rows.start * c.k..rows.end * c.k]).unwrap();
    }
}

#[test]
fn rows_that_tma_cannot_copy_take_the_other_variant() {
    if skipped("which kernel variant ran") {
        return;
    }
    for (n, k, taken) in [(40, 64, [true, true]), (40, 99, [false, false]), (36, 64, [false, false])] {
        let c = Case::new(9, n, k);
        let mut dev = wide();
        dgrad_is_right(&mut dev, &c, true).unwrap();
        let dx = ran(&mut dev);
        let mut dev = wide();
        wgrad_is_right(&mut dev, &c, true).unwrap();
        assert_eq!([dx, ran(&mut dev)], taken, "N = {n}, K = {k}");
        both("dx", |dev| c.dgrad(dev, 0..9, false));
    }
    assert_eq!(Case::new(0, 64, 64).dgrad(&mut wide(), 0..0, false).unwrap(), [] as [bf16; 0]);
}

#[test]
fn an_infinity_stays_in_its_row() {
    if no_hopper("wgmma") {
        return;
    }
    let mut c = Case::new(20, 72, 40);
    c.dy[3] = bf16::INFINITY;
    // Errors if the padding is no longer zero, because zero times infinity is not zero.
    let dw = c.wgrad(&mut wide(), &[20], true).unwrap();
    assert!(dw[3 * 40..4 * 40].iter().all(|v| !v.is_finite()), "the row of an infinity");
    assert_eq!(dw[..72 * 40].iter().filter(|v| !v.is_finite()).count(), 40, "other rows");
}

#[test]
fn no_schedule_changes_a_bit() {
    if no_hopper("wgmma") {
        return;
    }
    let c = Case::new(130, 200, 264);
    same_bits_on(wide_with, 5, |dev| c.dgrad(dev, 0..130, true));
    same_bits_on(wide_with, 5, |dev| c.wgrad(dev, &[80, 50], true));
    // Stages of results, into which nothing is loaded, with few stages of terms between them: such stages are reused
    // fastest.
    let c = Case::new(300, 104, 264);
    same_bits_on(wide_with, 12, |dev| c.dgrad(dev, 0..300, false));
}

/// Probe with two tiles per CTA and more stages than the ring has, for the wide tile and for the short one.
fn probe(dev: &mut Device) -> Outcome {
    dgrad_is_right(dev, &Case::new(130, 328, 264), true)?;
    wgrad_is_right(dev, &Case::new(328, 136, 264), false)?;
    dgrad_is_right(dev, &Case::new(20, 648, 136), false)?;
    wgrad_is_right(dev, &Case::new(648, 24, 136), false)?;
    // Three rows of tiles, whose sums pass through the ring.
    Case::new(200, 328, 264).new_gradient_is_that_of_zeros(dev)?;
    Case::new(600, 24, 136).new_gradient_is_that_of_zeros(dev)
}

#[test]
fn every_wait_and_barrier_is_needed() {
    if !no_hopper("wgmma") {
        mutate_sites_on(wide_with, &[BODY], 2, probe);
    }
}

/// Plausible mistakes, each in one place: in the main loop's operands, and in the gradients.
const MISTAKES: [(&str, &str, &str); 15] = [
    ("common/gemm_sm90a.cuh", "2 * GROUP * k;", "GROUP * k;"),
    ("common/gemm_sm90a.cuh", "16 : GROUP * BLOCK_K * 2", "16 : GROUP * BLOCK_K"),
    ("common/gemm_sm90a.cuh", "first + i, k);", "first, k);"),
    ("common/gemm_sm90a.cuh", "+ i / 2 % 2 * 8, column = n", "+ i % 2 * 8, column = n"),
    ("common/gemm_sm90a.cuh", "from && row < in.rows &&", "from &&"),
    ("common/gemm_sm90a.cuh", "R::RESUMED || step > 0", "step > 0"),
    ("common/gemm_sm90a.cuh", "in, sums, at.row + warp * 16,", "in, sums, at.row,"),
    (
        "common/gemm_sm90a.cuh",
        "isa::sync_warp();\n                    if (lane == 0 && mine)",
        "if (mine) isa::sync_warp();\n                    if (lane == 0 && mine)",
    ),
    ("common/staged.cuh", "if (to.residual) y.add(place.at(column));", ""),
    ("common/staged.cuh", "v.x += sums", "v.x = sums"),
    ("common/staged.cuh", "(first / 8 + j) * 4 + half * 2];", "j * 4 + half * 2];"),
    ("common/gemm_sm90a.cuh", "isa::bulk_wait_read<1>();", ""),
    ("common/gemm_sm90a.cuh", "at.column + piece * WIDTH);", "at.column);"),
    ("common/gradients_sm90a.cuh", "isa::Major::mn, isa::Major::mn, true", "isa::Major::k, isa::Major::mn, true"),
    ("common/gradients_sm90a.cuh", "in.ld + n + column, sums_at", "in.cols + n + column, sums_at"),
];

fn mistake((file, from, to): (&str, &str, &str)) {
    mutate_source_of(Arch::Sm90a, file, from, to, 12, |dev| {
        dev.use_variant(KernelVariant::Wgmma)?;
        dgrad_is_right(dev, &Case::new(70, 72, 136), true)?;
        dgrad_is_right(dev, &Case::new(300, 104, 264), false)?;
        wgrad_is_right(dev, &Case::new(70, 136, 136), false)?;
        Case::new(70, 136, 264).new_gradient_is_that_of_zeros(dev)
    });
}

#[test]
fn a_lost_resume_is_seen() {
    if kind() == Kind::Emu {
        mistake(MISTAKES[5]);
    }
}

#[test]
#[ignore = "a compilation each"]
fn mistakes_in_the_kernel_are_seen() {
    MISTAKES.into_iter().for_each(mistake);
}

#[test]
#[ignore = "many schedules"]
fn no_drawn_schedule_changes_a_bit() {
    for (t, n, k) in [(150, 520, 320), (300, 136, 520), (33, 1176, 264)] {
        let c = Case::new(t, n, k);
        let bits = same_bits_on(wide_with, 24, |dev| c.dgrad(dev, 0..t, true));
        assert_eq!(bits, c.dgrad(&mut emu(), 0..t, true).unwrap());
        let bits = same_bits_on(wide_with, 24, |dev| c.wgrad(dev, &[t], true));
        assert_eq!(bits, c.wgrad(&mut emu(), &[t], true).unwrap());
    }
}
