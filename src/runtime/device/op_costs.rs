//! Records the cost of ops on a device that only counts or on the recording driver.

use super::backend::{Backend, Device};
use super::work::{Sequences, Work};

impl Device {
    /// Records an op's arithmetic and memory traffic on a counting device or the recording driver. Does nothing
    /// elsewhere.
    pub fn note_work(&mut self, op: &'static str, flops: f64, bytes: f64) {
        self.note(Work { op, flops, bytes, product: None, sequences: None });
    }

    /// Records the cost of attention over packed sequences, as [`Device::note_work`] does.
    pub fn note_attention(&mut self, op: &'static str, flops: f64, bytes: f64, sequences: Sequences) {
        self.note(Work { op, flops, bytes, product: None, sequences: Some(sequences) });
    }

    /// Records the cost of a matrix product, as [`Device::note_work`] does. `product` is `[rows, columns, k]`, where
    /// `k` is the number of terms of each sum.
    pub fn note_product(&mut self, op: &'static str, product: [usize; 3], bytes: f64) {
        let [rows, columns, k] = product;
        let flops = 2.0 * rows as f64 * (columns * k) as f64;
        self.note(Work { op, flops, bytes, product: Some(product), sequences: None });
    }

    fn note(&mut self, noted: Work) {
        match &mut self.backend {
            Backend::Count { work, .. } => work.push(noted),
            Backend::Gpu { driver, .. } => driver.note_work(noted),
            Backend::Cpu { .. } => {}
        }
    }

    /// Returns the costs that a counting device has recorded since the last call, in order.
    pub fn take_work(&mut self) -> Vec<Work> {
        match &mut self.backend {
            Backend::Count { work, .. } => std::mem::take(work),
            _ => Vec::new(),
        }
    }
}
