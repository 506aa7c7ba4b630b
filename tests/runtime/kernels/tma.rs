//! Tests of mbarriers and bulk copies on the emulator: a correct pipeline, and the messages for mistakes.

use omr_runtime::device::emu::sites::Passed;
use omr_runtime::device::emu::{Completion, Options};
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Driver, Launch, TensorMap};

use crate::emulated::Emulated;
use crate::kernels::Schedule;

const FILE: &str = "control_tma";
const PATH: &str = "kernels/control_tma.cu";
const TEXT: &str = include_str!("tma.cu");
/// Bytes of shared memory; enough for the struct of tma.cu.
const SMEM: usize = 20 * 1024;
const ROWS: usize = 32;
const WORDS: usize = 32;

fn options(schedule: Schedule) -> Options {
    Options { arch: Arch::Sm90a, ..schedule.options() }
}

fn words(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 7).collect()
}

/// Words of a row of `out` for the kernel `padded`, whose box has [`WORDS`].
const PADDED: usize = 24;

/// Runs a kernel of `text` on words `x`. The tensor map `in` shows `x` as bf16 of `rows` rows, and the tensor map `out`
/// shows `y`. Returns the content of `y` afterwards, and the sites passed.
fn run(
    text: &str,
    kernel: &'static str,
    threads: u32,
    (x, y, n): (&[u32], usize, usize),
    options: Options,
    skip: Option<&Passed>,
) -> Result<(Vec<u32>, Vec<Passed>), String> {
    let mut device = Emulated::new((PATH, text), options);
    device.emu.skip(skip.map(|passed| passed.site.clone()));
    let (source, target) = (device.put_words(x), device.put_words(&vec![0; y]));
    let mut map = |address, words: usize, width: usize| {
        let rows = (words / WORDS) as u64;
        let (dims, strides) = (vec![2 * width as u64, rows], vec![4 * WORDS as u64]);
        let box_dims = vec![2 * WORDS as u32, ROWS as u32];
        device.emu.tensor_map(&TensorMap { address, element: 2, dims, strides, box_dims, swizzle: 128 }).unwrap().0
    };
    let width = if kernel == "padded" { PADDED } else { WORDS };
    let mut args = [map(source, x.len(), WORDS), map(target, y, width)].concat();
    args.extend([source, target, n as u64]);
    // The struct's size is a multiple of a map's alignment.
    args.resize(args.len().next_multiple_of(8), 0);
    device.run(FILE, kernel, Launch::new([1, 1, 1], threads, SMEM), &args).map_err(|e| e.to_string())?;
    let found = device.get_words(target, y).map_err(|e| e.to_string())?;
    Ok((found, device.emu.sites().into_iter().map(|(passed, _)| passed).collect()))
}

const TILES: usize = 8;
/// Rows of the tensors: half of the last tile is outside.
const HEIGHT: usize = TILES * ROWS - ROWS / 2;

/// Returns the expected result: each tile upside down, plus its number. Rows outside are zero and are not stored.
fn pipelined_want(x: &[u32]) -> Vec<u32> {
    let row = |row: usize| {
        let (tile, inside) = (row / ROWS, row % ROWS);
        let from = tile * ROWS + ROWS - 1 - inside;
        (0..WORDS).map(move |i| x.get(from * WORDS + i).copied().unwrap_or(0).wrapping_add(tile as u32))
    };
    (0..HEIGHT).flat_map(row).collect()
}

fn pipelined(text: &str, options: Options, skip: Option<&Passed>) -> Result<(Vec<u32>, Vec<Passed>), String> {
    run(text, "pipelined", 160, (&words(HEIGHT * WORDS), HEIGHT * WORDS, TILES), options, skip)
}

fn plain(options: Options, skip: Option<&Passed>) -> Result<(Vec<u32>, Vec<Passed>), String> {
    run(TEXT, "plain", 64, (&words(1000), 1064, 1000), options, skip)
}

#[test]
fn a_pipeline_copies_under_every_schedule() {
    let want = pipelined_want(&words(HEIGHT * WORDS));
    for schedule in Schedule::several(23) {
        let (found, _) = pipelined(TEXT, options(schedule), None).unwrap_or_else(|e| panic!("{schedule:?}: {e}"));
        assert!(found == want, "{schedule:?}");
    }
    let x = words(1000);
    let doubled: Vec<u32> = x.iter().chain(&x[..64]).map(|word| word.wrapping_mul(2)).collect();
    for schedule in Schedule::several(11) {
        let (found, _) = plain(options(schedule), None).unwrap_or_else(|e| panic!("{schedule:?}: {e}"));
        assert_eq!(found, doubled, "{schedule:?}");
    }
}

#[test]
fn without_shadow_state_the_numbers_are_the_same() {
    let blind = |schedule| Options { shadow: false, ..options(schedule) };
    let want = pipelined_want(&words(HEIGHT * WORDS));
    for schedule in Schedule::several(5) {
        assert!(pipelined(TEXT, blind(schedule), None).unwrap().0 == want, "{schedule:?}");
    }
}

/// Words in messages of the shadow state and of mbarriers: every such message contains at least one of them.
const SIGNS: [&str; 9] = [
    "wgmma",
    "of its warpgroup",
    "race",
    "nobody has written",
    "deadlock",
    "in flight",
    "mbarrier",
    "fence_proxy_async",
    "returns before",
];

#[test]
fn each_call_is_red_when_left_out() {
    type Run = fn(Options, Option<&Passed>) -> Result<(Vec<u32>, Vec<Passed>), String>;
    let kernels: [(&str, Run); 3] = [("pipelined", |o, s| pipelined(TEXT, o, s)), ("plain", plain), ("handed", handed)];
    for (name, run) in kernels {
        let (want, sites) = run(options(Schedule::FIXED), None).unwrap();
        assert!(sites.len() >= 7, "{name}: {sites:?}");
        for site in &sites {
            for completion in [Completion::Lazy, Completion::Eager] {
                let what = format!("{name} without {} {}, {completion:?}", site.site, site.wrapper);
                match run(options(Schedule { completion, ..Schedule::FIXED }), Some(site)) {
                    Ok((found, _)) => assert!(found != want, "{what} passes"),
                    Err(e) => {
                        let first = e.lines().next().unwrap_or_default();
                        assert!(SIGNS.iter().any(|sign| e.contains(sign)), "{what}: {e}");
                        println!("red {what}: {first}");
                    }
                }
            }
        }
    }
}

#[test]
#[ignore = "slow"]
fn mistakes_in_the_source_are_named() {
    let mistakes: [(&str, &str, &[&str]); 10] = [
        (
            "isa::mbarrier_arrive_expect_tx(&smem.full[stage], tma::BYTES)",
            "isa::mbarrier_arrive(&smem.full[stage])",
            &["in flight"],
        ),
        (
            "mbarrier_arrive_expect_tx(&smem.full[stage], tma::BYTES)",
            "mbarrier_arrive_expect_tx(&smem.full[stage], tma::BYTES / 2)",
            &["deadlock", "-2048 bytes"],
        ),
        (
            "mbarrier_arrive_expect_tx(&smem.full[stage], tma::BYTES)",
            "mbarrier_arrive_expect_tx(&smem.full[stage], tma::BYTES + 16)",
            &["deadlock", "the mbarrier at offset 16384", "phase 0 0 of 1 arrivals are missing and 16 bytes"],
        ),
        ("&smem.empty[stage], parity ^ 1)", "&smem.empty[stage], parity)", &["deadlock", "of 4 arrivals are missing"]),
        (
            "&smem.full[stage], uint32_t(tile / tma::STAGES & 1))",
            "&smem.full[stage], uint32_t(tile / tma::STAGES + 1 & 1))",
            &["of shared memory by thread", "nobody has written"],
        ),
        (
            "isa::mbarrier_wait(&smem.empty[stage], parity ^ 1);",
            "",
            &["1 arrivals at the mbarrier at offset 16384, whose phase 0 waits for 0 more of 1"],
        ),
        (
            "isa::fence_proxy_async();\n            isa::sync_named(2, 128);",
            "isa::sync_named(2, 128);",
            &["tma_store of bytes 12288 to 12303", "no fence_proxy_async by it"],
        ),
        (
            "isa::fence_proxy_async();\n            isa::sync_named(2, 128);",
            "isa::sync_named(2, 128);\n            isa::fence_proxy_async();",
            &["tma_store of bytes 12288 to 12303", "no fence_proxy_async by it"],
        ),
        (
            "isa::sync_warp();\n            if (thread % 32",
            "if (thread % 32",
            &["is not ordered after the read by thread"],
        ),
        (
            "isa::fence_mbarrier_init();\n    }\n    isa::sync_cta();\n    if (thread == 0) {",
            "}\n    isa::sync_cta();\n    if (thread == 0) {",
            &["no fence_mbarrier_init or fence_proxy_async of that thread follows"],
        ),
    ];
    for (from, to, signs) in mistakes {
        assert_eq!(TEXT.matches(from).count(), 1, "{from}");
        let error = pipelined(&TEXT.replace(from, to), options(Schedule::FIXED), None);
        let error = error.err().unwrap_or_else(|| panic!("{from} as {to} passes"));
        println!("red {from:?} as {to:?}: {}", error.lines().next().unwrap_or_default());
        for sign in signs {
            assert!(error.contains(sign), "{from} as {to}: {sign:?} is not in {error}");
        }
    }
}

#[test]
fn misuse_is_named() {
    let signs: [(usize, &[&str]); 27] = [
        (1, &["the mbarrier at offset 16384 is used before its mbarrier_init, by thread 0"]),
        (2, &["an mbarrier for 0 arrivals"]),
        (3, &["mbarrier_init of the mbarrier at offset 16384, which is in use"]),
        (4, &["signals the mbarrier at offset 16384", "no fence_mbarrier_init"]),
        (5, &["race: the use of the mbarrier at offset 16384 by thread 40", "mbarrier_init by thread 0"]),
        (
            6,
            &[
                "deadlock",
                "thread 33",
                "the mbarrier at offset 16384",
                "phase 0 2 of 2 arrivals are missing and 0 bytes",
            ],
        ),
        (7, &["3 arrivals at the mbarrier at offset 16384, whose phase 0 waits for 2 more of 2"]),
        (8, &["arrived at in phase 1 before any wait has found phase 0 completed"]),
        (9, &["1048576 bytes expected"]),
        (10, &["mbarrier_inval", "has 16 bytes due"]),
        (11, &["tma_load of a box at offset 16 of shared memory: a multiple of 128"]),
        (12, &["3 coordinates for a tensor map of 2 dimensions"]),
        (13, &["bulk_load of 64 bytes", "multiples of 16"]),
        (14, &["bulk_load of 1048576 bytes", "outside"]),
        (15, &["a tensor map that is none"]),
        (16, &["the CTA ends while the bulk copy of thread 0", "in flight"]),
        (17, &["over the mbarrier at offset 16384"]),
        (18, &["bulk_store of bytes 12288 to 12351", "nobody has written"]),
        (19, &["thread 0 of CTA (0, 0, 0) returns before its bulk store at"]),
        (20, &["read of bytes 0 to 3 of shared memory by thread 40", "while the bulk copy of thread 0", "in flight"]),
        (21, &["-1048576 bytes due"]),
        (22, &["a wait for parity 2"]),
        (23, &["access outside any buffer", "thread 0 of CTA (0, 0, 0)"]),
        (24, &["bulk copy of bytes 12288 to 12351", "over the write by thread 0", "no fence_proxy_async"]),
        (25, &["deadlock", "phase 1 2 of 2 arrivals are missing"]),
        (26, &["16 bytes expected at the mbarrier", "is not stated"]),
        (27, &["deadlock", "thread 0 of CTA (0, 0, 0): the mbarrier at offset 16384", "2 of 2 arrivals are missing"]),
    ];
    for (n, signs) in signs {
        let x = words(HEIGHT * WORDS);
        let found = run(TEXT, "misuse", 64, (&x, HEIGHT * WORDS, n), options(Schedule::FIXED), None);
        let error = found.err().unwrap_or_else(|| panic!("misuse {n} passes"));
        println!("misuse {n}: {}", error.lines().next().unwrap_or_default());
        for sign in signs {
            assert!(error.contains(sign), "misuse {n}: {sign:?} is not in {error}");
        }
    }
}

/// Public kernels pad rows of results against bank conflicts, and store them as boxes wider than the tensor.
#[test]
fn the_padding_of_a_stored_box_is_not_read() {
    let x = words(ROWS * WORDS);
    let stored = |n: usize, schedule| run(TEXT, "padded", 32, (&x, ROWS * WORDS, n), options(schedule), None);
    let want: Vec<u32> = (0..x.len()).map(|i| if i % WORDS < PADDED { x[i] } else { 0 }).collect();
    for schedule in Schedule::several(5) {
        assert!(stored(PADDED, schedule).unwrap().0 == want, "{schedule:?}");
    }
    // One word less, and 16 bytes of the tensor are incomplete.
    let error = stored(PADDED - 1, Schedule::FIXED).err().unwrap();
    assert!(error.contains("tma_store") && error.contains("some of which nobody has written"), "{error}");
}

fn handed(options: Options, skip: Option<&Passed>) -> Result<(Vec<u32>, Vec<Passed>), String> {
    run(TEXT, "handed", 256, (&words(ROWS * WORDS), ROWS * WORDS, 0), options, skip)
}

/// Tests synchronisation in which each thread arrives separately. Barriers of complete warps do not allow this.
#[test]
fn what_single_threads_hand_over_is_known_to_a_warpgroup() {
    let mut want = vec![0; ROWS * WORDS];
    want[..128].fill(16f32.to_bits());
    for schedule in Schedule::several(5) {
        let (found, _) = handed(options(schedule), None).unwrap_or_else(|e| panic!("{schedule:?}: {e}"));
        assert!(found == want, "{schedule:?}");
    }
}

#[test]
fn a_copy_that_has_come_is_nobodys_before_a_wait() {
    let eager = options(Schedule { completion: Completion::Eager, ..Schedule::FIXED });
    let error = run(TEXT, "misuse", 64, (&words(HEIGHT * WORDS), HEIGHT * WORDS, 20), eager, None).err().unwrap();
    for sign in ["race: read of bytes 0 to 3 of shared memory by thread 40", "the bulk copy by thread 0"] {
        assert!(error.contains(sign), "{error}");
    }
}
