//! Repacks gradients and activations for weight gradients, which are products summed over tokens. Consecutive tokens of
//! a column must then be adjacent: a *word* is one f32 value, or two bf16 values of adjacent tokens.

use super::cells::Cells;
use super::panels::{PANEL, panel_count, panel_len, panel_stride};
use crate::device::{Isa, Parts, Pool, cpu_kernel};
use crate::tensor::{DType, Elem};

/// Tokens of one job, an even number. The number is small, so that a job that reads its rows panel by panel reads only
/// a few sequential streams of memory.
const TOKENS: usize = 8;
/// Columns of one job of the sum over tokens.
const COLUMNS: usize = 4 * PANEL;

/// Repacks dy `[t, n]` as the right operand of a product over tokens: panels `[ceil(n/32)][words of t tokens][32]`.
/// Also adds the sum over tokens to dbias `[n]`, each element in ascending token order.
pub(in crate::ops) fn pack_columns<E: Elem>(
    pool: &Pool,
    isa: Isa,
    dy: &[E],
    n: usize,
    out: &mut [E],
    dbias: Option<&mut [f32]>,
) {
    let t = dy.len().checked_div(n).unwrap_or(0);
    assert_eq!(out.len(), panel_len(E::DTYPE, n, t), "pack of dy [{t}, {n}]");
    if dy.is_empty() {
        return;
    }
    if let Some(dbias) = dbias {
        assert_eq!(dbias.len(), n, "dbias of dy [{t}, {n}]");
        let parts = Parts::new(dbias, COLUMNS);
        pool.run(parts.count(), |i| add_columns::<E>(isa, dy, n, i * COLUMNS, parts.take(i)));
    }
    let cells = Cells::new(out, panel_stride(E::DTYPE, t));
    pool.run(t.div_ceil(TOKENS), |i| {
        let rows = &dy[i * TOKENS * n..dy.len().min((i + 1) * TOKENS * n)];
        let len = panel_stride(E::DTYPE, rows.len() / n);
        for p in 0..panel_count(n) {
            // SAFETY: each job writes the words of its own tokens in every panel.
            let words = unsafe { cells.piece(p, i * TOKENS * PANEL, len) };
            pack_panel::<E>(isa, rows, n, p * PANEL, words);
        }
    });
}

cpu_kernel! {
    /// Adds `dy[.., first + j]` to `sums[j]` in ascending token order, for at most [`COLUMNS`] columns.
    fn add_columns<E: Elem>(dy: &[E], n: usize, first: usize, sums: &mut [f32]) {
        let mut acc = [0.0; COLUMNS];
        acc[..sums.len()].copy_from_slice(sums);
        if sums.len() == COLUMNS {
            for row in dy.chunks_exact(n) {
                let row = &row[first..first + COLUMNS];
                for j in 0..COLUMNS {
                    acc[j] += row[j].to_f32();
                }
            }
        } else {
            for row in dy.chunks_exact(n) {
                for (a, d) in acc.iter_mut().zip(&row[first..first + sums.len()]) {
                    *a += d.to_f32();
                }
            }
        }
        sums.copy_from_slice(&acc[..sums.len()]);
    }
}

cpu_kernel! {
    /// Writes columns first..first + 32 of some rows of dy as words of one panel.
    fn pack_panel<E: Elem>(dy: &[E], n: usize, first: usize, out: &mut [E]) {
        let cols = PANEL.min(n - first);
        let zero = E::from_f32(0.0);
        if E::DTYPE == DType::Bf16 {
            for (words, pair) in out.chunks_exact_mut(2 * PANEL).zip(dy.chunks(2 * n)) {
                let low = &pair[first..first + cols];
                let high = if pair.len() > n { &pair[n + first..n + first + cols] } else { &[zero; PANEL][..cols] };
                if cols < PANEL {
                    words.fill(zero);
                }
                for ((word, &low), &high) in words.chunks_exact_mut(2).zip(low).zip(high) {
                    word[0] = low;
                    word[1] = high;
                }
            }
        } else {
            for (words, row) in out.chunks_exact_mut(PANEL).zip(dy.chunks_exact(n)) {
                if cols == PANEL {
                    words.copy_from_slice(&row[first..first + PANEL]);
                } else {
                    words[..cols].copy_from_slice(&row[first..first + cols]);
                    words[cols..].fill(zero);
                }
            }
        }
    }
}

/// Repacks x `[t, k]`, bf16, as words `[words of t tokens][k]`. If t is odd, the last row is paired with zeros.
pub(in crate::ops) fn pack_pairs<E: Elem>(pool: &Pool, isa: Isa, x: &[E], k: usize, out: &mut [E]) {
    if k == 0 || x.is_empty() {
        return;
    }
    assert_eq!(out.len(), x.len().next_multiple_of(2 * k), "pairs of x [{}, {k}]", x.len() / k);
    let parts = Parts::new(out, 2 * k);
    pool.run(parts.count(), |i| pair_rows::<E>(isa, &x[2 * k * i..x.len().min(2 * k * (i + 1))], k, parts.take(i)));
}

cpu_kernel! {
    /// Interleaves two rows, or one row and zeros.
    fn pair_rows<E: Elem>(rows: &[E], k: usize, out: &mut [E]) {
        let (low, high) = rows.split_at(k);
        if high.len() == k {
            for ((pair, &low), &high) in out.chunks_exact_mut(2).zip(low).zip(high) {
                pair[0] = low;
                pair[1] = high;
            }
        } else {
            for (pair, &low) in out.chunks_exact_mut(2).zip(low) {
                pair[0] = low;
                pair[1] = E::from_f32(0.0);
            }
        }
    }
}
