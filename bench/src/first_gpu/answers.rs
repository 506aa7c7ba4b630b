//! Ten questions, five of them with an image, to compare greedy answers with those of transformers.

use std::path::Path;

use serde_json::json;

use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::image::{self, Rgb};

/// Program that answers the same questions with transformers, compares the answers and prints the outcome. Its arguments
/// are the model and a dtype of PyTorch.
pub const PROGRAM: &str = include_str!("answers.py");

/// Questions. Each is asked without and with an image.
const QUESTIONS: [&str; 5] = [
    "Which is larger, 3/4 or 5/8?",
    "Continue: 2, 4, 8, 16,",
    "Which colours do you see?",
    "Is there a red square in the picture?",
    "Describe the picture in one sentence.",
];

/// Writes ten questions and their images, squares of 28 x 28 pixels in three colours, to `folder`.
pub fn write(folder: &Path) -> Result<()> {
    let mut lines = String::new();
    for (i, question) in QUESTIONS.iter().enumerate() {
        let (width, file) = (28 * (i + 3), format!("{i}.png"));
        let square = |pixel: usize| pixel % width / 28 * (i + 1) + pixel / width / 28;
        let colour = |pixel| [[200, 30, 30], [30, 110, 200], [240, 200, 40]][square(pixel) % 3];
        let image = Rgb { width: width as u32, height: 112, data: (0..width * 112).flat_map(colour).collect() };
        let png = image::png(&image).map_err(|error| Error::Failed(format!("an image: {error}")))?;
        files::write(folder.join(&file), &png)?;
        let [plain, seen] = [json!({"prompt": question}), json!({"prompt": question, "images": [file]})];
        lines += &format!("{plain}\n{seen}\n");
    }
    files::write(folder.join("questions.jsonl"), lines.as_bytes())
}
