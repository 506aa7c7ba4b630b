//! Tests of kernels on the emulated device, or with `OMR_TEST_DEVICE=cuda` on a GPU. Each file here tests the kernel
//! file of its name. This file contains the shared parts: devices, comparisons, "the same bits under every schedule",
//! and the mutation of synchronising calls. Checks that only the emulator can do are skipped on a GPU, and each prints
//! a line.

pub mod adamw;
pub mod attention;
pub mod attention_bwd;
pub mod attention_bwd_sm90a;
pub mod attention_sm90a;
pub mod cache;
pub mod calibrate;
pub mod calibrate_exp2;
pub mod calibrate_sums;
pub mod calibrate_tma;
pub mod calibrate_wgmma;
#[cfg(feature = "candidates")]
pub mod candidates;
pub mod cu;
pub mod dequantize;
pub mod digests;
pub mod driver;
pub mod embedding;
pub mod emu;
pub mod faults;
pub mod gelu;
pub mod gemm;
pub mod gemm_bwd;
pub mod gemm_bwd_sm90a;
pub mod gemm_codes;
pub mod gemm_sm90a;
pub mod gpu;
pub mod grad_norm;
pub mod inputs;
pub mod kv_cache;
pub mod lane_sum;
pub mod layer_norm;
pub mod linear_logprob;
pub mod linear_logprob_bwd;
pub mod lora;
pub mod math;
pub mod nll;
pub mod paged_attention;
pub mod params;
pub mod patch_embed;
pub mod pos_embed;
pub mod qk_norm;
pub mod readback;
pub mod rms_norm;
pub mod rope;
pub mod rows;
pub mod sample;
pub mod shared_prompts;
pub mod stamp;
pub mod start_check;
pub mod swiglu;
pub mod tma;

use std::collections::BTreeMap;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use omr_base_tests::seed::seed;
use omr_runtime::device::emu::sites::{Passed, Site};
use omr_runtime::device::emu::{Completion, Emu, Options};
use omr_runtime::device::images::{Arch, Images, OWN};
use omr_runtime::device::{Device, KernelVariant, Kind, Plan};
use omr_runtime::tensor::Elem;

/// Result of a probe: `Ok`, or why the device or the numbers are wrong.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Bytes reserved for each region of a test's device. Untouched pages cost nothing.
pub const REGION_BYTES: usize = 1 << 32;

/// The kernels of a test's device: those of omr, and those that only tests run.
pub static IMAGES: [&Images; 2] = [&OWN, &cu::CALIBRATION];

/// Sources of the kernels of `IMAGES`, as pairs of path and text.
fn sources() -> impl Iterator<Item = (&'static str, &'static str)> {
    IMAGES.iter().flat_map(|images| images.sources).copied()
}

/// Device under test, from `OMR_TEST_DEVICE`. The default is the emulator. `as-card` is the emulator restricted to the
/// features of a GPU: a test that uses more than the driver's calls already fails with it, and not only on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Under {
    Emulator,
    AsGpu,
    Gpu,
}

pub fn under_test() -> Under {
    match std::env::var("OMR_TEST_DEVICE").as_deref() {
        Err(_) | Ok("emu") => Under::Emulator,
        Ok("as-card") => Under::AsGpu,
        Ok("cuda") => Under::Gpu,
        Ok(other) => panic!("OMR_TEST_DEVICE={other}: expected emu, as-card or cuda"),
    }
}

/// Returns the kind of the device under test.
pub fn kind() -> Kind {
    if under_test() == Under::Emulator { Kind::Emu } else { Kind::Cuda }
}

/// Panics on a GPU, which does not support `what`. `tools/gpu-check as-card` searches for the words of the message.
#[track_caller]
pub fn emulator_alone(what: &str) {
    assert!(kind() == Kind::Emu, "not on a GPU: {what}");
}

/// Returns true on a GPU, which cannot show `what`, and prints a line that can be counted.
pub fn skipped(what: &str) -> bool {
    let on_gpu = kind() == Kind::Cuda;
    if on_gpu {
        println!("skipped on a GPU: {what}");
    }
    on_gpu
}

/// Returns true on the emulator, which has no `what`, and prints a line that can be counted.
pub fn only_on_a_gpu(what: &str) -> bool {
    let skipped = under_test() != Under::Gpu;
    if skipped {
        println!("skipped on the emulator: {what}");
    }
    skipped
}

/// Returns the command that runs the test `name` (such as `kernels::rows::a_copy`) in a process of its own.
pub fn alone(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]);
    command
}

/// Returns true on the emulator in the place of a GPU, which takes many minutes for `what` in a GPU's size, and prints a
/// line that can be counted.
pub fn too_large(what: &str) -> bool {
    let too_large = under_test() == Under::AsGpu;
    if too_large {
        println!("skipped on the emulator in a GPU's size: {what}");
    }
    too_large
}

/// Scheduling options of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Seed; 0 means the fixed order.
    pub seed: u64,
    /// When asynchronous work completes.
    pub completion: Completion,
    /// Number of streaming multiprocessors.
    pub sms: u32,
}

impl Schedule {
    /// Fixed order, work completes as late as possible, two multiprocessors.
    pub const FIXED: Schedule = Schedule { seed: 0, completion: Completion::Lazy, sms: 2 };

    /// Returns `count` schedules: fixed and lazy, fixed and eager, then seeded ones on 1, 2 and 132 multiprocessors
    /// with each kind of completion in turn.
    pub fn several(count: usize) -> Vec<Schedule> {
        let first = [Schedule::FIXED, Schedule { completion: Completion::Eager, ..Schedule::FIXED }];
        let base = seed().wrapping_mul(1000) | 1;
        let seeded = (0..).map(|i: u64| Schedule {
            seed: base + i,
            completion: [Completion::Random, Completion::Lazy, Completion::Eager][i as usize % 3],
            sms: [1, 2, 132][(i as usize + i as usize / 3) % 3],
        });
        first.into_iter().chain(seeded).take(count).collect()
    }

    pub fn options(self) -> Options {
        let Schedule { seed, completion, sms } = self;
        Options { seed, completion, multiprocessors: sms, ..Options::default() }
    }
}

/// Returns a device under the fixed schedule, with guarded and poisoned memory and shadow state.
pub fn emu() -> Device {
    emu_with(Schedule::FIXED)
}

/// Returns a device under another schedule.
pub fn emu_with(schedule: Schedule) -> Device {
    emu_of(schedule.options()).unwrap()
}

/// Returns a device with these options, which a GPU ignores. With `OMR_BODY=wgmma` its linear layers use wgmma.
pub fn emu_of(options: Options) -> omr_base::error::Result<Device> {
    let wgmma = std::env::var("OMR_BODY").is_ok_and(|value| value == "wgmma");
    let mut dev = if kind() == Kind::Cuda {
        assert!(options.sources.is_empty(), "not on a GPU: kernels of a test's own");
        gpu::device(&Plan::uniform(gpu::REGION_BYTES))?
    } else {
        let arch = if wgmma { Arch::Sm90a } else { options.arch };
        let emu = Emu::new(Options { arch, images: &IMAGES, ..options })?;
        Device::gpu(Box::new(emu), Kind::Emu, &Plan::uniform(REGION_BYTES))?
    };
    if wgmma {
        dev.use_variant(KernelVariant::Wgmma)?;
    }
    Ok(dev)
}

/// Returns a device of compute capability 9.0 under a schedule; see [`no_hopper`].
pub fn hopper_with(schedule: Schedule) -> Device {
    emu_of(Options { arch: Arch::Sm90a, ..schedule.options() }).unwrap()
}

/// Returns a device of compute capability 9.0 under the fixed schedule.
pub fn hopper() -> Device {
    hopper_with(Schedule::FIXED)
}

/// Returns true on a GPU of another compute capability, which cannot run `what`, and prints a line.
pub fn no_hopper(what: &str) -> bool {
    kind() == Kind::Cuda
        && emu().driver().unwrap().properties().compute_capability != (9, 0)
        && skipped(&format!("{what}: its compute capability is not 9.0"))
}

/// Returns the emulator behind a device, for its counters and sites; see [`skipped`].
pub fn emulator(dev: &mut Device) -> &mut Emu {
    dev.driver().unwrap().as_any().downcast_mut::<Emu>().expect("not on a GPU: the emulator behind a device")
}

/// Errors unless `got` equals `want`, element for element. A NaN is never equal.
pub fn equal<T: Elem>(what: &str, got: &[T], want: &[T]) -> Outcome {
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements, expected {}", got.len(), want.len()).into());
    }
    let wrong: Vec<usize> = (0..got.len()).filter(|i| got[*i] != want[*i]).collect();
    match wrong.first() {
        None => Ok(()),
        Some(i) => Err(format!(
            "{what}: {} of {} differ; at {i} {:?}, expected {:?}",
            wrong.len(),
            got.len(),
            got[*i],
            want[*i]
        )
        .into()),
    }
}

/// Returns `|got - want| / |want|` in the Euclidean norm; infinite if `got` is not finite or if `want` is zero and
/// `got` is not.
pub fn relative_norm<T: Elem>(got: &[T], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let (mut error, mut norm) = (0.0, 0.0);
    for (g, w) in got.iter().zip(want) {
        error += (f64::from(g.to_f32()) - w).powi(2);
        norm += w * w;
    }
    let ratio = if error == 0.0 { 0.0 } else { (error / norm).sqrt() };
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}

/// Errors unless `got` is within `tolerance` of `want` by [`relative_norm`]. Returns the norm.
pub fn near<T: Elem>(what: &str, got: &[T], want: &[f64], tolerance: f64) -> Outcome<f64> {
    let norm = relative_norm(got, want);
    if norm <= tolerance {
        Ok(norm)
    } else {
        Err(format!("{what}: relative norm {norm:.3e} over {tolerance:.1e}").into())
    }
}

/// Runs `run` under `schedules` schedules, requires the same bits from each, and returns them.
pub fn same_bits<T: Elem>(schedules: usize, run: impl Fn(&mut Device) -> Outcome<Vec<T>>) -> Vec<T> {
    same_bits_on(emu_with, schedules, run)
}

/// Runs `run` like [`same_bits`], on devices that the caller creates.
pub fn same_bits_on<T: Elem>(
    device: impl Fn(Schedule) -> Device,
    schedules: usize,
    run: impl Fn(&mut Device) -> Outcome<Vec<T>>,
) -> Vec<T> {
    // `as-card` has only one schedule, so further runs could not find anything new.
    let schedules = if under_test() == Under::AsGpu { 1 } else { schedules };
    let mut first: Option<Vec<T>> = None;
    for schedule in Schedule::several(schedules) {
        let bits = run(&mut device(schedule)).unwrap_or_else(|e| panic!("{schedule:?}: {e}"));
        let want = first.get_or_insert_with(|| bits.clone());
        let equal = bytemuck::cast_slice::<T, u8>(&bits) == bytemuck::cast_slice::<T, u8>(want);
        assert!(equal, "{schedule:?} gives other bits than {:?}", Schedule::FIXED);
    }
    first.unwrap()
}

/// Runs a probe. A panic of its assertions counts as wrong numbers.
fn run(probe: &impl Fn(&mut Device) -> Outcome, dev: &mut Device) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| probe(dev))).unwrap_or_else(|_| Err("the probe panics".into()))
}

/// Skips each synchronising call that `probe` passes, one at a time, and requires that `probe` fails under one of
/// `schedules` schedules. A call whose line gives a reason after `// exempt:` may be skipped without a failure. `files`
/// lists the files (such as `kernels/rms_norm.cu`) and folders (such as `kernels/common/`) whose calls are skipped.
/// Prints what was found.
pub fn mutate_sites(files: &[&str], schedules: usize, probe: impl Fn(&mut Device) -> Outcome) {
    mutate_sites_on(emu_with, files, schedules, probe);
}

/// Skips calls like [`mutate_sites`], on devices that the caller creates.
pub fn mutate_sites_on(
    device: impl Fn(Schedule) -> Device,
    files: &[&str],
    schedules: usize,
    probe: impl Fn(&mut Device) -> Outcome,
) {
    if skipped(&format!("calls left out of {files:?}")) {
        return run(&probe, &mut device(Schedule::FIXED)).unwrap_or_else(|e| panic!("red: {e}"));
    }
    let ours = |site: &Site| files.iter().any(|f| site.file == *f || f.ends_with('/') && site.file.starts_with(f));
    let schedules = Schedule::several(schedules);
    let mut sites: BTreeMap<Passed, Option<String>> = BTreeMap::new();
    for schedule in &schedules {
        let mut dev = device(*schedule);
        run(&probe, &mut dev).unwrap_or_else(|e| panic!("red with nothing skipped, {schedule:?}: {e}"));
        sites.extend(emulator(&mut dev).sites().into_iter().filter(|(passed, _)| ours(&passed.site)));
    }
    assert!(!sites.is_empty(), "the probe passes no site of {files:?}");
    let exempt = sites.values().flatten().count();
    let mut green = Vec::new();
    for (passed, _) in sites.iter().filter(|(_, reason)| reason.is_none()) {
        let red = schedules.iter().find_map(|schedule| {
            let mut dev = device(*schedule);
            emulator(&mut dev).skip(Some(passed.site.clone()));
            run(&probe, &mut dev).err()
        });
        match red {
            Some(error) => println!("red {} {}: {}", passed.site, passed.wrapper, first_line(&error.to_string())),
            None => green.push(format!("{} {}", passed.site, passed.wrapper)),
        }
    }
    println!("mutation {files:?}: {} sites, {exempt} exempt, {} green when skipped", sites.len(), green.len());
    assert!(green.is_empty(), "green when skipped: {green:#?}");
}

/// Functions of `kernels/isa/` that order threads or copies. [`mutate_sites`] skips the calls of these functions.
const WRAPPERS: [&str; 31] = [
    "sync_cta",
    "sync_named",
    "arrive_named",
    "sync_warp",
    "cp_async_commit",
    "cp_async_wait",
    "threadfence",
    "load_acquire",
    "store_release",
    "spin_until",
    "fence_proxy_async",
    "fence_mbarrier_init",
    "mbarrier_init",
    "mbarrier_inval",
    "mbarrier_arrive",
    "mbarrier_arrive_drop",
    "mbarrier_expect_tx",
    "mbarrier_arrive_expect_tx",
    "mbarrier_complete_tx",
    "mbarrier_test_wait",
    "mbarrier_try_wait",
    "mbarrier_wait",
    "bulk_commit",
    "bulk_wait",
    "bulk_wait_read",
    "cluster_arrive",
    "cluster_wait",
    "mbarrier_arrive_at",
    "wgmma_fence",
    "wgmma_commit",
    "wgmma_wait",
];

#[test]
fn few_sites_are_exempt() {
    let (mut files, mut sites, mut exempt) = (0, 0, Vec::new());
    for (path, text) in sources() {
        let in_kernels = path.ends_with(".cu") || path.starts_with("common/");
        files += usize::from(path.ends_with(".cu"));
        for line in text.lines().filter(|_| in_kernels) {
            let called = |name: &&str, open| line.matches(&format!("isa::{name}{open}")).count();
            let calls = WRAPPERS.iter().map(|name| called(name, '(') + called(name, '<')).sum::<usize>();
            sites += calls;
            assert!(calls <= 1, "one site a line, or neither can be skipped alone: {path}: {line}");
            if let Some((_, reason)) = line.split_once("// exempt: ") {
                assert!(calls == 1 && !reason.trim().is_empty(), "an exemption without a call or a reason: {line}");
                exempt.push(format!("{path}: {}", reason.trim()));
            }
        }
    }
    println!("kernel files {files}, sites {sites}, exempt {} {exempt:#?}", exempt.len());
    assert!(sites > 0 && exempt.len() * 20 <= sites, "{} of {sites} sites are exempt", exempt.len());
}

/// Replaces `from`, which occurs once in `file` (such as `rms_norm`, or a header such as `common/gemm.cuh`), by `to`,
/// and requires that `probe` fails under one of `schedules` schedules. This shows that the probe detects a plausible
/// mistake. With `OMR_MUTATIONS=find` it only looks for `from`, so that `tools/check` sees in seconds which
/// mutations of the slow tests have lost their line.
pub fn mutate_source(file: &str, from: &str, to: &str, schedules: usize, probe: impl Fn(&mut Device) -> Outcome) {
    mutate_source_of(Arch::Sm80, file, from, to, schedules, probe);
}

/// Replaces text like [`mutate_source`], on a device that runs images for `arch`.
pub fn mutate_source_of(
    arch: Arch,
    file: &str,
    from: &str,
    to: &str,
    schedules: usize,
    probe: impl Fn(&mut Device) -> Outcome,
) {
    if skipped(&format!("{from:?} as {to:?} in {file}")) {
        return;
    }
    let changed = changed_source(file, from, to);
    if std::env::var("OMR_MUTATIONS").is_ok_and(|value| value == "find") {
        return;
    }
    let red = Schedule::several(schedules).into_iter().find_map(|schedule| {
        let mut dev = emu_of(Options { arch, sources: changed.clone(), ..schedule.options() }).unwrap();
        run(&probe, &mut dev).err()
    });
    match red {
        Some(error) => println!("red {file}, {from:?} as {to:?}: {}", first_line(&error.to_string())),
        None => panic!("green with {from:?} as {to:?} in {file}"),
    }
}

/// Returns the source `file` with `to` in place of `from`, which occurs once, for [`Options::sources`].
pub fn changed_source(file: &str, from: &str, to: &str) -> Vec<(String, String)> {
    let name = if file.contains('.') { file.to_owned() } else { format!("{file}.cu") };
    let (_, text) = sources().find(|(path, _)| *path == name).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from:?} stands once in {name}");
    vec![(format!("kernels/{name}"), text.replace(from, to))]
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
