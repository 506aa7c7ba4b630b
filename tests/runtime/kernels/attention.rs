//! Tests of kernels/attention.cu: against the CPU op, which rounds at the same points, and against a formula in f64.

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::attention;
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{blank, cpu, normals, up, wide};
use crate::kernels::{Outcome, emu, equal, mutate_sites, mutate_source, near, same_bits};

/// Tolerance against the formula in f64. P and the output are each rounded to bf16 once, with a relative error of at
/// most 2^-8 and a root mean square of 1.7e-3. A sum over many keys only reduces it.
pub const FORMULA: f64 = 3e-3;

/// Tolerance against the CPU, which rounds at the same points. Scores and sums in another order differ by a relative
/// 2^-20 or so. One in 2^12 values is therefore rounded to the other bf16 neighbour, with an error of 2^-7. The root
/// mean square error is 2^-6 times 2^-7. The tolerance is twice this value. One rounding point more or less would cost
/// 1e-3.
pub const CPU: f64 = 2.5e-4;

/// Tolerance of log-sum-exp: fp32 chains as long as a head and a sequence, with roundings in both directions.
pub const LSE: f64 = 2e-6;

pub fn heads(q: usize, kv: usize, dim: usize) -> Heads {
    Heads { q, kv, dim }
}

/// Sequences and their packed rows.
#[derive(Clone)]
pub struct Case {
    pub heads: Heads,
    pub cu: Vec<u32>,
    pub qkv: Vec<bf16>,
}

impl Case {
    /// Creates rows of normal numbers, so that the scores have the standard deviation that they have in a model.
    pub fn new(heads: Heads, lens: &[usize]) -> Case {
        let mut cu = vec![0u32];
        lens.iter().for_each(|&n| cu.push(cu[cu.len() - 1] + n as u32));
        let len = lens.iter().sum::<usize>() * heads.qkv_len();
        Case { heads, cu, qkv: normals((len * 64 + heads.q) as u64, len) }
    }

    pub fn t(&self) -> usize {
        self.cu[self.cu.len() - 1] as usize
    }

    pub fn scale(&self) -> f32 {
        1.0 / (self.heads.dim as f32).sqrt()
    }

    /// Returns outputs and log-sum-exps of `attention::fwd`.
    pub fn run(&self, dev: &mut Device, causal: bool, max_seqlen: usize) -> Outcome<(Vec<bf16>, Vec<f32>)> {
        let (t, heads) = (self.t(), self.heads);
        let mark = dev.mark(Region::Overlay);
        let qkv = up(dev, &self.qkv, &[t, heads.qkv_len()]);
        let cu = up(dev, &self.cu, &[self.cu.len()]);
        let (out, lse) = (blank(dev, DType::Bf16, &[t, heads.out_len()]), blank(dev, DType::F32, &[t, heads.q]));
        attention::fwd(
            dev,
            &attention::Pack { cu_seqlens: cu, max_seqlen, heads, causal, scale: self.scale(), pairs: 0 },
            qkv,
            out,
            lse,
        )?;
        let results = (dev.read(out)?, dev.read(lse)?);
        dev.release(mark);
        Ok(results)
    }

    /// Returns outputs and log-sum-exps in f64, without any rounding.
    pub fn formula(&self, causal: bool) -> (Vec<f64>, Vec<f64>) {
        self.formula_of(&wide(&self.qkv), causal)
    }

    /// Returns outputs and log-sum-exps in f64 like [`Case::formula`], for the rows `x` instead of the rows of this
    /// case.
    pub fn formula_of(&self, x: &[f64], causal: bool) -> (Vec<f64>, Vec<f64>) {
        let (dim, width, heads) = (self.heads.dim, self.heads.qkv_len(), self.heads);
        let (mut out, mut lse) = (vec![0.0; self.t() * heads.out_len()], vec![0.0; self.t() * heads.q]);
        for w in self.cu.windows(2) {
            let (from, to) = (w[0] as usize, w[1] as usize);
            for i in from..to {
                for h in 0..heads.q {
                    let q = &x[i * width + h * dim..][..dim];
                    let kv = h / heads.group();
                    let keys = from..if causal { i + 1 } else { to };
                    let score = |j: usize| -> f64 {
                        let k = &x[j * width + (heads.q + kv) * dim..][..dim];
                        q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * f64::from(self.scale())
                    };
                    let s: Vec<f64> = keys.clone().map(score).collect();
                    let most = s.iter().copied().fold(f64::MIN, f64::max);
                    let sum: f64 = s.iter().map(|s| (s - most).exp()).sum();
                    lse[i * heads.q + h] = most + sum.ln();
                    let row = &mut out[(i * heads.q + h) * dim..][..dim];
                    for (j, s) in keys.zip(&s) {
                        let v = &x[j * width + (heads.q + heads.kv + kv) * dim..][..dim];
                        row.iter_mut().zip(v).for_each(|(o, v)| *o += (s - most).exp() / sum * v);
                    }
                }
            }
        }
        (out, lse)
    }

    /// Compares a device's results with the CPU's and with the formula.
    pub fn check(&self, dev: &mut Device, causal: bool, max_seqlen: usize) -> Outcome {
        let (out, lse) = self.run(dev, causal, max_seqlen)?;
        let (want, want_lse) = self.formula(causal);
        let what = format!("{:?} {:?} causal {causal}", self.heads, self.cu);
        near(&format!("{what}: out beside the formula"), &out, &want, FORMULA)?;
        near(&format!("{what}: lse beside the formula"), &lse, &want_lse, LSE)?;
        let (cpu, cpu_lse) = self.run(&mut cpu(), causal, self.t())?;
        let norm = near(&format!("{what}: out beside the CPU"), &out, &wide(&cpu), CPU)?;
        near(&format!("{what}: lse beside the CPU"), &lse, &wide(&cpu_lse), LSE)?;
        println!("{what}: {norm:.1e} from the CPU");
        Ok(())
    }
}

/// Returns outputs and log-sum-exps as bits, in one list.
pub fn bits((out, lse): (Vec<bf16>, Vec<f32>)) -> Vec<u32> {
    out.iter().map(|x| u32::from(x.to_bits())).chain(lse.iter().map(|x| x.to_bits())).collect()
}

/// Lengths of zero (unused places of a pack), of complete tiles, and one more and one less than a tile.
const LENGTHS: [usize; 8] = [1, 127, 0, 128, 129, 0, 0, 5];

#[test]
fn agrees_with_the_cpu_and_the_formula_over_block_borders() {
    let dev = &mut emu();
    for case in [Case::new(heads(2, 1, 16), &LENGTHS), Case::new(heads(3, 3, 12), &[129, 0, 3])] {
        for causal in [true, false] {
            case.check(dev, causal, case.t()).unwrap();
        }
    }
}

#[test]
fn agrees_for_every_head_dim_and_group() {
    let dev = &mut emu();
    let shapes = [(28, 4, 16), (16, 2, 32), (40, 8, 8), (64, 8, 16), (2, 2, 80), (7, 1, 128), (4, 2, 12), (14, 2, 24)];
    for (q, kv, dim) in shapes.into_iter().chain([(3, 1, 64), (2, 2, 72), (1, 1, 2), (2, 1, 66), (1, 1, 126)]) {
        for causal in [true, false] {
            Case::new(heads(q, kv, dim), &[1, 19, 0, 11]).check(dev, causal, 19).unwrap();
        }
    }
}

#[test]
fn agrees_over_chunk_borders() {
    for (causal, len) in [(true, 2060), (false, 4100)] {
        // Four rows are enough to show where the keys of a row end.
        let case = Case::new(heads(1, 1, 4), &[len]);
        case.check(&mut emu(), causal, len).unwrap();
    }
}

#[test]
fn a_row_does_not_depend_on_its_tile() {
    let dev = &mut emu();
    let all = Case::new(heads(3, 1, 32), &[37, 150, 5]);
    let rows = |x: &[bf16], width: usize| x[37 * width..187 * width].to_vec();
    let alone = Case { heads: all.heads, cu: vec![0, 150], qkv: rows(&all.qkv, all.heads.qkv_len()) };
    let ((out, lse), want) = (all.run(dev, true, 150).unwrap(), alone.run(dev, true, 150).unwrap());
    let cut = (rows(&out, all.heads.out_len()), lse[37 * 3..187 * 3].to_vec());
    assert_eq!(bits(cut), bits(want));
    // The results of the first sixty tokens of a sequence do not depend on the others.
    let start = Case { heads: all.heads, cu: vec![0, 60], qkv: alone.qkv[..60 * all.heads.qkv_len()].to_vec() };
    let (out, lse) = alone.run(dev, true, 150).unwrap();
    let cut = (out[..60 * all.heads.out_len()].to_vec(), lse[..180].to_vec());
    assert_eq!(bits(cut), bits(start.run(dev, true, 60).unwrap()));
}

#[test]
fn a_masked_key_has_no_weight_whatever_its_score() {
    let mut case = Case::new(heads(2, 1, 16), &[40]);
    let (want, _) = case.run(&mut emu(), true, 40).unwrap();
    let width = case.heads.qkv_len();
    // Makes the key of token 30 NaN.
    case.qkv[30 * width + 32..30 * width + 48].fill(bf16::NAN);
    let (out, lse) = case.run(&mut emu(), true, 40).unwrap();
    equal("rows before", &out[..30 * 32], &want[..30 * 32]).unwrap();
    assert!(lse[..60].iter().all(|x| x.is_finite()));
    assert!(out[30 * 32..].iter().all(|x| x.is_nan()), "a NaN that is seen stays");
}

#[test]
fn the_same_bits_under_every_schedule() {
    for (case, causal) in [(Case::new(heads(2, 1, 16), &[130, 3]), true), (Case::new(heads(2, 2, 12), &[129]), false)] {
        same_bits(6, |dev| Ok(bits(case.run(dev, causal, 130)?)));
    }
}

/// A probe for mutations: two blocks, the second with enough rows whose maximum rises there; two heads per group; an
/// empty sequence.
fn probe(dev: &mut Device) -> Outcome {
    Case::new(heads(2, 1, 16), &[200, 0, 2]).check(dev, true, 200)
}

#[test]
fn each_synchronising_call_is_needed() {
    mutate_sites(&["kernels/attention.cu", "kernels/common/"], 4, probe);
}

#[test]
fn a_dropped_mask_is_seen() {
    mutate_source("common/attend_calls.cuh", "args.causal ? 1 : place.keys", "place.keys", 1, probe);
}

#[test]
fn wrong_keys_are_seen() {
    mutate_source("attention", "b * attend::BLOCK * stride", "b * (attend::BLOCK - 1) * stride", 1, probe);
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn other_mutations_are_seen() {
    for (file, from, to) in [
        ("common/attend_calls.cuh", "min(place.rows.from + size, end)", "min(place.rows.from + size - 1, end)"),
        (
            "common/attend_calls.cuh",
            "rows.lse_stride = args.q_heads;\n    rows.first = args.causal",
            "rows.lse_stride = rows.group + 1;\n    rows.first = args.causal",
        ),
        ("attention", "args.q_heads + head) * args.dim", "args.q_heads + head) * args.dim + 1"),
        ("common/attend.cuh", "first + row / group * step", "first + (row / group + 1) * step"),
        ("common/attend.cuh", "fmaf(l[i], alpha[i], sum[i])", "l[i] + sum[i]"),
        ("common/attend.cuh", "fmaxf(m[i], most[i] * scale)", "fmaxf(m[i], most[i])"),
        ("common/tile.cuh", "at(f, i) *= factor[row(i)]", "at(f, i) *= factor[0]"),
        ("common/tile.cuh", "fmaf(at(f, i), scale, -base[row(i)])", "fmaf(at(f, i), scale, -base[0])"),
        ("common/tile.cuh", "most[row(i)] = fmaxf(most[row(i)], at(f, i))", "most[row(i)] = at(f, i)"),
        (
            "common/attend.cuh",
            "lane() / 4 + 8 * i) * PITCH<HD> + lane() % 4 * 2",
            "lane() / 4 + 8 * i) * PITCH<HD> + lane() % 4",
        ),
        (
            "common/attend_tile.cuh",
            "visible_keys.least < begin + BLOCK, visible, most);\n            state.raise",
            "false, visible, most);\n            state.raise",
        ),
        ("common/attend_tile.cuh", "state.rescale(alpha, sum);\n            state", "state"),
    ] {
        mutate_source(file, from, to, 1, probe);
    }
    // Two chunks.
    let long = |dev: &mut Device| Case::new(heads(1, 1, 4), &[2050]).check(dev, true, 2050);
    for (from, to) in [
        ("fmaf(sum[i], a[i], l[i] * b[i])", "sum[i] + l[i]"),
        ("none[row] ? x : fmaf(x, a[row], tile::at(o, i) * b[row])", "tile::at(o, i)"),
    ] {
        mutate_source("common/attend.cuh", from, to, 1, long);
    }
}

#[test]
fn what_a_kernel_cannot_do_is_an_error() {
    let dev = &mut emu();
    let run = |dev: &mut Device, dtype: DType, dim: usize| {
        let heads = heads(1, 1, dim);
        let qkv = blank(dev, dtype, &[2, heads.qkv_len()]);
        let (out, lse) = (blank(dev, dtype, &[2, dim]), blank(dev, DType::F32, &[2, 1]));
        let cu = up(dev, &[0u32, 2], &[2]);
        attention::fwd(
            dev,
            &attention::Pack { cu_seqlens: cu, max_seqlen: 2, heads, causal: true, scale: 1.0, pairs: 0 },
            qkv,
            out,
            lse,
        )
    };
    assert!(run(dev, DType::Bf16, 130).unwrap_err().to_string().contains("head_dim"));
    assert!(run(dev, DType::F32, 64).unwrap_err().to_string().contains("bf16"));
    // With no tokens, the op does nothing.
    let empty = Case { heads: heads(1, 1, 16), cu: vec![0, 0], qkv: vec![] };
    assert_eq!(empty.run(dev, true, 0).unwrap(), (vec![], vec![]));
}
