//! A benchmark case, and the measurement of its repetitions.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use omr_base::error::Result;
use omr_runtime::device::Device;
use omr_runtime::tensor::DType;
use omr_train::plan::Pages;

/// Runs one repetition.
pub type Repetition = Box<dyn FnMut(&mut Device) -> Result<()>>;

/// A benchmark case.
pub struct Case {
    pub name: &'static str,
    pub shape: String,
    pub dtype: &'static str,
    /// Number of additions and multiplications.
    pub flops: f64,
    /// Bytes that must be read and written at least once.
    pub bytes: f64,
    /// Amount of work, if the case is a whole job.
    pub job: Option<JobSize>,
    /// Runs one repetition.
    pub run: Repetition,
}

/// Makes the case of an op from its additions and multiplications, its bytes moved, and one repetition.
pub fn op(
    name: &'static str,
    dtype: DType,
    shape: String,
    flops: f64,
    bytes: f64,
    mut run: impl FnMut(&mut Device) -> Result<()> + 'static,
) -> Result<Case> {
    // Predictions use this record for ops that do not record their own work, such as a rotation on its own.
    let run = move |dev: &mut Device| -> Result<()> {
        dev.note_work(name, flops, bytes);
        run(dev)
    };
    Ok(Case { name, shape, dtype: label(dtype), flops, bytes, job: None, run: Box::new(run) })
}

/// Makes the case of the product of rows with a weight. `of` is `[rows, n, k]`, and the weight is `[n, k]`.
pub fn product(
    name: &'static str,
    dtype: DType,
    of: [usize; 3],
    bytes: f64,
    run: impl FnMut(&mut Device) -> Result<()> + 'static,
) -> Result<Case> {
    let (shape, flops) = rows_by_weight(of);
    op(name, dtype, shape, flops, bytes, run)
}

/// Returns the shape of a product of rows with a weight as text, and its additions and multiplications.
pub fn rows_by_weight([rows, n, k]: [usize; 3]) -> (String, f64) {
    (format!("[{rows}, {k}] x [{n}, {k}]"), 2.0 * (rows * n * k) as f64)
}

/// Returns the name of an element type.
pub fn label(dtype: DType) -> &'static str {
    if dtype == DType::Bf16 { "bf16" } else { "f32" }
}

/// Makes a case in a device's memory.
pub type Make = Box<dyn Fn(&mut Device) -> Result<Case>>;

/// Size of a whole job.
#[derive(Clone, Copy)]
pub struct JobSize {
    /// Number of parameters of the model.
    pub parameters: usize,
    /// Number of tokens trained on or generated in a repetition.
    pub tokens: usize,
    /// Keys and values that a launch of paged attention reads. `None` if they change too much during the job.
    pub pages: Option<Pages>,
}

impl JobSize {
    /// Adds the size to a case's row of results, with the tokens per second if a repetition takes `seconds`.
    pub fn write(&self, row: &mut Value, seconds: f64) {
        row["parameters"] = self.parameters.into();
        if self.tokens > 0 {
            row["tokens"] = self.tokens.into();
            row["tokens_per_sec"] = (self.tokens as f64 / seconds).into();
        }
    }
}

/// Seconds of the repetitions.
pub struct Times {
    pub min: f64,
    pub median: f64,
    pub max: f64,
    /// Mean CPU time of a repetition over all threads, including the time they wait for each other.
    pub cpu: f64,
    pub repetitions: usize,
}

impl Times {
    /// Summarises the times of at least one repetition. `cpu` is 0 if it is not measured.
    pub fn of(mut times: Vec<f64>, cpu: f64) -> Times {
        times.sort_by(f64::total_cmp);
        let repetitions = times.len();
        Times { min: times[0], median: times[repetitions / 2], max: times[repetitions - 1], cpu, repetitions }
    }
}

/// Memory for measurements, in bytes. Only pages that a case touches are mapped.
pub const MEMORY: usize = 3 << 30;

/// Measures a case: one repetition to warm up, then at least five.
pub fn measure(case: &mut Case, dev: &mut Device, seconds: f64) -> Result<Times> {
    (case.run)(dev)?;
    let (begun, cpu_before) = (Instant::now(), cpu_seconds());
    let mut times = Vec::new();
    while times.len() < 5 || begun.elapsed().as_secs_f64() < seconds {
        let at = Instant::now();
        (case.run)(dev)?;
        times.push(at.elapsed().as_secs_f64());
    }
    let cpu = (cpu_seconds() - cpu_before) / times.len() as f64;
    Ok(Times::of(times, cpu))
}

/// Returns the CPU seconds of all threads of this process, including ended ones.
pub fn cpu_seconds() -> f64 {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).map_or(f64::NAN, |time| time.as_secs_f64())
}
