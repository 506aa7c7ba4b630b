//! The keys of `config.json` and the weights that all decoders with attention and a SwiGLU MLP share.

use super::node::Node;
use crate::nn::config::{
    LayerConfig, Llama3Scaling, Measured, ModelParts, NewIds, RopeAxes, RopeConfig, SizeCheck, TextConfig,
};
use omr_base::config::BaseConfig;
use omr_base::error::{Error, Result};
use omr_runtime::ops::attend::Heads;
use serde_json::{Value, json};

/// Differences between the configuration classes of families.
pub struct Dense {
    /// True if q, k and v have a bias.
    pub qkv_bias: bool,
    /// True if each head of q and k is normalised before the rotation.
    pub qk_norm: bool,
    /// `head_dim` of a file without it. `None` divides `hidden_size` by the number of heads.
    pub head_dim: Option<usize>,
    /// `rms_norm_eps` of a file without it.
    pub rms_norm_eps: f64,
    /// `max_position_embeddings` of a file without it.
    pub max_position_embeddings: usize,
}

impl Dense {
    /// The values of most classes.
    pub const DEFAULT: Dense =
        Dense { qkv_bias: false, qk_norm: false, head_dim: None, rms_norm_eps: 1e-6, max_position_embeddings: 32_768 };
}

/// Returns the dimension of a head: `head_dim`, else `default`, else `hidden_size` divided by the number of heads.
pub fn head_dim(text: &Node<'_>, default: Option<usize>) -> Result<usize> {
    let (hidden_size, q) = (text.usize("hidden_size", None)?, text.usize("num_attention_heads", None)?);
    if !text.has("head_dim") && default.is_none() {
        text.require("num_attention_heads", q, hidden_size.is_multiple_of(q), "a divisor of hidden_size")?;
    }
    let dim = text.usize("head_dim", Some(default.unwrap_or(hidden_size / q)))?;
    text.require("num_attention_heads", q, dim.is_multiple_of(2), "an even dimension of a head")?;
    Ok(dim)
}

/// Returns an error if one of `keys` is true.
pub fn refuse(text: &Node<'_>, keys: &[&str]) -> Result<()> {
    for key in keys {
        if text.bool(key, false)? {
            return Err(Error::input(text.at(key), "true", "false: such layers are not supported"));
        }
    }
    Ok(())
}

/// Reads the file of a model without images.
pub fn read(root: &Node<'_>, dense: Dense) -> Result<ModelParts> {
    refuse(root, &["attention_bias", "mlp_bias"])?;
    let rope = rope(root)?;
    let theta = rope.as_ref().filter(|rope| rope.has("rope_theta")).unwrap_or(root).f64("rope_theta", Some(1e4))?;
    let scaling = rope.map_or(Ok(None), |rope| scaling(&rope))?;
    let rope = RopeConfig { theta, dim: head_dim(root, dense.head_dim)?, scaling, axes: RopeAxes::One };
    Ok(ModelParts { text: text(root, root, dense, rope)?, media: None })
}

/// Returns the object with the settings of the rotary embedding. Older files call it `rope_scaling`; if a file has both
/// names, that is the one in force, as in transformers.
pub fn rope<'a>(text: &Node<'a>) -> Result<Option<Node<'a>>> {
    let scaling = text.child("rope_scaling")?.filter(|rope| rope.keys().next().is_some());
    let rope = scaling.map_or_else(|| text.child("rope_parameters"), |rope| Ok(Some(rope)))?;
    let of_some =
        rope.iter().flat_map(|rope| rope.keys().filter(|key| rope.get(key).is_some_and(Value::is_object))).next();
    match rope.as_ref().zip(of_some) {
        Some((rope, key)) => {
            Err(Error::input(rope.at(key), "settings of one type of layers", "settings of all layers"))
        }
        None => Ok(rope),
    }
}

/// Reads the change of the frequencies. Older files have `type` instead of `rope_type`.
fn scaling(rope: &Node<'_>) -> Result<Option<Llama3Scaling>> {
    let key = if rope.has("rope_type") { "rope_type" } else { "type" };
    rope.one_of(key, &["default", "llama3"])?;
    if rope.get(key).is_none_or(|kind| kind == "default") {
        return Ok(None);
    }
    Ok(Some(Llama3Scaling {
        factor: rope.f64("factor", None)?,
        low_freq_factor: rope.f64("low_freq_factor", None)?,
        high_freq_factor: rope.f64("high_freq_factor", None)?,
        original_max_position_embeddings: rope.f64("original_max_position_embeddings", None)?,
    }))
}

/// Reads the text part of the model in the file `root`. `text` is the object with its keys.
pub fn text(root: &Node<'_>, text: &Node<'_>, dense: Dense, rope: RopeConfig) -> Result<TextConfig> {
    text.one_of("hidden_act", &["silu"])?;
    refuse(text, &["use_sliding_window"])?;
    let is_causal = text.bool("is_causal", true)?;
    text.require("is_causal", is_causal, is_causal, "true: tokens attend to earlier tokens only")?;
    for node in [Some(text.clone()), self::rope(text)?].into_iter().flatten() {
        let share = node.f64("partial_rotary_factor", Some(1.0))?;
        node.require("partial_rotary_factor", share, share == 1.0, "1: all columns of a head are rotated")?;
    }
    let layers = text.usize("num_hidden_layers", None)?;
    let is_full = |types: &Vec<Value>| types.len() == layers && types.iter().all(|kind| kind == "full_attention");
    if let Some(types) = text.get("layer_types").filter(|types| !types.as_array().is_some_and(is_full)) {
        let expected = format!("a list of num_hidden_layers, {layers}, texts full_attention");
        return Err(Error::input(text.at("layer_types"), types.to_string(), expected));
    }
    let q = text.usize("num_attention_heads", None)?;
    let kv = text.usize("num_key_value_heads", Some(q))?;
    text.require("num_key_value_heads", kv, q.is_multiple_of(kv), "a divisor of num_attention_heads")?;
    let heads = Heads { q, kv, dim: head_dim(text, dense.head_dim)? };
    let intermediate_size = text.usize("intermediate_size", None)?;
    let layer = LayerConfig { heads, qkv_bias: dense.qkv_bias, qk_norm: dense.qk_norm, intermediate_size };
    let tied = if root.has("tie_word_embeddings") { root } else { text };
    let vocab_size = text.usize("vocab_size", None)?;
    let eos = text.ids("eos_token_id", vocab_size)?;
    Ok(TextConfig {
        vocab_size,
        hidden_size: text.usize("hidden_size", None)?,
        layers: vec![layer; layers],
        rms_norm_eps: text.f64("rms_norm_eps", Some(dense.rms_norm_eps))? as f32,
        rope,
        max_position_embeddings: text.usize("max_position_embeddings", Some(dense.max_position_embeddings))?,
        tie_word_embeddings: tied.bool("tie_word_embeddings", false)?,
        initializer_range: text.f64("initializer_range", Some(0.02))?,
        eos_token_id: if eos.is_empty() { root.ids("eos_token_id", vocab_size)? } else { eos },
    })
}

/// Returns the sizes of the text part that the weights must have.
pub fn size_checks(text: &TextConfig) -> Vec<SizeCheck> {
    const TABLE: &str = "model.embed_tokens.weight";
    const MLP: &str = "model.layers.0.mlp.gate_proj.weight";
    const Q: Measured = Measured::Side("model.layers.0.self_attn.q_proj.weight", 0);
    const K: Measured = Measured::Side("model.layers.0.self_attn.k_proj.weight", 0);
    let Heads { q, kv, dim } = text.layers[0].heads;
    [
        ("/num_hidden_layers", text.layers.len(), Measured::Layers("model.layers.")),
        ("/vocab_size", text.vocab_size, Measured::Side(TABLE, 0)),
        ("/hidden_size", text.hidden_size, Measured::Side(TABLE, 1)),
        ("/intermediate_size", text.layers[0].intermediate_size, Measured::Side(MLP, 0)),
        ("/num_attention_heads x head_dim", q * dim, Q),
        ("/num_key_value_heads x head_dim", kv * dim, K),
    ]
    .map(|(key, declared, of)| SizeCheck { key, declared, of })
    .to_vec()
}

/// `max_position_embeddings` of new models.
pub const NEW_LENGTH: usize = 4096;

/// Returns the keys of the text part in the `config.json` of a new model.
pub fn new(class: &str, model_type: &str, base: &BaseConfig, ids: NewIds) -> Value {
    json!({
        "architectures": [class],
        "attention_dropout": 0.0,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "hidden_act": "silu",
        "hidden_size": base.hidden_size,
        "initializer_range": base.initializer_range,
        "intermediate_size": base.intermediate_size,
        "max_position_embeddings": NEW_LENGTH,
        "model_type": model_type,
        "num_attention_heads": base.num_attention_heads,
        "num_hidden_layers": base.num_hidden_layers,
        "num_key_value_heads": base.num_key_value_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": base.rope_theta,
        "tie_word_embeddings": base.tie_word_embeddings,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": base.vocab_size,
    })
}
