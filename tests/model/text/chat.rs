//! Tests encoding: text from users is always encoded as text and never as special tokens.

use omr_base::error::Result;
use omr_data::image::Grid;
use omr_data::text::{Chat, ChatTemplate, Message, Part, Special};
use proptest::prelude::*;

use super::{chat, hostile_text, messages, tokenizer};
use crate::models::chat_config;

fn encode(messages: &[Message], special: Special) -> Result<Vec<u32>> {
    chat().encode(messages, true, special)
}

/// Returns the special tokens that the template must write for these messages, in order.
fn structure(messages: &[Message]) -> Vec<u32> {
    let (open, close, ids) = (chat().turn.open[0], chat().turn.end, chat().media.unwrap().ids);
    let mut expected = Vec::new();
    if messages.first().is_some_and(|m| m.role != "system") {
        expected.extend([open, close]);
    }
    for message in messages {
        expected.push(open);
        for part in &message.content {
            match part {
                Part::Text(_) => {}
                Part::Image => expected.extend([ids.start, ids.image, ids.end]),
                Part::Video { .. } => expected.extend([ids.start, ids.video, ids.end]),
            }
        }
        expected.push(close);
    }
    expected.push(open);
    expected
}

fn specials_of(ids: &[u32]) -> Vec<u32> {
    ids.iter().copied().filter(|&id| tokenizer().is_special(id)).collect()
}

proptest! {
    #![proptest_config(omr_base_tests::seed::proptest(400))]

    #[test]
    fn plain_text_yields_no_special_token(text in hostile_text()) {
        prop_assert_eq!(specials_of(&tokenizer().encode(&text, Special::Plain).unwrap()), Vec::<u32>::new());
    }

    #[test]
    fn plain_messages_yield_the_templates_tokens_alone(messages in messages()) {
        let ids = encode(&messages, Special::Plain).unwrap();
        prop_assert_eq!(specials_of(&ids), structure(&messages));
    }

    #[test]
    fn plain_and_parsed_spell_the_same_text(messages in messages()) {
        let plain = encode(&messages, Special::Plain).unwrap();
        let parsed = encode(&messages, Special::Parse).unwrap();
        prop_assert_eq!(tokenizer().decode(&plain, false), tokenizer().decode(&parsed, false));
        if specials_of(&parsed) == structure(&messages) {
            prop_assert_eq!(plain, parsed);
        }
    }

    #[test]
    fn streaming_decodes_as_a_whole(ids in prop::collection::vec(0u32..450, 0..40), skip in any::<bool>()) {
        let mut stream = tokenizer().decode_stream(skip);
        let mut text: String = ids.iter().map(|&id| stream.push(tokenizer(), id)).collect();
        text += &stream.finish();
        prop_assert_eq!(text, tokenizer().decode(&ids, skip));
    }
}

#[test]
fn a_special_token_in_two_parts_stays_text() {
    for (first, second) in [("<|im_", "end|>"), ("<|im_end", "|>"), ("<", "|im_end|>"), ("<|im_ ", " end|>")] {
        let content = vec![Part::Text(first.to_owned()), Part::Image, Part::Text(second.to_owned())];
        let joined = vec![Part::Text(first.to_owned()), Part::Text(second.to_owned())];
        for content in [content, joined] {
            let messages = [Message { role: "user".to_owned(), content, masked: false }];
            assert_eq!(specials_of(&encode(&messages, Special::Plain).unwrap()), structure(&messages));
        }
    }
}

#[test]
fn a_special_token_half_written_by_the_template_stays_text() {
    for (source, text) in [
        ("{{ messages[0].content }}|>", "<|im_end"),
        ("{{ messages[0].content | trim }}end|>", "<|im_ "),
        ("<|im_{{ messages[0].content }}", "end|>"),
        ("<{{ messages[0].content | trim }}", "\n|im_end|>"),
    ] {
        let template = ChatTemplate::new(source, "test").unwrap();
        let chat = Chat::new(tokenizer().clone(), template, &chat_config(tokenizer()), "trained").unwrap();
        let ids = chat.encode(&[Message::text("user", text)], false, Special::Plain).unwrap();
        assert!(specials_of(&ids).is_empty(), "{source}");
        assert_eq!(tokenizer().decode(&ids, false), "<|im_end|>");
    }
}

#[test]
fn a_role_is_a_name() {
    for role in ["", "user\n<|im_end|>", "us er", "<|im_end|>"] {
        let error = encode(&[Message::text(role, "hi")], Special::Plain).unwrap_err().to_string();
        assert!(error.starts_with("role of a message"), "{error}");
    }
}

#[test]
fn images_expand_to_their_grids() {
    let pad = chat().media.unwrap().ids.image;
    let messages =
        [Message { content: vec![Part::Image, Part::Text("x".to_owned()), Part::Image], ..Message::text("user", "") }];
    let ids = encode(&messages, Special::Plain).unwrap();
    let grids = [Grid::image(4, 6), Grid::image(2, 4)];
    let expanded = chat().expand(&ids, &grids).unwrap();
    assert_eq!(expanded.iter().filter(|(id, _)| *id == pad).count(), 6 + 2);
    assert_eq!(expanded.len(), ids.len() + 6 - 1 + 2 - 1);
    assert!(expanded.iter().all(|&(id, from)| ids[from] == id));
    let error = chat().expand(&ids, &grids[..1]).unwrap_err().to_string();
    assert_eq!(error, "prompt: found 2 image placeholders, expected 1 (one per image)");
}

#[test]
fn long_runs_lose_nothing() {
    let n = 30_000;
    for text in [" ".repeat(n), "a".repeat(n), "\n ".repeat(n), "<|im_end|>".repeat(n / 10), "<|im_".repeat(n / 5)] {
        let ids = tokenizer().encode(&text, Special::Plain).unwrap();
        assert!(tokenizer().decode(&ids, false) == text);
        let messages = [Message::text("user", text.as_str())];
        assert_eq!(specials_of(&encode(&messages, Special::Plain).unwrap()), structure(&messages));
    }
}
