//! Python's `random.seed` and `random.shuffle`, which determine the published order of GPQA's options.

const N: usize = 624;
const M: usize = 397;

/// Python's generator, the Mersenne twister MT19937.
pub struct Random {
    state: [u32; N],
    next: usize,
}

impl Random {
    /// Seeds the generator like `random.seed(seed)`.
    pub fn seed(seed: u64) -> Random {
        let words = [seed as u32, (seed >> 32) as u32];
        let key = if words[1] == 0 { &words[..1] } else { &words[..] };
        let mut state = [0; N];
        state[0] = 19_650_218;
        for i in 1..N {
            state[i] = mixed(&state, i).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let mut i = 1;
        let step = |state: &mut [u32; N], i: usize| {
            if i + 1 < N {
                return i + 1;
            }
            state[0] = state[N - 1];
            1
        };
        for k in 0..N {
            let j = k % key.len();
            let with = state[i] ^ mixed(&state, i).wrapping_mul(1_664_525);
            state[i] = with.wrapping_add(key[j]).wrapping_add(j as u32);
            i = step(&mut state, i);
        }
        for _ in 1..N {
            let with = state[i] ^ mixed(&state, i).wrapping_mul(1_566_083_941);
            state[i] = with.wrapping_sub(i as u32);
            i = step(&mut state, i);
        }
        state[0] = 1 << 31;
        Random { state, next: N }
    }

    fn word(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn below(&mut self, n: u32) -> usize {
        let bits = u32::BITS - n.leading_zeros();
        loop {
            let drawn = self.word() >> (u32::BITS - bits);
            if drawn < n {
                return drawn as usize;
            }
        }
    }

    /// Shuffles like `random.shuffle(items)`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1));
        }
    }
}

fn mixed(state: &[u32; N], i: usize) -> u32 {
    state[i - 1] ^ (state[i - 1] >> 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_python() {
        for (seed, words) in WORDS {
            let mut random = Random::seed(seed);
            assert_eq!([(); 3].map(|()| random.word()), words, "seed {seed}");
        }
        let mut items = [0, 1, 2, 3, 4, 5, 6, 7];
        Random::seed(0).shuffle(&mut items);
        assert_eq!(items, SHUFFLED);
    }

    /// The first three values of `random.getrandbits(32)` in Python 3.11, for several seeds.
    const WORDS: [(u64, [u32; 3]); 4] = [
        (0, [3_626_764_237, 1_654_615_998, 3_255_389_356]),
        (1, [577_090_037, 2_444_712_010, 3_639_700_191]),
        (1_234, [4_150_886_329, 3_342_196_574, 1_892_932_127]),
        (4_294_967_303, [968_553_300, 3_287_823_873, 1_540_179_448]),
    ];
    const SHUFFLED: [u8; 8] = [4, 1, 5, 2, 0, 3, 7, 6];
}
