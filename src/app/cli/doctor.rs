//! `omr doctor`: reports what works on this machine and how to fix what does not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::Context;
use super::args::repository;
use super::stdout::print;
use omr_base::error::{Error, Result, words};
use omr_base::files;
use omr_base::hub::Kind;
use omr_base::observe::bytes;
use omr_model::nn::ModelConfig;
use omr_runtime::device::driver::Properties;
use omr_runtime::device::emu::{Cache, Compiler};
use omr_runtime::device::images::OWN;
use omr_runtime::device::{Isa, Kind as DeviceKind, Plan, amx, cuda, nccl};
use omr_runtime::machine::FreeMemory;
use omr_train::plan;

/// Arguments of `omr doctor`.
#[derive(clap::Args)]
pub struct Args {
    /// Model directory or repository: also check that its kernels fit on each GPU
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Prints the findings to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let cpu = finding(true, "device", "cpu", "works");
    let mut out = vec![processor(), instruction_set()?, threads(context.threads), memory(), cpu];
    out.extend(cuda());
    if let Some(model) = &args.model {
        out.extend(kernels_of(model)?);
    }
    out.push(nccl(context));
    let shm = rustix::fs::statvfs("/dev/shm").map(|shm| shm.f_blocks * shm.f_frsize).ok();
    out.extend(shm.and_then(|size| shared_memory(size, usable_gpus())));
    let has_infiniband = std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut found| found.next().is_some());
    out.extend(locked_memory(&std::fs::read_to_string("/proc/self/limits").unwrap_or_default(), has_infiniband));
    out.extend(emu());
    out.push(images());
    out.extend(start_check(context));
    out.push(writable("temporary files", &std::env::temp_dir(), "set TMPDIR to a folder with write permission"));
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    out.push(writable("working folder", &here, "set --out to a folder with write permission"));
    let (version, arch, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
    if args.json {
        return print(&format!("{:#}\n", json!({ "version": version, "arch": arch, "os": os, "findings": out })));
    }
    let lines: String = out.iter().map(Finding::line).collect();
    print(&format!("omr {version} ({arch}, {os})\n{lines}"))
}

/// Opens the GPU, or with `--device emu` the emulated one, and reports its kernel variants. If they include wgmma, this
/// runs the start check, also if the GPU has a record of having passed it.
fn start_check(context: &Context) -> Option<Finding> {
    if !context.kind().is_gpu() || context.find_device().is_err() {
        return None;
    }
    let start = Instant::now();
    let found =
        context.open(&Plan::default(), true).map(|dev| (dev.recorded_variant(), !dev.refused_kernels().is_empty()));
    let seconds = start.elapsed().as_secs_f64();
    Some(match found {
        Ok((variant, is_refused)) => {
            let remark = format!("opened and checked in {seconds:.1} s, not read from a record");
            finding(!is_refused, "start check", &variant.unwrap_or_default(), &remark)
        }
        Err(error) => finding(false, "start check", context.kind().name(), &reason(&error)),
    })
}

const CACHE_CURE: &str = "set XDG_CACHE_HOME to a folder with write permission";

/// Result of one check.
#[derive(Serialize)]
struct Finding {
    what: String,
    found: String,
    /// Explanation of the result, or an empty text.
    remark: String,
    /// False if something does not work and can be fixed.
    ok: bool,
}

impl Finding {
    fn line(&self) -> String {
        let Finding { what, found, remark, .. } = self;
        let remark = if remark.is_empty() { String::new() } else { format!(": {remark}") };
        format!("{what:16} {found}{remark}\n")
    }
}

fn finding(ok: bool, what: &str, found: &str, remark: &str) -> Finding {
    Finding { what: what.to_owned(), found: found.to_owned(), remark: remark.to_owned(), ok }
}

/// Returns the finding of a check: `found` with its remark, or an error.
fn checked(what: &str, found: &str, remark: Result<String>) -> Finding {
    match remark {
        Ok(remark) => finding(true, what, found, &remark),
        Err(error) => finding(false, what, found, &reason(&error)),
    }
}

fn processor() -> Finding {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| info.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_once(':'));
    let name = field("model name").or(field("Model")).map_or("unknown", |(_, value)| value.trim());
    finding(true, "processor", name, "")
}

fn instruction_set() -> Result<Finding> {
    let isa = super::context::requested_isa()?;
    let others: Vec<_> = Isa::ALL.into_iter().filter(|isa| isa.available()).map(Isa::name).collect();
    let why = match amx::refusal() {
        _ if isa != Isa::detect() => "selected with OMR_BODY".to_owned(),
        None => "AMX gives the same bits as the portable kernels".to_owned(),
        Some(refusal) => refusal.why.clone(),
    };
    let found = format!("{} with {}", isa.name(), isa.bf16_products());
    let ok = isa.available() && !amx::refusal().is_some_and(|refusal| refusal.is_there);
    let remark = format!("{why}; available on this machine: {}", others.join(", "));
    Ok(finding(ok, "kernel variants", &found, &remark))
}

fn threads(threads: usize) -> Finding {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let remark = match threads > available {
        true => format!("more than the {available} processors this process may use: lower --threads"),
        false => format!("of {available} processors this process may use"),
    };
    finding(true, "threads", &threads.to_string(), &remark)
}

fn memory() -> Finding {
    let Some(FreeMemory { bytes: free, limit }) = FreeMemory::read() else {
        return finding(true, "memory", "unknown", "");
    };
    let mut remark = "the digits recipe needs about 1 GiB".to_owned();
    if let Some(limit) = limit {
        remark = format!("this process is limited to {}; {remark}", bytes(limit));
    }
    finding(true, "memory", &format!("{} free", bytes(free)), &remark)
}

/// Returns one finding per GPU, or one that explains why there is none.
fn cuda() -> Vec<Finding> {
    let found = match cuda::find() {
        Ok(found) => found,
        Err(error) => return vec![finding(false, "device", "cuda", &reason(&error))],
    };
    let of_gpu = |(ordinal, gpu): (usize, &Properties)| {
        let (major, minor) = gpu.compute_capability;
        let use_of_it = match gpu.arch() {
            Some(arch) => {
                let newer = cuda::find::newer_driver(gpu).map_or(String::new(), |text| format!("; {text}"));
                format!("runs the {} kernels{newer}", arch.name())
            }
            None => "NOT usable: omr needs compute capability 8.0 or later".into(),
        };
        let gpu_is = format!("{} of compute capability {major}.{minor}, {}", gpu.name, bytes(gpu.memory));
        let remark = format!("{gpu_is}, driver {}; {use_of_it}", gpu.driver);
        finding(gpu.arch().is_some(), "device", &format!("cuda {ordinal}"), &remark)
    };
    let mut lines: Vec<_> = found.iter().enumerate().map(of_gpu).collect();
    if let Some(folder) = files::user_cache("cuda") {
        lines.push(writable("compiled kernels", &folder, CACHE_CURE));
    }
    lines
}

/// Returns one finding per usable GPU: whether all kernels of the model fit.
fn kernels_of(model: &Path) -> Result<Vec<Finding>> {
    let config = ModelConfig::load(&repository(model, Kind::Model, "--model")?.join("config.json"))?;
    let Ok(found) = cuda::find() else { return Ok(Vec::new()) };
    let usable = found.iter().enumerate().filter(|(_, gpu)| gpu.arch().is_some());
    let of_gpu = |(ordinal, gpu): (usize, &Properties)| {
        let remark = plan::kernels::check(&config, gpu).map(|()| format!("all kernels of {} fit", model.display()));
        checked("model", &format!("cuda {ordinal}"), remark)
    };
    Ok(usable.map(of_gpu).collect())
}

/// Checks NCCL, with which runs on several GPUs exchange tensors. On a machine with GPUs, all of them exchange a few
/// bytes.
fn nccl(context: &Context) -> Finding {
    const WHAT: &str = "several GPUs";
    let library = match nccl::Library::find() {
        Ok(library) => format!("NCCL {}", library.version()),
        Err(error) => return finding(false, WHAT, "NCCL", &reason(&error)),
    };
    let gpus = if context.kind() == DeviceKind::Cuda { usable_gpus() } else { 0 };
    if gpus == 0 {
        return finding(true, WHAT, &library, "found, not tried without a GPU");
    }
    let count = gpus.to_string();
    let program = std::env::current_exe().unwrap_or_else(|_| "omr".into());
    let tried = Command::new(program).args(["--device", "cuda", "bench", "ranks", "--gpus", &count]).output();
    let last = |text: &[u8]| String::from_utf8_lossy(text).lines().last().unwrap_or_default().replace("error: ", "");
    match tried {
        Ok(done) if done.status.success() => finding(true, WHAT, &library, &format!("works: {}", last(&done.stdout))),
        Ok(done) => finding(false, WHAT, &library, &format!("NOT usable: {}", last(&done.stderr))),
        Err(error) => finding(false, WHAT, &library, &format!("NOT usable: {}", words(&error))),
    }
}

fn usable_gpus() -> usize {
    cuda::find().map_or(0, |found| found.iter().filter(|gpu| gpu.arch().is_some()).count())
}

/// Shared memory that NVIDIA recommends for NCCL in a container.
const SHARED_MEMORY: u64 = 1 << 30;

/// Returns a finding if the shared memory of the machine, in bytes, is too small for NCCL between `gpus` GPUs.
fn shared_memory(size: u64, gpus: usize) -> Option<Finding> {
    let cure = "NCCL needs 1 GiB between GPUs: docker run --shm-size=1g, in a pod an emptyDir with medium: Memory";
    let is_small = gpus > 1 && size < SHARED_MEMORY;
    is_small.then(|| finding(false, "shared memory", &format!("{} in /dev/shm", bytes(size)), cure))
}

/// Returns a finding if this process, with the limits in the text `limits` of `/proc/self/limits`, must not lock the
/// memory that InfiniBand needs.
fn locked_memory(limits: &str, has_infiniband: bool) -> Option<Finding> {
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")?.split_whitespace().next())?;
    let cure = "NCCL over InfiniBand needs `ulimit -l unlimited`, or docker run --ulimit memlock=-1";
    let is_low = has_infiniband && limit != "unlimited";
    is_low.then(|| finding(false, "locked memory", &format!("at most {limit} bytes"), cure))
}

/// Checks the emulator: its compiler and the folder of its compiled kernels.
fn emu() -> Vec<Finding> {
    let works = Compiler::find().map(|compiler| format!("works, with {}", compiler.version));
    let kept = match Cache::folder() {
        Ok(folder) => writable("emulated kernels", &folder, CACHE_CURE),
        Err(error) => finding(false, "emulated kernels", "no folder", &reason(&error)),
    };
    vec![checked("device", "emu", works), kept]
}

/// Formats an error as a remark: "found X, expected Y" without the place, which the line already contains.
fn reason(error: &Error) -> String {
    match error {
        Error::Input { found, expected, hint, .. } => {
            let hint = hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
            format!("NOT usable: found {found}, expected {expected}{hint}")
        }
        error => format!("NOT usable: {error}"),
    }
}

/// Checks the kernel images in this program.
fn images() -> Finding {
    let files: Vec<_> = OWN.files().collect();
    let kernels: usize = files.iter().map(|file| OWN.kernels(file).len()).sum();
    let form = match OWN.cubins {
        [] => "PTX, which the driver compiles at the first use",
        _ => "PTX, and machine code for compute capabilities 8.0 and 9.0",
    };
    let stale = OWN.stale();
    let verdict = stale.first().map_or(String::new(), |first| {
        format!("; STALE in {} places, for example {first}: run tools/build-ptx and rebuild omr", stale.len())
    });
    let found = format!("{kernels} in {} files", files.len());
    finding(stale.is_empty(), "kernel images", &found, &format!("{form}{verdict}"))
}

/// Checks that files can be created in `dir`, or in its nearest existing parent.
fn writable(what: &str, dir: &Path, cure: &str) -> Finding {
    let shown = dir.display().to_string();
    let existing = dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(dir);
    match tempfile::tempfile_in(existing) {
        Ok(_) => finding(true, what, &shown, "writable"),
        Err(error) => finding(false, what, &shown, &format!("NOT writable ({}): {cure}", words(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_with_too_little_memory_for_nccl_is_named() {
        let small = shared_memory(64 << 20, 2).unwrap().line();
        assert!(small.contains("64.0 MiB in /dev/shm") && small.contains("--shm-size=1g"), "{small}");
        assert!(shared_memory(64 << 20, 1).is_none() && shared_memory(1 << 30, 8).is_none());
        let limits =
            |limit: &str| format!("Max open files 1024 1024 files\nMax locked memory  {limit}  {limit} bytes\n");
        let low = locked_memory(&limits("8388608"), true).unwrap().line();
        assert!(low.contains("at most 8388608 bytes") && low.contains("memlock=-1"), "{low}");
        assert!(
            locked_memory(&limits("8388608"), false).is_none() && locked_memory(&limits("unlimited"), true).is_none()
        );
    }
}
