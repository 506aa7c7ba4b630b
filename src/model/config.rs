//! Reads and writes `config.json` of Qwen2.5-VL. Reads both the flat layout of the released checkpoints and the nested
//! layout of newer transformers versions, and writes the flat one. Errors name the file and the JSON pointer.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::base_model;
use crate::error::{Error, Result};
use crate::files;
use crate::model::weights::{Measured, WeightFiles};
use crate::tensor::DType;

/// Class name of the models of this family.
const CLASS: &str = "Qwen2_5_VLForConditionalGeneration";

/// Upper limits for the number of layers in a stack and for all other sizes. Both are far above any model of the
/// family, and low enough that no product of sizes overflows.
const MOST_LAYERS: usize = 1 << 10;
const LARGEST: usize = 1 << 24;

/// Base of the vision tower's rotary frequencies. The released layout has no key for it.
pub const VISION_ROPE_THETA: f64 = 1e4;

/// The configuration of the model. Field names are those of the Hugging Face file.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    /// Number of rows of the token table, V.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// Width of the MLP, F.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// Epsilon of the decoder's norms.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Number of rotary frequencies for time, for height and for width.
    pub mrope_section: [usize; 3],
    /// Maximum sequence length for which the model was made.
    pub max_position_embeddings: usize,
    /// True if the output matrix is the token table.
    pub tie_word_embeddings: bool,
    /// Standard deviation of newly initialised matrices.
    pub initializer_range: f64,
    /// Begin-of-sequence id, if any.
    pub bos_token_id: Option<u32>,
    /// End-of-sequence id, if any.
    pub eos_token_id: Option<u32>,
    /// Id of the placeholder for a picture's rows.
    pub image_token_id: u32,
    /// Id of the placeholder for a video's rows.
    pub video_token_id: u32,
    /// Id of the token before a picture or video.
    pub vision_start_token_id: u32,
    /// Id of the token after a picture or video.
    pub vision_end_token_id: u32,
    /// Id of `<|vision_pad|>`.
    pub vision_token_id: u32,
    /// Configuration of the vision tower.
    pub vision_config: VisionConfig,
}

/// The vision tower's part of the file.
#[derive(Clone, PartialEq, Debug)]
pub struct VisionConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width, C.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of heads.
    pub num_heads: usize,
    /// Width of the merger's output, which is the decoder's hidden size.
    pub out_hidden_size: usize,
    /// Width and height of a patch in pixels.
    pub patch_size: usize,
    /// Number of frames in a patch.
    pub temporal_patch_size: usize,
    /// Number of patches per side that are merged into one decoder token.
    pub spatial_merge_size: usize,
    /// Width and height of an attention window in pixels.
    pub window_size: usize,
    /// Indices of the blocks that attend to a whole frame.
    pub fullatt_block_indexes: Vec<usize>,
    /// Position steps per second of video.
    pub tokens_per_second: usize,
}

impl ModelConfig {
    /// Reads `path` (a `config.json`). If the directory also contains the weights, errors on sizes that differ from the
    /// weights, so that no memory is allocated for wrong sizes.
    pub fn load(path: &Path) -> Result<ModelConfig> {
        let (dir, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let dir = &base_model::holder(dir, &name.to_string_lossy())?;
        let path = &dir.join(name);
        let text = files::read_to_string(path).map_err(Error::io(path))?;
        let value = serde_json::from_str(&text).map_err(|e| Error::format(path, format!("not JSON: {e}")))?;
        let config = ModelConfig::from_json(&value, &path.display().to_string())?;
        config.hold(dir)?;
        Ok(config)
    }

    /// Errors if sizes differ from those of the weights in `dir`.
    fn hold(&self, dir: &Path) -> Result<()> {
        let vision = &self.vision_config;
        let (table, mlp) = ("model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight");
        let block = "visual.blocks.0.mlp.gate_proj.weight";
        let sizes = [
            ("/num_hidden_layers", self.num_hidden_layers, Measured::Layers("model.layers.")),
            ("/vocab_size", self.vocab_size, Measured::Side(table, 0)),
            ("/hidden_size", self.hidden_size, Measured::Side(table, 1)),
            ("/intermediate_size", self.intermediate_size, Measured::Side(mlp, 0)),
            ("/vision_config/depth", vision.depth, Measured::Layers("visual.blocks.")),
            ("/vision_config/hidden_size", vision.hidden_size, Measured::Side(block, 1)),
            ("/vision_config/intermediate_size", vision.intermediate_size, Measured::Side(block, 0)),
        ];
        WeightFiles::hold(dir, &sizes)
    }

    /// Reads a parsed file. `place` names the file in errors.
    pub fn from_json(value: &Value, place: &str) -> Result<ModelConfig> {
        let root = Node::root(value, place)?;
        root.one_of("model_type", &["qwen2_5_vl"], None)?;
        if let Some(class) = root.get("architectures").and_then(|all| all.get(0)).filter(|&class| class != CLASS) {
            let expected = format!("{CLASS}: other model families are not supported");
            return Err(Error::input(root.at("architectures"), class.to_string(), expected));
        }
        if let Some(key) = root.child("auto_map")?.and_then(|map| map.map.keys().find(|key| !key.contains("Process"))) {
            let found = format!("custom model code for {key}");
            let expected = "no custom code: omr never runs code from a model directory, and the model needs it";
            return Err(Error::input(root.at("auto_map"), found, expected));
        }
        if root.child("quantization_config")?.is_some() {
            let expected = "weights in f32, bf16 or f16: quantised weights are not supported";
            return Err(Error::input(root.at("quantization_config"), "quantised weights", expected));
        }
        let text = root.child("text_config")?.unwrap_or_else(|| root.clone());
        let vision = root.child("vision_config")?.ok_or_else(|| {
            Error::input(root.at("vision_config"), "nothing", "an object with the vision tower's settings")
        })?;
        text.one_of("hidden_act", &["silu"], Some("silu"))?;
        if text.bool("use_sliding_window", false)? {
            return Err(Error::input(
                text.at("use_sliding_window"),
                "true",
                "false: sliding windows are not supported",
            ));
        }
        let rope = match text.child("rope_parameters")? {
            Some(rope) => rope,
            None => text
                .child("rope_scaling")?
                .ok_or_else(|| Error::input(text.at("rope_scaling"), "nothing", "an object with mrope_section"))?,
        };
        rope.one_of("rope_type", &["default", "mrope"], Some("default"))?;
        rope.one_of("type", &["mrope", "default"], Some("mrope"))?;
        let rope_theta = if rope.has("rope_theta") { &rope } else { &text };
        let mrope_section: [usize; 3] = rope.list("mrope_section", None)?.try_into().map_err(|v: Vec<usize>| {
            Error::input(rope.at("mrope_section"), format!("{} numbers", v.len()), "three numbers: time, height, width")
        })?;
        let tied = if root.has("tie_word_embeddings") { &root } else { &text };
        let config = ModelConfig {
            vocab_size: text.usize("vocab_size", None)?,
            hidden_size: text.usize("hidden_size", None)?,
            intermediate_size: text.usize("intermediate_size", None)?,
            num_hidden_layers: text.usize("num_hidden_layers", None)?,
            num_attention_heads: text.usize("num_attention_heads", None)?,
            num_key_value_heads: text.usize("num_key_value_heads", None)?,
            rms_norm_eps: text.f64("rms_norm_eps", 1e-5)? as f32,
            rope_theta: rope_theta.f64("rope_theta", 1e6)?,
            mrope_section,
            max_position_embeddings: text.usize("max_position_embeddings", Some(32_768))?,
            tie_word_embeddings: tied.bool("tie_word_embeddings", false)?,
            initializer_range: text.f64("initializer_range", 0.02)?,
            bos_token_id: text.id("bos_token_id").or_else(|| root.id("bos_token_id")),
            eos_token_id: text.id("eos_token_id").or_else(|| root.id("eos_token_id")),
            image_token_id: root.usize("image_token_id", Some(151_655))? as u32,
            video_token_id: root.usize("video_token_id", Some(151_656))? as u32,
            vision_start_token_id: root.usize("vision_start_token_id", Some(151_652))? as u32,
            vision_end_token_id: root.usize("vision_end_token_id", Some(151_653))? as u32,
            vision_token_id: root.usize("vision_token_id", Some(151_654))? as u32,
            vision_config: VisionConfig::read(&vision)?,
        };
        config.check(&root, &text, &rope, &vision)?;
        Ok(config)
    }

    fn check(&self, root: &Node<'_>, text: &Node<'_>, rope: &Node<'_>, vision: &Node<'_>) -> Result<()> {
        let heads = self.num_attention_heads;
        text.require("num_attention_heads", heads, self.hidden_size.is_multiple_of(heads), "a divisor of hidden_size")?;
        text.require("num_attention_heads", heads, self.head_dim().is_multiple_of(2), "an even hidden_size / heads")?;
        let kv = self.num_key_value_heads;
        text.require("num_key_value_heads", kv, heads.is_multiple_of(kv), "a divisor of num_attention_heads")?;
        let half = self.head_dim() / 2;
        let sum: usize = self.mrope_section.iter().sum();
        rope.require("mrope_section", sum, sum == half, &format!("a sum of {half}, half of the head dimension"))?;
        for (key, id) in [
            ("image_token_id", self.image_token_id),
            ("video_token_id", self.video_token_id),
            ("vision_start_token_id", self.vision_start_token_id),
            ("vision_end_token_id", self.vision_end_token_id),
        ] {
            let inside = (id as usize) < self.vocab_size;
            root.require(key, id as usize, inside, &format!("an id below vocab_size {}", self.vocab_size))?;
        }
        let v = &self.vision_config;
        let wants = format!("the decoder's hidden_size {}", self.hidden_size);
        vision.require("out_hidden_size", v.out_hidden_size, v.out_hidden_size == self.hidden_size, &wants)?;
        vision.require(
            "num_heads",
            v.num_heads,
            v.hidden_size.is_multiple_of(v.num_heads),
            "a divisor of hidden_size",
        )?;
        let by_four = v.head_dim().is_multiple_of(4);
        vision.require("num_heads", v.num_heads, by_four, "a head dimension that is a multiple of 4")?;
        let unit = v.patch_size * v.spatial_merge_size;
        let whole = v.window_size.is_multiple_of(unit);
        vision.require(
            "window_size",
            v.window_size,
            whole,
            &format!("a multiple of {unit}, the side of a merged patch in pixels"),
        )?;
        if let Some(&block) = v.fullatt_block_indexes.iter().find(|&&b| b >= v.depth) {
            vision.require("fullatt_block_indexes", block, false, &format!("blocks below depth {}", v.depth))?;
        }
        Ok(())
    }

    /// Returns the width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Returns the file in the released layout. `dtype` is the type of the stored weights.
    pub fn to_json(&self, dtype: DType) -> Value {
        let mut file = json!({
            "architectures": [CLASS],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "vision_start_token_id": self.vision_start_token_id,
            "vision_end_token_id": self.vision_end_token_id,
            "vision_token_id": self.vision_token_id,
            "image_token_id": self.image_token_id,
            "video_token_id": self.video_token_id,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "max_window_layers": self.num_hidden_layers,
            "model_type": "qwen2_5_vl",
            "num_attention_heads": self.num_attention_heads,
        });
        let rest = json!({
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": shortest(self.rms_norm_eps),
            "rope_theta": self.rope_theta,
            "sliding_window": self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": if dtype == DType::Bf16 { "bfloat16" } else { "float32" },
            "use_cache": true,
            "use_sliding_window": false,
            "vision_config": self.vision_config.to_json(),
            "rope_scaling": { "type": "mrope", "mrope_section": self.mrope_section },
            "vocab_size": self.vocab_size,
        });
        if let (Value::Object(file), Value::Object(rest)) = (&mut file, rest) {
            file.extend(rest);
        }
        file
    }
}

impl VisionConfig {
    // Missing keys have the defaults of the Hugging Face class, because its save function omits keys that equal the
    // default.
    fn read(node: &Node<'_>) -> Result<VisionConfig> {
        node.one_of("hidden_act", &["silu"], Some("silu"))?;
        let channels = if node.has("in_chans") { "in_chans" } else { "in_channels" };
        let found = node.usize(channels, Some(3))?;
        node.require(channels, found, found == 3, "3: red, green, blue")?;
        let frames = node.usize("temporal_patch_size", Some(2))?;
        node.require("temporal_patch_size", frames, frames == 2, "2")?;
        let patch_size = node.usize("patch_size", Some(14))?;
        node.require("patch_size", patch_size, patch_size == 14, "14")?;
        if let Some(rope) = node.child("rope_parameters")? {
            let theta = rope.f64("rope_theta", VISION_ROPE_THETA)?;
            rope.require("rope_theta", theta as usize, theta == VISION_ROPE_THETA, "10000")?;
        }
        Ok(VisionConfig {
            depth: node.usize("depth", Some(32))?,
            hidden_size: node.usize("hidden_size", None)?,
            intermediate_size: node.usize("intermediate_size", Some(3420))?,
            num_heads: node.usize("num_heads", Some(16))?,
            out_hidden_size: node.usize("out_hidden_size", Some(3584))?,
            patch_size,
            temporal_patch_size: frames,
            spatial_merge_size: node.usize("spatial_merge_size", Some(2))?,
            window_size: node.usize("window_size", Some(112))?,
            fullatt_block_indexes: node.list("fullatt_block_indexes", Some(&[7, 15, 23, 31]))?,
            tokens_per_second: node.usize("tokens_per_second", Some(4))?,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "depth": self.depth,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "model_type": "qwen2_5_vl",
            "num_heads": self.num_heads,
            "in_chans": 3,
            "out_hidden_size": self.out_hidden_size,
            "patch_size": self.patch_size,
            "spatial_merge_size": self.spatial_merge_size,
            "spatial_patch_size": self.patch_size,
            "window_size": self.window_size,
            "fullatt_block_indexes": self.fullatt_block_indexes,
            "tokens_per_second": self.tokens_per_second,
            "temporal_patch_size": self.temporal_patch_size,
        })
    }

    /// Returns the width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Returns the number of patches that are merged into one decoder token.
    pub fn merge_unit(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }

    /// Returns the number of values of one patch: 3 channels x frames x height x width.
    pub fn patch_len(&self) -> usize {
        3 * self.temporal_patch_size * self.patch_size * self.patch_size
    }
}

/// Returns the f64 that prints like the f32: 1e-6, not 9.999999974752427e-7.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// An object of the file with its JSON pointer.
#[derive(Clone)]
struct Node<'a> {
    place: String,
    map: &'a Map<String, Value>,
}

impl<'a> Node<'a> {
    fn root(value: &'a Value, place: &str) -> Result<Node<'a>> {
        let map = value.as_object().ok_or_else(|| Error::input(place, kind(value), "an object"))?;
        Ok(Node { place: format!("{place} "), map })
    }

    fn at(&self, key: &str) -> String {
        format!("{}/{key}", self.place)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn child(&self, key: &str) -> Result<Option<Node<'a>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| Error::input(self.at(key), kind(value), "an object"))?;
        Ok(Some(Node { place: self.at(key), map }))
    }

    /// Reads a positive count or an id.
    fn usize(&self, key: &str, default: Option<usize>) -> Result<usize> {
        let Some(value) = self.get(key) else {
            return default.ok_or_else(|| Error::input(self.at(key), "nothing", "a number"));
        };
        let most = if matches!(key, "num_hidden_layers" | "depth") { MOST_LAYERS } else { LARGEST };
        let sane = value.as_u64().filter(|&n| n <= most as u64);
        match sane {
            Some(n) if n > 0 || key.ends_with("_id") => Ok(n as usize),
            _ => Err(Error::input(self.at(key), value.to_string(), format!("a whole number from 1 to {most}"))),
        }
    }

    fn id(&self, key: &str) -> Option<u32> {
        // `eos_token_id` may be a list. Its first id ends a turn.
        let value = self.get(key)?;
        value.as_u64().or_else(|| value.get(0)?.as_u64()).and_then(|n| u32::try_from(n).ok())
    }

    fn f64(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let sane = value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        sane.ok_or_else(|| Error::input(self.at(key), value.to_string(), "a positive number"))
    }

    fn bool(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| Error::input(self.at(key), value.to_string(), "true or false"))
    }

    fn list(&self, key: &str, default: Option<&[usize]>) -> Result<Vec<usize>> {
        let wrong = |found: String| Error::input(self.at(key), found, "a list of whole numbers");
        let Some(value) = self.get(key) else {
            return default.map(<[usize]>::to_vec).ok_or_else(|| wrong("nothing".into()));
        };
        let all = value.as_array().map(|a| a.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>());
        let all = all.flatten().ok_or_else(|| wrong(value.to_string()))?;
        Ok(all.into_iter().map(|n| n as usize).collect())
    }

    fn one_of(&self, key: &str, valid: &[&str], default: Option<&str>) -> Result<()> {
        let found = self.get(key).map_or(default.map(|d| json!(d)), |v| Some(v.clone()));
        match found {
            Some(Value::String(s)) if valid.contains(&s.as_str()) => Ok(()),
            Some(other) => Err(Error::input(self.at(key), other.to_string(), valid.join(" or "))),
            None => Err(Error::input(self.at(key), "nothing", valid.join(" or "))),
        }
    }

    fn require(&self, key: &str, found: usize, holds: bool, expected: &str) -> Result<()> {
        if holds { Ok(()) } else { Err(Error::input(self.at(key), found.to_string(), expected)) }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny::tiny;

    #[test]
    fn written_and_read_again_is_the_same() {
        let config = ModelConfig::from_json(&tiny(), "config.json").unwrap();
        let again = ModelConfig::from_json(&config.to_json(DType::F32), "config.json").unwrap();
        assert_eq!(config, again);
    }

    #[test]
    fn faults_name_the_pointer() {
        let faults: [(&str, Value, &str); 12] = [
            ("/num_hidden_layers", json!(1_000_000_000), "/num_hidden_layers"),
            ("/architectures", json!(["LlavaForConditionalGeneration"]), "/architectures"),
            ("/auto_map", json!({"AutoModel": "modeling_x.X"}), "/auto_map"),
            ("/hidden_size", json!(25), "/num_attention_heads"),
            ("/hidden_size", json!("24"), "/hidden_size"),
            ("/vocab_size", json!(50), "/image_token_id"),
            ("/vision_config", json!(3), "/vision_config"),
            ("/vision_config/window_size", json!(60), "/vision_config/window_size"),
            ("/vision_config/fullatt_block_indexes", json!([7]), "/vision_config/fullatt_block_indexes"),
            ("/vision_config/out_hidden_size", json!(12), "/vision_config/out_hidden_size"),
            ("/rope_scaling/type", json!("yarn"), "/rope_scaling/type"),
            ("/rope_scaling/mrope_section", json!([2, 2]), "/rope_scaling/mrope_section"),
        ];
        for (pointer, value, names) in faults {
            let mut file = tiny();
            *file.pointer_mut(pointer).unwrap() = value;
            let error = ModelConfig::from_json(&file, "m/config.json").unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("m/config.json {names}:")), "{pointer}: {text}");
            assert_eq!(error.exit_code(), 2);
        }
        let mut file = tiny();
        file["quantization_config"] = json!({"quant_method": "awq", "bits": 4});
        let text = ModelConfig::from_json(&file, "m/config.json").unwrap_err().to_string();
        assert!(text.starts_with("m/config.json /quantization_config:") && text.contains("not supported"), "{text}");
        let mut file = tiny();
        file.as_object_mut().unwrap().remove("num_hidden_layers");
        let text = ModelConfig::from_json(&file, "m/config.json").unwrap_err().to_string();
        assert_eq!(text, "m/config.json /num_hidden_layers: found nothing, expected a number");
    }
}
