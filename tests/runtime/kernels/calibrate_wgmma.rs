//! Tests of cu/calibrate_wgmma.cu: wgmma alone, and three questions that decide whether sampling and training can use
//! the same arithmetic: do the bits depend on N, do they change if the operands are swapped, and do they equal those of
//! mma.sync? tests/runtime/golden/isa_wgmma.rs tests layouts and descriptors.

use half::bf16;
use omr_base::error::Result;
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, Kind, Launch};

use crate::kernels::calibrate::launch_of;
use crate::kernels::calibrate_sums::{Tiles, explained};
use crate::kernels::inputs::random;
use crate::kernels::{
    Outcome, equal, hopper, hopper_with, kind, mutate_sites_on, mutate_source_of, no_hopper, same_bits_on, skipped,
};

/// Threads of a warpgroup.
pub const THREADS: usize = 128;
const FILE: &str = "calibrate_wgmma";
/// Columns of k per instruction, and rows of its a.
const STEP: usize = 16;
const ROWS: usize = 64;
/// Bytes of `calibrate::Image`.
const SMEM: usize = 12288 * 4;

/// Shapes of the instruction that isa/wgmma.cuh provides.
const SHAPES: [(usize, &str); 9] = [
    (8, "calibrate_wgmma_n8"),
    (16, "calibrate_wgmma_n16"),
    (32, "calibrate_wgmma_n32"),
    (64, "calibrate_wgmma_n64"),
    (80, "calibrate_wgmma_n80"),
    (96, "calibrate_wgmma_n96"),
    (128, "calibrate_wgmma_n128"),
    (192, "calibrate_wgmma_n192"),
    (256, "calibrate_wgmma_n256"),
];

/// Returns row and column of a thread's accumulator (PTX ISA, wgmma register fragment D).
pub fn place(thread: usize, sum: usize) -> (usize, usize) {
    (thread / 32 * 16 + thread % 32 / 4 + 8 * (sum / 2 % 2), 8 * (sum / 4) + 2 * (thread % 4) + sum % 2)
}

/// Operands of one product.
#[derive(Clone, Default)]
pub struct Step {
    /// Descriptor of a; address 0 is the first byte of the image.
    pub a: u64,
    /// Descriptor of b.
    pub b: u64,
    /// Registers of a, `[128][4]`, if a is in registers.
    pub registers: Vec<u32>,
}

/// Content of shared memory.
pub struct Image {
    words: Vec<u32>,
    /// Rows of a and b that [`Image::plain`] laid out.
    rows: [usize; 2],
}

impl Image {
    /// Mode flag: each product starts from zero.
    pub const FROM_ZERO: usize = 8;
    /// Mode flag: only the first warp's accumulators are returned.
    pub const FIRST_WARP: usize = 16;

    /// Creates an image with these elements, from address 0 on.
    pub fn new(elements: &[bf16]) -> Image {
        Image::of_bytes(bytemuck::cast_slice(elements))
    }

    /// Creates an image with these bytes, a multiple of 4.
    pub fn of_bytes(bytes: &[u8]) -> Image {
        Image { words: bytemuck::pod_collect_to_vec(bytes), rows: [0; 2] }
    }

    /// Creates an image of the rows of a and of b, up to 16 elements each, K-major without swizzle: blocks of eight
    /// rows of eight elements, the two blocks along k first.
    pub fn plain(a: &[Vec<f32>], b: &[Vec<f32>]) -> Image {
        let mut elements = vec![bf16::ZERO; (a.len() + b.len()) * STEP];
        for (row, values) in a.iter().chain(b).enumerate() {
            for (k, value) in values.iter().enumerate() {
                elements[row / 8 * 128 + k / 8 * 64 + row % 8 * 8 + k % 8] = bf16::from_f32(*value);
            }
        }
        Image { rows: [a.len(), b.len()], ..Image::new(&elements) }
    }

    /// Returns the product of the operands that `plain` laid out.
    pub fn step(&self) -> Step {
        let of = |start: usize| (start as u64 >> 4) | (128 >> 4) << 16 | (256 >> 4) << 32;
        Step { a: of(0), b: of(self.rows[0] * STEP * 2), registers: vec![0; 4 * THREADS] }
    }

    /// Returns the accumulators [thread][columns / 2] after each product, as one chain or each from zero.
    pub fn run(&self, dev: &mut Device, columns: usize, mode: usize, steps: &[Step]) -> Result<Vec<Vec<f32>>> {
        self.run_in(dev, columns, mode, steps, steps.len())
    }

    /// Runs the products like `run`, with `batch` products per CTA.
    pub fn run_in(
        &self,
        dev: &mut Device,
        columns: usize,
        mode: usize,
        steps: &[Step],
        batch: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let kernel = SHAPES.iter().find(|shape| shape.0 == columns).unwrap().1;
        let ctas = steps.len().div_ceil(batch);
        let mut all = steps.to_vec();
        all.resize(ctas * batch, steps[0].clone());
        let mut x = self.words.clone();
        let halves = |bits: u64| [bits as u32, (bits >> 32) as u32];
        x.extend(all.iter().flat_map(|step| [halves(step.a), halves(step.b)].concat()));
        x.extend(all.iter().flat_map(|step| &step.registers));
        let size = (if mode & Image::FIRST_WARP != 0 { 32 } else { THREADS }) * columns / 2;
        let launch = Launch::new([ctas as u32, 1, 1], THREADS as u32, SMEM);
        let y = vec![0; all.len() * size];
        let y = launch_of(dev, FILE, kernel, launch, &x, &y, self.words.len(), mode | batch << 8)?;
        Ok(y.chunks(size).take(steps.len()).map(|sums| sums.iter().map(|&b| f32::from_bits(b)).collect()).collect())
    }
}

/// Returns rows of standard normal numbers as bf16, whose exponents are up to `spread` apart.
fn rows(name: u64, count: usize, k: usize, spread: f32) -> Vec<Vec<f32>> {
    let mut random = random(name);
    let mut value = || bf16::from_f32(random.normal() * (random.uniform_f32() * spread).exp2()).to_f32();
    (0..count).map(|_| (0..k).map(|_| value()).collect()).collect()
}

/// Returns a b^T [64][columns], computed as one chain.
fn product(dev: &mut Device, a: &[Vec<f32>], b: &[Vec<f32>]) -> Outcome<Vec<f32>> {
    let (columns, k) = (b.len(), b[0].len());
    let part = |m: &[Vec<f32>], at: usize| m.iter().map(|row| row[at..at + STEP].to_vec()).collect::<Vec<_>>();
    let images: Vec<Image> = (0..k).step_by(STEP).map(|at| Image::plain(&part(a, at), &part(b, at))).collect();
    let mut words = Vec::new();
    let steps: Vec<Step> = images
        .iter()
        .map(|image| {
            let mut step = image.step();
            let start = (words.len() as u64 * 4) >> 4;
            (step.a, step.b) = (step.a + start, step.b + start);
            words.extend(&image.words);
            step
        })
        .collect();
    let sums = Image { words, rows: [0; 2] }.run(dev, columns, 0, &steps)?.pop().unwrap();
    let mut d = vec![0.0; ROWS * columns];
    for (i, sum) in sums.into_iter().enumerate() {
        let (m, n) = place(i / (columns / 2), i % (columns / 2));
        d[m * columns + n] = sum;
    }
    Ok(d)
}

fn transposed(d: &[f32], columns: usize) -> Vec<f32> {
    (0..d.len()).map(|i| d[i % (d.len() / columns) * columns + i / (d.len() / columns)]).collect()
}

/// Prints how many values have equal bits. On the emulator all must.
fn compare(what: &str, got: &[f32], want: &[f32]) {
    let same = got.iter().zip(want).filter(|(g, w)| g.to_bits() == w.to_bits()).count();
    println!("  wgmma, {what}: {same} of {} bits equal", want.len());
    assert!(kind() == Kind::Cuda || same == want.len(), "{what}");
}

/// Length of a chain whose steps fit in the image together with 256 columns.
const DEPTH: usize = 4 * STEP;

#[test]
fn bits_for_every_shape_swapped_and_beside_mma() {
    if no_hopper("wgmma") {
        return;
    }
    let mut dev = hopper();
    for (what, spread) in [("normal numbers", 0.0), ("exponents apart", 12.0)] {
        let (a, b) = (rows(1, ROWS, DEPTH, spread), rows(2, 256, DEPTH, spread));
        let whole = product(&mut dev, &a, &b).unwrap();
        for (columns, _) in SHAPES {
            let some = product(&mut dev, &a, &b[..columns]).unwrap();
            let want: Vec<f32> = whole.chunks(256).flat_map(|row| &row[..columns]).copied().collect();
            compare(&format!("{what}, n{columns} beside n256"), &some, &want);
        }
        // Uses b's first 64 rows in the place of a.
        let other = product(&mut dev, &b[..ROWS], &a).unwrap();
        let want: Vec<f32> = whole.chunks(256).flat_map(|row| &row[..ROWS]).copied().collect();
        compare(&format!("{what}, operands swapped"), &transposed(&other, ROWS), &want);
        let places: Vec<(usize, usize)> = (0..4).flat_map(|i| (0..32).map(move |j| (i, j))).collect();
        let parts = places.iter().map(|&(i, j)| (a[16 * i..16 * i + 16].concat(), b[8 * j..8 * j + 8].concat()));
        let tiles = Tiles::of(DEPTH, parts.unzip());
        let mut by_mma = vec![0.0; ROWS * 256];
        let sums = tiles.run(&mut dev, 0, 0.0);
        for (d, (i, j)) in sums.iter().zip(&places) {
            for (e, sum) in d.iter().enumerate() {
                by_mma[(16 * i + e / 8) * 256 + 8 * j + e % 8] = *sum;
            }
        }
        compare(&format!("{what}, mma.sync"), &by_mma, &whole);
        // Finds how wgmma adds, with the models of calibrate_sums.rs.
        let again: Vec<Vec<f32>> = places
            .iter()
            .map(|(i, j)| (0..128).map(|e| whole[(16 * i + e / 8) * 256 + 8 * j + e % 8]).collect())
            .collect();
        let (chain, count) = explained(&format!("wgmma, {what}"), &tiles, &again);
        assert!(kind() == Kind::Cuda || chain == count, "the emulator is one chain");
        let mut worst = 0.0f64;
        tiles.each(&again, |sum, products| {
            let scale = products.iter().map(|p| p.product().abs()).sum::<f64>();
            let exact = products.iter().map(|p| p.product()).sum::<f64>();
            worst = worst.max((f64::from(sum) - exact).abs() / scale);
        });
        // As for mma in calibrate_sums.rs: every term and every sum may be truncated.
        let bound = 2.0 * DEPTH as f64 * (-23f64).exp2();
        println!("  wgmma, {what}: largest error {worst:.2e} of the sum of absolute values, bound {bound:.2e}");
        assert!(worst <= bound);
    }
}

#[test]
fn registers_and_shared_memory_give_the_same_bits() {
    if no_hopper("wgmma") {
        return;
    }
    let mut dev = hopper();
    let (a, b) = (rows(3, ROWS, STEP, 8.0), rows(4, ROWS, STEP, 8.0));
    let image = Image::plain(&a, &b);
    let mut step = image.step();
    let shared = image.run(&mut dev, ROWS, 0, &[step.clone()]).unwrap();
    let bits = |row: usize, k: usize| u32::from(bf16::from_f32(a[row][k]).to_bits());
    let pair = |row: usize, k: usize| bits(row, k) | bits(row, k + 1) << 16;
    step.registers = (0..THREADS)
        .flat_map(|t| {
            let (row, k) = (t / 32 * 16 + t % 32 / 4, t % 4 * 2);
            [pair(row, k), pair(row + 8, k), pair(row, k + 8), pair(row + 8, k + 8)]
        })
        .collect();
    compare("a in registers", &image.run(&mut dev, ROWS, 4, &[step]).unwrap()[0], &shared[0]);
}

/// Returns the sums of `calibrate_wgmma_slots` for small integers, which are exact in any order.
fn slots(dev: &mut Device) -> Outcome<Vec<f32>> {
    let count = 5;
    let integers = |name: u64| -> Vec<bf16> {
        let mut random = random(name);
        (0..count * ROWS * STEP).map(|_| bf16::from_f32((random.next_u32() % 9) as f32 - 4.0)).collect()
    };
    let (a, b) = (integers(5), integers(6));
    let x: Vec<u32> = bytemuck::pod_collect_to_vec(&[a.clone(), b.clone()].concat());
    let launch = Launch::new([1, 1, 1], THREADS as u32, 2 * 2 * ROWS * STEP * 2);
    let y = launch_of(dev, FILE, "calibrate_wgmma_slots", launch, &x, &vec![0; THREADS * 32], count, 0)?;
    let at = |m: &[bf16], step: usize, row: usize, k: usize| m[(step * ROWS + row) * STEP + k].to_f32();
    let mut want = vec![0.0f32; y.len()];
    for (i, sum) in want.iter_mut().enumerate() {
        let (m, n) = place(i / 32, i % 32);
        let terms = (0..count).flat_map(|s| (0..STEP).map(move |k| (s, k)));
        *sum = terms.map(|(s, k)| at(&a, s, m, k) * at(&b, s, n, k)).sum();
    }
    let y: Vec<f32> = y.into_iter().map(f32::from_bits).collect();
    equal("sums", &y, &want)?;
    Ok(y)
}

/// Probe with one product from each kernel of the file.
fn probe(dev: &mut Device) -> Outcome {
    slots(dev)?;
    let (a, b) = (vec![vec![2.0; STEP]; ROWS], vec![vec![3.0; STEP]; 8]);
    let image = Image::plain(&a, &b);
    let sums = image.run(dev, 8, 0, &[image.step(), image.step()])?;
    equal("two products", &sums.concat(), &[vec![96.0; 512], vec![192.0; 512]].concat())?;
    let step = Step { registers: vec![0x4000_4000; 4 * THREADS], ..image.step() };
    equal("a in registers", &image.run(dev, 8, 4, &[step])?.concat(), &[96.0; 512])
}

#[test]
fn no_schedule_changes_a_product() {
    if !no_hopper("wgmma") {
        same_bits_on(hopper_with, 6, slots);
    }
}

#[test]
fn each_call_is_needed() {
    if !no_hopper("wgmma") {
        mutate_sites_on(hopper_with, &["kernels/calibrate_wgmma.cu"], 2, probe);
    }
}

#[test]
fn descriptors_of_no_operand_are_refused() {
    if skipped("descriptors that point nowhere") {
        return;
    }
    let image = Image::plain(&vec![vec![1.0; STEP]; ROWS], &vec![vec![1.0; STEP]; 8]);
    let good = image.step();
    let said = |step: Step| image.run(&mut hopper(), 8, 0, &[step]).unwrap_err().to_string();
    let outside = said(Step { b: good.b + (SMEM as u64 >> 4), ..good.clone() });
    assert!(outside.contains("the wgmma's read of 16 bytes at offset") && outside.contains("is outside"), "{outside}");
    let unwritten = said(Step { b: good.b + (4096 >> 4), ..good.clone() });
    assert!(unwritten.contains("some of which nobody has written"), "{unwritten}");
    let turned = said(Step { a: good.a | 1 << 49, ..good });
    assert!(turned.contains("operand a has the base offset 1"), "{turned}");
}

/// A swizzle pattern of 128, 64 and 32 bytes has 8, 4 and 2 rows of 128 bytes. An operand that starts within a pattern
/// needs a base offset (PTX ISA, matrix descriptor format), so one without is refused.
#[test]
fn swizzled_operands_start_where_their_pattern_starts() {
    if skipped("operands that start within their swizzle pattern") {
        return;
    }
    let image = Image::new(&vec![bf16::ONE; 12_288]);
    let plain = (128 >> 4) << 16 | (256 >> 4) << 32;
    for (layout, rows) in [(1u64, 8), (2, 4), (3, 2)] {
        for row in 0..9 {
            // Groups of eight rows of 128, 64 or 32 bytes follow one another.
            let a = (row * 128) >> 4 | (16 >> 4) << 16 | (2048 >> layout >> 4) << 32 | layout << 62;
            let step = Step { a, b: plain, registers: vec![0; 4 * THREADS] };
            match image.run(&mut hopper(), 8, 0, &[step]) {
                Ok(sums) => assert!(row % rows == 0 && sums[0] == [16.0; 512], "layout {layout}, row {row}"),
                Err(e) => {
                    let text = format!("in row {} of its swizzle pattern", row % rows);
                    assert!(row % rows != 0 && e.to_string().contains(&text), "layout {layout}, row {row}: {e}");
                }
            }
        }
    }
}

/// The values of attention with heads of 80 elements lie in two panels of 64 columns, of which b uses the second one
/// only in part. No published kernel has this layout, so this test compares it with an operand without swizzle.
#[test]
fn eighty_columns_of_two_swizzled_panels_give_the_bits_of_plain_ones() {
    if no_hopper("wgmma") {
        return;
    }
    let (mut dev, columns) = (hopper(), 80);
    let (a, b) = (rows(3, ROWS, STEP, 0.0), rows(4, columns, STEP, 0.0));
    let want = product(&mut dev, &a, &b).unwrap();
    // a is plain; b begins behind it at a multiple of 1,024 bytes. A row of a panel has one k of 64 columns.
    let plain = Image::plain(&a, &[]);
    let mut elements: Vec<bf16> = bytemuck::pod_collect_to_vec(&plain.words);
    let first = elements.len();
    elements.resize(first + 2 * STEP * 64, bf16::ZERO);
    for (column, row) in b.iter().enumerate() {
        for (k, value) in row.iter().enumerate() {
            let chunk = (column % 64 / 8) ^ (k % 8);
            elements[first + column / 64 * STEP * 64 + k * 64 + chunk * 8 + column % 8] = bf16::from_f32(*value);
        }
    }
    let b = [(0, 2 * first), (16, STEP * 128), (32, 8 * 128)].map(|(at, bytes)| (bytes as u64 >> 4) << at);
    let step = Step { b: b.iter().sum::<u64>() | 1 << 62, ..plain.step() };
    const B_IS_MN_MAJOR: usize = 2;
    let sums = Image::new(&elements).run(&mut dev, columns, B_IS_MN_MAJOR, &[step]).unwrap().pop().unwrap();
    let mut got = vec![0.0; ROWS * columns];
    for (i, sum) in sums.into_iter().enumerate() {
        let (m, n) = place(i / (columns / 2), i % (columns / 2));
        got[m * columns + n] = sum;
    }
    compare("80 columns in two swizzled panels", &got, &want);
}

/// Plausible mistakes.
const MISTAKES: [(&str, &str); 9] = [
    ("isa::wgmma_wait<1>();", "isa::wgmma_wait<2>();"),
    ("int slot = step % 2;", "int slot = 0;"),
    ("matrix_descriptor(smem.b[slot], 128, 256,", "matrix_descriptor(smem.b[slot], 256, 128,"),
    ("isa::Swizzle::none), step > 0);", "isa::Swizzle::none), thread > 0);"),
    ("isa::Swizzle::none), step > 0);", "isa::Swizzle::none), step > 0);\n        sums[3] += 0.0f;"),
    (
        "Tiles>();\n    int thread = threadIdx.x, count = int(args.n);",
        "Tiles>();\n    int thread = threadIdx.x, count = int(args.n);\n    if (thread >= 96) return;",
    ),
    (
        "isa::wgmma<B>(sums, left, b, accumulate);",
        "isa::wgmma<B>(sums, left, b, accumulate);\n            left[0] = 0;",
    ),
    (
        "isa::wgmma<B>(sums, left, b, accumulate);",
        "left[0] = 0;\n            isa::wgmma<B>(sums, left, b, accumulate);",
    ),
    (
        "isa::wgmma<A, B>(sums, a, b, accumulate);",
        "sums[0] = 0.0f;\n            isa::wgmma<A, B>(sums, a, b, accumulate);",
    ),
];

#[test]
fn a_slot_that_is_written_too_early_is_seen() {
    mutate_source_of(Arch::Sm90a, FILE, MISTAKES[1].0, MISTAKES[1].1, 1, probe);
}

#[test]
#[ignore = "a compilation each"]
fn mistakes_are_seen() {
    for (from, to) in MISTAKES {
        mutate_source_of(Arch::Sm90a, FILE, from, to, 2, probe);
    }
}
