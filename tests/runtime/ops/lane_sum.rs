//! Tests the op that adds the gradients of several ranks.

use omr_runtime::device::{Device, Isa};
use omr_runtime::ops::lane_sum;
use omr_runtime::tensor::DType;

use super::reference::{Random, blank, device, devices, up};

/// Adds `lanes` to `sum` one element at a time.
pub fn formula(lanes: &[f32], stride: usize, sum: &[f32]) -> Vec<f32> {
    let add = |(i, first): (usize, &f32)| lanes.iter().skip(i).step_by(stride).fold(*first, |sum, x| sum + x);
    sum.iter().enumerate().map(add).collect()
}

/// Returns `sum` after the first columns of `lanes` were added to it.
pub fn sums(dev: &mut Device, lanes: &[f32], stride: usize, sum: &[f32]) -> Vec<f32> {
    let given = up(dev, lanes, &[lanes.len() / stride, stride]);
    let behind = [7.0; 8];
    let out = up(dev, &[sum, &behind].concat(), &[sum.len() + behind.len()]);
    lane_sum::fwd(dev, given, out.slice(0, sum.len())).unwrap();
    assert_eq!(dev.read::<f32>(given).unwrap(), lanes, "lanes are read only");
    let mut found = dev.read::<f32>(out).unwrap();
    assert_eq!(found.split_off(sum.len()), behind, "nothing else is written");
    found
}

#[test]
fn lanes_are_added_left_to_right() {
    for (count, stride, n) in [(1, 5, 5), (2, 4096, 4096), (3, 9000, 8999), (8, 5001, 4097)] {
        let (lanes, sum) = (Random::new(7).values::<f32>(count * stride), Random::new(8).values::<f32>(n));
        let want = formula(&lanes, stride, &sum);
        for dev in &mut devices() {
            assert_eq!(sums(dev, &lanes, stride, &sum), want, "{count} lanes, {n} of {stride}");
        }
    }
    // The order matters: another one gives other bits.
    let dev = &mut device(1, Isa::Portable);
    assert_eq!(sums(dev, &[-1e8, 1.0], 1, &[1e8]), [1.0]);
    assert_eq!(sums(dev, &[1.0, -1e8], 1, &[1e8]), [0.0]);
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
