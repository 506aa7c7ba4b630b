//! The kinds of GPUs that a plan supports, with their peak rates and the links between them.

use clap::ValueEnum;

use omr_runtime::device::driver::Properties;
use omr_runtime::device::limits::Limits;

/// Kind of GPU, the one with the most memory first. GPUs of compute capability 10.0 and newer run the kernel variant
/// `mma.sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Gpu {
    /// B200 SXM, 180 GB
    B200,
    /// H200 SXM, 141 GB
    H200,
    /// RTX PRO 6000 Blackwell, 96 GB
    #[value(name = "rtx-pro-6000")]
    RtxPro6000,
    /// H20 SXM, 96 GB
    H20,
    /// A100 SXM, 80 GB
    A100,
    /// H100 SXM, 80 GB
    H100,
    /// RTX 6000 Ada, 48 GB
    #[value(name = "rtx-6000-ada")]
    Rtx6000Ada,
    /// L40S, 48 GB
    L40s,
    /// A40, 48 GB
    A40,
    /// A100 SXM, 40 GB
    #[value(name = "a100-40")]
    A100With40,
    /// GeForce RTX 5090, 32 GB
    #[value(name = "5090", alias = "rtx-5090")]
    Rtx5090,
    /// GeForce RTX 3090, 24 GB
    #[value(name = "3090", alias = "rtx-3090")]
    Rtx3090,
    /// GeForce RTX 4090, 24 GB
    #[value(name = "4090", alias = "rtx-4090")]
    Rtx4090,
    /// L4, 24 GB
    L4,
    /// A10, 24 GB
    A10,
    /// GeForce RTX 4060 Ti, 16 GB
    #[value(name = "4060ti", aliases = ["rtx-4060ti", "rtx-4060-ti"])]
    Rtx4060Ti,
    /// GeForce RTX 4080, 16 GB
    #[value(name = "4080", alias = "rtx-4080")]
    Rtx4080,
    /// GeForce RTX 5080, 16 GB
    #[value(name = "5080", alias = "rtx-5080")]
    Rtx5080,
    /// GeForce RTX 3060, 12 GB
    #[value(name = "3060", alias = "rtx-3060")]
    Rtx3060,
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

/// Properties of a kind of GPU:
///
/// - its name, and its compute capability
/// - MiB of memory, as reported by `nvidia-smi`
/// - dense bf16 TFLOP/s with sums in fp32, and TB/s of memory
/// - GB/s of NVLink in one direction (0 if GPUs of a node are connected by PCIe only), of the network port of each GPU,
///   and of PCIe with 16 lanes in one direction
type Sheet = (&'static str, (u32, u32), u64, [f64; 2], [f64; 3]);

impl Gpu {
    /// Returns the name by which the driver reports this GPU, if the performance model knows it: Hopper GPUs with 132
    /// multiprocessors. Other forms of them, such as the H100 PCIe or the GH200, have other rates and other names.
    fn modelled(self) -> Option<&'static str> {
        match self {
            Gpu::H200 => Some("NVIDIA H200"),
            Gpu::H100 => Some("NVIDIA H100 80GB HBM3"),
            _ => None,
        }
    }

    /// True if launches can be recorded for this GPU and their times predicted.
    pub fn has_predictions(self) -> bool {
        self.modelled().is_some()
    }

    /// Returns the GPU with predictions that the driver reports under `name`.
    pub fn with_predictions(name: &str) -> Option<Gpu> {
        Gpu::value_variants().iter().copied().find(|gpu| gpu.modelled() == Some(name))
    }

    /// Returns the properties. Arithmetic and bandwidth are those of NVIDIA's data sheets and architecture white papers.
    /// NVLink has 1,800 GB/s for both directions together (B200), 900 (H200, H100, H20) or 600 (A100). The port has 400
    /// Gb/s (DGX B200, DGX H200, DGX H100; assumed for H20) or 200 Gb/s (DGX A100; assumed for GPUs without NVLink).
    fn sheet(self) -> Sheet {
        match self {
            Gpu::B200 => ("B200", (10, 0), 183_359, [2250.0, 8.0], [900.0, 50.0, 64.0]),
            Gpu::H200 => ("H200", (9, 0), 143_771, [989.0, 4.8], [450.0, 50.0, 64.0]),
            Gpu::RtxPro6000 => ("RTX PRO 6000", (12, 0), 97_887, [503.8, 1.792], [0.0, 25.0, 64.0]),
            Gpu::H20 => ("H20", (9, 0), 97_871, [148.0, 4.0], [450.0, 50.0, 64.0]),
            Gpu::A100 => ("A100", (8, 0), 81_920, [312.0, 2.039], [300.0, 25.0, 32.0]),
            Gpu::H100 => ("H100", (9, 0), 81_559, [989.0, 3.35], [450.0, 50.0, 64.0]),
            Gpu::Rtx6000Ada => ("RTX 6000 Ada", (8, 9), 49_140, [364.2, 0.96], [0.0, 25.0, 32.0]),
            Gpu::L40s => ("L40S", (8, 9), 46_068, [362.0, 0.864], [0.0, 25.0, 32.0]),
            Gpu::A40 => ("A40", (8, 6), 46_068, [149.7, 0.696], [0.0, 25.0, 32.0]),
            Gpu::A100With40 => ("A100 40 GB", (8, 0), 40_960, [312.0, 1.555], [300.0, 25.0, 32.0]),
            Gpu::Rtx5090 => ("RTX 5090", (12, 0), 32_607, [209.5, 1.792], [0.0, 25.0, 64.0]),
            Gpu::Rtx3090 => ("RTX 3090", (8, 6), 24_576, [71.2, 0.936], [0.0, 25.0, 32.0]),
            Gpu::Rtx4090 => ("RTX 4090", (8, 9), 24_564, [165.2, 1.008], [0.0, 25.0, 32.0]),
            Gpu::L4 => ("L4", (8, 9), 23_034, [121.0, 0.3], [0.0, 25.0, 32.0]),
            Gpu::Rtx4060Ti => ("RTX 4060 Ti", (8, 9), 16_380, [44.1, 0.288], [0.0, 25.0, 16.0]),
            Gpu::Rtx4080 => ("RTX 4080", (8, 9), 16_376, [97.5, 0.717], [0.0, 25.0, 32.0]),
            Gpu::Rtx5080 => ("RTX 5080", (12, 0), 16_303, [112.6, 0.96], [0.0, 25.0, 64.0]),
            Gpu::Rtx3060 => ("RTX 3060", (8, 6), 12_288, [25.5, 0.36], [0.0, 25.0, 32.0]),
            Gpu::A10 => ("A10", (8, 6), 23_028, [125.0, 0.6], [0.0, 25.0, 32.0]),
        }
    }

    /// Returns the properties on which the limits of a launch depend. The number of multiprocessors is not one of them.
    pub fn properties(self) -> Option<Properties> {
        let (name, (major, minor), mib, ..) = self.sheet();
        Limits::of(major, minor).map(|limits| limits.properties(name, 1, mib << 20))
    }

    /// Returns the peak rates of the data sheet.
    pub fn data_sheet(self) -> Ceilings {
        let (name, _, mib, [tflops, tbytes], _) = self.sheet();
        Ceilings { name, memory: mib << 20, flops: tflops * 1e12, bytes: tbytes * 1e12 }
    }

    /// Returns the peak rates: those of the data sheet, times the share that is reached.
    pub fn ceilings(self) -> Ceilings {
        let sheet = self.data_sheet();
        Ceilings { flops: sheet.flops * SHARES[0], bytes: sheet.bytes * SHARES[1], ..sheet }
    }

    /// Returns the links.
    pub fn links(self) -> Links {
        let (.., [nvlink, port, host]) = self.sheet();
        let node = if nvlink > 0.0 { nvlink * REACHED[0] } else { host };
        Links { node: node * 1e9, network: port * REACHED[1] * 1e9, host: host * 1e9 }
    }
}
