//! `omr bench`: how long ops and whole jobs take on this machine, beside the least time its arithmetic and memory allow.

mod decode;
mod jobs;
mod ops;
// `cpu_kernel!` dispatches through an unsafe call of its own.
#[allow(unsafe_code)]
mod peaks;

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use self::peaks::Peaks;
use super::Context;
use crate::config;
use crate::data::whole;
use crate::device::{Device, Plan};
use crate::error::{Error, Result};

/// Arguments of `omr bench`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure, by the first part of its name; everything when left out
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds to measure each for, at least
    #[arg(long, default_value_t = 0.3, value_name = "S")]
    seconds: f64,
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
    run: Work,
}

/// Memory to measure in; only what a case touches is ever mapped in.
const MEMORY: usize = 3 << 30;

/// Measures and prints a table to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let wanted = choose(&args.names)?;
    context.say(&format!(
        "measuring {} for {} s or more each, median of repetitions, data where the last repetition left it",
        wanted.join(", "),
        args.seconds
    ));
    let mut dev = context.device(&Plan::uniform(MEMORY))?;
    let peaks = Peaks::measure(&mut dev)?;
    let mut out = format!(
        "{} thread(s), {} bodies; ceilings: f32 {:.0} GFLOP/s, bf16 {:.0} GFLOP/s, memory {:.1} GB/s\n\n{}\n",
        dev.threads(),
        dev.isa().name(),
        peaks.f32_flops / 1e9,
        peaks.bf16_flops / 1e9,
        peaks.bytes / 1e9,
        "name                  shape                         dtype        ms   GFLOP/s      GB/s  of ceiling"
    );
    let mut rows = Vec::new();
    for name in wanted {
        for make in ops::cases(name) {
            let marks = crate::device::Region::ALL.map(|region| dev.mark(region));
            let mut case = make(&mut dev)?;
            let seconds = median(&mut case, &mut dev, args.seconds)?;
            marks.into_iter().for_each(|mark| dev.release(mark));
            let ceiling = (case.flops / peaks.flops(case.dtype)).max(case.bytes / peaks.bytes);
            let share = ceiling / seconds;
            out.push_str(&format!(
                "{:21} {:29} {:5} {:9.3} {:9.1} {:9.1} {:9.0} %\n",
                case.name,
                case.shape,
                case.dtype,
                seconds * 1e3,
                case.flops / seconds / 1e9,
                case.bytes / seconds / 1e9,
                share * 100.0
            ));
            rows.push(json!({"name": case.name, "shape": case.shape, "dtype": case.dtype, "ours_ms": seconds * 1e3,
                "flops": case.flops, "bytes": case.bytes, "ceiling_ms": ceiling * 1e3, "of_ceiling": share}));
        }
    }
    if let Some(file) = &args.json {
        whole::write(file, record(&dev, &peaks, rows).to_string().as_bytes())?;
    }
    super::print(&out)
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
            let expected = format!("one of {}", ops::NAMES.join(", "));
            return Err(match config::nearest(name, ops::NAMES.iter().copied()) {
                Some(near) => Error::input_hint("omr bench", name, expected, format!("did you mean {near}?")),
                None => Error::input("omr bench", name, expected),
            });
        }
        out.extend(found);
    }
    Ok(out)
}

fn median(case: &mut Case, dev: &mut Device, seconds: f64) -> Result<f64> {
    (case.run)(dev)?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || begun.elapsed().as_secs_f64() < seconds {
        let at = Instant::now();
        (case.run)(dev)?;
        times.push(at.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
