//! Tests of how mma.sync adds. The emulator uses one fp32 chain of fused multiply-adds over ascending k. A GPU aligns
//! the products of a block and truncates the lower bits. These tests print which models of addition give the GPU's
//! results, and check the results against a bound.

use half::bf16;
use omr_runtime::device::Device;

use crate::kernels::calibrate::launch;
use crate::kernels::inputs::random;
use crate::kernels::{emu, kind};

/// Columns of k per instruction.
const STEP: usize = 16;

/// Tiles of one warp, with A [16][k] and B [8][k] for each.
pub struct Tiles {
    k: usize,
    a: Vec<Vec<f32>>,
    b: Vec<Vec<f32>>,
}

impl Tiles {
    /// Creates tiles of k columns whose elements are drawn by `value`.
    pub fn new(count: usize, k: usize, mut value: impl FnMut() -> f32) -> Tiles {
        let mut matrix = |rows: usize| -> Vec<f32> { (0..rows * k).map(|_| value()).collect() };
        let (a, b) = (0..count).map(|_| (matrix(16), matrix(8))).unzip();
        Tiles { k, a, b }
    }

    /// Creates tiles of these matrices, row-major.
    pub fn of(k: usize, (a, b): (Vec<Vec<f32>>, Vec<Vec<f32>>)) -> Tiles {
        Tiles { k, a, b }
    }

    /// Returns the sums of the products [tile][16][8]; each starts at `start`.
    pub fn run(&self, dev: &mut Device, mode: usize, start: f32) -> Vec<Vec<f32>> {
        self.run_from(dev, mode, |_, _| start)
    }

    /// Computes the sums like `run`. With mode 2, element (row, column) of a tile starts at `start(tile, row * 8 +
    /// column)`.
    pub fn run_from(&self, dev: &mut Device, mode: usize, start: impl Fn(usize, usize) -> f32) -> Vec<Vec<f32>> {
        let steps = self.k / STEP;
        let pair = |m: &[f32], row: usize, k: usize| {
            let bits = |k: usize| u32::from(bf16::from_f32(m[row * self.k + k]).to_bits());
            bits(k) | bits(k + 1) << 16
        };
        let mut x = Vec::new();
        for a in &self.a {
            for (step, lane) in (0..steps).flat_map(|s| (0..32).map(move |l| (s, l))) {
                let (row, k) = (lane / 4, step * STEP + 2 * (lane % 4));
                x.extend([pair(a, row, k), pair(a, row + 8, k), pair(a, row, k + 8), pair(a, row + 8, k + 8)]);
            }
        }
        for b in &self.b {
            for (step, lane) in (0..steps).flat_map(|s| (0..32).map(move |l| (s, l))) {
                let k = step * STEP + 2 * (lane % 4);
                x.extend([pair(b, lane / 4, k), pair(b, lane / 4, k + 8)]);
            }
        }
        let tiles = self.a.len();
        let element = |i: usize| {
            let (lane, register) = (i / 4 % 32, i % 4);
            (lane / 4 + 8 * (register / 2)) * 8 + 2 * (lane % 4) + register % 2
        };
        let from: Vec<u32> = (0..tiles * 128).map(|i| start(i / 128, element(i)).to_bits()).collect();
        let y = launch(dev, "calibrate_mma", tiles, 32, &x, &from, steps, mode).unwrap();
        let place = |found: &[u32]| {
            let mut d = vec![0.0; 128];
            for (i, &bits) in found.iter().enumerate() {
                d[element(i)] = f32::from_bits(bits);
            }
            d
        };
        y.chunks(128).map(place).collect()
    }

    /// Calls `see` with every sum and the factors of its products.
    pub fn each(&self, sums: &[Vec<f32>], mut see: impl FnMut(f32, &[Factors])) {
        for (tile, d) in sums.iter().enumerate() {
            for (i, &sum) in d.iter().enumerate() {
                let at = |k: usize| {
                    let (a, b) = (self.a[tile][i / 8 * self.k + k], self.b[tile][i % 8 * self.k + k]);
                    Factors(bf16::from_f32(a).to_f32(), bf16::from_f32(b).to_f32())
                };
                see(sum, &(0..self.k).map(at).collect::<Vec<Factors>>());
            }
        }
    }
}

/// Factors of a product of two bf16.
#[derive(Clone, Copy)]
pub struct Factors(pub f32, pub f32);

impl Factors {
    /// Returns the product, which is exact.
    pub fn product(self) -> f64 {
        f64::from(self.0) * f64::from(self.1)
    }

    /// Returns the sum of the factors' exponents. The exponent of the product may be one larger.
    fn exponent(self) -> i32 {
        field(self.0) + field(self.1)
    }
}

/// Returns the exponent of a number as hardware reads it: that of subnormal numbers and of zero is -126.
fn field(x: f32) -> i32 {
    (x.to_bits() >> 23 & 0xff).max(1) as i32 - 127
}

/// A way to add. Products of bf16 are exact in f64, and so is a block of them if their exponents are within 37 of each
/// other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Model {
    /// One fused multiply-add after the other.
    Chain,
    /// Blocks of this many products. The sum of each block is exact, is added to the sum so far, and is rounded once,
    /// to nearest.
    Nearest(usize),
    /// Blocks of this many products plus the sum so far. Each term is truncated this many bits below the 24 bits of the
    /// largest term, and the total is truncated to f32.
    Cut(usize, i32),
    /// Blocks like those of `Cut`, but each term is truncated to this many fractional bits of the largest exponent, where
    /// the exponent of a product is the sum of its factors' exponents (kernels/emu/operand.h).
    Aligned(usize, i32),
}

/// The rules reported for Hopper, and for Ampere and Ada (arXiv 2511.10909).
pub const HOPPER: Model = Model::Aligned(16, 25);
pub const AMPERE: Model = Model::Aligned(8, 24);

impl Model {
    fn all() -> impl Iterator<Item = Model> {
        let blocks = [4, 8, 16];
        let cut = blocks.into_iter().flat_map(|b| (0..4).map(move |bits| Model::Cut(b, bits)));
        let aligned = blocks.into_iter().flat_map(|b| (23..27).map(move |bits| Model::Aligned(b, bits)));
        [Model::Chain].into_iter().chain(blocks.map(Model::Nearest)).chain(cut).chain(aligned)
    }

    /// Returns the f32 sum that this model gives.
    pub fn sum(self, start: f32, products: &[Factors]) -> f32 {
        match self {
            Model::Chain => products.iter().fold(start, |s, p| (f64::from(s) + p.product()) as f32),
            Model::Nearest(block) => {
                let exact = |block: &[Factors]| block.iter().map(|p| p.product()).sum::<f64>();
                products.chunks(block).fold(start, |s, block| (exact(block) + f64::from(s)) as f32)
            }
            Model::Cut(block, bits) => {
                let normalised = |s: f32, block: &[Factors]| {
                    let largest = block.iter().map(|p| p.product().abs()).fold(f64::from(s).abs(), f64::max);
                    if largest == 0.0 { 0 } else { exponent(largest) }
                };
                products.chunks(block).fold(start, |s, block| truncated(s, block, normalised(s, block) - 23 - bits))
            }
            Model::Aligned(block, bits) => {
                let largest = |s: f32, block: &[Factors]| block.iter().map(|p| p.exponent()).fold(field(s), i32::max);
                products.chunks(block).fold(start, |s, block| truncated(s, block, largest(s, block) - bits))
            }
        }
    }
}

/// Truncates each term to a multiple of 2^unit, adds them, and truncates the total to f32.
fn truncated(start: f32, products: &[Factors], unit: i32) -> f32 {
    let unit = f64::from(unit).exp2();
    let terms = products.iter().map(|p| p.product()).chain([f64::from(start)]);
    cut(terms.map(|t| (t / unit).trunc()).sum::<f64>() * unit)
}

fn exponent(x: f64) -> i32 {
    (x.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

/// Rounds to f32 toward zero.
fn cut(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near).abs() > x.abs() { f32::from_bits(near.to_bits() - 1) } else { near }
}

/// Prints which models give the device's bits. Returns the number of sums that equal those of [`Model::Chain`], and the
/// number of all sums.
pub fn explained(what: &str, tiles: &Tiles, sums: &[Vec<f32>]) -> (usize, usize) {
    let models: Vec<Model> = Model::all().collect();
    let (mut equal, mut count) = (vec![0; models.len()], 0);
    tiles.each(sums, |sum, products| {
        count += 1;
        for (equal, model) in equal.iter_mut().zip(&models) {
            *equal += usize::from(model.sum(0.0, products).to_bits() == sum.to_bits());
        }
    });
    for (equal, model) in equal.iter().zip(&models) {
        println!("  {what}: {model:?} gives {equal} of {count}");
    }
    (equal[0], count)
}

#[test]
fn sums_are_within_the_bound_of_any_order() {
    let mut random = random(1);
    for (what, k, spread) in [("normal numbers", 16, 0), ("a chain of 32", 512, 0), ("exponents apart", 64, 12)] {
        let tiles = Tiles::new(8, k, || random.normal() * (random.next_u32() as f32 / 4e9 * spread as f32).exp2());
        let sums = tiles.run(&mut emu(), 0, 0.0);
        let (chain, count) = explained(&format!("mma, {what}"), &tiles, &sums);
        assert!(chain == count || kind() == omr_runtime::device::Kind::Cuda, "the emulator is one chain");
        let mut worst = 0.0f64;
        tiles.each(&sums, |sum, products| {
            let exact = products.iter().map(|p| p.product()).sum::<f64>();
            let scale = products.iter().map(|p| p.product().abs()).sum::<f64>();
            worst = worst.max((f64::from(sum) - exact).abs() / scale);
        });
        // Every term and every sum may be truncated: 2^-23 of the sum so far, twice.
        let bound = 2.0 * k as f64 * (-23f64).exp2();
        println!("  mma, {what}: largest error {worst:.2e} of the sum of absolute values, bound {bound:.2e}");
        assert!(worst <= bound);
        assert_eq!(tiles.run(&mut emu(), 0, 0.0), sums, "the same again");
        assert_eq!(tiles.run(&mut emu(), 1, 0.0), sums, "B from the other half of a fragment");
    }
}

/// Adds 16 products with the value one to a larger sum. The size of the sum at which products begin to be lost shows
/// the block size and the guard bits.
#[test]
fn small_products_beside_a_large_sum() {
    let ones = Tiles::new(1, STEP, || 1.0);
    for bits in 20..30 {
        let start = 2f32.powi(bits);
        let sum = ones.run(&mut emu(), 2, start)[0][0];
        println!("  mma, 2^{bits} and 16 ones: 2^{bits} + {}", sum - start);
        assert!(bits >= 24 || sum == start + 16.0, "exact below 2^24");
        assert!(sum >= start && f64::from(sum) - f64::from(start) <= 32.0);
    }
}

#[test]
fn models_differ_where_they_should() {
    let products = [Factors(1.0, 1.0); 8];
    let sums = |start: f32| Model::all().map(|m| m.sum(start, &products) - start).collect::<Vec<f32>>();
    assert!(sums(1024.0).iter().all(|s| *s == 8.0));
    let large = sums(2f32.powi(24));
    let of_eight = |m: &Model| matches!(m, Model::Chain | Model::Nearest(8) | Model::Cut(8, _) | Model::Aligned(8, _));
    // The chain rounds to even at each of its eight steps; blocks of eight are exact; without guard bits all ones are
    // truncated.
    assert_eq!(
        Model::all().zip(large).filter(|(m, _)| of_eight(m)).map(|(_, s)| s).collect::<Vec<_>>(),
        [0.0, 8.0, 0.0, 8.0, 8.0, 8.0, 0.0, 8.0, 8.0, 8.0]
    );
    // The exponent of 1.5 * 1.5 is 1, but that of its factors is 0, so one more bit of the small product remains.
    let products = [Factors(1.5, 1.5), Factors(-1.0, 2f32.powi(-25))];
    assert_eq!(Model::Cut(16, 2).sum(-2.25, &products), 0.0);
    assert_eq!(HOPPER.sum(-2.25, &products), 0.0, "the accumulator is normalised");
    let products = [Factors(1.5, 1.5), Factors(-1.5, 1.5), Factors(-1.0, 2f32.powi(-25))];
    assert_eq!(Model::Cut(16, 2).sum(0.0, &products), 0.0);
    assert_eq!(HOPPER.sum(0.0, &products), -2f32.powi(-25));
    assert_eq!(AMPERE.sum(0.0, &products), 0.0);
}
