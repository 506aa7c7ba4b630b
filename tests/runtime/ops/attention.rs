//! Tests the attention op and its gradients against the f64 formula.

use half::bf16;
use omr_base::math::{exp2, ln};
use omr_runtime::device::{Device, Isa};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::attention;
use omr_runtime::tensor::{DType, Elem};

use super::reference::{BF16, F32, Random, blank, device, devices, differences, dot, relative, up, wide};

/// Softmax attention and its log-sum-exp in f64, one sequence at a time.
fn formula(qkv: &[f64], cu: &[u32], heads: Heads, causal: bool, scale: f64) -> (Vec<f64>, Vec<f64>) {
    let (dim, width) = (heads.dim, heads.qkv_len());
    let t = qkv.len() / width;
    let (mut out, mut lse) = (vec![0.0; t * heads.q * dim], vec![0.0; t * heads.q]);
    for w in cu.windows(2) {
        let (from, to) = (w[0] as usize, w[1] as usize);
        for i in from..to {
            for h in 0..heads.q {
                let q = &qkv[i * width + h * dim..][..dim];
                let last = if causal { i + 1 } else { to };
                let k = |j: usize| &qkv[j * width + (heads.q + h / heads.group()) * dim..][..dim];
                let v = |j: usize| &qkv[j * width + (heads.q + heads.kv + h / heads.group()) * dim..][..dim];
                let s: Vec<f64> = (from..last).map(|j| dot(q, k(j)) * scale).collect();
                let max = s.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = s.iter().map(|s| (s - max).exp()).sum();
                lse[i * heads.q + h] = max + sum.ln();
                for (j, s) in (from..last).zip(&s) {
                    for d in 0..dim {
                        out[(i * heads.q + h) * dim + d] += (s - max).exp() / sum * v(j)[d];
                    }
                }
            }
        }
    }
    (out, lse)
}

struct Case<T> {
    heads: Heads,
    causal: bool,
    scale: f32,
    cu: Vec<u32>,
    qkv: Vec<T>,
    dout: Vec<T>,
}

#[derive(PartialEq, Debug)]
struct Run<T> {
    out: Vec<T>,
    lse: Vec<f32>,
    dqkv: Vec<T>,
}

impl<T: Elem> Case<T> {
    fn new(lens: &[usize], heads: Heads, causal: bool) -> Case<T> {
        let mut cu = vec![0u32];
        for &n in lens {
            cu.push(cu[cu.len() - 1] + n as u32);
        }
        let t = lens.iter().sum::<usize>();
        let mut r = Random::new((t * 31 + heads.dim) as u64);
        let qkv = r.values::<f32>(t * heads.qkv_len()).iter().map(|x| T::from_f32(x * 2.0)).collect();
        let scale = 1.0 / (heads.dim as f32).sqrt();
        Case { heads, causal, scale, cu, qkv, dout: r.values(t * heads.out_len()) }
    }

    fn t(&self) -> usize {
        self.cu[self.cu.len() - 1] as usize
    }

    fn run(&self, dev: &mut Device) -> Run<T> {
        let (t, heads) = (self.t(), self.heads);
        let qkv = up(dev, &self.qkv, &[t, heads.qkv_len()]);
        let cu = up(dev, &self.cu, &[self.cu.len()]);
        let dout = up(dev, &self.dout, &[t, heads.out_len()]);
        let (out, lse) = (blank(dev, T::DTYPE, &[t, heads.out_len()]), blank(dev, DType::F32, &[t, heads.q]));
        let dqkv = blank(dev, T::DTYPE, &[t, heads.qkv_len()]);
        attention::fwd(
            dev,
            &attention::Pack { cu_seqlens: cu, max_seqlen: t, heads, causal: self.causal, scale: self.scale, pairs: 0 },
            qkv,
            out,
            lse,
        )
        .unwrap();
        attention::bwd(
            dev,
            &attention::Pack { cu_seqlens: cu, max_seqlen: t, heads, causal: self.causal, scale: self.scale, pairs: 0 },
            attention::Bwd { qkv, out, dout, lse, dqkv, prompt_of: None },
        )
        .unwrap();
        Run { out: dev.read(out).unwrap(), lse: dev.read(lse).unwrap(), dqkv: dev.read(dqkv).unwrap() }
    }

    fn want(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        formula(x, &self.cu, self.heads, self.causal, f64::from(self.scale))
    }

    /// Compares outputs and gradients with the formula and its finite differences. Scores are sums of `dim` products of
    /// values up to 2. The absolute error of a score is about 4 sqrt(dim) * scale * sqrt(dim) units, and it is a
    /// relative error of P. Outputs and gradients are sums with up to as many terms as the sequence has tokens, which
    /// add a further error. In bf16, P, dS, out and dqkv are rounded. Cancellation in dP - D can add an error of 4
    /// units to the gradient.
    fn check(&self) {
        let run = self.run(&mut device(2, Isa::detect()));
        let x = wide(&self.qkv);
        let (out, lse) = self.want(&x);
        let points = if T::DTYPE == DType::Bf16 { BF16 } else { 0.0 };
        let longest = self.cu.windows(2).map(|w| w[1] - w[0]).max().unwrap() as f64;
        let tolerance = 16.0 * F32 * (self.heads.dim as f64 + longest).sqrt();
        assert!(relative(&run.out, &out) < tolerance + points, "out {:e}", relative(&run.out, &out));
        assert!(relative(&run.lse, &lse) < tolerance, "lse {:e}", relative(&run.lse, &lse));
        let mut r = Random::new(5);
        let at: Vec<usize> =
            if x.len() <= 400 { (0..x.len()).collect() } else { (0..60).map(|_| r.below(x.len())).collect() };
        let dout = wide(&self.dout);
        let want = differences(&x, &at, |x| dot(&self.want(x).0, &dout));
        let got: Vec<T> = at.iter().map(|&i| run.dqkv[i]).collect();
        assert!(relative(&got, &want) < 4.0 * tolerance + 4.0 * points, "dqkv {:e}", relative(&got, &want));
    }
}

const SHAPES: [(usize, usize, usize); 9] =
    [(2, 2, 72), (1, 1, 2), (3, 1, 32), (2, 2, 12), (4, 2, 16), (7, 1, 24), (2, 1, 80), (7, 1, 128), (5, 5, 32)];

#[test]
fn agrees_with_the_formula_and_its_differences() {
    for (q, kv, dim) in SHAPES {
        for causal in [true, false] {
            let heads = Heads { q, kv, dim };
            Case::<f32>::new(&[1, 0, 9, 4], heads, causal).check();
            Case::<bf16>::new(&[1, 0, 9, 4], heads, causal).check();
        }
    }
}

/// Computes two tokens in f32 by the definition of a row and compares the results bit for bit. The scores are so large
/// that a rounding of the base is visible: the largest key has the weight 1 within |M| 2^-24.
#[test]
fn a_row_is_what_its_definition_says() {
    let (heads, scale) = (Heads { q: 1, kv: 1, dim: 2 }, 7.0);
    let c = (f64::from(scale) * std::f64::consts::LOG2_E) as f32;
    let mut r = Random::new(11);
    let mut off = 0;
    for _ in 0..100 {
        let qkv: Vec<f32> = r.values::<f32>(12).iter().map(|x| x * 9.0).collect();
        let case = Case::<f32> { heads, causal: true, scale, cu: vec![0, 2], qkv, dout: vec![0.0; 4] };
        let run = case.run(&mut device(1, Isa::detect()));
        let (token, other) = case.qkv.split_at(6);
        let score = |q: &[f32], k: &[f32]| q[1].mul_add(k[1], q[0] * k[0]);
        for (i, (q, keys)) in [(token, vec![token]), (other, vec![token, other])].into_iter().enumerate() {
            let s: Vec<f32> = keys.iter().map(|k| score(q, &k[2..])).collect();
            let base = s.iter().copied().fold(f32::MIN, f32::max) * c;
            let p: Vec<f32> = s.iter().map(|s| exp2(s.mul_add(c, -base))).collect();
            let largest = p.iter().copied().fold(0.0, f32::max);
            assert!((largest - 1.0).abs() <= base.abs() * 2f32.powi(-24), "{largest} under {base}");
            off += usize::from(largest != 1.0);
            let l: f32 = p.iter().sum();
            assert_eq!(run.lse[i], base.mul_add(std::f32::consts::LN_2, ln(l)));
            for d in 0..2 {
                let o = p.iter().zip(&keys).fold(0.0f32, |o, (p, k)| p.mul_add(k[4 + d], o));
                assert_eq!(run.out[2 * i + d], o * (1.0 / l), "{i} {d}");
            }
        }
    }
    assert!(off > 100, "{off} of 200 bases were rounded");
}

#[test]
fn agrees_over_block_borders() {
    for causal in [true, false] {
        Case::<f32>::new(&[140, 3, 129], Heads { q: 2, kv: 1, dim: 4 }, causal).check();
        Case::<bf16>::new(&[128, 0, 0, 150], Heads { q: 2, kv: 2, dim: 6 }, causal).check();
    }
}

#[test]
fn forward_agrees_over_chunk_borders() {
    for (causal, len) in [(true, 2100), (false, 4200)] {
        let case = Case::<f32>::new(&[len], Heads { q: 1, kv: 1, dim: 4 }, causal);
        let run = case.run(&mut device(2, Isa::detect()));
        let (out, lse) = case.want(&wide(&case.qkv));
        let tolerance = 16.0 * F32 * (len as f64).sqrt();
        assert!(relative(&run.out, &out) < tolerance, "out {:e}", relative(&run.out, &out));
        assert!(relative(&run.lse, &lse) < tolerance, "lse {:e}", relative(&run.lse, &lse));
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_sets() {
    for causal in [true, false] {
        let case = Case::<f32>::new(&[40, 0, 300, 64, 1], Heads { q: 6, kv: 2, dim: 24 }, causal);
        let runs: Vec<_> = devices().iter_mut().map(|dev| case.run(dev)).collect();
        assert!(runs.windows(2).all(|w| w[0] == w[1]));
        let case = Case::<bf16>::new(&[40, 0, 300, 64, 1], Heads { q: 6, kv: 2, dim: 24 }, causal);
        let runs: Vec<_> = devices().iter_mut().map(|dev| case.run(dev)).collect();
        assert!(runs.windows(2).all(|w| w[0] == w[1]));
    }
}

#[test]
fn bits_do_not_depend_on_the_other_sequences() {
    let heads = Heads { q: 3, kv: 1, dim: 32 };
    let all = Case::<f32>::new(&[37, 200, 5], heads, true);
    let mut alone = Case::<f32>::new(&[200], heads, true);
    let rows = |x: &[f32], width: usize| x[37 * width..237 * width].to_vec();
    alone.qkv = rows(&all.qkv, heads.qkv_len());
    alone.dout = rows(&all.dout, heads.out_len());
    let (all, alone) = (all.run(&mut device(2, Isa::detect())), alone.run(&mut device(1, Isa::detect())));
    assert_eq!(rows(&all.out, heads.out_len()), alone.out);
    assert_eq!(rows(&all.lse, heads.q), alone.lse);
    assert_eq!(rows(&all.dqkv, heads.qkv_len()), alone.dqkv);
}

#[test]
fn sequences_that_do_not_fill_the_rows_are_an_error() {
    let dev = &mut device(1, Isa::Portable);
    let heads = Heads { q: 1, kv: 1, dim: 2 };
    let qkv = up(dev, &[0.0f32; 18], &[3, 6]);
    let (out, lse) = (blank(dev, DType::F32, &[3, 2]), blank(dev, DType::F32, &[3, 1]));
    for bad in [[0u32, 2], [1, 3], [0, 4]] {
        let cu = up(dev, &bad, &[2]);
        assert!(
            attention::fwd(
                dev,
                &attention::Pack { cu_seqlens: cu, max_seqlen: 4, heads, causal: true, scale: 1.0, pairs: 0 },
                qkv,
                out,
                lse
            )
            .is_err()
        );
    }
    let cu = up(dev, &[0u32, 3], &[2]);
    assert!(
        attention::fwd(
            dev,
            &attention::Pack { cu_seqlens: cu, max_seqlen: 2, heads, causal: true, scale: 1.0, pairs: 0 },
            qkv,
            out,
            lse
        )
        .is_err()
    );
    attention::fwd(
        dev,
        &attention::Pack { cu_seqlens: cu, max_seqlen: 3, heads, causal: true, scale: 1.0, pairs: 0 },
        qkv,
        out,
        lse,
    )
    .unwrap();
    let dqkv = blank(dev, DType::F32, &[3, 6]);
    assert!(
        attention::bwd(
            dev,
            &attention::Pack { cu_seqlens: cu, max_seqlen: 2, heads, causal: true, scale: 1.0, pairs: 0 },
            attention::Bwd { qkv, out, dout: out, lse, dqkv, prompt_of: None }
        )
        .is_err()
    );
    attention::bwd(
        dev,
        &attention::Pack { cu_seqlens: cu, max_seqlen: 3, heads, causal: true, scale: 1.0, pairs: 0 },
        attention::Bwd { qkv, out, dout: out, lse, dqkv, prompt_of: None },
    )
    .unwrap();
}
