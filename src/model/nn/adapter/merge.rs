//! Adds an adapter to the weights of its base: W + s B A in f32. Saving rounds the sum once, to the type of the weights.

use std::sync::atomic::{AtomicU64, Ordering};

use half::bf16;

use super::adapter_files::StoredAdapter;
use super::attach::module;
use crate::nn::weights::layout::ParamLayout;
use crate::nn::weights::linear_layer::{A, B};
use crate::nn::weights::params::{Param, Piece};
use crate::nn::weights::stored_codes::StoredCodes;
use crate::nn::weights::{StoredTensor, WeightFiles};
use omr_base::choice::BaseFormat;
use omr_base::error::Result;
use omr_runtime::device::Device;
use omr_runtime::ops::quantized::{Encoded, encode};
use omr_runtime::tensor::DType;

/// Counts of the weights in the matrices that have an adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Merged {
    /// Number of weights that differ from those of the base after rounding.
    pub changed: u64,
    /// Number of all weights.
    pub total: u64,
}

/// A matrix of the base in files: values, or codes.
enum BaseWeights<'a> {
    Values(StoredTensor<'a>),
    Codes(StoredCodes<'a>),
}

impl BaseWeights<'_> {
    fn open<'a>(base: &'a WeightFiles, piece: &Piece) -> Result<BaseWeights<'a>> {
        Ok(match base.codes(piece)? {
            Some(codes) => BaseWeights::Codes(codes),
            None => BaseWeights::Values(base.tensor(&piece.name, &piece.shape)?),
        })
    }

    /// Writes the values of row `r`, as `format` stores them, to `out`. Loading has checked that it can.
    fn row(&self, r: usize, format: Option<BaseFormat>, out: &mut [f32]) {
        match self {
            BaseWeights::Codes(codes) => codes.values(r, out),
            BaseWeights::Values(values) => {
                values.row(r, out);
                if let Some(format) = format {
                    let mut row = Encoded::zeros(format, out.len());
                    if encode(format, out, &mut row).is_ok() {
                        row.values(format, out);
                    }
                }
            }
        }
    }
}

impl StoredAdapter {
    /// Sets the weights of the base in `layout`, which has this adapter and the type f32, to the merged weights. `base` has
    /// the weights as they were. A matrix that is quantised in `trained`, the layout of the model in training, gets the
    /// values of its codes. Changes are counted as the type `dtype` stores them.
    pub fn merge(
        &self,
        dev: &mut Device,
        layout: &ParamLayout,
        base: &WeightFiles,
        trained: &ParamLayout,
        dtype: DType,
    ) -> Result<Merged> {
        let (rank, scale) = (self.config.rank, self.config.scale());
        let (changed, mut total) = (AtomicU64::new(0), 0);
        // Both layouts list the matrices of the base in the same order.
        for (param, trained) in matrices(layout).zip(matrices(trained)) {
            let (mut weights, mut factors) = (Vec::new(), Vec::new());
            for piece in &param.pieces {
                let (n, k) = (piece.shape[0], piece.row_len());
                let factor = |end, shape: [usize; 2]| self.tensor(&format!("{}{end}", module(piece)), &shape);
                weights.push(BaseWeights::open(base, piece)?);
                let pair = factor(A, [rank, k]).transpose()?.zip(factor(B, [n, rank]).transpose()?);
                factors.push(pair.map(|(a, b)| {
                    let mut values = vec![0.0; rank * k];
                    a.row(0, &mut values);
                    total += piece.num_elements() as u64;
                    (values, b)
                }));
            }
            let format = trained.quantized.map(|quantized| quantized.format);
            if factors.iter().all(Option::is_none) && format.is_none() {
                continue;
            }
            let row = |piece: usize, r: usize, out: &mut [f32]| {
                weights[piece].row(r, format, out);
                let Some((a, b)) = &factors[piece] else { return };
                let (mut of_b, mut sum) = (vec![0.0; rank], vec![0.0; out.len()]);
                b.row(r, &mut of_b);
                for (b, a) in of_b.iter().zip(a.chunks_exact(out.len())) {
                    sum.iter_mut().zip(a).for_each(|(sum, a)| *sum += b * a);
                }
                let mut differing = 0;
                for (w, sum) in out.iter_mut().zip(sum) {
                    let merged = *w + scale * sum;
                    let stored = if dtype == DType::Bf16 { bf16::from_f32(merged).to_f32() } else { merged };
                    differing += u64::from(stored != *w);
                    *w = merged;
                }
                changed.fetch_add(differing, Ordering::Relaxed);
            };
            param.fill_in_dtype(dev, param.tensor, row)?;
        }
        Ok(Merged { changed: changed.into_inner(), total })
    }
}

/// Returns the matrices of the base.
fn matrices(layout: &ParamLayout) -> impl Iterator<Item = &Param> {
    layout.params.iter().filter(|param| param.is_matrix && !param.is_adapter)
}
