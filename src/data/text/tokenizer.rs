//! The tokenizer: reads a `tokenizer.json` with the `tokenizers` crate, and decodes byte-exactly with its own decoder.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{
    AddedToken, AddedVocabulary, DecoderWrapper, Model, OffsetReferential, OffsetType, PreTokenizer, Tokenizer as Bpe,
};

use super::allowed;
use omr_base::bounds::{Budget, caught};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::base_model;

/// Name of the file with the vocabulary.
pub(super) const FILE: &str = "tokenizer.json";
/// Maximum bytes of text that all threads together encode at once. Each byte takes up to 300 bytes of memory.
pub const LONGEST_TEXT: usize = 2 << 20;
static ENCODING: Budget = Budget::new(LONGEST_TEXT as u64);
/// Maximum number of text bytes that NFC normalization reduces to one byte: the Kelvin sign becomes `K`.
const NFC_SHRINKS: usize = 3;

/// Handling of strings of special tokens (such as `<|im_start|>`) in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Such strings become special tokens everywhere, as in Hugging Face.
    Parse,
    /// Such strings are ordinary text.
    Plain,
}

/// A byte-level BPE tokenizer in Hugging Face's format.
#[derive(Clone)]
pub struct Tokenizer {
    bpe: Bpe,
    /// Added tokens of `bpe`, configured to treat special tokens as text.
    plain: AddedVocabulary,
    /// Bytes of all ids, concatenated; id `i` has `bytes[starts[i]..starts[i + 1]]`.
    bytes: Vec<u8>,
    starts: Vec<u32>,
    special: Vec<bool>,
    /// Number of bytes of the longest token.
    longest: usize,
    /// Id of each single byte. Some tokenizers lack bytes that their training texts never had.
    byte_ids: [Option<u32>; 256],
    /// Token that Hugging Face puts before a text.
    bos: Option<u32>,
}

impl Tokenizer {
    /// Loads a `tokenizer.json`, given its path or its model directory. A `tokenizer_config.json` in the same folder
    /// adds its `added_tokens_decoder`, whose `special` flags determine what decoding skips.
    pub fn load(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        let file = if path.is_dir() { base_model::holder(path, FILE)?.join(FILE) } else { path.to_owned() };
        let json = allowed::read(&file).map_err(Error::io(&file))?;
        let config = file.with_file_name("tokenizer_config.json");
        let settings = files::if_exists(&config, allowed::read(&config))?;
        let settings = settings.map(|bytes| files::json::parse::<Map<String, Value>>(&config, &bytes)).transpose()?;
        let settings = settings.map_or(Value::Null, Value::Object);
        let tokenizer = Tokenizer::from_json(&json, &added_tokens(&settings, &config)?, &file)?;
        // For this class, Hugging Face replaces the post-processor of the file by these settings (DeepSeek-R1-Distill).
        let is_llama = settings["tokenizer_class"].as_str().is_some_and(|class| class.starts_with("LlamaTokenizer"));
        let Some(adds) = settings["add_bos_token"].as_bool().filter(|_| is_llama) else { return Ok(tokenizer) };
        let token = &settings["bos_token"];
        let token = token.as_str().or_else(|| token["content"].as_str()).filter(|_| adds);
        Ok(Tokenizer { bos: token.and_then(|token| tokenizer.bpe.token_to_id(token)), ..tokenizer })
    }

    fn from_json(json: &[u8], added: &[(u32, AddedToken)], file: &Path) -> Result<Tokenizer> {
        let own = allowed::check(json, file)?;
        allowed::check_added(added.iter().map(|(_, token)| token.content.as_str()), file)?;
        let read = caught(|| {
            let mut bpe = Bpe::from_bytes(json)?;
            bpe.add_tokens(added.iter().map(|(_, token)| token.clone()))?;
            Ok::<_, tokenizers::Error>(bpe)
        });
        let read = read.and_then(|bpe| bpe.map_err(|e| e.to_string()));
        let bpe = read.map_err(|what| Error::format(file, what))?;
        let own = own.iter().filter_map(|token| Some(("added_tokens gives", token.id?, &token.content)));
        let added = added.iter().map(|(id, token)| ("tokenizer_config.json gives", *id, &token.content));
        if let Some((gives, id, token)) = added.chain(own).find(|(_, id, token)| bpe.token_to_id(token) != Some(*id)) {
            let what = format!("{gives} {token:?} the id {id}, but this file gives it {:?}", bpe.token_to_id(token));
            return Err(Error::format(file, what));
        }
        Tokenizer::new(bpe, file)
    }

    /// Checks and prepares a tokenizer. `place` names it in errors.
    pub(super) fn new(bpe: Bpe, place: &Path) -> Result<Tokenizer> {
        if !matches!(bpe.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(Error::format(place, "the decoder is not ByteLevel: only byte-level tokenizers are supported"));
        }
        let chars = byte_chars();
        let byte_ids = chars.map(|char| bpe.get_model().token_to_id(&char.to_string()));
        let of_char: HashMap<char, u8> = chars.into_iter().zip(0..=u8::MAX).collect();
        let added = bpe.get_added_tokens_decoder();
        let vocab = bpe.get_vocab(true);
        let len = vocab.values().max().map_or(0, |&id| id as usize + 1);
        if len > MAX_VOCAB {
            return Err(Error::format(place, format!("an id of {}, more than {MAX_VOCAB}", len - 1)));
        }
        let mut tokens: Vec<Option<&String>> = vec![None; len];
        let twice = vocab.iter().find_map(|(token, &id)| Some((tokens[id as usize].replace(token)?, token, id)));
        if let Some((one, other, id)) = twice {
            let what = format!("the tokens {:?} and {:?} both have the id {id}", one.min(other), one.max(other));
            return Err(Error::format(place, what));
        }
        let (mut bytes, mut starts, mut special) = (Vec::new(), vec![0], vec![false; len]);
        for id in 0..len as u32 {
            let token = bpe.get_added_vocabulary().simple_id_to_token(id).or_else(|| bpe.get_model().id_to_token(id));
            if let Some(token) = token {
                // The string of an added token is text, not GPT-2's alphabet of bytes.
                let is_added = added.contains_key(&id);
                match token.chars().map(|c| of_char.get(&c).copied()).collect::<Option<Vec<u8>>>() {
                    Some(decoded) if !is_added => bytes.extend(decoded),
                    _ => bytes.extend(token.as_bytes()),
                }
            }
            starts.push(bytes.len() as u32);
            special[id as usize] = added.get(&id).is_some_and(|t| t.special);
        }
        let mut plain = bpe.get_added_vocabulary().clone();
        plain.set_encode_special_tokens(true);
        let first = |special| bpe.encode("a", special).ok().and_then(|text| text.get_ids().first().copied());
        let bos =
            caught(|| first(true).filter(|id| special[*id as usize] && first(false) != Some(*id))).unwrap_or(None);
        let longest = starts.windows(2).map(|ends| (ends[1] - ends[0]) as usize).max().unwrap_or(0);
        Ok(Tokenizer { bpe, plain, bytes, starts, special, longest, byte_ids, bos })
    }

    /// Returns the ids of a text. With [`Special::Plain`], no id is a special token. Returns an error if the text has
    /// more than `LONGEST_TEXT` bytes, or a byte without a token.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        check_length(text.len())?;
        if let Some(at) = text.bytes().position(|byte| self.byte_ids[byte as usize].is_none()) {
            let found = format!("the byte {:#04x} at {at}", text.as_bytes()[at]);
            return Err(Error::input("text", found, "bytes for which the tokenizer has a token"));
        }
        let _taken = ENCODING.take(text.len() as u64);
        let added = if special == Special::Plain { &self.plain } else { self.bpe.get_added_vocabulary() };
        let ids = caught(|| self.encode_with(text, added)).and_then(|ids| ids.map_err(|e| e.to_string()));
        let mut ids =
            ids.map_err(|what| Error::input("text", format!("text that cannot be tokenized: {what}"), "text"))?;
        if special == Special::Plain && ids.iter().any(|&id| self.is_special(id)) {
            // Reached only by a tokenizer whose merges spell a special token.
            let spell = |id: u32| self.token_bytes(id).iter().filter_map(|&b| self.byte_ids[b as usize]).collect();
            ids = ids.into_iter().flat_map(|id| if self.is_special(id) { spell(id) } else { vec![id] }).collect();
        }
        Ok(ids)
    }

    /// Puts the token before `ids` that Hugging Face puts before a text, unless they begin with it.
    pub fn with_bos(&self, ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.bos.filter(|bos| ids.first() != Some(bos)) { [&[bos][..], &ids].concat() } else { ids }
    }

    /// Returns the maximum number of bytes of a text with `tokens` tokens.
    pub fn bytes_of(&self, tokens: usize) -> usize {
        tokens.saturating_mul(NFC_SHRINKS * self.longest).min(LONGEST_TEXT)
    }

    /// Encodes the entire text. Truncation, padding and post-processors in the file are ignored, because they belong to
    /// the application that saved the file ([`Tokenizer::with_bos`] adds the first token).
    fn encode_with(&self, text: &str, added: &AddedVocabulary) -> tokenizers::Result<Vec<u32>> {
        let mut pieces = added.extract_and_normalize(self.bpe.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.bpe.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| self.bpe.get_model().tokenize(piece.get()))?;
        let splits = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
        Ok(splits.iter().filter_map(|(_, _, tokens)| tokens.as_ref()).flatten().map(|t| t.id).collect())
    }

    /// Returns the text of some ids. Invalid UTF-8 becomes U+FFFD. Ids outside the vocabulary have no text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids.iter().filter(|&&id| !(skip_special && self.is_special(id))) {
            bytes.extend_from_slice(self.token_bytes(id));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Creates a decoder that takes ids one by one.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream {
        DecodeStream { skip_special, held: Vec::new() }
    }

    /// Returns the bytes of an id; empty for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..).and_then(|s| s.get(..2)) {
            Some(&[start, end]) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }

    /// Returns the id of a token by its exact string, including added tokens.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.bpe.token_to_id(token)
    }

    /// Returns the string of a token as in the vocabulary file, where bytes have a printable form.
    pub fn token(&self, id: u32) -> Option<String> {
        self.bpe.id_to_token(id)
    }

    /// Returns true if an id is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Returns the ids and strings of all special tokens.
    pub fn special_tokens(&self) -> impl Iterator<Item = (u32, String)> + '_ {
        (0..self.special.len() as u32).filter(|&id| self.is_special(id)).filter_map(|id| Some((id, self.token(id)?)))
    }

    pub(super) fn bpe(&self) -> &Bpe {
        &self.bpe
    }
}

/// Returns an error if texts that are encoded together have more than [`LONGEST_TEXT`] bytes.
pub(super) fn check_length(bytes: usize) -> Result<()> {
    match bytes <= LONGEST_TEXT {
        true => Ok(()),
        false => Err(Error::input("text", format!("{bytes} bytes"), format!("at most {LONGEST_TEXT}"))),
    }
}

/// Upper bound on ids, so that a broken file cannot cause tables of 2^32 rows.
const MAX_VOCAB: usize = 1 << 24;

/// Converts ids to text one at a time. Bytes of an incomplete character are held back. All pieces together equal
/// [`Tokenizer::decode`] of all ids.
#[derive(Clone, Debug)]
pub struct DecodeStream {
    skip_special: bool,
    held: Vec<u8>,
}

impl DecodeStream {
    /// Returns the text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if !(self.skip_special && tokenizer.is_special(id)) {
            self.held.extend_from_slice(tokenizer.token_bytes(id));
        }
        let mut text = String::new();
        let mut used = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            used += chunk.valid().len();
            let broken = chunk.invalid();
            let incomplete = std::str::from_utf8(broken).is_err_and(|e| e.error_len().is_none());
            if incomplete && used + broken.len() == self.held.len() {
                break;
            }
            if !broken.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                used += broken.len();
            }
        }
        self.held.drain(..used);
        text
    }

    /// Returns the bytes that are still held back, as U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

/// Returns the printable character that represents each byte in a byte-level vocabulary (GPT-2's table).
pub(super) fn byte_chars() -> [char; 256] {
    let mut next = 256;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => {
            next += 1;
            char::from_u32(next - 1).expect("256..=323 are characters")
        }
    })
}

/// Reads the `added_tokens_decoder` of a `tokenizer_config.json`, sorted by id.
fn added_tokens(config: &Value, path: &Path) -> Result<Vec<(u32, AddedToken)>> {
    let mut tokens = Vec::new();
    for (id, entry) in config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten() {
        let broken = |what: String| Error::format(path, format!("added_tokens_decoder.{id}: {what}"));
        let token = serde_json::from_value(entry.clone()).map_err(|e| broken(e.to_string()))?;
        tokens.push((id.parse().map_err(|_| broken("not an id".to_owned()))?, token));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens)
}
