//! What a job needs of the machine that it runs on, as whoever starts the job gives it.

#![forbid(unsafe_code)]

use tokio::runtime::Handle;

use crate::device::{Device, Plan, Target};
use crate::error::Result;
use crate::observe::Observer;

/// The machine as a job sees it.
pub struct Machine<'a> {
    /// The device that plans are made for.
    pub target: Target,
    /// Compute threads.
    pub threads: usize,
    /// Where the job computes, in words for people.
    pub place: String,
    /// Makes a device with a plan's memory and no more.
    pub device: &'a dyn Fn(&Plan) -> Result<Device>,
    /// Returns the one asynchronous runtime, for teachers, judges and servers.
    pub runtime: &'a dyn Fn() -> Result<Handle>,
    /// Receives progress and notes, and asks the job to stop.
    pub observer: &'a dyn Observer,
}

/// Memory that this process may still take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeMemory {
    /// Bytes.
    pub bytes: u64,
    /// The limit of this process in bytes, where one is set below the machine's memory.
    pub limit: Option<u64>,
}

impl FreeMemory {
    /// Reads it from the system; `None` where the system does not say.
    pub fn read() -> Option<FreeMemory> {
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
        Some(FreeMemory { bytes: limit.map_or(available, |limit| limit.min(available)), limit })
    }
}
