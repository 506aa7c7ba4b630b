//! Tests the rules of tensor maps.

use omr_runtime::device::TensorMap;

#[test]
fn each_rule_is_named() {
    let good = TensorMap {
        address: 0x1000,
        element: 2,
        dims: vec![3584, 100],
        strides: vec![7168],
        box_dims: vec![64, 128],
        swizzle: 128,
    };
    good.check().unwrap();
    // The panels of fast.cu: columns 64 apart are the outermost dimension.
    let panels =
        TensorMap { dims: vec![64, 100, 56], strides: vec![7168, 128], box_dims: vec![64, 128, 1], ..good.clone() };
    panels.check().unwrap();
    type Change = fn(&mut TensorMap);
    let broken: [(Change, &str); 19] = [
        (|m| m.element = 8, "elements of 8 bytes"),
        (|m| m.dims = vec![8], "1 dimensions"),
        (|m| m.strides.clear(), "0 strides"),
        (|m| m.box_dims.push(1), "3 box dimensions"),
        (|m| m.address += 8, "0x1008"),
        (|m| m.dims[1] = 0, "a dimension of 0"),
        (|m| m.dims[1] = (1 << 32) + 1, "a dimension of 4294967297"),
        (|m| m.strides[0] = 7176, "7176 bytes is not a multiple of 16"),
        (|m| m.strides[0] = 1 << 40, "below 2^40"),
        (|m| m.strides[0] = 7152, "of 7168 bytes"),
        (|m| m.box_dims[1] = 257, "a box side of 257"),
        (|m| m.box_dims[0] = 4, "a box row of 8 bytes"),
        (|m| m.box_dims[0] = 128, "wider than its swizzle of 128"),
        (|m| m.box_dims[0] = 32, "narrower than its swizzle of 128"),
        (|m| m.swizzle = 64, "wider than its swizzle of 64"),
        (|m| m.swizzle = 16, "a swizzle of 16"),
        (|m| m.address = 0, "0x0"),
        (|m| m.box_dims[1] = 0, "a box side of 0"),
        (|m| (m.swizzle, m.box_dims[0]) = (0, 12), "a box row of 24 bytes is not a multiple of 16"),
    ];
    for (spoil, word) in broken {
        let mut map = good.clone();
        spoil(&mut map);
        let message = map.check().unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}
