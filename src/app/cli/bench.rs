//! `omr bench`: measures how long ops and whole jobs take on this machine, and compares them with peak rates or
//! predictions.

use super::Context;
use super::stdout::print;
use omr_base::error::Result;
pub use omr_bench::Options;

/// Runs the benchmarks and prints a table to stdout.
pub fn run(options: &Options, context: &Context) -> Result<()> {
    let variant = context.kernel_variant();
    print(&context.with_machine(|machine| omr_bench::run(options, machine, &variant))?)
}
