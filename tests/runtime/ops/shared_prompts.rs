//! Tests the gradients of attention over sequences that share a prompt, against those of whole sequences.

use half::bf16;
use omr_runtime::device::{Device, Isa};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::attention::{self, Pack};
use omr_runtime::tensor::{DType, Elem};

use super::reference::{BF16, F32, Random, blank, device, devices, relative, up};

/// Rows of prompts and of their responses, one after the other. A prompt without responses is a plain sequence.
struct Case<T> {
    heads: Heads,
    cu_seqlens: Vec<u32>,
    prompt_of: Vec<u32>,
    qkv: Vec<T>,
    dout: Vec<T>,
}

/// Results for the rows of a pack.
struct Run<T> {
    out: Vec<T>,
    lse: Vec<f32>,
    dqkv: Vec<T>,
}

impl<T: Elem> Case<T> {
    fn new(heads: Heads, groups: &[(usize, &[usize])]) -> Case<T> {
        let (mut cu_seqlens, mut prompt_of, mut rows) = (vec![0u32], Vec::new(), 0);
        for (prompt, responses) in groups {
            let first = prompt_of.len() as u32;
            for len in [prompt].into_iter().chain(*responses) {
                rows += len;
                cu_seqlens.push(rows as u32);
                prompt_of.push(first);
            }
        }
        let mut r = Random::new((rows * 31 + heads.dim) as u64);
        let qkv = r.values::<f32>(rows * heads.qkv_len()).iter().map(|x| T::from_f32(x * 2.0)).collect();
        Case { heads, cu_seqlens, prompt_of, qkv, dout: r.values(rows * heads.out_len()) }
    }

    fn pack(&self, dev: &mut Device, cu_seqlens: &[u32]) -> Pack {
        let cu_seqlens = up(dev, cu_seqlens, &[cu_seqlens.len()]);
        let scale = 1.0 / (self.heads.dim as f32).sqrt();
        Pack { cu_seqlens, max_seqlen: 1 << 20, heads: self.heads, causal: true, scale, pairs: 0 }
    }

    /// Returns the rows of the pack that the whole sequence `s` consists of, those of the prompt first.
    fn whole(&self, s: usize) -> Vec<usize> {
        let rows = |s: usize| self.cu_seqlens[s] as usize..self.cu_seqlens[s + 1] as usize;
        let prompt = self.prompt_of[s] as usize;
        if prompt == s { rows(s).collect() } else { rows(prompt).chain(rows(s)).collect() }
    }

    /// Returns the results of whole sequences. The gradient of a prompt's row is the sum over its sequences, in f64.
    fn apart(&self, dev: &mut Device) -> (Run<T>, Vec<f64>) {
        let heads = self.heads;
        let (width, out_len) = (heads.qkv_len(), heads.out_len());
        let rows: Vec<Vec<usize>> = (0..self.prompt_of.len()).map(|s| self.whole(s)).collect();
        let own = |s: usize| rows[s].len() - (self.cu_seqlens[s + 1] - self.cu_seqlens[s]) as usize;
        let (mut cu_seqlens, mut qkv, mut dout) = (vec![0u32], Vec::new(), Vec::new());
        for (s, rows) in rows.iter().enumerate() {
            for (i, row) in rows.iter().enumerate() {
                qkv.extend_from_slice(&self.qkv[row * width..][..width]);
                // Only the prompt itself has the gradients of its rows.
                let gradient = &self.dout[row * out_len..][..out_len];
                dout.extend(gradient.iter().map(|x| if i < own(s) { T::from_f32(0.0) } else { *x }));
            }
            cu_seqlens.push((qkv.len() / width) as u32);
        }
        let t = qkv.len() / width;
        let pack = self.pack(dev, &cu_seqlens);
        let [qkv, dout] = [up(dev, &qkv, &[t, width]), up(dev, &dout, &[t, out_len])];
        let (out, lse) = (blank(dev, T::DTYPE, &[t, out_len]), blank(dev, DType::F32, &[t, heads.q]));
        let dqkv = blank(dev, T::DTYPE, &[t, width]);
        attention::fwd(dev, &pack, qkv, out, lse).unwrap();
        attention::bwd(dev, &pack, attention::Bwd { qkv, out, dout, lse, dqkv, prompt_of: None }).unwrap();
        let (out, lse, dqkv) =
            (dev.read::<T>(out).unwrap(), dev.read::<f32>(lse).unwrap(), dev.read::<T>(dqkv).unwrap());
        let mut run = Run { out: Vec::new(), lse: Vec::new(), dqkv: Vec::new() };
        let mut sums = vec![0.0; self.qkv.len()];
        for (s, rows) in rows.iter().enumerate() {
            for (i, row) in rows.iter().enumerate() {
                let at = cu_seqlens[s] as usize + i;
                if i >= own(s) {
                    run.out.extend_from_slice(&out[at * out_len..][..out_len]);
                    run.lse.extend_from_slice(&lse[at * heads.q..][..heads.q]);
                    run.dqkv.extend_from_slice(&dqkv[at * width..][..width]);
                }
                let sum = &mut sums[row * width..][..width];
                sum.iter_mut().zip(&dqkv[at * width..]).for_each(|(sum, x)| *sum += f64::from(x.to_f32()));
            }
        }
        (run, sums)
    }

    /// Returns the gradients of the pack with shared prompts. `of` has the results of the forward pass.
    fn shared(&self, dev: &mut Device, of: &Run<T>) -> Vec<T> {
        let (t, heads) = (of.out.len() / self.heads.out_len(), self.heads);
        let pack = self.pack(dev, &self.cu_seqlens);
        let qkv = up(dev, &self.qkv, &[t, heads.qkv_len()]);
        let [out, dout] = [&of.out, &self.dout].map(|x| up(dev, x, &[t, heads.out_len()]));
        let (lse, dqkv) = (up(dev, &of.lse, &[t, heads.q]), blank(dev, T::DTYPE, &[t, heads.qkv_len()]));
        let prompt_of = Some(up(dev, &self.prompt_of, &[self.prompt_of.len()]));
        attention::bwd(dev, &pack, attention::Bwd { qkv, out, dout, lse, dqkv, prompt_of }).unwrap();
        dev.read(dqkv).unwrap()
    }

    /// Compares the gradients with those of whole sequences. An element is a sum of products with errors of a few units;
    /// `rounding` is the error of the roundings to the compute type.
    fn check(&self, rounding: f64) {
        let dev = &mut device(2, Isa::detect());
        let (run, want) = self.apart(dev);
        let got = self.shared(dev, &run);
        let longest = self.cu_seqlens[self.cu_seqlens.len() - 1] as f64;
        let tolerance = 64.0 * F32 * (self.heads.dim as f64 + longest).sqrt() + rounding;
        assert!(relative(&got, &want) < tolerance, "{:e}", relative(&got, &want));
    }
}

const MANY: [usize; 16] = [3, 1, 9, 40, 2, 2, 17, 130, 5, 1, 8, 31, 64, 7, 12, 4];

#[test]
fn gradients_are_the_sums_over_whole_sequences() {
    let cases: [&[(usize, &[usize])]; 5] = [
        &[(1, &[1, 2])],
        &[(127, &[5, 3]), (40, &[]), (128, &[1, 200])],
        &[(129, &MANY)],
        &[(300, &[7]), (2, &[150, 128, 3])],
        &[(64, &[20, 30, 40]), (256, &[1])],
    ];
    for groups in cases {
        for heads in [Heads { q: 2, kv: 1, dim: 16 }, Heads { q: 6, kv: 2, dim: 12 }] {
            Case::<f32>::new(heads, groups).check(0.0);
            // P, dS and dqkv are rounded in both, and the sums of whole sequences are rounded for each sequence.
            Case::<bf16>::new(heads, groups).check(4.0 * BF16);
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_sets() {
    let case = Case::<bf16>::new(Heads { q: 6, kv: 2, dim: 24 }, &[(130, &[40, 3]), (20, &[]), (50, &MANY)]);
    let (run, _) = case.apart(&mut device(2, Isa::detect()));
    let found: Vec<Vec<bf16>> = devices().iter_mut().map(|dev| case.shared(dev, &run)).collect();
    assert!(found.windows(2).all(|w| w[0] == w[1]));
}

/// A row of a response has the gradient of q that it has in its whole sequence, and a plain sequence has all its bits.
#[test]
fn rows_of_plain_sequences_keep_their_bits() {
    let case = Case::<f32>::new(Heads { q: 4, kv: 2, dim: 16 }, &[(30, &[]), (128, &[9, 140]), (200, &[])]);
    let dev = &mut device(2, Isa::detect());
    let (run, _) = case.apart(dev);
    let (got, width) = (case.shared(dev, &run), case.heads.qkv_len());
    for s in [0, case.prompt_of.len() - 1] {
        let rows = case.cu_seqlens[s] as usize * width..case.cu_seqlens[s + 1] as usize * width;
        assert_eq!(got[rows.clone()], run.dqkv[rows]);
    }
    // The prompt has 128 rows, so both computations have the same blocks of keys.
    for row in 30 + 128..30 + 128 + 149 {
        assert_eq!(got[row * width..][..64], run.dqkv[row * width..][..64], "{row}");
    }
}

#[test]
fn a_response_that_does_not_follow_its_prompt_is_an_error() {
    let mut case = Case::<f32>::new(Heads { q: 1, kv: 1, dim: 2 }, &[(2, &[1]), (2, &[1])]);
    let dev = &mut device(1, Isa::Portable);
    let (run, _) = case.apart(dev);
    case.prompt_of = vec![0, 0, 2, 0];
    let t = run.lse.len();
    let pack = case.pack(dev, &case.cu_seqlens);
    let qkv = up(dev, &case.qkv, &[t, 6]);
    let (out, lse) = (up(dev, &run.out, &[t, 2]), up(dev, &run.lse, &[t, 1]));
    let prompt_of = Some(up(dev, &case.prompt_of, &[4]));
    let call = attention::Bwd { qkv, out, dout: out, lse, dqkv: blank(dev, DType::F32, &[t, 6]), prompt_of };
    let error = attention::bwd(dev, &pack, call).unwrap_err().to_string();
    assert!(error.contains("sequence 3"), "{error}");
}
