//! Tests of kernels/attention_bwd_sm90a.cu: on the emulator, gradients of attention with wgmma are bitwise identical to
//! those with mma.sync. On a GPU `attention::wgmma_bwd_fault` checks this.

use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant, Kind, WgmmaKernels};
use omr_runtime::ops::attend::Heads;

use crate::kernels::attention::heads;
use crate::kernels::attention_bwd::{GradCase, WHOLE};
use crate::kernels::attention_sm90a::{long, ran, short};
use crate::kernels::gemm_sm90a::{both, wide, wide_with};
use crate::kernels::{
    Outcome, emu, equal, hopper, kind, mutate_sites_on, mutate_source_of, no_hopper, same_bits_on, skipped,
};

const BODY: &str = "kernels/common/attend_bwd_sm90a.cuh";

/// Compares gradients of a pack between both kernel variants.
fn packs(heads: Heads, lens: &[usize], causal: bool) {
    let case = GradCase::new(heads, lens, causal);
    both(&format!("{heads:?} {lens:?} causal {causal}"), |dev| case.run(dev, WHOLE));
}

#[test]
fn a_sequence_of_any_length_has_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    short(packs);
}

#[test]
fn agrees_with_the_cpu_and_the_gradient() {
    if no_hopper("wgmma") {
        return;
    }
    for (heads, causal) in [(heads(7, 1, 128), true), (heads(2, 2, 80), false)] {
        GradCase::new(heads, &[20, 0, 140], causal).check(&mut wide(), WHOLE).unwrap();
    }
}

#[test]
#[ignore = "two minutes"]
fn long_sequences_have_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    long(packs);
    packs(heads(1, 1, 80), &[2100, 1, 2048], false);
}

/// Returns a case with more than one tile, more blocks than stages in either kernel, an incomplete last block, rows
/// that do not fill a warp, and a tile of one block.
fn case() -> GradCase {
    GradCase::new(heads(3, 1, 80), &[270, 0, 5], true)
}

#[test]
fn the_same_bits_under_every_schedule() {
    if no_hopper("wgmma") {
        return;
    }
    let case = case();
    let got = same_bits_on(wide_with, 6, |dev| case.run(dev, WHOLE));
    if kind() == Kind::Emu {
        equal("mma.sync", &got, &case.run(&mut emu(), WHOLE).unwrap()).unwrap();
    }
}

/// Returns a probe that fails if a gradient has other bits than with mma.sync.
fn probe() -> impl Fn(&mut Device) -> Outcome {
    let case = case();
    let want = case.run(&mut emu(), WHOLE).unwrap();
    move |dev| {
        dev.use_variant(KernelVariant::Wgmma)?;
        equal("mma.sync", &case.run(dev, WHOLE)?, &want)
    }
}

#[test]
fn each_synchronising_call_is_needed() {
    if skipped("the bits of both kernel variants") {
        return;
    }
    mutate_sites_on(wide_with, &[BODY], 6, probe());
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn mutations_are_seen() {
    for (from, to) in [
        ("(shared ? prompt.tokens : least) < begin + BLOCK", "false"),
        ("row < all", "false"),
        ("if (tail) {\n            // Keys", "if (false) {\n            // Keys"),
        (
            "smem.k[stage.at]);\n        isa::wgmma_wait<0>();\n        release",
            "smem.v[stage.at]);\n        isa::wgmma_wait<0>();\n        release",
        ),
        (
            "int least = own + (args.in.causal ? mine / group + 1",
            "int least = own + (args.in.causal ? mine / group + 2",
        ),
        ("int key = causal ? (mine + lane() / 4)", "int key = causal ? (mine + lane() / 4 + 1)"),
        ("args.in.delta[at] = delta[i]", "args.in.delta[at] = delta[0]"),
        ("clear_rows(smem.dout[at], count)", "clear_rows(smem.q[at], count)"),
        ("weigh<HD>(dv, p, smem.dout[at])", "weigh<HD>(dv, ds, smem.dout[at])"),
    ] {
        mutate_source_of(Arch::Sm90a, "common/attend_bwd_sm90a.cuh", from, to, 1, probe());
    }
}

#[test]
fn other_calls_run_on_the_other_variant() {
    if skipped("which kernel variant ran") {
        return;
    }
    let run = |heads: Heads, dev: &mut Device| {
        GradCase::new(heads, &[3], true).run(dev, WHOLE).unwrap();
        ran(dev, BODY)
    };
    assert!(run(heads(2, 1, 80), &mut wide()) && run(heads(7, 1, 128), &mut wide()));
    assert!(!run(heads(2, 1, 80), &mut hopper()), "products by mma.sync");
    for other in [heads(2, 1, 64), heads(2, 1, 72), heads(65, 1, 80)] {
        assert!(!run(other, &mut wide()), "{other:?}");
    }
    for refused in [WgmmaKernels::Attention(80), WgmmaKernels::AttentionBwd(80)] {
        let dev = &mut wide();
        dev.refuse_wgmma(refused);
        assert!(!run(heads(2, 1, 80), dev) && run(heads(2, 1, 128), dev), "{refused} is refused");
    }
}
