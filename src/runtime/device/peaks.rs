//! Measures the peak rates of this machine's CPU and memory with loops that do nothing else.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use super::{Device, Isa, Parts, Pool, cpu_kernel};
use omr_base::error::{Error, Result};

/// Peak rates of all threads together.
pub struct Peaks {
    /// Additions and multiplications per second in f32.
    pub f32_flops: f64,
    /// Additions and multiplications per second with bf16 operands.
    pub bf16_flops: f64,
    /// Bytes read or written per second by a copy far larger than the caches.
    pub bytes: f64,
}

/// Number of independent chains. Twelve vectors of sixteen lanes hide the latency of fused multiply-adds at two per
/// cycle, and they fit into registers.
const CHAINS: usize = 12 * 16;
const COPY_BYTES: usize = 256 << 20;

cpu_kernel! {
    /// Computes `rounds` fused multiply-adds in each chain. The array is flat, because nested arrays are vectorised
    /// across the chains.
    fn chains(rounds: usize, factor: f32, addend: f32, sums: &mut [f32; CHAINS]) {
        let mut local = *sums;
        for _ in 0..rounds {
            for sum in &mut local {
                *sum = sum.mul_add(factor, addend);
            }
        }
        *sums = local;
    }
}

impl Peaks {
    /// Measures for about half a second.
    pub fn measure(dev: &mut Device) -> Result<Peaks> {
        let nothing = || Error::Failed("omr bench: this device computes nothing".to_owned());
        let cpu = dev.on_cpu().ok_or_else(nothing)?;
        let (threads, isa) = (cpu.pool.threads(), cpu.isa);
        let rounds = 100_000;
        let flops = (threads * rounds * CHAINS * 2) as f64;
        let seconds = best(20, || {
            cpu.pool.run(threads, |_| {
                let mut sums = [0.5; CHAINS];
                chains(isa, black_box(rounds), black_box(0.999), black_box(0.001), &mut sums);
                black_box(sums);
            })
        });
        let f32_flops = flops / seconds;
        let from = vec![1_u8; COPY_BYTES];
        let mut to = vec![0_u8; COPY_BYTES];
        let chunk = COPY_BYTES / (threads * 8);
        let seconds = best(6, || {
            let parts = Parts::new(&mut to, chunk);
            cpu.pool.run(parts.count(), |i| {
                let part = parts.take(i);
                part.copy_from_slice(&from[i * chunk..][..part.len()]);
            });
        });
        // Multiply-adds of f32 can compute products of bf16, too.
        let bf16_flops = bf16_flops(cpu.pool, isa).unwrap_or(f32_flops).max(f32_flops);
        Ok(Peaks { f32_flops, bf16_flops, bytes: 2.0 * COPY_BYTES as f64 / seconds })
    }

    /// Returns the arithmetic peak rate for operands of this type.
    pub fn flops(&self, dtype: &str) -> f64 {
        if dtype == "bf16" { self.bf16_flops } else { self.f32_flops }
    }
}

impl Isa {
    /// Returns true if bf16 products use `vdpbf16ps`, and this processor needs more than 1.5 times as long for it as for the
    /// two fused multiply-adds with the same result. It is measured once, in less than a millisecond.
    pub fn has_slow_dot(self) -> bool {
        static SLOW: OnceLock<bool> = OnceLock::new();
        let measure = || {
            let rounds = 4096;
            let dots = best(5, || {
                self.spin_bf16(black_box(rounds));
            });
            let mut sums = [0.5; CHAINS];
            let fused = best(5, || chains(self, black_box(2 * rounds), black_box(0.999), black_box(0.001), &mut sums));
            black_box(sums);
            dots > 1.5 * fused
        };
        self.has_bf16_dot() && *SLOW.get_or_init(measure)
    }
}

/// Measures the rate of a special instruction for bf16 products, if the CPU has one.
fn bf16_flops(pool: &Pool, isa: Isa) -> Option<f64> {
    let rounds = 100_000;
    let flops = (pool.threads() * isa.spin_bf16(rounds)?) as f64;
    let spin = |_| {
        isa.spin_bf16(black_box(rounds));
    };
    Some(flops / best(20, || pool.run(pool.threads(), spin)))
}

fn best(times: usize, mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..times {
        let at = Instant::now();
        work();
        best = best.min(at.elapsed().as_secs_f64());
    }
    best
}
