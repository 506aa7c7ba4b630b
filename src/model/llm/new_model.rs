//! Small new models: a tokenizer trained on texts, and random weights in the shape of `base`.

use std::path::Path;

use serde_json::json;

use crate::nn::config::{Family, NewIds};
use crate::nn::family::{FAMILIES, qwen2_5_vl, qwen3_vl};
use crate::nn::{Model, ModelConfig};
use omr_base::config::{BaseConfig, DatasetConfig, RecipeConfig};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::identity::{Manifest, Writer};
use omr_data::image::MediaIds;
use omr_data::rows::{Row, read};
use omr_data::task::recipe;
use omr_data::text::{CHAT_TEMPLATE, SPECIAL_TOKENS, TEMPLATE_WORDS, Tokenizer, train_tokenizer, write_tokenizer_dir};
use omr_runtime::device::Device;
use omr_runtime::machine::Machine;
use omr_runtime::tensor::DType;

/// A model to create.
pub struct NewModel<'a> {
    /// Config with the shape (`base`), the storage type and the seed.
    pub config: &'a RecipeConfig,
    /// Texts for the tokenizer.
    pub corpus: Vec<String>,
    /// Texts whose words become single tokens.
    pub words: Vec<String>,
}

impl NewModel<'_> {
    /// Writes the model directory `dir` and returns the number of weights. Equal settings and texts give equal files.
    pub fn write(&self, dir: &Path, machine: &Machine) -> Result<usize> {
        let NewModel { config: RecipeConfig { base, dtype, seed, .. }, corpus, words } = self;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let tokenizer = train_tokenizer(corpus, &SPECIAL_TOKENS, &words, base.vocab_size)?;
        let config = model_config(family(base)?, base, &tokenizer)?;
        let (grid, template) = (config.grid(), chat_template(config.family));
        let mut count = Device::count_for(machine.target);
        let dtype = DType::of(*dtype, machine.target.kind);
        Model::empty(&mut count, config.clone(), dtype)?;
        let mut device = (machine.device)(&count.high_water())?;
        let model = Model::init(&mut device, config, dtype, *seed)?;
        files::folder(dir, |folder| {
            let written = model.save(&mut device, folder, dtype)?;
            write_tokenizer_dir(folder, &tokenizer, &template)?;
            let preprocessor = recipe::preprocessor_config(grid);
            files::write(folder.join("preprocessor_config.json"), format!("{preprocessor:#}\n").as_bytes())?;
            let generation = json!({
                "bos_token_id": tokenizer.id("<|endoftext|>"),
                "eos_token_id": [tokenizer.id("<|im_end|>"), tokenizer.id("<|endoftext|>")],
                "pad_token_id": tokenizer.id("<|endoftext|>"),
                "do_sample": true,
                "temperature": 1.0,
            });
            files::write(folder.join("generation_config.json"), format!("{generation:#}\n").as_bytes())?;
            Manifest::write_checked(folder, &Writer::alone(written))
        })?;
        Ok(model.layout.num_weights())
    }
}

/// Returns the family of a new model.
fn family(base: &BaseConfig) -> Result<&'static Family> {
    let Some(name) = &base.family else { return Ok(&qwen2_5_vl::FAMILY) };
    let families = || FAMILIES.iter().filter(|family| !family.prefixes.is_empty());
    let found = families().find(|family| family.model_types.contains(&name.as_str()));
    found.copied().ok_or_else(|| {
        let known: Vec<&str> = families().flat_map(|family| family.model_types).copied().collect();
        Error::input("base.family", name.clone(), format!("a family of models with images: {}", known.join(", ")))
    })
}

/// Returns the chat template of a new model: that of Qwen2.5-VL, or the same without the default system prompt, which
/// Qwen3-VL does not have.
pub fn chat_template(family: &'static Family) -> String {
    const SYSTEM: &str = "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}";
    if std::ptr::eq(family, &qwen3_vl::FAMILY) { CHAT_TEMPLATE.replace(SYSTEM, "") } else { CHAT_TEMPLATE.to_owned() }
}

/// Returns the configuration of a small model of `family`. The shape comes from `base`, the token ids from the tokenizer.
/// Errors if the tokenizer lacks a special token.
pub fn model_config(family: &'static Family, base: &BaseConfig, tokenizer: &Tokenizer) -> Result<ModelConfig> {
    let id = |token: &str| {
        let missing = || Error::input("tokenizer", format!("no {token}"), "the special tokens of Qwen2.5-VL");
        tokenizer.id(token).ok_or_else(missing)
    };
    let media = MediaIds {
        image: id("<|image_pad|>")?,
        video: id("<|video_pad|>")?,
        start: id("<|vision_start|>")?,
        end: id("<|vision_end|>")?,
        pad: id("<|vision_pad|>")?,
    };
    let ids = NewIds { bos: id("<|endoftext|>")?, eos: id("<|im_end|>")?, media };
    ModelConfig::new(family, base, ids, "base")
}

/// Writes a new model for the user's `rows` to `dir`: its tokenizer is trained on their texts. Returns a line about it
/// for the user. Errors if the config names a model, if `dir` exists, or if no row can be read.
pub fn init(config: &RecipeConfig, rows: &[DatasetConfig], dir: &Path, machine: &Machine) -> Result<String> {
    if let Some(model) = &config.base.model {
        let expected = "null: the new model gets the shape that the other keys of base describe";
        return Err(Error::input("base.model", model.display().to_string(), expected));
    }
    files::is_new(dir)?;
    let (mut corpus, mut count, mut bad) = (Vec::new(), 0, Vec::new());
    for entry in rows {
        read::for_each(entry, |row| {
            match row {
                Ok(row) => {
                    count += 1;
                    corpus.extend(texts(row));
                }
                Err(fault) => bad.push(fault.of_row()?),
            }
            Ok(())
        })?;
    }
    if count == 0 {
        let none = || Error::input("--rows", "no rows", "rows with texts for the tokenizer");
        return Err(bad.into_iter().next().map_or_else(none, Error::from));
    }
    let words = TEMPLATE_WORDS.map(str::to_owned).into();
    let weights = NewModel { config, corpus, words }.write(dir, machine)?;
    let unread = if bad.is_empty() { String::new() } else { format!("; {} rows could not be read", bad.len()) };
    Ok(format!("a model with {weights} random weights, and a tokenizer for the texts of {count} rows{unread}"))
}

/// Returns the texts of a row: its messages and its label.
fn texts(row: Row) -> impl Iterator<Item = String> {
    let parts = row.messages.into_iter().flat_map(|message| message.content);
    parts.filter_map(|part| part.text().map(str::to_owned)).chain(row.ground_truth)
}
