//! Encodes a conversation to token ids with the chat template and the tokenizer.

use std::path::Path;

use regex::Regex;

use super::tokenizer::check_length;
use super::{ChatTemplate, Message, Part, Special, Tokenizer};
use crate::error::{Error, Result};

/// Ids of the special tokens in Qwen2.5-VL's conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// `<|endoftext|>`, also the padding token.
    pub endoftext: u32,
    /// `<|im_start|>`, which opens a turn.
    pub im_start: u32,
    /// `<|im_end|>`, which closes a turn and ends a generated answer.
    pub im_end: u32,
    /// `<|vision_start|>`, which opens an image or video.
    pub vision_start: u32,
    /// `<|vision_end|>`, which closes an image or video.
    pub vision_end: u32,
    /// `<|image_pad|>`, one for each merged patch of an image.
    pub image_pad: u32,
    /// `<|video_pad|>`, one for each merged patch of a video.
    pub video_pad: u32,
}

impl SpecialIds {
    fn of(tokenizer: &Tokenizer, place: &str) -> Result<SpecialIds> {
        let id = |token: &str| {
            let id = tokenizer.id(token).filter(|&id| tokenizer.is_special(id));
            id.ok_or_else(|| Error::input(place, format!("no special token {token}"), "a Qwen2.5-VL tokenizer"))
        };
        Ok(SpecialIds {
            endoftext: id("<|endoftext|>")?,
            im_start: id("<|im_start|>")?,
            im_end: id("<|im_end|>")?,
            vision_start: id("<|vision_start|>")?,
            vision_end: id("<|vision_end|>")?,
            image_pad: id("<|image_pad|>")?,
            video_pad: id("<|video_pad|>")?,
        })
    }
}

/// Tokenizer, chat template and special token ids of one model.
#[derive(Clone)]
pub struct Chat {
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// Chat template.
    pub template: ChatTemplate,
    /// Ids of the special tokens.
    pub ids: SpecialIds,
    /// Strings of the special tokens, which a user's text must not inject.
    specials: Vec<String>,
    /// Pattern that finds the leftmost of `specials`, and the longest one if several begin there, as the tokenizers
    /// library does.
    find_special: Regex,
}

impl Chat {
    /// Loads the tokenizer and template of a model directory.
    pub fn load(dir: impl AsRef<Path>) -> Result<Chat> {
        let dir = dir.as_ref();
        Chat::new(Tokenizer::load(dir)?, ChatTemplate::load(dir)?, &dir.display().to_string())
    }

    /// Combines a tokenizer and a template. `place` names the tokenizer in errors.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate, place: &str) -> Result<Chat> {
        let ids = SpecialIds::of(&tokenizer, place)?;
        let mut specials: Vec<String> = tokenizer.special_tokens().map(|(_, token)| token).collect();
        specials.sort_by_key(|s| std::cmp::Reverse(s.len()));
        let pattern = specials.iter().map(|s| regex::escape(s)).collect::<Vec<_>>().join("|");
        let find_special = Regex::new(&pattern).map_err(|e| Error::input(place, e.to_string(), "special tokens"))?;
        Ok(Chat { tokenizer, template, ids, specials, find_special })
    }

    /// Returns the ids of a conversation, with one `image_pad` for each image (see [`expand_images`]).
    ///
    /// In the mode [`Special::Plain`], the text of messages never yields a special token, so the turns and images are
    /// exactly those of `messages`. If the text contains no special token's string, both modes give the same ids.
    pub fn encode(&self, messages: &[Message], add_generation_prompt: bool, special: Special) -> Result<Vec<u32>> {
        self.encode_with(messages, add_generation_prompt, special, &Default::default())
    }

    /// Encodes like [`Chat::encode`], with additional variables for the template, such as `add_vision_id`.
    pub fn encode_with(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        special: Special,
        variables: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Vec<u32>> {
        check_length(messages.iter().flat_map(|m| &m.content).filter_map(Part::text).map(str::len).sum())?;
        if special == Special::Parse {
            let text = self.template.render_with(messages, add_generation_prompt, variables)?;
            return self.tokenizer.encode(&text, Special::Parse);
        }
        let [mark] = unused_chars(messages)?;
        let marked: Vec<Message> = messages.iter().map(|m| self.break_specials(m, mark)).collect::<Result<_>>()?;
        let text = self.template.render_with(&marked, add_generation_prompt, variables)?;
        let ids = self.encode_marked(&text, mark)?;
        self.check_pads(messages, &ids)?;
        Ok(ids)
    }

    /// Encodes a conversation with a template that marks the generated text by `{% generation %}`. Returns the ids of
    /// [`Chat::encode`] and, for each, whether it is trained: it is in a generation block, and its turn is not masked.
    /// The text of each block is encoded by itself, as a model generates it. Returns `None` for any other template.
    ///
    /// Returns an error if a turn is masked and the number of blocks is not the number of assistant turns.
    pub fn encode_trained(&self, messages: &[Message]) -> Result<Option<(Vec<u32>, Vec<bool>)>> {
        if !self.template.marks_generation() {
            return Ok(None);
        }
        check_length(messages.iter().flat_map(|m| &m.content).filter_map(Part::text).map(str::len).sum())?;
        let [mark, open, close] = unused_chars(messages)?;
        let broken: Vec<Message> = messages.iter().map(|m| self.break_specials(m, mark)).collect::<Result<_>>()?;
        let text = self.template.render_marked(&broken, [open, close])?;
        let (mut ids, mut mask, mut blocks) = (Vec::new(), Vec::new(), 0);
        let turns: Vec<&Message> = messages.iter().filter(|message| message.role == "assistant").collect();
        for piece in text.split_inclusive([open, close]) {
            // A piece before `open` is outside of the blocks, one before `close` is a block.
            let is_block = piece.ends_with(close);
            let trained = is_block && turns.get(blocks).is_none_or(|turn| !turn.masked);
            blocks += usize::from(is_block);
            ids.extend(self.encode_marked(piece.trim_end_matches([open, close]), mark)?);
            mask.resize(ids.len(), trained);
        }
        if blocks != turns.len() && turns.iter().any(|turn| turn.masked) {
            let found = format!("{blocks} generation blocks and a masked turn");
            return Err(Error::input("chat template", found, format!("{}, one per assistant turn", turns.len())));
        }
        self.check_pads(messages, &ids)?;
        Ok(Some((ids, mask)))
    }

    /// Returns an error if the ids do not have one placeholder for each image and video of the messages.
    fn check_pads(&self, messages: &[Message], ids: &[u32]) -> Result<()> {
        for (kind, video, pad) in [("Image", false, self.ids.image_pad), ("Video", true, self.ids.video_pad)] {
            let is_kind = |part: &&Part| match part {
                Part::Text(_) => false,
                Part::Image => !video,
                Part::Video { .. } => video,
            };
            let expected = messages.iter().flat_map(|m| &m.content).filter(is_kind).count();
            let found = ids.iter().filter(|&&id| id == pad).count();
            if found != expected {
                let found = format!("{found} placeholders for {kind} in the rendered conversation");
                return Err(Error::input("chat template", found, format!("{expected}, the number in the messages")));
            }
        }
        Ok(())
    }

    /// Returns a copy of the message in which `mark` interrupts every special token's string. This includes a string of
    /// which only the beginning is at the end of the text, or only the end is at its start, because the template may
    /// join the text with other text. Other text is unchanged, so conditions in the template that depend on it have the
    /// same result.
    fn break_specials(&self, message: &Message, mark: char) -> Result<Message> {
        if message.role.is_empty() || !message.role.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            return Err(Error::input("role of a message", format!("{:?}", message.role), "a name such as user"));
        }
        let content = message.content.iter().map(|part| match part {
            Part::Text(text) => Part::Text(break_specials(text, &self.specials, mark)),
            other => other.clone(),
        });
        Ok(Message { content: content.collect(), ..message.clone() })
    }

    /// Encodes rendered text. Only strings without a mark inside become special tokens; the marks are then removed.
    fn encode_marked(&self, text: &str, mark: char) -> Result<Vec<u32>> {
        if !text.contains(mark) {
            return self.tokenizer.encode(text, Special::Parse);
        }
        let plain = |text: &str| self.tokenizer.encode(&text.replace(mark, ""), Special::Plain);
        let mut ids = Vec::new();
        let mut done = 0;
        for special in self.find_special.find_iter(text) {
            ids.extend(plain(&text[done..special.start()])?);
            ids.extend(self.tokenizer.id(special.as_str()));
            done = special.end();
        }
        ids.extend(plain(&text[done..])?);
        Ok(ids)
    }
}

fn break_specials(text: &str, specials: &[String], mark: char) -> String {
    let mut cuts = Vec::new();
    for special in specials {
        let first_len = special.chars().next().map_or(0, char::len_utf8);
        let mut from = 0;
        while let Some(at) = text[from..].find(special.as_str()) {
            from += at + first_len;
            cuts.push(from);
        }
        // Templates trim text, so white space at the ends does not separate two texts.
        for end in [text.len(), text.trim_end().len()] {
            let opens = |n: &usize| special.is_char_boundary(*n) && text[..end].ends_with(&special[..*n]);
            cuts.extend((1..special.len()).filter(opens).map(|n| end - n + first_len));
        }
        for start in [0, text.len() - text.trim_start().len()] {
            let closes = |n: usize| special.is_char_boundary(n) && text[start..].starts_with(&special[n..]);
            if (1..special.len()).any(closes) {
                cuts.push(start);
            }
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut marked = String::with_capacity(text.len() + cuts.len() * mark.len_utf8());
    let mut done = 0;
    for cut in cuts {
        marked.push_str(&text[done..cut]);
        marked.push(mark);
        done = cut;
    }
    marked.push_str(&text[done..]);
    marked
}

/// Returns characters that no message contains: Unicode noncharacters or private-use characters.
fn unused_chars<const N: usize>(messages: &[Message]) -> Result<[char; N]> {
    let texts: Vec<&str> = messages.iter().flat_map(|m| &m.content).filter_map(Part::text).collect();
    let all = ('\u{fdd0}'..='\u{fdef}').chain('\u{f0000}'..='\u{10fffd}');
    let unused: Vec<char> = all.filter(|&c| !texts.iter().any(|t| t.contains(c))).take(N).collect();
    let too_few = |_| Error::input("messages", "every private-use character", "an unused private-use character");
    unused.try_into().map_err(too_few)
}

/// Repeats each `image_pad` once for every merged patch of its image: a grid `[t, h, w]` in patches gives `t * h * w /
/// merge_size^2`. Also expands videos, with `video_pad`. Returns an error if the number of pads differs from the number
/// of grids.
pub fn expand_images(ids: &[u32], image_pad: u32, grids: &[[u32; 3]], merge_size: u32) -> Result<Vec<u32>> {
    let pads = ids.iter().filter(|&&id| id == image_pad).count();
    if pads != grids.len() {
        let expected = format!("{} (one per image)", grids.len());
        return Err(Error::input("prompt", format!("{pads} image placeholders"), expected));
    }
    let mut out = Vec::with_capacity(ids.len());
    let mut grids = grids.iter();
    for &id in ids {
        match (id == image_pad).then(|| grids.next()).flatten() {
            Some(&grid) => out.extend(std::iter::repeat_n(image_pad, merged_patches(grid, merge_size)?)),
            None => out.push(id),
        }
    }
    Ok(out)
}

fn merged_patches([t, h, w]: [u32; 3], merge_size: u32) -> Result<usize> {
    let fits = merge_size > 0 && t > 0 && h > 0 && w > 0 && h % merge_size == 0 && w % merge_size == 0;
    let area = |a: u32| if fits { a as usize / merge_size as usize } else { 0 };
    let patches = (t as usize).checked_mul(area(h)).and_then(|n| n.checked_mul(area(w)));
    patches.filter(|&n| fits && n <= u32::MAX as usize).ok_or_else(|| {
        let expected = format!("positive sizes, height and width multiples of {merge_size}");
        Error::input("picture", format!("a grid of {t} x {h} x {w} patches"), expected)
    })
}
