//! Beginning of every op: checks of shapes and types, and the count of the bytes that it moves at least.

use crate::device::Launch;
use crate::ops::matmul::Weight;
use crate::ops::quantized::scale_dtype;
use crate::tensor::{DType, Tensor};
use omr_base::error::{Error, Result};

/// Returns an error unless `t` has element type `dtype` and shape `dims`.
pub fn tensor(op: &'static str, name: &str, t: Tensor, dtype: DType, dims: &[usize]) -> Result<()> {
    match t.dtype == dtype && *t.shape == *dims {
        true => Ok(()),
        false => fail(op, format!("{name} {dtype:?} {dims:?}"), format!("{:?} {:?}", t.dtype, t.shape)),
    }
}

/// Returns an error unless `t` has element type `dtype` and `len` elements, in any shape.
pub fn flat(op: &'static str, name: &str, t: Tensor, dtype: DType, len: usize) -> Result<()> {
    match t.dtype == dtype && t.len() == len {
        true => Ok(()),
        false => fail(op, format!("{name} {dtype:?} of {len} elements"), format!("{:?} {:?}", t.dtype, t.shape)),
    }
}

/// Returns an error unless `t` has a compute type, f32 or bf16.
pub fn compute(op: &'static str, name: &str, t: Tensor) -> Result<()> {
    match t.dtype {
        DType::F32 | DType::Bf16 => Ok(()),
        other => fail(op, format!("{name} f32 or bf16"), format!("{other:?}")),
    }
}

/// Returns an error with `want` and `got` unless `holds` is true.
pub fn that(op: &'static str, holds: bool, want: impl Into<String>, got: impl Into<String>) -> Result<()> {
    if holds { Ok(()) } else { fail(op, want, got) }
}

/// Converts `n` to the integer type of the kernels. Returns an error if it does not fit in 31 bits.
pub fn count(op: &'static str, name: &str, n: usize) -> Result<i32> {
    i32::try_from(n).or_else(|_| fail(op, format!("{name} below 2^31"), n.to_string()))
}

/// Returns a grid of `n` CTAs along x. Returns an error if the grid is too long.
pub fn grid(op: &'static str, n: usize) -> Result<u32> {
    Ok(count(op, "thread blocks", n)? as u32)
}

/// Returns a launch of `ctas` CTAs along x, each with `threads` threads and `smem` bytes of shared memory. Returns an
/// error if the grid is too long.
pub fn launch(op: &'static str, ctas: usize, threads: usize, smem: usize) -> Result<Launch> {
    Ok(Launch::new([grid(op, ctas)?, 1, 1], threads as u32, smem))
}

/// Returns the launch of a kernel whose threads handle `each` of `elements` elements.
pub fn by_elements(op: &'static str, elements: usize, each: usize) -> Result<Launch> {
    const THREADS: usize = 256;
    launch(op, elements.div_ceil(THREADS * each), THREADS, 0)
}

/// Returns the launch of a kernel in which each warp handles one of `items`.
pub fn by_warps(op: &'static str, items: usize) -> Result<Launch> {
    const THREADS: usize = 128;
    launch(op, items.div_ceil(THREADS / 32), THREADS, 0)
}

/// Returns an error unless `dtype` is bf16, the only compute type of the kernels.
pub fn gpu_compute(op: &'static str, dtype: DType) -> Result<()> {
    that(op, dtype == DType::Bf16, "bf16 on a GPU", format!("{dtype:?}"))
}

/// Returns the bytes of the tensors, each moved once.
pub fn moved(tensors: &[Tensor]) -> f64 {
    tensors.iter().map(|t| t.span().bytes as f64).sum()
}

/// Returns the extra bytes read from a gradient that is accumulated into.
pub fn added(dx: Tensor, accumulate: bool) -> f64 {
    if accumulate { moved(&[dx]) } else { 0.0 }
}

/// Returns an error with `want` and `got`.
pub fn fail<T>(op: &'static str, want: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Error::Shape { op, want: want.into(), got: got.into() })
}

/// Calls a function that is generic over the compute type: `by_dtype!(x.dtype, forward(cpu, x, y))` runs
/// `forward::<f32>(..)` or `forward::<bf16>(..)`. The type must have been checked by [`compute`].
macro_rules! by_dtype {
    ($dtype:expr, $f:ident ( $($arg:expr),* $(,)? )) => {
        match $dtype {
            $crate::tensor::DType::Bf16 => $f::<half::bf16>($($arg),*),
            _ => $f::<f32>($($arg),*),
        }
    };
}
pub(crate) use by_dtype;

/// Checks an optional tensor as [`tensor`] does; `None` passes.
pub fn optional(op: &'static str, name: &str, t: Option<Tensor>, dtype: DType, dims: &[usize]) -> Result<()> {
    t.map_or(Ok(()), |t| tensor(op, name, t, dtype, dims))
}

/// Returns an error unless `lo` has the low halves of the masters of the bf16 weights `w`.
pub fn low_half(op: &'static str, w: Tensor, lo: Tensor) -> Result<()> {
    that(op, w.dtype == DType::Bf16, "a low half of bf16 weights", format!("one of {:?}", w.dtype))?;
    flat(op, "lo", lo, DType::I16, w.len())
}

/// Returns the type of `w`. Returns an error unless `w` is a complete weight `[n, k]` of a compute type.
pub fn weight(op: &'static str, w: &Weight, n: usize, k: usize) -> Result<DType> {
    let dtype = w.dtype();
    let len = match w.quantized {
        None => {
            compute(op, "a weight", w.data)?;
            w.order.len(dtype, n, k)
        }
        Some(quantized) => {
            let (layout, units) = w.order.quantized(quantized.format, n, k);
            tensor(op, "codes", w.data, DType::U8, &[units * layout.codes()])?;
            let scales = scale_dtype(quantized.format);
            tensor(op, "scales", quantized.scales, scales, &[units * layout.scales()])?;
            w.data.len()
        }
    };
    let fits = (w.n, w.k) == (n, k) && w.data.len() == len;
    let want = || format!("a weight [{n}, {k}] in {dtype:?}, {:?}", w.order);
    that(op, fits, want(), format!("[{}, {}] in {:?}", w.n, w.k, w.data.shape))?;
    Ok(dtype)
}
