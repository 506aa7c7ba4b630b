//! Benchmarks of ops and whole jobs on the CPU, compared with peak rates measured on the same machine.

use serde_json::{Value, json};

use super::case::{Case, MEMORY, Make, Times, measure};
use super::model_shape::ModelShape;
use super::ops;
use super::options::Options;

use omr_base::choice::not_one_of;
use omr_base::error::{Error, Result};
use omr_base::observe::bytes;
use omr_runtime::device::peaks::Peaks;
use omr_runtime::device::{Device, Kind, Plan, Region, Target};
use omr_runtime::machine::{FreeMemory, Machine};
use omr_runtime::tensor::DType;

/// Names of the benchmarks, in the order of the table. Without names on the command line, the first [`DEFAULT`] run.
const NAMES: [&str; 19] = [
    "linear",
    "swiglu",
    "attention",
    "rms_norm",
    "rope",
    "qk_norm",
    "linear_logprob",
    "adamw",
    "grad_norm",
    "lane_sum",
    "paged_attention",
    "sample",
    "dequantize",
    "train-step",
    "rl-step",
    "generate",
    "decode",
    "prefill",
    "parity",
];
const DEFAULT: usize = 16;

/// Runs the benchmarks and returns a table.
pub fn run(options: &Options, machine: &Machine) -> Result<String> {
    let wanted = choose(&options.names)?;
    let (names, seconds) = (wanted.join(", "), options.seconds);
    machine.observer.note(&format!(
        "measuring {names} for at least {seconds} s each; median of repetitions, caches are not flushed in between"
    ));
    let mut all = Vec::new();
    for name in wanted {
        all.extend(cases(name, options, machine.target)?);
    }
    let mut plan = Plan::uniform(MEMORY);
    for (make, _) in all.iter().filter(|(_, is_job)| *is_job) {
        plan = plan.max(&count(make, machine.threads)?);
    }
    let mut dev = (machine.device)(&plan)?;
    let peaks = Peaks::measure(&mut dev)?;
    let mut out = format!(
        "{} thread(s), {} kernels; peak rates: f32 {:.0} GFLOP/s, bf16 {:.0} GFLOP/s, memory {:.1} GB/s\n\n{}\n",
        dev.threads(),
        dev.isa().name(),
        peaks.f32_flops / 1e9,
        peaks.bf16_flops / 1e9,
        peaks.bytes / 1e9,
        "name                  shape                         dtype        ms       min       max   GFLOP/s      GB/s  \
         of   peak  tokens/s"
    );
    let mut rows = Vec::new();
    for (make, _) in all {
        let marks = Region::ALL.map(|region| dev.mark(region));
        let mut case = make(&mut dev)?;
        let times = measure(&mut case, &mut dev, options.seconds)?;
        marks.into_iter().for_each(|mark| dev.release(mark));
        let ceiling = (case.flops / peaks.flops(case.dtype)).max(case.bytes / peaks.bytes);
        out.push_str(&line(&case, &times, ceiling));
        rows.push(row(&case, &times, ceiling));
    }
    options.write(&json!({
        "version": env!("CARGO_PKG_VERSION"), "device": "cpu", "threads": dev.threads(), "isa": dev.isa().name(),
        "peaks": {"f32_flops": peaks.f32_flops, "bf16_flops": peaks.bf16_flops, "bytes": peaks.bytes}, "rows": rows,
    }))?;
    Ok(out)
}

/// Returns the cases of one of [`NAMES`], to be made later. The bool is true for a job, whose memory must be counted
/// first. Ops need little memory and are not counted.
fn cases(name: &'static str, options: &Options, target: Target) -> Result<Vec<(Make, bool)>> {
    let shapes = options.model_shape.map_or_else(|| vec![ModelShape::Digits, ModelShape::M22], |shape| vec![shape]);
    let mut out: Vec<(Make, bool)> = Vec::new();
    for dtype in options.dtypes() {
        // These ops use f32 only and do not depend on the storage type of the weights.
        let is_left_out = dtype != DType::F32 && ["grad_norm", "lane_sum"].contains(&name);
        let ops =
            ops::cases(Kind::Cpu, dtype, options.scale()?).into_iter().filter(|(op, _)| *op == name && !is_left_out);
        out.extend(ops.map(|(_, make)| (make, false)));
        for &shape in &shapes {
            out.extend(options.jobs(name, target, dtype, shape, 0)?.into_iter().map(|make| (make, true)));
        }
    }
    Ok(out)
}

/// Counts the bytes that a case needs. Returns an error if the machine does not have them.
fn count(case: &Make, threads: usize) -> Result<Plan> {
    let mut dev = Device::count_for(Target::cpu(threads));
    let mut case = case(&mut dev)?;
    (case.run)(&mut dev)?;
    let plan = dev.high_water();
    let total = plan.total() as u64;
    let Some(free) = FreeMemory::read().filter(|free| total > free.bytes) else { return Ok(plan) };
    let what = format!("{} of {} in {}", case.name, case.shape, case.dtype);
    let need = format!("{} for {what}", bytes(total));
    Err(Error::input("memory", format!("{} free", bytes(free.bytes)), need))
}

fn line(case: &Case, times: &Times, ceiling: f64) -> String {
    let tokens = case.job.map_or_else(String::new, |job| format!(" {:9.0}", job.tokens as f64 / times.median));
    let Case { name, shape, dtype, .. } = case;
    let [ms, min, max] = [times.median, times.min, times.max].map(|seconds| seconds * 1e3);
    let [gflops, gigabytes] = [case.flops, case.bytes].map(|amount| amount / times.median / 1e9);
    let share = ceiling / times.median * 100.0;
    format!(
        "{name:21} {shape:29} {dtype:5} {ms:9.3} {min:9.3} {max:9.3} {gflops:9.1} {gigabytes:9.1} \
         {share:9.0} % {tokens}\n"
    )
}

fn row(case: &Case, times: &Times, ceiling: f64) -> Value {
    let mut row = json!({"name": case.name, "shape": case.shape, "dtype": case.dtype, "ours_ms": times.median * 1e3,
        "min_ms": times.min * 1e3, "max_ms": times.max * 1e3, "cpu_ms": times.cpu * 1e3,
        "repetitions": times.repetitions, "flops": case.flops, "bytes": case.bytes, "ceiling_ms": ceiling * 1e3,
        "of_ceiling": ceiling / times.median});
    case.job.iter().for_each(|job| job.write(&mut row, times.median));
    row
}

fn choose(names: &[String]) -> Result<Vec<&'static str>> {
    if names.is_empty() {
        return Ok(NAMES[..DEFAULT].to_vec());
    }
    let mut out = Vec::new();
    for name in names {
        let found: Vec<_> = NAMES.iter().filter(|known| known.starts_with(name.as_str())).collect();
        if found.is_empty() {
            let expected = match name.ends_with(".yaml") {
                true => "--device cuda or emu, because configs are only measured with GPU kernels".to_owned(),
                false => format!("one of {}", NAMES.join(", ")),
            };
            return Err(not_one_of("omr bench", name, expected, NAMES));
        }
        out.extend(found);
    }
    Ok(out)
}
