//! Reads questions from the command line or a JSONL file and converts them to prompts.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use crate::engine::Prompt;
use crate::nn::{ModelConfig, family};
use omr_base::config::{DatasetConfig, GenerateConfig};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::image::Processor;
use omr_data::rows;
use omr_data::rows::files::folder::Folder;
use omr_data::rows::forms::fields::{RawImage, RowContext};
use omr_data::rows::read::row_from;
use omr_data::rows::readers::json::jsonl;
use omr_data::text::{Chat, Message};

/// A line of the questions file, unchanged.
pub type Line = Map<String, Value>;

/// Converts questions to prompts for one model.
pub struct Reader {
    /// Settings of the model.
    pub config: ModelConfig,
    /// Its tokenizer and chat template.
    pub chat: Chat,
    processor: Option<Processor>,
    system_prompt: Option<String>,
}

impl Reader {
    /// Reads the configuration, tokenizer and image processor of the model in `dir`.
    pub fn open(dir: &Path, config: &GenerateConfig) -> Result<Reader> {
        if !dir.is_dir() {
            return Err(family::not_a_directory("--model", dir));
        }
        let model = ModelConfig::load(&dir.join("config.json"))?.quantized(config.quantization.as_ref())?;
        let chat = model.chat();
        let processor = Processor::of_model(dir, chat.media, &config.images)?;
        let chat = Chat::load(dir, &chat)?.with_variables(&config.chat_template_kwargs.variables())?;
        Ok(Reader { config: model, chat, processor, system_prompt: config.system_prompt.clone() })
    }

    /// Returns the prompt of one question about image files.
    pub fn question(&self, text: &str, images: &[PathBuf]) -> Result<Prompt> {
        let read = |path: &PathBuf| {
            let bytes = files::read(path).map_err(Error::io(path))?;
            Ok(RawImage { bytes: Some(bytes.into()), path: Some(path.display().to_string()), ..RawImage::default() })
        };
        let images = images.iter().map(read).collect::<Result<Vec<_>>>()?;
        let fields = Map::from_iter([("prompt".to_owned(), json!(text))]);
        let folder = Folder::open(".")?;
        self.prompt(fields, Some(images), &at(&folder, "--prompt"))
    }

    /// Reads all lines of a file and returns them both unchanged and as prompts; a line that `omr generate` has skipped
    /// has none. Images are files in the folder of `file`, or `data:` URLs.
    pub fn lines(&self, file: &Path) -> Result<Vec<(Line, Option<Arc<Prompt>>)>> {
        let folder = Folder::open(files::parent(file))?;
        let mut lines: Vec<(Line, Option<Arc<Prompt>>)> = Vec::new();
        jsonl(file, usize::MAX, |at, fields| {
            let fields = fields?;
            let place = format!("{} line {}", file.display(), at.number);
            let has_response = fields.get("response").is_some_and(|response| !response.is_null());
            let is_skipped = fields.get("error").is_some_and(Value::is_object) && !has_response;
            let prompt = if is_skipped { None } else { Some(Arc::new(self.line(&folder, fields.clone(), &place)?)) };
            lines.push((fields, prompt));
            Ok(())
        })?;
        if lines.iter().all(|(_, prompt)| prompt.is_none()) {
            let found = if lines.is_empty() { "no questions" } else { "only lines that were skipped" };
            return Err(Error::input(file, found, "one line per question"));
        }
        Ok(lines)
    }

    /// Converts a line to a prompt. Images are files in `folder` or `data:` URLs. `place` names the line in errors.
    pub fn line(&self, folder: &Folder, fields: Line, place: &str) -> Result<Prompt> {
        self.prompt(fields, None, &at(folder, place))
    }

    /// Converts the line at `at` to a prompt. `images` replaces the images that the line names.
    fn prompt(&self, mut fields: Line, images: Option<Vec<RawImage>>, at: &RowContext) -> Result<Prompt> {
        let mut system = None;
        // A plain text is treated as the `problem` of a row: images without a marker in the text come first.
        if let Some(Value::String(text)) = fields.get("prompt").cloned() {
            fields.remove("prompt");
            fields.insert("problem".to_owned(), json!(text));
            system = self.system_prompt.as_deref();
        }
        let mut row = row_from(fields, images, at)?;
        if let Some(text) = system {
            row.messages.insert(0, Message::text("system", text));
        }
        let prompt = rows::prompt(&row, &self.chat, self.processor.as_ref())?;
        let prompt = Prompt::new(&self.config, &prompt.ids, &prompt.images).map_err(|e| e.within(&at.place))?;
        Ok(prompt.named(&at.place))
    }
}

fn at<'a>(folder: &'a Folder, place: &str) -> RowContext<'a> {
    static ENTRY: LazyLock<DatasetConfig> = LazyLock::new(DatasetConfig::default);
    RowContext { folder, entry: &ENTRY, dataset: "generate", file: "generate", index: 0, place: place.to_owned() }
}
