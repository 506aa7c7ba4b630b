//! `omr doctor`: what works on this machine, and what to do about what does not.

use std::path::{Path, PathBuf};

use super::Context;
use super::progress::bytes;
use crate::device::Isa;
use crate::error::Result;

/// Arguments of `omr doctor`.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the findings to stdout.
pub fn run(_: &Args, context: &Context) -> Result<()> {
    let mut out =
        vec![format!("omr {} ({}, {})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS)];
    out.push(processor());
    out.push(bodies());
    out.push(threads(context.threads()));
    out.push(memory());
    out.push(line("devices", "cpu", "the only one built in: no GPU is looked for or used"));
    out.push(writable("temporary files", &std::env::temp_dir(), "set TMPDIR to a folder you may write to"));
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    out.push(writable("working folder", &here, "give --out a folder you may write to"));
    super::print(&format!("{}\n", out.join("\n")))
}

fn line(what: &str, found: &str, remark: &str) -> String {
    let remark = if remark.is_empty() { String::new() } else { format!(": {remark}") };
    format!("{what:16} {found}{remark}")
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| info.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_once(':'));
    let name = field("model name").or(field("Model")).map_or("unknown", |(_, value)| value.trim());
    line("processor", name, "")
}

fn bodies() -> String {
    let isa = Isa::detect();
    let runnable: Vec<_> =
        [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.available()).map(Isa::name).collect();
    let bf16 = if isa.has_bf16_dot() { "with bf16 products (vdpbf16ps)" } else { "bf16 widened to f32" };
    line("kernel bodies", isa.name(), &format!("{bf16}; this machine can run {}", runnable.join(", ")))
}

fn threads(threads: usize) -> String {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let remark = match threads.cmp(&available) {
        std::cmp::Ordering::Greater => {
            format!("more than the {available} processors this process may use: lower --threads")
        }
        _ => format!("of {available} processors this process may use"),
    };
    line("threads", &threads.to_string(), &remark)
}

/// Bytes this process may still take, and its limit where one is set below the machine's memory; none where the
/// system does not say.
pub(super) fn free_memory() -> Option<(u64, Option<u64>)> {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let value = info.lines().find(|l| l.starts_with(name))?.split_whitespace().nth(1)?;
        value.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let available = field("MemAvailable:")?;
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    let limit = limit.filter(|limit| field("MemTotal:").is_some_and(|total| *limit < total));
    Some((limit.map_or(available, |limit| limit.min(available)), limit))
}

fn memory() -> String {
    let Some((free, limit)) = free_memory() else {
        return line("memory", "unknown", "");
    };
    let mut remark = "the digits recipe needs about 1 GiB".to_owned();
    if let Some(limit) = limit {
        remark = format!("this process is limited to {}; {remark}", bytes(limit));
    }
    line("memory", &format!("{} free", bytes(free)), &remark)
}

fn writable(what: &str, dir: &Path, cure: &str) -> String {
    let shown = dir.display().to_string();
    match tempfile::tempfile_in(dir) {
        Ok(_) => line(what, &shown, "writable"),
        Err(error) => line(what, &shown, &format!("NOT writable ({error}): {cure}")),
    }
}
