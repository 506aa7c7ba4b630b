//! Detects which CPU kernel variants this machine can run, and times its instruction for bf16 products.

#[cfg(target_arch = "x86_64")]
use std::{sync::OnceLock, time::Instant};

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

    /// Returns true if bf16 products use `vdpbf16ps` and this processor needs at least 1.5 times as long for it as for the two
    /// fused multiply-adds with the same result. It is measured once, in less than a millisecond.
    #[cfg(target_arch = "x86_64")]
    pub fn has_slow_dot(self) -> bool {
        static SLOW: OnceLock<bool> = OnceLock::new();
        // SAFETY: `has_bf16_dot` has checked that the processor has the instructions.
        let timed = |dots: bool| unsafe {
            let begun = Instant::now();
            if dots {
                spin_dots(4096)
            } else {
                spin_fused(2 * 4096)
            };
            begun.elapsed()
        };
        let fastest = |dots| (0..5).map(|_| timed(dots)).min();
        self.has_bf16_dot() && *SLOW.get_or_init(|| fastest(true) > fastest(false).map(|time| time * 3 / 2))
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
            // SAFETY: `has_bf16_dot` has checked that the processor has the instructions.
            return Some(unsafe { if self.has_slow_dot() { spin_fused(rounds) } else { spin_dots(rounds) } });
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

/// Runs `rounds` rounds of twelve independent fused multiply-adds.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn spin_fused(rounds: usize) -> usize {
    use std::arch::x86_64::*;
    use std::hint::black_box;
    let factor = _mm512_set1_ps(black_box(0.01));
    let mut sums = [_mm512_setzero_ps(); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(factor, factor, *sum);
        }
    }
    black_box(sums);
    rounds * sums.len() * 16 * 2
}
