//! How fast the emulator computes: kernels in bf16 on one core, with shadow state of shared memory and without.

use serde_json::{Value, json};

use super::case::{Case, MEMORY, measure, op};
use super::inputs;
use super::options::Options;
use crate::device::emu::{self, Emu};
use crate::device::images::Arch;
use crate::device::{Body, Device, Kind, Plan};
use crate::error::Result;
use crate::files;
use crate::machine::Machine;
use crate::ops::{linear, rms_norm};
use crate::tensor::DType;

/// What `omr bench` calls it.
pub const NAME: &str = "emu";

/// Tokens, outputs and inputs of the matrix product: whole tiles, and enough of them for the CTAs of two SMs.
const T: usize = 256;
const N: usize = 256;
const K: usize = 2048;

/// Width of the 7B's residual stream.
const HIDDEN: usize = 3584;

fn matrix_product(dev: &mut Device) -> Result<Case> {
    let (x, w) = (inputs::random(dev, DType::Bf16, &[T, K], 1.0)?, inputs::weight(dev, DType::Bf16, N, K)?);
    let y = inputs::zeros(dev, DType::Bf16, &[T, N])?;
    let flops = 2.0 * (T * N * K) as f64;
    let moved = inputs::bytes(&[x, w.data, y]);
    let shape = format!("[{T}, {K}] x [{N}, {K}]");
    op("emu linear", DType::Bf16, shape, flops, moved, move |dev| {
        linear::fwd(dev, x, &w, None, None, y)?;
        // Waits.
        dev.read::<half::bf16>(y).map(drop)
    })
}

fn norm(dev: &mut Device) -> Result<Case> {
    let x = inputs::random(dev, DType::Bf16, &[T, HIDDEN], 1.0)?;
    let gamma = inputs::random(dev, DType::Bf16, &[HIDDEN], 1.0)?;
    let (y, rstd) = (inputs::zeros(dev, DType::Bf16, &[T, HIDDEN])?, inputs::zeros(dev, DType::F32, &[T])?);
    let (flops, moved) = (4.0 * (T * HIDDEN) as f64, inputs::bytes(&[x, gamma, y, rstd]));
    op("emu rms_norm", DType::Bf16, format!("[{T}, {HIDDEN}]"), flops, moved, move |dev| {
        rms_norm::fwd(dev, x, gamma, 1e-6, y, rstd)?;
        dev.read::<f32>(rstd).map(drop)
    })
}

/// Measures, and returns a table; the first run on a machine also compiles the kernels, which is not measured.
pub fn run(options: &Options, machine: &Machine) -> Result<String> {
    machine
        .observer
        .note("measuring the emulator on one core, fixed schedule; CPU time, so a busy machine counts for less");
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
                dev.use_body(Body::Wgmma)?;
                case.name = "emu wgmma";
            }
            let times = measure(&mut case, &mut dev, options.seconds)?;
            // Nothing else runs in this process, so its CPU time is the emulator's.
            let seconds = times.cpu.unwrap_or(times.median);
            let (gflops, gigabytes) = (case.flops / seconds / 1e9, case.bytes / seconds / 1e9);
            out.push_str(&format!(
                "{:14} {:26} {:6} {:10.3} {:9.3} {gflops:9.2} {gigabytes:9.3}\n",
                case.name,
                case.shape,
                if shadow { "on" } else { "off" },
                seconds * 1e3,
                times.median * 1e3,
            ));
            rows.push(json!({"name": case.name, "shape": case.shape, "dtype": case.dtype, "shadow": shadow,
                "cpu_ms": seconds * 1e3, "ours_ms": times.median * 1e3, "repetitions": times.repetitions,
                "flops": case.flops, "bytes": case.bytes}));
        }
    }
    if let Some(file) = options.json {
        let record: Value = json!({"version": env!("CARGO_PKG_VERSION"), "device": "emu", "threads": 1, "rows": rows});
        files::write(file, record.to_string().as_bytes())?;
    }
    Ok(out)
}
