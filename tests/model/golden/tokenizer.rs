//! Compares Qwen2.5's tokenizer and the Qwen2.5-VL chat template with Hugging Face (`goldens/hf/tokenizer`). All
//! results must be equal.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use omr_base::config;
use omr_data::image::Grid;
use omr_data::rows::read;
use omr_data::text::{CHAT_TEMPLATE, Chat, ChatTemplate, Message, Part, Special, Tokenizer, write_tokenizer_dir};
use serde_json::Value;

use crate::models::chat_config;

fn folder() -> PathBuf {
    omr_base_tests::golden::dir().join("hf/tokenizer")
}

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let plain = folder().join("tokenizer.json");
        let packed = folder().join("tokenizer.json.gz");
        if plain.exists() {
            return Tokenizer::load(&plain).unwrap();
        }
        let mut json = Vec::new();
        let file = std::fs::File::open(&packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
        flate2::read::GzDecoder::new(file).read_to_end(&mut json).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), json).unwrap();
        Tokenizer::load(dir.path()).unwrap()
    })
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn cases(file: &str, key: &str) -> Vec<Value> {
    omr_base_tests::golden::json(&folder().join(file))[key].as_array().unwrap().clone()
}

fn spells_special(text: &str) -> bool {
    tokenizer().special_tokens().any(|(_, token)| text.contains(&token))
}

/// Checks decoding of the complete ids and id by id.
fn check_decode(case: &Value, what: &str) {
    let tokenizer = tokenizer();
    for (key, skip) in [("decoded", false), ("decoded_skip_special", true)] {
        let ids = ids(&case["ids"]);
        assert_eq!(tokenizer.decode(&ids, skip), case[key].as_str().unwrap(), "{what}: {key}");
        let mut stream = tokenizer.decode_stream(skip);
        let mut text: String = ids.iter().map(|&id| stream.push(tokenizer, id)).collect();
        text += &stream.finish();
        assert_eq!(text, case[key].as_str().unwrap(), "{what}: {key}, streamed");
    }
}

#[test]
fn encode() {
    let cases = cases("tokenizer_cases.json", "cases");
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let found = tokenizer().encode(text, Special::Parse).unwrap();
        assert_eq!(found, ids(&case["ids"]), "{text:?}");
        if let Some(tokens) = case["tokens"].as_array() {
            let named: Vec<_> = found.iter().map(|&id| tokenizer().token(id).unwrap()).collect();
            assert_eq!(Value::from(named), Value::from(tokens.clone()), "{text:?}");
        }
        let plain = tokenizer().encode(text, Special::Plain).unwrap();
        assert!(!plain.iter().any(|&id| tokenizer().is_special(id)), "{text:?}");
        if !spells_special(text) {
            assert_eq!(plain, found, "{text:?}");
        }
        check_decode(case, text);
    }
    omr_base_tests::golden::report("tokenizer", cases.len());
}

#[test]
fn decode() {
    let cases = cases("tokenizer_cases.json", "decode_cases");
    for case in &cases {
        check_decode(case, &case["ids"].to_string());
    }
    omr_base_tests::golden::report("tokenizer_decode", cases.len());
}

#[test]
fn written_files_encode_the_same() {
    let cases = cases("tokenizer_cases.json", "cases");
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer_dir(dir.path(), tokenizer(), CHAT_TEMPLATE).unwrap();
    let read = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(read.special_tokens().collect::<Vec<_>>(), tokenizer().special_tokens().collect::<Vec<_>>());
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(read.encode(text, Special::Parse).unwrap(), ids(&case["ids"]), "{text:?}");
        assert_eq!(read.decode(&ids(&case["ids"]), true), case["decoded_skip_special"].as_str().unwrap(), "{text:?}");
    }
    omr_base_tests::golden::report("tokenizer_written", cases.len());
}

fn message(value: &Value) -> Message {
    let part = |part: &Value| match part["type"].as_str() {
        Some("text") => Part::Text(part["text"].as_str().unwrap().to_owned()),
        Some("image" | "image_url") => Part::Image,
        Some("video") => Part::Video { frames: 1, fps: 2.0 },
        other => panic!("a part of type {other:?}"),
    };
    let role = value["role"].as_str().unwrap();
    match &value["content"] {
        Value::String(text) => Message::text(role, text),
        parts => Message { content: parts.as_array().unwrap().iter().map(part).collect(), ..Message::text(role, "") },
    }
}

/// Returns the folder's template in each of its file formats.
fn templates() -> Vec<(PathBuf, ChatTemplate)> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let mut found = Vec::new();
    for path in omr_base_tests::golden::entries(&folder(), "chat_template", ".jinja") {
        found.push((path.clone(), ChatTemplate::new(&read(&path), path.display().to_string()).unwrap()));
    }
    for path in omr_base_tests::golden::entries(&folder(), "chat_template.", ".json") {
        let source = omr_base_tests::golden::json(&path)["chat_template"].as_str().unwrap().to_owned();
        found.push((path.clone(), ChatTemplate::new(&source, path.display().to_string()).unwrap()));
    }
    found
}

/// The configs name the system turn that OpenMMReasoner's fork of verl adds. `published_rl.py` executes the fork's rule.
#[test]
fn rl_rows_without_a_system_turn_were_not_asked_to_think() {
    let template = templates().swap_remove(0).1;
    let chat = Chat::new(tokenizer().clone(), template, &chat_config(tokenizer()), "golden").unwrap();
    let cases = cases("published_rl.json", "cases");
    let dir = tempfile::tempdir().unwrap();
    let config = omr_base_tests::root().join("configs/openmmreasoner-7b");
    let load = |name: &str| config::load::<config::RlConfig>(Some(&config.join(name)), &[], &|_| None).unwrap();
    let mut entries = Vec::new();
    for config in ["rl.yaml", "rl-grpo.yaml", "rl-dapo.yaml"].map(load) {
        entries.extend(config.train_files.into_iter().chain(config.validation.val_files));
    }
    assert_eq!(entries.len(), 6);
    std::fs::copy(folder().parent().unwrap().join("image/sq28.png"), dir.path().join("56x56.png")).unwrap();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, cases.iter().map(|case| format!("{}\n", case["row"])).collect::<String>()).unwrap();
    for entry in entries {
        let rows = read::read(&config::DatasetConfig { path: path.clone(), name: Vec::new(), ..entry }).unwrap();
        assert_eq!(rows.len(), cases.len());
        for (row, case) in rows.iter().zip(&cases) {
            let found = chat.encode_with(&row.messages, true, Special::Plain, &serde_json::Map::new()).unwrap();
            let found = chat.expand(&found, &vec![Grid::image(4, 4); row.images.len()]).unwrap();
            assert_eq!(found.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ids(&case["ids"]), "{}", case["name"]);
        }
    }
    omr_base_tests::golden::report("published_rl", 6 * cases.len());
}

#[test]
fn chat_template() {
    let cases = cases("chat_template_cases.json", "cases");
    let mut run = 0;
    for (path, template) in templates() {
        let chat = Chat::new(tokenizer().clone(), template, &chat_config(tokenizer()), "golden").unwrap();
        for case in &cases {
            let what = format!("{} {}", path.display(), case["name"]);
            let messages: Vec<Message> = case["messages"].as_array().unwrap().iter().map(message).collect();
            let prompt = case["add_generation_prompt"].as_bool().unwrap();
            let mut variables = serde_json::Map::new();
            variables.insert("add_vision_id".to_owned(), case["add_vision_id"].clone());

            let rendered = chat.template.render_with(&messages, prompt, &variables).unwrap();
            assert_eq!(rendered, case["rendered"].as_str().unwrap(), "{what}");
            let parsed = chat.encode_with(&messages, prompt, Special::Parse, &variables).unwrap();
            assert_eq!(parsed, ids(&case["ids"]), "{what}");
            if !messages.iter().flat_map(|m| &m.content).filter_map(Part::text).any(spells_special) {
                let plain = chat.encode_with(&messages, prompt, Special::Plain, &variables).unwrap();
                assert_eq!(plain, parsed, "{what}");
            }
            if !case["expanded_ids"].is_null() {
                let grids: Vec<[u16; 3]> = serde_json::from_value(case["image_grid_thw"].clone()).unwrap();
                let images = grids.into_iter().map(|[_, h, w]| Grid::image(h, w));
                // The files expand images only; a video of one merged patch has one token.
                let parts = messages.iter().flat_map(|message| &message.content);
                let videos = parts.filter(|part| matches!(part, Part::Video { .. }));
                let grids: Vec<Grid> = images.chain(videos.map(|_| Grid { frames: 2, h: 2, w: 2 })).collect();
                let expanded = chat.expand(&parsed, &grids).unwrap();
                let expanded: Vec<u32> = expanded.into_iter().map(|(id, _)| id).collect();
                assert_eq!(expanded, ids(&case["expanded_ids"]), "{what}");
            }
            run += 1;
        }
    }
    omr_base_tests::golden::report("chat_template", run);
}
