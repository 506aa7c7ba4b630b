//! Benchmark of data loading on the CPU: first, rows are indexed, and files with slow access to single rows are copied.
//! Then images are decoded, resized and cut into patches in a shuffled order, as in training.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::case::cpu_seconds;
use super::options::Options;
use omr_base::config::ImageConfig;
use omr_base::error::{Error, Result};
use omr_base::observe::Silent;
use omr_base::philox::{self, Purpose};
use omr_data::rows::index::indexing::Longest;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Dataset, Encoder, Loader, read};
use omr_model::nn::ModelConfig;
use omr_runtime::machine::Machine;

/// Name of this benchmark in `omr bench`.
pub const NAME: &str = "loading";

/// Number of rows per group, and number of groups that are made ahead. Both numbers are close to those of an SFT step.
const GROUP: usize = 16;
const AHEAD: usize = 2;

/// Results of one part.
struct Part {
    name: &'static str,
    seconds: f64,
    cpu: f64,
}

/// Runs the benchmark and returns a table. It reads all rows of `--data` twice, with the tokenizer and the image
/// processor of `--model`.
pub fn run(options: &Options, machine: &Machine) -> Result<String> {
    fn given<'a>(path: &'a Option<PathBuf>, flag: &str) -> Result<&'a Path> {
        path.as_deref()
            .ok_or_else(|| Error::input("omr bench loading", format!("no {flag}"), "--model DIR --data FILE"))
    }
    let (model, data) = (given(&options.model, "--model")?, given(&options.data, "--data")?);
    let threads = machine.threads;
    let config = ModelConfig::load(&model.join("config.json"))?.chat();
    let encoder = Encoder::load(model, &config, EncodingPurpose::Train, &ImageConfig::default())?;
    let longest = Longest { tokens: usize::MAX, key: "packing_length" };
    let entries = [read::entry(data)];
    let dir = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let (opened, indexing) = timed("indexing", || {
        let opened = Dataset::open(dir.path(), &entries, &encoder, longest, 1.0, 0, true)?;
        opened.keep(&Silent).map(|()| opened)
    })?;
    let rows = opened.index.len();
    let (images, tokens) = opened.index.shapes().fold((0, 0), |(p, t), s| (p + s.grids.len(), t + s.tokens));
    let mut order: Vec<usize> = (0..rows).collect();
    philox::shuffle(0, Purpose::Shuffle, 0, &mut order);
    let samples = Arc::new(opened.samples(move |row| encoder.sample(&row)));
    let ((), loading) = timed("loading", || {
        let groups: Vec<Result<Vec<usize>>> = order.chunks(GROUP).map(|group| Ok(group.to_vec())).collect();
        let mut loader = Loader::new(samples, Box::new(groups.into_iter()), threads, AHEAD)?;
        while loader.next_group()?.is_some() {}
        Ok(())
    })?;
    let bytes = std::fs::metadata(data).map_err(Error::io(data))?.len();
    let mut out = format!(
        "{rows} rows, {tokens} tokens, {images} images, {} KB of rows, {threads} thread(s)\n\n\
         part          rows/s     cpu ms/row      MB/s of rows\n",
        bytes / 1000
    );
    for Part { name, seconds, cpu } in [&indexing, &loading] {
        let (speed, cpu_ms, megabytes) = (rows as f64 / seconds, cpu / rows as f64 * 1e3, bytes as f64 / seconds / 1e6);
        out += &format!("{name:10} {speed:9.0} {cpu_ms:14.3} {megabytes:17.1}\n");
    }
    let part = |part: &Part| json!({"seconds": part.seconds, "cpu_seconds": part.cpu});
    options.write(&json!({
        "version": env!("CARGO_PKG_VERSION"), "threads": threads, "rows": rows, "tokens": tokens, "pictures": images,
        "bytes": bytes, "indexing": part(&indexing), "loading": part(&loading),
    }))?;
    Ok(out)
}

fn timed<T>(name: &'static str, body: impl FnOnce() -> Result<T>) -> Result<(T, Part)> {
    let (begun, before) = (Instant::now(), cpu_seconds());
    let value = body()?;
    Ok((value, Part { name, seconds: begun.elapsed().as_secs_f64(), cpu: cpu_seconds() - before }))
}
