//! Tensor operations. Each op family has a file or folder with its shape checks, its CPU implementation and its GPU
//! launch; forward and backward are side by side.
//!
//! The caller allocates the outputs. Ops compute in f32 whatever the storage type. A result depends neither on the
//! number of threads nor on the rest of the batch, because each output is computed by one fixed sequence of operations.
//!
//! # Rounding points
//!
//! In bf16 runs, values are rounded to bf16 (nearest, ties to even) at these points and nowhere else; in f32 runs
//! nothing is rounded. A fused op must not add or remove a rounding point. Values of `nf4` codes are bf16 numbers in
//! both ([`quantized`]).
//!
//! | forward | rounded |
//! | --- | --- |
//! | `embedding` | the row (a copy of a row of the weight) |
//! | `patch_embed` | the normalised pixels; the output |
//! | `pos_embed` | the sum of the taps; the output |
//! | `rms_norm`, `layer_norm` | the output, after gamma and beta |
//! | `linear` | the output after bias and residual: qkv, residual sums, the merger |
//! | `lora::fwd`, `lora::scaled` | t = x A^T; S = s B |
//! | `linear::fwd_swiglu` | silu(gate) * up, from fp32 gate and up; gate and up as saved for backward |
//! | `linear::fwd_gelu` | the output, from the fp32 value; that value as saved for backward |
//! | `rope` | q and k after the rotation |
//! | `qk_norm` | q and k after norm and rotation |
//! | `attention` | P = exp2(s c - M) before P V (the sum of P uses the unrounded values); the output |
//! | `linear_logprob`, `sample` | nothing: logits, logsumexp and log-probs are fp32 |
//!
//! On a GPU, attention computes exp2 with the instruction `ex2.approx.ftz` (relative error 2^-22, exact at zero) in
//! training, prefill and decode alike. Every other elementary function comes from [`omr_base::math`].
//!
//! | backward | rounded |
//! | --- | --- |
//! | `linear::dgrad`, `rms_norm`, `layer_norm` | dt = dy S; dX, the gradient of the residual stream (after accumulation) |
//! | `swiglu`, `gelu` | d(gate, up), d(pre) |
//! | `attention` | dO (already rounded by the op before); P = exp2(s c - lse log2(e)); dS = P * (dP - D); dqkv |
//! | `rope` | dqkv after the rotation back |
//! | `qk_norm` | dqkv after rotation back and norm |
//! | `linear_logprob` | dZ before both of its products; dhidden |
//! | `rows::scatter_add` | the sum of the gradients of a row that several rows are gathered from |
//! | all | nothing of D, dP, weight gradients, dgamma, dbeta, dbias: they are fp32 |

pub mod adamw;
pub mod attend;
pub mod attention;
mod check;
mod cta;
pub mod dequantize;
pub mod embedding;
pub mod gelu;
pub mod gemm;
pub mod grad_norm;
pub mod gradient;
pub mod input;
pub mod lane_sum;
pub mod lanes;
pub mod layer_norm;
pub mod linear;
pub mod linear_logprob;
pub mod lora;
pub mod matmul;
pub mod nll;
mod norm_rows;
pub mod paged_attention;
pub mod patch_embed;
pub mod policy_loss;
pub mod pos_embed;
pub mod qk_norm;
pub mod quantized;
pub mod rms_norm;
pub mod rope;
pub mod rows;
pub mod sample;
pub mod stamp;
mod start_check;
pub mod swiglu;
pub mod tile;
pub mod variants;
