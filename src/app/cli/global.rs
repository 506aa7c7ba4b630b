//! Flags of all commands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Device that computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    /// A GPU if the machine has a supported one, otherwise the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, with hand-written kernels in bf16.
    #[value(alias = "gpu")]
    Cuda,
    /// The GPU kernels without a GPU: emulated on the CPU. Slow, for tests.
    Emu,
}

/// Choice of the GPU kernels of matrix products and attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VariantChoice {
    /// wgmma if the GPU supports it and its kernels pass a test at the start, otherwise mma.sync.
    Auto,
    /// wgmma, which needs compute capability 9.0. If its kernels fail the test at the start, the command ends.
    Wgmma,
    /// mma.sync, which every supported GPU has.
    #[value(name = "mma.sync")]
    MmaSync,
}

/// Flags of all commands.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Device that computes
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub device: DeviceKind,
    /// GPU kernels of matrix products and attention
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "VARIANT")]
    pub kernel_variant: VariantChoice,
    /// Load the GPU kernels from this folder, which `tools/build-ptx --lineinfo DIR` wrote, so that profilers show lines
    /// of source
    #[arg(long, global = true, value_name = "DIR")]
    pub kernel_images: Option<PathBuf>,
    /// Compute threads. 0 = one per CPU core. Results are the same for any number
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = threads)]
    pub threads: usize,
    /// Log level: error, warn, info, debug or trace, or a filter such as omr_model::engine=debug
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// Do not print progress and notes on stderr. Errors are still printed
    #[arg(long, global = true)]
    pub quiet: bool,
}

/// Parses a number of threads. The limit rejects typing errors, which could exhaust the processes of the machine.
fn threads(text: &str) -> std::result::Result<usize, String> {
    const MOST: usize = 4096;
    text.parse().ok().filter(|&n| n <= MOST).ok_or_else(|| format!("expected a whole number from 0 to {MOST}"))
}
