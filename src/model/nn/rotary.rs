//! Rotary embeddings: their frequencies, and the cosines and sines of positions, computed in f64 and rounded once.

use std::f64::consts::TAU;
use std::ops::Range;

use crate::nn::config::{Llama3Scaling, RopeAxes, RopeConfig};

/// Positions below this number are computed once. A later position of a long video is computed each time.
const CACHED: i32 = 1 << 17;

/// Rows of cosines and sines.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RopeTable {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
}

impl RopeTable {
    /// Creates a table for `len` angles, filled with zeros.
    pub fn zeros(len: usize) -> RopeTable {
        RopeTable { cos: vec![0.0; len], sin: vec![0.0; len] }
    }
}

/// Cosines and sines of the products of positions and frequencies. Rows are added when larger positions occur.
#[derive(Debug, Default)]
pub struct Angles {
    frequencies: Vec<f64>,
    table: RopeTable,
}

impl Angles {
    /// Creates an empty table for these frequencies.
    pub fn new(frequencies: Vec<f64>) -> Angles {
        Angles { frequencies, table: RopeTable::default() }
    }

    /// Appends cosines and sines of the frequencies `range` at `position`.
    pub fn push(&mut self, position: i32, range: Range<usize>, out: &mut RopeTable) {
        if !(0..CACHED).contains(&position) {
            return self.compute(position, range, out);
        }
        let (width, position) = (self.frequencies.len(), position as usize);
        let have = self.table.cos.len() / width;
        if position >= have {
            let mut table = std::mem::take(&mut self.table);
            let end = (position + 1).next_power_of_two().max(256);
            (have..end).for_each(|position| self.compute(position as i32, 0..width, &mut table));
            self.table = table;
        }
        let row = position * width + range.start..position * width + range.end;
        out.cos.extend_from_slice(&self.table.cos[row.clone()]);
        out.sin.extend_from_slice(&self.table.sin[row]);
    }

    fn compute(&self, position: i32, range: Range<usize>, out: &mut RopeTable) {
        for frequency in &self.frequencies[range] {
            let (sin, cos) = (f64::from(position) * frequency).sin_cos();
            out.cos.push(cos as f32);
            out.sin.push(sin as f32);
        }
    }
}

/// The decoder's rotary embedding.
#[derive(Debug, Default)]
pub struct Rotary {
    angles: Angles,
    /// Consecutive frequencies with the axis (time, height, width) whose position they use.
    sections: Vec<(usize, Range<usize>)>,
}

impl Rotary {
    /// Creates the embedding of a model.
    pub fn new(config: &RopeConfig) -> Rotary {
        let axis = |i: usize| match config.axes {
            RopeAxes::Sections([time, height, _]) => usize::from(i >= time) + usize::from(i >= time + height),
            RopeAxes::Interleaved(counts) if i < 3 * counts[i % 3] => i % 3,
            RopeAxes::One | RopeAxes::Interleaved(_) => 0,
        };
        let mut sections: Vec<(usize, Range<usize>)> = Vec::new();
        for i in 0..config.dim / 2 {
            match sections.last_mut() {
                Some((last, range)) if *last == axis(i) => range.end = i + 1,
                _ => sections.push((axis(i), i..i + 1)),
            }
        }
        Rotary { angles: Angles::new(frequencies(config)), sections }
    }

    /// Returns the number of frequencies.
    pub fn width(&self) -> usize {
        self.angles.frequencies.len()
    }

    /// Appends the row of a token at these positions in time, height and width.
    pub fn push(&mut self, at: [i32; 3], out: &mut RopeTable) {
        if at[0] == at[1] && at[0] == at[2] {
            return self.angles.push(at[0], 0..self.width(), out);
        }
        for (axis, range) in &self.sections {
            self.angles.push(at[*axis], range.clone(), out);
        }
    }

    /// Returns the rows of tokens at `position_ids`.
    pub fn rows(&mut self, position_ids: &[Vec<i32>; 3]) -> RopeTable {
        let mut out = RopeTable::default();
        let [time, height, width] = position_ids;
        for ((&t, &h), &w) in time.iter().zip(height).zip(width) {
            self.push([t, h, w], &mut out);
        }
        out
    }
}

/// Returns the frequencies of the decoder, theta^(-2i / dim), scaled.
fn frequencies(config: &RopeConfig) -> Vec<f64> {
    let plain = (0..config.dim / 2).map(|i| config.theta.powf(-2.0 * i as f64 / config.dim as f64));
    match &config.scaling {
        None => plain.collect(),
        Some(scaling) => plain.map(|frequency| llama3(frequency, scaling)).collect(),
    }
}

fn llama3(frequency: f64, scaling: &Llama3Scaling) -> f64 {
    let Llama3Scaling { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } = *scaling;
    let periods = original_max_position_embeddings * frequency / TAU;
    if periods > high_freq_factor {
        return frequency;
    }
    if periods < low_freq_factor {
        return frequency / factor;
    }
    let share = (periods - low_freq_factor) / (high_freq_factor - low_freq_factor);
    (1.0 - share) * frequency / factor + share * frequency
}
