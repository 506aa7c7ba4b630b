//! Tests tensors.

use omr_runtime::device::{Device, Isa, Plan, Region};
use omr_runtime::tensor::DType;

#[test]
fn zeros_are_zero_in_new_and_in_used_memory() {
    let mut dev = Device::cpu(&Plan::uniform(1 << 16), 1, Isa::detect()).unwrap();
    for elements in [100, 1000, 4000] {
        let mark = dev.mark(Region::Overlay);
        // The beginning was used in the previous round; the rest is new.
        let t = dev.zeros(Region::Overlay, DType::F32, &[elements]).unwrap();
        assert!(dev.read::<f32>(t).unwrap().iter().all(|x| *x == 0.0), "{elements}");
        dev.write(t, &vec![1.0_f32; elements]).unwrap();
        let other = dev.zeros(Region::Overlay, DType::F32, &[elements]).unwrap();
        assert!(dev.read::<f32>(other).unwrap().iter().all(|x| *x == 0.0), "{elements}");
        dev.release(mark);
    }
}
