//! Element types.

use half::bf16;

use crate::config::Dtype;
use crate::device::Kind;

/// The element types a tensor can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// Bytes: pixels, quantised state.
    U8,
    /// Signed 32-bit.
    I32,
    /// Unsigned 32-bit: token ids, offsets, bitmaps.
    U32,
    /// 64-bit float: losses and their sums.
    F64,
    /// Signed 16-bit: the low half of a bf16 weight's fp32 master.
    I16,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::Bf16 | DType::I16 => 2,
            DType::U8 => 1,
        }
    }
}

impl DType {
    /// The storage that a config asks for on a device of `kind`.
    pub fn of(dtype: Dtype, kind: Kind) -> DType {
        match dtype {
            Dtype::Auto if kind.is_gpu() => DType::Bf16,
            Dtype::Auto | Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::Bf16,
        }
    }
}

/// A Rust type that is a tensor's element.
pub trait Elem: bytemuck::Pod + Send + Sync + PartialEq + std::fmt::Debug {
    /// Its [`DType`].
    const DTYPE: DType;
    /// Nearest value of this type (round to nearest, ties to even).
    fn from_f32(x: f32) -> Self;
    /// Exact widening (integers and f64: nearest).
    fn to_f32(self) -> f32;
}

impl Elem for f32 {
    const DTYPE: DType = DType::F32;
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Elem for bf16 {
    const DTYPE: DType = DType::Bf16;
    // Written out rather than half's from_f32: branch-free, so that it vectorises inside kernel bodies.
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
cast!(f64, F64);
cast!(u8, U8);
cast!(i32, I32);
cast!(u32, U32);
cast!(i16, I16);
