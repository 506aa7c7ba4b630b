//! Tests of the emulator itself: kernels that are right, wrong, or right until one of their calls is skipped.

use omr_runtime::device::Launch;
use omr_runtime::device::emu::sites::Passed;
use omr_runtime::device::emu::{Completion, Options};

use crate::emulated::Emulated;
use crate::kernels::Schedule;

const FILE: &str = "control";
const KERNELS: (&str, &str) = ("kernels/control.cu", include_str!("emu.cu"));
/// Bytes of shared memory; enough for every struct of emu.cu.
const SMEM: usize = 20 * 1024;

/// One launch of a control kernel on words `x`; the first `out` words of `y` are read.
#[derive(Clone)]
struct Case {
    kernel: &'static str,
    ctas: u32,
    threads: u32,
    x: Vec<u32>,
    out: usize,
    n: u64,
}

impl Case {
    fn new(kernel: &'static str, ctas: u32, threads: u32, words: usize, out: usize) -> Case {
        let x = (0..words as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 12).collect();
        Case { kernel, ctas, threads, x, out, n: 0 }
    }

    fn run(&self, options: Options, skip: Option<&Passed>) -> Result<(Vec<u32>, Vec<Passed>), String> {
        let mut device = Emulated::new(KERNELS, options);
        device.emu.skip(skip.map(|passed| passed.site.clone()));
        let x = device.put_words(&self.x);
        let y = device.put_words(&vec![0; self.out]);
        let counters = device.put_words(&[0; 4]);
        let smem = if self.kernel == "grid_barrier" { 0 } else { SMEM };
        let launch = Launch::new([self.ctas, 1, 1], self.threads, smem);
        device.run(FILE, self.kernel, launch, &[x, y, counters, self.n]).map_err(|e| e.to_string())?;
        let found = device.get_words(y, self.out).map_err(|e| e.to_string())?;
        Ok((found, device.emu.sites().into_iter().map(|(passed, _)| passed).collect()))
    }

    /// Returns the words of `y`, which must be the same under every schedule.
    fn agreed(&self) -> (Vec<u32>, Vec<Passed>) {
        let mut all = Schedule::several(11).into_iter();
        let first = self.run(all.next().unwrap().options(), None).unwrap();
        for schedule in all {
            let found = self.run(schedule.options(), None).unwrap_or_else(|e| panic!("{schedule:?}: {e}"));
            assert_eq!(found, first, "{} under {schedule:?}", self.kernel);
        }
        first
    }

    /// Checks that skipping any one site fails already in the fixed schedule, and that every message of the shadow
    /// state contains one of `signs`.
    fn red_at_each_site(&self, signs: &[&str]) {
        let (want, sites) = self.agreed();
        assert!(!sites.is_empty());
        for site in &sites {
            let what = format!("{} without {} {}", self.kernel, site.site, site.wrapper);
            match self.run(Options::default(), Some(site)) {
                Ok((found, _)) => assert_ne!(found, want, "{what} passes"),
                Err(e) => {
                    let first = e.lines().next().unwrap_or_default();
                    assert!(signs.iter().any(|sign| e.contains(sign)), "{what}: {e}");
                    println!("red {what}: {first}");
                }
            }
        }
    }
}

fn bf16_words(count: usize) -> Vec<u32> {
    let value = |i: usize| f32::from(((i * 7919) % 251) as u8) / 64.0 - 1.9;
    let bits = |i: usize| u32::from(half::bf16::from_f32(value(i)).to_bits());
    (0..count / 2).map(|i| bits(2 * i) | bits(2 * i + 1) << 16).collect()
}

const K: usize = 144;

fn pipeline() -> Case {
    Case { x: bf16_words(2 * 64 * K), n: K as u64, ..Case::new("pipeline", 1, 128, 0, 64 * 64) }
}

#[test]
fn bank_conflicts_of_single_accesses_are_counted() {
    let conflicts = |n: u64, banks: bool| {
        let case = Case { n, ..Case::new("spread", 1, 32, 32, 32) };
        let mut device = Emulated::new(KERNELS, Options { banks, ..Options::default() });
        let (x, y) = (device.put_words(&case.x), device.put_words(&[0; 32]));
        device.run(FILE, case.kernel, Launch::new([1, 1, 1], 32, SMEM), &[x, y, 0, n]).unwrap();
        let want: Vec<u32> = case.x.iter().map(|x| x.wrapping_mul(2)).collect();
        assert_eq!(device.get_words(y, 32).unwrap(), want);
        device.emu.counters().bank_conflicts
    };
    // If the words of neighbouring lanes are 1, 2, 4 or 8 words apart, 1, 2, 4 or 8 of the words lie in the same bank.
    // The kernel makes one such store and one such load. Pairs of words are stored in two passes. They are loaded as
    // two single words, and both loads have the same conflicts.
    assert_eq!([1, 2, 4, 8].map(|n| conflicts(n, true)), [2, 4, 8, 16]);
    assert_eq!(conflicts(8, false), 0);
}

#[test]
fn a_barrier_written_twice_stays_green_without_either() {
    let case = Case::new("twice", 1, 256, 256, 256);
    let (want, sites) = case.agreed();
    assert_eq!(want, case.x.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(sites.len(), 2);
    for site in &sites {
        assert_eq!(case.run(Options::default(), Some(site)).unwrap().0, want);
    }
}

#[test]
fn a_barrier_that_only_a_rare_schedule_needs_goes_red() {
    let case = Case::new("rare", 1, 96, 32, 32);
    let (want, sites) = case.agreed();
    let second = sites.last().unwrap();
    let blind = Options { shadow: false, ..Options::default() };
    assert_eq!(case.run(blind, Some(second)).unwrap().0, want, "the fixed schedule needs it");
    let error = case.run(Options::default(), Some(second)).unwrap_err();
    assert!(error.contains("race") && error.contains("kernels/control.cu:"), "{error}");
    case.red_at_each_site(&["race", "nobody has written"]);
}

#[test]
fn each_call_is_red_when_left_out() {
    Case::new("turn", 1, 64, 64, 64).red_at_each_site(&["race", "nobody has written"]);
    let hand_over = Case { n: 7, ..Case::new("hand_over", 1, 64, 7 * 32, 32) };
    hand_over.red_at_each_site(&["race", "nobody has written", "deadlock"]);
    pipeline().red_at_each_site(&["race", "in flight", "nobody has written"]);
    Case::new("ticket", 9, 64, 9 * 64, 10).red_at_each_site(&["race", "nobody has written"]);
    Case::new("chain", 6, 64, 6 * 64, 64).red_at_each_site(&["race", "nobody has written", "deadlock"]);
}

#[test]
fn a_matrix_product_is_one_chain_in_fp32() {
    let case = pipeline();
    let (found, _) = case.agreed();
    let at = |i: usize| f32::from_bits(case.x[i / 2] >> (16 * (i % 2)) << 16);
    for m in 0..64 {
        for n in 0..64 {
            let chain = (0..K).fold(0.0f32, |sum, k| at(m * K + k).mul_add(at((64 + n) * K + k), sum));
            assert_eq!(f32::from_bits(found[m * 64 + n]), chain, "row {m} column {n}");
        }
    }
}

#[test]
fn without_shadow_state_late_copies_still_show() {
    let case = pipeline();
    let (want, sites) = case.agreed();
    let wait = sites.iter().find(|passed| passed.wrapper == "cp_async_wait").unwrap();
    let run = |completion| {
        let options = Options { completion, shadow: false, ..Options::default() };
        case.run(options, Some(wait)).unwrap().0
    };
    assert_eq!(run(Completion::Eager), want);
    assert_ne!(run(Completion::Lazy), want);
    assert_ne!(run(Completion::Random), want);
}

#[test]
fn schedules_differ_where_a_kernel_lets_them() {
    let x = (0..640u32).map(|i| (1.0 / (i + 1) as f32).to_bits()).collect();
    let case = Case { x, ..Case::new("racing_sum", 10, 64, 0, 1) };
    let sums: Vec<u32> = Schedule::several(12).into_iter().map(|s| case.run(s.options(), None).unwrap().0[0]).collect();
    assert!(sums.iter().any(|sum| *sum != sums[0]), "atomics always come in one order");
    assert_eq!(sums[0], case.run(Options::default(), None).unwrap().0[0]);
}

#[test]
fn a_barrier_of_more_ctas_than_fit_is_a_deadlock() {
    // The limit is 32 CTAs per SM.
    let case = Case::new("grid_barrier", 64, 32, 16, 64 * 32);
    for multiprocessors in [2, 132] {
        let (found, _) = case.run(Options { multiprocessors, ..Options::default() }, None).unwrap();
        assert!(found.iter().all(|word| *word == 64));
    }
    let error = case.run(Options { multiprocessors: 1, ..Options::default() }, None).unwrap_err();
    for sign in ["deadlock", "32 of 64 CTAs cannot start", "spin_until at kernels/control.cu:"] {
        assert!(error.contains(sign), "{error}");
    }
}

#[test]
fn misuse_is_named() {
    let signs: [(u64, &[&str]); 18] = [
        (0, &["read of bytes 0 to 3 of shared memory by thread 0", "nobody has written"]),
        (1, &["race: write of bytes 0 to 3", "is not ordered after the read by thread 63"]),
        (2, &["outside", "20480 bytes of shared memory"]),
        (3, &["load of 16 bytes", "not aligned", "kernels/control.cu:"]),
        (4, &["access outside any buffer", "thread", "of CTA (0, 0, 0)"]),
        (5, &["the lanes of a warp do different things", "shfl", "vote"]),
        (6, &["deadlock", "barrier 0 at kernels/control.cu:", "spin_until"]),
        (7, &["sync_warp(0x0000ffff) by lane 16"]),
        (8, &["deadlock", "a warp instruction at kernels/control.cu:", "0x0000ffff"]),
        (9, &["ldmatrix row", "not aligned"]),
        (10, &["barrier 1 for 40 threads"]),
        (11, &["barrier 1 is used with 32 threads where others wait for 64"]),
        (12, &["race", "store of 4 bytes", "the store by thread"]),
        (13, &["cp_async of 16 bytes is not aligned"]),
        (14, &["write of bytes 0 to 3", "while the cp_async of thread 0", "in flight"]),
        (15, &["race", "is not ordered after the write by thread"]),
        (16, &["integer division by zero", "thread 0 of CTA (0, 0, 0)"]),
        (18, &["an int that overflows", "thread 0 of CTA (0, 0, 0)"]),
    ];
    for (n, signs) in signs {
        let case = Case { n, ..Case::new("misuse", 1, 64, 64, 64) };
        let error = case.run(Options::default(), None).expect_err(&format!("misuse {n} passes"));
        for sign in signs {
            assert!(error.contains(sign), "misuse {n}: {sign:?} is not in {error}");
        }
    }
}

#[test]
fn accumulators_start_undefined() {
    let case = Case { n: 17, ..Case::new("misuse", 1, 64, 64, 64) };
    assert_eq!(case.run(Options::default(), None).unwrap().0, [0; 64], "a sum that nobody set to zero is zero");
}

#[test]
fn devices_in_several_threads_do_not_meet() {
    let case = pipeline();
    let (want, _) = case.agreed();
    std::thread::scope(|scope| {
        let run = || {
            let bad = Case { n: 4, ..Case::new("misuse", 1, 64, 64, 64) };
            assert!(bad.run(Options::default(), None).is_err());
            case.run(Options::default(), None).unwrap().0
        };
        let all: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        all.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), want));
    });
}
