//! Tests properties of tokenizer, template and chat encoding that must hold for any text.

pub mod chat;
pub mod generation;
pub mod llama;
pub mod template;

use std::sync::OnceLock;

use omr_data::text::{CHAT_TEMPLATE, Chat, ChatTemplate, Message, Part, SPECIAL_TOKENS, Tokenizer, train_tokenizer};
use proptest::prelude::*;

use crate::models::chat_config;

/// Returns a small tokenizer with the structure of Qwen2.5's.
fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let words = ["system\n", "user\n\n", "assistant", "You are a helpful assistant.", "<|", "|>", "im", "\n\n\n"];
        train_tokenizer(["the end of the start, the image of the vision"], &SPECIAL_TOKENS, &words, 400).unwrap()
    })
}

fn chat() -> &'static Chat {
    static CHAT: OnceLock<Chat> = OnceLock::new();
    CHAT.get_or_init(|| {
        let template = ChatTemplate::new(CHAT_TEMPLATE, "built in").unwrap();
        Chat::new(tokenizer().clone(), template, &chat_config(tokenizer()), "trained").unwrap()
    })
}

/// Generates text in which special tokens, parts of them, and unusual Unicode characters are frequent.
fn hostile_text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(SPECIAL_TOKENS.to_vec());
    let cut = (special.clone(), 0usize..20).prop_map(|(s, n)| s[n.min(s.len())..].to_owned());
    let head = (special.clone(), 0usize..20).prop_map(|(s, n)| s[..n.min(s.len())].to_owned());
    let piece = prop_oneof![
        special.prop_map(str::to_owned),
        cut,
        head,
        "[ \n\t]{1,3}",
        "[a-z]{1,6}",
        any::<String>(),
        prop::sample::select(vec!["user\n", "\u{fdd0}", "e\u{301}", "\u{212b}", "<", "|>", "assistant"])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![6 => hostile_text().prop_map(Part::Text), 1 => Just(Part::Image), 1 => Just(Part::Video { frames: 1, fps: 2.0 })]
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let role = prop::sample::select(vec!["system", "user", "assistant"]);
    let message = (role, prop::collection::vec(part(), 0..5)).prop_map(|(role, content)| Message {
        role: role.to_owned(),
        content,
        masked: false,
    });
    prop::collection::vec(message, 1..4)
}
