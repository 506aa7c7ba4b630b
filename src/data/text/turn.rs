//! The assistant's turn of a chat template: how it opens and what ends it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::template::{ANSWER, QUESTION, SYSTEM};
use super::{ChatTemplate, Message, Special, Tokenizer};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::base_model;
use omr_verify::extract;

/// The tokens of an assistant's turn in a chat template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssistantTurn {
    /// The generation prompt: the tokens that `add_generation_prompt` adds to a conversation.
    pub open: Vec<u32>,
    /// The text by which the template begins an assistant's turn, without an opening of thinking.
    header: String,
    /// The special token that closes the turn.
    pub end: u32,
    /// Tokens that end a generated answer.
    pub stops: Arc<[u32]>,
}

impl AssistantTurn {
    /// Finds the turn in a rendered probe. If the template closes a turn with no special token, its end is the
    /// `eos_token` of tokenizer_config.json, else the first of `eos_token_id`. Errors if there is none of these.
    pub fn of(tokenizer: &Tokenizer, template: &ChatTemplate, eos_token_id: &[u32]) -> Result<AssistantTurn> {
        let probe = [Message::text("user", QUESTION), Message::text("assistant", ANSWER)];
        let render = |messages: &[Message], open| template.render_with(messages, open, &Default::default());
        let texts = (render(&probe[..1], false)?, render(&probe[..1], true)?, render(&probe, false)?);
        let (closed, opened, answered) = (&*texts.0, &*texts.1, &*texts.2);
        let (answer, rest) = answered.rsplit_once(ANSWER).unwrap_or((answered, ""));
        let special = tokenizer.encode(rest, Special::Parse)?.into_iter().find(|&id| tokenizer.is_special(id));
        let eos = || template.special_token("eos_token").and_then(|token| tokenizer.id(token));
        let end = special.or_else(eos).or_else(|| eos_token_id.first().copied()).ok_or_else(|| {
            let expected = "one, or an eos_token in tokenizer_config.json";
            Error::input("chat template", "no special token after the text of an assistant's turn", expected)
        })?;
        // The generation prompt may have more than the header of a turn: an opening of thinking, or an empty thinking part.
        let written = &opened[shared(closed, opened).len()..];
        let header = Some(shared(written, answer.get(opened.len() - written.len()..).unwrap_or_default()));
        let header = header.filter(|header| !header.is_empty()).unwrap_or(written);
        let header = &header[..extract::opening(written).unwrap_or(usize::MAX).min(header.len())];
        let [closed, opened] = [closed, opened].map(|text| tokenizer.encode(text, Special::Parse));
        let (closed, opened) = (closed?, opened?);
        let same = closed.iter().zip(&opened).take_while(|(a, b)| a == b).count();
        let (open, header) = (opened[same..].to_vec(), header.to_owned());
        Ok(AssistantTurn { open, header, end, stops: Arc::from([end]) }.with_stops(eos_token_id))
    }

    /// Returns the turn with `stops` and its end as the tokens that end an answer.
    pub fn with_stops(&self, stops: &[u32]) -> AssistantTurn {
        let end = Some(self.end).filter(|end| !stops.contains(end));
        AssistantTurn { stops: stops.iter().copied().chain(end).collect(), ..self.clone() }
    }

    /// Returns true if a token that ends an answer is trained, according to the mask of a sample.
    pub fn ends_trained(&self, ids: &[u32], loss_mask: &[bool]) -> bool {
        ids.iter().zip(loss_mask).any(|(id, trained)| *trained && self.stops.contains(id))
    }

    /// Returns what stands in the last turn of the assistant in `prompt`, a rendered text: what the template wrote there
    /// after the header, such as `<think>`, and the beginning of an answer that is continued. It is empty if the turn is
    /// closed by `end`, or if there is no turn.
    pub(super) fn opened<'a>(&self, prompt: &'a str, end: &str) -> &'a str {
        let turn = prompt.rsplit_once(&self.header).filter(|_| !self.header.is_empty()).map_or("", |(_, turn)| turn);
        if turn.contains(end) { "" } else { turn }
    }
}

/// Returns a rendered conversation of all roles, whose special tokens are those of turns, and perhaps tags of thinking.
pub(super) fn probe(template: &ChatTemplate) -> Result<String> {
    let all =
        [("system", SYSTEM), ("user", QUESTION), ("assistant", ANSWER)].map(|(role, text)| Message::text(role, text));
    let render = |messages: &[Message]| template.render_with(messages, false, &Default::default());
    // Many templates have no system message.
    render(&all).or_else(|_| render(&all[1..]))
}

/// Returns the text with which both texts begin.
fn shared<'a>(a: &'a str, b: &str) -> &'a str {
    let differ = a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map(|((at, _), _)| at);
    &a[..differ.unwrap_or(a.len().min(b.len()))]
}

/// Returns `eos_token_id` (one id or a list) of the model directory's generation_config.json, if it has one.
pub fn generation_config(dir: &Path) -> Result<Option<Vec<u32>>> {
    Ok(end_tokens(dir, "generation_config.json")?.filter(|ids| !ids.is_empty()))
}

/// Returns `eos_token_id` of this file of a model directory, also inside `text_config`. `None` if there is no such file.
fn end_tokens(dir: &Path, name: &str) -> Result<Option<Vec<u32>>> {
    let path = base_model::holder(dir, name)?.join(name);
    let Some(config) = files::json::read_if_exists::<Map<String, Value>>(&path)?.map(Value::Object) else {
        return Ok(None);
    };
    let of = [&config["eos_token_id"], &config["text_config"]["eos_token_id"]];
    let found = of.into_iter().find(|value| !value.is_null()).unwrap_or(&Value::Null);
    let wrong = || Error::format(&path, format!("eos_token_id is {found}, expected an id or a list of ids"));
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
    Ok(Some(match found {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().map(id).collect::<Result<_>>()?,
        one => vec![id(one)?],
    }))
}

/// Returns all tokens that end an answer of the model in `dir`, unless other programs find them all, or it has no chat
/// template. They read its generation_config.json, and its config.json only if there is none. A base model often lacks
/// the token that ends a turn of its chat template.
pub fn missing_stops(dir: &Path) -> Result<Option<Arc<[u32]>>> {
    let (Ok(tokenizer), Ok(template)) = (Tokenizer::load(dir), ChatTemplate::load(dir)) else { return Ok(None) };
    let of_model = end_tokens(dir, "config.json")?.unwrap_or_default();
    let known = end_tokens(dir, "generation_config.json")?.unwrap_or_else(|| of_model.clone());
    let stops = if known.is_empty() { of_model } else { known.clone() };
    let turn = AssistantTurn::of(&tokenizer, &template.reading_parts()?, &stops)?.with_stops(&stops);
    Ok(Some(turn.stops).filter(|all| **all != *known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::train_tokenizer;

    #[test]
    fn the_turn_of_any_template_is_found() {
        let specials = ["<bos>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"];
        let tokenizer = train_tokenizer(["user assistant"], &specials, &["user"], 300).unwrap();
        let id = |token: &str| tokenizer.id(token).unwrap();
        let turn = |source: &str, eos: &[u32]| {
            AssistantTurn::of(&tokenizer, &ChatTemplate::new(source, "here").unwrap(), eos).map_err(|e| e.to_string())
        };
        let headers = "<bos>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
            {{ m.content | trim }}<|eot_id|>{% endfor %}\
            {% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";
        let found = turn(headers, &[id("<|end_of_text|>")]).unwrap();
        let open = tokenizer.encode("<|start_header_id|>assistant<|end_header_id|>\n\n", Special::Parse).unwrap();
        assert_eq!((&found.open, found.end), (&open, id("<|eot_id|>")));
        assert_eq!(*found.stops, [id("<|end_of_text|>"), id("<|eot_id|>")]);
        assert_eq!(found.with_stops(&[found.end]).stops, Arc::from([found.end]));

        let prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n<think>\nTwo";
        assert_eq!(found.opened(prompt, "<|eot_id|>"), "<think>\nTwo");
        assert_eq!(found.opened(&format!("{prompt}<|eot_id|>"), "<|eot_id|>"), "");
        assert_eq!(found.opened("<bos>7", "<|eot_id|>"), "");
        let thinks = headers.replace("<|end_header_id|>\n\n{% endif", "<|end_header_id|>\n\n<think>\n{% endif");
        assert_eq!(turn(&thinks, &[]).unwrap().header, found.header);

        // A template that closes no turn: the answer ends with the model's own token.
        let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        assert_eq!(turn(plain, &[id("<|end_of_text|>")]).unwrap().end, id("<|end_of_text|>"));
        let error = turn(plain, &[]).unwrap_err();
        assert!(error.starts_with("chat template: found no special token after the text"), "{error}");
    }
}
