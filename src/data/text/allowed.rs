//! Checks a `tokenizer.json` before the `tokenizers` library reads it. Only a byte-level BPE as in GPT-2, Llama 3 and
//! the Qwen families is accepted. The library supports much more, and some inputs make it panic, exhaust memory or loop
//! forever.

use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use omr_base::bounds::excess;
use omr_base::error::{Error, Result};
use omr_base::files;

/// Maximum size of a tokenizer file in bytes. The largest published byte-level one has 28 MB.
const FILE: u64 = 32 << 20;
/// Maximum number of added tokens, and maximum length of one in bytes.
const ADDED: usize = 4096;
const ADDED_BYTES: usize = 256;
/// Pattern by which Qwen2.5 splits text before BPE: contractions, words with the preceding punctuation mark, single
/// digits, runs of punctuation with the preceding space, line ends, spaces.
pub(super) const SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Split patterns of published tokenizers: GPT-2, Qwen2 to Qwen3, Qwen3.5, Llama 3 (GPT-4), GPT-4o. Each takes time
/// linear in the length of the text. An arbitrary pattern could take time that grows with any power of the length.
const PATTERNS: [&str; 5] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    SPLIT,
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// Parts of the file that are checked. The post-processor is never run, so it needs no check.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Parts {
    added_tokens: Vec<Added>,
    normalizer: Value,
    pre_tokenizer: Value,
    model: Model,
}

/// A token of `added_tokens`.
#[derive(Deserialize)]
pub(super) struct Added {
    pub content: String,
    pub id: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Model {
    r#type: Value,
    dropout: Value,
    continuing_subword_prefix: Value,
    end_of_word_suffix: Value,
}

/// Reads a `tokenizer.json` or `tokenizer_config.json`. Returns an error if the file is too large.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    files::open(path)?.take(FILE + 1).read_to_end(&mut bytes)?;
    let large = (bytes.len() as u64 > FILE).then(|| format!("more than {FILE} bytes"));
    match large.or_else(|| excess(&bytes)) {
        None => Ok(bytes),
        Some(what) => Err(io::Error::new(io::ErrorKind::InvalidData, what)),
    }
}

/// Returns the added tokens of a `tokenizer.json`, or an error that names the file and the part if it is not a supported
/// byte-level BPE.
pub(super) fn check(json: &[u8], file: &Path) -> Result<Vec<Added>> {
    let parts: Parts = files::json::parse(file, json)?;
    let Parts { added_tokens, normalizer, pre_tokenizer, model } = &parts;
    let Model { r#type, dropout, continuing_subword_prefix: prefix, end_of_word_suffix: suffix } = model;
    let empty = |value: &Value| value.is_null() || value == "" || value.as_f64() == Some(0.0);
    let cuts = |kind: &str, part: &Value| match kind {
        "Split" => part["pattern"]["Regex"].as_str().is_some_and(|pattern| PATTERNS.contains(&pattern)),
        kind => ["ByteLevel", "Digits"].contains(&kind),
    };
    let pieces =
        "ByteLevel, Digits, Split with the pattern of GPT-2, GPT-4, GPT-4o, Llama 3 or Qwen, or a Sequence of these";
    let rules = [
        ("model.type", r#type, r#type == "BPE", "\"BPE\""),
        ("model.dropout", dropout, empty(dropout), "null, because a text must always have the same tokens"),
        ("model.continuing_subword_prefix", prefix, empty(prefix), "null"),
        ("model.end_of_word_suffix", suffix, empty(suffix), "null"),
        ("normalizer", normalizer, known(normalizer, "normalizers", &|kind, _| kind == "NFC"), "null or NFC"),
        ("pre_tokenizer", pre_tokenizer, known(pre_tokenizer, "pretokenizers", &cuts), pieces),
    ];
    if let Some((part, found, _, expected)) = rules.into_iter().find(|rule| !rule.2) {
        return Err(wrong(file, part, &found.to_string(), expected));
    }
    check_added(added_tokens.iter().map(|token| token.content.as_str()), file)?;
    Ok(parts.added_tokens)
}

/// Returns an error if there are too many added tokens or if one is empty or too long.
pub(super) fn check_added<'a>(contents: impl ExactSizeIterator<Item = &'a str> + Clone, file: &Path) -> Result<()> {
    let many = contents.len();
    match contents.clone().max_by_key(|content| content.len()) {
        _ if contents.clone().any(str::is_empty) => {
            Err(wrong(file, "added_tokens", "an empty token", "a text in each"))
        }
        _ if many > ADDED => Err(wrong(file, "added_tokens", &many.to_string(), &format!("at most {ADDED}"))),
        Some(longest) if longest.len() > ADDED_BYTES => {
            Err(wrong(file, "added_tokens", longest, &format!("at most {ADDED_BYTES} bytes of each")))
        }
        _ => Ok(()),
    }
}

/// Returns true if `value` is absent, of a known kind, or a sequence of known kinds.
fn known(value: &Value, list: &str, kinds: &dyn Fn(&str, &Value) -> bool) -> bool {
    match value["type"].as_str() {
        Some("Sequence") => value[list].as_array().is_some_and(|parts| parts.iter().all(|v| known(v, list, kinds))),
        Some(kind) => kinds(kind, value),
        None => value.is_null(),
    }
}

fn wrong(file: &Path, part: &str, found: &str, expected: &str) -> Error {
    let found: String = found.chars().take(200).collect();
    Error::input(format!("{}: {part}", file.display()), found, expected)
}
