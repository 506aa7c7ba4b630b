//! Tests the op that sums gradient lanes.

use omr::device::{Device, Isa};
use omr::ops::lane_sum;
use omr::tensor::{DType, Tensor};

use super::reference::{Random, blank, device, devices, up};

/// Computes the sum one element at a time.
pub fn formula(lanes: &[f32], stride: usize, n: usize) -> Vec<f32> {
    let sum = |i: usize| lanes.iter().skip(i).step_by(stride).copied().reduce(|sum, x| sum + x).unwrap();
    (0..n).map(sum).collect()
}

/// Returns the sum of the first `n` columns of `lanes` twice: written to a separate tensor, and written over the first
/// lane, with the elements behind it.
pub fn sums(dev: &mut Device, lanes: &[f32], stride: usize, n: usize) -> [Vec<f32>; 2] {
    let count = lanes.len() / stride;
    let mut sum = |out: fn(&mut Device, Tensor, usize) -> Tensor| {
        let lanes = up(dev, lanes, &[count, stride]);
        let out = out(dev, lanes, n);
        lane_sum::fwd(dev, lanes, out).unwrap();
        [dev.read::<f32>(out).unwrap(), dev.read::<f32>(lanes).unwrap()]
    };
    let [apart, left] = sum(|dev, _, n| blank(dev, DType::F32, &[n]));
    assert_eq!(left, lanes, "lanes are read only");
    let [there, after] = sum(|_, lanes, n| lanes.slice(0, 1).reshape(&[lanes.cols()]).slice(0, n));
    assert!(after[..n] == there && after[n..] == lanes[n..], "nothing else is written");
    [apart, there]
}

#[test]
fn lanes_are_added_left_to_right() {
    for (count, stride, n) in [(1, 5, 5), (2, 4096, 4096), (3, 9000, 8999), (8, 5001, 4097)] {
        let lanes = Random::new(7).values::<f32>(count * stride);
        let want = formula(&lanes, stride, n);
        for dev in &mut devices() {
            assert_eq!(sums(dev, &lanes, stride, n), [want.clone(), want.clone()], "{count} lanes, {n} of {stride}");
        }
    }
    // The sum starts with the first lane and not with zero.
    let dev = &mut device(1, Isa::Portable);
    assert!(sums(dev, &[-0.0, -0.0], 1, 1).concat().iter().all(|sum| sum.to_bits() == (-0.0f32).to_bits()));
}

#[test]
fn wrong_shapes_are_errors() {
    let dev = &mut device(1, Isa::Portable);
    let (lanes, out) = (blank(dev, DType::F32, &[2, 4]), blank(dev, DType::F32, &[5]));
    assert!(lane_sum::fwd(dev, lanes, out).is_err());
    assert!(lane_sum::fwd(dev, lanes.slice(0, 0), out.slice(0, 4)).is_err());
    let bf16 = blank(dev, DType::Bf16, &[4]);
    assert!(lane_sum::fwd(dev, lanes, bf16).is_err());
}
