//! Shape and type checks at the head of every op.

use crate::device::Launch;
use crate::error::{Error, Result};
use crate::ops::matmul::Weight;
use crate::tensor::{DType, Tensor};

/// Errors unless `t` has element type `dtype` and shape `dims`.
pub fn tensor(op: &'static str, name: &str, t: Tensor, dtype: DType, dims: &[usize]) -> Result<()> {
    if t.dtype == dtype && *t.shape == *dims {
        return Ok(());
    }
    Err(Error::Shape { op, want: format!("{name} {dtype:?} {dims:?}"), got: format!("{:?} {:?}", t.dtype, t.shape) })
}

/// Errors unless `t` has element type `dtype` and `len` elements, whatever its dimensions.
pub fn flat(op: &'static str, name: &str, t: Tensor, dtype: DType, len: usize) -> Result<()> {
    if t.dtype == dtype && t.len() == len {
        return Ok(());
    }
    Err(Error::Shape {
        op,
        want: format!("{name} {dtype:?} of {len} elements"),
        got: format!("{:?} {:?}", t.dtype, t.shape),
    })
}

/// Errors unless `t` has a compute type, f32 or bf16.
pub fn compute(op: &'static str, name: &str, t: Tensor) -> Result<()> {
    match t.dtype {
        DType::F32 | DType::Bf16 => Ok(()),
        other => fail(op, format!("{name} f32 or bf16"), format!("{other:?}")),
    }
}

/// Errors with `want` and `got` unless `holds`.
pub fn that(op: &'static str, holds: bool, want: impl Into<String>, got: impl Into<String>) -> Result<()> {
    if holds { Ok(()) } else { fail(op, want, got) }
}

/// `n` as kernels count. Errors when it does not fit 31 bits.
pub fn count(op: &'static str, name: &str, n: usize) -> Result<i32> {
    i32::try_from(n).or_else(|_| fail(op, format!("{name} below 2^31"), n.to_string()))
}

/// `n` CTAs along x. Errors when the grid cannot be so long.
pub fn grid(op: &'static str, n: usize) -> Result<u32> {
    Ok(count(op, "thread blocks", n)? as u32)
}

/// A launch of `ctas` CTAs along x, each of `threads` threads with `smem` bytes of shared memory. Errors when the grid cannot
/// be so long.
pub fn launch(op: &'static str, ctas: usize, threads: usize, smem: usize) -> Result<Launch> {
    Ok(Launch::new([grid(op, ctas)?, 1, 1], threads as u32, smem))
}

/// Errors unless `dtype` is bf16: what kernels compute in.
pub fn gpu_compute(op: &'static str, dtype: DType) -> Result<()> {
    that(op, dtype == DType::Bf16, "bf16 on a GPU", format!("{dtype:?}"))
}

fn fail<T>(op: &'static str, want: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Error::Shape { op, want: want.into(), got: got.into() })
}

/// Calls a function generic over the compute type: `by_dtype!(x.dtype, forward(cpu, x, y))` runs
/// `forward::<f32>(..)` or `forward::<bf16>(..)`. The type was checked by [`compute`].
macro_rules! by_dtype {
    ($dtype:expr, $f:ident ( $($arg:expr),* $(,)? )) => {
        match $dtype {
            $crate::tensor::DType::Bf16 => $f::<half::bf16>($($arg),*),
            _ => $f::<f32>($($arg),*),
        }
    };
}
pub(crate) use by_dtype;

/// [`tensor`] for an optional one.
pub fn optional(op: &'static str, name: &str, t: Option<Tensor>, dtype: DType, dims: &[usize]) -> Result<()> {
    t.map_or(Ok(()), |t| tensor(op, name, t, dtype, dims))
}

/// Errors unless `w` is a whole weight [n, k] of a compute type; gives that type.
pub fn weight(op: &'static str, w: &Weight, n: usize, k: usize) -> Result<DType> {
    let dtype = w.data.dtype;
    compute(op, "a weight", w.data)?;
    let fits = (w.n, w.k) == (n, k) && w.data.len() == w.order.len(dtype, n, k);
    let want = || format!("a weight [{n}, {k}] in {dtype:?}, {:?}", w.order);
    that(op, fits, want(), format!("[{}, {}] in {:?}", w.n, w.k, w.data.shape))?;
    Ok(dtype)
}
