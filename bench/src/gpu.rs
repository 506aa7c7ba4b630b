//! Benchmarks of ops and whole jobs on a GPU. Each repetition is timed with events after a write that flushes the L2.
//! The emulator runs the same code on tiny shapes, and its times do not allow conclusions about a GPU.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::case::{Case, Make, Times};
use super::model_shape::ModelShape;
use super::options::Options;
use super::timing::{self, Warm};
use super::variants::variants;
use super::{configs, ops};
use omr_base::error::{Error, Result};
use omr_base::observe::bytes;
use omr_runtime::device::perf_model::Range;
use omr_runtime::device::{Device, KernelVariant, Kind, Plan, Target};
use omr_runtime::machine::Machine;
use omr_runtime::ops::attend::CHUNK;
use omr_runtime::tensor::DType;
use omr_train::plan::{self, Gpu, Launches, Pages};

/// Name that selects all ops.
const OPS: &str = "ops";
/// Name of the check that both kernel variants agree. If they differ, or if the sampler's log-probs differ from the
/// trainer's in the case `parity`, the command fails.
const VARIANTS: &str = "variants";

/// Runs the benchmarks and returns a table. The JSON file is rewritten with the results so far after each case.
pub fn run(options: &Options, machine: &Machine) -> Result<String> {
    let kind = machine.target.kind;
    let mut out = format!(
        "{:21} {:42} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}\n",
        "name", "shape", "ms", "burst", "sustained", "TFLOP/s", "GB/s", "MHz", "predicted"
    );
    let mut rows = Vec::new();
    let candidate = options.candidate()?.map(|candidate| candidate.name);
    let with_candidate = |make: Make| -> Make {
        Box::new(move |dev| {
            dev.use_candidate(candidate);
            make(dev)
        })
    };
    let chosen: Vec<Make> = chosen(options, machine.target)?.into_iter().map(with_candidate).collect();
    // A missing device gives one error here, instead of one row per case.
    drop((machine.device)(&Plan::default())?);
    if options.turns {
        return turns(&chosen, options, machine).map(|()| String::new());
    }
    for make in chosen {
        let row = measured(&make, options, machine)?;
        out.push_str(&line(&row));
        machine.observer.note(line(&row).trim_end());
        rows.push(row);
        options.write(&json!({"version": env!("CARGO_PKG_VERSION"), "device": kind.name(), "rows": rows}))?;
    }
    Ok(out)
}

/// Returns the requested cases. Returns an error for an unknown name.
fn chosen(options: &Options, target: Target) -> Result<Vec<Make>> {
    let (kind, scale) = (target.kind, options.scale()?);
    let (values, mut names): (Vec<String>, Vec<String>) = options.names.iter().cloned().partition(|n| n.contains('='));
    if names.is_empty() {
        names.push(OPS.to_owned());
    }
    let mut out: Vec<Make> = Vec::new();
    for name in names {
        let begin = out.len();
        let shape = options.model_shape.unwrap_or(if kind == Kind::Cuda { ModelShape::B7 } else { ModelShape::Digits });
        let jobs = options.jobs(&name, target, DType::Bf16, shape, timing::RESERVED)?;
        match name.as_str() {
            _ if !jobs.is_empty() => out.extend(jobs),
            VARIANTS => out.push(Box::new(variants)),
            file if [".yaml", ".yml"].iter().any(|end| file.ends_with(end)) => {
                let memory = target.memory.map(|memory| memory.saturating_sub(timing::RESERVED));
                out.extend(configs::cases(Path::new(file), &values, &options.rows, kind, memory)?);
            }
            name => {
                // The shape is known only after a case is made, so cases are made here only if the name contains a
                // shape.
                let whole = |make: &Make| -> Result<bool> {
                    let Case { name: op, shape, .. } = make(&mut Device::count_for(target))?;
                    Ok(format!("{op} {shape}").starts_with(name))
                };
                for (op, make) in ops::cases(kind, DType::Bf16, scale) {
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

/// Predicts the seconds of a case on `gpu` with the clock that plans assume, and the limiting resource. Returns `None` for a
/// copy, and for a job that does not state how many bytes of keys and values its attention reads.
fn predicted(make: &Make, gpu: Gpu, variant: KernelVariant) -> Result<Option<(Range, &'static str)>> {
    let launches = Launches::new(gpu.ceilings(), 1e6 * plan::H200.clock);
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
    Ok((seconds.likely > 0.0).then_some((seconds, bound)))
}

/// Serves the cases in order. A line of JSON says that a case is ready, or why it is left out. Then each line `turn` of
/// stdin measures repetitions without a pause and writes one line of JSON, so that another program can work in between.
/// The line `next` goes to the following case. The end of the input ends the command.
fn turns(chosen: &[Make], options: &Options, machine: &Machine) -> Result<()> {
    let mut lines = std::io::stdin().lines();
    let write = |row: &Value| writeln!(std::io::stdout(), "{row}").map_err(Error::io("standard output"));
    for make in chosen {
        let (case, plan) = planned(make, options, machine.target)?;
        let mut warm = plan.map(|plan| Warm::new(make, &plan, machine)).transpose()?;
        let mut row = json!({"name": case["name"], "shape": case["shape"]});
        let (name, shape, skipped) = (&case["name"], &case["shape"], &case["skipped"]);
        write(&json!({"ready": warm.is_some(), "name": name, "shape": shape, "skipped": skipped}))?;
        while let Some(warm) = &mut warm {
            match lines.next().transpose().map_err(Error::io("standard input"))?.as_deref().map(str::trim) {
                Some("turn") => warm.measure(&mut row, "median_ms", false, 1, options.seconds)?,
                Some("next") => break,
                Some(other) => return Err(Error::input("omr bench --turns", other, "turn or next")),
                None => return Ok(()),
            }
            write(&row)?;
        }
    }
    Ok(())
}

/// Counts the memory of a case. Returns the row of its result, and its memory plan. Without a plan, the row contains the
/// reason why the case cannot be measured.
fn planned(make: &Make, options: &Options, target: Target) -> Result<(Value, Option<Plan>)> {
    let mut counting = Device::count_for(target);
    let mut case = make(&mut counting)?;
    let data = if options.scale()? == 0.0 { "zeros" } else { "normal" };
    if case.job.is_some() && data == "zeros" {
        return Err(Error::input("omr bench --data zeros", case.name, "an op"));
    }
    let mut row = json!({"name": case.name, "shape": case.shape, "dtype": case.dtype, "flops": case.flops,
        "bytes": case.bytes, "data": data});
    timing::reserve(&mut counting)?;
    if let Err(error) = (case.run)(&mut counting) {
        row["skipped"] = error.to_string().into();
        return Ok((row, None));
    }
    let plan = counting.high_water();
    row["memory"] = plan.total().into();
    if let Some(memory) = target.memory.filter(|&memory| plan.total() > memory) {
        row["skipped"] = format!("takes {} of {}", bytes(plan.total() as u64), bytes(memory as u64)).into();
        return Ok((row, None));
    }
    Ok((row, Some(plan)))
}

/// Measures one case on a new device. If the case has no kernel or needs too much memory, the row contains the reason
/// instead of times.
fn measured(make: &Make, options: &Options, machine: &Machine) -> Result<Value> {
    let (mut row, plan) = planned(make, options, machine.target)?;
    let Some(plan) = plan else { return Ok(row) };
    match timed(make, &plan, options.seconds, machine, &mut row) {
        Err(error) if ["parity", VARIANTS].iter().any(|check| row["name"] == *check) => return Err(error),
        Err(error) => row["skipped"] = error.to_string().into(),
        Ok(()) => {}
    }
    Ok(row)
}

/// Adds the times of a case to its row, and the prediction.
fn timed(make: &Make, plan: &Plan, seconds: f64, machine: &Machine, row: &mut Value) -> Result<()> {
    let mut warm = Warm::new(make, plan, machine)?;
    let (job, variant) = (warm.case.job, warm.dev.variant());
    // Repetitions of a job take seconds.
    warm.measure(row, "ours_ms", true, if job.is_some() { 3 } else { 5 }, seconds)?;
    let name = warm.dev.driver().map(|driver| driver.properties().name.clone()).unwrap_or_default();
    row["runs_by"] = variant.map(KernelVariant::name).into();
    let gpu = Gpu::with_predictions(&name);
    row["gpu"] = name.into();
    let sheet = gpu.map(Gpu::data_sheet);
    row["peak_flops"] = sheet.map(|sheet| sheet.flops).into();
    row["peak_bytes"] = sheet.map(|sheet| sheet.bytes).into();
    if let Some((gpu, variant)) = gpu.zip(variant)
        && let Some((seconds, bound)) = predicted(make, gpu, variant)?
    {
        let Range { low, likely, high } = 1e3 * seconds;
        row["predicted_ms"] = likely.into();
        row["predicted_range_ms"] = vec![low, high].into();
        row["predicted_clock"] = "assumed".into();
        row["bound"] = bound.into();
    }
    job.iter().for_each(|job| job.write(row, row["ours_ms"].as_f64().unwrap_or_default() / 1e3));
    Ok(())
}

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    let head = format!("{:21} {:42}", text("name"), text("shape"));
    let Some(ms) = row["ours_ms"].as_f64() else { return format!("{head} skipped: {}\n", text("skipped")) };
    let number = |key: &str| row[key].as_f64().unwrap_or_default();
    let (tflops, gigabytes) = (number("flops") / ms / 1e9, number("bytes") / ms / 1e6);
    let tokens = row["tokens_per_sec"].as_f64().map_or_else(String::new, |t| format!("  {t:.0} tokens/s"));
    let (bound, source) = (text("bound"), text("predicted_clock"));
    let predicted =
        row["predicted_ms"].as_f64().map_or_else(String::new, |ms| format!("{ms:9.3} ({bound}, clock {source})"));
    let times =
        |key: &str| Times::of(row[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect(), 0.0);
    let [burst, sustained, clock] = [times("first_ms").min, times("last_ms").median, number("clock_mhz")];
    format!(
        "{head} {ms:9.3} {burst:9.3} {sustained:9.3} {tflops:9.1} {gigabytes:9.1} {clock:8.0} {predicted}{tokens}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::jobs::{Decoding, JobModel, decode};
    use super::*;
    use omr_runtime::device::images::OWN;
    use omr_train::plan;

    /// Every op and job at the shapes of a GPU must have a prediction that is not faster than its arithmetic or memory
    /// traffic.
    #[test]
    fn no_prediction_is_below_the_floor() {
        let mut makes: Vec<Make> = ops::cases(Kind::Cuda, DType::Bf16, 1.0).into_iter().map(|(_, make)| make).collect();
        for (sequences, keys) in [(1, 28_672), (64, 1536)] {
            let of = Decoding { sequences, keys, steps: Some(4) };
            let model = JobModel { shape: ModelShape::B7, lora_rank: None, quantization: None };
            makes.push(Box::new(move |dev| decode(dev, DType::Bf16, model, of)));
        }
        let published = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join("configs/openmmreasoner-7b");
        let rows = plan::Rows { row_tokens: Some(4096), image_tokens: Some(1024), ..plan::Rows::default() };
        let values = ["packing_length=16384", "micro_batch_tokens=16384"].map(str::to_owned);
        makes.extend(configs::cases(&published.join("sft.yaml"), &values, &rows, Kind::Cuda, None).unwrap());
        let ceilings = Gpu::H200.ceilings();
        for make in makes {
            let Case { name, shape, flops, bytes, .. } = make(&mut Device::count_for(Target::gpu(Kind::Cuda))).unwrap();
            let Some((seconds, bound)) = predicted(&make, Gpu::H200, KernelVariant::Wgmma).unwrap() else {
                assert_eq!(name, "copy");
                continue;
            };
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
        let mut cases = ops::cases(Kind::Cuda, DType::Bf16, 1.0).into_iter();
        let (_, make) = cases.find(|(op, _)| op.starts_with("adamw")).unwrap();
        let likely = |name: &str| {
            let gpu = Gpu::with_predictions(name)?;
            Some(predicted(&make, gpu, KernelVariant::Wgmma).unwrap().unwrap().0.likely)
        };
        let ratio = likely("NVIDIA H100 80GB HBM3").unwrap() / likely("NVIDIA H200").unwrap();
        assert!((ratio - 4.8 / 3.35).abs() < 0.02, "{ratio}");
        assert!(["NVIDIA H100 PCIe", "NVIDIA GH200 480GB", "emu"].into_iter().all(|name| likely(name).is_none()));
    }

    /// The cases of a GPU must be countable, and their names and shapes must differ.
    #[test]
    fn the_cases_of_a_gpu_can_be_counted() {
        let mut seen = std::collections::HashSet::new();
        for (op, make) in ops::cases(Kind::Emu, DType::Bf16, 1.0) {
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
