//! Selects the benchmark: the CPU, a device with kernels, the emulator alone, or data loading.

use super::options::{Options, RANKS};
use super::{cpu, emu, first_gpu, gpu, loading, ranks};
use omr_base::error::{Error, Result};
use omr_runtime::machine::Machine;
use omr_runtime::ops::gemm::candidates;
use omr_runtime::ranks::Ranks;

/// Runs the benchmarks that `options` selects and returns a table. `variant` is the value of `--kernel-variant`, which
/// `machine` already uses. `all` are the ranks, for [`Options::has_ranks`].
pub fn run(options: &Options, machine: &Machine, variant: &str, all: &mut dyn Ranks) -> Result<String> {
    options.output()?;
    if options.candidate.as_deref() == Some("list") {
        return Ok(candidates().iter().map(|candidate| format!("{candidate}\n")).collect());
    }
    match &options.names[..] {
        _ if options.has_ranks() => ranks::run(options, machine, all),
        _ if options.gpus.is_some() => Err(Error::input("omr bench --gpus", "another benchmark", RANKS)),
        [name] if name == emu::NAME => emu::run(options, machine),
        [name] if name == first_gpu::NAME => first_gpu::run(options, machine, variant),
        [name] if name == loading::NAME => loading::run(options, machine),
        _ if machine.target.kind.is_gpu() => gpu::run(options, machine),
        _ if options.candidate.is_some() => {
            Err(Error::input("omr bench --candidate", "the CPU", "--device cuda or emu"))
        }
        _ if options.turns => Err(Error::input("omr bench --turns", "the CPU", "--device cuda or emu")),
        _ => cpu::run(options, machine),
    }
}
