//! Trains a small byte-level BPE tokenizer built like Qwen2.5's, and writes a tokenizer's files in Hugging Face's
//! format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, Model, OffsetReferential, OffsetType, PreTokenizer, SplitDelimiterBehavior, Tokenizer as Bpe, Trainer,
};

use super::Tokenizer;
use super::allowed::SPLIT;
use super::tokenizer::byte_chars;
use omr_base::error::{Error, Result};

/// Qwen2.5-VL's chat template (see NOTICE).
pub const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// Qwen2.5's special tokens, ordered by id.
pub const SPECIAL_TOKENS: [&str; 14] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
];

/// Texts that [`CHAT_TEMPLATE`] adds to messages.
pub const TEMPLATE_WORDS: [&str; 4] = ["system\nYou are a helpful assistant.", "user\n", "assistant\n", "\n"];

/// Trains a tokenizer with at most `vocab_size` ids: the 256 bytes, then merges, then `specials` in their order.
///
/// Text is normalized and split as in Qwen2.5's tokenizer. The pieces of `words` are merged first, until each is one
/// token. Returns an error if `vocab_size` is too small for that. Then the corpus's own pairs are merged, the most
/// frequent first. Equal inputs give equal tokenizers.
pub fn train_tokenizer<S: AsRef<str>>(
    corpus: impl IntoIterator<Item = S>,
    specials: &[&str],
    words: &[&str],
    vocab_size: usize,
) -> Result<Tokenizer> {
    let failed = |e: tokenizers::Error| Error::Failed(format!("training a tokenizer: {e}"));
    let Some(bpe_size) = vocab_size.checked_sub(specials.len()).filter(|&n| n >= 256) else {
        let expected = format!("at least {}: 256 bytes and the special tokens", 256 + specials.len());
        return Err(Error::input("vocab_size", vocab_size.to_string(), expected));
    };
    let mut bpe = untrained().map_err(failed)?;

    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for text in corpus {
        let mut texts = vec![text.as_ref()];
        for special in specials {
            texts = texts.into_iter().flat_map(|t| t.split(special)).collect();
        }
        for text in texts {
            for piece in pieces(&bpe, text).map_err(failed)? {
                *counts.entry(piece).or_default() += 1;
            }
        }
    }
    let mut wanted = BTreeSet::new();
    for word in words {
        wanted.extend(pieces(&bpe, word).map_err(failed)?);
    }
    // The weight `heavy` makes every pair of a wanted piece outweigh every pair of the corpus.
    let heavy = MIN_FREQUENCY + counts.iter().map(|(piece, n)| piece.len() as u64 * n).sum::<u64>();
    for piece in &wanted {
        *counts.entry(piece.clone()).or_default() += heavy;
    }

    let mut trained = BPE::default();
    trainer(bpe_size, &counts).and_then(|t| t.train(&mut trained)).map_err(failed)?;
    let missing: Vec<&str> = wanted.iter().filter(|w| trained.token_to_id(w).is_none()).map(String::as_str).collect();
    if !missing.is_empty() {
        let found = format!("{vocab_size}, too small for one token of each of: {}", missing.join(" "));
        return Err(Error::input("vocab_size", found, "a larger vocabulary, or fewer words"));
    }
    bpe.with_model(trained);
    let specials = specials.iter().map(|s| AddedToken::from(*s, true));
    bpe.add_special_tokens(specials).map_err(failed)?;
    Tokenizer::new(bpe, Path::new("a trained tokenizer"))
}

/// Minimum number of occurrences of a pair in the corpus to be merged.
const MIN_FREQUENCY: u64 = 2;

/// Returns Qwen2.5's pipeline with an empty BPE model.
fn untrained() -> tokenizers::Result<Bpe> {
    let bytes = ByteLevel::new(false, false, false);
    let split = Split::new(SplitPattern::Regex(SPLIT.to_owned()), SplitDelimiterBehavior::Isolated, false)?;
    let mut bpe = Bpe::new(BPE::default());
    bpe.with_normalizer(Some(NFC))?;
    bpe.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])));
    bpe.with_post_processor(Some(bytes));
    bpe.with_decoder(Some(bytes));
    Ok(bpe)
}

/// Returns the pieces of a text that BPE processes, with bytes in printable form.
fn pieces(bpe: &Bpe, text: &str) -> tokenizers::Result<Vec<String>> {
    let mut pieces = bpe.get_added_vocabulary().extract_and_normalize(bpe.get_normalizer(), text);
    if let Some(pre_tokenizer) = bpe.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pieces)?;
    }
    let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
    Ok(splits.into_iter().map(|(piece, _, _)| piece.to_owned()).filter(|p| !p.is_empty()).collect())
}

/// Creates a trainer with precomputed counts. The trainer can only count text by text, so the counts are written into
/// its serialized form.
fn trainer(vocab_size: usize, counts: &BTreeMap<String, u64>) -> tokenizers::Result<BpeTrainer> {
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(MIN_FREQUENCY)
        .initial_alphabet(byte_chars().into_iter().collect())
        .show_progress(false)
        .build();
    let mut state = serde_json::to_value(trainer)?;
    state["words"] = serde_json::to_value(counts)?;
    Ok(serde_json::from_value(state)?)
}

/// Writes a tokenizer and its chat template, readable by transformers and vLLM, into an existing folder:
/// `tokenizer.json`, `tokenizer_config.json`, `vocab.json`, `merges.txt`, `added_tokens.json`,
/// `special_tokens_map.json`, `chat_template.jinja`. The files are not written atomically; the caller is responsible
/// for a complete folder.
pub fn write_tokenizer_dir(dir: impl AsRef<Path>, tokenizer: &Tokenizer, chat_template: &str) -> Result<()> {
    let dir = dir.as_ref();
    let failed = |e: tokenizers::Error| Error::Failed(format!("writing a tokenizer: {e}"));
    let text = tokenizer.bpe().to_string(true).map_err(failed)?;
    let full: Value = serde_json::from_str(&text).map_err(|e| failed(e.into()))?;

    let vocab = &full["model"]["vocab"];
    let mut merges = "#version: 0.2\n".to_owned();
    for merge in full["model"]["merges"].as_array().into_iter().flatten() {
        let pair: Vec<&str> = merge.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        merges += &pair.join(" ");
        merges += "\n";
    }

    let (mut added, mut decoder) = (Map::new(), Map::new());
    for token in full["added_tokens"].as_array().into_iter().flatten().filter_map(Value::as_object) {
        let mut token = token.clone();
        if let (Some(id), Some(content)) = (token.shift_remove("id"), token.get("content").and_then(Value::as_str)) {
            added.insert(content.to_owned(), id.clone());
            decoder.insert(id.to_string(), token.into());
        }
    }
    let specials: Vec<String> = tokenizer.special_tokens().map(|(_, token)| token).collect();
    let named = |token: &str| specials.iter().find(|s| *s == token);
    let (end, pad) = (named("<|im_end|>"), named("<|endoftext|>"));
    let others: Vec<&String> = specials.iter().filter(|s| Some(*s) != pad).collect();
    let config = json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": others,
        "bos_token": null,
        "clean_up_tokenization_spaces": false,
        "eos_token": end,
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": pad,
        "split_special_tokens": false,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null,
    });
    let map = json!({"additional_special_tokens": others, "eos_token": end, "pad_token": pad});

    let pretty = |value: &Value| serde_json::to_string_pretty(value).map(|s| s + "\n").map_err(|e| failed(e.into()));
    for (name, content) in [
        ("tokenizer.json", text),
        ("tokenizer_config.json", pretty(&config)?),
        ("vocab.json", vocab.to_string()),
        ("merges.txt", merges),
        ("added_tokens.json", pretty(&added.into())?),
        ("special_tokens_map.json", pretty(&map)?),
        ("chat_template.jinja", chat_template.to_owned()),
    ] {
        let path = dir.join(name);
        fs::write(&path, content).map_err(Error::io(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Chat, ChatConfig, ChatTemplate, Message, Part, Special};

    const WORDS: [&str; 9] =
        ["system", "user", "assistant", "You are a helpful assistant.", "\n", "<think>", "</think>", " What", " sum"];

    fn train(vocab_size: usize) -> Result<Tokenizer> {
        let corpus = ["<|im_start|>user\nWhat is the sum?<|im_end|>", "the sum, the difference, the larger: 12"];
        train_tokenizer(corpus, &SPECIAL_TOKENS, &WORDS, vocab_size)
    }

    #[test]
    fn words_are_one_token_and_every_byte_has_one() {
        let tokenizer = train(400).unwrap();
        for word in ["system", "assistant", " helpful", "\n", "</", "think", " What", " sum", " the"] {
            assert_eq!(tokenizer.encode(word, Special::Parse).unwrap().len(), 1, "{word:?}");
        }
        let odd = "\u{0}\u{7f}\u{fffd} \u{1f600}\u{4e16}";
        assert_eq!(tokenizer.decode(&tokenizer.encode(odd, Special::Plain).unwrap(), false), odd);
        for token in SPECIAL_TOKENS {
            let id = tokenizer.id(token).unwrap();
            assert!(tokenizer.is_special(id));
            assert_eq!(tokenizer.encode(token, Special::Parse).unwrap(), [id]);
            assert!(tokenizer.encode(token, Special::Plain).unwrap().len() > 1);
        }
    }

    #[test]
    fn training_is_deterministic() {
        let json = |t: Tokenizer| t.bpe().to_string(false).unwrap();
        assert_eq!(json(train(350).unwrap()), json(train(350).unwrap()));
    }

    #[test]
    fn too_small_a_vocabulary_names_the_words() {
        let error = train(280).err().unwrap().to_string();
        assert!(error.contains("280") && error.contains("assistant"), "{error}");
        assert!(train(200).err().unwrap().to_string().contains("270"));
    }

    #[test]
    fn files_read_back_equal() {
        let tokenizer = train(400).unwrap();
        let dir = tempfile::tempdir().unwrap();
        write_tokenizer_dir(dir.path(), &tokenizer, CHAT_TEMPLATE).unwrap();
        let config = ChatConfig { vocab_size: 400, eos_token_id: Vec::new(), media: None };
        let read = Chat::load(dir.path(), &config).unwrap();
        let template = ChatTemplate::new(CHAT_TEMPLATE, "built in").unwrap();
        let made = Chat::new(tokenizer, template, &config, "trained").unwrap();
        assert_eq!(read.turn, made.turn);
        let content = vec![Part::Text("What is the sum? <|im_end|>".to_owned())];
        let messages = [
            Message { role: "user".to_owned(), content, masked: false },
            Message::text("assistant", "<think>3</think>"),
        ];
        for special in [Special::Parse, Special::Plain] {
            let ids = read.encode(&messages, false, special).unwrap();
            assert_eq!(ids, made.encode(&messages, false, special).unwrap());
        }
        let ids = read.encode(&messages, false, Special::Plain).unwrap();
        assert!(read.tokenizer.decode(&ids, false).contains("<think>3</think><|im_end|>"));
    }
}
