//! Widens a whole quantised weight, for products that do not read codes: gradients, and on a GPU log-probs,
//! sampling, GELU and more than 128 tokens. [`super::matmul`] and `kernels/gemm_codes.cu` read codes.

use crate::device::{Cpu, Device, Gpu, Parts, Region, params};
use crate::ops::check::{self, by_dtype, moved};
use crate::ops::matmul::{PANEL, Weight, row_stride};
use crate::ops::quantized::{self, Quantized};
use crate::tensor::{Elem, Tensor};
use omr_base::choice::BaseFormat;
use omr_base::error::Result;

/// Calls `work` with a weight that is not quantised: `w` itself, or a copy in the workspace with the values of its codes.
pub(in crate::ops) fn widened<R>(
    dev: &mut Device,
    w: &Weight,
    work: impl FnOnce(&mut Device, &Weight) -> Result<R>,
) -> Result<R> {
    let Some(Quantized { dtype, .. }) = w.quantized else { return work(dev, w) };
    dev.scope(Region::Workspace, |dev| {
        let data = dev.alloc(Region::Workspace, dtype, &[w.order.len(dtype, w.n, w.k)])?;
        fwd(dev, w, data)?;
        work(dev, &Weight::new(data, w.order, w.n, w.k))
    })
}

/// Writes the values of the quantised weight `w` to `out`, in the order of a weight `[n, k]` of the compute type.
pub fn fwd(dev: &mut Device, w: &Weight, out: Tensor) -> Result<()> {
    const OP: &str = "dequantize";
    let dtype = check::weight(OP, w, w.n, w.k)?;
    check::that(OP, w.quantized.is_some(), "a quantised weight", "a plain weight")?;
    check::flat(OP, "out", out, dtype, w.order.len(dtype, w.n, w.k))?;
    dev.note_work(OP, 0.0, w.bytes() + moved(&[out]));
    dev.op(OP).run(|cpu| by_dtype!(dtype, body(cpu, w, out)), |gpu| launch(gpu, w, out))
}

fn launch(mut gpu: Gpu<'_>, w: &Weight, out: Tensor) -> Result<()> {
    let Some(Quantized { format, scales, dtype }) = w.quantized else { return Ok(()) };
    check::gpu_compute(gpu.op, dtype)?;
    let len = w.n * row_stride(w.k);
    let launch = check::by_elements(gpu.op, len, 8)?;
    let kernel = if format == BaseFormat::Int8 { "dequantize_int8" } else { "dequantize_nf4" };
    gpu.launch("dequantize", kernel, launch, params!(dequantize::Args { codes: w.data, scales, out, len: len as i64 }))
}

fn body<E: Elem>(cpu: Cpu<'_>, w: &Weight, out: Tensor) {
    let Some(Quantized { format, scales, .. }) = w.quantized else { return };
    let (layout, panels) = w.order.quantized(format, w.n, w.k);
    let ([out], [codes, scales]) = cpu.memory.tensors([out], [w.data, scales]);
    let (codes, scales) = (codes.of::<u8>(), scales.of::<u8>());
    let (pairs, of_scales) = (layout.k / 2, layout.scales() * quantized::scale_dtype(format).size());
    let parts = Parts::new(out.of::<E>(), w.order.piece(E::DTYPE, w.k).1);
    cpu.pool.run(panels, |i| {
        let (codes, scales) = (&codes[i * layout.codes()..], &scales[i * of_scales..][..of_scales]);
        let out = parts.take(i);
        if out.len() == 2 * PANEL * pairs {
            return quantized::widen::<E>(cpu.isa, format, codes, scales, 0..pairs, out);
        }
        // In f32, rows of an odd length have no padding.
        let (last, whole) = (pairs - 1, (pairs - 1) * 2 * PANEL);
        quantized::widen::<E>(cpu.isa, format, codes, scales, 0..last, &mut out[..whole]);
        let mut words = [E::from_f32(0.0); 2 * PANEL];
        quantized::widen::<E>(cpu.isa, format, codes, scales, last..pairs, &mut words);
        out[whole..].copy_from_slice(&words[..PANEL]);
    });
}
