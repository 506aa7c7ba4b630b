//! `omr bench`: how long ops and whole jobs take on this machine, beside the least time its arithmetic and memory allow.

use super::Context;
use super::stdout::print;
use crate::bench;
pub use crate::bench::Options;
use crate::error::Result;

/// Measures and prints a table to stdout.
pub fn run(options: &Options, context: &Context) -> Result<()> {
    print(&context.with_machine(|machine| bench::run(options, machine))?)
}
