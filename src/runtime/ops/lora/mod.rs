//! Adapters of linear layers (LoRA): y = x W^T + s (x A^T) B^T, computed as one product over a longer K.
//!
//! After the terms of (x, W), the same sums continue over a second pair (t, S) of operands ([`Pair`](crate::ops::input::Pair)), before the bias
//! and everything else that follows a product:
//!
//! - t = x A^T, rounded to the compute type, by [`fwd`]. A joined layer (q, k and v, or gate and up) has one part of t
//!   for each adapted piece, padded to [`PART`] columns, and A has its rows in the same order.
//! - S `[N, R]` is s B, rounded once from the f32 master of B by [`scaled`]. Outside a row's own part S is zero
//!   ([`spread`]), so that no product depends on which pieces are adapted.
//!
//! On a GPU, kernels/lora.cu computes t and S; the products are those of kernels/gemm.cu and its variants.
//!
//! If B is zero, every sum continues over exact zeros and keeps its value. (A sum of -0 becomes +0.)

mod gpu;
mod rows;

use crate::device::{Cpu, Device, Parts, Region};
use crate::ops::adamw::master;
use crate::ops::check::{self, by_dtype, moved};
use crate::ops::matmul::{self, Linear, PANEL, Product, Weight, panel_stride};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

pub use rows::{NO_PART, PART, Rows};

/// Allocates the tickets for [`fwd`], which are zero between calls. Calls on one stream can share them.
pub fn tickets(dev: &mut Device, region: Region) -> Result<Tensor> {
    dev.zeros(region, DType::U32, &[gpu::TICKETS])
}

/// Computes t `[T, R]` = x `[T, K]` A^T with its own order of sums: K is cut every 1,024 terms, each slice is a chain
/// that starts with zero, the slices are added in ascending order in f32, and the sum is rounded once.
pub fn fwd(dev: &mut Device, x: Tensor, a: &Weight, tickets: Tensor, t: Tensor) -> Result<()> {
    const OP: &str = "lora::fwd";
    check::tensor(OP, "tickets", tickets, DType::U32, &[gpu::TICKETS])?;
    let dtype = check::weight(OP, a, a.n, x.cols())?;
    check::tensor(OP, "x", x, dtype, &[x.rows(), a.k])?;
    check::tensor(OP, "t", t, dtype, &[x.rows(), a.n])?;
    dev.note_product(OP, [x.rows(), a.n, a.k], moved(&[x, a.data, t]));
    fn body<E: Elem>(cpu: Cpu<'_>, x: Tensor, a: &Weight, t: Tensor) {
        let ([t], [x_view, a_view]) = cpu.memory.tensors([t], [x, a.data]);
        let product = Product::rows::<E>(x_view.of(), x.rows(), a.k, a_view.of(), a.n).sliced();
        matmul::run(cpu.pool, cpu.isa, &product, &Linear::<E>::plain(t.of(), a.n));
    }
    if dev.kind().is_gpu() {
        return gpu::t(OP, dev, x, a, tickets, t);
    }
    dev.on().run(|cpu| by_dtype!(dtype, body(cpu, x, a, t)), |_| Ok(()))
}

/// Elements of a job of [`scaled`].
const ITEM: usize = 4096;

/// Computes out = scale * master, rounded once. `w` has the masters themselves in f32, or their high halves, whose low
/// halves are `lo`; without `lo`, `w` is the master. All tensors have the same number of elements.
pub fn scaled(dev: &mut Device, w: Tensor, lo: Option<Tensor>, scale: f32, out: Tensor) -> Result<()> {
    const OP: &str = "lora::scaled";
    check::compute(OP, "w", w)?;
    check::flat(OP, "out", out, w.dtype, w.len())?;
    lo.map_or(Ok(()), |lo| check::low_half(OP, w, lo))?;
    fn body<E: Elem>(cpu: Cpu<'_>, w: Tensor, lo: Option<Tensor>, scale: f32, out: Tensor) {
        let ([out], [w, lo_view]) = cpu.memory.tensors([out], [w, lo.unwrap_or(w.slice(0, 0))]);
        let (w, low) = (w.of::<E>(), if lo.is_some() { lo_view.of::<i16>() } else { &[] });
        let parts = Parts::new(out.of::<E>(), ITEM);
        cpu.pool.run(parts.count(), |i| {
            for (j, out) in parts.take(i).iter_mut().enumerate() {
                let at = i * ITEM + j;
                let hi = w[at].to_f32();
                let master = low.get(at).map_or(hi, |&lo| master::join(half::bf16::from_f32(hi), lo));
                *out = E::from_f32(scale * master);
            }
        });
    }
    dev.note_work(OP, 0.0, moved(&[w, out]));
    dev.op(OP).run(|cpu| by_dtype!(w.dtype, body(cpu, w, lo, scale, out)), |gpu| gpu::scaled(gpu, w, lo, scale, out))
}

/// Copies the rows of a compact matrix b `[N, rank]`, flat in the order of a weight, to their parts of `s` `[N, R]`.
/// Elements outside the parts keep their values, which are zero.
pub fn spread(dev: &mut Device, b: Tensor, rows: Rows, s: &Weight) -> Result<()> {
    const OP: &str = "lora::spread";
    let dtype = check::weight(OP, s, s.n, s.k)?;
    check::flat(OP, "b", b, dtype, s.order.dense().len(dtype, s.n, rows.rank))?;
    rows.check(OP, s.n, s.k)?;
    fn body<E: Elem>(cpu: Cpu<'_>, b: Tensor, rows: Rows, s: &Weight) {
        let ([out], [b, parts]) = cpu.memory.tensors([s.data], [b, rows.parts]);
        let (b, parts) = (b.of::<E>(), parts.of::<u8>());
        let panels = Parts::new(out.of::<E>(), panel_stride(E::DTYPE, s.k));
        let from = panel_stride(E::DTYPE, rows.rank);
        cpu.pool.run(panels.count(), |p| {
            let (out, b) = (panels.take(p), &b[p * from..(p + 1) * from]);
            (p * PANEL..s.n.min((p + 1) * PANEL)).for_each(|n| {
                rows.each(E::DTYPE, parts, s.k, n, |from, to| out[to] = b[from]);
            });
        });
    }
    dev.note_work(OP, 0.0, moved(&[b]));
    dev.op(OP).run(
        |cpu| by_dtype!(dtype, body(cpu, b, rows, s)),
        |gpu| gpu::rows(gpu, "lora_spread", rows, s, [b, s.data], 1.0),
    )
}

/// Adds `scale` times the parts of `ds` to `db`: the gradient of a compact B `[N, rank]` from that of S, f32. Both are
/// flat, in the order of the weight `s`, whose gradient `ds` is.
pub fn collect(dev: &mut Device, ds: Tensor, rows: Rows, s: &Weight, scale: f32, db: Tensor) -> Result<()> {
    const OP: &str = "lora::collect";
    let dtype = check::weight(OP, s, s.n, s.k)?;
    check::flat(OP, "ds", ds, DType::F32, s.data.len())?;
    check::flat(OP, "db", db, DType::F32, s.order.dense().len(dtype, s.n, rows.rank))?;
    rows.check(OP, s.n, s.k)?;
    let body = |cpu: Cpu<'_>| {
        let ([out], [ds, parts]) = cpu.memory.tensors([db], [ds, rows.parts]);
        let (ds, parts) = (ds.of::<f32>(), parts.of::<u8>());
        let panels = Parts::new(out.of::<f32>(), panel_stride(dtype, rows.rank));
        let from = panel_stride(dtype, s.k);
        cpu.pool.run(panels.count(), |p| {
            let (out, ds) = (panels.take(p), &ds[p * from..(p + 1) * from]);
            (p * PANEL..s.n.min((p + 1) * PANEL)).for_each(|n| {
                rows.each(dtype, parts, s.k, n, |to, from| out[to] += scale * ds[from]);
            });
        });
    };
    dev.op(OP).run(body, |gpu| gpu::rows(gpu, "lora_collect", rows, s, [db, ds], scale))
}
