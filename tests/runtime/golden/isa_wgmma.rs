//! Compares fragment maps, descriptors, layouts and end-to-end cases of wgmma with values computed from NVIDIA's layout
//! algebra. The device's results must be bitwise identical. Every sum is a small integer, so the order of summation
//! does not matter.

use std::collections::BTreeMap;

use base64::Engine;
use half::bf16;
use omr_base_tests::golden::{dir, json, json_gz, report};
use omr_runtime::device::Launch;
use serde_json::Value;

use crate::kernels::calibrate::launch_of;
use crate::kernels::calibrate_wgmma::{Image, Step, THREADS, place};
use crate::kernels::{hopper, no_hopper};

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn bits(hex: &Value) -> u64 {
    u64::from_str_radix(hex.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    list(value).iter().flat_map(|row| list(row).iter().map(|v| v.as_f64().unwrap() as f32)).collect()
}

#[test]
fn fragments_are_where_the_maps_say() {
    let maps = json_gz(&dir().join("isa/wgmma_fragments.json.gz"));
    let mut count = 0;
    for (columns, map) in maps["C"].as_object().unwrap() {
        let columns: usize = columns.parse().unwrap();
        for thread in 0..THREADS {
            for sum in 0..columns / 2 {
                let golden = (number(&map["m"][thread][sum]), number(&map["n"][thread][sum]));
                assert_eq!(place(thread, sum), golden, "columns {columns}, thread {thread}, sum {sum}");
            }
        }
        if no_hopper("wgmma's fragments") {
            continue;
        }
        // Row m of a contains m / 4 at k = 0 and m % 4 at k = 1. Row n of b contains 4 and 1 at these k, and values at
        // the next two k that add 64 n. Therefore every sum identifies its row and column.
        let ones: Vec<Vec<f32>> = (0..64).map(|m| vec![(m / 4) as f32, (m % 4) as f32, 1.0, 1.0]).collect();
        let other = |n: usize| vec![4.0, 1.0, (64 * (n / 16 * 16)) as f32, (64 * (n % 16)) as f32];
        let image = Image::plain(&ones, &(0..columns).map(other).collect::<Vec<_>>());
        let found = image.run(&mut hopper(), columns, 0, &[image.step()]).unwrap();
        for (i, sum) in found[0].iter().enumerate() {
            let (m, n) = place(i / (columns / 2), i % (columns / 2));
            assert_eq!(*sum, (m + 64 * n) as f32, "columns {columns}: row {m} column {n}");
        }
        count += 1;
    }
    report("isa_wgmma_fragments", count.max(1));
}

#[test]
fn descriptors_are_the_goldens() {
    if no_hopper("descriptors") {
        return;
    }
    let tables = json(&dir().join("isa/wgmma_descriptors.json"));
    let (mut x, mut want) = (Vec::new(), Vec::new());
    for table in tables["tables"].as_object().unwrap().values() {
        for fields in table.as_object().unwrap().values().flat_map(|t| t.as_object().unwrap().values()) {
            for row in list(fields).iter().flat_map(list) {
                let field = |i: usize| number(&row[i]) as u32;
                x.extend([field(1) << 4, field(2) << 4, field(3) << 4, field(4), field(5)]);
                want.push(bits(&row[0]));
            }
        }
    }
    let n = want.len();
    let launch = Launch::new([n.div_ceil(128) as u32, 1, 1], 128, 0);
    let mut dev = hopper();
    let y = launch_of(&mut dev, "calibrate_wgmma", "calibrate_descriptor", launch, &x, &vec![0; 2 * n], n, 0).unwrap();
    for (i, (found, want)) in y.chunks(2).zip(want).enumerate() {
        assert_eq!(
            u64::from(found[0]) | u64::from(found[1]) << 32,
            want,
            "descriptor {i}: {:x?}",
            &x[5 * i..5 * i + 5]
        );
    }
    report("isa_wgmma_descriptors", n);
}

/// Bytes of shared memory that the largest layout needs at the highest base address.
const LAYOUT: usize = 4096 + 32768;
/// Number of descriptors that a CTA processes.
const BATCH: usize = 48;

/// The elements that each descriptor of a shape covers: descriptor, base, first row, first k, and the layout's depth
/// and offsets.
struct Covered<'a> {
    name: String,
    descriptor: u64,
    base: usize,
    row: usize,
    k: usize,
    depth: usize,
    offsets: &'a [Value],
}

impl Covered<'_> {
    fn offset(&self, row: usize, k: usize) -> usize {
        self.base + number(&self.offsets[(self.row + row) * self.depth + self.k + k])
    }
}

/// Reads the elements that the descriptors of operand `a` (64 rows) or b (`columns` rows) address, in one launch for
/// each byte of the element's number. The other operand is a unit matrix.
fn read_back(columns: usize, is_a: bool, mn: bool, all: &[Covered]) {
    let numbers: Vec<u16> = (0..LAYOUT / 2).map(|i| i as u16).collect();
    let bytes = |shift: u16| -> Vec<bf16> {
        numbers.iter().map(|i| bf16::from_f32(f32::from((i >> shift & 255) as u8))).collect()
    };
    // Rows 0 to 15 of the unit matrix, K-major without swizzle, after the layout.
    let unit = |row: usize, k: usize| bf16::from_f32(f32::from(u8::from(row == k)));
    let behind: Vec<bf16> = (0..256).map(|i| unit(i / 128 * 8 + i % 64 / 8, i / 64 % 2 * 8 + i % 8)).collect();
    let of_unit = (LAYOUT as u64 >> 4) | (128 >> 4) << 16 | (256 >> 4) << 32;
    let registers: Vec<u32> = (0..THREADS)
        .flat_map(|t| {
            let (row, k) = (t / 32 * 16 + t % 32 / 4, t % 4 * 2);
            let one = move |row: usize, k: usize| u32::from(unit(row, k).to_bits());
            let pair = move |row: usize, k: usize| one(row, k) | one(row, k + 1) << 16;
            [pair(row, k), pair(row + 8, k), pair(row, k + 8), pair(row + 8, k + 8)]
        })
        .collect();
    let step = |covered: &Covered| match is_a {
        true => Step { a: covered.descriptor, b: of_unit, registers: vec![0; 512] },
        false => Step { a: 0, b: covered.descriptor, registers: registers.clone() },
    };
    let steps: Vec<Step> = all.iter().map(step).collect();
    let mode = if is_a {
        usize::from(mn) | Image::FROM_ZERO
    } else {
        4 | usize::from(mn) << 1 | Image::FROM_ZERO | Image::FIRST_WARP
    };
    let mut dev = hopper();
    let mut halves = [0, 8].map(|shift| {
        let image = Image::new(&[bytes(shift), behind.clone()].concat());
        image.run_in(&mut dev, columns, mode, &steps, BATCH).unwrap()
    });
    let high = std::mem::take(&mut halves[1]);
    for ((covered, low), high) in all.iter().zip(&halves[0]).zip(&high) {
        for (i, (low, high)) in low.iter().zip(high).enumerate() {
            let (m, n) = place(i / (columns / 2), i % (columns / 2));
            let (row, k) = if is_a { (m, n) } else { (n, m) };
            if k < 16 {
                let found = 2 * (*low as usize + 256 * *high as usize);
                let want = covered.offset(row, k);
                assert_eq!(found, want, "{}: row {row} of the operand, k {k}", covered.name);
            }
        }
    }
}

#[test]
fn every_descriptor_is_read_at_the_layouts_bytes() {
    if no_hopper("descriptors") {
        return;
    }
    let layouts = json_gz(&dir().join("isa/smem_layouts.json.gz"));
    let tables = json(&dir().join("isa/wgmma_descriptors.json"));
    let mut groups: BTreeMap<(usize, bool, bool), Vec<Covered>> = BTreeMap::new();
    let mut count = 0;
    for (name, table) in tables["tables"].as_object().unwrap() {
        let layout = &layouts["tables"][name];
        let (depth, mn) = (number(&layout["k"]), layout["major"] == "MN");
        for (operand, bases) in table.as_object().unwrap() {
            let rows: usize = operand[8..].parse().unwrap();
            let is_a = operand.starts_with("desc_A");
            for (base, blocks) in bases.as_object().unwrap() {
                for (block, steps) in list(blocks).iter().enumerate() {
                    for (step, row) in list(steps).iter().enumerate() {
                        let covered = Covered {
                            name: format!("{name} {operand} {base} rows {block}, step {step}"),
                            descriptor: bits(&row[0]),
                            base: base[4..].parse().unwrap(),
                            row: block * rows,
                            k: step * 16,
                            depth,
                            offsets: list(&layout["byte_offset"]),
                        };
                        let columns = if is_a { 16 } else { rows };
                        groups.entry((columns, is_a, mn)).or_default().push(covered);
                        count += 1;
                    }
                }
            }
        }
    }
    for ((columns, is_a, mn), all) in groups {
        read_back(columns, is_a, mn, &all);
    }
    report("isa_wgmma_operands", count);
}

#[test]
fn products_are_exact_from_every_layout() {
    if no_hopper("wgmma") {
        return;
    }
    let cases = json_gz(&dir().join("isa/e2e_wgmma.json.gz"));
    let mut count = 0;
    for case in list(&cases["cases"]) {
        let memory = base64::engine::general_purpose::STANDARD.decode(case["smem_b64"].as_str().unwrap()).unwrap();
        let columns = number(&case["N"]);
        let mn = |operand: &str, flag: &str| case[operand][flag] == 1;
        let in_registers = case["a"].is_null();
        let mode = usize::from(mn("a", "imm_trans_a"))
            | usize::from(mn("b", "imm_trans_b")) << 1
            | usize::from(in_registers) << 2;
        for group in list(&case["warpgroups"]) {
            let registers = |step: usize| match in_registers {
                true => list(&group["a_regs_b32"][step]).iter().flat_map(list).map(|v| number(v) as u32).collect(),
                false => vec![0; 512],
            };
            let steps: Vec<Step> = (0..4)
                .map(|step| Step {
                    a: if in_registers { 0 } else { bits(&group["desc_a"][step]) },
                    b: bits(&group["desc_b"][step]),
                    registers: registers(step),
                })
                .collect();
            let image = Image::of_bytes(&memory);
            let found = image.run(&mut hopper(), columns, mode, &steps).unwrap();
            assert_eq!(found[3], floats(&group["c_frag"]), "{}", case["name"]);
            if let Some(each) = group["c_frag_after_each_k16"].as_array() {
                for (found, want) in found.iter().zip(each) {
                    assert_eq!(*found, floats(want), "{}", case["name"]);
                }
            }
            count += 1;
        }
    }
    report("isa_wgmma", count);
}
