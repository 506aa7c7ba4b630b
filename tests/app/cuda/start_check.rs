//! Tests when the start check of the wgmma kernels runs, what it refuses, and how long it waits.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use half::bf16;
use omr_runtime::device::cuda::Cuda;
use omr_runtime::device::images::PROGRAM;
use omr_runtime::device::{Driver, Stream, WaitLimit, WgmmaKernels};

use super::{Machine, in_child};

/// A GPU of compute capability 9.0.
pub const HOPPER: [(&str, &str); 2] =
    [("FAKE_GPUS", "9.0"), ("FAKE_MANIFEST", concat!(env!("CARGO_MANIFEST_DIR"), "/ptx/MANIFEST"))];

/// A command that opens the GPU for each case.
const BENCH: [&str; 6] = ["bench", "rms_norm", "--device", "cuda", "--seconds", "0.01"];
const DOCTOR: [&str; 3] = ["doctor", "--device", "cuda"];
const RUNS: &str = "the start check of the wgmma kernels runs";

/// Runs `omr` on this GPU. Returns its exit code, its output and its messages.
fn omr(machine: &Machine, args: &[&str], settings: &[(&str, &str)]) -> (i32, String, String) {
    let output = machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), args, &[&HOPPER, settings].concat());
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), out, err)
}

/// A GPU whose kernels do not end, and one whose kernels fault: the start check names the option for other kernels.
#[test]
fn a_start_check_that_hangs_or_faults_names_the_other_kernels() {
    let machine = Machine::new();
    for (setting, begin) in [
        ("FAKE_HANG", "the start check of the wgmma kernels has waited for the GPU for 20 s"),
        ("FAKE_FAULT", "the start check of the wgmma kernels: "),
    ] {
        let (code, _, text) = omr(&machine, &BENCH, &[(setting, "1")]);
        assert!(text.contains(RUNS) && text.contains(begin), "{text}");
        assert!(text.contains("--kernel-variant mma.sync") && code == 1, "{text}");
    }
}

/// The kernels of this replacement compute nothing, which the start check finds. With the other variant it does not run.
#[test]
fn the_doctor_runs_the_start_check_and_the_user_can_select_the_variant() {
    let machine = Machine::new();
    let doctor = |args: &[&str]| {
        let (_, out, err) = omr(&machine, &[&DOCTOR, args].concat(), &[]);
        (out.lines().find(|line| line.starts_with("start check")).unwrap().to_owned(), err)
    };
    let (line, err) = doctor(&[]);
    assert!(line.contains("mma.sync/2 on compute capability 9.0"), "{line}");
    assert!(err.contains("matrix products use mma.sync instead of wgmma: "), "{err}");
    let (line, err) = doctor(&["--kernel-variant", "mma.sync"]);
    assert!(line.contains("mma.sync/2 on compute capability 9.0") && err.is_empty(), "{line} {err}");
    let (line, _) = doctor(&["--kernel-variant", "wgmma"]);
    assert!(line.contains("NOT usable: found wgmma, but matrix products use mma.sync"), "{line}");
}

#[test]
fn the_start_check_runs_once_per_process() {
    let (code, out, err) = omr(&Machine::new(), &BENCH, &[]);
    assert!(code == 0 && out.contains("rms_norm") && err.matches(RUNS).count() == 1, "{out} {err}");
}

/// Returns the sums of the start check of products, in f32 (`src/runtime/ops/gemm/start_check.rs`). With them as the results of
/// the products, the check passes.
pub(super) fn sums() -> Vec<u8> {
    let values = |count: usize, mut state: u32| -> Vec<f64> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bf16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0).to_f64()
        };
        (0..count).map(|_| next()).collect()
    };
    let (x, w) = (values(136 * 1088, 1), values(320 * 1088, 2));
    let sum = |(x, w): (&[f64], &[f64])| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() as f32;
    let pairs = x.chunks(1088).flat_map(|x| w.chunks(1088).map(move |w| (x, w)));
    pairs.flat_map(|pair| sum(pair).to_le_bytes()).collect()
}

#[test]
fn a_start_check_that_passed_is_not_repeated_until_something_changes() {
    let machine = Machine::new();
    let file = machine.folder.path().join("sums");
    std::fs::write(&file, sums()).unwrap();
    // Returns whether the check ran and whether it found a fault. Only the check launches `linear_f32`.
    let check = |args: &[&str], setting: (&str, &str)| {
        let (code, out, err) = omr(&machine, args, &[setting]);
        let ran = std::fs::read_to_string(machine.log_file()).unwrap().contains("launch linear_f32");
        assert!(code == 0 && ran == err.contains(RUNS), "{out} {err}");
        (ran, err.contains("mma.sync instead of wgmma"))
    };
    let (passes, fails, skipped, none) = ((true, false), (true, true), (false, false), ("", ""));
    assert_eq!(check(&BENCH, ("FAKE_SUMS", file.to_str().unwrap())), passes);
    assert_eq!(check(&BENCH, none), skipped);
    for other in [("FAKE_UUID", "1"), ("FAKE_CUDA_VERSION", "13010")] {
        assert_eq!([check(&BENCH, other), check(&BENCH, other)], [fails; 2], "{other:?}: a fault is not recorded");
    }
    let records = || -> Vec<PathBuf> {
        let files = std::fs::read_dir(machine.cache().join("omr/cuda")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.to_str().unwrap().contains("start-check.")).collect()
    };
    let (record, content) = (&records()[0], std::fs::read(&records()[0]).unwrap());
    for damaged in [&content[1..], b"", b"\xff"] {
        std::fs::write(record, damaged).unwrap();
        assert_eq!(check(&BENCH, none), fails);
    }
    std::fs::write(record, &content).unwrap();
    assert_eq!(check(&BENCH, none), skipped);
    assert_eq!(check(&DOCTOR, none), fails, "the doctor always checks");
    assert_eq!(records(), [""; 0].map(PathBuf::from), "a fault removes the record");
}

#[test]
fn kernels_with_other_registers_than_setmaxnreg_needs_use_mma_sync() {
    let machine = Machine::new();
    let settings = [("FAKE_REGISTERS", "160")];
    let fault = "is compiled for 160 registers per thread, but it needs exactly 168";
    let (code, _, err) = omr(&machine, &BENCH, &settings);
    assert!(code == 0 && err.contains("products use mma.sync instead of wgmma: ") && err.contains(fault), "{err}");
    let (code, _, err) = omr(&machine, &[&BENCH[..], &["--kernel-variant", "wgmma"]].concat(), &settings);
    assert!(code == 2 && err.contains("found wgmma, but matrix products use mma.sync") && err.contains(fault), "{err}");
    let some = [&HOPPER[..], &settings, &[("FAKE_REGISTERS_OF", "attention_bwd_dq_wide_hd80")]].concat();
    machine.child("start_check::child_knows_its_kernels_and_their_waits", &some);
    // The same kernels are empty on other GPUs.
    machine.child("child_opens", &[("FAKE_REGISTERS", "4")]);
}

#[test]
fn child_knows_its_kernels_and_their_waits() {
    if !in_child() {
        return;
    }
    let mut cuda = Cuda::open(0, &PROGRAM).unwrap();
    assert_ne!(cuda.identity(), Cuda::open(0, &[]).unwrap().identity(), "a record depends on the kernels");
    assert_eq!(cuda.identity(), Cuda::open(0, &PROGRAM).unwrap().identity());
    let refused = |kernels| cuda.compile_fault(kernels).is_some();
    use WgmmaKernels::{Attention, AttentionBwd, Products};
    assert_eq!(
        [Products, Attention(80), AttentionBwd(80), AttentionBwd(128)].map(refused),
        [false, false, true, false]
    );
    // Work of the host that takes longer than the limit is no hang.
    let (sender, receiver) = mpsc::channel();
    let expire = Arc::new(move || sender.send(()).unwrap());
    cuda.limit_waits(Some(WaitLimit { limit: Duration::from_millis(500), expire }));
    cuda.synchronize(Stream::COMPUTE).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    cuda.synchronize(Stream::COMPUTE).unwrap();
    assert!(receiver.try_recv().is_err());
}
