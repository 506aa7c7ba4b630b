//! Start check of the products' epilogues by wgmma: linear layers with bias and residual, SwiGLU, GELU, q, k and v with
//! rotation and KV cache, logits, log-probs and gradients.
//!
//! A row of a result must have the same bits whatever the number of rows is, which selects the tile, and the bits of the
//! sampler's kernels must be those of the trainer's.

use half::bf16;

use crate::device::{Device, Region};
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::gelu::GeluKind;
use crate::ops::linear::{self, Qkv};
use crate::ops::linear_logprob::{self, LogProbCall};
use crate::ops::matmul::{Order, Weight};
use crate::ops::paged_attention::{self, KvCache};
use crate::ops::rope;
use crate::ops::sample::{self, Draw, NoiseKey, SamplingParams};
use crate::ops::start_check::{bits, differing, sized, values, with_many_and_few_ctas};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

const AT: Region = Region::Workspace;

/// Temperature of sampler and trainer, whose inverse is not exact.
const TEMPERATURE: f32 = 0.7;

/// Sizes of the test products.
#[derive(Clone, Copy)]
struct Sizes {
    /// Numbers of rows, ascending. Each role uses several tiles for them.
    rows: [usize; 6],
    /// Terms of a sum.
    terms: usize,
    /// Columns: a multiple of 64, and at least the width of q, k and v.
    columns: usize,
    /// Heads of q, k and v.
    heads: Heads,
}

/// Sizes on a GPU with 132 multiprocessors, where they select every tile.
const GPU: Sizes =
    Sizes { rows: [1, 72, 300, 600, 1100, 2100], terms: 1088, columns: 1024, heads: Heads { q: 6, kv: 1, dim: 128 } };

/// Sizes on the emulator.
const EMULATOR: Sizes =
    Sizes { rows: [1, 20, 40, 72, 136, 200], terms: 320, columns: 512, heads: Heads { q: 2, kv: 1, dim: 128 } };

/// Operands that the epilogues share.
struct Operands {
    sizes: Sizes,
    /// Input rows `[rows, terms]`.
    x: Tensor,
    /// Weight `[columns, terms]`.
    w: Weight,
    /// Weight of q, k and v.
    qkv: Weight,
    /// Bias `[columns]`, of which narrower results use the first elements.
    bias: Tensor,
    /// Rows as wide as a result: residuals and gradients.
    dy: Tensor,
    /// Cosines and sines, f32 `[rows, dim / 2]`.
    rotation: [Tensor; 2],
    /// Target ids, u32 `[rows]`.
    targets: Tensor,
}

/// Runs the check. Returns a description of the fault, or `None` if there is none.
pub fn fault(dev: &mut Device) -> Result<Option<String>> {
    dev.scope(Region::Workspace, |dev| {
        let operands = Operands::new(dev, sized(dev, GPU, EMULATOR))?;
        for (what, run) in ROW_WISE {
            if let Some(fault) = rows_agree(dev, &operands, what, run)? {
                return Ok(Some(fault));
            }
        }
        for (what, run) in PAIRS {
            for [found, want] in with_many_and_few_ctas(dev, |dev| run(dev, &operands))? {
                if let Some(fault) = differing(&found, &want, || what.to_owned()) {
                    return Ok(Some(fault));
                }
            }
        }
        Ok(None)
    })
}

/// Computes results for the first `n` rows, as tensors of `n` rows.
type RowWise = fn(&mut Device, &Operands, usize) -> Result<Vec<Tensor>>;

const ROW_WISE: [(&str, RowWise); 6] = [
    ("results of linear layers", |dev, o, n| {
        let y = o.result(dev, n, o.w.n)?;
        linear::fwd(dev, o.x.slice(0, n), &o.w, Some(o.bias), Some(o.dy.slice(0, n)), y)?;
        Ok(vec![y])
    }),
    ("results of SwiGLU layers", |dev, o, n| {
        let (gate_up, y) = (o.result(dev, n, o.w.n)?, o.result(dev, n, o.w.n / 2)?);
        linear::fwd_swiglu(dev, o.x.slice(0, n), &o.w, None, Some(gate_up), y)?;
        Ok(vec![gate_up, y])
    }),
    ("results of GELU layers", |dev, o, n| {
        let (pre, y) = (o.result(dev, n, o.w.n)?, o.result(dev, n, o.w.n)?);
        linear::fwd_gelu(dev, GeluKind::Exact, o.x.slice(0, n), &o.w, Some(o.bias), Some(pre), y)?;
        Ok(vec![pre, y])
    }),
    ("queries, keys and values", |dev, o, n| {
        let qkv = o.result(dev, n, o.qkv.n)?;
        linear::fwd_qkv(dev, o.qkv_call(n, None, qkv))?;
        Ok(vec![qkv])
    }),
    ("log-probs", |dev, o, n| o.log_probs(dev, n, o.targets)),
    ("gradients of inputs", |dev, o, n| {
        let dx = dev.alloc(AT, DType::Bf16, &[n, o.w.k])?;
        dev.copy(o.x.slice(0, n), dx)?;
        linear::dgrad(dev, o.dy.slice(0, n), &o.w, dx, true)?;
        Ok(vec![dx])
    }),
];

/// Computes the same results in two ways and returns the bits of both.
type Pair = fn(&mut Device, &Operands) -> Result<[Vec<u32>; 2]>;

const PAIRS: [(&str, Pair); 4] = [
    ("results of linear layers, compared with the rounded f32 sums,", |dev, o| {
        let (y, sums) = (o.result(dev, o.rows(), o.w.n)?, dev.alloc(AT, DType::F32, &[o.rows(), o.w.n])?);
        linear::fwd(dev, o.x, &o.w, None, None, y)?;
        linear::fwd_f32(dev, o.x, &o.w, sums)?;
        let sums = dev.read::<f32>(sums)?.into_iter();
        Ok([bits(dev, &[y])?, sums.map(|sum| u32::from(bf16::from_f32(sum).to_bits())).collect()])
    }),
    ("queries, keys and values, compared with separate kernels,", |dev, o| {
        let (n, heads) = (o.rows(), o.sizes.heads);
        let slots: Vec<u32> = (0..n as u32).rev().collect();
        let slots = dev.upload(AT, &slots, &[n])?;
        let mut results = |fused: bool| -> Result<Vec<u32>> {
            let qkv = o.result(dev, n, o.qkv.n)?;
            let cache = KvCache::alloc(dev, AT, DType::Bf16, n.div_ceil(BLOCK), heads)?;
            [cache.k, cache.v].into_iter().try_for_each(|pages| dev.fill_zero(pages))?;
            if fused {
                linear::fwd_qkv(dev, o.qkv_call(n, Some((&cache, slots)), qkv))?;
            } else {
                linear::fwd(dev, o.x, &o.qkv, Some(o.bias.slice(0, o.qkv.n)), None, qkv)?;
                rope::fwd(dev, qkv, o.rotation[0], o.rotation[1], heads)?;
                paged_attention::store(dev, qkv, slots, &cache)?;
            }
            bits(dev, &[qkv, cache.k, cache.v])
        };
        Ok([results(true)?, results(false)?])
    }),
    ("log-probs of the sampler, compared with the trainer's,", |dev, o| {
        // The sampler computes few rows at a time, and the trainer all rows together.
        let (n, few) = (o.rows(), o.sizes.rows[1]);
        let params = SamplingParams { temperature: TEMPERATURE, ..SamplingParams::default() };
        let noise = |position| NoiseKey { position, ..NoiseKey::default() };
        let draws: Vec<Draw> = (0..n as u32).map(|i| Draw::new(params, noise(i), 1, 1)).collect();
        let ids = dev.alloc(AT, DType::U32, &[n])?;
        let sampled = dev.alloc(AT, DType::F32, &[n])?;
        for from in (0..n).step_by(few) {
            let to = n.min(from + few);
            let table = Draw::upload(dev, AT, &draws[from..to])?;
            let outs = sample::Outs { ids: ids.slice(from, to), logprobs: sampled.slice(from, to), logits: None };
            sample::fwd(dev, o.x.slice(from, to), &o.w, None, &draws[from..to], table, outs)?;
        }
        let trained = o.log_probs(dev, n, ids)?;
        Ok([bits(dev, &[sampled])?, bits(dev, &trained[..1])?])
    }),
    ("gradients of weights in two parts, compared with those in one,", |dev, o| {
        let n = o.rows();
        let mut sums = |parts: &[usize]| -> Result<Vec<u32>> {
            let dw = dev.zeros(AT, DType::F32, &[Order::Rows.len(DType::Bf16, o.w.n, o.w.k)])?;
            let dbias = dev.zeros(AT, DType::F32, &[o.w.n])?;
            for part in parts.windows(2) {
                let [x, dy] = [o.x, o.dy].map(|t| t.slice(part[0], part[1]));
                linear::wgrad(dev, x, dy, dw, Some(dbias))?;
            }
            bits(dev, &[dw, dbias])
        };
        Ok([sums(&[0, n / 32 * 16, n])?, sums(&[0, n])?])
    }),
];

/// Compares the first rows of all rows' results with the results of fewer rows.
fn rows_agree(dev: &mut Device, operands: &Operands, what: &str, run: RowWise) -> Result<Option<String>> {
    let all = operands.rows();
    let results = |dev: &mut Device, n: usize| {
        run(dev, operands, n)?.into_iter().map(|t| bits(dev, &[t])).collect::<Result<Vec<_>>>()
    };
    let want = dev.scope(Region::Workspace, |dev| results(dev, all))?;
    for n in operands.sizes.rows {
        for found in with_many_and_few_ctas(dev, |dev| results(dev, n))? {
            for (found, want) in found.iter().zip(&want) {
                let first = &want[..want.len() / all * n];
                if let Some(fault) = differing(found, first, || format!("{what} of {n} rows")) {
                    return Ok(Some(fault));
                }
            }
        }
    }
    Ok(None)
}

impl Operands {
    fn new(dev: &mut Device, sizes: Sizes) -> Result<Operands> {
        let Sizes { rows, terms, columns, heads } = sizes;
        let (rows, width) = (rows[rows.len() - 1], heads.qkv_len());
        let put = |dev: &mut Device, seed, size, dims: [usize; 2]| {
            dev.upload(AT, &values(dims[0] * dims[1], seed, size), &dims)
        };
        // Terms are a multiple of 64, so that the rows of a weight need no padding.
        let weight = |dev: &mut Device, seed, n| -> Result<Weight> {
            Ok(Weight::new(put(dev, seed, 0.125, [n, terms])?.reshape(&[n * terms]), Order::Rows, n, terms))
        };
        let angle = |i: usize| i as f32 * 0.37;
        let turn = |dev: &mut Device, of: fn(f32) -> f32| {
            let all: Vec<f32> = (0..rows * heads.dim / 2).map(|i| of(angle(i))).collect();
            dev.upload(AT, &all, &[rows, heads.dim / 2])
        };
        let targets: Vec<u32> = (0..rows as u32).map(|i| i * 31 % columns as u32).collect();
        Ok(Operands {
            sizes,
            x: put(dev, 1, 1.0, [rows, terms])?,
            w: weight(dev, 2, columns)?,
            qkv: weight(dev, 3, width)?,
            bias: put(dev, 4, 1.0, [1, columns])?.reshape(&[columns]),
            dy: put(dev, 5, 1.0, [rows, columns])?,
            rotation: [turn(dev, f32::cos)?, turn(dev, f32::sin)?],
            targets: dev.upload(AT, &targets, &[rows])?,
        })
    }

    fn rows(&self) -> usize {
        self.x.rows()
    }

    fn result(&self, dev: &mut Device, n: usize, columns: usize) -> Result<Tensor> {
        dev.alloc(AT, DType::Bf16, &[n, columns])
    }

    fn qkv_call<'a>(&'a self, n: usize, cache: Option<(&'a KvCache, Tensor)>, qkv: Tensor) -> Qkv<'a> {
        let [cos, sin] = self.rotation.map(|t| t.slice(0, n));
        let (x, heads, bias) = (self.x.slice(0, n), self.sizes.heads, Some(self.bias.slice(0, self.qkv.n)));
        Qkv { x: x.into(), w: &self.qkv, bias, cos, sin, heads, cache, qkv }
    }

    /// Returns the trainer's log-probs of `targets` in the first `n` rows, and their logsumexps.
    fn log_probs(&self, dev: &mut Device, n: usize, targets: Tensor) -> Result<Vec<Tensor>> {
        let [log_prob, lse] = [dev.alloc(AT, DType::F32, &[n])?, dev.alloc(AT, DType::F32, &[n])?];
        let (hidden, targets) = (self.x.slice(0, n), targets.slice(0, n));
        let call = LogProbCall { hidden, w: &self.w, allowed: None, temperature: TEMPERATURE, targets };
        linear_logprob::fwd(dev, call, linear_logprob::Outs { log_prob, lse, entropy: None, logits: None })?;
        Ok(vec![log_prob, lse])
    }
}
