//! What the start checks share: values to compute with, and how results differ.

use half::bf16;

/// Values in [-size, size), a power of two: a linear congruence's upper bits, so that sums round everywhere.
pub(in crate::ops) fn values(count: usize, mut state: u32, size: f32) -> Vec<bf16> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bf16::from_f32(((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * size)
    };
    (0..count).map(|_| next()).collect()
}

/// How many bits of `what` differ from those wanted, for people; none where none do.
pub(in crate::ops) fn differing(found: &[u32], want: &[u32], what: impl FnOnce() -> String) -> Option<String> {
    let other = found.iter().zip(want).filter(|(a, b)| a != b).count();
    (other > 0).then(|| format!("{other} of {} {} have other bits", found.len(), what()))
}
