//! Tests the resampled position embeddings and the table's gradient against the f64 formula and finite differences.

use half::bf16;
use omr_runtime::device::{Device, Isa, Region};
use omr_runtime::ops::matmul::{Order, Weight, panel_len};
use omr_runtime::ops::pos_embed::{self, Taps};
use omr_runtime::ops::rows::Segments;
use omr_runtime::tensor::Elem;

use super::panels::{pack_order, unpack_order};
use super::reference::{BF16, F32, Random, device, devices, differences, dot, relative, up, wide};

/// Inputs of one call: rows, table rows and columns.
struct Case<T> {
    t: usize,
    n: usize,
    k: usize,
    x: Vec<T>,
    table: Vec<T>,
    indices: Vec<u32>,
    weights: Vec<f32>,
    dy: Vec<T>,
    dtable: Vec<f32>,
}

impl<T: Elem + Default> Case<T> {
    fn new(t: usize, n: usize, k: usize) -> Case<T> {
        let mut r = Random::new((t * 1000 + k) as u64);
        // Some rows have a tap twice.
        let indices = (0..4 * t).map(|i| if i % 11 == 1 { 0 } else { r.below(n) as u32 }).collect();
        let [x, table, dy] = [t * k, n * k, t * k].map(|len| r.values(len));
        Case { t, n, k, x, table, indices, weights: r.values(4 * t), dy, dtable: r.values(n * k) }
    }

    /// Returns the rows and the table's gradient.
    fn run(&self, dev: &mut Device) -> (Vec<T>, Vec<f32>) {
        let (t, n, k) = (self.t, self.n, self.k);
        let len = panel_len(T::DTYPE, n, k);
        let (mut panels, mut start) = (vec![T::default(); len], vec![0.0f32; len]);
        pack_order(T::DTYPE, n, k, &self.table, &mut panels);
        pack_order(T::DTYPE, n, k, &self.dtable, &mut start);
        let table = Weight::new(up(dev, &panels, &[len]), Order::Panels, n, k);
        let segments = Segments::upload(dev, Region::Overlay, &self.indices).unwrap();
        let taps =
            Taps { indices: up(dev, &self.indices, &[t, 4]), weights: up(dev, &self.weights, &[t, 4]), segments };
        let (x, dy, dtable) = (up(dev, &self.x, &[t, k]), up(dev, &self.dy, &[t, k]), up(dev, &start, &[len]));
        pos_embed::fwd(dev, x, &table, &taps).unwrap();
        pos_embed::bwd(dev, dy, &taps, dtable).unwrap();
        let got: Vec<f32> = dev.read(dtable).unwrap();
        let rows = unpack_order(T::DTYPE, n, k, &got);
        let mut repacked = vec![0.0; len];
        pack_order(T::DTYPE, n, k, &rows, &mut repacked);
        assert_eq!(got, repacked, "padding stays zero");
        (dev.read(x).unwrap(), rows)
    }

    /// Returns the weighted sums of rows of `table`.
    fn sums(&self, table: &[f64]) -> Vec<f64> {
        let tap = |row: usize, j: usize, at: usize| {
            f64::from(self.weights[4 * row + at]) * table[self.indices[4 * row + at] as usize * self.k + j]
        };
        (0..self.t * self.k).map(|i| (0..4).map(|at| tap(i / self.k, i % self.k, at)).sum()).collect()
    }
}

fn close<T: Elem + Default>(t: usize, n: usize, k: usize, point: f64) {
    let case = Case::<T>::new(t, n, k);
    let (rows, dtable) = case.run(&mut device(2, Isa::detect()));
    let (table, dy) = (wide(&case.table), wide(&case.dy));
    // The sum of the taps is rounded before it is added: in bf16 to 2^-8 of at most 4.
    let want = case.sums(&table);
    let want: Vec<f64> =
        want.iter().zip(wide(&case.x)).map(|(sum, x)| f64::from(T::from_f32(*sum as f32).to_f32()) + x).collect();
    assert!(relative(&rows, &want) < 4.0 * F32 + 1.01 * point, "{:e}", relative(&rows, &want));
    let all: Vec<usize> = (0..n * k).collect();
    let mut want = differences(&table, &all, |table| dot(&case.sums(table), &dy));
    want.iter_mut().zip(&case.dtable).for_each(|(a, b)| *a += f64::from(*b));
    // One chain of at most 4 t terms.
    assert!(relative(&dtable, &want) < 4.0 * F32 * (4.0 * t as f64).sqrt(), "{:e}", relative(&dtable, &want));
}

#[test]
fn agrees_with_the_formula_and_its_differences() {
    for (t, n, k) in [(1, 1, 2), (24, 16, 33), (40, 36, 20), (70, 9, 5)] {
        close::<f32>(t, n, k, 0.0);
        close::<bf16>(t, n, k, BF16);
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_sets() {
    let (whole, halves) = (Case::<f32>::new(70, 70, 48), Case::<bf16>::new(70, 70, 48));
    let runs: Vec<_> = devices().iter_mut().map(|dev| (whole.run(dev), halves.run(dev))).collect();
    assert!(runs.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn an_index_past_the_table_is_an_error() {
    let dev = &mut device(1, Isa::Portable);
    let case = Case::<f32> { indices: vec![0, 1, 2, 9], ..Case::new(1, 9, 4) };
    let len = panel_len(omr_runtime::tensor::DType::F32, 9, 4);
    let table = Weight::new(up(dev, &vec![0f32; len], &[len]), Order::Panels, 9, 4);
    let segments = Segments::upload(dev, Region::Overlay, &case.indices).unwrap();
    let taps = Taps { indices: up(dev, &case.indices, &[1, 4]), weights: up(dev, &case.weights, &[1, 4]), segments };
    let x = up(dev, &case.x, &[1, 4]);
    assert!(pos_embed::fwd(dev, x, &table, &taps).unwrap_err().to_string().contains("indices below 9"));
    let taps = Taps { indices: up(dev, &[0u32, 1, 2, 32], &[1, 4]), ..taps };
    assert!(pos_embed::bwd(dev, x, &taps, table.data).is_err());
}
