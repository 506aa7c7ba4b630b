//! Stamps in the stream of a GPU. Two of them give the mean clock of the multiprocessors between them.

use std::collections::HashMap;

use crate::device::{Device, Gpu, params};
use crate::ops::check;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// CTAs of a launch, more than any GPU has multiprocessors.
const CTAS: usize = 256;
/// Bytes of a stamp: for each CTA, the cycles, the nanoseconds and the number of its multiprocessor.
pub const BYTES: usize = CTAS * size_of::<[u64; 3]>();

/// Writes the cycle counter of each multiprocessor and the time to `out`, u8 `[BYTES]`. Returns an error on the CPU.
pub fn write(dev: &mut Device, out: Tensor) -> Result<()> {
    const OP: &str = "stamp::write";
    check::tensor(OP, "out", out, DType::U8, &[BYTES])?;
    let launch = check::launch(OP, CTAS, 32, 0)?;
    let gpu = |mut gpu: Gpu<'_>| gpu.launch("stamp", "stamp", launch, params!(stamp::Args { out }));
    dev.op(OP).run(|_| check::fail(OP, "a GPU", "the CPU"), gpu)
}

/// Returns the mean clock in MHz between two stamps: the median over the multiprocessors that wrote both. Returns `None`
/// if there is none.
pub fn mhz(dev: &mut Device, [from, to]: [Tensor; 2]) -> Result<Option<f64>> {
    let mut read = |stamp| -> Result<Vec<[u64; 3]>> { Ok(bytemuck::pod_collect_to_vec(&dev.read_bytes(stamp)?)) };
    Ok(clock(&read(from)?, &read(to)?))
}

/// Computes [`mhz`] from the words of two stamps: cycles, nanoseconds and number of each CTA's multiprocessor.
pub fn clock(from: &[[u64; 3]], to: &[[u64; 3]]) -> Option<f64> {
    let from: HashMap<u64, [u64; 3]> = from.iter().map(|stamp| (stamp[2], *stamp)).collect();
    let clock = |to: &[u64; 3]| -> Option<f64> {
        let begin = from.get(&to[2])?;
        let passed = to[1].checked_sub(begin[1]).filter(|&passed| passed > 0)?;
        Some(1e3 * to[0].checked_sub(begin[0])? as f64 / passed as f64)
    };
    let mut clocks: Vec<f64> = to.iter().filter_map(clock).collect();
    clocks.sort_by(f64::total_cmp);
    clocks.get(clocks.len() / 2).copied()
}
