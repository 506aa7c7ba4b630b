//! Benchmarks of ops and whole jobs on a GPU. Each repetition is timed with events after a write that flushes the L2,
//! and the GPU's clock is read meanwhile. The emulator runs the same code on tiny shapes, and its times do not allow
//! conclusions about a GPU.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::case::{Case, Make, Times};
use super::model_shape::ModelShape;
use super::options::Options;

use super::variants::variants;
use super::{configs, ops};
use crate::device::perf_model::Range;
use crate::device::{Device, Driver, Event, KernelVariant, Kind, Plan, Region, Stream, Target};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::observe::bytes;
use crate::ops::attend::CHUNK;
use crate::plan::{Gpu, Launches, Pages};
use crate::tensor::{DType, Tensor};

/// Name that selects all ops.
const OPS: &str = "ops";
/// Name of the check that both kernel variants agree. If they differ, or if the sampler's log-probs differ from the
/// trainer's in the case `parity`, the command fails.
const VARIANTS: &str = "variants";

/// Bytes written between two repetitions, more than any L2 holds.
const FLUSH: usize = 256 << 20;
/// Seconds to wait at most for the answer of nvidia-smi.
const CLOCK_SECONDS: f64 = 3.0;
/// Minimum numbers of repetitions: for an op, and for a whole job, whose repetitions take seconds. The emulator runs
/// two.
const REPETITIONS: [usize; 2] = [5, 3];

/// Runs the benchmarks and returns a table. The JSON file is rewritten with the results so far after each case.
pub fn run(options: &Options, machine: &Machine) -> Result<String> {
    let kind = machine.target.kind;
    let mut out = format!(
        "{:21} {:42} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}\n",
        "name", "shape", "ms", "min", "TFLOP/s", "GB/s", "MHz", "predicted"
    );
    let mut rows = Vec::new();
    let chosen = chosen(options, machine.target)?;
    // A missing device gives one error here, instead of one row per case.
    drop((machine.device)(&Plan::default())?);
    for make in chosen {
        let row = measured(&make, options.seconds, machine)?;
        out.push_str(&line(&row));
        machine.observer.note(line(&row).trim_end());
        rows.push(row);
        options.write(&json!({"version": env!("CARGO_PKG_VERSION"), "device": kind.name(), "rows": rows}))?;
    }
    Ok(out)
}

/// Returns the requested cases. Returns an error for an unknown name.
fn chosen(options: &Options, target: Target) -> Result<Vec<Make>> {
    let kind = target.kind;
    let (values, mut names): (Vec<String>, Vec<String>) = options.names.iter().cloned().partition(|n| n.contains('='));
    if names.is_empty() {
        names.push(OPS.to_owned());
    }
    let mut out: Vec<Make> = Vec::new();
    for name in names {
        let begin = out.len();
        let shape = options.model_shape.unwrap_or(if kind == Kind::Cuda { ModelShape::B7 } else { ModelShape::Digits });
        let jobs = options.jobs(&name, target, DType::Bf16, shape, FLUSH)?;
        match name.as_str() {
            _ if !jobs.is_empty() => out.extend(jobs),
            VARIANTS => out.push(Box::new(variants)),
            file if [".yaml", ".yml"].iter().any(|end| file.ends_with(end)) => {
                let memory = target.memory.map(|memory| memory.saturating_sub(FLUSH));
                out.extend(configs::cases(Path::new(file), &values, &options.rows, kind, memory)?);
            }
            name => {
                // The shape is known only after a case is made, so cases are made here only if the name contains a
                // shape.
                let whole = |make: &Make| -> Result<bool> {
                    let Case { name: op, shape, .. } = make(&mut Device::count_for(target))?;
                    Ok(format!("{op} {shape}").starts_with(name))
                };
                for (op, make) in ops::cases(kind, DType::Bf16) {
                    if name == OPS || op.starts_with(name) || name.split(' ').next() == Some(op) && whole(&make)? {
                        out.push(make);
                    }
                }
            }
        }
        if out.len() == begin {
            let expected =
                "ops, an op's name, train-step, rl-step, generate, decode, prefill, parity, variants or a config.yaml";
            return Err(Error::input("omr bench", name, expected));
        }
    }
    Ok(out)
}

/// Predicts the seconds of a case on `gpu` with a clock of `mhz`, and the limiting resource. Returns `None` for a job that
/// does not state how many bytes of keys and values its attention reads.
fn predicted(make: &Make, gpu: Gpu, variant: KernelVariant, mhz: f64) -> Result<Option<(Range, &'static str)>> {
    let launches = Launches::new(gpu.ceilings(), 1e6 * mhz);
    let mut dev = launches.device(variant)?;
    let mut case = make(&mut dev)?;
    // A case of an op with paged attention launches no other kernel, and no case of another op launches paged
    // attention. Its sequences have whole chunks.
    let op = Pages { bytes: case.bytes, keys: CHUNK };
    let Some(pages) = case.job.map_or(Some(op), |job| job.pages) else { return Ok(None) };
    // After the first repetition, prompts are in the cache and graphs are captured.
    (case.run)(&mut dev)?;
    launches.since(&mut dev, pages);
    (case.run)(&mut dev)?;
    let (seconds, bound) = launches.since(&mut dev, pages);
    Ok(Some((seconds, bound)))
}

/// Measures one case on a new device. If the case has no kernel or needs too much memory, the row contains the reason
/// instead of times.
fn measured(make: &Make, seconds: f64, machine: &Machine) -> Result<Value> {
    let target = machine.target;
    let mut counting = Device::count_for(target);
    let mut case = make(&mut counting)?;
    let mut row = json!({"name": case.name, "shape": case.shape, "dtype": case.dtype, "flops": case.flops,
        "bytes": case.bytes, "data": "normal"});
    counting.take(Region::State, FLUSH)?;
    if let Err(error) = (case.run)(&mut counting) {
        row["skipped"] = error.to_string().into();
        return Ok(row);
    }
    let plan = counting.high_water();
    row["memory"] = plan.total().into();
    if let Some(memory) = target.memory.filter(|&memory| plan.total() > memory) {
        let skipped = format!("takes {} of {}", bytes(plan.total() as u64), bytes(memory as u64));
        row["skipped"] = skipped.into();
        return Ok(row);
    }
    match timed(make, &plan, seconds, machine) {
        Ok(GpuTimes { times, gpu: name, clock, variant }) => {
            row["ours_ms"] = times.median.into();
            row["min_ms"] = times.min.into();
            row["max_ms"] = times.max.into();
            row["repetitions"] = times.repetitions.into();
            row["clock_mhz"] = clock.into();
            row["runs_by"] = variant.map(KernelVariant::name).into();
            let gpu = Gpu::with_predictions(&name);
            row["gpu"] = name.into();
            let sheet = gpu.map(Gpu::data_sheet);
            row["peak_flops"] = sheet.map(|sheet| sheet.flops).into();
            row["peak_bytes"] = sheet.map(|sheet| sheet.bytes).into();
            let known = gpu.zip(clock.zip(variant));
            if let Some((seconds, bound)) =
                known.map_or(Ok(None), |(gpu, (mhz, variant))| predicted(make, gpu, variant, f64::from(mhz)))?
            {
                let Range { low, likely, high } = 1e3 * seconds;
                row["predicted_ms"] = likely.into();
                row["predicted_range_ms"] = vec![low, high].into();
                row["bound"] = bound.into();
            }
            case.job.iter().for_each(|job| job.write(&mut row, times.median / 1e3));
        }
        Err(error) if ["parity", VARIANTS].contains(&case.name) => return Err(error),
        Err(error) => row["skipped"] = error.to_string().into(),
    }
    Ok(row)
}

/// Milliseconds of the repetitions, and where they were measured.
struct GpuTimes {
    /// In milliseconds.
    times: Times,
    gpu: String,
    /// Clock of the multiprocessors in MHz.
    clock: Option<u32>,
    variant: Option<KernelVariant>,
}

fn timed(make: &Make, plan: &Plan, seconds: f64, machine: &Machine) -> Result<GpuTimes> {
    let mut dev = (machine.device)(plan)?;
    let on_gpu = dev.kind() == Kind::Cuda;
    let mut case = make(&mut dev)?;
    let flush = dev.alloc(Region::State, DType::U8, &[if on_gpu { FLUSH } else { 64 }])?;
    let events = [driver(&mut dev)?.event()?, driver(&mut dev)?.event()?];
    once(&mut case, &mut dev, flush, events)?;
    let mut clock = if on_gpu { Clock::start() } else { None };
    driver(&mut dev)?.profiler(on_gpu)?;
    let (begun, mut times) = (Instant::now(), Vec::new());
    let least = REPETITIONS[usize::from(case.job.is_some())];
    loop {
        let spent = begun.elapsed().as_secs_f64();
        // The clock must be read under load, so the load continues until nvidia-smi has answered.
        let asked = spent < CLOCK_SECONDS && clock.as_mut().is_some_and(Clock::is_asked);
        let enough = if on_gpu { times.len() >= least && spent >= seconds && !asked } else { times.len() == 2 };
        if enough {
            break;
        }
        times.push(once(&mut case, &mut dev, flush, events)?);
    }
    driver(&mut dev)?.profiler(false)?;
    let (gpu, clock) = (driver(&mut dev)?.properties().name.clone(), clock.and_then(Clock::mhz));
    Ok(GpuTimes { times: Times::of(times, 0.0), gpu, clock, variant: dev.variant() })
}

fn driver(dev: &mut Device) -> Result<&mut dyn Driver> {
    dev.driver().ok_or_else(|| Error::Failed("omr bench: the device is not a GPU".into()))
}

/// Measures the milliseconds of one repetition.
fn once(case: &mut Case, dev: &mut Device, flush: Tensor, [before, after]: [Event; 2]) -> Result<f64> {
    // The launches are queued while the GPU still flushes the L2, so the time of the host does not count.
    dev.fill_zero(flush)?;
    driver(dev)?.record(before, Stream::COMPUTE)?;
    (case.run)(dev)?;
    driver(dev)?.record(after, Stream::COMPUTE)?;
    Ok(f64::from(driver(dev)?.elapsed_ms(before, after)?))
}

/// A running nvidia-smi that reads the GPU's clock.
struct Clock(Child);

impl Clock {
    /// Starts nvidia-smi. Returns `None` without it.
    fn start() -> Option<Clock> {
        let query = ["--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "--id=0"];
        let child = Command::new("nvidia-smi").args(query).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        child.ok().map(Clock)
    }

    /// True while nvidia-smi has not answered.
    fn is_asked(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    fn mhz(self) -> Option<u32> {
        let output = self.0.wait_with_output().ok()?.stdout;
        String::from_utf8(output).ok()?.trim().parse().ok()
    }
}

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    let head = format!("{:21} {:42}", text("name"), text("shape"));
    let Some(ms) = row["ours_ms"].as_f64() else { return format!("{head} skipped: {}\n", text("skipped")) };
    let number = |key: &str| row[key].as_f64().unwrap_or_default();
    let (tflops, gigabytes) = (number("flops") / ms / 1e9, number("bytes") / ms / 1e6);
    let tokens = row["tokens_per_sec"].as_f64().map_or_else(String::new, |t| format!("  {t:.0} tokens/s"));
    let predicted = row["predicted_ms"].as_f64().map_or_else(String::new, |ms| format!("{ms:9.3} ({})", text("bound")));
    let [min, clock] = ["min_ms", "clock_mhz"].map(number);
    format!("{head} {ms:9.3} {min:9.3} {tflops:9.1} {gigabytes:9.1} {clock:8.0} {predicted}{tokens}\n")
}

#[cfg(test)]
mod tests {
    use super::super::jobs::{Decoding, JobModel, decode};
    use super::*;
    use crate::device::images::OWN;
    use crate::plan;

    /// Every op and job at the shapes of a GPU must have a prediction that is not faster than its arithmetic or memory
    /// traffic.
    #[test]
    fn no_prediction_is_below_the_floor() {
        let mut makes: Vec<Make> = ops::cases(Kind::Cuda, DType::Bf16).into_iter().map(|(_, make)| make).collect();
        for (sequences, keys) in [(1, 28_672), (64, 1536)] {
            let of = Decoding { sequences, keys, steps: Some(4) };
            let model = JobModel { shape: ModelShape::B7, lora_rank: None, quantization: None };
            makes.push(Box::new(move |dev| decode(dev, DType::Bf16, model, of)));
        }
        let published = Path::new(env!("OMR_ROOT")).join("configs/openmmreasoner-7b");
        let rows = plan::Rows { row_tokens: Some(4096), image_tokens: Some(1024), ..plan::Rows::default() };
        let values = ["packing_length=16384", "micro_batch_tokens=16384"].map(str::to_owned);
        makes.extend(configs::cases(&published.join("sft.yaml"), &values, &rows, Kind::Cuda, None).unwrap());
        let ceilings = Gpu::H200.ceilings();
        for make in makes {
            let Case { name, shape, flops, bytes, .. } = make(&mut Device::count_for(Target::gpu(Kind::Cuda))).unwrap();
            let (seconds, bound) = predicted(&make, Gpu::H200, KernelVariant::Wgmma, 1500.0).unwrap().unwrap();
            let Range { low, likely: ms, high } = 1e3 * seconds;
            let floor = 1e3 * (bytes / ceilings.bytes).max(flops / ceilings.flops);
            println!("{name:21} {shape:42} {low:9.3} {ms:9.3} {high:9.3} {bound:10} {floor:9.3}");
            assert!(ms > 0.97 * floor, "{name} {shape}: {ms} of {floor}");
            // A window of 64 patches has one step, so most of its time is that of a tile without products, which the model
            // knows only as 3,000 to 5,200 clocks (TILE in device/perf_model.rs), a range of 1.74.
            let widest = if shape.starts_with("256 x 64,") { 1.74 } else { 1.35 };
            assert!(low < ms && ms < high && high < widest * low, "{name} {shape}: {low} to {high}");
        }
    }

    /// An H100 reads its memory at 3.35 TB/s and an H200 at 4.8. Predictions must be those of the GPU that was measured,
    /// and a GPU of the same family with unknown rates must have none.
    #[test]
    fn a_prediction_is_of_the_gpu_that_was_measured() {
        let mut cases = ops::cases(Kind::Cuda, DType::Bf16).into_iter();
        let (_, make) = cases.find(|(op, _)| op.starts_with("adamw")).unwrap();
        let likely = |name: &str| {
            let gpu = Gpu::with_predictions(name)?;
            Some(predicted(&make, gpu, KernelVariant::Wgmma, 1500.0).unwrap().unwrap().0.likely)
        };
        let ratio = likely("NVIDIA H100 80GB HBM3").unwrap() / likely("NVIDIA H200").unwrap();
        assert!((ratio - 4.8 / 3.35).abs() < 0.02, "{ratio}");
        assert!(["NVIDIA H100 PCIe", "NVIDIA GH200 480GB", "emu"].into_iter().all(|name| likely(name).is_none()));
    }

    /// The cases of a GPU must be countable, and their names and shapes must differ.
    #[test]
    fn the_cases_of_a_gpu_can_be_counted() {
        let mut seen = std::collections::HashSet::new();
        for (op, make) in ops::cases(Kind::Emu, DType::Bf16) {
            let mut dev = Device::count_for(Target::gpu(Kind::Emu));
            let mut case = make(&mut dev).unwrap();
            (case.run)(&mut dev).unwrap();
            assert!(case.name.starts_with(op) && case.bytes > 0.0, "{}", case.name);
            assert!(seen.insert((case.name, case.shape.clone())), "{} {} twice", case.name, case.shape);
        }
        assert!(seen.len() > 25);
        // Each benchmark named in the head of a kernel file must exist.
        for (path, text) in OWN.sources.iter().filter(|(path, _)| path.ends_with(".cu")) {
            for line in text.lines().take_while(|line| line.starts_with("//")) {
                let Some((_, name)) = line.rsplit_once("bench") else { continue };
                let name = name.trim_matches(|c: char| !c.is_alphanumeric());
                assert!(name == OPS || seen.iter().any(|(case, _)| case.starts_with(name)), "{path}: bench {name}");
            }
        }
    }
}
