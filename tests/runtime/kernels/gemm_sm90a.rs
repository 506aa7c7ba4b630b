//! Tests of kernels/gemm_sm90a.cu: linear layers with wgmma against f64, the CPU ops and kernels/gemm.cu. On the
//! emulator the bits equal those of kernels/gemm.cu, because both are one chain of fused multiply-adds over ascending
//! k. On a GPU the first test prints how many bits are equal.

use half::bf16;
use omr_runtime::device::emu::Options;
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant, Kind, WgmmaKernels};
use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::ops::gemm::config::{GemmConfig, GemmDesc, Role};
use omr_runtime::ops::linear;

use crate::kernels::gemm::{Case, Qkv, epilogues, linear_is_right};
use crate::kernels::inputs::{guarded, untouched, up};
use crate::kernels::{
    Outcome, Schedule, emu, emu_of, emulator, equal, hopper, hopper_with, kind, mutate_sites_on, mutate_source_of,
    no_hopper, same_bits_on, skipped,
};
use crate::kernels::{gemm_bwd, linear_logprob, linear_logprob_bwd, sample};

pub const BODY: &str = "kernels/common/gemm_sm90a.cuh";

/// Returns a device whose linear layers use wgmma.
pub fn wide_with(schedule: Schedule) -> Device {
    let mut dev = hopper_with(schedule);
    dev.use_variant(KernelVariant::Wgmma).unwrap();
    dev
}

pub fn wide() -> Device {
    wide_with(Schedule::FIXED)
}

/// (T, N, K) on two multiprocessors: each tile, complete and incomplete; one stage of K and more stages than the ring
/// has; a K that is not a multiple of a stage; more tiles than CTAs.
const SHAPES: [(usize, usize, usize); 12] = [
    (1, 64, 64),
    (1, 8, 8),
    (17, 200, 640),
    (64, 136, 72),
    (65, 40, 104),
    (128, 128, 64),
    (129, 304, 136),
    (200, 256, 448),
    (300, 264, 1176),
    (70, 520, 200),
    (33, 72, 16),
    (3, 24, 3424),
];

/// Runs an op with both kernel variants. Requires equal results on the emulator, and counts equal elements on a GPU.
pub fn both<T: omr_runtime::tensor::Elem>(what: &str, run: impl Fn(&mut Device) -> Outcome<Vec<T>>) {
    let (by_wgmma, by_mma) = (run(&mut wide()).unwrap(), run(&mut emu()).unwrap());
    if kind() == Kind::Cuda {
        let same = by_wgmma.iter().zip(&by_mma).filter(|(a, b)| a == b).count();
        println!("  wgmma and mma.sync, {what}: {same} of {} equal", by_mma.len());
    } else {
        equal(what, &by_wgmma, &by_mma).unwrap();
    }
}

/// Returns true if the kernel variant under test ran, which its passed call sites show.
pub fn ran(dev: &mut Device) -> bool {
    emulator(dev).sites().iter().any(|(passed, _)| passed.site.file == BODY)
}

#[test]
fn linear_agrees_with_f64_and_has_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    for (i, (t, n, k)) in SHAPES.into_iter().enumerate() {
        let c = Case::new(t, n, k);
        let (bias, residual) = (i % 2 == 0, i % 4 < 2);
        let mut dev = wide();
        linear_is_right(&mut dev, &c, bias, residual).unwrap();
        assert!(kind() == Kind::Cuda || ran(&mut dev), "{t} {n} {k} ran on the other kernel variant");
        both(&format!("linear {t} {n} {k}"), |dev| c.linear(dev, 0..t, bias, residual));
    }
}

#[test]
fn every_epilogue_has_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    for (t, n, k) in [(20, 67, 64), (130, 330, 72)] {
        let c = Case::new(t, n, k);
        both("logits", |dev| c.logits(dev));
        both("gelu", |dev| Ok(c.gelu(dev, GeluKind::Exact, true, true)?.concat()));
    }
    for (t, n, k) in [(5, 64, 64), (70, 192, 104), (129, 320, 40)] {
        both("swiglu", |dev| Ok(Case::new(t, n, k).swiglu(dev, true, true)?.concat()));
    }
    // Boxes of 32 rows and of 8. Heads of other sizes use the mma.sync variant.
    for (t, q, kv, dim) in [(17, 2, 1, 64), (131, 2, 1, 128), (66, 4, 2, 80), (20, 3, 1, 16), (9, 2, 1, 24)] {
        let case = Qkv::new(t, q, kv, dim);
        both(&format!("qkv of {dim}"), |dev| Ok(case.run(dev, true, true)?.concat()));
        if kind() == Kind::Emu {
            let mut dev = wide();
            case.run(&mut dev, true, true).unwrap();
            assert_eq!(ran(&mut dev), dim % 16 == 0, "heads of {dim}");
        }
    }
}

/// Returns one pair for each tile that products of this role use: the index of a shape (rows, columns and terms), and a
/// number of multiprocessors, `least` or more, with which this shape selects the tile.
fn every_config(role: Role, least: u32, shapes: &[(usize, usize, usize)]) -> Vec<(usize, u32)> {
    let planned = |i: usize, sms: u32| {
        let (rows, columns, terms) = shapes[i];
        GemmDesc { rows, columns, terms, role, multiprocessors: sms as usize }.plan()
    };
    let settings: Vec<(usize, u32)> = (0..shapes.len()).flat_map(|i| (least..=132).map(move |sms| (i, sms))).collect();
    let chosen = |config: &GemmConfig| {
        let found = settings.iter().find(|(i, sms)| planned(*i, *sms) == *config);
        *found.unwrap_or_else(|| panic!("no shape is for {config:?} of {role:?}"))
    };
    role.configs().iter().map(chosen).collect()
}

/// Returns a device of `sms` multiprocessors with at most `ctas` CTAs. The CTAs that have no place beside another kernel
/// on `occupied` multiprocessors start late.
pub fn with_late_ctas(sms: u32, ctas: u32, occupied: u32) -> Device {
    let options = Options { arch: Arch::Sm90a, multiprocessors: sms, occupied, ..Options::default() };
    let mut dev = emu_of(options).unwrap();
    dev.use_variant(KernelVariant::Wgmma).unwrap();
    dev.limit_ctas(Some(ctas as usize));
    dev
}

#[test]
fn no_tile_changes_a_bit() {
    if skipped("GPUs of other sizes") {
        return;
    }
    every_tile_has_the_other_bodys_bits(1, 1, &|sms| wide_with(Schedule { sms, ..Schedule::FIXED }));
}

#[test]
fn tiles_from_a_counter_have_the_same_bits_on_1_7_and_132_ctas() {
    if skipped("CTAs that start late") {
        return;
    }
    every_tile_has_the_other_bodys_bits(1, 1, &|sms| with_late_ctas(sms, 1, 0));
    // Of seven CTAs, three start when others have ended.
    every_tile_has_the_other_bodys_bits(7, 7, &|sms| with_late_ctas(sms, 7, sms - 4));
    // 280 tiles of 64 x 64 on 132 CTAs, of which eight run at a time. The emulator has no memory for more.
    let c = Case::new(60, 64 * 280, 64);
    let run = |dev: &mut Device| c.swiglu(dev, false, false).unwrap().concat();
    equal("swiglu", &run(&mut with_late_ctas(132, 132, 124)), &run(&mut emu())).unwrap();
}

/// Compares products of each role in each tile with those of the other kernel variant. `on` makes a device of the given
/// number of multiprocessors, at least `least`. The shapes have `scale` times as many columns as few CTAs need.
fn every_tile_has_the_other_bodys_bits(scale: usize, least: u32, on: &dyn Fn(u32) -> Device) {
    let shapes = [(130, 328 * scale, 72), (70, 200 * scale, 72), (20, 200 * scale, 72)];
    for (i, sms) in every_config(Role::Linear, least, &shapes) {
        let (t, n, k) = shapes[i];
        let c = Case::new(t, n, k);
        equal("logits", &c.logits(&mut on(sms)).unwrap(), &c.logits(&mut emu()).unwrap()).unwrap();
        let run = |dev: &mut Device| c.linear(dev, 0..t, true, true).unwrap();
        equal("linear", &run(&mut on(sms)), &run(&mut emu())).unwrap();
    }
    for dim in [64, 16] {
        // In `Qkv` K is 72.
        let cases = [130, 70, 20].map(|t| Qkv::new(t, 320 * scale / dim - 2, 1, dim));
        let shapes = cases.each_ref().map(|c| (c.case.t, c.case.n, 72));
        for (i, sms) in every_config(Role::Qkv, least, &shapes) {
            let run = |dev: &mut Device| cases[i].run(dev, true, true).unwrap().concat();
            equal("qkv", &run(&mut on(sms)), &run(&mut emu())).unwrap();
        }
    }
    let shapes = [(130, 320 * scale, 72), (20, 128 * scale, 72)];
    for (i, sms) in every_config(Role::Activation, least, &shapes) {
        let (t, n, k) = shapes[i];
        let run = |dev: &mut Device| Case::new(t, n, k).swiglu(dev, true, true).unwrap().concat();
        equal("swiglu", &run(&mut on(sms)), &run(&mut emu())).unwrap();
    }
    let shapes = [(130, 400 * scale, 72), (20, 300 * scale, 72)];
    for (i, sms) in every_config(Role::Logits, least, &shapes) {
        let c = linear_logprob::case(shapes[i], true, 0.7);
        let run = |dev: &mut Device| linear_logprob::run(dev, &c, 0, shapes[i].0).unwrap().concat();
        equal("linear_logprob", &run(&mut on(sms)), &run(&mut emu())).unwrap();
    }
    // dx is [T, K] summed over N; dw is [N, K] summed over T.
    let shapes = [(130, 264 * scale, 72), (20, 136 * scale, 72)];
    for (i, sms) in every_config(Role::Gradient, least, &shapes) {
        let (rows, columns, terms) = shapes[i];
        let (dx, dw) = (gemm_bwd::Case::new(rows, terms, columns), gemm_bwd::Case::new(terms, rows, columns));
        let run = |dev: &mut Device| dx.dgrad(dev, 0..rows, true).unwrap();
        equal("dx", &run(&mut on(sms)), &run(&mut emu())).unwrap();
        let run = |dev: &mut Device| dw.wgrad(dev, &[terms], false).unwrap();
        equal("dw", &run(&mut on(sms)), &run(&mut emu())).unwrap();
    }
}

/// Checks that linear and SwiGLU do not write behind their rows.
fn nothing_behind_is_written(dev: &mut Device, (t, n, k): (usize, usize, usize)) -> Outcome {
    let c = Case::new(t, n, k);
    let (x, w) = (c.x_on(dev, 0..t), c.weight_on(dev));
    let residual = up(dev, &c.residual, &[t, n]);
    let [y, both, one] = [n, n, n / 2].map(|n| guarded(dev, t, n));
    linear::fwd(dev, x, &w, None, Some(residual), y.slice(0, t))?;
    linear::fwd_swiglu(dev, x, &w, None, Some(both.slice(0, t)), one.slice(0, t))?;
    [y, both, one].into_iter().try_for_each(|t| untouched(dev, t))
}

#[test]
fn boxes_end_at_the_last_row() {
    if no_hopper("wgmma") {
        return;
    }
    for shape in [(130, 320, 72), (70, 64, 72), (5, 128, 40)] {
        nothing_behind_is_written(&mut wide(), shape).unwrap();
        let mut dev = wide();
        gemm_bwd::nothing_behind_is_written(&mut dev, shape).unwrap();
        assert!(kind() == Kind::Cuda || ran(&mut dev), "{shape:?} ran on the other kernel variant");
    }
}

#[test]
fn shared_memory_has_no_bank_conflicts() {
    if skipped("bank conflicts") {
        return;
    }
    for (t, n, k) in [(4, 64, 128), (40, 128, 128), (130, 512, 128)] {
        let mut dev = emu_of(Options { arch: Arch::Sm90a, banks: true, ..Options::default() }).unwrap();
        dev.use_variant(KernelVariant::Wgmma).unwrap();
        let c = Case::new(t, n, k);
        // The first two calls store their results by TMA, the others by slices.
        c.linear(&mut dev, 0..t, true, true).unwrap();
        c.swiglu(&mut dev, true, true).unwrap();
        c.logits(&mut dev).unwrap();
        c.gelu(&mut dev, GeluKind::Exact, true, true).unwrap();
        gemm_bwd::Case::new(t, n, k).wgrad(&mut dev, &[t], false).unwrap();
        assert!(ran(&mut dev));
        assert_eq!(emulator(&mut dev).counters().bank_conflicts, 0, "{t} rows");
    }
    // Mutation: the rows of a panel are stored without the swizzle. Eight rows are then in the same banks.
    let bank_conflicts = |dev: &mut Device| {
        dev.use_variant(KernelVariant::Wgmma)?;
        Case::new(40, 64, 64).swiglu(dev, false, false)?;
        match emulator(dev).counters().bank_conflicts {
            0 => Ok(()),
            n => Err(format!("{n} bank conflicts").into()),
        }
    };
    let plain = ("lane / 16 ^ row * WIDTH / 64 % (WIDTH / 8)", "lane / 16");
    mutate_source_of(Arch::Sm90a, "common/staged.cuh", plain.0, plain.1, 1, bank_conflicts);
}

#[test]
fn log_probs_gradients_and_tokens_have_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    // The short tile, the wide one with a segment past the ids, and the square one.
    for shape in [(5, 300, 64), (70, 400, 72), (66, 100, 136)] {
        let c = linear_logprob::case(shape, true, 0.7);
        both(&format!("linear_logprob {shape:?}"), |dev| Ok(linear_logprob::run(dev, &c, 0, shape.0)?.concat()));
        // First waves of few ids, then all ids at once.
        let c = linear_logprob_bwd::case(shape, true, 0.7);
        for bytes in [1 << 15, usize::MAX] {
            both(&format!("its gradients {shape:?}"), |dev| linear_logprob_bwd::run(dev, &c, bytes));
        }
    }
    for rows in [3, 70] {
        let (hidden, w, draws) = sample::hidden_case(rows);
        let run = |dev: &mut Device| sample::from_hidden(dev, &hidden, &w, &draws, &None);
        both("ids", |dev| Ok(run(dev)?.0));
        both("log-probs", |dev| Ok(run(dev)?.1));
    }
    if kind() == Kind::Emu {
        let mut dev = wide();
        linear_logprob::run(&mut dev, &linear_logprob::case((3, 64, 64), false, 1.0), 0, 3).unwrap();
        assert!(ran(&mut dev), "linear_logprob ran on the other kernel variant");
    }
}

#[test]
fn a_row_has_its_bits_from_every_tile_and_batch() {
    if no_hopper("wgmma") {
        return;
    }
    let c = Case::new(200, 304, 200);
    let mut dev = wide();
    let all = c.linear(&mut dev, 0..200, true, true).unwrap();
    for rows in [70..200, 0..128, 136..200, 64..65, 0..17] {
        let some = c.linear(&mut dev, rows.clone(), true, true).unwrap();
        equal(&format!("rows {rows:?}"), &some, &all[rows.start * c.n..rows.end * c.n]).unwrap();
    }
}

#[test]
fn rows_that_tma_cannot_copy_take_the_other_variant() {
    if skipped("which kernel variant ran") {
        return;
    }
    // Row lengths of x (k), and of y and the residual (n).
    for (n, k, taken) in [(40, 64, true), (40, 100, false), (40, 99, false), (36, 64, false), (33, 64, false)] {
        let mut dev = wide();
        linear_is_right(&mut dev, &Case::new(9, n, k), true, true).unwrap();
        assert_eq!(ran(&mut dev), taken, "N = {n}, K = {k}");
    }
    let mut dev = hopper();
    linear_is_right(&mut dev, &Case::new(9, 40, 64), true, true).unwrap();
    assert!(!ran(&mut dev), "wgmma without being asked for");
    assert_eq!(Case::new(0, 64, 64).linear(&mut wide(), 0..0, true, true).unwrap(), [] as [bf16; 0]);
}

#[test]
fn wgmma_is_refused_where_there_is_none() {
    if skipped("a device of compute capability 8.0") {
        return;
    }
    let mut dev = emu();
    let text = dev.use_variant(KernelVariant::Wgmma).unwrap_err().to_string();
    assert!(text.contains("wgmma on compute capability 8.0"), "{text}");
    assert_eq!([dev.variant(), wide().variant()], [Some(KernelVariant::Mma), Some(KernelVariant::Wgmma)]);
    let mut dev = hopper();
    dev.refuse_wgmma(WgmmaKernels::Products);
    assert!(
        !dev.has_wgmma()
            && dev.use_variant(KernelVariant::Wgmma).unwrap_err().to_string().contains("failed the start check")
    );
}

#[test]
fn no_schedule_changes_a_bit() {
    if no_hopper("wgmma") {
        return;
    }
    let c = Case::new(130, 304, 328);
    same_bits_on(wide_with, 6, |dev| c.linear(dev, 0..130, true, true));
    same_bits_on(wide_with, 4, |dev| c.linear(dev, 0..30, true, true));
    same_bits_on(wide_with, 4, |dev| Ok(Qkv::new(70, 2, 1, 16).run(dev, true, true)?.concat()));
}

/// Probe with several tiles per CTA and more stages than the ring has, for a wide tile and for one with few rows.
fn probe(dev: &mut Device) -> Outcome {
    linear_is_right(dev, &Case::new(200, 520, 328), true, true)?;
    linear_is_right(dev, &Case::new(20, 200, 1160), true, true)?;
    // The narrowest tile, whose stages have two blocks of terms.
    linear_is_right(dev, &Case::new(20, 16, 328), true, true)?;
    // Results by slices.
    let c = Case::new(70, 130, 72);
    equal("logits", &c.logits(dev)?, &c.logits(&mut emu())?)
}

#[test]
fn every_wait_and_barrier_is_needed() {
    if !no_hopper("wgmma") {
        mutate_sites_on(wide_with, &[BODY], 2, probe);
    }
}

/// Plausible mistakes, each in one place: first in the main loop, then in the results by TMA.
const MISTAKES: [(&str, &str); 20] = [
    ("isa::wgmma_wait<1>();", "isa::wgmma_wait<2>();"),
    ("pipe.parity ^ 1);", "pipe.parity);"),
    ("parity ^= 1;", ""),
    ("T::MATH / 32 * T::CLUSTER);", "T::MATH / 64 * T::CLUSTER);"),
    ("M == isa::Major::k ? 2 * k :", "M == isa::Major::k ? k :"),
    ("d * T::BLOCK_M + group * 64", "d * T::BLOCK_M"),
    ("d++, k += BLOCK_K", "d++"),
    ("row < 0 ? args.in.cols : row", "row + 1"),
    ("accumulate || d > 0 || k > 0", "true"),
    ("i % 2 * 8, column", "0, column"),
    (
        "tile, bytes);\n                copy_stage<T, E, R>(smem, pipe.slot, &args.x,",
        "tile, bytes - 128);\n                copy_stage<T, E, R>(smem, pipe.slot, &args.x,",
    ),
    ("if (x_box < T::BLOCK_M) clear_x", "if (false) clear_x"),
    ("before >= 0 && lane == 0", "before >= 0 && step > 0 && lane == 0"),
    ("at.row + i / PIECES * 64,", "at.row,"),
    ("taken + 1 == (uint32_t)tiles", "taken + 2 == (uint32_t)tiles"),
    ("smem.tile[pipe.slot] = tile;", "smem.tile[pipe.slot] = tile + 1;"),
    ("lane / 16 ^ row * WIDTH / 64 % (WIDTH / 8)", "lane / 16"),
    ("if (to.residual) y.add", "if (to.bias && to.residual && column > 0) y.add"),
    ("v[i + 2] += isa::lo(b);", "v[i + 2] += isa::hi(b);"),
    ("+ warp * 16 * WIDTH, column + i, row", "+ warp * 16 * WIDTH, column, row"),
];

#[test]
fn a_wrong_parity_is_seen() {
    if kind() == Kind::Emu {
        mistake(MISTAKES[1]);
    }
}

fn mistake((from, to): (&str, &str)) {
    let file = ["common/gemm_sm90a.cuh", "common/staged.cuh"][usize::from(MISTAKES[16..].contains(&(from, to)))];
    mutate_source_of(Arch::Sm90a, file, from, to, 2, |dev| {
        dev.use_variant(KernelVariant::Wgmma)?;
        probe(dev)
    });
}

#[test]
#[ignore = "a compilation each"]
fn mistakes_in_the_variant_are_seen() {
    epilogues(&mut wide()).unwrap();
    MISTAKES.into_iter().for_each(mistake);
}

#[test]
#[ignore = "many schedules"]
fn no_drawn_schedule_changes_a_bit() {
    for (t, n, k) in [(150, 320, 520), (300, 520, 136), (33, 264, 1176)] {
        let c = Case::new(t, n, k);
        let bits = same_bits_on(wide_with, 24, |dev| c.linear(dev, 0..t, true, true));
        assert_eq!(bits, c.linear(&mut emu(), 0..t, true, true).unwrap());
    }
}
