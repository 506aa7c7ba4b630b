//! Rotary position embedding (rotate-half form), in place on the q and k heads of packed qkv rows. The angles are
//! tables that are computed once per pack. Text (mrope with sections) and vision (2-D) differ only in these tables.

use crate::device::{Cpu, Device, Gpu, Parts, cpu_kernel, params};
use crate::ops::attend::Heads;
use crate::ops::check::{self, by_dtype, moved};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Rows of one work item.
const ROWS: usize = 64;

/// Rotates q and k of `qkv [T, (q + 2 kv) * dim]` (compute type). With (a, b) the halves of a head, the result is (a
/// cos - b sin, b cos + a sin). cos and sin are `[T, dim/2]` f32. Returns an error for other shapes.
pub fn fwd(dev: &mut Device, qkv: Tensor, cos: Tensor, sin: Tensor, heads: Heads) -> Result<()> {
    rotate(dev, "rope::fwd", qkv, cos, sin, heads, 1.0)
}

/// Applies the transposed rotation, the inverse of [`fwd`], in place on the gradient.
pub fn bwd(dev: &mut Device, dqkv: Tensor, cos: Tensor, sin: Tensor, heads: Heads) -> Result<()> {
    const OP: &str = "rope::bwd";
    dev.note_work(OP, 0.0, 2.0 * moved(&[dqkv]));
    rotate(dev, OP, dqkv, cos, sin, heads, -1.0)
}

fn rotate(
    dev: &mut Device,
    op: &'static str,
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: Heads,
    sign: f32,
) -> Result<()> {
    check::compute(op, "qkv", qkv)?;
    heads.check(op)?;
    let t = qkv.rows();
    check::tensor(op, "qkv", qkv, qkv.dtype, &[t, heads.qkv_len()])?;
    check::tensor(op, "cos", cos, DType::F32, &[t, heads.dim / 2])?;
    check::tensor(op, "sin", sin, DType::F32, &[t, heads.dim / 2])?;
    dev.op(op).run(
        |cpu| by_dtype!(qkv.dtype, rotate_rows(cpu, qkv, cos, sin, heads, sign)),
        |gpu| launch(gpu, qkv, cos, sin, heads, sign),
    )
}

fn launch(mut gpu: Gpu<'_>, qkv: Tensor, cos: Tensor, sin: Tensor, heads: Heads, sign: f32) -> Result<()> {
    check::gpu_compute(gpu.op, qkv.dtype)?;
    let half = heads.dim / 2;
    let elements = qkv.rows() * (heads.q + heads.kv) * half;
    // Number of pairs per thread: 8 for 16-byte accesses, if the halves of heads start at multiples of 16 bytes.
    let (kernel, pairs) = if half.is_multiple_of(8) { ("rope_vectors", 8) } else { ("rope_pairs", 1) };
    check::count(gpu.op, "pairs", elements)?;
    let (rows, width) = (qkv.rows() as i32, check::count(gpu.op, "columns", qkv.cols())?);
    let (heads, half) = ((heads.q + heads.kv) as i32, half as i32);
    let launch = check::by_elements(gpu.op, elements, pairs)?;
    gpu.launch("rope", kernel, launch, params!(rope::Args { qkv, cos, sin, rows, width, heads, half, sign }))
}

fn rotate_rows<T: Elem>(cpu: Cpu<'_>, qkv: Tensor, cos: Tensor, sin: Tensor, heads: Heads, sign: f32) {
    let half = heads.dim / 2;
    let ([qkv], [cos, sin]) = cpu.memory.tensors([qkv], [cos, sin]);
    let (cos, sin) = (cos.of::<f32>(), sin.of::<f32>());
    let qkv = Parts::new(qkv.of::<T>(), ROWS * heads.qkv_len());
    cpu.pool.run(qkv.count(), |i| {
        let from = i * ROWS * half;
        rows::<T>(cpu.isa, qkv.take(i), &cos[from..], &sin[from..], heads, sign);
    });
}

cpu_kernel! {
    fn rows<T: Elem>(qkv: &mut [T], cos: &[f32], sin: &[f32], heads: Heads, sign: f32) {
        let half = heads.dim / 2;
        for (i, row) in qkv.chunks_exact_mut(heads.qkv_len()).enumerate() {
            let (cos, sin) = (&cos[i * half..][..half], &sin[i * half..][..half]);
            for head in row.chunks_exact_mut(heads.dim).take(heads.q + heads.kv) {
                let (a, b) = head.split_at_mut(half);
                let b = &mut b[..half];
                for j in 0..half {
                    let (c, s) = (cos[j], sin[j] * sign);
                    let (x, y) = (a[j].to_f32(), b[j].to_f32());
                    a[j] = T::from_f32(x.mul_add(c, -(y * s)));
                    b[j] = T::from_f32(y.mul_add(c, x * s));
                }
            }
        }
    }
}
