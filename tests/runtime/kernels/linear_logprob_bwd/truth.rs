//! The gradients in f64, and a bound on the error of an implementation that rounds at the stated points.

use half::bf16;

use super::Case;
use crate::kernels::inputs::wide;

/// A sum in f64, the size of its terms, and the possible error of the terms.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    pub value: f64,
    size: f64,
    pub off: f64,
}

impl Sum {
    fn add(&mut self, dz: (f64, f64), x: bf16) {
        self.value += dz.0 * x.to_f64();
        self.size += (dz.0 * x.to_f64()).abs();
        self.off += dz.1 * x.to_f64().abs();
    }

    /// Returns a bound on the error of an fp32 chain of `terms` in any order of accumulation (Higham, Accuracy and
    /// Stability, section 3.1).
    pub fn chain(&self, terms: usize) -> f64 {
        (terms + 4) as f64 * 2f64.powi(-24) * (self.size + self.off)
    }
}

/// Returns half of the last place of a bf16 of this size.
pub fn half_ulp(x: f64) -> f64 {
    x.abs() * 2f64.powi(-8) + 2f64.powi(-134)
}

/// A row in f64: logits (minus infinity if not allowed), their error, lse and entropy.
pub struct Row {
    pub z: Vec<f64>,
    error: f64,
    pub lse: f64,
    pub entropy: f64,
}

/// Computes a token's row.
pub fn row(c: &Case, row: usize, hidden: &[f64]) -> Row {
    let scale = 1.0 / f64::from(if c.temperature == 0.0 { 1.0 } else { c.temperature });
    let mut error = 0f64;
    let hidden = &hidden[row * c.k..][..c.k];
    let z: Vec<f64> = (0..c.v)
        .map(|v| {
            if c.allowed.as_ref().is_some_and(|a| !a[v]) {
                return f64::NEG_INFINITY;
            }
            let (mut sum, mut size) = (0.0, 0.0);
            for (h, w) in hidden.iter().zip(&c.w[v * c.k..]) {
                let term = h * w.to_f64();
                sum += term;
                size += term.abs();
            }
            // Each of the K products is exact in f32 and is added with one rounding. The scale adds one more rounding.
            error = error.max(scale * size * (c.k + 2) as f64 * 2f64.powi(-24));
            sum * scale
        })
        .collect();
    let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
    let entropy = z.iter().filter(|z| z.is_finite()).map(|z| (z - lse).exp() * (lse - z)).sum();
    Row { z, error, lse, entropy }
}

/// Returns dhidden and dw in f64, and a bound on the error that an implementation with the stated rounding points has
/// before its chains.
pub fn truth(c: &Case) -> (Vec<Sum>, Vec<Sum>) {
    let scale = 1.0 / f64::from(if c.temperature == 0.0 { 1.0 } else { c.temperature });
    let mut dhidden = vec![Sum::default(); c.t * c.k];
    let start = |&w: &f32| Sum { value: f64::from(w), size: f64::from(w).abs(), off: 0.0 };
    let mut dw: Vec<Sum> = c.dw.iter().map(start).collect();
    let hidden = wide(&c.hidden);
    for t in 0..c.t {
        let Row { z, error, lse, entropy } = row(c, t, &hidden);
        let (dl, dh) = (f64::from(c.dlog_prob[t]), c.dentropy.as_ref().map_or(0.0, |d| f64::from(d[t])));
        // Bounds of the forward pass (linear_logprob.rs) on its lse and its entropy.
        let bound = 2.0 * error + (c.v as f64 / 128.0 + 16.0 + 4.0 * lse.abs()) * 2f64.powi(-24);
        let entropy_off = 8.0 * bound * (1.0 + entropy.abs());
        for (v, &z) in z.iter().enumerate().filter(|(_, z)| z.is_finite()) {
            let lp = z - lse;
            let (p, hit) = (lp.exp(), f64::from(v as u32 == c.targets[t]));
            let dz = scale * (dl * (hit - p) - dh * p * (lp + entropy));
            // An error of the logit or the lse changes ln p. p changes by the same relative amount plus 4 ulp of exp.
            // Each of a few operations rounds by 2^-24 of at most `size`. The last rounding is to bf16.
            let moved = 1.01 * (error + bound) + 4.0 * lp.abs() * 2f64.powi(-24) + 2f64.powi(-22);
            let size = dl.abs() * (hit + p) + dh.abs() * p * (lp.abs() + entropy);
            let slope = p * (dl.abs() + dh.abs() * ((lp + entropy).abs() + 1.0));
            let off = scale * (slope * moved + dh.abs() * p * entropy_off + 8.0 * size * 2f64.powi(-24));
            let dz = (dz, off + half_ulp(dz.abs() + off));
            for k in 0..c.k {
                dhidden[t * c.k + k].add(dz, c.w[v * c.k + k]);
                dw[v * c.k + k].add(dz, c.hidden[t * c.k + k]);
            }
        }
    }
    (dhidden, dw)
}
