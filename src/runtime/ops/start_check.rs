//! Functions that the start checks share: their sizes, input values, and the comparison of results.

use half::bf16;

use crate::device::{Device, Kind, On, Region};
use crate::ops::attend::Heads;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// CTAs to which the start checks limit a wgmma kernel, so that each CTA processes several tiles in turn.
const FEW_CTAS: usize = 2;

/// Returns the value for a GPU, or the smaller one for the emulator, which computes about a millionth as fast.
pub(in crate::ops) fn sized<T>(dev: &Device, gpu: T, emulator: T) -> T {
    if dev.kind() == Kind::Cuda { gpu } else { emulator }
}

/// Returns `count` values in [-size, size), where `size` is a power of two. The values are the upper bits of a linear
/// congruential generator, so that every sum needs rounding.
pub(in crate::ops) fn values(count: usize, mut state: u32, size: f32) -> Vec<bf16> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bf16::from_f32(((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * size)
    };
    (0..count).map(|_| next()).collect()
}

/// Returns rows of v with `dim` values each, `count` values in total, that are 1 or the next larger bf16 number. Of each
/// two keys, one has 1 and the other the larger number, in a random order for each column. The average over many keys
/// therefore lies near the middle between both, where one unit in the last place of the f32 decides about the rounding to
/// bf16. With the queries of [`flatten_queries`], such a unit changes about one result in 1,000 and, with random values,
/// one in 65,536.
pub(in crate::ops) fn neighbours(count: usize, dim: usize, state: u32) -> Vec<bf16> {
    let order = values(count.div_ceil(2 * dim) * dim, state, 1.0);
    let is_larger = |i: usize| order[i / (2 * dim) * dim + i % dim].is_sign_negative() == (i / dim).is_multiple_of(2);
    (0..count).map(|i| bf16::from_bits(bf16::ONE.to_bits() + u16::from(is_larger(i)))).collect()
}

/// Divides the queries by 32, except those of every fourth head, so that the probabilities of their keys are nearly
/// equal. `rows` are packed rows of q, k and v of `width` values.
fn flatten_queries(rows: &mut [bf16], width: usize, heads: Heads) {
    for row in rows.chunks_mut(width) {
        for (i, head) in row[..heads.q * heads.dim].chunks_mut(heads.dim).enumerate() {
            let divisor = if i % 4 == 0 { 1.0 } else { 32.0 };
            head.iter_mut().for_each(|x| *x = bf16::from_f32(x.to_f32() / divisor));
        }
    }
}

/// Returns packed rows of q, k and v for `tokens` tokens, which show differences in the last bit of a sum.
pub(in crate::ops) fn sensitive_rows(tokens: usize, heads: Heads, state: u32) -> Vec<bf16> {
    let (width, of_v) = (heads.qkv_len(), heads.kv * heads.dim);
    let mut rows = values(tokens * width, state, 2.0);
    let v = neighbours(tokens * of_v, of_v, state + 1);
    rows.chunks_mut(width).zip(v.chunks(of_v)).for_each(|(row, v)| row[width - of_v..].copy_from_slice(v));
    flatten_queries(&mut rows, width, heads);
    rows
}

/// Returns what `run` returns with the usual number of CTAs, and with so few CTAs that each of them has several tiles.
/// Frees what `run` allocates.
pub(in crate::ops) fn with_many_and_few_ctas<T>(
    dev: &mut Device,
    mut run: impl FnMut(&mut Device) -> Result<T>,
) -> Result<Vec<T>> {
    let is_few = matches!(dev.on(), On::Gpu(gpu) if gpu.max_ctas <= FEW_CTAS);
    let limits: &[Option<usize>] = if is_few { &[None] } else { &[None, Some(FEW_CTAS)] };
    let run_with = |&limit: &Option<usize>| {
        dev.limit_ctas(limit);
        let found = dev.scope(Region::Workspace, &mut run);
        dev.limit_ctas(None);
        found
    };
    limits.iter().map(run_with).collect()
}

/// Returns the bits of the elements of bf16, f32 and u32 tensors.
pub(in crate::ops) fn bits(dev: &mut Device, tensors: &[Tensor]) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for &t in tensors {
        match t.dtype {
            DType::Bf16 => all.extend(dev.read::<bf16>(t)?.into_iter().map(|x| u32::from(x.to_bits()))),
            DType::F32 => all.extend(dev.read::<f32>(t)?.into_iter().map(f32::to_bits)),
            _ => all.extend(dev.read::<u32>(t)?),
        }
    }
    Ok(all)
}

/// Describes how many elements of `what` differ in their bits from those expected; `None` if no element differs.
pub(in crate::ops) fn differing(found: &[u32], want: &[u32], what: impl FnOnce() -> String) -> Option<String> {
    let other = found.iter().zip(want).filter(|(a, b)| a != b).count();
    (other > 0).then(|| format!("{other} of {} {} differ bitwise", found.len(), what()))
}
