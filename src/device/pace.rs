//! The pace of a launch on a Hopper card, predicted from the machine code of its main loop. Nothing here is measured: a
//! prediction cannot know clocks under load, what misses in L2, how well warps hide one another's latencies, or TMA's own
//! pace.

use crate::device::driver::Launch;

/// SMs of an H100 or H200 SXM.
const SMS: usize = 132;
/// Schedulers of an SM, an instruction a clock each.
const SCHEDULERS: f64 = 4.0;
/// Multiplications and additions of an SM in a clock by mma.sync (62 % of the peak, as microbenchmarks of Hopper were
/// published) and by wgmma.
const TENSOR: [f64; 2] = [0.62 * 4096.0, 4096.0];
/// Of an SM and clock: bytes of shared memory it reads, and exponentials it takes.
const SHARED: f64 = 128.0;
const SPECIAL: f64 = 16.0;
/// Of an SM and clock: bytes it takes in from L2, and its part of all that L2 gives.
const PORT: f64 = 64.0;
const CACHE: f64 = 48.0;
/// Seconds a byte of memory takes to come, and from one launch to the next.
const LATENCY: f64 = 0.8e-6;
const BETWEEN: f64 = 1.5e-6;

/// What a kernel's machine code for 9.0 has, a warp's own (`tools/sass.py` counts, `ptx/MANIFEST` holds it).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Pace {
    /// Whether its products are wgmma's.
    pub wgmma: bool,
    /// Instructions of a step of its main loop.
    pub step: f64,
    /// Multiplications and additions of its products in a step; 0 of a kernel without products.
    pub flops: f64,
    /// Instructions of a step that load fragments from shared memory.
    pub loads: f64,
    /// Instructions of a step that take exponentials.
    pub exponentials: f64,
    /// Registers a thread.
    pub registers: u32,
    /// Of a loop over tiles: rows and columns of a tile, and the warps that multiply.
    pub tile: Option<[usize; 3]>,
    /// Instructions a warp has for a tile's results.
    pub epilogue: f64,
}

/// What a launch computes and moves.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Share {
    /// Multiplications and additions.
    pub flops: f64,
    /// Those on top that another launch of the op computes too.
    pub again: f64,
    /// Bytes of operands and results, each moved once.
    pub bytes: f64,
    /// Rows, columns and length of the sums, of a product.
    pub product: Option<[usize; 3]>,
}

/// The time of a launch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Predicted {
    /// Seconds, with those to the next launch.
    pub seconds: f64,
    /// What it waits for: `tensor`, `issue`, `shared`, `special`, `port`, `cache`, `epilogue`, `memory` or `in flight`
    /// (too few bytes under way to fill the memory).
    pub bound: &'static str,
    /// Seconds its products would take if nothing else were done.
    pub tensor: f64,
    /// Bytes its tiles read, out of L2 where they hit.
    pub tiles: f64,
}

/// A card's clock (Hz) and memory (bytes a second).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Clocks {
    /// Of its SMs.
    pub hz: f64,
    /// Read or written.
    pub memory: f64,
}

impl Pace {
    /// CTAs that stand on an SM at once.
    fn at_once(&self, launch: &Launch) -> usize {
        let registers = self.registers.next_multiple_of(8) as usize * launch.block as usize;
        let shared = (228 << 10) / (launch.smem as usize + 1024);
        shared.min(65_536 / registers.max(1)).min(2048 / launch.block.max(1) as usize).clamp(1, 32)
    }

    /// The time of `launch`, which does `share`: the longest of what it needs, in as many waves as its CTAs take, then its
    /// epilogue where no other tile's main loop hides it.
    pub fn predict(&self, launch: &Launch, share: &Share, clocks: Clocks) -> Predicted {
        let ctas = launch.grid.iter().map(|&n| n as usize).product::<usize>().max(1);
        let at_once = self.at_once(launch);
        let mut needs =
            [("tensor", 0.0), ("issue", 0.0), ("shared", 0.0), ("special", 0.0), ("port", 0.0), ("cache", 0.0)];
        let (mut epilogue, mut traffic) = (0.0, share.bytes);
        let computed = share.flops + share.again;
        // Multiplications and additions of the SM that is busy longest.
        let mut busiest = match ctas > SMS {
            true => computed / ctas as f64 * (ctas.div_ceil(SMS * at_once) * at_once) as f64,
            false => computed / ctas as f64,
        };
        if let (Some([rows, columns, warps]), Some([m, n, k])) = (self.tile, share.product) {
            let tiles = m.div_ceil(rows) * n.div_ceil(columns);
            let turns = tiles.div_ceil(ctas.min(SMS)) as f64;
            busiest = turns * (2 * rows * columns * k) as f64;
            // Rows past the last are zeros that nobody reads.
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

    // A public product for Hopper (clusters of two, 128 CTAs of 384 threads, tiles of 128 by 256) whose author measured 799
    // TFLOP/s at 8,192 cubed and 774 at 6,144 cubed on an H100 (bench/LOG.md names it). The counts are what
    // `tools/roofline --cubin` prints of it; 10 % was set before it was compiled.
    #[test]
    fn a_product_somebody_measured_is_predicted() {
        let pace = Pace {
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
            let found = pace.predict(&launch, &share, Clocks { hz: 1.5e9, memory: 4.3e12 });
            let rate = share.flops / found.seconds / 1e12;
            assert!((rate / measured - 1.0).abs() < 0.1, "{rate:.0} TFLOP/s at {n} cubed, measured {measured}");
        }
    }
}
