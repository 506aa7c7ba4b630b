//! `omr bench`: how long ops and whole jobs take on this machine, beside the least time its arithmetic and memory allow.

mod configs;
mod decode;
mod emu;
mod gpu;
mod gpu_ops;
mod inputs;
mod jobs;
mod loading;
mod ops;
mod parity;
// `cpu_kernel!` dispatches through an unsafe call of its own.
#[allow(unsafe_code)]
mod peaks;

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use self::jobs::Shape;
use self::peaks::Peaks;
use super::{Context, doctor};
use crate::config;
use crate::device::{Device, Plan, Region, Target};
use crate::error::{Error, Result};
use crate::files;
use crate::observe::bytes;
use crate::plan;
use crate::tensor::DType;

/// Arguments of `omr bench`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure, by the first part of its name; all ops and jobs of the CPU when left out. `emu` alone is the
    /// emulator's own speed, `loading` alone how fast the rows of --data become samples. With --device cuda or emu: ops
    /// (all of them, also when left out), one op's name and the first part of its shape, train-step, generate, decode,
    /// parity (that rollouts have the trainer's log-probs, to the bit, with drafts and without), or a config of `omr sft` or
    /// `omr rl` and its KEY=VALUEs: the largest pass and the update that `omr plan` predicts of it
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Model of jobs; digits and 22m when left out, on a card 7b
    #[arg(long, value_enum, value_name = "SHAPE")]
    model_shape: Option<Shape>,
    /// Of decode on a card: sequences
    #[arg(long, default_value_t = 256, value_name = "N")]
    batch_size: usize,
    /// Of decode on a card: keys of each
    #[arg(long, default_value_t = 1536, value_name = "N")]
    input_len: usize,
    #[command(flatten)]
    rows: plan::Rows,
    /// Element type of weights and activations; both when left out
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<Dtype>,
    /// Of loading: the model whose tokenizer and image processor are used
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Of loading: rows to train on
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds to measure each for, at least
    #[arg(long, default_value_t = 0.3, value_name = "S")]
    seconds: f64,
}

/// An element type to measure with.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    F32,
    Bf16,
}

impl Args {
    fn dtypes(&self) -> Vec<DType> {
        match self.dtype {
            Some(Dtype::F32) => vec![DType::F32],
            Some(Dtype::Bf16) => vec![DType::Bf16],
            None => vec![DType::F32, DType::Bf16],
        }
    }

    fn shapes(&self) -> Vec<Shape> {
        self.model_shape.map_or_else(|| vec![Shape::Digits, Shape::M22], |shape| vec![shape])
    }
}

/// One repetition.
type Work = Box<dyn FnMut(&mut Device) -> Result<()>>;

/// One thing to measure.
struct Case {
    name: &'static str,
    shape: String,
    dtype: &'static str,
    /// Additions and multiplications.
    flops: f64,
    /// Bytes that must be read and written at least once.
    bytes: f64,
    /// What a job works on.
    job: Option<Job>,
    run: Work,
}

/// The size of a whole job.
#[derive(Clone, Copy)]
struct Job {
    /// Parameters of the model.
    parameters: usize,
    /// Tokens trained on or written in a repetition.
    tokens: usize,
    /// Bytes of keys and values that a launch of attention over pages reads; none where they grow too much to say.
    pages: Option<f64>,
}

/// Seconds of the repetitions.
struct Times {
    min: f64,
    median: f64,
    max: f64,
    /// Of all threads, a repetition's mean, waiting for one another included; none where the system does not say.
    cpu: Option<f64>,
    repetitions: usize,
}

/// Memory to measure in; only what a case touches is ever mapped in.
const MEMORY: usize = 3 << 30;

/// Measures and prints a table to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    if args.names == [emu::NAME] {
        return emu::run(args, context);
    }
    if args.names == [loading::NAME] {
        return loading::run(args, context);
    }
    if context.kind().is_gpu() {
        return gpu::run(args, context);
    }
    let wanted = choose(&args.names)?;
    context.say(&format!(
        "measuring {} for {} s or more each, median of repetitions, data where the last repetition left it",
        wanted.join(", "),
        args.seconds
    ));
    let cases: Vec<_> = wanted.iter().flat_map(|name| ops::cases(name, &args.dtypes(), &args.shapes())).collect();
    let mut plan = Plan::uniform(MEMORY);
    for make in cases.iter().filter(|make| make.counted) {
        plan = plan.max(&count(&make.case, context.threads())?);
    }
    let mut dev = context.device(&plan)?;
    let peaks = Peaks::measure(&mut dev)?;
    let mut out = format!(
        "{} thread(s), {} bodies; ceilings: f32 {:.0} GFLOP/s, bf16 {:.0} GFLOP/s, memory {:.1} GB/s\n\n{}\n",
        dev.threads(),
        dev.isa().name(),
        peaks.f32_flops / 1e9,
        peaks.bf16_flops / 1e9,
        peaks.bytes / 1e9,
        "name                  shape                         dtype        ms       min       max   GFLOP/s      GB/s  \
         of ceiling  tokens/s"
    );
    let mut rows = Vec::new();
    for make in cases {
        let marks = Region::ALL.map(|region| dev.mark(region));
        let mut case = (make.case)(&mut dev)?;
        let times = measure(&mut case, &mut dev, args.seconds)?;
        marks.into_iter().for_each(|mark| dev.release(mark));
        let ceiling = (case.flops / peaks.flops(case.dtype)).max(case.bytes / peaks.bytes);
        out.push_str(&line(&case, &times, ceiling));
        rows.push(row(&case, &times, ceiling));
    }
    if let Some(file) = &args.json {
        files::write(file, record(&dev, &peaks, rows).to_string().as_bytes())?;
    }
    super::print(&out)
}

/// Bytes a case needs, counted; errors when the machine does not have them.
fn count(case: &inputs::Make, threads: usize) -> Result<Plan> {
    let mut dev = Device::count_for(Target::cpu(threads));
    let mut case = case(&mut dev)?;
    (case.run)(&mut dev)?;
    let plan = dev.high_water();
    match doctor::free_memory() {
        Some((free, _)) if plan.total() as u64 > free => {
            let what = format!("{} of {} in {}", case.name, case.shape, case.dtype);
            let need = format!("{} for {what}", bytes(plan.total() as u64));
            Err(Error::input("memory", format!("{} free", bytes(free)), need))
        }
        _ => Ok(plan),
    }
}

fn line(case: &Case, times: &Times, ceiling: f64) -> String {
    let tokens = case.job.map_or_else(String::new, |job| format!(" {:9.0}", job.tokens as f64 / times.median));
    format!(
        "{:21} {:29} {:5} {:9.3} {:9.3} {:9.3} {:9.1} {:9.1} {:9.0} % {tokens}\n",
        case.name,
        case.shape,
        case.dtype,
        times.median * 1e3,
        times.min * 1e3,
        times.max * 1e3,
        case.flops / times.median / 1e9,
        case.bytes / times.median / 1e9,
        ceiling / times.median * 100.0
    )
}

fn row(case: &Case, times: &Times, ceiling: f64) -> Value {
    let mut row = json!({"name": case.name, "shape": case.shape, "dtype": case.dtype, "ours_ms": times.median * 1e3,
        "min_ms": times.min * 1e3, "max_ms": times.max * 1e3, "cpu_ms": times.cpu.map(|cpu| cpu * 1e3), "repetitions": times.repetitions, "flops": case.flops,
        "bytes": case.bytes, "ceiling_ms": ceiling * 1e3, "of_ceiling": ceiling / times.median});
    if let Some(Job { parameters, tokens, .. }) = case.job {
        row["parameters"] = parameters.into();
        row["tokens"] = tokens.into();
        row["tokens_per_sec"] = (tokens as f64 / times.median).into();
    }
    row
}

fn record(dev: &Device, peaks: &Peaks, rows: Vec<Value>) -> Value {
    json!({"version": env!("CARGO_PKG_VERSION"), "device": "cpu", "threads": dev.threads(), "isa": dev.isa().name(),
        "peaks": {"f32_flops": peaks.f32_flops, "bf16_flops": peaks.bf16_flops, "bytes": peaks.bytes}, "rows": rows})
}

fn choose(names: &[String]) -> Result<Vec<&'static str>> {
    if names.is_empty() {
        return Ok(ops::NAMES.to_vec());
    }
    let mut out = Vec::new();
    for name in names {
        let found: Vec<_> = ops::NAMES.iter().filter(|known| known.starts_with(name.as_str())).collect();
        if found.is_empty() {
            let expected = match name.ends_with(".yaml") {
                true => "--device cuda or emu: configs are measured where kernels run".to_owned(),
                false => format!("one of {}", ops::NAMES.join(", ")),
            };
            return Err(match config::nearest(name, ops::NAMES.iter().copied()) {
                Some(near) => Error::input_hint("omr bench", name, expected, format!("did you mean {near}?")),
                None => Error::input("omr bench", name, expected),
            });
        }
        out.extend(found);
    }
    Ok(out)
}

/// One repetition to warm up, then at least five.
fn measure(case: &mut Case, dev: &mut Device, seconds: f64) -> Result<Times> {
    (case.run)(dev)?;
    let (begun, cpu_before) = (Instant::now(), cpu_seconds());
    let mut times = Vec::new();
    while times.len() < 5 || begun.elapsed().as_secs_f64() < seconds {
        let at = Instant::now();
        (case.run)(dev)?;
        times.push(at.elapsed().as_secs_f64());
    }
    let cpu = cpu_seconds().zip(cpu_before).map(|(after, before)| (after - before) / times.len() as f64);
    times.sort_by(f64::total_cmp);
    let repetitions = times.len();
    Ok(Times { min: times[0], median: times[repetitions / 2], max: times[repetitions - 1], cpu, repetitions })
}

/// Seconds the threads of this process have run.
fn cpu_seconds() -> Option<f64> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let of = |thread: std::io::Result<std::fs::DirEntry>| -> Option<f64> {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(threads.map(of).sum::<Option<f64>>()? / 1e9)
}
