//! What a teacher and a judge are asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use serde_json::{Value, json};

use crate::config::EndpointConfig;
use crate::data::form::IMAGE_MARKER;
use crate::data::sample::TEACHER_SYSTEM_PROMPT;
use crate::data::{Row, text_of};
use crate::error::{Error, Result};
use crate::philox::{Purpose, Random};
use crate::text::Part;

/// What is cut from a question before a teacher or a judge sees it; the stored row keeps it.
const CUT: [&str; 4] = [
    IMAGE_MARKER,
    "Context: N/A",
    "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags.",
    "Answer the question using a single word or phrase.",
];

/// A question as a teacher or a judge sees it.
pub fn clean(question: &str) -> String {
    CUT.iter().fold(question.to_owned(), |text, cut| text.replace(cut, "")).trim().to_owned()
}

/// Requests of one data set to a teacher. Rollouts of a row share its pictures, encoded once.
pub struct Questions {
    rows: Arc<Vec<Row>>,
    teacher: EndpointConfig,
    seed: u64,
    recent: Mutex<VecDeque<(usize, Arc<str>)>>,
}

impl Questions {
    /// Questions of the data set `name`; it, `seed` and a row's place decide the seeds sent along.
    pub fn new(name: &str, rows: Arc<Vec<Row>>, teacher: &EndpointConfig, seed: u64) -> Questions {
        let named = blake3::hash(name.as_bytes());
        let (named, _) = named.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        let seed = seed ^ u64::from_le_bytes(*named);
        Questions { rows, teacher: teacher.clone(), seed, recent: Mutex::default() }
    }

    /// The body that asks row `index` for its answer `rollout`.
    pub fn body(&self, index: usize, rollout: usize) -> Result<Arc<str>> {
        let messages = self.messages(index)?;
        // 31 bits: servers differ in how large a seed they take.
        let seed = Random::new(self.seed, Purpose::Teacher, (rollout as u64) << 40 | index as u64).next_u32() >> 1;
        let model = Value::from(self.teacher.model.as_str());
        let (max_tokens, temperature) = (self.teacher.max_tokens, Value::from(self.teacher.temperature));
        let body = format!(
            "{{\"model\":{model},\"messages\":{messages},\"max_tokens\":{max_tokens},\"temperature\":{temperature},\"seed\":{seed}}}"
        );
        Ok(body.into())
    }

    fn messages(&self, index: usize) -> Result<Arc<str>> {
        let find =
            |recent: &VecDeque<(usize, Arc<str>)>| recent.iter().find(|(i, _)| *i == index).map(|(_, m)| m.clone());
        if let Some(messages) = find(&self.recent.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(messages);
        }
        let messages: Arc<str> = messages(&self.rows[index])?.to_string().into();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back((index, messages.clone()));
        if recent.len() > self.teacher.concurrency {
            recent.pop_front();
        }
        Ok(messages)
    }
}

/// The teacher's system prompt, then the row's messages up to its own answer, pictures as RGB PNG data urls.
fn messages(row: &Row) -> Result<Value> {
    let mut images = row.images.iter();
    let mut messages = vec![json!({"role": "system", "content": TEACHER_SYSTEM_PROMPT})];
    let asked = row.messages.iter().rposition(|m| m.role == "user").map_or(0, |last| last + 1);
    for message in row.messages[..asked].iter().filter(|m| m.role != "system") {
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
                    let image =
                        images.next().ok_or_else(|| Error::input(&row.place, "too few images", "one a place"))?;
                    let url = png_url(&image.decode(&row.place)?, &row.place)?;
                    parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
                }
                Part::Video => return Err(Error::input(&row.place, "a video", "text and images")),
            }
        }
        messages.push(json!({"role": message.role, "content": parts}));
    }
    if messages.len() == 1 {
        return Err(Error::input(&row.place, "no user message", "a question"));
    }
    Ok(Value::Array(messages))
}

fn png_url(rgb: &crate::image::Rgb, place: &str) -> Result<String> {
    let mut png = Vec::with_capacity(rgb.data.len() / 2 + 256);
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
        .write_image(&rgb.data, rgb.width, rgb.height, ExtendedColorType::Rgb8)
        .map_err(|e| Error::input(place, format!("an image that cannot be sent ({e})"), "an image"))?;
    let mut url = "data:image/png;base64,".to_owned();
    base64::engine::general_purpose::STANDARD.encode_string(&png, &mut url);
    Ok(url)
}

/// The label a row's answers are held against: its own, or the answer in its last assistant message.
pub fn label(row: &Row) -> Option<String> {
    if let Some(label) = &row.ground_truth {
        return Some(label.clone());
    }
    let text = text_of(row.messages.last().filter(|m| m.role == "assistant")?);
    let answer = super::repair::between(&text, "<answer>", "</answer>").unwrap_or(&text).trim().to_owned();
    (!answer.is_empty()).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Message;

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
        let sent = messages(&row).unwrap();
        assert_eq!(sent[0]["content"], TEACHER_SYSTEM_PROMPT);
        assert_eq!(sent[1], json!({"role": "user", "content": [{"type": "text", "text": "What is it?"}]}));
        assert_eq!(sent.as_array().unwrap().len(), 2);
    }

    #[test]
    fn each_rollout_has_its_own_seed() {
        let rows = Arc::new(vec![Row { messages: vec![Message::text("user", "q")], ..Row::default() }]);
        let questions = Questions::new("t", rows, &EndpointConfig::default(), 3);
        let bodies: Vec<_> = (0..4).map(|k| questions.body(0, k).unwrap()).collect();
        for (k, body) in bodies.iter().enumerate() {
            assert!(serde_json::from_str::<Value>(body).unwrap()["seed"].is_u64());
            assert!(!bodies[..k].contains(body));
        }
    }
}
