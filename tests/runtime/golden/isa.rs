//! Compares fragment maps and end-to-end cases of mma.sync, ldmatrix and stmatrix with values computed from NVIDIA's
//! layout algebra. The device's results must be bitwise identical. Every sum is a small integer, so the order of
//! summation does not matter.

use base64::Engine;
use omr_base_tests::golden::{dir, json, report};
use serde_json::Value;

use crate::kernels::calibrate::launch;
use crate::kernels::emu;

const LANES: usize = 32;
/// Number of words of shared memory of `calibrate_matrix`.
const MEMORY: usize = 1024;
const MMA: usize = 0;

#[derive(Default)]
struct Operands {
    memory: Vec<u8>,
    rows: Vec<u32>,
    a: Vec<u32>,
    b: Vec<u32>,
    d: Vec<f32>,
}

/// Runs one instruction with one warp.
fn run(instruction: usize, mut operands: Operands) -> Operands {
    let bytes = operands.memory.len();
    operands.memory.resize(MEMORY * 4, 0);
    operands.rows.resize(LANES, 0);
    operands.a.resize(LANES * 4, 0);
    operands.b.resize(LANES * 4, 0);
    operands.d.resize(LANES * 4, 0.0);
    let Operands { memory, rows, a, b, d } = operands;
    let x = [bytemuck::pod_collect_to_vec(&memory), rows, a, b, bytemuck::cast_vec(d)].concat();
    let y = vec![0; MEMORY + 2 * LANES * 4];
    let y = launch(&mut emu(), "calibrate_matrix", 1, LANES, &x, &y, bytes / 4, instruction).unwrap();
    let (memory, registers) = y.split_at(MEMORY);
    let (a, d) = registers.split_at(LANES * 4);
    Operands {
        memory: bytemuck::cast_slice(memory)[..bytes].to_vec(),
        a: a.to_vec(),
        d: d.iter().map(|&bits| f32::from_bits(bits)).collect(),
        ..Operands::default()
    }
}

/// Returns the instruction's number in calibrate.cu: its number of registers, plus 10 for .trans, plus 20 for stmatrix.
fn number(instruction: &str) -> usize {
    let registers: usize = instruction.split_once(".x").unwrap().1[..1].parse().unwrap();
    let trans = if instruction.ends_with(".trans") { 10 } else { 0 };
    let store = if instruction.starts_with("stmatrix") { 20 } else { 0 };
    registers + trans + store
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| u32::try_from(v.as_u64().unwrap()).unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// Returns the rows of a [lane][register] table, each filled up to 4 registers.
fn registers(table: &Value) -> Vec<u32> {
    let lane = |row: &Value| {
        let mut row = numbers(row);
        row.resize(4, 0);
        row
    };
    table.as_array().unwrap().iter().flat_map(lane).collect()
}

fn base64(text: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap()
}

/// Returns the integer matrix of a case as bf16 bits.
fn matrix(value: &Value) -> Vec<Vec<u32>> {
    let bits = |v: f32| v.to_bits() >> 16;
    value.as_array().unwrap().iter().map(|row| floats(row).into_iter().map(bits).collect()).collect()
}

#[test]
fn ldmatrix_and_stmatrix_cases_are_exact() {
    let cases = json(&dir().join("isa/e2e_mma_sync.json"));
    let mut count = 0;
    for case in cases["ldmatrix"].as_array().unwrap() {
        let name = &case["name"];
        let instruction = number(case["instruction"].as_str().unwrap());
        let memory = base64(&case["smem_b64"]);
        let operands = Operands { memory, rows: numbers(&case["lane_addresses"]), ..Operands::default() };
        let found = run(instruction, operands).a;
        let width = instruction % 10;
        let expected = registers(&case["result_regs_b32"]);
        for lane in 0..LANES {
            let (at, end) = (lane * 4, lane * 4 + width);
            assert_eq!(found[at..end], expected[at..end], "{name}: lane {lane}");
        }
        count += 1;
    }
    for case in cases["stmatrix"].as_array().unwrap() {
        let instruction = number(case["instruction"].as_str().unwrap());
        let source = registers(&case["source_regs_b32"]);
        let operands = Operands {
            memory: vec![0xCD; case["smem_bytes"].as_u64().unwrap() as usize],
            rows: numbers(&case["lane_addresses"]),
            b: source.clone(),
            a: source,
            ..Operands::default()
        };
        let found = run(instruction, operands).memory;
        assert_eq!(found, base64(&case["smem_after_b64"]), "{}", case["name"]);
        count += 1;
    }
    report("isa_matrix_moves", count);
}

#[test]
fn mma_cases_are_exact() {
    let cases = json(&dir().join("isa/e2e_mma_sync.json"));
    let fragment = |table: &Value| -> Vec<f32> { table.as_array().unwrap().iter().flat_map(floats).collect() };
    let one = &cases["mma_m16n8k16"];
    let d = fragment(&one["c_frag_f32"]);
    let (a, b) = (registers(&one["a_regs_b32"]), registers(&one["b_regs_b32"]));
    let found = run(MMA, Operands { a, b, d, ..Operands::default() });
    assert_eq!(found.d, fragment(&one["d_frag_f32"]));
    let mut count = 1;
    // Two column tiles, each a chain of k16 steps.
    for tile in 0..2 {
        let mut d = vec![0.0; LANES * 4];
        for step in cases["gemm_16x16x64"]["steps"].as_array().unwrap() {
            let (a, b) = (registers(&step["a_regs"]), registers(&step["b_regs"][tile]));
            d = run(MMA, Operands { a, b, d, ..Operands::default() }).d;
            assert_eq!(d, fragment(&step["d_frag_after"][tile]));
            count += 1;
        }
    }
    report("isa_mma", count);
}

#[test]
fn the_mma_maps_place_every_element() {
    let maps = json(&dir().join("isa/warp_fragments.json"));
    let maps = &maps["mma_m16n8k16_bf16"];
    let case = &json(&dir().join("isa/e2e_mma_sync.json"))["mma_m16n8k16"];
    let (a, b) = (matrix(&case["A"]), matrix(&case["B_n_by_k"]));
    let place = |map: &Value, (row, column): (&str, &str), lane: usize, element: usize| {
        let at = |name: &str| map[name][lane][element].as_u64().unwrap() as usize;
        (at(row), at(column))
    };
    let mut operands = Operands { a: vec![0; LANES * 4], b: vec![0; LANES * 4], ..Operands::default() };
    for lane in 0..LANES {
        for element in 0..8 {
            let (m, k) = place(&maps["A"], ("m", "k"), lane, element);
            operands.a[lane * 4 + element / 2] |= a[m][k] << (16 * (element % 2));
        }
        for element in 0..4 {
            let (n, k) = place(&maps["B"], ("n", "k"), lane, element);
            operands.b[lane * 4 + element / 2] |= b[n][k] << (16 * (element % 2));
        }
    }
    let found = run(MMA, operands).d;
    let value = |bits: u32| f32::from_bits(bits << 16);
    for lane in 0..LANES {
        for element in 0..4 {
            let (m, n) = place(&maps["C"], ("m", "n"), lane, element);
            let expected: f32 = (0..16).map(|k| value(a[m][k]) * value(b[n][k])).sum();
            assert_eq!(found[lane * 4 + element], expected, "lane {lane} element {element}: row {m} column {n}");
        }
    }
    report("isa_mma_map", 1);
}

#[test]
fn the_ldmatrix_and_stmatrix_maps_place_every_element() {
    let maps = json(&dir().join("isa/warp_fragments.json"));
    let mut count = 0;
    for family in ["ldmatrix_b16", "stmatrix_b16"] {
        for (name, map) in maps[family].as_object().unwrap() {
            let instruction = number(&format!("{}.{name}", family.trim_end_matches("_b16")));
            let width = instruction % 10;
            // Row r of matrix j contains the 8 numbers 64 j + 8 r + c. Lane 8 j + r provides its address.
            let rows = numbers(&map["address_lane_to_row"]).into_iter().map(|row| row * 16).collect();
            let number_of = |lane: usize, element: usize| {
                let at = |part: &str| map[part][lane][element].as_u64().unwrap() as u32;
                64 * at("matrix") + 8 * at("row") + at("col")
            };
            let pairs =
                |lane: usize, register: usize| number_of(lane, 2 * register) | number_of(lane, 2 * register + 1) << 16;
            let image: Vec<u8> = (0..64 * width as u16).flat_map(u16::to_le_bytes).collect();
            let mut fragment = vec![0; LANES * 4];
            for lane in 0..LANES {
                for register in 0..width {
                    fragment[lane * 4 + register] = pairs(lane, register);
                }
            }
            if family == "ldmatrix_b16" {
                let found = run(instruction, Operands { memory: image, rows, ..Operands::default() }).a;
                for lane in 0..LANES {
                    let (at, end) = (lane * 4, lane * 4 + width);
                    assert_eq!(found[at..end], fragment[at..end], "{family} {name}: lane {lane}");
                }
            } else {
                let memory = vec![0; image.len()];
                let (a, b) = (fragment.clone(), fragment);
                let found = run(instruction, Operands { memory, rows, a, b, ..Operands::default() }).memory;
                assert_eq!(found, image, "{family} {name}");
            }
            count += 1;
        }
    }
    report("isa_matrix_maps", count);
}
