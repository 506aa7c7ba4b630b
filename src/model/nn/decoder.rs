//! The decoder: computes hidden rows from token rows.

use std::sync::Arc;

use super::tape::layer::{Layer, Mlp, Norm};
use super::tape::layers::Attention;
use super::tape::qkv::HeadNorms;
use super::weights::layout::LayoutPart;
use super::weights::params::{Linear, Matrix, Part, Piece};
use crate::nn::config::{LayerConfig, TextConfig};
use crate::nn::{Attend, DeepStack, ModelConfig, ParamLayout, Rope, Tape, Var};
use omr_base::error::Result;
use omr_runtime::device::Device;
use omr_runtime::ops::matmul::PANEL;

/// The decoder's parameters.
#[derive(Clone)]
pub struct Decoder {
    /// Token table `[V, D]`.
    pub embed_tokens: Matrix,
    /// Output matrix `[V, D]`. It is the token table itself if the two are tied.
    pub lm_head: Matrix,
    pub(super) layers: Arc<[Layer]>,
    norm: Norm,
}

impl Decoder {
    /// Adds the decoder's parameters to `layout`.
    pub fn new(dev: &mut Device, layout: &mut ParamLayout, config: &ModelConfig) -> Result<Decoder> {
        let text = &config.text;
        let (v, d) = (text.vocab_size, text.hidden_size);
        let table = |name: &str| vec![Piece::rows(name, &[v, d], 0)];
        let embed_tokens = layout.within(Part::Table).matrix(dev, v, d, table("model.embed_tokens.weight"))?;
        let mut layers = Vec::new();
        for (i, config) in text.layers.iter().enumerate() {
            layers.push(layer(dev, &mut layout.within(Part::Layer(i)), text, config, &format!("model.layers.{i}"))?);
        }
        let mut head = layout.within(Part::Head);
        let norm = norm(dev, &mut head, text, "model.norm")?;
        let lm_head = match text.tie_word_embeddings {
            true => embed_tokens,
            false => head.linear_matrix(dev, v, d, table("lm_head.weight"))?,
        };
        Ok(Decoder { embed_tokens, lm_head, layers: layers.into(), norm })
    }

    /// Computes the hidden rows `[T, D]`, after the last norm, of the token rows `x`, with `vision` added after the first
    /// layers. The memory of `x` may be overwritten.
    pub fn forward(
        &self,
        tape: &mut Tape,
        dev: &mut Device,
        x: Var,
        rope: Rope,
        attend: Attend,
        vision: Arc<[DeepStack]>,
    ) -> Result<Var> {
        let (layers, levels) = (self.layers.clone(), tape.levels().text);
        let x = tape.layers(dev, "text.layer", x, 0..layers.len(), move |tape, dev, i, x, out| {
            let attention = Attention { rope, heads: layers[i].heads, attend: attend.clone(), cache: i };
            layers[i].forward(tape, dev, levels.keep(i), attention, x, out)?;
            vision.iter().try_for_each(|rows| rows.add(tape, dev, i, out))
        })?;
        self.norm.forward(tape, dev, x)
    }
}

fn norm(dev: &mut Device, layout: &mut LayoutPart<'_>, text: &TextConfig, name: &str) -> Result<Norm> {
    Ok(Norm { weight: layout.norm(dev, name, text.hidden_size)?, bias: None, eps: text.rms_norm_eps })
}

fn layer(
    dev: &mut Device,
    layout: &mut LayoutPart<'_>,
    text: &TextConfig,
    config: &LayerConfig,
    name: &str,
) -> Result<Layer> {
    let LayerConfig { heads, qkv_bias, qk_norm, intermediate_size: f } = *config;
    let (d, padded) = (text.hidden_size, f.next_multiple_of(PANEL));
    let [q, kv] = [heads.q * heads.dim, heads.kv * heads.dim];
    let joined = |what: &str, rest: &[usize]| {
        let pieces = [("q", q, 0), ("k", kv, q), ("v", kv, q + kv)].map(|(which, rows, from)| {
            let shape = [&[rows], rest].concat();
            Piece::rows(format!("{name}.self_attn.{which}_proj.{what}"), &shape, from)
        });
        pieces.to_vec()
    };
    let input_layernorm = norm(dev, layout, text, &format!("{name}.input_layernorm"))?;
    let weight = layout.linear_matrix(dev, q + 2 * kv, d, joined("weight", &[d]))?;
    let bias = qkv_bias.then(|| layout.bias(dev, q + 2 * kv, joined("bias", &[]))).transpose()?;
    let qkv_proj = Linear { weight, bias, adapter: None };
    let mut head_norm = |which: &str| layout.norm(dev, &format!("{name}.self_attn.{which}_norm"), heads.dim);
    let head_norms =
        if qk_norm { Some(HeadNorms { q: head_norm("q")?, k: head_norm("k")?, eps: text.rms_norm_eps }) } else { None };
    let o_proj = layout.linear(dev, &format!("{name}.self_attn.o_proj"), [d, q], [d, q], false)?;
    Ok(Layer {
        input_layernorm,
        qkv_proj,
        head_norms,
        o_proj,
        heads,
        post_attention_layernorm: norm(dev, layout, text, &format!("{name}.post_attention_layernorm"))?,
        mlp: Mlp {
            gelu: None,
            up_proj: layout.gate_up(dev, &format!("{name}.mlp"), f, d, false)?,
            down_proj: layout.linear(dev, &format!("{name}.mlp.down_proj"), [d, padded], [d, f], false)?,
        },
    })
}
