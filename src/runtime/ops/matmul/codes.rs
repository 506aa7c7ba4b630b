//! Codes of a quantised right operand.

use std::ops::Range;

use half::bf16;

use crate::device::Isa;
use crate::ops::quantized::{self, Layout, scale_dtype};
use crate::tensor::DType;

/// Codes and scales of a right operand in panels.
#[derive(Clone, Copy)]
pub(super) struct Codes<'a> {
    /// Layout of a panel.
    pub layout: Layout,
    pub codes: &'a [u8],
    pub scales: &'a [u8],
}

impl Codes<'_> {
    /// Writes the words of the pairs of terms `pairs` of panel `panel` to `out`.
    pub fn widen(&self, isa: Isa, dtype: DType, panel: usize, pairs: Range<usize>, out: &mut [u32]) {
        let Layout { format, .. } = self.layout;
        let scales = self.layout.scales() * scale_dtype(format).size();
        let codes = &self.codes[panel * self.layout.codes()..][..self.layout.codes()];
        let scales = &self.scales[panel * scales..][..scales];
        match dtype {
            DType::Bf16 => quantized::widen::<bf16>(isa, format, codes, scales, pairs, bytemuck::cast_slice_mut(out)),
            _ => quantized::widen::<f32>(isa, format, codes, scales, pairs, bytemuck::cast_slice_mut(out)),
        }
    }
}
