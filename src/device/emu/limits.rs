//! What a launch may ask for: the refusals of a card's driver.

use crate::device::driver::{Launch, Properties};
use crate::device::emu::runtime::Entry;
use crate::error::{Error, Result};

/// Registers of a CTA (CUDA C++ programming guide, table of compute capabilities: 8.0 and 9.0).
const REGISTERS: u32 = 65_536;

/// Registers are given to a warp in such pieces (per thread; the same table).
const REGISTER_UNIT: u32 = 8;

/// Threads of a CTA (the same table).
const CTA_THREADS: u32 = 1024;

/// Largest portable cluster.
const CLUSTER: u32 = 8;

/// Largest grid in y and z.
const GRID_YZ: u32 = 65_535;

/// Refuses what a card's driver refuses, naming the kernel; `registers` a thread where they are known.
pub fn check(
    name: &str,
    entry: &Entry,
    registers: Option<u32>,
    launch: &Launch,
    params: usize,
    device: &Properties,
) -> Result<()> {
    let refuse = |what: String| Err(Error::Failed(format!("launch of {name} refused: {what}")));
    if params != entry.args_bytes as usize {
        return refuse(format!("{params} bytes of parameters, its Args have {}", entry.args_bytes));
    }
    let [x, y, z] = launch.grid;
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > GRID_YZ || z > GRID_YZ {
        return refuse(format!("a grid of {x} x {y} x {z} CTAs"));
    }
    if launch.block == 0 || launch.block > CTA_THREADS {
        return refuse(format!("{} threads a CTA, 1 to {CTA_THREADS} are possible", launch.block));
    }
    if launch.block > entry.threads {
        return refuse(format!("{} threads a CTA over its launch bound of {}", launch.block, entry.threads));
    }
    if launch.smem as usize > device.shared_memory_per_block {
        let most = device.shared_memory_per_block;
        return refuse(format!("{} bytes of dynamic shared memory, {most} can be opted in to", launch.smem));
    }
    let registers = registers.unwrap_or(0);
    let taken = registers.next_multiple_of(REGISTER_UNIT) * launch.block.next_multiple_of(32);
    if taken > REGISTERS {
        return refuse(format!("{registers} registers x {} threads, a CTA has {REGISTERS}", launch.block));
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
