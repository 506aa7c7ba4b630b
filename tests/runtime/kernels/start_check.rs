//! Tests of the start check of the wgmma kernels: it finds no fault in the kernels, and it finds planted ones, also those
//! that change only the last bit of a sum and those that appear only when a CTA has several tiles.

use omr_runtime::device::emu::{Emu, Options};
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant, Kind, Plan, Region, WgmmaKernels};
use omr_runtime::ops::variants;

use crate::kernels::{Outcome, changed_source, emu_of, kind, mutate_source_of, no_hopper, run, skipped, too_large};

/// Runs the check of `kernels` and returns its fault as an error.
fn check(kernels: WgmmaKernels) -> impl Fn(&mut Device) -> Outcome {
    move |dev| {
        dev.use_variant(KernelVariant::Wgmma)?;
        variants::wgmma_fault(dev, kernels)?.map_or(Ok(()), |fault| Err(fault.into()))
    }
}

/// Requires that the check of `kernels` finds each of the changes (file, from, to).
fn found(kernels: WgmmaKernels, changes: &[[&str; 3]]) {
    for [file, from, to] in changes {
        mutate_source_of(Arch::Sm90a, file, from, to, 1, check(kernels));
    }
}

/// Returns a device of compute capability 9.0 with a changed kernel.
fn changed(file: &str, from: &str, to: &str, multiprocessors: u32) -> Device {
    let sources = changed_source(file, from, to);
    emu_of(Options { arch: Arch::Sm90a, multiprocessors, sources, ..Options::default() }).unwrap()
}

#[test]
fn the_check_finds_no_fault_and_fits_its_memory() {
    if no_hopper("wgmma") || too_large("the start check") {
        return;
    }
    let check = |mut dev: Device| assert_eq!(variants::select_wgmma(&mut dev).unwrap(), Vec::<String>::new());
    if kind() == Kind::Cuda {
        return check(crate::kernels::hopper());
    }
    let plan = Plan::default().with(Region::Workspace, variants::start_check_bytes(Kind::Emu));
    let emu = Emu::new(Options { arch: Arch::Sm90a, ..Options::default() }).unwrap();
    check(Device::gpu(Box::new(emu), Kind::Emu, &plan).unwrap());
}

#[test]
fn faults_of_products_are_found() {
    const GEMM: &str = "common/gemm_sm90a.cuh";
    // One tile loses terms. Then all tiles lose terms, so that all have the same bits, and only the comparison with f64
    // finds the fault.
    found(
        WgmmaKernels::Products,
        &[
            [GEMM, "accumulate || d > 0 || k > 0", "accumulate || d > 0 || k > (T::BLOCK_N == 32 ? 16 : 0)"],
            [GEMM, "for (int k = 0; k < BLOCK_K; k += 16)", "for (int k = 0; k < BLOCK_K - 16; k += 16)"],
        ],
    );
}

/// Plants a fault of the second tile. On 64 multiprocessors each CTA of the small products has one tile, as on a GPU,
/// unless the check limits the CTAs.
#[test]
fn a_fault_of_the_second_tile_of_a_cta_is_found() {
    if skipped("a planted fault") {
        return;
    }
    let (from, to) = ("R::RESUMED || step > 0)", "R::RESUMED || step > 0 || tile >= gridDim.x)");
    let mut dev = changed("common/gemm_sm90a.cuh", from, to, 64);
    let error = run(&check(WgmmaKernels::Products), &mut dev).unwrap_err().to_string();
    assert!(error.contains("differ bitwise"), "{error}");
}

#[test]
fn faults_of_epilogues_are_found() {
    found(
        WgmmaKernels::Products,
        &[
            // The bias of the wrong columns in tiles of more than one slice.
            ["common/staged.cuh", "y.add_bias(slot.bias + column, lane)", "y.add_bias(slot.bias, lane)"],
            // Log-probs of the sampler that differ from the trainer's in the last bit.
            ["sample.cu", "1.0f : 1.0f / temperature", "1.0f : 1.0f / temperature * 1.00000012f"],
        ],
    );
}

const LOOP: &str = "common/attend_sm90a.cuh";

#[test]
fn attention_that_differs_in_the_last_bit_is_found() {
    found(
        WgmmaKernels::Attention(128),
        &[
            ["common/attend_item.cuh", "1.0f / state.l[i]", "(1.0f / state.l[i]) * 1.00000012f"],
            ["common/attend.cuh", "x = fmaf(x, a, pair.x * b);", "x = x * a + pair.x * b;"],
            ["common/attend.cuh", "l[i] = fmaf(l[i], a, ml.y * b);", "l[i] = l[i] * a + ml.y * b;"],
            [LOOP, "fmaf(l.x, alpha[0], sum[0])", "l.x * alpha[0] + sum[0]"],
            [
                LOOP,
                "            tile::row_scale(state.o, alpha);",
                "            alpha[0] *= 1.00000012f;\n            tile::row_scale(state.o, alpha);",
            ],
        ],
    );
}

#[test]
fn a_lost_state_of_a_shared_page_is_found() {
    let change = ["common/attend_item.cuh", "if (item.begin % CHUNK > 0)", "if (false)"];
    found(WgmmaKernels::Attention(80), &[change]);
}

/// A fault in the backward pass of one head size changes nothing else.
#[test]
fn a_fault_refuses_only_its_kernels_and_head_size() {
    if skipped("a planted fault") {
        return;
    }
    let (from, to) = ("row < all", "row < all && HD != 128");
    let mut dev = changed("common/attend_bwd_sm90a.cuh", from, to, 2);
    let faults = variants::select_wgmma(&mut dev).unwrap();
    let begin = "the backward pass of attention of head size 128 uses mma.sync instead of wgmma: ";
    assert!(faults.len() == 1 && faults[0].starts_with(begin), "{faults:?}");
    let used = |kernels| dev.uses_wgmma(kernels);
    use WgmmaKernels::{Attention, AttentionBwd, Products};
    assert!(used(Products) && used(Attention(128)) && used(AttentionBwd(80)) && !used(AttentionBwd(128)));
}
