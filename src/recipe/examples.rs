//! Example questions of a recipe: held-out pictures as files, and the command that asks the trained model about one.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde_json::{Value, json};

use super::job::Recipe;
use crate::config::DatasetConfig;
use crate::data::form::IMAGE_MARKER;
use crate::data::{Row, read};
use crate::error::{Error, Result};
use crate::files;
use crate::image::{Limits, decode};
use crate::text::Part;

/// Maximum number of images in `DIR/examples`.
const EXAMPLES: usize = 4;
/// Number of rows of a data set that are searched for examples.
const SEARCHED: usize = 64;
/// File with the questions about the images, one JSON line each: `image`, `question`, `ground_truth`.
const QUESTIONS: &str = "questions.jsonl";

impl Recipe<'_> {
    /// Writes the images of the first held-out questions as PNG files, and their questions. Leaves out questions that
    /// are not one user message with one image.
    pub(super) fn write_examples(&self, heldout: &[DatasetConfig]) -> Result<()> {
        let dir = self.path("examples");
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let mut lines = Vec::new();
        for entry in heldout {
            let first = DatasetConfig { limit: Some(entry.limit.unwrap_or(SEARCHED).min(SEARCHED)), ..entry.clone() };
            read::for_each(&first, |row| {
                let Some((row, question)) = row.ok().and_then(|row| question(&row).map(|text| (row, text))) else {
                    return Ok(());
                };
                if lines.len() < EXAMPLES {
                    let name = format!("{}.png", lines.len());
                    let bytes = row.images[0].bytes(&row.place)?;
                    files::write(dir.join(&name), &as_png(&bytes, &row.place)?)?;
                    let line = json!({"image": name, "question": question, "ground_truth": row.ground_truth});
                    lines.push(format!("{line}\n"));
                }
                Ok(())
            })?;
        }
        files::write(dir.join(QUESTIONS), lines.concat().as_bytes())
    }

    /// Returns the arguments with which `omr` asks the trained model about the first example, quoted for a shell.
    /// Returns `None` if there is no example.
    pub fn example_command(&self) -> Option<String> {
        let dir = self.path("examples");
        let text = std::fs::read_to_string(dir.join(QUESTIONS)).ok()?;
        let line: Value = serde_json::from_str(text.lines().next()?).ok()?;
        let [model, picture] =
            [self.model("rl"), dir.join(line["image"].as_str()?)].map(|path| quoted(&path.display().to_string()));
        let question = quoted(line["question"].as_str()?);
        Some(format!("generate --model {model} --image {picture} --prompt {question} temperature=0"))
    }
}

/// Returns the text of a row's question with a marker in place of the image. Returns `None` if the row is not one user
/// message with one image.
fn question(row: &Row) -> Option<String> {
    let [message] = &row.messages[..] else { return None };
    let pictures = message.content.iter().filter(|part| matches!(part, Part::Image)).count();
    let is_video = message.content.iter().any(|part| matches!(part, Part::Video { .. }));
    if message.role != "user" || pictures != 1 || row.images.len() != 1 || is_video {
        return None;
    }
    let texts = message.content.iter().map(|part| part.text().unwrap_or(IMAGE_MARKER));
    Some(texts.collect::<String>())
}

/// Returns the image as PNG. PNG bytes are returned unchanged.
fn as_png(bytes: &[u8], place: &str) -> Result<Vec<u8>> {
    if bytes.starts_with(b"\x89PNG") {
        return Ok(bytes.to_vec());
    }
    let rgb = decode(bytes, &Limits::default(), place)?;
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&rgb.data, rgb.width, rgb.height, ExtendedColorType::Rgb8)
        .map_err(|e| Error::Failed(format!("{place}: the picture cannot be written as PNG: {e}")))?;
    Ok(png)
}

/// Quotes a word for a POSIX shell if it needs quotes.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
