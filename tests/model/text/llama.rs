//! Tests tokenizers that lack bytes, and those whose post-processor begins a text with a token.

use std::fs;

use omr_data::text::{CHAT_TEMPLATE, Special, Tokenizer, write_tokenizer_dir};
use serde_json::{Value, json};

use super::tokenizer;

/// Returns the tokenizer of the other tests with a changed `tokenizer.json`.
fn changed(change: impl FnOnce(&mut Value)) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer_dir(dir.path(), tokenizer(), CHAT_TEMPLATE).unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut file);
    fs::write(&path, file.to_string()).unwrap();
    Tokenizer::load(dir.path()).unwrap()
}

#[test]
fn a_byte_without_a_token_is_an_error_of_the_text_that_has_it() {
    // The byte 0x04 has this symbol.
    let lacks = changed(|file| {
        let vocab = file["model"]["vocab"].as_object_mut().unwrap();
        let id = vocab.remove("\u{104}").unwrap();
        vocab.insert("\u{104}\u{104}\u{104}".to_owned(), id);
    });
    assert_eq!(
        lacks.encode("the end", Special::Plain).unwrap(),
        tokenizer().encode("the end", Special::Plain).unwrap()
    );
    let error = lacks.encode("end\u{4}", Special::Plain).unwrap_err().to_string();
    assert!(error.starts_with("text: found the byte 0x04 at 3"), "{error}");
    assert!(tokenizer().encode("end\u{4}", Special::Plain).is_ok());
}

#[test]
fn the_token_of_the_post_processor_begins_a_text_once() {
    const BOS: &str = "<|endoftext|>";
    let id = tokenizer().id(BOS).unwrap();
    let begins = changed(|file| {
        file["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS: {"id": BOS, "ids": [id], "tokens": [BOS]}}
        });
    });
    assert_eq!(begins.with_bos(vec![5, 6]), [id, 5, 6]);
    assert_eq!(begins.with_bos(vec![id, 5]), [id, 5]);
    assert_eq!(tokenizer().with_bos(vec![5, 6]), [5, 6]);
}

/// DeepSeek-R1-Distill's `tokenizer.json` has no post-processor with the token.
#[test]
fn add_bos_token_of_a_llama_tokenizer_decides_about_the_first_token() {
    const BOS: &str = "<|endoftext|>";
    let id = tokenizer().id(BOS).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer_dir(dir.path(), tokenizer(), CHAT_TEMPLATE).unwrap();
    let path = dir.path().join("tokenizer_config.json");
    let plain: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (class, adds, token, begins) in [
        ("LlamaTokenizerFast", true, json!({"content": BOS}), true),
        ("LlamaTokenizer", true, json!(BOS), true),
        ("LlamaTokenizerFast", false, json!(BOS), false),
        ("Qwen2Tokenizer", true, json!(BOS), false),
    ] {
        let mut config = plain.clone();
        config["tokenizer_class"] = class.into();
        config["add_bos_token"] = adds.into();
        config["bos_token"] = token;
        fs::write(&path, config.to_string()).unwrap();
        let found = Tokenizer::load(dir.path()).unwrap().with_bos(vec![5, 6]);
        assert_eq!(found[0] == id, begins, "{class} {adds}");
    }
}
