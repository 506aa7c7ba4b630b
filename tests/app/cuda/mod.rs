//! Tests the GPU driver code on a machine without a GPU. `driver.c` replaces NVIDIA's library in child processes. These
//! tests check the calls to the driver, their order, and the error messages. The kernel tests on a GPU check that the
//! GPU computes correct results.

pub mod bench;
pub mod first_gpu;
pub mod kernel_images;
pub mod older_drivers;
pub mod predictions;
pub mod start_check;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use omr_runtime::device::cuda::{self, Cuda};
use omr_runtime::device::images::{Arch, OWN, PROGRAM};
use omr_runtime::device::nccl::{self, Library};
use omr_runtime::device::{Driver, Launch, Stream, TensorMap, limits::Limits};
use omr_runtime::ranks::{Nccl, Ranks};
use omr_runtime_tests::ranks::{self, nccl::StandIn};
use omr_train_tests::training::tiny;

use crate::cli::generate::{model_dir, png};

/// A folder with the library, an empty cache and a log.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        Machine::with_driver_of(13_000)
    }

    /// Creates a machine whose library exports the symbols of CUDA version `cuda` (12040 for 12.4).
    fn with_driver_of(cuda: u32) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let built = Command::new("cc")
            .args(["-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"])
            .arg(format!("-DCUDA_VERSION={cuda}"))
            .arg("-o")
            .arg(folder.path().join("libcuda.so"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/cuda/driver.c"))
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Machine { folder }
    }

    /// Runs a program with this library. `settings` are environment variables of the library.
    fn run(&self, program: &Path, args: &[&str], settings: &[(&str, &str)]) -> Output {
        let _ = std::fs::remove_file(self.log_file());
        Command::new(program)
            .args(args)
            .env("LD_LIBRARY_PATH", self.folder.path())
            .env("XDG_CACHE_HOME", self.cache())
            .env("FAKE_LOG", self.log_file())
            .envs(settings.iter().copied())
            .output()
            .unwrap()
    }

    /// Runs one of the tests below that call the driver. Returns the library's log.
    fn child(&self, test: &str, settings: &[(&str, &str)]) -> Vec<String> {
        let name = format!("cuda::{test}");
        let output = self.run(&std::env::current_exe().unwrap(), &[&name, "--exact", "--nocapture"], settings);
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
        std::fs::read_to_string(self.log_file()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn doctor(&self, settings: &[(&str, &str)]) -> Vec<String> {
        let output = self.run(Path::new(env!("CARGO_BIN_EXE_omr")), &["doctor"], settings);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.starts_with("device") && line.contains("cuda")).map(str::to_owned).collect()
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

/// Returns true in a child process of [`Machine::child`]. In other processes the child tests have no library to call.
fn in_child() -> bool {
    std::env::var_os("FAKE_LOG").is_some()
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    let machine = Machine::new();
    let needed = "expected NVIDIA's driver 525 or later (CUDA 12.0; 570 from compute capability 10.0 on) and a GPU of \
                  compute capability 8.0 or later";
    let old = machine.doctor(&[("FAKE_CUDA_VERSION", "11080")]);
    assert!(old.len() == 1 && old[0].contains("CUDA 11.8") && old[0].ends_with(needed), "{old:?}");
    for (name, has_package) in [("NVIDIA H100 80GB HBM3", true), ("NVIDIA A10", true), ("NVIDIA RTX A2000", false)] {
        let old = machine.doctor(&[("FAKE_CUDA_VERSION", "11080"), ("FAKE_NAME", name)]);
        assert!(
            old[0].contains("cuda-compat-12-0") == has_package && old[0].contains("driver 525 or later"),
            "{old:?}"
        );
    }
    let none = machine.doctor(&[("FAKE_GPUS", "")]);
    assert!(none.len() == 1 && none[0].contains("no CUDA-capable device") && none[0].ends_with(needed), "{none:?}");
    let gpus = machine.doctor(&[("FAKE_GPUS", "9.0,8.9,7.5")]);
    assert_eq!(gpus.len(), 3, "{gpus:?}");
    for (line, word) in gpus.iter().zip(["sm_90a kernels", "sm_80 kernels", "8.0 or later"]) {
        assert!(line.contains(word), "{line}");
    }
}

#[test]
fn the_doctor_refuses_a_gpu_on_which_a_kernel_of_the_model_does_not_fit() {
    let machine = Machine::new();
    model_dir(machine.folder.path());
    let args = ["doctor", "--model", machine.folder.path().to_str().unwrap()];
    let findings = |settings: &[(&str, &str)]| {
        let output = machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), &args, settings);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.starts_with("model")).map(str::to_owned).collect::<Vec<_>>()
    };
    let fit = findings(&[("FAKE_GPUS", "8.6,9.0,12.0")]);
    assert!(fit.len() == 3 && fit.iter().all(|line| line.contains(": all kernels of ")), "{fit:?}");
    let refused = findings(&[("FAKE_GPUS", "8.6"), ("FAKE_SMEM", "65536")]);
    assert!(refused.len() == 1 && refused[0].contains("NOT usable: found GPU 0, on which a kernel"), "{refused:?}");
    assert!(refused[0].contains("but a CTA can have 65536"), "{refused:?}");
}

#[test]
fn the_stand_in_has_the_limits_of_the_gpu_that_it_stands_for() {
    let of = |limits: &Limits| format!("{}.{}", limits.compute_capability.0, limits.compute_capability.1);
    let gpus = Limits::KNOWN.iter().map(of).collect::<Vec<_>>().join(",");
    Machine::new().child("child_has_known_limits", &[("FAKE_GPUS", &gpus)]);
}

#[test]
fn child_has_known_limits() {
    if in_child() {
        let gpus = cuda::find().unwrap();
        assert_eq!(gpus.len(), Limits::KNOWN.len());
        for (gpu, known) in gpus.iter().zip(Limits::KNOWN) {
            let (major, minor) = gpu.compute_capability;
            assert_eq!((major, minor), known.compute_capability);
            let limits = (gpu.shared_memory_per_block, gpu.registers_per_block);
            assert_eq!(limits, (known.shared_memory_per_block(), known.registers), "{major}.{minor}");
        }
    }
}

#[test]
fn calls_are_as_the_driver_wants_them() {
    let machine = Machine::new();
    let log = machine.child("child_uses_everything", &[("FAKE_GPUS", "8.7")]);
    let has = |line: &str| assert!(log.iter().any(|l| l == line), "{line} in {log:#?}");
    has("stream flags 1");
    has("stream flags 1 priority -100");
    has("host 4096 flags 3");
    has("pinned 8192 bytes, 2 of 2 pages, flags 3");
    has("capture mode 1");
    has("wait flags 0");
    has("graph upload");
    has("profiler start");
    let count = |start: &str| log.iter().filter(|l| l.starts_with(start)).count();
    let files = OWN.files().count();
    let kernels: usize = OWN.files().map(|file| OWN.kernels(file).len()).sum();
    assert_eq!((count("link "), count("module unloaded"), count("attribute 8 ")), (files, files, kernels));
    assert!(log.iter().filter(|l| l.starts_with("attribute 8 ")).all(|l| l.ends_with(" = 166912")), "{log:#?}");
    assert_eq!((count("alloc "), count("free"), count("graph launch"), count("graph destroy")), (1, 1, 2, 1));
    assert_eq!(["host free", "unpinned", "context released"].map(count), [2, 1, 1], "what was taken is given back");
}

#[test]
fn a_profiler_is_shown_ranges() {
    let machine = Machine::new();
    let library = machine.folder.path().join("libcuda.so");
    let settings = [("FAKE_GPUS", "8.7"), ("NVTX_INJECTION64_PATH", library.to_str().unwrap())];
    let log = machine.child("child_uses_everything", &settings);
    let ranges: Vec<_> = log.iter().filter(|line| line.starts_with("range")).collect();
    assert_eq!(ranges, ["range a range", "range ends"]);
    assert!(machine.child("child_uses_everything", &settings[..1]).iter().all(|line| !line.starts_with("range")));
}

#[test]
fn a_launch_passes_its_shape_cluster_and_arguments() {
    let machine = Machine::new();
    let (file, kernel) = some_kernel();
    let args = OWN.kernel(kernel, Arch::Sm90a).unwrap().args;
    let log = machine.child("child_launches", &[("FAKE_GPUS", "9.0"), ("FAKE_ELF_ARGS", &args.to_string())]);
    let hash = (0..args).fold(0_u32, |hash, i| hash.wrapping_mul(31).wrapping_add(u32::from(i as u8 ^ 0x5a)));
    let tail = format!("args {hash} extra 0");
    let launches: Vec<_> = log.iter().filter(|l| l.starts_with("launch ")).collect();
    let expected = [
        format!("launch {kernel} grid 6 5 4 block 64 1 1 smem 166912 cluster 0 {tail}"),
        format!("launch {kernel} grid 6 1 1 block 32 1 1 smem 0 cluster 2 {tail}"),
    ];
    assert_eq!(launches, expected.iter().collect::<Vec<_>>(), "kernels/{file}.cu");
}

#[test]
fn a_run_says_what_is_missing_and_ends() {
    let machine = Machine::new();
    let run = |args: &[&str], settings: &[(&str, &str)]| {
        let output = machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), args, settings);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let bench = ["--quiet", "--device", "cuda", "bench", "rms_norm"];
    let (code, text) = run(&bench, &[("FAKE_GPUS", "7.5")]);
    let wanted = "error: device cuda: found GPU 0 of compute capability 7.5, expected NVIDIA's driver 525 or later";
    assert!(code == 2 && text.starts_with(wanted) && text.lines().count() == 1, "{code}: {text}");
    let (code, text) = run(&bench, &[("FAKE_CUDA_VERSION", "11080")]);
    assert!(code == 2 && text.contains("CUDA 11.8") && text.lines().count() == 1, "{code}: {text}");
    // Without `--device`, a GPU that cannot be used is not passed over in silence. One that is hidden is.
    let auto = ["bench", "rms_norm", "--seconds", "0.001"];
    let (code, text) = run(&auto, &[("FAKE_CUDA_VERSION", "11080")]);
    assert!(code == 0 && text.contains("warning: computing on the CPU") && text.contains("CUDA 11.8"), "{text}");
    let [out, config] = ["out", "sft.yaml"].map(|name| machine.folder.path().join(name).display().to_string());
    std::fs::write(&config, omr_base::config::to_yaml(&tiny::sft_config(machine.folder.path())).unwrap()).unwrap();
    let several = ["--quiet", "sft", &config, "--out", &out, "--gpus", "2"];
    let (code, text) = run(&several, &[("FAKE_CUDA_VERSION", "11080")]);
    assert!(code == 2 && text.contains("CUDA 11.8") && text.lines().count() == 1, "{code}: {text}");
    let (code, text) = run(&auto, &[("FAKE_GPUS", "")]);
    assert!(code == 0 && !text.contains("warning"), "{text}");
}

#[test]
fn nccl_has_the_cards_stream_which_is_waited_for_and_its_memory_is_measured() {
    let (machine, stand_in) = (Machine::new(), StandIn::new(""));
    let library = stand_in.path().display().to_string();
    let settings = [("FAKE_GPUS", "8.7"), ("FAKE_BUSY", "3"), (nccl::PATH, library.as_str())];
    let log = machine.child("child_is_a_rank_by_nccl", &settings);
    let queries: Vec<_> = log.iter().filter_map(|line| line.strip_prefix("query ")).collect();
    assert!(queries.len() == 4 && queries.iter().all(|stream| *stream == queries[0]), "{queries:?}");
    let moves = [format!("send 256 to 0 on {}", queries[0]), format!("recv 256 from 0 on {}", queries[0])];
    assert_eq!(stand_in.log(0)[1..3], moves);
    let doctor = |settings: &[(&str, &str)]| {
        let output = machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), &["doctor"], settings);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find(|line| line.starts_with("several GPUs")).unwrap().to_owned()
    };
    // Bytes arrive, but this driver computes nothing, so the sums of the trial are wrong.
    assert!(doctor(&settings).contains("NCCL 2.28.3: NOT usable: lane_sum: sum 0 is 0, not "), "{}", doctor(&settings));
    let none = doctor(&[("FAKE_GPUS", ""), settings[2]]);
    assert!(none.ends_with("NCCL 2.28.3: found, not tried without a GPU"), "{none}");
    let missing = doctor(&[(nccl::PATH, "/no/libnccl.so.2")]);
    assert!(missing.contains("NOT usable: found none (/no/libnccl.so.2"), "{missing}");
}

#[test]
fn child_is_a_rank_by_nccl() {
    if in_child() {
        let tcp = ranks::start(&mut ranks::entries(1).remove(0)).unwrap();
        let open = || Ok((Library::find()?, Box::new(Cuda::open(0, &[])?) as Box<dyn Driver>));
        let mut ranks = Nccl::start(tcp, open).unwrap();
        assert_eq!(ranks.taken, 1 << 20);
        ranks.leave(Ok(())).unwrap();
    }
}

/// This driver does not compute anything, so the answer has no meaning. The test checks that every launch has the
/// parameters, threads and shared memory for which its kernel was compiled, and that a captured step contains only
/// operations that can be captured.
#[test]
fn generation_asks_for_what_the_kernels_take() {
    let machine = Machine::new();
    let model = machine.folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    model_dir(&model);
    let image = machine.folder.path().join("one.png");
    png(&image);
    let (model, image) = (model.display().to_string(), image.display().to_string());
    let mut args = vec!["--device", "cuda", "generate", "--model", &model, "--image", &image];
    args.extend(["--prompt", "One and two", "max_tokens=4"]);
    let output = machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), &args, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(machine.log_file()).unwrap();
    let launched: BTreeSet<_> = log.lines().filter_map(|l| l.strip_prefix("launch ")?.split(' ').next()).collect();
    for kernel in ["attention", "embedding", "linear", "paged", "patch", "rms_norm", "rows", "sample"] {
        assert!(launched.iter().any(|name| name.starts_with(kernel)), "{kernel}: {launched:?}");
    }
    assert!(log.contains("graph launch"), "decoding replays graphs");
}

#[test]
fn compiled_kernels_are_kept_until_something_changes() {
    let machine = Machine::new();
    let links = |settings: &[(&str, &str)]| {
        let log = machine.child("child_opens", settings);
        log.iter().filter(|l| l.starts_with("link ")).count()
    };
    let files = OWN.files().count();
    assert_eq!(links(&[]), files);
    assert_eq!(links(&[]), 0, "the second start compiles nothing");
    assert_eq!(links(&[("FAKE_GPUS", "8.6")]), files, "another GPU has different machine code");
    assert_eq!(links(&[("FAKE_CUDA_VERSION", "13010")]), files, "so may another driver");
    let kept = machine.cache().join("omr/cuda");
    let first = std::fs::read_dir(&kept).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    std::fs::write(&first, &std::fs::read(&first).unwrap()[..100]).unwrap();
    let again = [links(&[]), links(&[("FAKE_GPUS", "8.6")]), links(&[("FAKE_CUDA_VERSION", "13010")])];
    assert_eq!(again.iter().sum::<usize>(), 1, "a file cut short is compiled again: {again:?}");
    let compiled = if OWN.cubins.is_empty() { files } else { 0 };
    assert_eq!(["8.0", "9.0"].map(|gpu| links(&[("FAKE_GPUS", gpu)])), [compiled; 2], "machine code is not compiled");
}

#[test]
fn a_start_that_compiles_for_long_says_so() {
    let machine = Machine::new();
    let slow = OWN.files().last().unwrap();
    let lines = || {
        let args = ["bench", "rms_norm", "--device", "cuda", "--seconds", "0.01"];
        let output = machine.run(Path::new(env!("CARGO_BIN_EXE_omr")), &args, &[("FAKE_SLOW_LINK", slow)]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        text.matches("the driver compiles the kernels for this GPU; modules left: ").count()
    };
    assert_eq!([lines(), lines()], [1, 0]);
}

#[test]
fn a_refusal_or_a_fault_names_the_kernel() {
    let machine = Machine::new();
    machine.child("child_is_refused_ptx", &[("FAKE_REFUSE_PTX", "1")]);
    machine.child("child_faults", &[("FAKE_FAULT", "1")]);
}

/// Returns the first kernel of the first file.
fn some_kernel() -> (&'static str, &'static str) {
    let file = OWN.files().next().unwrap();
    (file, OWN.kernels(file)[0])
}

/// Returns arguments of the right size. Byte `i` is `i ^ 0x5a`.
fn arguments(kernel: &str) -> Vec<u8> {
    (0..OWN.kernel(kernel, Arch::Sm80).unwrap().args).map(|i| i as u8 ^ 0x5a).collect()
}

#[test]
fn child_opens() {
    if in_child() {
        Cuda::open(0, &PROGRAM).unwrap();
    }
}

#[test]
fn child_is_refused_ptx() {
    if in_child() {
        let error = Cuda::open(0, &PROGRAM).err().unwrap().to_string();
        for word in ["CUDA_ERROR_INVALID_PTX", "ptxas fatal: line 7 is not to my taste", "kernels/"] {
            assert!(error.contains(word), "{error}");
        }
    }
}

#[test]
fn child_faults() {
    if in_child() {
        let mut cuda = Cuda::open(0, &PROGRAM).unwrap();
        let (file, name) = some_kernel();
        let kernel = cuda.kernel(file, name).unwrap();
        cuda.launch(Stream::COMPUTE, kernel, &Launch::new([1, 1, 1], 32, 0), &arguments(name)).unwrap();
        let error = cuda.synchronize(Stream::COMPUTE).unwrap_err().to_string();
        assert!(error.contains("CUDA_ERROR_ILLEGAL_ADDRESS") && error.contains(name), "{error}");
    }
}

#[test]
fn child_launches() {
    if in_child() {
        let mut cuda = Cuda::open(0, &PROGRAM).unwrap();
        assert_eq!(cuda.properties().compute_capability, (9, 0));
        let (file, name) = some_kernel();
        let kernel = cuda.kernel(file, name).unwrap();
        let args = arguments(name);
        let launch = Launch { grid: [6, 5, 4], block: 64, cluster: 1, smem: 166_912 };
        cuda.launch(Stream::COMPUTE, kernel, &launch, &args).unwrap();
        let clusters = Launch { grid: [6, 1, 1], block: 32, cluster: 2, smem: 0 };
        cuda.launch(Stream::COMPUTE, kernel, &clusters, &args).unwrap();
        cuda.launch(Stream::COMPUTE, kernel, &Launch { grid: [0, 1, 1], ..launch }, &args).unwrap();
        let error = cuda.launch(Stream::COMPUTE, kernel, &launch, &args[1..]).unwrap_err().to_string();
        assert!(error.contains("bytes of parameters"), "{error}");
        let error = cuda.kernel(file, "no_such_kernel").unwrap_err().to_string();
        assert!(error.contains("no_such_kernel"), "{error}");
    }
}

#[test]
fn child_uses_everything() {
    if !in_child() {
        return;
    }
    let mut cuda = Cuda::open(0, &PROGRAM).unwrap();
    let properties = cuda.properties().clone();
    assert_eq!((properties.multiprocessors, properties.shared_memory_per_block), (108, 166_912));
    // Twice the size of the ring buffer, in uneven parts. If a part of the ring is overwritten before its copy has run,
    // the bytes are wrong.
    const BYTES: usize = 40 << 20;
    let memory = cuda.map(BYTES).unwrap();
    let mut back = vec![1_u8; BYTES];
    cuda.download(Stream::COMPUTE, memory, &mut back).unwrap();
    assert!(back.iter().all(|b| *b == 0), "memory is zero-filled");
    let data: Vec<u8> = (0..BYTES).map(|i| (i * 7 + i / 999) as u8).collect();
    let mut at = 0;
    for part in data.chunks(3 << 18) {
        let mut lent = part.to_vec();
        cuda.upload(Stream::COMPUTE, memory + at, &lent).unwrap();
        lent.fill(0xee);
        at += part.len() as u64;
    }
    cuda.download(Stream::COMPUTE, memory, &mut back).unwrap();
    assert!(back == data, "uploads come through the ring");

    let side = cuda.stream().unwrap();
    let pinned = cuda.pinned(4096).unwrap();
    assert!(cuda.pinned_bytes(pinned).iter().all(|b| *b == 0));
    cuda.pinned_bytes(pinned).fill(9);
    cuda.fill(side, memory, 9, 4000).unwrap();
    cuda.copy(side, memory + 4000, memory, 4000).unwrap();
    cuda.synchronize(side).unwrap();
    cuda.pinned_bytes(pinned).fill(0);
    cuda.download_pinned(side, memory + 4000, pinned, 4000).unwrap();
    cuda.synchronize(side).unwrap();
    assert_eq!(cuda.pinned_bytes(pinned)[3999..4001], [9, 0]);
    assert!(cuda.download_pinned(side, memory, pinned, 4097).is_err());
    cuda.fill(side, memory, 3, 10).unwrap();
    // Empty operations do not call the driver.
    cuda.fill(side, memory, 3, 0).unwrap();
    cuda.copy(side, memory, memory, 0).unwrap();
    cuda.upload(side, memory, &[]).unwrap();
    cuda.download(side, memory, &mut []).unwrap();
    cuda.download_pinned(side, memory, pinned, 0).unwrap();

    // Kernels and copies use the memory of the host by its address.
    let state = cuda.map_host(8192).unwrap();
    cuda.download(Stream::COMPUTE, state, &mut back[..8192]).unwrap();
    assert!(back[..8192].iter().all(|b| *b == 0), "memory is zero-filled");
    cuda.upload(Stream::COMPUTE, state, &data[..8192]).unwrap();
    cuda.copy(Stream::COMPUTE, memory, state, 8192).unwrap();
    cuda.download(Stream::COMPUTE, memory, &mut back[..8192]).unwrap();
    assert!(back[..8192] == data[..8192]);

    let (before, after) = (cuda.event().unwrap(), cuda.event().unwrap());
    let driver: &mut dyn Driver = &mut cuda;
    driver.record(before, Stream::COMPUTE).unwrap();
    driver.record(after, side).unwrap();
    driver.wait(Stream::COMPUTE, after).unwrap();
    assert_eq!(cuda.elapsed_ms(before, after).unwrap(), 1.5);

    assert!(cuda.end_capture(Stream::COMPUTE).is_err());
    cuda.begin_capture(Stream::COMPUTE).unwrap();
    assert!(cuda.upload(Stream::COMPUTE, memory, &data[..8]).is_err());
    assert!(cuda.download(Stream::COMPUTE, memory, &mut back[..8]).is_err());
    assert!(cuda.map(8).is_err() && cuda.pinned(8).is_err());
    cuda.download_pinned(Stream::COMPUTE, memory, pinned, 8).unwrap();
    let graph = cuda.end_capture(Stream::COMPUTE).unwrap();
    cuda.replay(graph, Stream::COMPUTE).unwrap();
    cuda.replay(graph, side).unwrap();
    cuda.drop_graph(graph);
    assert!(cuda.replay(graph, side).is_err());

    cuda.range_push("a range");
    cuda.range_pop();
    cuda.profiler(true).unwrap();
    cuda.profiler(false).unwrap();
    let map = TensorMap {
        address: memory,
        element: 2,
        dims: vec![100, 30],
        strides: vec![208],
        box_dims: vec![64, 16],
        swizzle: 128,
    };
    // In cuda.h (CUtensorMap*), bf16 is 9, the 128-byte swizzle is 3, and promotion to 256 bytes is 3.
    let words = cuda.tensor_map(&map).unwrap().0;
    assert_eq!(words, [9, 2, memory, 100, 30, 208, 64, 16, 1, 1, 0, 3, 3, 0, 0, 0]);
    assert!(cuda.tensor_map(&TensorMap { swizzle: 7, ..map }).is_err());
}
