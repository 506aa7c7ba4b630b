//! Element types of tensors.

use half::bf16;

use crate::device::Kind;
use omr_base::choice::Dtype;

/// Element type of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// Unsigned byte: pixels, quantised optimizer state.
    U8,
    /// Signed byte: codes of quantised weights in files.
    I8,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer: token ids, offsets, bitmaps.
    U32,
    /// 64-bit float: losses and their sums.
    F64,
    /// Signed 16-bit integer: the low half of the fp32 master of a bf16 weight.
    I16,
}

impl DType {
    /// Returns the number of bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::Bf16 | DType::I16 => 2,
            DType::U8 | DType::I8 => 1,
        }
    }
}

impl DType {
    /// Returns the storage type that a config requests on a device of `kind`.
    pub fn of(dtype: Dtype, kind: Kind) -> DType {
        match dtype {
            Dtype::Auto if kind.is_gpu() => DType::Bf16,
            Dtype::Auto | Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::Bf16,
        }
    }
}

/// A Rust type that can be the element of a tensor.
pub trait Elem: bytemuck::Pod + Send + Sync + PartialEq + std::fmt::Debug {
    /// [`DType`] of this type.
    const DTYPE: DType;
    /// Converts from f32. bf16 rounds to nearest, ties to even. Integers truncate toward zero and saturate.
    fn from_f32(x: f32) -> Self;
    /// Converts to f32: exactly for f32, bf16 and small integers, else to the nearest value.
    fn to_f32(self) -> f32;
}

impl Elem for bf16 {
    const DTYPE: DType = DType::Bf16;
    // half's own `from_f32` has branches. This version has none, so LLVM can vectorise it inside CPU kernels.
    #[inline(always)]
    fn from_f32(x: f32) -> bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet = (bits >> 16) | 0x40;
        bf16::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
}

macro_rules! cast {
    ($t:ty, $d:ident) => {
        impl Elem for $t {
            const DTYPE: DType = DType::$d;
            #[inline(always)]
            fn from_f32(x: f32) -> $t {
                x as $t
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }
        }
    };
}
cast!(f32, F32);
cast!(f64, F64);
cast!(u8, U8);
cast!(i32, I32);
cast!(u32, U32);
cast!(i16, I16);
