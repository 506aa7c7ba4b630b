//! Random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//!
//! The key is made from the run's seed, the purpose and the step. The counter identifies the item that a number is for,
//! for example a row. There is no state to save, and a number does not depend on numbers that were drawn before. This
//! file is the host's implementation.

use crate::math;

/// Computes ten rounds of Philox on the counter `ctr` with `key`. Returns four random words.
#[inline(always)]
pub fn philox4x32_10(key: [u32; 2], ctr: [u32; 4]) -> [u32; 4] {
    let [mut k0, mut k1] = key;
    let [mut c0, mut c1, mut c2, mut c3] = ctr;
    for _ in 0..10 {
        let a = u64::from(c0) * 0xd251_1f53;
        let b = u64::from(c2) * 0xcd9e_8d57;
        (c0, c1, c2, c3) = ((b >> 32) as u32 ^ c1 ^ k0, b as u32, (a >> 32) as u32 ^ c3 ^ k1, a as u32);
        k0 = k0.wrapping_add(0x9e37_79b9);
        k1 = k1.wrapping_add(0xbb67_ae85);
    }
    [c0, c1, c2, c3]
}

/// Purpose of random numbers. Different purposes never share a number. The text after "counter:" is the item that the
/// counter identifies. The values of this enum must not change, because checkpoints depend on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum Purpose {
    /// Weights of a new model; counter: the tensor.
    Init = 1,
    /// Order of samples; counter: the epoch.
    Shuffle = 2,
    /// Augmentation of inputs.
    Augment = 3,
    /// Generated data: rows of a built-in data set; counter: the row.
    Data = 4,
    /// Answers of a built-in teacher; counter: the row and the answer.
    Teacher = 5,
    /// Sampling noise; counter: (prompt, rollout, position, id / 4).
    Noise = 6,
    /// Stochastic rounding; counter: (element / 4, parameter, kind of value).
    Rounding = 7,
    /// Waiting times before a request is sent again.
    Backoff = 10,
    /// Choice of the responses that are computed only for metrics, because they cannot change the policy; counter:
    /// (prompt, rollout).
    Figures = 11,
    /// A of new adapters; counter: (tensor of the base, row).
    Adapter = 12,
    /// Tests.
    Test = 15,
}

/// Returns the key of `purpose` at `step` of a run. The purpose is in the high 4 bits and the step in the low 28.
#[inline(always)]
pub fn key(seed: u64, purpose: Purpose, step: u64) -> [u32; 2] {
    let fold = |x: u64| (x ^ (x >> 32)) as u32;
    [fold(seed), ((purpose as u32) << 28) ^ fold(step)]
}

/// Sequence of random numbers for one item. Number i is word i % 4 of counter (i / 4, 0, item).
#[derive(Clone, Debug)]
pub struct Random {
    key: [u32; 2],
    thing: [u32; 2],
    block: u32,
    words: [u32; 4],
    used: usize,
    spare_normal: Option<f32>,
}

impl Random {
    /// Creates the sequence of `counter` (an epoch, a row, a tensor) for `purpose` with the run's `seed`.
    pub fn new(seed: u64, purpose: Purpose, counter: u64) -> Random {
        Random {
            key: key(seed, purpose, 0),
            thing: [counter as u32, (counter >> 32) as u32],
            block: 0,
            words: [0; 4],
            used: 4,
            spare_normal: None,
        }
    }

    /// Returns 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = philox4x32_10(self.key, [self.block, 0, self.thing[0], self.thing[1]]);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Returns 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        u64::from(self.next_u32()) << 32 | low
    }

    /// Returns a uniform multiple of 2^-24 in [0, 1).
    pub fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Returns a uniform multiple of 2^-53 in [0, 1).
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Returns a standard normal number (Box-Muller).
    pub fn normal(&mut self) -> f32 {
        if let Some(z) = self.spare_normal.take() {
            return z;
        }
        // In (0, 1], so the logarithm is finite.
        let u = ((self.next_u32() >> 8) + 1) as f32 * (1.0 / 16_777_216.0);
        let radius = (-2.0 * math::ln(u)).sqrt();
        let (sin, cos) = math::sin_cos_turns(self.uniform_f32());
        self.spare_normal = Some(radius * sin);
        radius * cos
    }

    /// Returns a uniform integer in `0..n`, without bias. Panics if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below() needs a bound above 0");
        // Lemire's method: the result is the high half of word * n. Words whose low half falls into the uneven
        // remainder are drawn again.
        let rest = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= rest {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Shuffles by Fisher-Yates: every order is equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// Shuffles `items` with the random numbers of (seed, purpose, counter).
pub fn shuffle<T>(seed: u64, purpose: Purpose, counter: u64, items: &mut [T]) {
    Random::new(seed, purpose, counter).shuffle(items);
}

/// Computes Gumbel noise from one random word k: -ln(-log1p(-w)) with w = min(f32(k 2^-32 + 2^-33), 1 - 2^-24).
#[inline(always)]
pub fn gumbel(word: u32) -> f32 {
    // The f64 value is exact (33 bits), so the conversion to f32 is the only rounding.
    let w = ((f64::from(word) + 0.5) * (1.0 / 4_294_967_296.0)) as f32;
    const LAST: f32 = 1.0 - 1.0 / 16_777_216.0;
    let w = if w < LAST { w } else { LAST };
    -math::ln(-math::log1p(-w))
}
