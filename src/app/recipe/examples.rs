//! Example questions of a recipe: held-out images as files, and the command that asks the trained model about one.

use serde_json::{Value, json};

use super::job::Recipe;
use omr_base::config::DatasetConfig;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::image::{Limits, decode, png};
use omr_data::rows::forms::form::IMAGE_MARKER;
use omr_data::rows::{Row, read};
use omr_data::text::Part;

/// Maximum number of images in `DIR/examples`.
const EXAMPLES: usize = 4;
/// Number of rows of a data set that are searched for examples.
const SEARCHED: usize = 64;
/// File with the questions about the images, one JSON line each: `image`, `question`, `ground_truth`.
const QUESTIONS: &str = "questions.jsonl";

impl Recipe<'_> {
    /// Writes the images of the first held-out questions as PNG files, and their questions. Leaves out questions that
    /// are not one user message with one image that can be read.
    pub(super) fn write_examples(&self, heldout: &[DatasetConfig]) -> Result<()> {
        let dir = self.path("examples");
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let mut lines = Vec::new();
        for entry in heldout {
            let first = DatasetConfig { limit: Some(entry.limit.unwrap_or(SEARCHED).min(SEARCHED)), ..entry.clone() };
            read::for_each(&first, |row| {
                if lines.len() == EXAMPLES {
                    return Ok(());
                }
                if let Some(Example { question, png, ground_truth }) = row.ok().and_then(example) {
                    let name = format!("{}.png", lines.len());
                    files::write(dir.join(&name), &png)?;
                    let line = json!({"image": name, "question": question, "ground_truth": ground_truth});
                    lines.push(format!("{line}\n"));
                }
                Ok(())
            })?;
        }
        files::write(dir.join(QUESTIONS), lines.concat().as_bytes())
    }

    /// Returns the arguments with which `omr` asks the trained model about the first example. Returns `None` if there
    /// is no example.
    pub fn example_command(&self) -> Option<Vec<String>> {
        let dir = self.path("examples");
        let text = std::fs::read_to_string(dir.join(QUESTIONS)).ok()?;
        let line: Value = serde_json::from_str(text.lines().next()?).ok()?;
        let [model, image] =
            [self.model("rl"), dir.join(line["image"].as_str()?)].map(|path| path.display().to_string());
        let question = line["question"].as_str()?;
        let words = ["generate", "--model", &model, "--image", &image, "--prompt", question, "temperature=0"];
        Some(words.map(str::to_owned).to_vec())
    }

    /// Returns the arguments with which `omr` serves the trained model.
    pub fn serve_command(&self) -> Vec<String> {
        let model = self.model("rl").display().to_string();
        ["serve", &model, "--reasoning-parser", "qwen3"].map(str::to_owned).to_vec()
    }
}

/// A question with its image.
struct Example {
    /// The text, with a marker in place of the image.
    question: String,
    /// The image as PNG.
    png: Vec<u8>,
    /// The label, if the row has one.
    ground_truth: Option<String>,
}

/// Makes an example of a row. Returns `None` if the row is not one user message with one image that can be read.
fn example(row: Row) -> Option<Example> {
    let [message] = &row.messages[..] else { return None };
    let images = message.content.iter().filter(|part| matches!(part, Part::Image)).count();
    let is_video = message.content.iter().any(|part| matches!(part, Part::Video { .. }));
    if message.role != "user" || images != 1 || row.images.len() != 1 || is_video {
        return None;
    }
    let bytes = row.images[0].bytes(&row.place).ok()?;
    // PNG bytes are kept unchanged.
    let png = match bytes.starts_with(b"\x89PNG") {
        true => bytes.to_vec(),
        false => png(&decode(&bytes, &Limits::default(), &row.place).ok()?).ok()?,
    };
    let question = message.content.iter().map(|part| part.text().unwrap_or(IMAGE_MARKER)).collect();
    Some(Example { question, png, ground_truth: row.ground_truth })
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_data::rows::ImageSource;
    use omr_data::text::Message;

    #[test]
    fn a_held_out_image_that_cannot_be_read_is_no_example_and_no_error() {
        let row = |image| Row {
            messages: vec![Message {
                role: "user".to_owned(),
                content: vec![Part::Image, Part::Text("How many?".to_owned())],
                masked: false,
            }],
            images: vec![image],
            ..Row::default()
        };
        let missing = ImageSource::File { url: "0.jpg".to_owned(), file: "missing/0.jpg".into() };
        let broken = ImageSource::Bytes { bytes: (*b"no image").into(), path: None };
        assert!(example(row(missing)).is_none() && example(row(broken)).is_none());
        let rgb = omr_data::image::Rgb { width: 2, height: 1, data: vec![9; 6] };
        let readable = ImageSource::Bytes { bytes: png(&rgb).unwrap().into(), path: None };
        let found = example(row(readable)).unwrap();
        assert_eq!((found.question.as_str(), found.png), ("<image>How many?", png(&rgb).unwrap()));
    }
}
