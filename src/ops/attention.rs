//! Variable-length attention over packed sequences, causal or full, with grouped query heads. Forward is the row of
//! `attend`; backward recomputes the probabilities from the saved log-sum-exp.

use crate::device::{Cpu, Device, On, Parts, Region, cpu_kernel};
use crate::error::{Error, Result};
use crate::ops::attend::{BLOCK, Context, Heads, KeySource, Keys, RowStates, Setting, pack_block, run_with_scratch};
use crate::ops::check::{self, by_dtype};
use crate::tensor::{DType, Elem, Tensor};

mod agreement;
mod backward;
mod bwd_sm90a;
pub(crate) mod launch;
mod launch_bwd;
mod pair;
pub(crate) mod sm90a;
mod tiles;
pub use agreement::{wgmma_bwd_fault, wgmma_fault};
pub use backward::{Bwd, bwd};

/// Query rows of one work item.
const ROWS: usize = 32;

/// How the rows of a pack attend to one another: each to those of its own sequence.
#[derive(Clone, Copy, Debug)]
pub struct Pack {
    /// Borders of the sequences, u32 `[S + 1]` from 0 to T; empty ones are allowed.
    pub cu_seqlens: Tensor,
    /// No sequence is longer; may choose a kernel but changes no bit.
    pub max_seqlen: usize,
    /// Heads of a row.
    pub heads: Heads,
    /// Hides the keys after a row's own.
    pub causal: bool,
    /// Multiplies the scores; positive.
    pub scale: f32,
}

/// out = softmax(scale q k^T) v within each sequence: qkv `[T, (q + 2 kv) * dim]` and out `[T, q * dim]` in the
/// compute type, lse `[T, q]` f32 the rows' log-sum-exp for backward. Errors on other shapes; on a GPU on a head_dim
/// above 128, and what cu_seqlens holds is not looked at.
pub fn fwd(dev: &mut Device, pack: &Pack, qkv: Tensor, out: Tensor, lse: Tensor) -> Result<()> {
    const OP: &str = "attention::fwd";
    let &Pack { cu_seqlens, heads, scale, .. } = pack;
    check_rows(OP, qkv, cu_seqlens, heads)?;
    let t = qkv.rows();
    check::tensor(OP, "out", out, qkv.dtype, &[t, heads.out_len()])?;
    check::tensor(OP, "lse", lse, DType::F32, &[t, heads.q])?;
    let setting = Setting::new(qkv.dtype, heads, scale);
    if dev.kind().is_gpu() {
        launch::check_heads(OP, qkv.dtype, heads)?;
        let mark = dev.mark(Region::Workspace);
        let totals = sm90a::totals(dev, heads, pack.max_seqlen)?;
        let done = match dev.on() {
            On::Gpu(gpu) => launch::fwd(OP, gpu, pack, [qkv, out, lse, totals], setting),
            _ => Ok(()),
        };
        dev.release(mark);
        return done;
    }
    let mark = dev.mark(Region::Workspace);
    let blocks = Blocks::most(t, cu_seqlens);
    let packed = dev.alloc(Region::Workspace, DType::F32, &[blocks.max(1), block_len(heads)])?;
    let scratch_len = RowStates::len(ROWS * heads.group(), heads.dim);
    let scratch = dev.alloc(Region::Workspace, DType::F32, &[dev.threads(), scratch_len])?;
    let done = match dev.cpu_only(OP)? {
        Some(cpu) => by_dtype!(qkv.dtype, forward(cpu, pack, setting, qkv, [out, lse, packed, scratch])),
        None => Ok(()),
    };
    dev.release(mark);
    done
}

fn check_rows(op: &'static str, qkv: Tensor, cu_seqlens: Tensor, heads: Heads) -> Result<()> {
    check::compute(op, "qkv", qkv)?;
    heads.check(op)?;
    check::tensor(op, "qkv", qkv, qkv.dtype, &[qkv.rows(), heads.qkv_len()])?;
    check::that(op, !cu_seqlens.is_empty(), "cu_seqlens of one element or more", "none")?;
    check::tensor(op, "cu_seqlens", cu_seqlens, DType::U32, &[cu_seqlens.rows()])
}

/// Elements of one packed block of all key heads: each k `[dim][BLOCK]`, then v `[BLOCK][padded]`.
fn block_len(heads: Heads) -> usize {
    heads.kv * BLOCK * (heads.dim + heads.padded())
}

/// A pack's sequences and how their blocks of keys are numbered.
struct Blocks<'a> {
    cu_seqlens: &'a [u32],
    /// The number of each sequence's first block.
    first: Vec<u32>,
    /// The sequence of each block.
    sequence: Vec<u32>,
}

impl<'a> Blocks<'a> {
    /// An upper bound on the blocks of `t` rows in the sequences of `cu_seqlens`.
    fn most(t: usize, cu_seqlens: Tensor) -> usize {
        t.div_ceil(BLOCK) + cu_seqlens.rows()
    }

    fn new(op: &'static str, cu_seqlens: &'a [u32], max_seqlen: usize, t: usize) -> Result<Blocks<'a>> {
        let ascending = cu_seqlens.windows(2).all(|w| w[0] <= w[1]);
        if !ascending || cu_seqlens.first() != Some(&0) || cu_seqlens.last().map(|&n| n as usize) != Some(t) {
            let (want, got) = (format!("cu_seqlens ascending from 0 to {t}"), format!("{cu_seqlens:?}"));
            return Err(Error::Shape { op, want, got });
        }
        if let Some(w) = cu_seqlens.windows(2).find(|w| (w[1] - w[0]) as usize > max_seqlen) {
            let (want, got) = (format!("sequences of at most {max_seqlen} rows"), (w[1] - w[0]).to_string());
            return Err(Error::Shape { op, want, got });
        }
        let (mut first, mut sequence) = (Vec::with_capacity(cu_seqlens.len()), Vec::new());
        for (s, w) in cu_seqlens.windows(2).enumerate() {
            first.push(sequence.len() as u32);
            let blocks = ((w[1] - w[0]) as usize).div_ceil(BLOCK);
            sequence.resize(sequence.len() + blocks, s as u32);
        }
        Ok(Blocks { cu_seqlens, first, sequence })
    }

    /// Rows of sequence `s`.
    fn rows(&self, s: usize) -> std::ops::Range<usize> {
        self.cu_seqlens[s] as usize..self.cu_seqlens[s + 1] as usize
    }

    /// Rows of block `b`.
    fn keys(&self, b: usize) -> std::ops::Range<usize> {
        let s = self.sequence[b] as usize;
        let rows = self.rows(s);
        let from = rows.start + (b - self.first[s] as usize) * BLOCK;
        from..rows.end.min(from + BLOCK)
    }

    /// The non-empty sequences that meet rows `from..to`, with the rows they have in it.
    fn meeting(&self, from: usize, to: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let start = self.cu_seqlens.partition_point(|&c| c as usize <= from).saturating_sub(1);
        (start..self.cu_seqlens.len() - 1)
            .map(move |s| (s, self.rows(s).start.max(from)..self.rows(s).end.min(to)))
            .take_while(move |(s, _)| self.rows(*s).start < to)
            .filter(|(_, rows)| !rows.is_empty())
    }
}

/// The forward on the CPU; `outs` are out, lse and room for packed keys and rows' states.
fn forward<T: Elem>(cpu: Cpu<'_>, pack: &Pack, setting: Setting, qkv: Tensor, outs: [Tensor; 4]) -> Result<()> {
    let (t, &Pack { cu_seqlens, max_seqlen, heads, causal, .. }) = (qkv.rows(), pack);
    let ([out, lse, packed, scratch], [qkv, cu]) = cpu.memory.tensors(outs, [qkv, cu_seqlens]);
    let qkv = qkv.of::<T>();
    let blocks = Blocks::new("attention::fwd", cu.of::<u32>(), max_seqlen, t)?;
    let packed = packed.of::<f32>();
    let parts = Parts::new(packed, block_len(heads));
    cpu.pool.run(blocks.sequence.len(), |b| {
        let rows = blocks.keys(b);
        pack_heads::<T>(cpu.isa, &qkv[rows.start * heads.qkv_len()..], rows.len(), heads, parts.take(b));
    });
    let (out, lse) = (Parts::new(out.of::<T>(), ROWS * heads.out_len()), Parts::new(lse.of::<f32>(), ROWS * heads.q));
    let len = RowStates::len(ROWS * heads.group(), heads.dim);
    run_with_scratch(cpu.pool, out.count(), scratch.of::<f32>(), len, |i, scratch| {
        let (from, to) = (i * ROWS, ((i + 1) * ROWS).min(t));
        let (out, lse) = (out.take(i), lse.take(i));
        for (s, rows) in blocks.meeting(from, to) {
            let at = rows.start - from;
            let start = blocks.rows(s).start;
            let context = match causal {
                true => Context { first: rows.start - start + 1, step: 1, group: heads.group() },
                false => Context { first: blocks.rows(s).len(), step: 0, group: heads.group() },
            };
            let keys = &packed[blocks.first[s] as usize * block_len(heads)..];
            for head in 0..heads.kv {
                let queries = &qkv[rows.start * heads.qkv_len() + head * heads.group() * heads.dim..];
                let stride = heads.qkv_len();
                let mut states = RowStates::new(cpu.isa, scratch, queries, stride, rows.len(), context, setting);
                states.attend(cpu.isa, &mut PackedKeys { data: keys, heads, head });
                for i in 0..rows.len() {
                    let from = (at + i) * heads.q + head * heads.group();
                    let group = from..from + heads.group();
                    states.write(cpu.isa, i, &mut out[group.start * heads.dim..group.end * heads.dim]);
                    lse[group].copy_from_slice(&states.lse()[i * heads.group()..][..heads.group()]);
                }
            }
        }
    });
    Ok(())
}

/// One key head of a sequence's blocks, as `pack_heads` laid them out.
struct PackedKeys<'a> {
    data: &'a [f32],
    heads: Heads,
    head: usize,
}

impl KeySource for PackedKeys<'_> {
    fn block(&mut self, b: usize) -> Keys<'_> {
        let (dim, padded) = (self.heads.dim, self.heads.padded());
        let head = &self.data[b * block_len(self.heads) + self.head * BLOCK * (dim + padded)..];
        let (k, v) = head[..BLOCK * (dim + padded)].split_at(BLOCK * dim);
        Keys { k, v, v_stride: padded }
    }
}

cpu_kernel! {
    /// All key heads of `n` packed rows into one block.
    fn pack_heads<T: Elem>(qkv: &[T], n: usize, heads: Heads, block: &mut [f32]) {
        let (dim, stride) = (heads.dim, heads.qkv_len());
        for (head, block) in block.chunks_exact_mut(BLOCK * (dim + heads.padded())).enumerate() {
            let (k, v) = block.split_at_mut(BLOCK * dim);
            let keys = &qkv[(heads.q + head) * dim..];
            let values = &qkv[(heads.q + heads.kv + head) * dim..];
            pack_block(keys, values, stride, n, dim, k, v);
        }
    }
}
