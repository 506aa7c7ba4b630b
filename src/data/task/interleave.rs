//! Prompts of MMMU's questions: images marked in the text as `<image 1>` to `<image 7>`, and options given as a Python
//! list.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::{Crash, Doc, Prompt, PublishedResult, Stage, letter};
use crate::rows::ImageSource;
use crate::text::Part;
use crate::text::literal::{Literal, eval};
use omr_base::config::Mode;
use omr_verify::python;

/// The image columns.
pub const PICTURES: &[&str] = &["image_1", "image_2", "image_3", "image_4", "image_5", "image_6", "image_7"];

/// Text that replaces an image mark in the published tasks.
const MARK: &str = "<image>";

/// Returns the options of a row, one lettered line each.
pub fn options(doc: &Doc) -> PublishedResult<String> {
    let found = doc.written("options");
    let refuse = |class| Crash::new(Stage::Messages, class, format!("options {found}"), "a list as Python writes it");
    let Value::String(text) = doc.value("options") else { return Err(refuse("ValueError")) };
    let options: Vec<String> = match eval(text) {
        Ok(Literal::Many(options, _)) => options.iter().map(Literal::str).collect(),
        Ok(Literal::Text(text)) => text.chars().map(String::from).collect(),
        Ok(_) => return Err(refuse("TypeError")),
        Err(class) => return Err(refuse(class)),
    };
    let line = |(i, option): (usize, String)| format!("{}. {option}", letter(i));
    Ok(options.into_iter().enumerate().map(line).collect::<Vec<_>>().join("\n"))
}

/// Makes the prompt of a question with its images. The judge receives the text with plain image marks.
pub fn prompt(doc: &Doc, text: &str, mode: Mode) -> PublishedResult<Prompt> {
    let marked = (1..=PICTURES.len()).fold(text.to_owned(), |text, i| text.replace(&format!("<image {i}>"), MARK));
    let prompt = match mode {
        Mode::Compat => published(&marked, distinct(doc, text)?),
        Mode::Strict => in_place(doc, text)?,
    };
    Ok(Prompt { question: Some(marked), ..prompt })
}

/// Returns the marked images, each once, in the order of their column names.
fn distinct(doc: &Doc, text: &str) -> PublishedResult<Vec<ImageSource>> {
    static ANY: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"<image (\p{Nd}+)>").expect("a fixed pattern"));
    let names: BTreeSet<String> = ANY.captures_iter(text).map(|found| format!("image_{}", &found[1])).collect();
    let image = |name: &String| match PICTURES.contains(&name.as_str()) {
        true => doc.image(name),
        false => Err(Crash::new(Stage::Messages, "KeyError", format!("a mark of `{name}`"), "image_1 to image_7")),
    };
    names.iter().map(image).collect()
}

/// Makes a prompt with the layout of the published tasks: pairs of the text between two marks and an image, then the
/// last text. If there are more marks than images, text is lost, as in the published tasks.
pub fn published(marked: &str, images: Vec<ImageSource>) -> Prompt {
    let texts: Vec<&str> = marked.split(MARK).map(python::strip).collect();
    let mut parts = Vec::new();
    for text in texts.iter().take(images.len()) {
        if !text.is_empty() {
            parts.push(Part::Text((*text).to_owned()));
        }
        parts.push(Part::Image);
    }
    let shown = images.len().min(texts.len());
    parts.push(Part::Text(texts.last().copied().unwrap_or_default().to_owned()));
    Prompt { parts, images: images.into_iter().take(shown).collect(), ..Prompt::default() }
}

/// Makes a prompt with every image at its mark. No text is lost.
fn in_place(doc: &Doc, text: &str) -> PublishedResult<Prompt> {
    static KNOWN: LazyLock<Regex> = LazyLock::new(|| Regex::new("<image ([1-7])>").expect("a fixed pattern"));
    let mut prompt = Prompt::default();
    let say = |prompt: &mut Prompt, text: &str| {
        let text = python::strip(text);
        if !text.is_empty() {
            prompt.parts.push(Part::Text(text.to_owned()));
        }
    };
    let mut done = 0;
    for mark in KNOWN.captures_iter(text) {
        let whole = mark.get_match();
        say(&mut prompt, &text[done..whole.start()]);
        prompt.parts.push(Part::Image);
        prompt.images.push(doc.image(&format!("image_{}", &mark[1]))?);
        done = whole.end();
    }
    say(&mut prompt, &text[done..]);
    Ok(prompt)
}
