//! Which kernel bodies this machine can run, and how fast its instruction for bf16 products is.

use super::amx::{self, Tiles};
use super::isa::Isa;

impl Isa {
    /// The best bodies this machine can run.
    pub fn detect() -> Isa {
        if Isa::Amx.available() { Isa::Amx } else { Isa::vectors_here() }
    }

    /// True when this machine can run these bodies.
    pub fn available(self) -> bool {
        match self {
            Isa::Amx => amx::refusal().is_none(),
            Isa::Avx512 => Isa::vectors_here() == Isa::Avx512,
            Isa::Avx2 => Isa::vectors_here() != Isa::Portable,
            Isa::Portable | Isa::AmxTwin => true,
        }
    }

    /// `rounds` of the instruction that bf16 products have of their own, with nothing beside it: the additions and
    /// multiplications that were made; none where they have none.
    pub fn spin_bf16(self, rounds: usize) -> Option<usize> {
        if self == Isa::Amx {
            Tiles::new(self, amx::ROWS).spin(rounds);
            return Some(rounds * Tiles::ROUND);
        }
        #[cfg(target_arch = "x86_64")]
        if self.has_bf16_dot() {
            // SAFETY: the instruction is there.
            return Some(unsafe { spin_dots(rounds) });
        }
        None
    }
}

/// Twelve chains hide the latency of `vdpbf16ps` and stay in registers.
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
