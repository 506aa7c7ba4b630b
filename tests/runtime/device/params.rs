//! Tests the layout of parameters of kernels.

use omr_runtime::device::{Memory, Params, Plan, Region};

#[test]
fn members_lie_where_c_puts_them() {
    let mut memory = Memory::map(&Plan::uniform(1 << 12)).unwrap();
    let span = memory.alloc(Region::Weights, 64).unwrap();
    let mut inner = Params::default().with(true);
    inner.append_address(span);
    let tail = 7;
    let bytes = Params::default().with(1.5f32).with(inner).with([2i32, 3]).with(tail).into_bytes(&memory);
    assert_eq!(bytes.len(), 40);
    let word = |i: usize| i32::from_ne_bytes(bytes[i..i + 4].try_into().unwrap());
    assert_eq!([8, 24, 28, 32, 36].map(word), [1, 2, 3, 7, 0]);
    assert_eq!(bytes[16..24], memory.address(span).to_ne_bytes());
    assert_eq!(Params::of(&[1u64, 2]).into_bytes(&memory).len(), 16);
}
