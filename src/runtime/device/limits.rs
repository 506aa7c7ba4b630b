//! Limits of GPUs and of their launches. The emulator and the code for a real GPU check launches in the same way.

use crate::device::driver::{Launch, Properties};
use omr_base::error::{Error, Result};

/// Limits of the GPUs of one compute capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Compute capability, for example (9, 0).
    pub compute_capability: (u32, u32),
    /// Bytes of shared memory per multiprocessor.
    pub shared_memory: usize,
    /// Warps per multiprocessor.
    pub warps: u32,
    /// Registers per multiprocessor. A CTA can have all of them.
    pub registers: u32,
}

/// Limits of compute capability 8.0.
pub const AMPERE: Limits = Limits::new(8, 0, 164, 64);
/// Limits of compute capability 9.0.
pub const HOPPER: Limits = Limits::new(9, 0, 228, 64);

impl Limits {
    /// Compute capabilities of known GPUs: CUDA C++ programming guide, technical specifications per compute capability.
    pub const KNOWN: [Limits; 9] = [
        AMPERE,
        Limits::new(8, 6, 100, 48),
        Limits::new(8, 7, 164, 48),
        Limits::new(8, 9, 100, 48),
        HOPPER,
        Limits::new(10, 0, 228, 64),
        Limits::new(10, 3, 228, 64),
        Limits::new(12, 0, 100, 48),
        Limits::new(12, 1, 100, 48),
    ];

    const fn new(major: u32, minor: u32, shared_kib: usize, warps: u32) -> Limits {
        Limits { compute_capability: (major, minor), shared_memory: shared_kib << 10, warps, registers: 65_536 }
    }

    /// Returns the limits of a compute capability, or `None` if it is unknown.
    pub fn of(major: u32, minor: u32) -> Option<Limits> {
        Limits::KNOWN.into_iter().find(|limits| limits.compute_capability == (major, minor))
    }

    /// Returns the bytes of dynamic shared memory that a CTA can opt in to. The system reserves 1 KiB for each CTA.
    pub const fn shared_memory_per_block(self) -> usize {
        self.shared_memory - 1024
    }

    /// Returns the properties of a device with these limits and `memory` bytes of memory, which is no real GPU.
    pub fn properties(self, name: &str, multiprocessors: u32, memory: u64) -> Properties {
        Properties {
            name: name.to_owned(),
            compute_capability: self.compute_capability,
            multiprocessors,
            memory,
            shared_memory_per_block: self.shared_memory_per_block(),
            registers_per_block: self.registers,
            driver: format!("omr {}", env!("CARGO_PKG_VERSION")),
            cuda: 0,
        }
    }
}

/// Granularity of register allocation, per thread (the same table).
const REGISTER_UNIT: u32 = 8;

/// Maximum threads per CTA (the same table).
const CTA_THREADS: u32 = 1024;

/// Largest portable cluster.
const CLUSTER: u32 = 8;

/// Largest grid in y and z.
const GRID_YZ: u32 = 65_535;

/// Properties of a kernel that are known before it runs.
#[derive(Clone, Copy)]
pub struct Declared<'a> {
    /// Kernel name.
    pub name: &'a str,
    /// Bytes of the kernel's `Args`.
    pub args: usize,
    /// Maximum threads per CTA, from its launch bounds.
    pub threads: u32,
    /// Registers per thread, or 0 if they are unknown.
    pub registers: u32,
}

/// Errors if the driver of a GPU with the properties `device` would refuse the launch. The error names the kernel.
pub fn check(kernel: Declared, launch: &Launch, params: usize, device: &Properties) -> Result<()> {
    let Declared { name, args, threads, registers } = kernel;
    let refuse = |what: String| Err(Error::Failed(format!("launch of {name} refused: {what}")));
    if params != args {
        return refuse(format!("{params} bytes of parameters, but its Args have {args}"));
    }
    let [x, y, z] = launch.grid;
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > GRID_YZ || z > GRID_YZ {
        return refuse(format!("a grid of {x} x {y} x {z} CTAs"));
    }
    if launch.block == 0 || launch.block > CTA_THREADS {
        return refuse(format!("{} threads per CTA, expected 1 to {CTA_THREADS}", launch.block));
    }
    if launch.block > threads {
        return refuse(format!("{} threads per CTA, above its launch bound of {threads}", launch.block));
    }
    let most = device.shared_memory_per_block;
    if launch.smem as usize > most {
        return refuse(format!("{} bytes of dynamic shared memory, but a CTA can have {most}", launch.smem));
    }
    let most = device.registers_per_block;
    if registers.next_multiple_of(REGISTER_UNIT) * launch.block.next_multiple_of(32) > most {
        return refuse(format!("{registers} registers x {} threads, but a CTA can have {most}", launch.block));
    }
    if launch.cluster != 1 {
        if device.compute_capability < (9, 0) {
            let (major, minor) = device.compute_capability;
            return refuse(format!("a cluster of {} on compute capability {major}.{minor}", launch.cluster));
        }
        if launch.cluster == 0 || launch.cluster > CLUSTER || !x.is_multiple_of(launch.cluster) {
            return refuse(format!("clusters of {} (1 to {CLUSTER}) do not divide a grid of {x}", launch.cluster));
        }
    }
    Ok(())
}
