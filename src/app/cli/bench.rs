//! `omr bench`: measures how long ops and whole jobs take on this machine, and compares them with peak rates or
//! predictions.

use super::Context;
use super::stdout::print;
use crate::bench;
pub use crate::bench::Options;
use crate::error::Result;

/// Runs the benchmarks and prints a table to stdout.
pub fn run(options: &Options, context: &Context) -> Result<()> {
    let variant = context.kernel_variant();
    print(&context.with_machine(|machine| bench::run(options, machine, &variant))?)
}
