//! The decoder: computes hidden rows from token rows.

use std::sync::Arc;

use crate::device::Device;
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::layer::Layer;
use crate::model::layers::{Attend, Attention, Rope};
use crate::model::layout::{LayoutPart, ParamLayout};
use crate::model::params::{Linear, Matrix, Part, Piece, Vector};
use crate::model::tape::{Tape, Var};
use crate::ops::attend::Heads;
use crate::ops::matmul::PANEL;

/// The decoder's parameters.
#[derive(Clone)]
pub struct Decoder {
    /// Token table `[V, D]`.
    pub embed_tokens: Matrix,
    /// Output matrix `[V, D]`. It is the token table itself if the two are tied.
    pub lm_head: Matrix,
    pub(super) layers: Arc<[Layer]>,
    norm: Vector,
    heads: Heads,
    eps: f32,
}

impl Decoder {
    /// Adds the decoder's parameters to `layout`.
    pub fn new(dev: &mut Device, layout: &mut ParamLayout, config: &ModelConfig) -> Result<Decoder> {
        let (v, d, eps) = (config.vocab_size, config.hidden_size, config.rms_norm_eps);
        let table = |name: &str| vec![Piece::rows(name, &[v, d], 0)];
        let embed_tokens = layout.within(Part::Table).matrix(dev, v, d, table("model.embed_tokens.weight"))?;
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            layers.push(layer(dev, &mut layout.within(Part::Layer(i)), config, &format!("model.layers.{i}"))?);
        }
        let mut head = layout.within(Part::Head);
        let norm = head.norm(dev, "model.norm", d)?;
        let lm_head = match config.tie_word_embeddings {
            true => embed_tokens,
            false => head.matrix(dev, v, d, table("lm_head.weight"))?,
        };
        Ok(Decoder { embed_tokens, lm_head, layers: layers.into(), norm, heads: heads(config), eps })
    }

    /// Computes the hidden rows `[T, D]`, after the last norm, of the token rows `x`. The memory of `x` may be
    /// overwritten.
    pub fn forward(&self, tape: &mut Tape, dev: &mut Device, x: Var, rope: Rope, attend: Attend) -> Result<Var> {
        let (layers, levels, heads) = (self.layers.clone(), tape.levels().text, self.heads);
        let x = tape.layers(dev, "text.layer", x, layers.len(), move |tape, dev, i, x, out| {
            let attention = Attention { rope, heads, attend: attend.clone(), layer: i };
            layers[i].forward(tape, dev, levels.keep(i), attention, x, out)
        })?;
        tape.rms_norm(dev, x, self.norm, self.eps)
    }
}

fn heads(config: &ModelConfig) -> Heads {
    Heads { q: config.num_attention_heads, kv: config.num_key_value_heads, dim: config.head_dim() }
}

fn layer(dev: &mut Device, layout: &mut LayoutPart<'_>, config: &ModelConfig, name: &str) -> Result<Layer> {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let heads = heads(config);
    let [q, kv] = [heads.q * heads.dim, heads.kv * heads.dim];
    let joined = |what: &str, rest: &[usize]| {
        [("q", q, 0), ("k", kv, q), ("v", kv, q + kv)]
            .map(|(which, rows, from)| {
                let shape = [&[rows], rest].concat();
                Piece::rows(format!("{name}.self_attn.{which}_proj.{what}"), &shape, from)
            })
            .to_vec()
    };
    let input_layernorm = layout.norm(dev, &format!("{name}.input_layernorm"), d)?;
    let qkv_proj = Linear {
        weight: layout.matrix(dev, q + 2 * kv, d, joined("weight", &[d]))?,
        bias: Some(layout.bias(dev, q + 2 * kv, joined("bias", &[]))?),
        adapter: None,
    };
    Ok(Layer {
        input_layernorm,
        qkv_proj,
        o_proj: layout.linear(dev, &format!("{name}.self_attn.o_proj"), [d, q], q, false)?,
        post_attention_layernorm: layout.norm(dev, &format!("{name}.post_attention_layernorm"), d)?,
        gate_up_proj: layout.gate_up(dev, &format!("{name}.mlp"), f, d, false)?,
        down_proj: layout.linear(dev, &format!("{name}.mlp.down_proj"), [d, f.next_multiple_of(PANEL)], f, false)?,
        eps: config.rms_norm_eps,
    })
}
