//! The machine that a job runs on, as the caller of the job provides it.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use tokio::runtime::Handle;

use crate::device::{Device, Plan, Target};
use omr_base::error::Result;
use omr_base::observe::Observer;

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

/// Returns the commit of the repository that contains the folder `dir`, with `-dirty` if files differ from it. Returns
/// `None` outside of a repository.
pub fn commit(dir: &Path) -> Option<String> {
    let describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    let output = Command::new("git").args(describe).current_dir(dir).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Memory that this process may still allocate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeMemory {
    /// Number of bytes.
    pub bytes: u64,
    /// Memory limit of this process in bytes, if one is set below the machine's memory.
    pub limit: Option<u64>,
}

/// Bytes of host memory that a job on the CPU needs besides its plan: the program, the tokenizer, rows and buffers.
const HOST_OVERHEAD: u64 = 256 << 20;

impl FreeMemory {
    /// Reads the values from the system. Returns `None` if the system does not report them.
    pub fn read() -> Option<FreeMemory> {
        let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        FreeMemory::of(&info, &groups, |path| std::fs::read_to_string(path).ok())
    }

    /// Computes the values from the texts of `/proc/meminfo` and `/proc/self/cgroup`. `read` returns the text of a file
    /// of the control groups.
    pub fn of(info: &str, groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<FreeMemory> {
        let field = |name: &str| {
            let value = info.lines().find(|l| l.starts_with(name))?.split_whitespace().nth(1)?;
            value.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let mut free = FreeMemory { bytes: field("MemAvailable:")?, limit: None };
        for (limit, used) in group_limits(groups, read) {
            if field("MemTotal:").is_some_and(|total| limit < total) {
                free.bytes = free.bytes.min(limit.saturating_sub(used));
                free.limit = Some(free.limit.map_or(limit, |least| least.min(limit)));
            }
        }
        Some(free)
    }

    /// Returns the bytes that the memory plan of one of `ranks` processes on this machine may have.
    pub fn for_plan(ranks: usize) -> Option<usize> {
        let bytes = FreeMemory::read()?.bytes / ranks.max(1) as u64;
        Some(bytes.saturating_sub(HOST_OVERHEAD) as usize)
    }
}

/// Returns the memory limit and the used bytes of each control group that contains this process and has a limit. Cached
/// file content does not count as used, because the system drops it when a process needs the memory.
fn group_limits(groups: &str, read: impl Fn(&str) -> Option<String>) -> Vec<(u64, u64)> {
    // Version 2 has one hierarchy, `0::/path`. Version 1 has one per resource, for example `4:memory:/path`.
    let group = |line: &str| {
        let (resources, path) = line.split_once(':')?.1.split_once(':')?;
        let files = match resources {
            "" => ["/sys/fs/cgroup", "memory.max", "memory.current", ""],
            "memory" => ["/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"],
            _ => return None,
        };
        Some((path.trim_matches('/').to_owned(), files))
    };
    let mut found = Vec::new();
    for (path, [root, limit, used, prefix]) in groups.lines().filter_map(group) {
        // In a container the path may lead outside the visible folders. The limit is then in the root.
        for folder in Path::new(&path).ancestors() {
            let at = |file: &str| Path::new(root).join(folder).join(file).display().to_string();
            let number = |file: &str| read(&at(file))?.trim().parse::<u64>().ok();
            let Some(limit) = number(limit) else { continue };
            let stat = read(&at("memory.stat")).unwrap_or_default();
            let value = |name: &str| -> Option<u64> {
                let of_line = |line: &str| line.strip_prefix(prefix)?.strip_prefix(name)?.trim().parse().ok();
                stat.lines().find_map(of_line)
            };
            let cached: u64 = ["inactive_file", "active_file"].into_iter().filter_map(value).sum();
            found.push((limit, number(used).unwrap_or(0).saturating_sub(cached)));
        }
    }
    found
}
