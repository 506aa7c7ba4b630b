//! Weight gradients on the CPU: dw += dy^T x, one chunk of tokens at a time.

use super::amx;
use super::epilogue::Gradient;
use super::panels::panel_len;
use super::product::Product;
use super::repack::{pack_columns, pack_pairs};
use super::run::run;
use crate::device::{Isa, Pool};
use crate::tensor::{DType, Elem};

/// Steps of a product of a chunk that are computed at a time, so that a panel stays in the L2 cache.
const STEPS: usize = 1024;

/// Returns the number of tokens per chunk, such that the repacked dy `[.., n]` stays in the last-level cache. It is a
/// multiple of 512, or `tokens` if there are fewer tokens.
fn chunk(tokens: usize, n: usize) -> usize {
    const STEP: usize = 512;
    let fits = ((1 << 20) / n.max(1)).clamp(STEP, 8 * STEP) / STEP * STEP;
    fits.min(tokens)
}

/// Returns the number of scratch elements that [`weight_gradient`] needs.
pub(in crate::ops) fn weight_gradient_scratch(dtype: DType, tokens: usize, n: usize, k: usize) -> usize {
    let chunk = chunk(tokens, n);
    // bf16 is repacked in pairs or for AMX tiles. The layout for AMX tiles is larger, so its size is enough for both.
    let pairs = if dtype == DType::Bf16 { amx::transposed_stride(chunk) * k } else { 0 };
    panel_len(dtype, n, chunk) + pairs
}

/// Arguments of [`weight_gradient`].
pub(in crate::ops) struct WeightGradient<'a, E> {
    /// Layer inputs `[t, k]`.
    pub x: &'a [E],
    /// Number of columns of x.
    pub k: usize,
    /// Output gradients `[t, n]`.
    pub dy: &'a [E],
    /// Number of columns of dy.
    pub n: usize,
    /// Weight gradient, f32 in the panel order of the weight's dtype. The computed gradient is added to it.
    pub dw: &'a mut [f32],
    /// Bias gradient `[n]`. The computed gradient is added to it.
    pub dbias: Option<&'a mut [f32]>,
    /// Scratch memory of [`weight_gradient_scratch`] elements.
    pub scratch: &'a mut [E],
}

/// Computes dw += dy^T x and dbias += the sum of dy over tokens. Each element is summed over ascending tokens, starting
/// from its present value.
pub(in crate::ops) fn weight_gradient<E: Elem>(pool: &Pool, isa: Isa, call: WeightGradient<'_, E>) {
    let WeightGradient { x, k, dy, n, dw, mut dbias, scratch } = call;
    if x.is_empty() || dy.is_empty() {
        return;
    }
    let chunk = chunk(dy.len() / n, n);
    for (x, dy) in x.chunks(chunk * k).zip(dy.chunks(chunk * n)) {
        let tokens = dy.len() / n;
        let (columns, pairs) = scratch.split_at_mut(panel_len(E::DTYPE, n, tokens));
        pack_columns(pool, isa, dy, n, columns, dbias.as_deref_mut());
        let product = match E::DTYPE {
            DType::Bf16 if isa.has_tiles() => {
                let stride = amx::transposed_stride(tokens);
                let transposed = &mut pairs[..stride * k];
                amx::transpose(pool, isa, x, k, transposed);
                Product::transposed(transposed, stride, tokens, columns, n)
            }
            DType::Bf16 => {
                let pairs = &mut pairs[..tokens.next_multiple_of(2) * k];
                pack_pairs(pool, isa, x, k, pairs);
                Product::columns(E::DTYPE, bytemuck::cast_slice(pairs), k, bytemuck::cast_slice(columns), n)
            }
            _ => Product::columns(E::DTYPE, bytemuck::cast_slice(x), k, bytemuck::cast_slice(columns), n),
        };
        product.slices(STEPS).for_each(|part| run(pool, isa, &part, &Gradient::<E>::new(k, dw)));
    }
}
