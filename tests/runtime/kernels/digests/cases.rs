//! The cases of the predicted digests: inputs, and the ops that run on them.

use half::bf16;
use omr_runtime::device::{Device, KernelVariant};
use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::tensor::DType;

use crate::kernels::attention::{self, heads};
use crate::kernels::attention_bwd::GradCase;
use crate::kernels::inputs::normals;
use crate::kernels::paged_attention::Step;
use crate::kernels::{
    Outcome, adamw, embedding, gelu, gemm, gemm_bwd, grad_norm, layer_norm, linear_logprob, linear_logprob_bwd, lora,
    pos_embed, qk_norm, rms_norm, rope, sample, swiglu,
};

/// Runs a case. Returns every bit of its results, one word per element.
pub type Run = Box<dyn Fn(&mut Device) -> Outcome<Vec<u32>>>;

/// A case.
pub struct Case {
    /// Name: the op and its shape.
    pub name: String,
    /// True if the kernels contain approximate instructions.
    pub approximate: bool,
    /// Kernel variants of the case; the first one is that of all GPUs.
    pub variants: &'static [KernelVariant],
    /// Runs it.
    pub run: Run,
}

const BOTH: [KernelVariant; 2] = [KernelVariant::Mma, KernelVariant::Wgmma];

fn product(name: String, run: impl Fn(&mut Device) -> Outcome<Vec<u32>> + 'static) -> Case {
    Case { name, approximate: false, variants: &BOTH, run: Box::new(run) }
}

fn plain(name: &str, run: impl Fn(&mut Device) -> Outcome<Vec<u32>> + 'static) -> Case {
    Case { name: name.to_owned(), approximate: false, variants: &BOTH[..1], run: Box::new(run) }
}

fn approximate(
    name: &str,
    variants: &'static [KernelVariant],
    run: impl Fn(&mut Device) -> Outcome<Vec<u32>> + 'static,
) -> Case {
    Case { name: name.to_owned(), approximate: true, variants, run: Box::new(run) }
}

fn halves(x: impl IntoIterator<Item = bf16>) -> Vec<u32> {
    x.into_iter().map(|x| u32::from(x.to_bits())).collect()
}

fn floats(x: impl IntoIterator<Item = f32>) -> Vec<u32> {
    x.into_iter().map(f32::to_bits).collect()
}

/// Terms of the sums of most products: more than one stage, and no multiple of a stage.
const K: usize = 72;
/// Rows and columns for which products use each tile: with mma.sync those of 16, 64 and 128 rows, with wgmma on 132
/// multiprocessors the slim, narrow, short, half, square and wide one.
const SHAPES: [(usize, usize); 6] = [(9, 136), (16, 2600), (70, 2600), (130, 3200), (2050, 400), (2050, 1024)];
/// The same for products that have three tiles, with columns in multiples of 64.
const FEW_TILES: [(usize, usize); 4] = [(9, 128), (20, 192), (130, 3200), (2050, 1024)];
/// The same for logits: rows and ids.
const LOGITS: [(usize, usize); 4] = [(9, 300), (70, 300), (2050, 400), (2050, 1024)];

/// Makes the cases whose names begin with `first`. Their inputs are made when they run.
pub fn cases(first: &str) -> Vec<Case> {
    let mut all = products();
    all.extend(elementwise());
    all.extend(attentions());
    all.retain(|case| case.name.starts_with(first));
    all
}

fn products() -> Vec<Case> {
    let mut all = Vec::new();
    for (t, n) in SHAPES {
        let case = move || gemm::Case::new(t, n, K);
        all.push(product(format!("linear {t}x{n}x{K}"), move |dev| {
            Ok(halves(case().linear(dev, 0..t, true, true)?))
        }));
        all.push(product(format!("linear_f32 {t}x{n}x{K}"), move |dev| Ok(floats(case().logits(dev)?))));
        // One head of keys, one of values, and as many heads of queries as the columns need.
        let q = n.div_ceil(64) - 2;
        let qkv = move |dev: &mut Device| Ok(halves(gemm::Qkv::new(t, q, 1, 64).run(dev, true, true)?.concat()));
        all.push(product(format!("linear_qkv {t}x{}x{K}", (q + 2) * 64), qkv));
    }
    for (t, n) in FEW_TILES {
        let case = move || gemm::Case::new(t, n, K);
        all.push(product(format!("gelu {t}x{n}x{K}"), move |dev| {
            Ok(halves(case().gelu(dev, GeluKind::Exact, true, true)?.concat()))
        }));
        all.push(plain(&format!("gelu_tanh {t}x{n}x{K}"), move |dev| {
            Ok(halves(case().gelu(dev, GeluKind::Tanh, true, true)?.concat()))
        }));
        all.push(product(format!("swiglu {t}x{n}x{K}"), move |dev| {
            Ok(halves(case().swiglu(dev, true, true)?.concat()))
        }));
        // dx is [T, K] summed over N; dw is [N, K] summed over T.
        let dx = move |dev: &mut Device| Ok(halves(gemm_bwd::Case::new(t, K, n).dgrad(dev, 0..t, true)?));
        all.push(product(format!("dgrad {t}x{n}x{K}"), dx));
        // TMA copies rows of dy whose length is a multiple of 16 bytes.
        let rows = t.next_multiple_of(8);
        let dw = move |dev: &mut Device| Ok(floats(gemm_bwd::Case::new(K, rows, n).wgrad(dev, &[K], true)?));
        all.push(product(format!("wgrad {rows}x{n}x{K}"), dw));
        let sum = move |dev: &mut Device| Ok(floats(gemm_bwd::Case::new(K, rows, n).wgrad_sum(dev)?));
        all.push(product(format!("wgrad_sum {rows}x{n}x{K}"), sum));
        let chain = move |dev: &mut Device| {
            Ok(floats(linear_logprob_bwd::run(dev, &linear_logprob_bwd::case((t, 300, n), true, 0.7), 1 << 15)?))
        };
        all.push(product(format!("logprob_bwd {t}x300x{n}"), chain));
    }
    for (t, v) in LOGITS {
        let fwd = move |dev: &mut Device| {
            Ok(floats(linear_logprob::run(dev, &linear_logprob::case((t, v, K), true, 0.7), 0, t)?.concat()))
        };
        all.push(product(format!("logprob {t}x{v}x{K}"), fwd));
        let bwd = move |dev: &mut Device| {
            Ok(floats(linear_logprob_bwd::run(dev, &linear_logprob_bwd::case((t, v, K), true, 0.7), usize::MAX)?))
        };
        all.push(product(format!("logprob_bwd {t}x{v}x{K}"), bwd));
    }
    for rows in [9, 40, 140, 2050, 3000] {
        all.push(product(format!("sample {rows} rows"), move |dev| {
            let (hidden, w, draws) = sample::hidden_case(rows);
            let (ids, logprobs) = sample::from_hidden(dev, &hidden, &w, &draws, &None)?;
            Ok(ids.into_iter().chain(floats(logprobs)).collect())
        }));
    }
    for op in lora::OPS {
        let run = move |dev: &mut Device| Ok(halves(lora::Case::new(op, [130, 3200, K, 48]).run(dev)?));
        all.push(product(format!("lora {op:?} 130x3200x{K} + 48"), run));
    }
    all
}

fn elementwise() -> Vec<Case> {
    let mut all = vec![
        plain("rms_norm 5x3584", |dev| {
            let (y, rstd) = rms_norm::run(dev, &rms_norm::case((5, 3584)))?;
            Ok([halves(y), floats(rstd)].concat())
        }),
        plain("rms_norm_bwd 130x1280", |dev| {
            let (dx, dgamma) = rms_norm::run_bwd(dev, &rms_norm::bwd_case((130, 1280), true))?;
            Ok([halves(dx), floats(dgamma)].concat())
        }),
        plain("swiglu_bwd 17x3424", |dev| Ok(halves(swiglu::gradients(dev, 17, 3424)?))),
        plain("gelu_tanh_bwd 17x1283", |dev| Ok(halves(gelu::gradients(dev, GeluKind::Tanh, 17, 1283)?))),
        plain("layer_norm 130x1152", |dev| {
            let (rows, sums) = layer_norm::run(dev, (130, 1152), true)?;
            Ok([halves(rows), floats(sums)].concat())
        }),
        plain("pos_embed 60x2304x144", |dev| {
            let (rows, sums) = pos_embed::run(dev, (60, 2304, 144))?;
            Ok([halves(rows), floats(sums)].concat())
        }),
        plain("gelu_bwd 17x1283", |dev| Ok(halves(gelu::gradients(dev, GeluKind::Exact, 17, 1283)?))),
        plain("qk_norm 37x6x128", |dev| {
            let (rows, sums) = qk_norm::run(dev, 37, heads(4, 2, 128), false)?;
            Ok([halves(rows), floats(sums)].concat())
        }),
        plain("rope 40x28", |dev| Ok(halves(rope::run(dev, 40, heads(28, 4, 128), false)?))),
        plain("embedding 130x50x136", |dev| {
            let ids = embedding::ids(130, 50);
            let y = embedding::run(dev, &ids, 50, 136)?;
            Ok([halves(y), floats(embedding::gradients(dev, &ids, 50, 136)?)].concat())
        }),
        plain("lora_t 5x48x3584", |dev| Ok(halves(lora::Down::new(5, 48, 3584).run(dev, 0, 5)?))),
        plain("lora_t 130x16x2100", |dev| Ok(halves(lora::Down::new(130, 16, 2100).run(dev, 0, 130)?))),
        plain("grad_norm 70003 + 65535", |dev| Ok(floats(grad_norm::norm(dev, &[70_003, 65_535], 0.5, None)?))),
    ];
    for split in [true, false] {
        for moments in [DType::F32, DType::Bf16, DType::U8] {
            let name = format!("adamw {}, moments {moments:?}", if split { "split" } else { "rounded" });
            all.push(plain(&name, move |dev| adamw::updated(dev, (split, moments), 4099, 1.0, &[0, 4099])));
        }
    }
    all
}

/// Attention of text by both kernel variants, and of the windows of the vision tower. The gradients' inputs are random
/// numbers and a constant log-sum-exp, so that they do not depend on another result.
fn attentions() -> Vec<Case> {
    let text = heads(2, 1, 128);
    let grads = |of: omr_runtime::ops::attend::Heads, lens: &'static [usize], causal: bool, longest: usize| {
        move |dev: &mut Device| {
            let case = attention::Case::new(of, lens);
            let len = case.t() * of.out_len();
            let lse = vec![5.0; case.t() * of.q];
            Ok(halves(
                GradCase { case, causal, prompt_of: None, dout: normals(2, len), out: normals(3, len), lse }
                    .run(dev, longest)?,
            ))
        }
    };
    vec![
        approximate("attention 131 + 3, hd128", &BOTH, move |dev| {
            Ok(attention::bits(attention::Case::new(text, &[131, 3]).run(dev, true, 131)?))
        }),
        approximate("attention windows, hd80", &BOTH[..1], |dev| {
            Ok(attention::bits(attention::Case::new(heads(1, 1, 80), &[64, 20]).run(dev, false, 64)?))
        }),
        approximate("attention images, hd72", &BOTH[..1], |dev| {
            Ok(attention::bits(attention::Case::new(heads(1, 1, 72), &[64, 20]).run(dev, false, 64)?))
        }),
        approximate("attention_bwd images, hd72", &BOTH[..1], grads(heads(1, 1, 72), &[64, 20], false, 64)),
        approximate("attention_bwd 131 + 3, hd128", &BOTH, grads(text, &[131, 3], true, 131)),
        approximate("attention_bwd windows, hd80", &BOTH[..1], grads(heads(1, 1, 80), &[64, 20], false, 64)),
        approximate("decode 300 + 140, hd128", &BOTH, move |dev| {
            Ok(halves(Step::new(heads(7, 1, 128), &[300, 140], 1).run(dev, Some(2))?))
        }),
    ]
}
