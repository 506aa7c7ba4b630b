//! Tests of kernels/attention_bwd.cu: against the CPU op, which rounds at the same points, and against a gradient in
//! f64, which finite differences of the formula confirm.

use std::ops::Range;

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::attention;
use omr_runtime::tensor::DType;

use crate::kernels::attention::{CPU, Case, heads};
use crate::kernels::inputs::{blank, cpu, normals, up, wide};
use crate::kernels::{Outcome, emu, emulator, equal, mutate_sites, mutate_source, near, same_bits, skipped};

/// Tolerance against f64. P, dS and dqkv are each rounded to bf16 once, with a relative root mean square error of
/// 1.7e-3. O is rounded in the same way, and enters all dS of a row through D. The combined error is 1.7e-3 times the
/// square root of three (dQ, dK) or of two (dV): at most 3e-3 if sums are long. With few keys and elements, dS is a
/// small difference of dP and D, so the tolerance is 2.5 times that.
pub const GRADIENT: f64 = 7.5e-3;

/// A pack, the gradient of its output, and the results of the forward pass.
#[derive(Clone)]
pub struct GradCase {
    pub case: Case,
    pub causal: bool,
    pub prompt_of: Option<Vec<u32>>,
    pub dout: Vec<bf16>,
    pub out: Vec<bf16>,
    pub lse: Vec<f32>,
}

impl GradCase {
    pub fn new(heads: Heads, lens: &[usize], causal: bool) -> GradCase {
        let case = Case::new(heads, lens);
        let len = case.t() * heads.out_len();
        let (out, lse) = case.run(&mut cpu(), causal, case.t()).unwrap();
        GradCase { case, causal, prompt_of: None, dout: normals((len * 64 + heads.q + 1) as u64, len), out, lse }
    }

    /// Returns the result of `attention::bwd` for sequences of at most `max_seqlen`.
    pub fn run(&self, dev: &mut Device, max_seqlen: usize) -> Outcome<Vec<bf16>> {
        let (t, heads, scale) = (self.case.t(), self.case.heads, self.case.scale());
        let mark = dev.mark(Region::Overlay);
        let qkv = up(dev, &self.case.qkv, &[t, heads.qkv_len()]);
        let cu = up(dev, &self.case.cu, &[self.case.cu.len()]);
        let [out, dout] = [&self.out, &self.dout].map(|x| up(dev, x, &[t, heads.out_len()]));
        let lse = up(dev, &self.lse, &[t, heads.q]);
        let dqkv = blank(dev, DType::Bf16, &[t, heads.qkv_len()]);
        let prompt_of = self.prompt_of.as_ref().map(|prompt_of| up(dev, prompt_of, &[prompt_of.len()]));
        attention::bwd(
            dev,
            &attention::Pack { cu_seqlens: cu, max_seqlen, heads, causal: self.causal, scale, pairs: 0 },
            attention::Bwd { qkv, out, dout, lse, dqkv, prompt_of },
        )?;
        let result = dev.read(dqkv)?;
        dev.release(mark);
        Ok(result)
    }

    /// Returns the gradient in f64, without any rounding.
    pub fn gradient(&self) -> Vec<f64> {
        let (Case { heads, cu, qkv }, scale) = (&self.case, f64::from(self.case.scale()));
        let (dim, width) = (heads.dim, heads.qkv_len());
        let (x, dout) = (wide(qkv), wide(&self.dout));
        let mut dx = vec![0.0; x.len()];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let add = |to: &mut [f64], by: f64, what: &[f64]| to.iter_mut().zip(what).for_each(|(t, w)| *t += by * w);
        for (sequence, h) in (0..cu.len() - 1).flat_map(|s| (0..heads.q).map(move |h| (s, h))) {
            let (from, to) = (cu[sequence] as usize, cu[sequence + 1] as usize);
            let shared = match self.prompt_of.as_ref().map(|prompt_of| prompt_of[sequence] as usize) {
                Some(prompt) if prompt != sequence => cu[prompt] as usize..cu[prompt + 1] as usize,
                _ => 0..0,
            };
            let (k, v) = ((heads.q + h / heads.group()) * dim, (heads.q + heads.kv + h / heads.group()) * dim);
            let at = |row: usize, column: usize| row * width + column..row * width + column + dim;
            for i in from..to {
                let keys = shared.clone().chain(from..if self.causal { i + 1 } else { to });
                let (q, dout) = (&x[at(i, h * dim)], &dout[(i * heads.q + h) * dim..][..dim]);
                let s: Vec<f64> = keys.clone().map(|j| dot(q, &x[at(j, k)]) * scale).collect();
                let most = s.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = s.iter().map(|s| (s - most).exp()).sum();
                let p: Vec<f64> = s.iter().map(|s| (s - most).exp() / sum).collect();
                let dp: Vec<f64> = keys.clone().map(|j| dot(dout, &x[at(j, v)])).collect();
                let delta = dot(&p, &dp);
                for ((j, p), dp) in keys.zip(p).zip(dp) {
                    let ds = scale * p * (dp - delta);
                    add(&mut dx[at(i, h * dim)], ds, &x[at(j, k)]);
                    add(&mut dx[at(j, k)], ds, q);
                    add(&mut dx[at(j, v)], p, dout);
                }
            }
        }
        dx
    }

    /// Returns the column ranges of dQ, dK and dV.
    fn parts(&self) -> [(&'static str, Range<usize>); 3] {
        let Heads { q, kv, dim } = self.case.heads;
        [("dq", 0..q * dim), ("dk", q * dim..(q + kv) * dim), ("dv", (q + kv) * dim..(q + 2 * kv) * dim)]
    }

    /// Returns these columns of all rows.
    fn columns<T: Copy>(&self, x: &[T], part: &Range<usize>) -> Vec<T> {
        x.chunks(self.case.heads.qkv_len()).flat_map(|row| row[part.clone()].to_vec()).collect()
    }

    /// Compares a device's gradients with the CPU's and with the formula.
    pub fn check(&self, dev: &mut Device, max_seqlen: usize) -> Outcome {
        let got = self.run(dev, max_seqlen)?;
        self.check_formula(&got)?;
        let cpu = wide(&self.run(&mut cpu(), self.case.t())?);
        for (name, part) in self.parts() {
            let what = format!("{:?} {:?} causal {} {name}", self.case.heads, self.case.cu, self.causal);
            let (got, cpu) = (self.columns(&got, &part), self.columns(&cpu, &part));
            println!("{what}: {:.1e} from the CPU", near(&format!("{what} beside the CPU"), &got, &cpu, CPU)?);
        }
        Ok(())
    }

    /// Compares gradients with the formula.
    pub fn check_formula(&self, got: &[bf16]) -> Outcome {
        let want = self.gradient();
        for (name, part) in self.parts() {
            let what = format!("{:?} {:?} causal {} {name}", self.case.heads, self.case.cu, self.causal);
            let (got, want) = (self.columns(got, &part), self.columns(&want, &part));
            println!("{what}: {:.1e} from f64", near(&format!("{what} beside f64"), &got, &want, GRADIENT)?);
        }
        Ok(())
    }
}

/// Upper bound of the sequence lengths.
pub const WHOLE: usize = 4096;

/// Lengths of zero (unused places of a pack), of complete blocks, and one more and one less than a block.
const LENGTHS: [usize; 8] = [1, 127, 0, 128, 129, 0, 0, 5];

#[test]
fn the_gradient_in_f64_is_that_of_the_formula() {
    for causal in [true, false] {
        let c = GradCase::new(heads(4, 2, 6), &[3, 0, 7], causal);
        let (mut x, dout) = (wide(&c.case.qkv), wide(&c.dout));
        let loss = |x: &[f64]| c.case.formula_of(x, causal).0.iter().zip(&dout).map(|(o, d)| o * d).sum::<f64>();
        for (i, want) in c.gradient().into_iter().enumerate() {
            let middle = x[i];
            let [above, below] = [1e-4, -1e-4].map(|h| {
                x[i] = middle + h;
                loss(&x)
            });
            x[i] = middle;
            // The cubic term of the loss leaves an error of about 1e-8.
            assert!(((above - below) / 2e-4 - want).abs() < 1e-6, "{i}: {} and {want}", (above - below) / 2e-4);
        }
    }
}

#[test]
fn agrees_over_block_borders() {
    let dev = &mut emu();
    for causal in [true, false] {
        for (heads, lens) in [(heads(2, 1, 16), &LENGTHS[..]), (heads(3, 3, 12), &[129, 0, 3])] {
            let c = GradCase::new(heads, lens, causal);
            c.check(dev, WHOLE).unwrap();
        }
    }
}

#[test]
fn agrees_for_every_head_dim_and_group() {
    let dev = &mut emu();
    let shapes = [(28, 4, 16), (16, 2, 32), (40, 8, 8), (64, 8, 16), (2, 2, 80), (7, 1, 128), (4, 2, 12), (14, 2, 24)];
    for (q, kv, dim) in shapes.into_iter().chain([(3, 1, 64), (2, 2, 72), (1, 1, 2), (2, 1, 66), (1, 1, 126)]) {
        for causal in [true, false] {
            GradCase::new(heads(q, kv, dim), &[1, 19, 0, 11], causal).check(dev, WHOLE).unwrap();
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_other_sequences() {
    let dev = &mut emu();
    let all = GradCase::new(heads(3, 1, 32), &[37, 150, 5], true);
    let cut = |x: &[bf16], width: usize| x[37 * width..187 * width].to_vec();
    let (qkv, out) = (all.case.heads.qkv_len(), all.case.heads.out_len());
    let alone = GradCase {
        case: Case { heads: all.case.heads, cu: vec![0, 150], qkv: cut(&all.case.qkv, qkv) },
        causal: true,
        prompt_of: None,
        dout: cut(&all.dout, out),
        out: cut(&all.out, out),
        lse: all.lse[37 * 3..187 * 3].to_vec(),
    };
    equal("dqkv", &cut(&all.run(dev, 150).unwrap(), qkv), &alone.run(dev, 150).unwrap()).unwrap();
}

#[test]
fn a_masked_key_has_no_gradient_whatever_its_score() {
    let mut c = GradCase::new(heads(2, 1, 16), &[40], true);
    let want = c.run(&mut emu(), 40).unwrap();
    let (width, key) = (c.case.heads.qkv_len(), 30);
    // If the rows before this key used it, its probability would be infinite and dP would be NaN.
    c.case.qkv[key * width + 32..][..16].fill(bf16::from_f32(1e30));
    c.case.qkv[key * width + 48..][..16].fill(bf16::NAN);
    let got = c.run(&mut emu(), 40).unwrap();
    for row in (0..40).filter(|&row| row != key) {
        let from = row * width + if row < key { 0 } else { 32 };
        equal(&format!("row {row}"), &got[from..(row + 1) * width], &want[from..(row + 1) * width]).unwrap();
    }
    assert!(got[39 * width..][..32].iter().all(|x| x.is_nan()), "a NaN that is seen stays");
}

#[test]
fn a_sequence_of_one_token_moves_its_value_only() {
    let c = GradCase::new(heads(1, 1, 16), &[1], true);
    for causal in [true, false] {
        let got = wide(&GradCase { causal, ..c.clone() }.run(&mut emu(), WHOLE).unwrap());
        // D and dP are the same dot product in two orders.
        assert!(got[..32].iter().all(|x| x.abs() < 1e-5), "{got:?}");
        assert_eq!(got[32..], wide(&c.dout));
    }
}

#[test]
fn the_same_bits_under_every_schedule() {
    for (heads, lens, causal) in [(heads(2, 1, 16), vec![130, 3], true), (heads(2, 2, 12), vec![129], false)] {
        let c = GradCase::new(heads, &lens, causal);
        same_bits(6, |dev| c.run(dev, 130));
    }
}

#[test]
#[ignore = "many schedules"]
fn no_drawn_schedule_changes_a_bit() {
    let shapes = [(heads(7, 1, 24), vec![70, 0, 129]), (heads(4, 4, 80), vec![200]), (heads(2, 1, 128), vec![66, 150])];
    for ((heads, lens), causal) in shapes.into_iter().flat_map(|shape| [(shape.clone(), true), (shape, false)]) {
        let c = GradCase::new(heads, &lens, causal);
        same_bits(24, |dev| c.run(dev, WHOLE));
    }
}

/// A probe for mutations: more than two stages, rows and keys that do not fill a tile, stages that begin within the
/// heads of a token, and an empty sequence.
fn probe(dev: &mut Device) -> Outcome {
    GradCase::new(heads(3, 1, 16), &[150, 0, 2], true).check(dev, 150)
}

#[test]
fn each_synchronising_call_is_needed() {
    mutate_sites(&["kernels/attention_bwd.cu", "kernels/common/"], 4, probe);
}

#[test]
fn shared_memory_has_no_bank_conflicts() {
    if skipped("bank conflicts") {
        return;
    }
    for dim in [16, 32, 64, 80, 128] {
        let dev = &mut emu();
        GradCase::new(heads(2, 1, dim), &[70], true).run(dev, 70).unwrap();
        assert_eq!(emulator(dev).counters().bank_conflicts, 0, "head_dim {dim}");
    }
}

#[test]
fn a_key_that_rows_before_it_move_is_seen() {
    mutate_source("common/tile.cuh", "column(i) >= first[row(i)]", "column(i) >= 0", 1, probe);
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn mistakes_in_the_kernel_are_seen() {
    for (from, to) in MISTAKES {
        mutate_source("attention_bwd", from, to, 1, probe);
    }
    for (from, to) in [
        ("pair.y * unit", "pair.y"),
        ("(at(dp, i) - delta[row(i)])", "(at(dp, i) - delta[0])"),
        ("(at(dp, i + e) - delta[e % 2])", "(at(dp, i + e) - delta[0])"),
        ("column(i) < seen[row(i)]", "column(i) <= seen[row(i)]"),
    ] {
        mutate_source("common/tile.cuh", from, to, 1, probe);
    }
}

/// Plausible mistakes, each in one place of the kernel.
const MISTAKES: [(&str, &str); 11] = [
    ("first(from % group)", "first(0)"),
    ("token(from / group)", "token((from + group - 1) / group)"),
    ("mine * group : 0;\n        int all", "(mine + WARP_ROWS) * group : 0;\n        int all"),
    ("args.lse[at] * math::LOG2_E", "args.lse[at]"),
    ("args.delta[at] = delta[i];", "args.delta[at] = delta[0];"),
    ("sum[i] = fmaf(hi(x), hi(y), sum[i]);", ""),
    ("write<HD>(dv, 1.0f, staged", "write<HD>(dv, args.scale, staged"),
    ("write<HD>(sums, args.scale, staged", "write<HD>(sums, 1.0f, staged"),
    ("j % 2 * 2 + i] = inside", "j % 2 + 2 * i] = inside"),
    ("(shared ? prompt.tokens : least) < next, seen", "false, seen"),
    ("key - row + 8 * group};", "key - row + 8};"),
];

#[test]
#[ignore = "the formula takes a minute"]
fn agrees_over_many_stages() {
    for causal in [true, false] {
        // Four rows of few elements are enough to show where a chain ends.
        GradCase::new(heads(1, 1, 4), &[2060], causal).check(&mut emu(), 2060).unwrap();
    }
}

#[test]
fn what_a_kernel_cannot_do_is_an_error() {
    let dev = &mut emu();
    let run = |dev: &mut Device, dtype: DType, dim: usize| {
        let heads = heads(1, 1, dim);
        let [qkv, dqkv] = [(); 2].map(|()| blank(dev, dtype, &[2, heads.qkv_len()]));
        let (out, lse) = (blank(dev, dtype, &[2, dim]), blank(dev, DType::F32, &[2, 1]));
        let cu = up(dev, &[0u32, 2], &[2]);
        attention::bwd(
            dev,
            &attention::Pack { cu_seqlens: cu, max_seqlen: 2, heads, causal: true, scale: 1.0, pairs: 0 },
            attention::Bwd { qkv, out, dout: out, lse, dqkv, prompt_of: None },
        )
    };
    assert!(run(dev, DType::Bf16, 130).unwrap_err().to_string().contains("head_dim"));
    assert!(run(dev, DType::F32, 64).unwrap_err().to_string().contains("bf16"));
    // With no tokens, the op does nothing.
    let case = Case { heads: heads(1, 1, 16), cu: vec![0, 0], qkv: vec![] };
    let empty = GradCase { case, causal: true, prompt_of: None, dout: vec![], out: vec![], lse: vec![] };
    assert!(empty.run(dev, 0).unwrap().is_empty());
}
