//! Tests of kernels/stamp.cu: which multiprocessors write a stamp, and the clock between two.

use std::collections::BTreeSet;

use omr_runtime::device::{Device, Isa, Plan, Region};
use omr_runtime::ops::stamp;
use omr_runtime::tensor::DType;

use crate::kernels::{Outcome, Under, emu, mutate_source, under_test};

fn probe(dev: &mut Device) -> Outcome {
    let on_gpu = under_test() == Under::Gpu;
    let mut alloc = |bytes| dev.alloc(Region::State, DType::U8, &[bytes]);
    let (work, stamps) = (alloc(if on_gpu { 1 << 28 } else { 64 })?, [alloc(stamp::BYTES)?, alloc(stamp::BYTES)?]);
    stamp::write(dev, stamps[0])?;
    (0..8).try_for_each(|_| dev.fill_zero(work))?;
    stamp::write(dev, stamps[1])?;
    let written: Vec<[u64; 3]> = bytemuck::pod_collect_to_vec(&dev.read_bytes(stamps[1])?);
    let found = written.iter().map(|stamp| stamp[2]).collect::<BTreeSet<_>>().len();
    // Each CTA of the emulator counts as a multiprocessor, and its cycles are its nanoseconds. No GPU has a clock below
    // 100 MHz or above 4 GHz under load.
    let multiprocessors = if on_gpu { dev.driver().unwrap().properties().multiprocessors as usize } else { 256 };
    let clocks = if on_gpu { 100.0..=4000.0 } else { 1000.0..=1000.0 };
    match stamp::mhz(dev, stamps)? {
        Some(mhz) if found == multiprocessors && clocks.contains(&mhz) => Ok(()),
        mhz => Err(format!("{found} of {multiprocessors} multiprocessors, clock {mhz:?}").into()),
    }
}

#[test]
fn every_multiprocessor_writes_a_stamp_and_two_give_the_clock() {
    probe(&mut emu()).unwrap();
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [("threadIdx.x == 0", "threadIdx.x == 32"), ("args.out[blockIdx.x]", "args.out[blockIdx.x / 2]")]
    {
        mutate_source("stamp", from, to, 1, probe);
    }
}

#[test]
fn the_cpu_has_no_stamps() {
    let mut dev = Device::cpu(&Plan::uniform(1 << 16), 1, Isa::Portable).unwrap();
    let out = dev.alloc(Region::State, DType::U8, &[stamp::BYTES]).unwrap();
    let error = stamp::write(&mut dev, out).unwrap_err().to_string();
    assert!(error.contains("the CPU") && error.contains("a GPU"), "{error}");
}

/// A multiprocessor that wrote only one stamp does not count, and one slow multiprocessor does not change the median.
#[test]
fn the_clock_is_the_median_of_the_multiprocessors_that_wrote_both_stamps() {
    let from = [3, 0, 1, 7].map(|number| [1 << 40 | number, 1 << 50, number]);
    let after = |number, cycles| [(1 << 40 | number) + cycles, (1 << 50) + 1000, number];
    let to = [after(0, 1410), after(9, 5000), after(1, 200), after(3, 1420)];
    assert_eq!(stamp::clock(&from, &to), Some(1410.0));
    assert_eq!(stamp::clock(&from, &[]), None);
    assert_eq!(stamp::clock(&[[0; 3]; 2], &[[0; 3]; 2]), None);
}
