//! A performance model: predicts the time of a launch on a Hopper GPU from the machine code of its main loop.
//!
//! No launch is measured. The model does not include clocks under load, L2 misses, how well warps hide each other's
//! latencies, or the speed of TMA itself.

use crate::device::driver::Launch;

/// SMs of an H100 or H200 SXM.
const SMS: usize = 132;
/// Schedulers per SM. Each issues one instruction per clock.
const SCHEDULERS: f64 = 4.0;
/// FLOPs per SM and clock of mma.sync and of wgmma. The value of mma.sync is 62 % of the peak, according to published
/// microbenchmarks of Hopper.
const TENSOR: [f64; 2] = [0.62 * 4096.0, 4096.0];
/// Bytes that an SM reads from shared memory per clock.
const SHARED: f64 = 128.0;
/// Exponentials that an SM computes per clock.
const SPECIAL: f64 = 16.0;
/// Bytes that one SM can receive from L2 per clock.
const PORT: f64 = 64.0;
/// Bytes per clock that each SM gets if all SMs share the total L2 bandwidth.
const CACHE: f64 = 48.0;
/// Memory latency in seconds.
const LATENCY: f64 = 0.8e-6;
/// Seconds between two launches.
const BETWEEN: f64 = 1.5e-6;

/// Instruction counts of a kernel's machine code for compute capability 9.0, per warp. `tools/sass.py` counts them, and
/// `ptx/MANIFEST` stores them.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct KernelCosts {
    /// True if the kernel's products use wgmma.
    pub wgmma: bool,
    /// Instructions per step of the main loop.
    pub step: f64,
    /// FLOPs of the matrix products per step. 0 for a kernel without matrix products.
    pub flops: f64,
    /// Instructions per step that load fragments from shared memory.
    pub loads: f64,
    /// Instructions per step that compute exponentials.
    pub exponentials: f64,
    /// Registers per thread.
    pub registers: u32,
    /// Rows and columns of a tile, and the number of warps that multiply, for a kernel that loops over tiles.
    pub tile: Option<[usize; 3]>,
    /// Instructions per warp of the epilogue of a tile.
    pub epilogue: f64,
}

/// Arithmetic and memory traffic of a launch.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Share {
    /// Multiplications and additions.
    pub flops: f64,
    /// FLOPs that repeat work of another launch of the same op. They are not included in `flops`.
    pub again: f64,
    /// Bytes of operands and results, each moved once.
    pub bytes: f64,
    /// M, N and K if the launch is a matrix product.
    pub product: Option<[usize; 3]>,
}

/// Predicted time of a launch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Predicted {
    /// Seconds, including the gap to the next launch.
    pub seconds: f64,
    /// Limiting resource: `tensor`, `issue`, `shared`, `special`, `port`, `cache`, `epilogue`, `memory` or `in flight`
    /// (too few outstanding bytes to saturate the memory).
    pub bound: &'static str,
    /// Seconds that the products take at the peak rate of wgmma, if nothing else is done.
    pub tensor: f64,
    /// Bytes that the tiles read from L2 or from memory. For a launch without tiles, equal to [`Share::bytes`].
    pub tiles: f64,
}

/// Clock rate and memory bandwidth of a GPU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Clocks {
    /// Clock of the SMs in Hz.
    pub hz: f64,
    /// Memory bandwidth in bytes per second, for reads and writes together.
    pub memory: f64,
}

impl KernelCosts {
    /// Returns the number of CTAs that are resident on an SM at once.
    fn at_once(&self, launch: &Launch) -> usize {
        let registers = self.registers.next_multiple_of(8) as usize * launch.block as usize;
        let shared = (228 << 10) / (launch.smem as usize + 1024);
        shared.min(65_536 / registers.max(1)).min(2048 / launch.block.max(1) as usize).clamp(1, 32)
    }

    /// Predicts the time of `launch`, whose arithmetic and traffic are `share`. The prediction is the time of the
    /// slowest resource, plus the epilogue of the tiles, plus the gap to the next launch. The compute resources are
    /// counted for the SM with the most work.
    pub fn predict(&self, launch: &Launch, share: &Share, clocks: Clocks) -> Predicted {
        let ctas = launch.grid.iter().map(|&n| n as usize).product::<usize>().max(1);
        let at_once = self.at_once(launch);
        let mut needs =
            [("tensor", 0.0), ("issue", 0.0), ("shared", 0.0), ("special", 0.0), ("port", 0.0), ("cache", 0.0)];
        let (mut epilogue, mut traffic) = (0.0, share.bytes);
        let computed = share.flops + share.again;
        // Multiplications and additions of the SM that has the most work.
        let mut busiest = match ctas > SMS {
            true => computed / ctas as f64 * (ctas.div_ceil(SMS * at_once) * at_once) as f64,
            false => computed / ctas as f64,
        };
        if let (Some([rows, columns, warps]), Some([m, n, k])) = (self.tile, share.product) {
            let tiles = m.div_ceil(rows) * n.div_ceil(columns);
            let turns = tiles.div_ceil(ctas.min(SMS)) as f64;
            busiest = turns * (2 * rows * columns * k) as f64;
            // A tile fills rows beyond the last row with zeros, which are not read from memory.
            traffic = (tiles * (m.min(rows) + columns) * k * 2) as f64;
            needs[4].1 = turns * traffic / tiles as f64 / PORT;
            needs[5].1 = traffic / CACHE / SMS as f64;
            epilogue = turns * self.epilogue * warps as f64 / SCHEDULERS / clocks.hz;
        }
        if self.flops > 0.0 {
            let steps = busiest / self.flops;
            needs[0].1 = busiest / TENSOR[usize::from(self.wgmma)];
            needs[1].1 = steps * self.step / SCHEDULERS;
            needs[2].1 = steps * self.loads * 512.0 / SHARED;
            needs[3].1 = steps * self.exponentials * 32.0 / SPECIAL;
        }
        let flying =
            (ctas.min(SMS * at_once) * (launch.smem as usize).max(launch.block as usize * 64)) as f64 / LATENCY;
        let memory = share.bytes / clocks.memory.min(flying);
        let slow = if flying >= clocks.memory { "memory" } else { "in flight" };
        let longest = needs.map(|(name, clock)| (name, clock / clocks.hz)).into_iter().chain([(slow, memory)]);
        let (bound, seconds) = longest.fold(("tensor", 0.0), |most, need| if need.1 > most.1 { need } else { most });
        Predicted {
            seconds: seconds + epilogue + BETWEEN,
            bound: if epilogue > seconds { "epilogue" } else { bound },
            tensor: computed / (SMS as f64 * TENSOR[1] * clocks.hz),
            tiles: traffic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A public matrix product for Hopper (clusters of two, 128 CTAs of 384 threads, tiles of 128 by 256). Its author
    // measured 799 TFLOP/s at 8,192 cubed and 774 at 6,144 cubed on an H100 (see bench/LOG.md). The counts are the
    // output of `tools/roofline --cubin` for this kernel. The tolerance of 10 % was chosen before the kernel was
    // compiled.
    #[test]
    fn a_product_somebody_measured_is_predicted() {
        let costs = KernelCosts {
            wgmma: true,
            step: 161.0,
            flops: 1_048_576.0,
            loads: 0.0,
            exponentials: 0.0,
            registers: 168,
            tile: Some([128, 256, 8]),
            epilogue: 1151.0,
        };
        let launch = Launch::new([128, 1, 1], 384, 226 << 10);
        for (n, measured) in [(8192, 799.0), (6144, 774.0)] {
            let share = Share {
                flops: 2.0 * (n as f64).powi(3),
                bytes: 6.0 * (n as f64).powi(2),
                product: Some([n, n, n]),
                ..Share::default()
            };
            let found = costs.predict(&launch, &share, Clocks { hz: 1.5e9, memory: 4.3e12 });
            let rate = share.flops / found.seconds / 1e12;
            assert!((rate / measured - 1.0).abs() < 0.1, "{rate:.0} TFLOP/s at {n} cubed, measured {measured}");
        }
    }
}
