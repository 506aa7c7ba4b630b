//! A performance model: predicts the time of a launch on a Hopper GPU from the machine code of its main loop.
//!
//! Its assumptions beyond the rates of the hardware come from published measurements, and the tests compare its
//! predictions with them. No value was fitted to a launch of omr. `tests/app/cuda/predictions.rs` prints the predictions
//! beside the times of an H200 (bench/LOG.md). The model does not include clocks under load, L2 misses, and the host's
//! part of a step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Sum;
use std::ops::Mul;

use crate::device::driver::Launch;

/// SMs of an H100 or H200 SXM.
const SMS: usize = 132;
/// Schedulers per SM. Each issues one instruction per clock.
const SCHEDULERS: f64 = 4.0;
/// FLOPs per SM and clock of mma.sync and of wgmma. The value of mma.sync is 62 % of the peak, according to published
/// microbenchmarks of Hopper.
const TENSOR: [f64; 2] = [0.62 * 4096.0, 4096.0];
/// Bytes that an SM reads from or writes to shared memory per clock.
const SHARED: f64 = 128.0;
/// Exponentials that an SM computes per clock.
const SPECIAL: f64 = 16.0;
/// Bytes that one SM can receive from L2 per clock.
const PORT: f64 = 64.0;
/// Bytes of the outputs of a chunk of attention with heads of 128, which are stored in shared memory and read again.
const STATE_BYTES: f64 = 2.0 * 64.0 * 256.0 * 4.0;

/// An assumption beyond the rates of the hardware: its fast, its likely and its slow value.
type Assumed = [f64; 3];
/// Time of a main loop over the time of its busiest unit. Fitted to fast.cu's step with clusters: 734 TFLOP/s at 4096
/// cubed on 128 SMs.
const MAIN_LOOP: Assumed = [1.01, 1.07, 1.135];
/// Bytes per clock that all SMs together receive out of L2. Fitted to fast.cu's step before clusters: 704 TFLOP/s.
const L2: Assumed = [5800.0, 5470.0, 5150.0];
/// Instructions per clock and scheduler where no product hides their latencies. 0.5 to 0.7 is usual for two warps with
/// chains of dependent instructions.
const IPC: Assumed = [0.7, 0.6, 0.53];
/// Share of the bandwidth of a copy. Kernels that stream on an H200 reach 3.5 to 4.1 TB/s where a copy reaches 4.3.
const MEMORY: Assumed = [0.95, 0.88, 0.82];
/// Clocks from a tile of a matrix product to the next until the stages that held results are loaded.
const REFILL: Assumed = [300.0, 500.0, 800.0];
/// Share of the exponentials that the products of attention's forward do not hide, and clocks of a tile without
/// products. Fitted to FlashAttention-3 without a mask, whose tile and loop are ours: 648 TFLOP/s for 16,384 tokens and
/// 467 for 512.
const EXPOSED: Assumed = [0.46, 0.57, 0.72];
const TILE: Assumed = [3000.0, 4100.0, 5200.0];
/// Share of the tensor cores' rate in attention's backward. FlashAttention-3 reaches 561 TFLOP/s.
const BACKWARD: Assumed = [0.71, 0.65, 0.59];
/// Seconds until memory answers, and between two launches.
const LATENCY: Assumed = [0.7e-6, 0.8e-6, 0.9e-6];
const BETWEEN: Assumed = [1.3e-6, 1.5e-6, 1.7e-6];

/// A prediction in seconds: if the assumptions are fast, likely, or slow.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Range {
    /// Lower bound.
    pub low: f64,
    /// Most likely value.
    pub likely: f64,
    /// Upper bound.
    pub high: f64,
}

impl Range {
    /// Makes a range of one value.
    pub fn exact(seconds: f64) -> Range {
        Range { low: seconds, likely: seconds, high: seconds }
    }
}

impl Mul<Range> for f64 {
    type Output = Range;
    fn mul(self, range: Range) -> Range {
        Range { low: self * range.low, likely: self * range.likely, high: self * range.high }
    }
}

impl Sum for Range {
    fn sum<I: Iterator<Item = Range>>(ranges: I) -> Range {
        let add = |a: Range, b: Range| Range { low: a.low + b.low, likely: a.likely + b.likely, high: a.high + b.high };
        ranges.fold(Range::default(), add)
    }
}

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
    /// Bytes of shared memory that the wgmmas of a warpgroup read per step.
    pub operands: f64,
    /// Instructions per step that compute exponentials.
    pub exponentials: f64,
    /// Registers per thread.
    pub registers: u32,
    /// Rows and columns of a tile, and the number of warps that multiply, for a kernel that loops over tiles.
    pub tile: Option<[usize; 3]>,
    /// Instructions per warp of the epilogue of a tile.
    pub epilogue: f64,
    /// Loads of 8 bytes per thread before the main loop of a tile, for a kernel that continues earlier sums.
    pub resumed: f64,
}

/// Arithmetic and memory traffic of a launch.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Share {
    /// Multiplications and additions.
    pub flops: f64,
    /// FLOPs that repeat work of another launch of the same op. They are not included in `flops`.
    pub again: f64,
    /// Bytes of operands and results, each moved once.
    pub bytes: f64,
    /// M, N and K if the launch is a matrix product.
    pub product: Option<[usize; 3]>,
    /// Work items if the launch is attention by wgmma.
    pub items: Option<Items>,
    /// Bytes that a CTA has in flight, if they do not pass through its shared memory.
    pub in_flight: Option<f64>,
}

/// Work items of a launch of attention: the steps of the main loop of each, in the order of the grid.
#[derive(Clone, PartialEq, Debug)]
pub struct Items {
    /// Kernel that computes the items.
    pub of: Attention,
    /// Steps per item.
    pub steps: Vec<u32>,
    /// Steps between exchanges of the state in an item.
    pub chunk: u32,
    /// True if the CTA that is done first takes the next item. False if each CTA takes every n-th item.
    pub dynamic: bool,
}

/// Kernels of attention by wgmma.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attention {
    /// Persistent CTAs that take tiles.
    Forward,
    /// One CTA per tile.
    Backward,
    /// Persistent CTAs that take items of one warpgroup.
    Decode,
}

/// Predicted time of a launch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Predicted {
    /// Seconds, including the gap to the next launch.
    pub seconds: Range,
    /// Limiting resource: `tensor`, `issue`, `shared`, `special`, `port`, `cache`, `epilogue`, `items` (attention),
    /// `memory` or `in flight` (too few outstanding bytes to saturate the memory).
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
    /// Memory bandwidth of a copy in bytes per second, for reads and writes together.
    pub memory: f64,
}

/// Returns the time of kernels that take their work from counters while `ctas` CTAs of another kernel occupy SMs, over
/// their time without these CTAs.
pub fn slowdown_beside(ctas: usize) -> f64 {
    SMS as f64 / (SMS - ctas) as f64
}

impl KernelCosts {
    /// Returns the number of CTAs that are resident on an SM at once.
    fn at_once(&self, launch: &Launch) -> usize {
        let registers = self.registers.next_multiple_of(8) as usize * launch.block as usize;
        let shared = (228 << 10) / (launch.smem as usize + 1024);
        shared.min(65_536 / registers.max(1)).min(2048 / launch.block.max(1) as usize).clamp(1, 32)
    }

    /// Predicts the time of `launch`, whose arithmetic and traffic are `share`. The prediction is the time of the
    /// slowest resource, plus the parts of tiles that no main loop hides, plus the gap to the next launch. The compute
    /// resources are counted for the SM with the most work.
    pub fn predict(&self, launch: &Launch, share: &Share, clocks: Clocks) -> Predicted {
        let [(low, ..), (likely, bound, tiles), (high, ..)] =
            [0, 1, 2].map(|assumed| self.under(assumed, launch, share, clocks));
        let tensor = (share.flops + share.again) / (SMS as f64 * TENSOR[1] * clocks.hz);
        Predicted { seconds: Range { low, likely, high }, bound, tensor, tiles }
    }

    /// Returns the seconds, the limiting resource and the bytes of the tiles if the assumptions have their values `a`.
    fn under(&self, a: usize, launch: &Launch, share: &Share, clocks: Clocks) -> (f64, &'static str, f64) {
        let ctas = launch.grid.iter().map(|&n| n as usize).product::<usize>().max(1);
        let at_once = self.at_once(launch);
        let memory = clocks.memory * MEMORY[a];
        let mut needs =
            [("tensor", 0.0), ("issue", 0.0), ("shared", 0.0), ("special", 0.0), ("port", 0.0), ("cache", 0.0)];
        // Clocks that no main loop hides, and bytes that the SM with the most work receives.
        let (mut serial, mut received, mut traffic) = (0.0, 0.0, share.bytes);
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
            // A tile fills rows beyond the last row with zeros, which are not read from memory. The CTAs of a cluster
            // share their columns.
            let bytes = |columns: f64| (m.min(rows) as f64 + columns) * (2 * k) as f64;
            received = turns * bytes(columns as f64);
            traffic = tiles as f64 * bytes(columns as f64 / f64::from(launch.cluster.max(1)));
            needs[5].1 = traffic / L2[a];
            let resumed = self.resumed * 256.0 * warps as f64 * SMS as f64 * clocks.hz / memory;
            serial = turns * (self.epilogue * warps as f64 / SCHEDULERS / IPC[a] + REFILL[a] + resumed);
            serial += LATENCY[a] * clocks.hz;
        }
        if let (Some([rows, columns, _]), None) = (self.tile, share.product) {
            received = busiest * (rows + columns) as f64 / (rows * columns) as f64;
            needs[5].1 = received * ctas.min(SMS) as f64 / L2[a];
        }
        if self.flops > 0.0 {
            let steps = busiest / self.flops;
            needs[0].1 = busiest / TENSOR[usize::from(self.wgmma)];
            needs[1].1 = steps * self.step / SCHEDULERS;
            // Four warps share the operands of a wgmma.
            needs[2].1 = (steps * (self.loads * 512.0 + self.operands / 4.0) + received) / SHARED;
            needs[3].1 = steps * self.exponentials * 32.0 / SPECIAL;
            needs[4].1 = received / PORT;
            needs[..5].iter_mut().for_each(|need| need.1 *= MAIN_LOOP[a]);
        }
        if let Some(items) = &share.items {
            let times = items.steps.iter().map(|&steps| self.item(a, items, steps, clocks.hz) as u64);
            needs = [("items", busiest_cta(times, ctas.min(SMS), items.dynamic) as f64); 6];
        }
        let in_flight = share.in_flight.unwrap_or(launch.smem.max(launch.block * 64).into());
        let flying = ctas.min(SMS * at_once) as f64 * in_flight / LATENCY[a];
        let slow = if flying >= memory { "memory" } else { "in flight" };
        let traffic_time = (slow, share.bytes / memory.min(flying));
        let longest = needs.map(|(name, clock)| (name, clock / clocks.hz)).into_iter().chain([traffic_time]);
        let (bound, seconds) = longest.fold(("tensor", 0.0), |most, need| if need.1 > most.1 { need } else { most });
        let serial = serial / clocks.hz;
        (seconds + serial + BETWEEN[a], if serial > seconds { "epilogue" } else { bound }, traffic)
    }

    /// Returns the clocks of an item of attention with `steps` steps.
    fn item(&self, a: usize, items: &Items, steps: u32, hz: f64) -> f64 {
        let warps = if items.of == Attention::Decode { 4.0 } else { 8.0 };
        let tensor = self.flops * warps / TENSOR[1];
        let (issue, special) = (self.step * warps / SCHEDULERS, self.exponentials * 32.0 * warps / SPECIAL);
        let chunks = f64::from(steps.div_ceil(items.chunk).max(1)) - 1.0;
        let steps = f64::from(steps);
        match items.of {
            // At the end of a chunk the products stop until the state is exchanged and the next softmax is done.
            Attention::Forward => {
                let chunk = issue / IPC[a] + STATE_BYTES / SHARED;
                TILE[a] + steps * (tensor + EXPOSED[a] * special) + chunks * chunk
            }
            // A CTA starts, reads its rows twice, and has a first and a last step that overlap nothing.
            Attention::Backward => 3.0 * LATENCY[a] * hz + 2.0 * issue / IPC[a] + steps * tensor / BACKWARD[a],
            // A warpgroup alone computes the scores and the softmax of each block in turn. A further item waits for
            // its first keys.
            Attention::Decode => 2.0 * LATENCY[a] * hz + steps * (tensor / 2.0 + issue / IPC[a]),
        }
    }
}

/// Returns the clocks of the CTA with the most work, as [`Items::dynamic`] distributes it.
pub fn busiest_cta(times: impl Iterator<Item = u64>, ctas: usize, dynamic: bool) -> u64 {
    let mut busy = vec![Reverse(0); ctas.max(1)];
    if !dynamic {
        times.enumerate().for_each(|(i, time)| busy[i % ctas.max(1)].0 += time);
        return busy.into_iter().map(|busy| busy.0).max().unwrap_or(0);
    }
    let mut busy = BinaryHeap::from(busy);
    times.for_each(|time| busy.peek_mut().into_iter().for_each(|mut first| first.0 += time));
    busy.into_iter().map(|busy| busy.0).max().unwrap_or(0)
}
