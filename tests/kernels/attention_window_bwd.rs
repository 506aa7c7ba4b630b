//! Tests of kernels/attention_window_bwd.cu: against the CPU op, which rounds at the same points, against a gradient in
//! f64, and bitwise identical to kernels/attention_bwd.cu.

use half::bf16;
use omr::device::Device;

use crate::kernels::attention::{Case, heads};
use crate::kernels::attention_bwd::GradCase;
use crate::kernels::inputs::cpu;
use crate::kernels::{Outcome, emu, emulator, equal, mutate_sites, mutate_source, same_bits, skipped};

/// Tokens per window: full windows, windows at an image's edges, one patch, no patch.
const LENGTHS: [usize; 7] = [64, 1, 0, 63, 16, 4, 17];

#[test]
fn agrees_with_the_cpu_and_the_gradient() {
    let dev = &mut emu();
    for (q, kv, dim) in [(2, 2, 80), (1, 1, 16), (2, 2, 24), (2, 2, 12), (3, 1, 32), (2, 2, 64), (1, 1, 128)] {
        GradCase::new(heads(q, kv, dim), &LENGTHS, false).check(dev, 64).unwrap();
    }
    // Many heads, and groups whose rows are not a multiple of a tile.
    for (q, kv, dim) in [(16, 16, 80), (7, 1, 24), (8, 1, 66), (2, 1, 126)] {
        GradCase::new(heads(q, kv, dim), &[3, 64], false).check(dev, 64).unwrap();
    }
}

/// The probability of a single key is 1, so dv is dO. dq and dk are only the difference between the summation orders of
/// dP and D.
#[test]
fn windows_of_one_row_pass_the_gradient_on_to_the_value() {
    let case = GradCase::new(heads(2, 2, 80), &[1, 0, 1, 1], false);
    let got = case.run(&mut emu(), 1).unwrap();
    for (row, dout) in got.chunks(480).zip(case.dout.chunks(160)) {
        assert!(row[..320].iter().all(|x| x.to_f32().abs() < 1e-4), "dq and dk: {:?}", &row[..320]);
        equal("dv", &row[320..], dout).unwrap();
    }
}

#[test]
fn has_the_bits_of_whole_sequences() {
    for (q, kv, dim) in [(2, 2, 80), (7, 1, 24), (2, 1, 128)] {
        let case = GradCase::new(heads(q, kv, dim), &LENGTHS, false);
        let launched = |max_seqlen: usize| {
            let dev = &mut emu();
            let dqkv = case.run(dev, max_seqlen).unwrap();
            if skipped("which kernel ran") {
                return (dqkv, max_seqlen == 64);
            }
            let sites = emulator(dev).sites();
            (dqkv, sites.iter().any(|(passed, _)| passed.site.file == "kernels/attention_window_bwd.cu"))
        };
        let (window, whole) = (launched(64), launched(65));
        assert!(window.1 && !whole.1, "two kernels are compared");
        equal("dqkv", &window.0, &whole.0).unwrap();
    }
}

#[test]
fn the_same_bits_under_every_schedule() {
    for (q, kv, dim) in [(2, 2, 80), (3, 1, 12)] {
        let case = GradCase::new(heads(q, kv, dim), &[64, 33, 0, 5], false);
        same_bits(6, |dev| case.run(dev, 64));
    }
}

#[test]
fn shared_memory_has_no_bank_conflicts() {
    if skipped("bank conflicts") {
        return;
    }
    for dim in [16, 32, 64, 80, 128] {
        let dev = &mut emu();
        GradCase::new(heads(2, 1, dim), &[64, 19], false).run(dev, 64).unwrap();
        assert_eq!(emulator(dev).counters().bank_conflicts, 0, "head_dim {dim}");
    }
}

/// A probe with one window of two tiles of rows, and one window of less than a tile.
fn probe(dev: &mut Device) -> Outcome {
    GradCase::new(heads(2, 1, 12), &[64, 0, 21], false).check(dev, 64)
}

#[test]
fn each_synchronising_call_is_needed() {
    mutate_sites(&["kernels/attention_window_bwd.cu"], 4, probe);
}

/// A window whose neighbours are NaN has the same gradients as alone.
#[test]
fn other_windows_are_not_seen() {
    let whole = |dev: &mut Device| {
        let mut case = GradCase::new(heads(1, 1, 16), &[20, 44, 1], false);
        let (width, out) = (case.case.heads.qkv_len(), case.case.heads.out_len());
        let (first, rest) = case.case.qkv.split_at_mut(20 * width);
        rest.fill(bf16::NAN);
        case.dout[20 * out..].fill(bf16::NAN);
        let alone = GradCase {
            case: Case { heads: case.case.heads, cu: vec![0, 20], qkv: first.to_vec() },
            causal: false,
            prompt_of: None,
            dout: case.dout[..20 * out].to_vec(),
            out: case.out[..20 * out].to_vec(),
            lse: case.lse[..20].to_vec(),
        };
        equal("the first window", &case.run(dev, 64)?[..20 * width], &alone.run(&mut emu(), 64)?)
    };
    whole(&mut emu()).unwrap();
    mutate_source("attention_window_bwd", "min(WINDOW, tokens)", "WINDOW", 1, whole);
}

/// Scores so low that 2 to the power of minus the log-sum-exp is infinite. The zero scores of keys that do not exist
/// must not be combined with it.
#[test]
fn keys_that_do_not_exist_have_no_weight() {
    let finite = |dev: &mut Device| {
        let mut case = GradCase::new(heads(1, 1, 16), &[20], false);
        for row in case.case.qkv.chunks_mut(48) {
            row[..16].iter_mut().for_each(|x| *x += bf16::from_f32(8.0));
            row[16..32].iter_mut().for_each(|x| *x -= bf16::from_f32(8.0));
        }
        (case.out, case.lse) = case.case.run(&mut cpu(), false, 20)?;
        assert!(case.lse.iter().all(|x| *x < -100.0));
        let got = case.run(dev, 20)?;
        if got.iter().all(|x| x.is_finite()) { Ok(()) } else { Err("a gradient is not finite".into()) }
    };
    finite(&mut emu()).unwrap();
    mutate_source("attention_window_bwd", "tile::mask(s, seen, 0.0f);", "", 1, finite);
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn mutations_are_seen() {
    for (from, to) in [
        ("row < out.to", "true"),
        (" * math::LOG2_E", ""),
        ("(args.q_heads + slot * args.kv_heads + head)", "(args.q_heads + head)"),
        ("lane / 8 % 2 * 8", "0"),
        ("stage<HD>(dk, args.scale, smem.dout, 0);", "stage<HD>(dk, 1.0f, smem.dout, 0);"),
        ("tile::column_grads(dp, s, smem.delta + from);", "tile::column_grads(dp, s, smem.delta);"),
        ("from < Window(args).rows()", "from < WINDOW"),
        ("from += STRIP", "from += 2 * STRIP"),
        ("attend::weigh<HD>(dk, ds, q, 0);", "attend::weigh<HD>(dk, ds, dout, 0);"),
    ] {
        mutate_source("attention_window_bwd", from, to, 1, probe);
    }
}
