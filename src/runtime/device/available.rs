//! Detects which CPU kernel variants this machine can run, and times its instruction for bf16 products.

use super::amx::{self, Tiles};
use super::isa::Isa;

impl Isa {
    /// Returns the best variant that this machine can run.
    pub fn detect() -> Isa {
        if Isa::Amx.available() { Isa::Amx } else { Isa::vectors_here() }
    }

    /// Returns true if this machine can run this variant.
    pub fn available(self) -> bool {
        match self {
            Isa::Amx => amx::refusal().is_none(),
            Isa::Avx512 => Isa::vectors_here() == Isa::Avx512,
            Isa::Avx2 => Isa::vectors_here() != Isa::Portable,
            Isa::Portable | Isa::AmxTwin => true,
        }
    }

    /// Runs `rounds` rounds of the instruction that computes bf16 products, and nothing else. Returns the number of
    /// additions and multiplications, or `None` if this variant has no such instruction.
    pub fn spin_bf16(self, rounds: usize) -> Option<usize> {
        if self == Isa::Amx {
            Tiles::new(self, amx::ROWS).spin(rounds);
            return Some(rounds * Tiles::ROUND);
        }
        #[cfg(target_arch = "x86_64")]
        if self.has_bf16_dot() {
            // SAFETY: `has_bf16_dot` has checked that the processor has the instruction.
            return Some(unsafe { spin_dots(rounds) });
        }
        None
    }
}

/// Runs `rounds` rounds of twelve independent `vdpbf16ps`. Twelve accumulators hide the latency and fit in registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn spin_dots(rounds: usize) -> usize {
    use std::arch::x86_64::*;
    use std::hint::black_box;
    let pairs = _mm512_cvtne2ps_pbh(_mm512_set1_ps(black_box(0.01)), _mm512_set1_ps(black_box(0.02)));
    let mut sums = [_mm512_setzero_ps(); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
        }
    }
    black_box(sums);
    rounds * sums.len() * 16 * 4
}
