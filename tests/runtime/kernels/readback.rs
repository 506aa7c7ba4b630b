//! Tests of tensors that are read back while other work continues.

use omr_runtime::device::readback::ends;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::rows;
use omr_runtime::tensor::{DType, Tensor};

use crate::kernels::{Outcome, Schedule, emu_with, emulator, mutate_sites, skipped};

/// A length that fills two pinned buffers and a bit more.
const LONG: usize = (33 << 20) / 4;

fn value(i: usize) -> u32 {
    (i as u32).wrapping_mul(2_654_435_761)
}

/// Reads two tensors that a kernel wrote, and overwrites them after the readback is finished.
fn read_beside(dev: &mut Device) -> Outcome {
    let [long, short] = [LONG, 5].map(|len| (0..len).map(value).collect::<Vec<u32>>());
    let tensors = [&long, &short].map(|data| dev.upload(Region::Weights, data, &[data.len()]).unwrap());
    let (sink, mut arriving) = ends();
    dev.begin_readback(&tensors.map(|t| t.span()), sink)?;
    // Ops that only read the tensors may run meanwhile. They also deliver the parts that have arrived.
    let mark = dev.mark(Region::Workspace);
    let zeros = dev.zeros(Region::Workspace, DType::Bf16, &[4, 8])?;
    let idx = dev.upload(Region::Workspace, &[3u32, 0], &[2])?;
    let out = dev.alloc(Region::Workspace, DType::Bf16, &[2, 8])?;
    rows::gather(dev, zeros, idx, out)?;
    dev.release(mark);
    dev.finish_readback()?;
    tensors.into_iter().try_for_each(|t: Tensor| dev.fill_zero(t))?;
    // No byte has been taken so far: a slow disk does not delay an update.
    let bytes = arriving.take(4 * (LONG + 5)).unwrap();
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
    match words == [long, short].concat() {
        true => Ok(()),
        false => Err("other bytes than were there".into()),
    }
}

#[test]
fn what_is_read_is_the_memory_as_it_was() {
    for schedule in Schedule::several(4) {
        read_beside(&mut emu_with(schedule)).unwrap_or_else(|e| panic!("{schedule:?}: {e}"));
    }
}

#[test]
fn every_wait_is_needed() {
    mutate_sites(&["src/runtime/device/readback.rs"], 4, read_beside);
}

#[test]
fn a_receiver_that_is_gone_ends_it() {
    let mut dev = emu_with(Schedule::FIXED);
    let data: Vec<u32> = (0..LONG).map(value).collect();
    let tensor = dev.upload(Region::Weights, &data, &[LONG]).unwrap();
    let (sink, arriving) = ends();
    drop(arriving);
    dev.begin_readback(&[tensor.span()], sink).unwrap();
    dev.finish_readback().unwrap();
    if skipped("how often the host waited") {
        return;
    }
    let waits = emulator(&mut dev).counters().synchronizations;
    dev.finish_readback().unwrap();
    assert_eq!(emulator(&mut dev).counters().synchronizations, waits, "nothing is left to wait for");
}

#[test]
fn work_that_is_queued_takes_what_has_come_along() {
    // Queued work runs at once in this schedule.
    let mut dev = emu_with(Schedule::several(2)[1]);
    let data: Vec<u32> = (0..LONG).map(value).collect();
    let tensor = dev.upload(Region::Weights, &data, &[LONG]).unwrap();
    let (sink, mut arriving) = ends();
    dev.begin_readback(&[tensor.span()], sink).unwrap();
    if skipped("how often the host waited") {
        return;
    }
    let waits = emulator(&mut dev).counters().synchronizations;
    // Three parts, each delivered by the next op.
    (0..3).for_each(|_| assert!(dev.on_cpu().is_none()));
    dev.finish_readback().unwrap();
    assert_eq!(emulator(&mut dev).counters().synchronizations, waits, "nothing was left to wait for");
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&arriving.take(4 * LONG).unwrap());
    assert!(words == data);
    assert!(arriving.take(1).is_err(), "the end was not told");
}
