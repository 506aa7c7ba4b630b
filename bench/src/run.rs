//! Selects the benchmark: the CPU, a device with kernels, the emulator alone, or data loading.

use super::options::Options;
use super::{cpu, emu, first_gpu, gpu, loading};
use omr_base::error::{Error, Result};
use omr_runtime::machine::Machine;

/// Runs the benchmarks that `options` selects and returns a table. `variant` is the value of `--kernel-variant`, which
/// `machine` already uses.
pub fn run(options: &Options, machine: &Machine, variant: &str) -> Result<String> {
    options.output()?;
    match &options.names[..] {
        [name] if name == emu::NAME => emu::run(options, machine),
        [name] if name == first_gpu::NAME => first_gpu::run(options, machine, variant),
        [name] if name == loading::NAME => loading::run(options, machine),
        _ if machine.target.kind.is_gpu() => gpu::run(options, machine),
        _ if options.turns => Err(Error::input("omr bench --turns", "the CPU", "--device cuda or emu")),
        _ => cpu::run(options, machine),
    }
}
