//! Root-mean-square norm of each head of q and k, followed by the rotation of [`super::rope`], in place on packed qkv rows.
//! One weight serves all heads of q of a layer, and one all heads of k. Values are rounded once, after the rotation.

use crate::device::{Cpu, Device, Gpu, Launch, On, Parts, Region, cpu_kernel, params};
use crate::ops::attend::Heads;
use crate::ops::check::{self, by_dtype, moved};
use crate::ops::paged_attention::{self, KvCache};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Rows of one work item and of one partial sum of the weights' gradients. Changing this changes the bits of these.
const ROWS: usize = 16;

/// Threads of a CTA in kernels/qk_norm.cu.
const THREADS: usize = 128;

/// Number of chains of the sum over a head: one for each thread of a warp.
const CHAINS: usize = 32;

/// Inputs of the backward pass that forward keeps.
#[derive(Clone, Copy, Debug)]
pub struct SavedRows {
    /// The heads of q and k before the norm, `[T, (q + kv) dim]`.
    pub x: Tensor,
    /// Reciprocal root mean square of each head, f32 `[T, q + kv]`.
    pub rstd: Tensor,
}

impl SavedRows {
    /// Allocates memory for `t` rows.
    pub fn alloc(dev: &mut Device, region: Region, dtype: DType, t: usize, heads: Heads) -> Result<SavedRows> {
        let normed = heads.q + heads.kv;
        let x = dev.alloc(region, dtype, &[t, normed * heads.dim])?;
        Ok(SavedRows { x, rstd: dev.alloc(region, DType::F32, &[t, normed])? })
    }
}

/// Arguments of [`fwd`].
#[derive(Clone, Copy, Debug)]
pub struct Fwd<'a> {
    /// Packed rows `[T, (q + 2 kv) dim]` in the compute type. q and k are replaced.
    pub qkv: Tensor,
    /// Weight `[dim]` of the heads of q.
    pub q: Tensor,
    /// Weight `[dim]` of the heads of k.
    pub k: Tensor,
    /// Added to the mean of the squares.
    pub eps: f32,
    /// Cosines, f32 `[T, dim / 2]`.
    pub cos: Tensor,
    /// Sines, f32 `[T, dim / 2]`.
    pub sin: Tensor,
    /// Heads of a row.
    pub heads: Heads,
    /// Cache in which the new k and v are stored, and the slot of each row, u32 `[T]`.
    pub cache: Option<(&'a KvCache, Tensor)>,
    /// Receives what backward reads.
    pub kept: Option<SavedRows>,
}

/// Arguments of [`bwd`].
#[derive(Clone, Copy, Debug)]
pub struct Bwd {
    /// Gradient of the rows, `[T, (q + 2 kv) dim]` in the compute type. The parts of q and k are replaced by the gradient
    /// of the rows before the norm.
    pub dqkv: Tensor,
    /// Weight `[dim]` of the heads of q.
    pub q: Tensor,
    /// Weight `[dim]` of the heads of k.
    pub k: Tensor,
    /// Cosines, f32 `[T, dim / 2]`.
    pub cos: Tensor,
    /// Sines, f32 `[T, dim / 2]`.
    pub sin: Tensor,
    /// Heads of a row.
    pub heads: Heads,
    /// Values that forward kept.
    pub kept: SavedRows,
    /// Gradients of the weights of q and k, f32 `[dim]`, to which those of the rows are added; `None` if they are frozen.
    pub dweights: Option<[Tensor; 2]>,
}

/// Computes y = R (x rstd w) for each head x of q and k, with rstd = 1 / sqrt(mean(x^2) + eps) and R the rotation. Stores
/// k and v in the cache. Returns an error for other shapes and, on a GPU, for heads that are no multiple of 4.
pub fn fwd(dev: &mut Device, call: Fwd<'_>) -> Result<()> {
    const OP: &str = "qk_norm::fwd";
    let Fwd { qkv, q, k, cos, sin, heads, cache, kept, .. } = call;
    check_all(OP, qkv, [q, k], [cos, sin], heads)?;
    kept.map_or(Ok(()), |kept| check_kept(OP, qkv, kept, heads))?;
    if let Some((cache, slots)) = cache {
        cache.check(OP, dev, qkv.dtype, heads)?;
        check::tensor(OP, "slots", slots, DType::U32, &[qkv.rows()])?;
    }
    let more = kept.map_or(0.0, |kept| moved(&[kept.x, kept.rstd]));
    dev.note_work("qk_norm", 0.0, 2.0 * moved(&[qkv]) + more);
    match dev.op(OP) {
        On::Count => return Ok(()),
        On::Cpu(cpu) => by_dtype!(qkv.dtype, forward(cpu, call)),
        On::Gpu(gpu) => return launch(gpu, call),
    }
    cache.map_or(Ok(()), |(cache, slots)| paged_attention::store(dev, qkv, slots, cache))
}

fn check_all(op: &'static str, qkv: Tensor, weights: [Tensor; 2], tables: [Tensor; 2], heads: Heads) -> Result<()> {
    check::compute(op, "qkv", qkv)?;
    heads.check(op)?;
    check::tensor(op, "qkv", qkv, qkv.dtype, &[qkv.rows(), heads.qkv_len()])?;
    weights.into_iter().try_for_each(|w| check::tensor(op, "weight", w, qkv.dtype, &[heads.dim]))?;
    tables.into_iter().try_for_each(|t| check::tensor(op, "cos or sin", t, DType::F32, &[qkv.rows(), heads.dim / 2]))
}

fn check_kept(op: &'static str, qkv: Tensor, kept: SavedRows, heads: Heads) -> Result<()> {
    let normed = heads.q + heads.kv;
    check::tensor(op, "kept.x", kept.x, qkv.dtype, &[qkv.rows(), normed * heads.dim])?;
    check::tensor(op, "kept.rstd", kept.rstd, DType::F32, &[qkv.rows(), normed])
}

/// Returns an error unless the kernels support `qkv`.
fn check_gpu(op: &'static str, qkv: Tensor, heads: Heads) -> Result<()> {
    check::gpu_compute(op, qkv.dtype)?;
    check::that(op, heads.dim.is_multiple_of(4), "heads of a multiple of 4 on a GPU", heads.dim.to_string())?;
    check::count(op, "heads", qkv.rows() * (heads.q + 2 * heads.kv)).map(|_| ())
}

/// Returns the launch for `units` heads: eight lanes of a warp handle a head of `dim` elements if both of its halves begin
/// at multiples of 16 bytes, otherwise a warp does.
fn by_heads(op: &'static str, units: usize, dim: usize) -> Result<Launch> {
    let lanes = if (dim / 2).is_multiple_of(8) { 8 } else { 32 };
    check::launch(op, units.div_ceil(THREADS / lanes), THREADS, 0)
}

fn launch(mut gpu: Gpu<'_>, call: Fwd<'_>) -> Result<()> {
    let Fwd { qkv, q, k, eps, cos, sin, heads, cache, kept } = call;
    check_gpu(gpu.op, qkv, heads)?;
    let units = qkv.rows() * (heads.q + heads.kv * if cache.is_some() { 2 } else { 1 });
    let args = params!(qk_norm::Args {
        qkv,
        q,
        k,
        cos,
        sin,
        x: kept.map(|kept| kept.x),
        rstd: kept.map(|kept| kept.rstd),
        k_cache: cache.map(|(cache, _)| cache.k),
        v_cache: cache.map(|(cache, _)| cache.v),
        slots: cache.map(|(_, slots)| slots),
        rows: qkv.rows() as i32,
        q_heads: heads.q as i32,
        kv_heads: heads.kv as i32,
        dim: heads.dim as i32,
        blocks: check::count(gpu.op, "blocks", cache.map_or(0, |(cache, _)| cache.blocks()))?,
        eps,
    });
    gpu.launch("qk_norm", "qk_norm_fwd", by_heads(gpu.op, units, heads.dim)?, args)
}

fn forward<T: Elem>(cpu: Cpu<'_>, call: Fwd<'_>) {
    let Fwd { qkv, q, k, eps, cos, sin, heads, kept, .. } = call;
    let none = qkv.slice(0, 0);
    let outs = [qkv, kept.map_or(none, |kept| kept.x), kept.map_or(none, |kept| kept.rstd)];
    let ([rows, x, rstd], [q, k, cos, sin]) = cpu.memory.tensors(outs, [q, k, cos, sin]);
    let (w, cos, sin) = ([q.of::<T>(), k.of::<T>()], cos.of::<f32>(), sin.of::<f32>());
    let (normed, half) = (heads.q + heads.kv, heads.dim / 2);
    let rows = Parts::new(rows.of::<T>(), ROWS * heads.qkv_len());
    let kept = kept.map(|_| {
        let x = Parts::new(x.of::<T>(), ROWS * normed * heads.dim);
        (x, Parts::new(rstd.of::<f32>(), ROWS * normed))
    });
    cpu.pool.run(rows.count(), |i| {
        let (x, rstd) = kept.as_ref().map_or((Default::default(), Default::default()), |k| (k.0.take(i), k.1.take(i)));
        let from = i * ROWS * half;
        rows_fwd::<T>(cpu.isa, rows.take(i), x, rstd, w, &cos[from..], &sin[from..], heads, eps);
    });
}

/// Returns the sum of `term(j)` over the pairs j of a head. Pair j is added to chain j / 2 % 32, its first half before its
/// second; then halves of the chains are added, as the threads of a warp do.
#[inline(always)]
fn sum(half: usize, mut term: impl FnMut(usize, f32) -> f32) -> f32 {
    let mut chains = [0.0; CHAINS];
    for j in 0..half {
        let chain = &mut chains[j / 2 % CHAINS];
        *chain = term(j, *chain);
    }
    let mut width = CHAINS / 2;
    while width > 0 {
        for i in 0..width {
            chains[i] += chains[i + width];
        }
        width /= 2;
    }
    chains[0]
}

cpu_kernel! {
    /// Normalises and rotates a block of rows. `kept` and `rstds` are empty if nothing is kept.
    fn rows_fwd<T: Elem>(
        rows: &mut [T],
        kept: &mut [T],
        rstds: &mut [f32],
        w: [&[T]; 2],
        cos: &[f32],
        sin: &[f32],
        heads: Heads,
        eps: f32,
    ) {
        let (dim, half, normed) = (heads.dim, heads.dim / 2, heads.q + heads.kv);
        for (i, row) in rows.chunks_exact_mut(heads.qkv_len()).enumerate() {
            let (cos, sin) = (&cos[i * half..][..half], &sin[i * half..][..half]);
            for (h, head) in row.chunks_exact_mut(dim).take(normed).enumerate() {
                if !kept.is_empty() {
                    kept[(i * normed + h) * dim..][..dim].copy_from_slice(head);
                }
                let w = w[usize::from(h >= heads.q)];
                let (a, b) = head.split_at_mut(half);
                let squares = sum(half, |j, chain| {
                    let (x, y) = (a[j].to_f32(), b[j].to_f32());
                    y.mul_add(y, x.mul_add(x, chain))
                });
                let r = 1.0 / (squares / dim as f32 + eps).sqrt();
                if !rstds.is_empty() {
                    rstds[i * normed + h] = r;
                }
                for j in 0..half {
                    let (c, s) = (cos[j], sin[j]);
                    let (x, y) = (a[j].to_f32() * r * w[j].to_f32(), b[j].to_f32() * r * w[half + j].to_f32());
                    a[j] = T::from_f32(x.mul_add(c, -(y * s)));
                    b[j] = T::from_f32(y.mul_add(c, x * s));
                }
            }
        }
    }
}

/// Computes the gradients of [`fwd`], with d = R^T dy and xhat = x rstd:
///
/// - dx = rstd (d w - xhat mean(d w xhat)), in place;
/// - dw += sum over rows and heads of d xhat. Rows are summed in blocks of 16, and the blocks are added in order.
///
/// Returns an error for shapes other than those of [`Bwd`].
pub fn bwd(dev: &mut Device, call: Bwd) -> Result<()> {
    const OP: &str = "qk_norm::bwd";
    let Bwd { dqkv, q, k, cos, sin, heads, kept, dweights } = call;
    check_all(OP, dqkv, [q, k], [cos, sin], heads)?;
    check_kept(OP, dqkv, kept, heads)?;
    dweights.into_iter().flatten().try_for_each(|dw| check::tensor(OP, "dw", dw, DType::F32, &[heads.dim]))?;
    // The gradients of the weights read the gradient of the rows, and what forward kept, once more.
    let reads = if dweights.is_some() { 2.0 } else { 1.0 };
    dev.note_work(OP, 0.0, moved(&[kept.x]) + reads * moved(&[kept.x, kept.x, kept.rstd, cos, sin]));
    dev.scope(Region::Workspace, |dev| {
        let partials = dev.alloc(Region::Workspace, DType::F32, &[dqkv.rows().div_ceil(ROWS), 2 * heads.dim])?;
        dev.op(OP)
            .run(|cpu| by_dtype!(dqkv.dtype, backward(cpu, call, partials)), |gpu| launch_bwd(gpu, call, partials))
    })
}

fn launch_bwd(mut gpu: Gpu<'_>, call: Bwd, partials: Tensor) -> Result<()> {
    let Bwd { dqkv, q, k, cos, sin, heads, kept: SavedRows { x, rstd }, dweights } = call;
    check_gpu(gpu.op, dqkv, heads)?;
    let args = params!(qk_norm::BwdArgs {
        dqkv,
        q,
        k,
        cos,
        sin,
        x,
        rstd,
        dq: dweights.map(|[dq, _]| dq),
        dk: dweights.map(|[_, dk]| dk),
        partials,
        rows: dqkv.rows() as i32,
        q_heads: heads.q as i32,
        kv_heads: heads.kv as i32,
        dim: heads.dim as i32,
    });
    if dweights.is_some() {
        let mut by_chunks = check::launch(gpu.op, dqkv.rows().div_ceil(ROWS), THREADS, 0)?;
        by_chunks.grid[1] = 2;
        gpu.launch("qk_norm", "qk_norm_dw", by_chunks, args.clone())?;
        let by_columns = check::launch(gpu.op, (2 * heads.dim).div_ceil(THREADS), THREADS, 0)?;
        gpu.launch("qk_norm", "qk_norm_dw_sum", by_columns, args.clone())?;
    }
    let units = dqkv.rows() * (heads.q + heads.kv);
    gpu.launch("qk_norm", "qk_norm_bwd", by_heads(gpu.op, units, heads.dim)?, args)
}

fn backward<T: Elem>(cpu: Cpu<'_>, call: Bwd, partials: Tensor) {
    let Bwd { dqkv, q, k, cos, sin, heads, kept, dweights } = call;
    let [dq, dk] = dweights.unwrap_or([partials.slice(0, 0); 2]);
    let ([rows, dq, dk, partials], [q, k, cos, sin, x, rstd]) =
        cpu.memory.tensors([dqkv, dq, dk, partials], [q, k, cos, sin, kept.x, kept.rstd]);
    let (w, cos, sin) = ([q.of::<T>(), k.of::<T>()], cos.of::<f32>(), sin.of::<f32>());
    let (x, rstd, partials) = (x.of::<T>(), rstd.of::<f32>(), partials.of::<f32>());
    let (normed, half) = (heads.q + heads.kv, heads.dim / 2);
    let (rows, parts) = (Parts::new(rows.of::<T>(), ROWS * heads.qkv_len()), Parts::new(partials, 2 * heads.dim));
    cpu.pool.run(rows.count(), |i| {
        let (from, x, rstd) = (i * ROWS * half, &x[i * ROWS * normed * heads.dim..], &rstd[i * ROWS * normed..]);
        rows_bwd::<T>(cpu.isa, rows.take(i), x, rstd, w, &cos[from..], &sin[from..], heads, parts.take(i));
    });
    if dweights.is_some() {
        let (dq, dk) = (dq.of::<f32>(), dk.of::<f32>());
        for block in partials.chunks_exact(2 * heads.dim) {
            let (of_q, of_k) = block.split_at(heads.dim);
            dq.iter_mut().zip(of_q).for_each(|(sum, part)| *sum += part);
            dk.iter_mut().zip(of_k).for_each(|(sum, part)| *sum += part);
        }
    }
}

cpu_kernel! {
    /// Computes the gradient of a block of rows in place, and its part of the gradients of both weights.
    fn rows_bwd<T: Elem>(
        rows: &mut [T],
        x: &[T],
        rstd: &[f32],
        w: [&[T]; 2],
        cos: &[f32],
        sin: &[f32],
        heads: Heads,
        dw: &mut [f32],
    ) {
        let (dim, half, normed) = (heads.dim, heads.dim / 2, heads.q + heads.kv);
        dw.fill(0.0);
        for (i, row) in rows.chunks_exact_mut(heads.qkv_len()).enumerate() {
            let (cos, sin) = (&cos[i * half..][..half], &sin[i * half..][..half]);
            for (h, head) in row.chunks_exact_mut(dim).take(normed).enumerate() {
                let is_k = usize::from(h >= heads.q);
                let (w, dw) = (w[is_k], &mut dw[is_k * dim..][..dim]);
                let (x, r) = (&x[(i * normed + h) * dim..][..dim], rstd[i * normed + h]);
                let (a, b) = head.split_at_mut(half);
                let back = |a: &[T], b: &[T], j: usize| {
                    let (c, s, p, q) = (cos[j], -sin[j], a[j].to_f32(), b[j].to_f32());
                    [p.mul_add(c, -(q * s)), q.mul_add(c, p * s)]
                };
                let products = sum(half, |j, chain| {
                    let [p, q] = back(a, b, j);
                    let chain = x[j].to_f32().mul_add(p * w[j].to_f32(), chain);
                    x[half + j].to_f32().mul_add(q * w[half + j].to_f32(), chain)
                });
                let mean = products * r / dim as f32;
                for j in 0..half {
                    let [p, q] = back(a, b, j);
                    let (y, z) = (x[j].to_f32() * r, x[half + j].to_f32() * r);
                    dw[j] = p.mul_add(y, dw[j]);
                    dw[half + j] = q.mul_add(z, dw[half + j]);
                    a[j] = T::from_f32((p * w[j].to_f32() - y * mean) * r);
                    b[j] = T::from_f32((q * w[half + j].to_f32() - z * mean) * r);
                }
            }
        }
    }
}
