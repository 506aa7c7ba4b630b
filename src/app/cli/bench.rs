//! `omr bench`: measures how long ops and whole jobs take on this machine, and compares them with peak rates or
//! predictions.

use super::Context;
use super::stdout::print;
use omr_base::config::{Backend, DistConfig};
use omr_base::error::Result;
pub use omr_bench::Options;
use omr_runtime::device::{Kind, nccl};
use omr_runtime::ranks::{self, OneRank, Ranks};

/// Runs the benchmarks and prints a table to stdout.
pub fn run(options: &Options, context: &Context) -> Result<()> {
    let variant = context.kernel_variant();
    let measure = |ranks: &mut dyn Ranks| {
        let text = context.with_machine(|machine| omr_bench::run(options, machine, &variant, ranks))?;
        if context.leads() { print(&text) } else { Ok(()) }
    };
    if !options.has_ranks() {
        let mut alone = OneRank::ALONE;
        return measure(&mut alone);
    }
    let with_nccl =
        context.kind() == Kind::Cuda || context.kind() == Kind::Emu && std::env::var_os(nccl::PATH).is_some();
    let backend = if with_nccl { Backend::Nccl } else { Backend::Auto };
    let mut ranks =
        context.ranks(&std::env::temp_dir(), &DistConfig { backend, timeout_s: 60.0, ..DistConfig::default() })?;
    match measure(&mut *ranks) {
        Ok(()) => ranks.leave(Ok(())),
        Err(error) => Err(ranks::report_failure(&mut *ranks, error)),
    }
}
