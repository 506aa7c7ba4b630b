//! Linear layers: y = x W^T (+ bias) (+ residual), optionally with an activation, and their gradients.
//!
//! Shapes: T packed tokens, K inputs, N outputs. x, y, bias and residual have the weight's dtype. The products of a layer
//! with an adapter continue over a second pair of operands, see [`super::lora`].

use crate::device::{Cpu, Device, Region};
use crate::ops::check::{self, added, by_dtype, moved};
use crate::ops::dequantize::widened;
use crate::ops::gelu::GeluKind;
use crate::ops::gemm::{self, Forward};
use crate::ops::gradient::Gradient;
use crate::ops::input::Input;
use crate::ops::matmul::{
    self, Cells, InputGradient, Linear, Order, PANEL, Product, SwiGlu, Weight, WeightGradient, panel_len,
};
use crate::ops::{paged_attention, rope};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

pub use crate::ops::gemm::{Qkv, wgmma_fault};

/// Returns the tensor, or an empty slice of `like` in place of an absent one.
fn or_empty(t: Option<Tensor>, like: Tensor) -> Tensor {
    t.unwrap_or(like.slice(0, 0))
}

/// Returns the product of the input's second pair, if it has one, with `n` outputs.
fn second<'a, E: Elem>(input: Input, t: &'a [E], s: &'a [E], n: usize) -> Option<Product<'a>> {
    input.pair.map(|pair| Product::rows::<E>(t, pair.left.rows(), pair.left.cols(), s, n))
}

/// Records y = x W^T. `others` is the number of bytes of everything except x and the right operands.
fn note_forward(dev: &mut Device, input: Input, w: &Weight, others: f64) {
    let rank = input.pair.map_or(0, |pair| pair.right.k);
    let right = w.bytes() + moved(input.pair.map(|pair| pair.right.data).as_slice());
    dev.note_product("linear", [input.x.rows(), w.n, w.k + rank], moved(&[input.x]) + right + others);
}

/// Function of the products of a linear layer.
#[derive(Clone, Copy)]
enum Activation {
    /// Nothing. The layer may add a residual.
    None,
    /// silu(gate) * up.
    SwiGlu,
    /// GELU.
    Gelu(GeluKind),
}

/// Computes y `[T, N]` = x `[T, K]` W^T (+ bias `[N]`) (+ residual `[T, N]`), rounded once. y may not overlap an input.
pub fn fwd(
    dev: &mut Device,
    x: impl Into<Input>,
    w: &Weight,
    bias: Option<Tensor>,
    residual: Option<Tensor>,
    y: Tensor,
) -> Result<()> {
    noted(dev, "linear", Activation::None, Forward { x: x.into(), w, bias, more: residual, y })
}

/// Computes [`fwd`] as a part of another op, which records the work.
pub(in crate::ops) fn fwd_part(dev: &mut Device, x: Tensor, w: &Weight, bias: Option<Tensor>, y: Tensor) -> Result<()> {
    forward(dev, "linear", Activation::None, Forward { x: x.into(), w, bias, more: None, y }, |_, _| ())
}

/// Computes y `[T, F]` = silu(gate) * up from the fp32 values of `[gate, up]` = x W^T (+ bias `[2F]`). The weight's
/// rows are interleaved in blocks of 32 (gate 0..32, up 0..32, gate 32..64, ...), and F is a multiple of 32. If
/// `gate_up` `[T, 2F]` is given, the values are stored there in the same interleaved order for [`super::swiglu::bwd`].
pub fn fwd_swiglu(
    dev: &mut Device,
    x: impl Into<Input>,
    w: &Weight,
    bias: Option<Tensor>,
    gate_up: Option<Tensor>,
    y: Tensor,
) -> Result<()> {
    noted(dev, "linear::fwd_swiglu", Activation::SwiGlu, Forward { x: x.into(), w, bias, more: gate_up, y })
}

/// Computes y `[T, N]` = gelu(x W^T (+ bias `[N]`)) from the fp32 value. If `pre` `[T, N]` is given, the value before the
/// activation is stored there for [`super::gelu::bwd`]. On a GPU, the GELU with tanh has no wgmma variant.
pub fn fwd_gelu(
    dev: &mut Device,
    kind: GeluKind,
    x: impl Into<Input>,
    w: &Weight,
    bias: Option<Tensor>,
    pre: Option<Tensor>,
    y: Tensor,
) -> Result<()> {
    noted(dev, "linear::fwd_gelu", Activation::Gelu(kind), Forward { x: x.into(), w, bias, more: pre, y })
}

fn noted(dev: &mut Device, op: &'static str, activation: Activation, call: Forward<'_>) -> Result<()> {
    let others = moved(&[call.y]) + moved(call.more.as_slice());
    forward(dev, op, activation, call, |dev, w| note_forward(dev, call.x, w, others))
}

/// Runs a linear layer, on a GPU and for many tokens with a widened copy of a quantised weight. `note` records the product
/// with the weight that it reads.
fn forward(
    dev: &mut Device,
    op: &'static str,
    activation: Activation,
    call: Forward<'_>,
    note: impl FnOnce(&mut Device, &Weight),
) -> Result<()> {
    let reads_codes = !matches!(activation, Activation::Gelu(_)) && gemm::reads_codes(call.w, call.x.x.rows());
    match dev.kind().is_gpu() && !reads_codes {
        true => widened(dev, call.w, |dev, w| {
            note(dev, w);
            run(dev, op, activation, Forward { w, ..call })
        }),
        false => {
            note(dev, call.w);
            run(dev, op, activation, call)
        }
    }
}

/// Runs a linear layer. `more` is the residual, or the values before the activation.
fn run(dev: &mut Device, op: &'static str, activation: Activation, call: Forward<'_>) -> Result<()> {
    let Forward { x: input, w, bias, more, y } = call;
    let (x, t) = (input.x, input.x.rows());
    let (rows, columns, name) = match activation {
        Activation::None => (w.n, w.n, "residual"),
        Activation::SwiGlu => (w.n.next_multiple_of(2 * PANEL), w.n / 2, "gate_up"),
        Activation::Gelu(_) => (w.n, w.n, "pre"),
    };
    let dtype = check::weight(op, w, rows, x.cols())?;
    check::tensor(op, "x", x, dtype, &[t, w.k])?;
    check::optional(op, "bias", bias, dtype, &[w.n])?;
    check::optional(op, name, more, dtype, &[t, w.n])?;
    check::tensor(op, "y", y, dtype, &[t, columns])?;
    input.check(op, dtype, w.n, false)?;
    dev.op(op).run(
        |cpu| by_dtype!(dtype, forward_on_cpu(cpu, activation, call)),
        |gpu| match activation {
            Activation::None => gemm::linear(gpu, call),
            Activation::SwiGlu => gemm::swiglu(gpu, call),
            Activation::Gelu(kind) => gemm::gelu(gpu, kind, call),
        },
    )
}

fn forward_on_cpu<E: Elem>(cpu: Cpu<'_>, activation: Activation, call: Forward<'_>) {
    let Forward { x: Input { x, .. }, w, bias, more, y } = call;
    let [t, s] = call.x.pair_or_empty();
    // A residual is read; values before an activation are written.
    let (residual, pre) = if let Activation::None = activation { (more, None) } else { (None, more) };
    let ins = [x, w.data, w.scales(), or_empty(bias, x), or_empty(residual, x), t, s];
    let ([pre_view, y], [x_view, w_view, scales, bias_view, residual_view, t_view, s_view]) =
        cpu.memory.tensors([or_empty(pre, y), y], ins);
    let second = second::<E>(call.x, t_view.of(), s_view.of(), w.n);
    let product = Product::of::<E>(x_view.of(), x.rows(), w, w_view, scales).then(second.as_ref());
    let (bias, pre) = (bias.map(|_| bias_view.of()), Cells::new(pre_view.of::<E>(), w.n));
    if let Activation::SwiGlu = activation {
        let epilogue = SwiGlu { bias, gate_up: pre, y: Cells::new(y.of::<E>(), w.n / 2) };
        return matmul::run(cpu.pool, cpu.isa, &product, &epilogue);
    }
    let gelu = if let Activation::Gelu(kind) = activation { Some(kind) } else { None };
    let residual = residual.map(|_| residual_view.of());
    matmul::run(cpu.pool, cpu.isa, &product, &Linear { bias, residual, pre, gelu, y: Cells::new(y.of(), w.n) });
}

/// Computes y [T, N] = x [T, K] W^T in f32 without rounding. These are the logits that `linear_logprob` and `sample`
/// compute tile by tile, here stored in full for evaluation and comparison.
pub fn fwd_f32(dev: &mut Device, x: Tensor, w: &Weight, y: Tensor) -> Result<()> {
    const OP: &str = "linear::fwd_f32";
    let t = x.rows();
    let dtype = check::weight(OP, w, w.n, x.cols())?;
    check::tensor(OP, "x", x, dtype, &[t, w.k])?;
    check::tensor(OP, "y", y, DType::F32, &[t, w.n])?;
    fn body<E: Elem>(cpu: Cpu<'_>, x: Tensor, w: &Weight, y: Tensor) {
        let ([y], [x_view, w_view]) = cpu.memory.tensors([y], [x, w.data]);
        let product = Product::rows::<E>(x_view.of(), x.rows(), w.k, w_view.of(), w.n);
        matmul::run(cpu.pool, cpu.isa, &product, &Linear::<f32>::plain(y.of(), w.n));
    }
    widened(dev, w, |dev, w| {
        dev.op(OP).run(|cpu| by_dtype!(dtype, body(cpu, x, w, y)), |gpu| gemm::logits(gpu, x, w, y))
    })
}

/// Computes qkv = x W^T (+ bias), rotates its q and k heads by cos and sin ([`rope::fwd`]), and stores k and v at
/// `cache`'s slots ([`paged_attention::store`]). The results are bitwise identical to those of the three ops. On a GPU,
/// one kernel does all of this. Returns the errors of the three ops.
pub fn fwd_qkv(dev: &mut Device, call: Qkv<'_>) -> Result<()> {
    const OP: &str = "linear::fwd_qkv";
    let Qkv { x, w, bias, cos, sin, heads, cache, qkv } = call;
    if !dev.kind().is_gpu() {
        fwd(dev, x, w, bias, None, qkv)?;
        rope::fwd(dev, qkv, cos, sin, heads)?;
        return cache.map_or(Ok(()), |(cache, slots)| paged_attention::store(dev, qkv, slots, cache));
    }
    let t = x.x.rows();
    heads.check(OP)?;
    let dtype = check::weight(OP, w, heads.qkv_len(), x.x.cols())?;
    check::tensor(OP, "x", x.x, dtype, &[t, w.k])?;
    x.check(OP, dtype, w.n, false)?;
    check::optional(OP, "bias", bias, dtype, &[w.n])?;
    check::tensor(OP, "cos", cos, DType::F32, &[t, heads.dim / 2])?;
    check::tensor(OP, "sin", sin, DType::F32, &[t, heads.dim / 2])?;
    check::tensor(OP, "qkv", qkv, dtype, &[t, w.n])?;
    if let Some((cache, slots)) = cache {
        cache.check(OP, dev, dtype, heads)?;
        check::tensor(OP, "slot_mapping", slots, DType::U32, &[t])?;
    }
    if gemm::reads_codes(w, t) {
        note_forward(dev, x, w, moved(&[qkv]));
        return dev.op(OP).run(|_| (), |gpu| gemm::qkv(gpu, call));
    }
    widened(dev, w, |dev, w| {
        note_forward(dev, x, w, moved(&[qkv]));
        dev.op(OP).run(|_| (), |gpu| gemm::qkv(gpu, Qkv { w, ..call }))
    })
}

/// Computes dx [T, K] = dy [T, N] W, or dx + dy W rounded once if `accumulate`. A second pair
/// (dt, A) adds dt A before the rounding. The CPU needs scratch memory for the transposed weights.
pub fn dgrad(dev: &mut Device, dy: impl Into<Input>, w: &Weight, dx: Tensor, accumulate: bool) -> Result<()> {
    const OP: &str = "linear::dgrad";
    let input = dy.into();
    let (dy, t) = (input.x, input.x.rows());
    let dtype = check::weight(OP, w, dy.cols(), w.k)?;
    check::tensor(OP, "dy", dy, dtype, &[t, w.n])?;
    check::tensor(OP, "dx", dx, dtype, &[t, w.k])?;
    input.check(OP, dtype, w.k, true)?;
    let longer = input.pair.map_or(0, |pair| pair.right.n);
    let others = moved(&[dy, dx]) + moved(&input.pair_or_empty()) + added(dx, accumulate);
    widened(dev, w, |dev, w| {
        dev.note_product(OP, [t, w.k, w.n + longer], w.bytes() + others);
        dgrad_of(dev, input, w, dx, accumulate)
    })
}

/// Computes [`dgrad`] with a weight that is not quantised.
fn dgrad_of(dev: &mut Device, input: Input, w: &Weight, dx: Tensor, accumulate: bool) -> Result<()> {
    const OP: &str = "linear::dgrad";
    let dtype = w.data.dtype;
    if dev.kind().is_gpu() {
        return dev.op(OP).run(|_| (), |mut gpu| gemm::dgrad(&mut gpu, input, w, dx, accumulate));
    }
    fn body<E: Elem>(cpu: Cpu<'_>, input: Input, w: &Weight, dx: Tensor, accumulate: bool, scratch: [Tensor; 2]) {
        let [scratch, more] = scratch;
        let [dt, a] = input.pair_or_empty();
        let ([dx, scratch, more], [dy_view, w_view, dt_view, a_view]) =
            cpu.memory.tensors([dx, scratch, more], [input.x, w.data, dt, a]);
        let (scratch, more) = (scratch.of::<E>(), more.of::<E>());
        matmul::transpose(cpu.pool, cpu.isa, w_view.of(), w.n, w.k, scratch);
        if let Some(pair) = input.pair {
            matmul::transpose(cpu.pool, cpu.isa, a_view.of(), pair.right.n, w.k, more);
        }
        let second = second::<E>(input, dt_view.of(), more, w.k);
        let product = Product::rows::<E>(dy_view.of(), input.x.rows(), w.n, scratch, w.k).then(second.as_ref());
        let epilogue = InputGradient { dx: Cells::new(dx.of::<E>(), w.k), accumulate };
        matmul::run(cpu.pool, cpu.isa, &product, &epilogue);
    }
    dev.scope(Region::Workspace, |dev| {
        let scratch = dev.alloc(Region::Workspace, dtype, &[panel_len(dtype, w.k, w.n)])?;
        let more = match input.pair {
            Some(pair) => dev.alloc(Region::Workspace, dtype, &[panel_len(dtype, w.k, pair.right.n)])?,
            None => scratch.slice(0, 0),
        };
        dev.on().run(|cpu| by_dtype!(dtype, body(cpu, input, w, dx, accumulate, [scratch, more])), |_| Ok(()))
    })
}

/// Computes dw += dy^T x, or dw = dy^T x if dw holds nothing, and dbias `[N]` += the sum of dy `[T, N]` over tokens; x
/// is `[T, K]`. Both results are f32; `dw` is flat, in the device's element order for a weight of x's dtype. Each element
/// is summed over the tokens in order, starting from its present value, or from zero; if dw holds a sum over micro-batches,
/// the sum over the tokens is then added to it. Two calls are therefore bitwise identical to one call over both token
/// ranges, if the first range has
///
/// - on a CPU in bf16, an even number of tokens (a multiple of 32 with AMX tiles);
/// - on a GPU, a multiple of 16 tokens.
pub fn wgrad(dev: &mut Device, x: Tensor, dy: Tensor, dw: impl Into<Gradient>, dbias: Option<Tensor>) -> Result<()> {
    let dw = dw.into();
    dev.note_product("linear::wgrad", [dy.cols(), x.cols(), x.rows()], moved(&[x, dy]) + dw.moved());
    wgrad_part(dev, x, dy, dw, dbias)
}

/// Computes [`wgrad`] as a part of another op, which records the work.
pub(in crate::ops) fn wgrad_part(
    dev: &mut Device,
    x: Tensor,
    dy: Tensor,
    dw: Gradient,
    dbias: Option<Tensor>,
) -> Result<()> {
    const OP: &str = "linear::wgrad";
    let (t, n, k) = (dy.rows(), dy.cols(), x.cols());
    let dtype = x.dtype;
    check::tensor(OP, "x", x, dtype, &[t, k])?;
    check::tensor(OP, "dy", dy, dtype, &[t, n])?;
    check::tensor(OP, "dw", dw.tensor, DType::F32, &[Order::of(dev).len(dtype, n, k)])?;
    check::optional(OP, "dbias", dbias, DType::F32, &[n])?;
    let dw = dw.of_product(dev, t, k)?;
    if dev.kind().is_gpu() {
        return dev.op(OP).run(|_| (), |mut gpu| gemm::wgrad(&mut gpu, x, dy, n, dw, dbias));
    }
    fn body<E: Elem>(cpu: Cpu<'_>, x: Tensor, dy: Tensor, dw: Tensor, dbias: Option<Tensor>, scratch: Tensor) {
        let outs = [dw, or_empty(dbias, dw), scratch];
        let ([dw, dbias_view, scratch], [x_view, dy_view]) = cpu.memory.tensors(outs, [x, dy]);
        let (xs, dys) = (x_view.of::<E>(), dy_view.of::<E>());
        let dbias = dbias.map(|_| dbias_view.of::<f32>());
        let call =
            WeightGradient { x: xs, k: x.cols(), dy: dys, n: dy.cols(), dw: dw.of(), dbias, scratch: scratch.of() };
        matmul::weight_gradient(cpu.pool, cpu.isa, call);
    }
    dev.scope(Region::Workspace, |dev| {
        let scratch = dev.alloc(Region::Workspace, dtype, &[matmul::weight_gradient_scratch(dtype, t, n, k)])?;
        dev.on().run(|cpu| by_dtype!(dtype, body(cpu, x, dy, dw.tensor, dbias, scratch)), |_| Ok(()))
    })
}
