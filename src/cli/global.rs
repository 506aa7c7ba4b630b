//! Flags of all commands.

use clap::{Args, ValueEnum};

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    /// A card where there is one that the kernels run on, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// A card, by hand-written kernels in bf16.
    Cuda,
    /// The kernels without a card: emulated on the processor, slowly, to check them.
    Emu,
}

/// Flags every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Where to compute
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub device: DeviceKind,
    /// Compute threads; 0 takes one for each processor. The result is the same for any number
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = threads)]
    pub threads: usize,
    /// error, warn, info, debug or trace, or a filter such as omr::engine=debug
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// No progress and no notes on stderr; errors still
    #[arg(long, global = true)]
    pub quiet: bool,
}

/// A number of threads, of which a machine may have so many: a typing error is not to fill the process table.
fn threads(text: &str) -> std::result::Result<usize, String> {
    const MOST: usize = 4096;
    text.parse().ok().filter(|&n| n <= MOST).ok_or_else(|| format!("expected a whole number from 0 to {MOST}"))
}
