//! Tests of kernels/attention_window.cu: against the CPU op and a formula in f64, and bitwise identical to
//! kernels/attention.cu.

use half::bf16;
use omr::device::Device;

use crate::kernels::attention::{Case, heads};
use crate::kernels::{Outcome, emu, emulator, equal, mutate_sites, mutate_source, same_bits, skipped};

/// Tokens per window: full windows, windows at an image's edges, one patch, no patch.
const LENGTHS: [usize; 6] = [64, 1, 0, 63, 16, 17];

#[test]
fn agrees_with_the_cpu_and_the_formula() {
    let dev = &mut emu();
    for (q, kv, dim) in [(2, 2, 80), (1, 1, 16), (2, 2, 12), (3, 1, 32), (2, 2, 64), (1, 1, 128)] {
        Case::new(heads(q, kv, dim), &LENGTHS).check(dev, false, 64).unwrap();
    }
    for (q, kv, dim) in [(16, 16, 80), (7, 1, 24), (8, 1, 66)] {
        Case::new(heads(q, kv, dim), &[3, 64]).check(dev, false, 64).unwrap();
    }
}

#[test]
fn has_the_bits_of_whole_sequences() {
    for (q, kv, dim) in [(2, 2, 80), (7, 1, 24), (2, 1, 128)] {
        let case = Case::new(heads(q, kv, dim), &LENGTHS);
        let launched = |max_seqlen: usize| {
            let dev = &mut emu();
            let (out, lse) = case.run(dev, false, max_seqlen).unwrap();
            if skipped("which kernel ran") {
                return (out, lse, max_seqlen == 64);
            }
            let sites = emulator(dev).sites();
            (out, lse, sites.iter().any(|(passed, _)| passed.site.file == "kernels/attention_window.cu"))
        };
        let (window, whole) = (launched(64), launched(65));
        assert!(window.2 && !whole.2, "two kernels are compared");
        equal("out", &window.0, &whole.0).unwrap();
        equal("lse", &window.1, &whole.1).unwrap();
    }
}

#[test]
fn the_same_bits_under_every_schedule() {
    let case = Case::new(heads(2, 2, 80), &[64, 33, 0, 5]);
    same_bits(6, |dev| Ok(case.run(dev, false, 64)?.0));
    same_bits(6, |dev| Ok(case.run(dev, false, 64)?.1));
}

fn probe(dev: &mut Device) -> Outcome {
    Case::new(heads(2, 1, 12), &[64, 0, 21]).check(dev, false, 64)
}

#[test]
fn each_synchronising_call_is_needed() {
    mutate_sites(&["kernels/attention_window.cu"], 4, probe);
}

#[test]
fn keys_of_other_windows_are_seen() {
    mutate_source("attention_window", "smem.k, keys, tokens,", "smem.k, keys, WINDOW,", 1, |dev| {
        // The window's neighbours are NaN. If a key of another window had a weight above zero, the result would be NaN.
        let mut case = Case::new(heads(1, 1, 16), &[20, 10, 1]);
        let width = case.heads.qkv_len();
        case.qkv[20 * width..].fill(bf16::NAN);
        let (out, _) = case.run(dev, false, 64)?;
        let alone = Case { heads: case.heads, cu: vec![0, 20], qkv: case.qkv[..20 * width].to_vec() };
        let want = alone.run(&mut emu(), false, 64)?.0;
        equal("the first window", &out[..20 * 16], &want)
    });
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn mutations_are_seen() {
    for (from, to) in [
        ("rows.first = tokens;", "rows.first = tokens + 1;"),
        ("visible_keys.least < WINDOW", "false"),
        ("min(rows.from + WINDOW, tokens * group)", "min(rows.from + WINDOW, tokens * group - 1)"),
        ("k + args.kv_heads * args.dim, rows.q_stride", "k, rows.q_stride"),
        ("(int)(blockIdx.y % group) * WINDOW", "0"),
    ] {
        mutate_source("attention_window", from, to, 1, probe);
    }
}
