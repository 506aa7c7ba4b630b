//! Requests to a teacher: the text and images that are sent, and the keys under which answers are stored.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use serde_json::{Value, json};

use omr_base::answers::Key;
use omr_base::config::{EndpointConfig, ImageAlpha};
use omr_base::error::{Error, Result};
use omr_base::philox::{Purpose, Random};
use omr_data::rows::forms::form::IMAGE_MARKER;
use omr_data::rows::samples::sample::TEACHER_SYSTEM_PROMPT;
use omr_data::rows::{BadRow, Reason, Row, RowResult, short};
use omr_data::text::{Message, Part};

/// Texts removed from a question before a teacher or a judge receives it. The stored row keeps them.
const CUT: [&str; 4] = [
    IMAGE_MARKER,
    "Context: N/A",
    "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags.",
    "Answer the question using a single word or phrase.",
];

/// Returns a question as a teacher or a judge receives it.
pub fn clean(question: &str) -> String {
    CUT.iter().fold(question.to_owned(), |text, cut| text.replace(cut, "")).trim().to_owned()
}

/// A row as a question to a teacher.
pub struct Question {
    row: Row,
    /// System prompt of the request. Empty = none.
    system: String,
    /// Hash of everything that is sent, except the sampling settings.
    content: [u8; 32],
    /// Messages of the request, created for the first answer; or the reason why they cannot be created.
    messages: OnceLock<RowResult<String>>,
}

impl Question {
    /// Creates the question of a row, with the published system prompt unless `system` is set. The row is bad if an image
    /// file cannot be read. No image is decoded.
    pub fn new(row: &Row, system: Option<&str>) -> RowResult<Question> {
        let system = system.unwrap_or(TEACHER_SYSTEM_PROMPT);
        let mut hasher = blake3::Hasher::new();
        let mut part = |kind: &[u8], content: &[u8]| {
            hasher.update(kind).update(&(content.len() as u64).to_le_bytes()).update(content);
        };
        part(b"system", system.as_bytes());
        let mut images = row.images.iter();
        for message in question_messages(row) {
            part(b"role", message.role.as_bytes());
            for piece in &message.content {
                match (piece, images.as_slice().first()) {
                    (Part::Text(text), _) => part(b"text", clean(text).as_bytes()),
                    (_, Some(image)) => {
                        images.next();
                        part(b"image", &image.bytes(&row.place).map_err(BadRow::of(Reason::MissingImage))?);
                    }
                    (_, None) => part(b"none", &[]),
                }
            }
        }
        let content = *hasher.finalize().as_bytes();
        Ok(Question { row: row.clone(), system: system.to_owned(), content, messages: OnceLock::new() })
    }

    /// Returns the key of an answer: the model, the question, the sampling settings and the number of the answer.
    pub fn key(&self, teacher: &EndpointConfig, seed: u64, rollout: usize) -> Key {
        let EndpointConfig { model, max_tokens, temperature, .. } = teacher;
        Key::new(model, &self.content, &format!("distill {max_tokens} {temperature} {seed} {rollout}"))
    }

    /// Returns the body of a request. The row is bad if an image cannot be sent.
    pub fn body(&self, teacher: &EndpointConfig, seed: u64) -> RowResult<Arc<str>> {
        let reason = if self.row.images.is_empty() { Reason::WrongText } else { Reason::BrokenImage };
        let made =
            || messages(&self.row, &self.system).map(|messages| messages.to_string()).map_err(BadRow::of(reason));
        let messages = self.messages.get_or_init(made).as_ref().map_err(BadRow::again)?;
        let model = Value::from(teacher.model.as_str());
        let (max_tokens, temperature) = (teacher.max_tokens, Value::from(teacher.temperature));
        let body = format!(
            "{{\"model\":{model},\"messages\":{messages},\"max_tokens\":{max_tokens},\"temperature\":{temperature},\"seed\":{seed}}}"
        );
        Ok(body.into())
    }
}

/// Returns the seed for an answer to a row. It depends on the data set's name and the row's number in it.
pub fn request_seed(seed: u64, dataset: &str, index: usize, rollout: usize) -> u64 {
    let seed = seed ^ short(&blake3::hash(dataset.as_bytes()));
    // The seed has 31 bits, because servers limit seeds differently.
    u64::from(Random::new(seed, Purpose::Teacher, (rollout as u64) << 40 | index as u64).next_u32() >> 1)
}

/// Returns the row's messages that are sent: all messages up to the last user message, except system prompts.
fn question_messages(row: &Row) -> impl Iterator<Item = &Message> {
    let question_end = row.messages.iter().rposition(|m| m.role == "user").map_or(0, |last| last + 1);
    row.messages[..question_end].iter().filter(|m| m.role != "system")
}

/// Returns the system prompt, unless it is empty, followed by the messages of [`question_messages`], with images as RGB PNG
/// data urls.
fn messages(row: &Row, system: &str) -> Result<Value> {
    let mut images = row.images.iter();
    let mut messages = Vec::from_iter((!system.is_empty()).then(|| json!({"role": "system", "content": system})));
    let before = messages.len();
    for message in question_messages(row) {
        let mut parts = Vec::with_capacity(message.content.len());
        for part in &message.content {
            match part {
                Part::Text(text) => {
                    let text = clean(text);
                    if !text.is_empty() {
                        parts.push(json!({"type": "text", "text": text}));
                    }
                }
                Part::Image => {
                    let image = images
                        .next()
                        .ok_or_else(|| Error::input(&row.place, "too few images", "one image per placeholder"))?;
                    // As vLLM and transformers show it to a model.
                    let url =
                        image.decode_then(&row.place, ImageAlpha::White, |_, rgb| png_url(&rgb, &row.place))??;
                    parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
                }
                Part::Video { .. } => return Err(Error::input(&row.place, "a video", "text and images")),
            }
        }
        messages.push(json!({"role": message.role, "content": parts}));
    }
    if messages.len() == before {
        return Err(Error::input(&row.place, "no user message", "a user message with a question"));
    }
    Ok(Value::Array(messages))
}

fn png_url(rgb: &omr_data::image::Rgb, place: &str) -> Result<String> {
    let png = omr_data::image::png(rgb)
        .map_err(|e| Error::input(place, format!("an image that cannot be encoded as PNG ({e})"), "an image"))?;
    Ok(format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(&png)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_data::rows::forms::answer::label;

    #[test]
    fn questions_are_cleaned_for_the_teacher_alone() {
        let text = "Context: N/A What is it?\nAnswer the question using a single word or phrase.";
        assert_eq!(clean(text), "What is it?");
        let row = Row {
            messages: vec![
                Message::text("system", "s"),
                Message::text("user", text),
                Message::text("assistant", "<think>x</think><answer> 4 </answer>"),
            ],
            ..Row::default()
        };
        assert_eq!(label(&row).as_deref(), Some("4"));
        let sent = messages(&row, TEACHER_SYSTEM_PROMPT).unwrap();
        assert_eq!(sent[0]["content"], TEACHER_SYSTEM_PROMPT);
        assert_eq!(sent[1], json!({"role": "user", "content": [{"type": "text", "text": "What is it?"}]}));
        assert_eq!(sent.as_array().unwrap().len(), 2);
        assert_eq!(messages(&row, "").unwrap(), json!([sent[1]]), "no system prompt");
    }

    #[test]
    fn each_rollout_has_its_own_seed_and_key() {
        let row = Row { messages: vec![Message::text("user", "q")], ..Row::default() };
        let (question, teacher) = (Question::new(&row, None).unwrap(), EndpointConfig::default());
        let seeds: Vec<u64> = (0..4).map(|k| request_seed(3, "t", 0, k)).collect();
        let keys: Vec<Key> = (0..4).map(|k| question.key(&teacher, 3, k)).collect();
        for k in 0..4 {
            assert!(!seeds[..k].contains(&seeds[k]) && !keys[..k].contains(&keys[k]));
        }
        let body = question.body(&teacher, seeds[1]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["seed"], seeds[1]);
        // The key does not depend on the position or the answer of a row, only on the question.
        let moved = Row { id: "other".into(), place: "elsewhere".into(), ..row.clone() };
        assert_eq!(Question::new(&moved, None).unwrap().key(&teacher, 3, 0), keys[0]);
        let other = Row { messages: vec![Message::text("user", "Q")], ..row };
        assert_ne!(Question::new(&other, None).unwrap().key(&teacher, 3, 0), keys[0]);
        assert_ne!(Question::new(&moved, Some("s")).unwrap().key(&teacher, 3, 0), keys[0], "another system prompt");
    }
}
