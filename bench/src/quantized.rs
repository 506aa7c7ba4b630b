//! Benchmarks of quantised weights: widening, and products that read codes.

use super::case::{Case, op, product};
use super::inputs::{Sizes, bytes, normal, normals, repeat, zeros};
use omr_base::choice::BaseFormat;
use omr_base::error::Result;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::matmul::{Order, Weight};
use omr_runtime::ops::quantized::{BLOCK, Encoded, Quantized, encode, scale_dtype};
use omr_runtime::ops::{dequantize, linear};
use omr_runtime::tensor::DType;

/// Returns a quantised weight `[n, k]` of normal numbers.
fn weight(dev: &mut Device, s: Sizes, format: BaseFormat, [n, k]: [usize; 2]) -> Result<Weight> {
    let order = Order::of(dev);
    let (layout, units) = order.quantized(format, n, k);
    let data = dev.alloc(Region::Overlay, DType::U8, &[units * layout.codes()])?;
    let scales = dev.alloc(Region::Overlay, scale_dtype(format), &[units * layout.scales()])?;
    let w = Weight { quantized: Some(Quantized { format, scales, dtype: s.dtype }), ..Weight::new(data, order, n, k) };
    draw(dev, &w, 0.02 * s.scale)?;
    Ok(w)
}

/// Fills a quantised weight with normal numbers of deviation `scale`. All its units are equal.
pub fn draw(dev: &mut Device, w: &Weight, scale: f32) -> Result<()> {
    let Some(Quantized { format, scales: to, .. }) = w.quantized else { return Ok(()) };
    let (layout, _) = w.order.quantized(format, w.n, w.k);
    let k_padded = w.k.next_multiple_of(BLOCK);
    let mut row = Encoded::zeros(format, k_padded);
    // Normal numbers are within the range of each format.
    let _ = encode(format, &normals::<f32>(k_padded, scale), &mut row);
    row.codes.truncate(w.k);
    let (mut codes, mut scales) = (vec![0; layout.codes()], vec![0; layout.scales() * to.dtype.size()]);
    (0..layout.rows).for_each(|r| layout.put_row(r, &row, &mut codes, &mut scales));
    repeat(dev, w.data, &codes)?;
    match format {
        BaseFormat::Int8 => repeat(dev, to, &scales),
        BaseFormat::Nf4 => repeat(dev, to, &bytemuck::pod_collect_to_vec::<u8, f32>(&scales)),
    }
}

/// Makes the case of widening a weight of the MLP.
pub fn dequantize_fwd(dev: &mut Device, s: Sizes, format: BaseFormat) -> Result<Case> {
    let shape = [2 * s.intermediate, s.hidden.next_multiple_of(BLOCK)];
    let w = weight(dev, s, format, shape)?;
    let out = zeros(dev, s.dtype, &[w.order.len(s.dtype, w.n, w.k)])?;
    let name = if format == BaseFormat::Int8 { "dequantize int8" } else { "dequantize nf4" };
    let moved = w.bytes() + bytes(&[out]);
    op(name, s.dtype, format!("{shape:?}"), 0.0, moved, move |dev| dequantize::fwd(dev, &w, out))
}

/// Makes the case of a product of one row with a quantised weight of the MLP, as in decoding one sequence.
pub fn linear_fwd(dev: &mut Device, s: Sizes, format: BaseFormat) -> Result<Case> {
    let [n, k] = [2 * s.intermediate, s.hidden.next_multiple_of(BLOCK)];
    let w = weight(dev, s, format, [n, k])?;
    let (x, y) = (normal(dev, s, &[1, k])?, zeros(dev, s.dtype, &[1, n])?);
    let name = if format == BaseFormat::Int8 { "linear int8 fwd" } else { "linear nf4 fwd" };
    let moved = w.bytes() + bytes(&[x, y]);
    product(name, s.dtype, [1, n, k], moved, move |dev| linear::fwd(dev, x, &w, None, None, y))
}
