//! Tests encoding: text from users is always encoded as text and never as special tokens.

use omr_base::error::Result;
use omr_data::image::{Grid, MediaIds};
use omr_data::text::{
    CHAT_TEMPLATE, Chat, ChatConfig, ChatTemplate, Message, Part, Special, train_tokenizer, write_tokenizer_dir,
};
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
        // Other special tokens may be tags of an answer.
        let is_tag = |id: &u32| ["object_ref", "box", "quad", "endoftext"].iter().any(|tag| {
            tokenizer().token(*id).is_some_and(|token| token.contains(tag))
        });
        let structural: Vec<u32> = specials_of(&ids).into_iter().filter(|id| !is_tag(id)).collect();
        prop_assert_eq!(structural, structure(&messages));
        if messages.iter().all(|message| message.role != "assistant") {
            prop_assert_eq!(specials_of(&ids), structure(&messages));
        }
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

/// Returns a chat with this template, and with tags and a word that are special tokens.
fn tagged(template: &str) -> Result<Chat> {
    let specials = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<answer>", "</answer>", "gr\u{f6}\u{df}e"];
    let tokenizer = train_tokenizer(["user assistant"], &specials, &["three"], 300)?;
    let eos = if template.contains("loop.last") { tokenizer.id("<|im_end|>") } else { None };
    let config = ChatConfig { vocab_size: 300, eos_token_id: eos.into_iter().collect(), media: None };
    Chat::new(tokenizer, ChatTemplate::new(template, "t.jinja")?, &config, "t")
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

#[test]
fn a_tag_that_is_a_special_token_is_one_token_of_an_answer_and_text_of_a_question() {
    let chat = tagged(CHATML).unwrap();
    let answer = "<think>three</think><answer>3<|im_end|></answer>";
    let ids = chat.encode_answer(answer).unwrap();
    let specials = |ids: &[u32]| ids.iter().filter(|&&id| chat.tokenizer.is_special(id)).count();
    assert_eq!((specials(&ids), chat.tokenizer.decode(&ids, false)), (4, answer.to_owned()));
    let turns = [Message::text("user", "<think>"), Message::text("assistant", answer)];
    let ids = chat.encode(&turns, false, Special::Plain).unwrap();
    assert_eq!(specials(&ids), 4 + 4, "the tags, and the ends of two turns");
    let response = [&chat.encode_answer("<answer>3</answer>").unwrap()[..], &[chat.turn.end]].concat();
    assert_eq!(chat.response_text(&response), "<answer>3</answer>");
}

#[test]
fn an_added_token_with_latin_letters_has_its_text() {
    let chat = tagged(CHATML).unwrap();
    let ids = chat.tokenizer.encode("Die gr\u{f6}\u{df}e ist 3", Special::Parse).unwrap();
    assert_eq!(chat.tokenizer.decode(&ids, false), "Die gr\u{f6}\u{df}e ist 3");
}

#[test]
fn an_answer_is_continued_at_its_end_whatever_the_template_writes_behind_it() {
    let turns = ["1+1?", "2", "2+2?", "The sum is"].into_iter().enumerate();
    let turns: Vec<Message> = turns.map(|(i, text)| Message::text(["user", "assistant"][i % 2], text)).collect();
    let open = CHATML.replace(
        "<|im_end|>\n{% endfor",
        "{% if not (loop.last and m.role == 'assistant') %}<|im_end|>\n{% endif %}{% endfor",
    );
    let plain = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}<|im_end|>\n{% endfor %}";
    let loose = CHATML.replace("<|im_end|>\n{% endfor", "\n{% endfor");
    for (template, ending) in [(CHATML, "The sum is"), (&open, "The sum is"), (plain, "assistant: The sum is")] {
        let chat = tagged(template).unwrap();
        let text = chat.tokenizer.decode(&chat.encode_prompt(&turns).unwrap(), false);
        assert!(text.contains("1+1?") && text.ends_with(ending), "{template}: {text}");
    }
    // A template without the end of a turn.
    let error = tagged(&loose).err().unwrap().to_string();
    assert!(error.contains("no special token after the text"), "{error}");
}

#[test]
fn what_the_template_opens_is_known() {
    let asked = [Message::text("user", "2+2?")];
    let thinks = format!("{CHATML}{{% if add_generation_prompt %}}<think>\n{{% endif %}}");
    let closes = format!("{CHATML}{{% if add_generation_prompt %}}<think>\n\n</think>\n\n{{% endif %}}");
    for (template, opened) in [(CHATML, ""), (&thinks, "<think>\n"), (&closes, "<think>\n\n</think>\n\n")] {
        assert_eq!(tagged(template).unwrap().opened(&asked).unwrap(), opened);
    }
    let begun = [asked[0].clone(), Message::text("assistant", "The sum is")];
    assert_eq!(tagged(&thinks).unwrap().opened(&begun).unwrap(), "The sum is");
}

#[test]
fn a_template_that_reads_parts_gets_the_text() {
    let parts = CHATML.replace(
        "{{ m.content }}",
        "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}",
    );
    let chat = tagged(&parts).unwrap();
    let turns = [Message::text("user", "2+2?"), Message::text("assistant", "4")];
    let text = chat.tokenizer.decode(&chat.encode(&turns, false, Special::Plain).unwrap(), false);
    assert_eq!(text, "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n");
    let error = tagged(&CHATML.replace("{{ m.content }}", "")).err().unwrap().to_string();
    assert!(error.contains("drops the text of the user's messages"), "{error}");
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
        let source = format!("{source}{{% for m in messages[1:] %}}{{{{ m.content }}}}{{% endfor %}}");
        let template = ChatTemplate::new(&source, "test").unwrap();
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

#[test]
fn the_ids_of_media_and_of_the_end_are_those_of_the_tokenizer() {
    let config = chat_config(tokenizer());
    let named = |change: &dyn Fn(&mut MediaIds)| {
        let mut config = config.clone();
        change(&mut config.media.as_mut().unwrap().ids);
        let template = ChatTemplate::new(CHAT_TEMPLATE, "built in").unwrap();
        Chat::new(tokenizer().clone(), template, &config, "m").err().map(|error| error.to_string())
    };
    assert_eq!(named(&|_| ()), None);
    // Id 5 is a plain token.
    for (change, key) in [
        (&(|ids: &mut MediaIds| ids.image = 5) as &dyn Fn(&mut MediaIds), "image_token_id 5"),
        (&|ids| ids.video = 5, "video_token_id 5"),
        (&|ids| ids.start = 5, "vision_start_token_id 5"),
        (&|ids| ids.end = 5, "vision_end_token_id 5"),
    ] {
        let error = named(change).unwrap();
        assert!(error.contains(key) && error.contains("no special token"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer_dir(dir.path(), tokenizer(), CHAT_TEMPLATE).unwrap();
    std::fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [1, 999999]}"#).unwrap();
    let error = Chat::load(dir.path(), &config).err().unwrap().to_string();
    assert!(error.contains("eos_token_id 999999 in generation_config.json"), "{error}");
}
