//! Compares the positions of a box's elements in shared memory, the values outside a tensor, and the phases of an
//! mbarrier with goldens. The goldens are tables computed from NVIDIA's layout algebra and traces derived from its
//! rules. The device's results must be equal.

use omr_base_tests::golden::{dir, json, report};
use serde_json::Value;

use crate::kernels::calibrate_tma::{Boxed, SENTINEL, WORDS, mbarrier};
use crate::kernels::{hopper, no_hopper, skipped};

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn swizzle(name: &Value) -> u32 {
    name.as_str().unwrap().strip_suffix('B').map_or(0, |bytes| bytes.parse().unwrap())
}

/// Returns a bf16 tensor whose element i has the bits i + 1, so that no element is zero and all are different.
fn numbered(inner: usize, rows: usize) -> Boxed {
    let pitch = (2 * inner).next_multiple_of(16);
    let mut bytes = vec![0u8; pitch * rows];
    for i in 0..inner * rows {
        let at = i / inner * pitch + i % inner * 2;
        bytes[at..at + 2].copy_from_slice(&u16::try_from(i + 1).unwrap().to_le_bytes());
    }
    Boxed {
        memory: bytemuck::pod_collect_to_vec(&bytes),
        element: 2,
        dims: vec![inner as u64, rows as u64],
        strides: vec![pitch as u64],
        sides: Vec::new(),
        swizzle: 0,
        at: vec![0, 0],
        offset: 0,
    }
}

/// Returns an image of sentinels with element `value(i)` at byte `base + offsets[i]`.
fn image(base: usize, offsets: &[usize], value: impl Fn(usize) -> u16) -> Vec<u32> {
    let mut shared = vec![SENTINEL; WORDS];
    let halves: &mut [u16] = bytemuck::cast_slice_mut(&mut shared);
    for (i, offset) in offsets.iter().enumerate() {
        halves[(base + offset) / 2] = value(i);
    }
    shared
}

#[test]
fn elements_of_boxes_lie_where_the_tables_say() {
    if no_hopper("boxes") {
        return;
    }
    let tables = json(&dir().join("isa/tma_box_offsets.json"));
    let mut dev = hopper();
    let mut count = 0;
    let at_bases = tables["misaligned_base"].as_array().unwrap().iter();
    for table in tables["boxes"].as_array().unwrap().iter().chain(at_bases) {
        let (rows, inner) = (number(&table["rows"]), number(&table["inner_elems"]));
        let (offset, places) = match table.get("smem_base") {
            Some(base) => (number(base), numbers(&table["offset_relative_to_base"])),
            None => (0, numbers(&table["byte_offset"])),
        };
        let sides = vec![inner as u32, rows as u32];
        let boxed = Boxed { sides, swizzle: swizzle(&table["swizzle"]), offset, ..numbered(inner, rows) };
        let want = image(offset, &places, |i| i as u16 + 1);
        assert!(boxed.load(&mut dev).unwrap() == want, "{rows} x {inner} at {offset}, swizzle {}", table["swizzle"]);
        count += 1;
    }
    report("isa_tma_boxes", count);
}

#[test]
fn what_lies_outside_a_tensor_is_zero_and_counted() {
    if no_hopper("boxes over an edge") {
        return;
    }
    let tables = json(&dir().join("isa/tma_box_offsets.json"));
    let whole = tables["boxes"].as_array().unwrap().iter().find(|table| {
        (number(&table["rows"]), number(&table["inner_elems"]), swizzle(&table["swizzle"])) == (64, 64, 128)
    });
    let places = numbers(&whole.unwrap()["byte_offset"]);
    let mut dev = hopper();
    let mut count = 0;
    for case in tables["oob_examples"].as_array().unwrap() {
        let start: Vec<i32> = serde_json::from_value(case["start_coord_{inner,row}"].clone()).unwrap();
        let (inner, rows) = (number(&case["tensor_inner"]), number(&case["tensor_rows"]));
        let (columns_inside, rows_inside) = (numbers(&case["in_bounds_cols"]), numbers(&case["in_bounds_rows"]));
        let sides = vec![number(&case["box_inner"]) as u32, number(&case["box_rows"]) as u32];
        let boxed = Boxed { sides, swizzle: swizzle(&case["swizzle"]), at: start.clone(), ..numbered(inner, rows) };
        // The kernel waits for exactly this number of bytes.
        assert_eq!(boxed.bytes(), number(&case["complete_tx_bytes"]));
        let value = |i: usize| {
            let (row, column) = (i / 64, i % 64);
            if !rows_inside.contains(&row) || !columns_inside.contains(&column) {
                return 0;
            }
            let (row, column) = (start[1] + row as i32, start[0] + column as i32);
            (row * inner as i32 + column + 1) as u16
        };
        assert_eq!((0..64 * 64).filter(|i| value(*i) == 0).count(), number(&case["zero_filled_elements"]));
        assert!(boxed.load(&mut dev).unwrap() == image(0, &places, value), "{}", case["name"]);
        count += 1;
    }
    report("isa_tma_outside", count);
}

/// Returns the number of an operation in calibrate_tma.cu.
fn operation(name: &str) -> u32 {
    match name {
        "arrive" => 1,
        "expect_tx" => 2,
        "arrive.expect_tx" => 3,
        "complete_tx" => 4,
        "arrive_drop" => 5,
        "test_wait.parity" => 6,
        "try_wait.parity" => 7,
        other => panic!("no operation {other}"),
    }
}

#[test]
fn mbarriers_pass_their_traces() {
    if no_hopper("mbarriers") {
        return;
    }
    let traces = json(&dir().join("isa/mbarrier_traces.json"));
    let mut count = 0;
    for trace in traces["traces"].as_array().unwrap() {
        let name = &trace["name"];
        let mut operations = vec![[0, number(&trace["init_count"]) as u32]];
        let mut want = vec![2];
        for step in trace["steps"].as_array().unwrap() {
            let asked = step["op"][0].as_str().unwrap();
            operations.push([operation(asked), number(&step["op"][1]) as u32]);
            want.push(step["waitComplete"].as_bool().map_or(2, u32::from));
        }
        let outside = trace["basis"].as_str().unwrap().contains("outside the manual");
        match mbarrier(&mut hopper(), &operations) {
            Ok(found) => {
                assert!(!outside || skipped("an mbarrier used outside its rules"), "{name} passes");
                assert_eq!(found, want, "{name}");
            }
            Err(e) => assert!(outside && e.to_string().contains("before any wait has found"), "{name}: {e}"),
        }
        // After each step, the phase is tested with both parities, if the result is defined.
        if !outside {
            let mut told = vec![operations[0]];
            let mut phases = Vec::new();
            for (step, operation) in trace["steps"].as_array().unwrap().iter().zip(&operations[1..]) {
                let parity = number(&step["phase_parity"]) as u32;
                told.extend([*operation, [6, parity ^ 1], [6, parity]]);
                phases.extend([1, 0]);
            }
            let answers = mbarrier(&mut hopper(), &told).unwrap();
            let asked: Vec<u32> = answers[1..].chunks(3).flat_map(|three| three[1..].to_vec()).collect();
            assert_eq!(asked, phases, "{name}");
        }
        count += 1;
    }
    report("isa_mbarrier_traces", count);
}

#[test]
fn what_an_mbarrier_forbids_is_refused() {
    if skipped("operations that are undefined") {
        return;
    }
    let traces = json(&dir().join("isa/mbarrier_traces.json"));
    let mut count = 0;
    for case in traces["invalid"].as_array().unwrap() {
        let operations: Vec<[u32; 2]> = match case["op"].as_str().unwrap() {
            "init" => vec![[0, number(&case["count"]) as u32]],
            "expect_tx making tx > 1048575" => vec![[0, 1], [2, 1_048_575], [2, 1]],
            "arrive count > pending" => vec![[0, 2], [1, 3]],
            "mbarrier.init on a live barrier" => vec![[0, 1], [0, 1]],
            other => panic!("no case {other}"),
        };
        let error = mbarrier(&mut hopper(), &operations).err().unwrap_or_else(|| panic!("{case} passes"));
        assert!(error.to_string().contains("mbarrier"), "{case}: {error}");
        count += 1;
    }
    report("isa_mbarrier_refusals", count);
}
