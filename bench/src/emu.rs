//! Benchmarks of the emulator's speed: bf16 kernels on one core, with and without shadow state of shared memory.

use serde_json::json;

use super::case::{Case, MEMORY, measure};
use super::inputs::{self, Sizes};
use super::layer;
use super::options::Options;
use omr_base::error::Result;
use omr_runtime::device::emu::{self, Emu};
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant, Kind, Plan};
use omr_runtime::machine::Machine;
use omr_runtime::tensor::DType;

/// Name of this benchmark in `omr bench`.
pub const NAME: &str = "emu";

/// Tokens, outputs and inputs of the matrix product. They fill whole tiles, and there are enough tiles for the CTAs of
/// two SMs.
const PRODUCT: [usize; 3] = [256, 256, 2048];

fn matrix_product(dev: &mut Device) -> Result<Case> {
    let case = layer::linear_fwd(dev, Sizes::of(Kind::Emu, DType::Bf16, 1.0), PRODUCT)?;
    waited(dev, Case { name: "emu linear", ..case })
}

/// Makes the case of a norm of rows as wide as the 7B model's residual stream. Each element takes four operations.
fn norm(dev: &mut Device) -> Result<Case> {
    let sizes = Sizes { tokens: PRODUCT[0], ..Sizes::of(Kind::Cuda, DType::Bf16, 1.0) };
    let flops = 4.0 * (sizes.tokens * sizes.hidden) as f64;
    let case = layer::rms_norm_fwd(dev, sizes)?;
    waited(dev, Case { name: "emu rms_norm", flops, ..case })
}

/// Returns `case` with repetitions that wait for the device.
fn waited(dev: &mut Device, mut case: Case) -> Result<Case> {
    let behind = inputs::zeros(dev, DType::F32, &[1])?;
    let mut run = case.run;
    case.run = Box::new(move |dev| {
        run(dev)?;
        dev.read::<f32>(behind).map(drop)
    });
    Ok(case)
}

/// Runs the benchmarks and returns a table. On the first run the kernels are compiled before the measurement.
pub fn run(options: &Options, machine: &Machine) -> Result<String> {
    machine.observer.note("measuring the emulator on one core with a fixed schedule, in CPU time");
    let mut out =
        "name           shape                      shadow     cpu ms        ms   GFLOP/s      GB/s\n".to_owned();
    let mut rows = Vec::new();
    for (make, arch) in [
        (matrix_product as fn(&mut Device) -> Result<Case>, Arch::Sm80),
        (matrix_product, Arch::Sm90a),
        (norm, Arch::Sm80),
    ] {
        for shadow in [false, true] {
            let emu = Emu::new(emu::Options { arch, shadow, ..emu::Options::default() })?;
            let mut dev = Device::gpu(Box::new(emu), Kind::Emu, &Plan::uniform(MEMORY))?;
            let mut case = make(&mut dev)?;
            if arch == Arch::Sm90a {
                dev.use_variant(KernelVariant::Wgmma)?;
                case.name = "emu wgmma";
            }
            let times = measure(&mut case, &mut dev, options.seconds)?;
            // Nothing else runs in this process, so the CPU time of the process is the CPU time of the emulator.
            let seconds = times.cpu;
            let (gflops, gigabytes) = (case.flops / seconds / 1e9, case.bytes / seconds / 1e9);
            let (name, shape, checks) = (case.name, &case.shape, if shadow { "on" } else { "off" });
            let [cpu_ms, ms] = [seconds, times.median].map(|seconds| seconds * 1e3);
            out += &format!("{name:14} {shape:26} {checks:6} {cpu_ms:10.3} {ms:9.3} {gflops:9.2} {gigabytes:9.3}\n");
            rows.push(json!({"name": case.name, "shape": case.shape, "dtype": case.dtype, "shadow": shadow,
                "cpu_ms": seconds * 1e3, "ours_ms": times.median * 1e3, "repetitions": times.repetitions,
                "flops": case.flops, "bytes": case.bytes}));
        }
    }
    options.write(&json!({"version": env!("CARGO_PKG_VERSION"), "device": "emu", "threads": 1, "rows": rows}))?;
    Ok(out)
}
