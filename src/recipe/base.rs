//! Creates the model that a recipe starts from.

use std::path::Path;

use serde_json::json;

use super::job::Recipe;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files;
use crate::identity::{CurrentInputs, Manifest};
use crate::model::{Model, ModelConfig};
use crate::tensor::DType;
use crate::text::{CHAT_TEMPLATE, SPECIAL_TOKENS, train_tokenizer, write_tokenizer_dir};

impl Recipe<'_> {
    /// Creates the base model: a copy of the configured one, or a new tokenizer and configuration with random weights.
    pub(super) fn base(&self) -> Result<()> {
        let dir = self.model("base");
        if dir.exists() {
            return Ok(());
        }
        let base = &self.config.base;
        if let Some(model) = &base.model {
            let mut found = CurrentInputs::default();
            found.add_model(model, false)?;
            self.compare(&found, None)?;
            return files::folder(&dir, |folder| copy_files(model, folder).and_then(|()| Manifest::write(folder)));
        }
        let corpus = (self.task.corpus)();
        let words = (self.task.words)();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let tokenizer = train_tokenizer(&corpus, &SPECIAL_TOKENS, &words, base.vocab_size)?;
        let config = (self.task.model_config)(base, &tokenizer)?;
        let config = ModelConfig::from_json(&config, "base")?;
        let mut count = Device::count_for(self.machine.target);
        let dtype = DType::of(self.config.dtype, self.machine.target.kind);
        Model::empty(&mut count, config.clone(), dtype)?;
        let mut device = (self.machine.device)(&count.high_water())?;
        let model = Model::init(&mut device, config, dtype, self.config.seed)?;
        files::folder(&dir, |folder| {
            model.save(&mut device, folder, dtype)?;
            write_tokenizer_dir(folder, &tokenizer, CHAT_TEMPLATE)?;
            let preprocessor = (self.task.preprocessor_config)();
            files::write(folder.join("preprocessor_config.json"), format!("{preprocessor:#}\n").as_bytes())?;
            let generation = json!({
                "bos_token_id": tokenizer.id("<|endoftext|>"),
                "eos_token_id": [tokenizer.id("<|im_end|>"), tokenizer.id("<|endoftext|>")],
                "pad_token_id": tokenizer.id("<|endoftext|>"),
                "do_sample": true,
                "temperature": 1.0,
            });
            files::write(folder.join("generation_config.json"), format!("{generation:#}\n").as_bytes())?;
            Manifest::write(folder)
        })
    }
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).map_err(Error::io(from))? {
        let path = entry.map_err(Error::io(from))?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            std::fs::copy(&path, to.join(name)).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}
