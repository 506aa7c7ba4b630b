//! Cards a plan can be made for.

use clap::ValueEnum;

use crate::device::cuda::CARD_OVERHEAD;

/// A kind of card.
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

/// What a card can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Its name.
    pub name: &'static str,
    /// Bytes of memory, as the driver reports them.
    pub memory: u64,
    /// bf16 operations a second.
    pub flops: f64,
    /// Bytes of memory read or written a second.
    pub bytes: f64,
}

/// On an H200 cuBLAS reaches 790 of the data sheet's 989 TFLOP/s with random data and a copy 4.3 of its 4.8 TB/s; the
/// other cards' ceilings are the same shares of their data sheets.
const SHARES: [f64; 2] = [790.0 / 989.0, 4.3 / 4.8];

impl Gpu {
    /// Whether launches can be listed for it, and their times predicted.
    pub fn is_hopper(self) -> bool {
        matches!(self, Gpu::H200 | Gpu::H100)
    }

    /// Memory: what `nvidia-smi` reports of each card. Arithmetic (dense) and bandwidth: NVIDIA's data sheets of H200,
    /// H100 SXM, A100 80 GB SXM and L40S, in TFLOP/s and TB/s, times what is reached of them.
    pub fn ceilings(self) -> Ceilings {
        let (name, mib, tflops, tbytes) = match self {
            Gpu::H200 => ("H200", 143_771, 989.0, 4.8),
            Gpu::H100 => ("H100", 81_559, 989.0, 3.35),
            Gpu::A100 => ("A100", 81_920, 312.0, 2.039),
            Gpu::L40s => ("L40S", 46_068, 362.0, 0.864),
        };
        Ceilings { name, memory: mib << 20, flops: tflops * 1e12 * SHARES[0], bytes: tbytes * 1e12 * SHARES[1] }
    }
}

impl Ceilings {
    /// Bytes a plan may take.
    pub fn budget(&self) -> usize {
        self.memory.saturating_sub(CARD_OVERHEAD) as usize
    }
}
