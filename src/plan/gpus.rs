//! The kinds of GPUs that a plan supports, with their peak rates and the links between them.

use clap::ValueEnum;

use crate::device::cuda::GPU_OVERHEAD;
use crate::ranks;

/// Kind of GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Gpu {
    /// H200 SXM, 141 GB
    H200,
    /// H100 SXM, 80 GB
    H100,
    /// A100 SXM, 80 GB
    A100,
    /// L40S, 48 GB
    L40s,
}

/// Peak rates of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Name of the GPU.
    pub name: &'static str,
    /// Bytes of memory, as reported by the driver.
    pub memory: u64,
    /// bf16 operations per second.
    pub flops: f64,
    /// Bytes of memory read or written per second.
    pub bytes: f64,
}

/// Number of GPUs per node, which NVLink connects. Assumed for all kinds of GPUs.
pub const NODE: usize = 8;

/// Links of a GPU, in bytes per second in one direction.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Links {
    /// Link to a GPU of the same node.
    pub node: f64,
    /// Link to GPUs of other nodes, in total.
    pub network: f64,
    /// Link to the host.
    pub host: f64,
}

/// Measured share of the line rate that NCCL reaches: for NVLink 370 of 450 GB/s in one direction (the protocol takes a
/// fifth: its authors in issue 212 of nccl-tests), for a 400 Gb/s port 47 of 50 GB/s (46 to 48: issue 290 there).
const REACHED: [f64; 2] = [370.0 / 450.0, 47.0 / 50.0];

/// On an H200, cuBLAS reaches 790 of the data sheet's 989 TFLOP/s with random data, and a copy 4.3 of its 4.8 TB/s. For
/// other GPUs the same shares of their data sheets are assumed.
const SHARES: [f64; 2] = [790.0 / 989.0, 4.3 / 4.8];

impl Gpu {
    /// True if launches can be recorded for this GPU and their times predicted.
    pub fn is_hopper(self) -> bool {
        matches!(self, Gpu::H200 | Gpu::H100)
    }

    /// Returns the peak rates. Memory is what `nvidia-smi` reports for each GPU. Arithmetic (dense) and bandwidth are
    /// those of NVIDIA's data sheets of H200, H100 SXM, A100 80 GB SXM and L40S, in TFLOP/s and TB/s, times the share
    /// that is reached.
    pub fn ceilings(self) -> Ceilings {
        let (name, mib, tflops, tbytes) = match self {
            Gpu::H200 => ("H200", 143_771, 989.0, 4.8),
            Gpu::H100 => ("H100", 81_559, 989.0, 3.35),
            Gpu::A100 => ("A100", 81_920, 312.0, 2.039),
            Gpu::L40s => ("L40S", 46_068, 362.0, 0.864),
        };
        Ceilings { name, memory: mib << 20, flops: tflops * 1e12 * SHARES[0], bytes: tbytes * 1e12 * SHARES[1] }
    }

    /// Returns the links, from NVIDIA's data sheets. NVLink has 900 GB/s for both directions together (H200, H100), 600
    /// (A100) or none (L40S: PCIe). Each GPU has a port of 400 Gb/s (DGX H100, DGX H200) or 200 Gb/s (DGX A100; assumed
    /// for L40S). PCIe 5 or 4 with 16 lanes has its line rate.
    pub fn links(self) -> Links {
        let (nvlink, port, host) = match self {
            Gpu::H200 | Gpu::H100 => (Some(450.0), 50.0, 64.0),
            Gpu::A100 => (Some(300.0), 25.0, 32.0),
            Gpu::L40s => (None, 25.0, 32.0),
        };
        let node = nvlink.map_or(host, |rate| rate * REACHED[0]);
        Links { node: node * 1e9, network: port * REACHED[1] * 1e9, host: host * 1e9 }
    }
}

impl Ceilings {
    /// Returns the bytes that a plan may use on one of `gpus` GPUs.
    pub fn budget(&self, gpus: usize) -> usize {
        let links = if gpus > 1 { ranks::GPU_OVERHEAD } else { 0 };
        self.memory.saturating_sub(GPU_OVERHEAD + links) as usize
    }
}
