//! Tests of kernels/lane_sum.cu: the same bits as the CPU op.

use omr_runtime::device::Device;

use crate::kernels::inputs::normals;
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};
use crate::ops::lane_sum::{formula, sums};

/// (lanes, stride, elements): one lane; 16-byte accesses with a few elements left at the end; lanes that are not
/// aligned to 16 bytes; no elements.
const SHAPES: [(usize, usize, usize); 5] = [(1, 8, 8), (2, 1024, 1024), (3, 2052, 1031), (8, 1283, 1283), (5, 4, 0)];

fn probe(dev: &mut Device) -> Outcome {
    for (count, stride, n) in SHAPES {
        let (lanes, sum) = (normals::<f32>(1, count * stride), normals::<f32>(2, n));
        let want = formula(&lanes, stride, &sum);
        equal(&format!("{count} lanes, {n} of {stride}"), &sums(dev, &lanes, stride, &sum), &want)?;
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_formula() {
    probe(&mut emu()).unwrap();
    same_bits(3, |dev| Ok(sums(dev, &normals::<f32>(1, 3 * 2052), 2052, &normals::<f32>(2, 1031))));
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("sum.y + x.y", "sum.y + x.x"),
        ("at + lane_sum::EACH <= args.len", "at < args.len"),
        ("i < at + lane_sum::EACH && i < args.len", "i < at + lane_sum::EACH && i + 1 < args.len"),
        ("sum += args.lanes[lane * args.stride + i]", "sum = args.lanes[lane * args.stride + i] + args.lanes[i]"),
    ] {
        mutate_source("lane_sum", from, to, 1, probe);
    }
}
