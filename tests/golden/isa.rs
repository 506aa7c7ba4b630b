//! Fragment maps and end-to-end cases of mma.sync, ldmatrix and stmatrix, computed from NVIDIA's layout algebra: the
//! emulator's are equal to the bit. Every sum is a small integer, so no order of summation can differ.

use base64::Engine;
use omr::device::emu::Options;
use omr::device::{Address, Launch};
use serde_json::Value;

use crate::emulated::Emulated;
use crate::golden::{dir, json, report};

const KERNEL: (&str, &str) = ("kernels/isa_golden.cu", include_str!("isa.cu"));
const LANES: usize = 32;
const SMEM: usize = 4096;
const MMA: u64 = 0;

/// One instruction: its operands in, its operands out.
struct Warp {
    device: Emulated,
    memory: Address,
    rows: Address,
    a: Address,
    b: Address,
    d: Address,
}

#[derive(Default)]
struct Operands {
    memory: Vec<u8>,
    rows: Vec<u32>,
    a: Vec<u32>,
    b: Vec<u32>,
    d: Vec<f32>,
}

impl Warp {
    fn run(instruction: u64, mut operands: Operands) -> Operands {
        let mut device = Emulated::new(KERNEL, Options::default());
        let bytes = operands.memory.len();
        operands.memory.resize(bytes.max(16), 0);
        operands.rows.resize(LANES, 0);
        operands.a.resize(LANES * 4, 0);
        operands.b.resize(LANES * 4, 0);
        operands.d.resize(LANES * 4, 0.0);
        let mut warp = Warp {
            memory: device.put(&operands.memory),
            rows: device.put_words(&operands.rows),
            a: device.put_words(&operands.a),
            b: device.put_words(&operands.b),
            d: device.put(bytemuck::cast_slice(&operands.d)),
            device,
        };
        let args = [warp.memory, warp.rows, warp.a, warp.b, warp.d, bytes as u64, instruction];
        warp.device.run("isa_golden", "isa_golden", Launch::new([1, 1, 1], LANES as u32, SMEM), &args).unwrap();
        operands.a = warp.device.get_words(warp.a, LANES * 4).unwrap();
        let d = warp.device.get_words(warp.d, LANES * 4).unwrap();
        operands.d = d.into_iter().map(f32::from_bits).collect();
        let memory = warp.device.get_words(warp.memory, operands.memory.len() / 4).unwrap();
        operands.memory = bytemuck::cast_slice(&memory)[..bytes].to_vec();
        operands
    }
}

/// The instruction's number in isa.cu: registers, 10 more for .trans, 20 more for stmatrix.
fn number(instruction: &str) -> u64 {
    let registers: u64 = instruction.split_once(".x").unwrap().1[..1].parse().unwrap();
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

/// Rows of a [lane][register] table, each filled up to 4 registers.
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

/// The integer matrix of a case, as bf16 bits.
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
        let found = Warp::run(instruction, operands).a;
        let width = (instruction % 10) as usize;
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
        let found = Warp::run(instruction, operands).memory;
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
    let found = Warp::run(MMA, Operands { a, b, d, ..Operands::default() });
    assert_eq!(found.d, fragment(&one["d_frag_f32"]));
    let mut count = 1;
    // Two column tiles, each a chain of k16 steps.
    for tile in 0..2 {
        let mut d = vec![0.0; LANES * 4];
        for step in cases["gemm_16x16x64"]["steps"].as_array().unwrap() {
            let (a, b) = (registers(&step["a_regs"]), registers(&step["b_regs"][tile]));
            d = Warp::run(MMA, Operands { a, b, d, ..Operands::default() }).d;
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
    let found = Warp::run(MMA, operands).d;
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
            let width = (instruction % 10) as usize;
            // Row r of matrix j is 8 numbers 64 j + 8 r + c, and lane 8 j + r gives its address.
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
                let found = Warp::run(instruction, Operands { memory: image, rows, ..Operands::default() }).a;
                for lane in 0..LANES {
                    let (at, end) = (lane * 4, lane * 4 + width);
                    assert_eq!(found[at..end], fragment[at..end], "{family} {name}: lane {lane}");
                }
            } else {
                let memory = vec![0; image.len()];
                let (a, b) = (fragment.clone(), fragment);
                let found = Warp::run(instruction, Operands { memory, rows, a, b, ..Operands::default() }).memory;
                assert_eq!(found, image, "{family} {name}");
            }
            count += 1;
        }
    }
    report("isa_matrix_maps", count);
}
