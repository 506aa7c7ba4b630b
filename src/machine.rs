//! The machine that a job runs on, as the caller of the job provides it.

#![forbid(unsafe_code)]

use tokio::runtime::Handle;

use crate::device::{Device, Plan, Target};
use crate::error::Result;
use crate::observe::Observer;

/// The resources of the machine that a job uses.
pub struct Machine<'a> {
    /// Device that memory plans are made for.
    pub target: Target,
    /// Number of compute threads.
    pub threads: usize,
    /// Description of the device for messages.
    pub place: String,
    /// Creates a device with exactly the memory of a plan.
    pub device: &'a dyn Fn(&Plan) -> Result<Device>,
    /// Returns the only asynchronous runtime, for teachers, judges and servers.
    pub runtime: &'a dyn Fn() -> Result<Handle>,
    /// Receives progress and notes, and can request the job to stop.
    pub observer: &'a dyn Observer,
}

/// Memory that this process may still allocate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeMemory {
    /// Number of bytes.
    pub bytes: u64,
    /// Memory limit of this process in bytes, if one is set below the machine's memory.
    pub limit: Option<u64>,
}

impl FreeMemory {
    /// Reads the values from the system. Returns `None` if the system does not report them.
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
