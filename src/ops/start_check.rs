//! Functions that the start checks share: generating input values and describing differences between results.

use half::bf16;

/// Returns `count` values in [-size, size), where `size` is a power of two. The values are the upper bits of a linear
/// congruential generator, so that every sum needs rounding.
pub(in crate::ops) fn values(count: usize, mut state: u32, size: f32) -> Vec<bf16> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bf16::from_f32(((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * size)
    };
    (0..count).map(|_| next()).collect()
}

/// Describes how many elements of `what` differ in their bits from those expected; `None` if no element differs.
pub(in crate::ops) fn differing(found: &[u32], want: &[u32], what: impl FnOnce() -> String) -> Option<String> {
    let other = found.iter().zip(want).filter(|(a, b)| a != b).count();
    (other > 0).then(|| format!("{other} of {} {} differ bitwise", found.len(), what()))
}
