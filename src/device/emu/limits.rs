//! Limits of a launch: the emulator refuses what a real GPU's driver refuses.

use crate::device::driver::{Launch, Properties};
use crate::error::{Error, Result};

/// Registers per CTA (CUDA C++ programming guide, table of compute capabilities: 8.0 and 9.0).
const REGISTERS: u32 = 65_536;

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
    /// Registers per thread, if the table of kernels contains them.
    pub registers: Option<u32>,
}

/// Errors if a real GPU's driver would refuse the launch. The error names the kernel.
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
    if launch.smem as usize > device.shared_memory_per_block {
        let most = device.shared_memory_per_block;
        return refuse(format!("{} bytes of dynamic shared memory, but the opt-in limit is {most}", launch.smem));
    }
    let registers = registers.unwrap_or(0);
    let taken = registers.next_multiple_of(REGISTER_UNIT) * launch.block.next_multiple_of(32);
    if taken > REGISTERS {
        return refuse(format!(
            "{registers} registers x {} threads, but a CTA has {REGISTERS} registers",
            launch.block
        ));
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

#[cfg(test)]
mod tests {
    use super::{Declared, check};
    use crate::device::driver::{Launch, Properties};

    #[test]
    fn a_launch_fits_or_says_what_does_not() {
        let hopper = Properties {
            name: String::new(),
            compute_capability: (9, 0),
            multiprocessors: 1,
            memory: 0,
            shared_memory_per_block: 227 * 1024,
            driver: String::new(),
        };
        let kernel = Declared { name: "gemm", args: 8, threads: 512, registers: Some(122) };
        let good = Launch { grid: [6, 1, 1], block: 512, cluster: 2, smem: 227 * 1024 };
        let message = |kernel: Declared, launch: Launch, device: &Properties| match check(kernel, &launch, 8, device) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(message(kernel, good, &hopper), "");
        // Registers are allocated in units of eight: 121 to 128 use all 65,536 registers, and 129 do not fit.
        let registers = |registers| message(Declared { registers: Some(registers), ..kernel }, good, &hopper);
        assert_eq!(registers(128), "");
        assert_eq!(
            registers(129),
            "launch of gemm refused: 129 registers x 512 threads, but a CTA has 65536 registers"
        );
        let cluster = |cluster| message(kernel, Launch { cluster, ..good }, &hopper);
        assert_eq!([cluster(1), cluster(3), cluster(6)], ["", "", ""]);
        for wrong in [0, 4, 9] {
            assert!(cluster(wrong).contains("do not divide a grid of 6"), "{wrong}: {}", cluster(wrong));
        }
        let ampere = Properties { compute_capability: (8, 0), ..hopper };
        assert!(message(kernel, good, &ampere).contains("a cluster of 2 on compute capability 8.0"));
    }
}
