//! Executes queued work: memory, loaded kernels and pinned buffers of the emulated device.

use std::panic::Location;
use std::time::Instant;

use crate::device::driver::{Kernel, Launch, Pinned, Properties};
use crate::device::emu::compile::Cache;
use crate::device::emu::graph::{LaunchBytes, Op};
use crate::device::emu::options::{Options, Sums};
use crate::device::emu::pages::{POISON, Pages};
use crate::device::emu::runtime::{Entry, Grid, Instance, Runtime, Schedule};
use crate::device::emu::sites::{Site, Sites};
use crate::device::images::Arch;
use crate::device::limits::{self, Declared};
use omr_base::error::{Error, Result};

struct Loaded {
    file: &'static str,
    name: &'static str,
    entry: &'static Entry,
    /// Registers per thread, or 0 if the table of kernels does not contain the kernel.
    registers: u32,
}

/// The emulated device without its queues.
pub struct Machine {
    /// Runtime of the device.
    pub instance: Instance,
    /// Cache of sources and objects.
    pub cache: Cache,
    kernels: Vec<Loaded>,
    options: Options,
    pinned: Vec<Vec<u8>>,
    events: Vec<Option<Instant>>,
    /// Number of kernels run so far.
    pub run: u64,
    /// Device memory.
    pub pages: Pages,
    /// Call sites of synchronisation.
    pub sites: Sites,
}

impl Machine {
    /// Creates a device with these options. The first call compiles the runtime.
    pub fn new(cache: Cache, options: &Options) -> Result<Machine> {
        let instance = Instance::new(Runtime::get(&cache)?, &schedule(options, options.seed))?;
        let mut machine = Machine {
            instance,
            cache,
            kernels: Vec::new(),
            options: options.clone(),
            pinned: Vec::new(),
            events: Vec::new(),
            run: 0,
            pages: Pages::default(),
            sites: Sites::from_env(options.sources.iter().map(|(path, _)| path.clone()).collect())?,
        };
        machine.instance.skip(machine.sites.skip.as_ref());
        Ok(machine)
    }

    /// Returns the names of the kernels loaded so far.
    pub fn kernels(&self) -> Vec<&'static str> {
        self.kernels.iter().map(|kernel| kernel.name).collect()
    }

    /// Returns a kernel. The first call for a kernel loads it.
    pub fn kernel(&mut self, file: &'static str, name: &'static str) -> Result<Kernel> {
        let known = self.kernels.iter().position(|k| k.name == name && k.file == file);
        let index = match known {
            Some(index) => index,
            None => {
                let entry = self.instance.runtime.kernel(&self.cache, &format!("kernels/{file}.cu"), name)?;
                let known = self.options.images.iter().find_map(|images| images.kernel(name, self.options.arch));
                let registers = known.map_or(0, |k| k.registers);
                self.kernels.push(Loaded { file, name, entry, registers });
                self.kernels.len() - 1
            }
        };
        Ok(Kernel(index as u32))
    }

    /// Errors if a real GPU would refuse the launch.
    pub fn check(&self, kernel: Kernel, launch: &Launch, params: usize, device: &Properties) -> Result<()> {
        let Some(loaded) = self.kernels.get(kernel.0 as usize) else {
            return Err(Error::Failed(format!("launch of kernel {}, which was never loaded", kernel.0)));
        };
        let Loaded { name, entry, registers, .. } = *loaded;
        let (args, threads) = (entry.args_bytes as usize, entry.threads);
        limits::check(Declared { name, args, threads, registers }, launch, params, device)
    }

    /// Selects the site to skip. `None` skips no site.
    pub fn skip(&mut self, site: Option<Site>) {
        self.instance.skip(site.as_ref());
        self.sites.skip = site;
    }

    /// Records a synchronising call of the host. Returns true if its site is the one to skip.
    pub fn skips_host(&mut self, at: &Location, wrapper: &str) -> bool {
        self.sites.host(at, wrapper, &self.cache.sources)
    }

    /// Allocates a pinned buffer.
    pub fn pin(&mut self, bytes: usize) -> Pinned {
        self.pinned.push(vec![if self.options.guarded { POISON } else { 0 }; bytes]);
        Pinned(self.pinned.len() as u32 - 1)
    }

    /// Returns the bytes of a pinned buffer.
    pub fn pinned(&mut self, buffer: Pinned) -> &mut Vec<u8> {
        &mut self.pinned[buffer.0 as usize]
    }

    /// Adds an event and returns its number.
    pub fn event(&mut self) -> u32 {
        self.events.push(None);
        self.events.len() as u32 - 1
    }

    /// Returns the time at which an event was last reached.
    pub fn reached(&self, event: u32) -> Option<Instant> {
        self.events.get(event as usize).copied().flatten()
    }

    /// Executes one unit of work. Graphs and waits do nothing here, because the queues handle them.
    pub fn execute(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Launch(kernel, launch, params) => self.launch(*kernel, launch, params),
            Op::Upload(to, bytes) => self.pages.write(*to, bytes),
            Op::DownloadPinned(from, to, bytes) => self.pages.read(*from, &mut self.pinned[to.0 as usize][..*bytes]),
            // With `corners`, the content of memory does not matter, so copies and fills are skipped.
            Op::Copy(..) | Op::Fill(..) if self.options.corners => Ok(()),
            Op::Copy(to, from, bytes) => self.pages.copy(*to, *from, *bytes),
            Op::Fill(to, value, bytes) => self.pages.fill(*to, *value, *bytes),
            Op::Open(address, bytes) => self.pages.open(*address, *bytes),
            Op::Close(address, bytes) => self.pages.close(*address, *bytes),
            Op::Record(event, _) => {
                self.events[event.0 as usize] = Some(Instant::now());
                Ok(())
            }
            Op::Wait(_) | Op::Replay(_) => Ok(()),
        }
    }

    fn launch(&mut self, kernel: Kernel, launch: &Launch, params: &LaunchBytes) -> Result<()> {
        let Loaded { name, entry, registers, .. } = self.kernels[kernel.0 as usize];
        let seed = match self.options.seed {
            0 => 0,
            // Every launch has its own schedule. The seed must not be 0, which selects the fixed schedule.
            seed => random(seed, self.run) | 1,
        };
        self.run += 1;
        let grid =
            Grid { grid: launch.grid, block: launch.block, cluster: launch.cluster, smem: launch.smem, registers };
        let result = self.instance.launch(entry, &schedule(&self.options, seed), &grid, params.bytes());
        let passed = self.instance.more_sites();
        self.sites.note(passed, &self.cache.sources);
        let [x, y, z] = launch.grid;
        result.map_err(|text| {
            let text = text.strip_prefix(&format!("kernel {name}: ")).unwrap_or(&text);
            let near = faulted(text).and_then(|address| self.pages.describe(address));
            let near = near.map(|place| format!(" ({place})")).unwrap_or_default();
            Error::Failed(format!("kernel {name}, grid {x} x {y} x {z} of {} threads: {text}{near}", launch.block))
        })
    }
}

/// Returns the address in the runtime's text about a fault.
fn faulted(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("at address 0x")?;
    u64::from_str_radix(rest.split(|c: char| !c.is_ascii_hexdigit()).next()?, 16).ok()
}

fn schedule(options: &Options, seed: u64) -> Schedule {
    let (completion, limits) = (options.completion as u32, options.limits());
    Schedule {
        seed,
        multiprocessors: options.multiprocessors.saturating_sub(options.occupied).max(1),
        completion,
        shadow: options.shadow.into(),
        poison: options.guarded.into(),
        sums: match (options.sums, options.arch) {
            (Sums::Chain, _) => 0,
            (Sums::Aligned, Arch::Sm90a) => 1,
            (Sums::Aligned, Arch::Sm80) => 2,
        },
        banks: options.banks.into(),
        corners: options.corners.into(),
        unseen_phases: 0,
        shared_memory: limits.shared_memory as u32,
        warps: limits.warps,
        registers: limits.registers,
    }
}

/// Mixes two words into a pseudo-random word (splitmix64).
pub fn random(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
