//! Encodes a conversation to token ids with the chat template and the tokenizer.

use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

use super::tokenizer::check_length;
use super::turn::{self, AssistantTurn};
use super::{ChatTemplate, Message, Part, Special, Tokenizer};
use crate::image::{Grid, MediaFormat};
use omr_base::error::{Error, Result};
use omr_verify::extract;

/// Tokens of a model, as its `config.json` has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Ids that end a sequence.
    pub eos_token_id: Vec<u32>,
    /// Images and videos. `None` for a text model.
    pub media: Option<MediaFormat>,
}

/// Tokenizer, chat template and turns of one model.
#[derive(Clone)]
pub struct Chat {
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// Chat template.
    pub template: ChatTemplate,
    /// The assistant's turn.
    pub turn: AssistantTurn,
    /// Images and videos. `None` for a text model.
    pub media: Option<MediaFormat>,
    /// Strings of the special tokens, which a user's text must not inject.
    specials: Vec<String>,
    /// Those that an assistant's text must not inject, because they end or begin turns, or stand for images. Others, such as
    /// `<think>` in some tokenizers, belong to its answer.
    structural: Vec<String>,
    /// Padding, if the template's files name it.
    pad: Option<u32>,
    /// Pattern that finds the leftmost of `specials`, and the longest one if several begin there, as the tokenizers
    /// library does.
    find_special: Regex,
}

impl Chat {
    /// Loads the tokenizer and template of a model directory.
    pub fn load(dir: &Path, config: &ChatConfig) -> Result<Chat> {
        let mut chat = Chat::new(Tokenizer::load(dir)?, ChatTemplate::load(dir)?, config, &dir.display().to_string())?;
        if let Some(stops) = turn::generation_config(dir)? {
            if let Some(id) = stops.iter().find(|&&id| id as usize >= config.vocab_size) {
                let found = format!("eos_token_id {id} in generation_config.json");
                return Err(Error::input(dir, found, format!("an id below vocab_size, {}", config.vocab_size)));
            }
            chat.turn = chat.turn.with_stops(&stops);
            chat.structural.extend(stops.iter().filter_map(|&id| chat.tokenizer.token(id)));
        }
        Ok(chat)
    }

    /// Combines a tokenizer and a template. `place` names the tokenizer in errors.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate, config: &ChatConfig, place: &str) -> Result<Chat> {
        let template = template.reading_parts()?;
        let turn = AssistantTurn::of(&tokenizer, &template, &config.eos_token_id)?;
        let of_media = config.media.iter().flat_map(|media| media.ids.named());
        if let Some((key, id)) = of_media.into_iter().find(|(_, id)| !tokenizer.is_special(*id)) {
            let found = format!("{key} {id} in config.json, which is no special token of the tokenizer");
            return Err(Error::input(place, found, "the id of a special token"));
        }
        let mut specials: Vec<String> = tokenizer.special_tokens().map(|(_, token)| token).collect();
        specials.sort_by_key(|s| std::cmp::Reverse(s.len()));
        let pattern = specials.iter().map(|s| regex::escape(s)).collect::<Vec<_>>().join("|");
        let find_special = Regex::new(&pattern).map_err(|e| Error::input(place, e.to_string(), "special tokens"))?;
        let of_turns = turn::probe(&template)?;
        let of_media = config.media.iter().flat_map(|media| media.ids.all()).filter_map(|id| tokenizer.token(id));
        let of_media: Vec<String> = of_media.collect();
        let is_structural = |token: &&String| {
            let ends = turn.stops.iter().any(|&id| tokenizer.id(token) == Some(id)) || template.names(token);
            let is_tag = extract::THINKING.iter().any(|(open, close)| [*open, *close].contains(&token.as_str()));
            ends || of_media.contains(token) || (of_turns.contains(token.as_str()) && !is_tag)
        };
        let structural = specials.iter().filter(is_structural).cloned().collect();
        let pad = template.special_token("pad_token").and_then(|token| tokenizer.id(token));
        Ok(Chat { tokenizer, template, turn, media: config.media, specials, structural, pad, find_special })
    }

    /// Returns the chat with these variables of the template in all its prompts.
    pub fn with_variables(self, variables: &Map<String, Value>) -> Result<Chat> {
        let (tokenizer, template) = (self.tokenizer, self.template.with_variables(variables)?);
        // The generation prompt may depend on the variables.
        let turn = AssistantTurn::of(&tokenizer, &template, &[self.turn.end])?.with_stops(&self.turn.stops);
        Ok(Chat { tokenizer, template, turn, ..self })
    }

    /// Returns the ids of a conversation, with one placeholder for each image and video (see [`Chat::expand`]).
    ///
    /// In the mode [`Special::Plain`], the text of messages never yields the special token of a turn or an image, so these
    /// are exactly those of `messages`. The text of a user or a system message yields no special token at all. If the text
    /// contains no special token's string, both modes give the same ids.
    pub fn encode(&self, messages: &[Message], add_generation_prompt: bool, special: Special) -> Result<Vec<u32>> {
        self.encode_with(messages, add_generation_prompt, special, &Default::default())
    }

    /// Encodes like [`Chat::encode`], with additional variables for the template, such as `add_vision_id`.
    pub fn encode_with(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        special: Special,
        variables: &Map<String, Value>,
    ) -> Result<Vec<u32>> {
        check_length(messages.iter().flat_map(|m| &m.content).filter_map(Part::text).map(str::len).sum())?;
        if special == Special::Parse {
            let text = self.template.render_with(messages, add_generation_prompt, variables)?;
            return self.tokenizer.encode(&self.with_times(text, messages), Special::Parse);
        }
        let [mark] = unused_chars(messages)?;
        let marked: Vec<Message> = messages.iter().map(|m| self.break_specials(m, mark)).collect::<Result<_>>()?;
        let text = self.template.render_with(&marked, add_generation_prompt, variables)?;
        let ids = self.encode_marked(&self.with_times(text, messages), mark)?;
        self.check_placeholders(messages, &ids)?;
        Ok(ids)
    }

    /// Returns the ids of a prompt: the conversation with the generation prompt, or up to the end of its last message if that
    /// is the assistant's, so that the answer continues it.
    pub fn encode_prompt(&self, messages: &[Message]) -> Result<Vec<u32>> {
        match messages.last() {
            Some(last) if last.role == "assistant" => self.encode_continued(messages, &Default::default()),
            _ => self.encode(messages, true, Special::Plain),
        }
    }

    /// Returns the ids of a conversation up to the end of the text of its last message.
    pub fn encode_continued(&self, messages: &[Message], variables: &Map<String, Value>) -> Result<Vec<u32>> {
        check_length(messages.iter().flat_map(|m| &m.content).filter_map(Part::text).map(str::len).sum())?;
        let [mark] = unused_chars(messages)?;
        let marked: Vec<Message> = messages.iter().map(|m| self.break_specials(m, mark)).collect::<Result<_>>()?;
        let (text, _) = self.split_at_end(&marked, variables)?;
        let ids = self.encode_marked(&self.with_times(text, messages), mark)?;
        self.check_placeholders(messages, &ids)?;
        Ok(ids)
    }

    /// Returns what the template writes after the text of the last message, as ids: the end of its turn.
    pub fn after_last(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.tokenizer.encode(&self.split_at_end(messages, &Default::default())?.1, Special::Parse)
    }

    /// Renders a conversation and splits the text at the end of the last message, which a mark finds that is rendered with
    /// it. Errors if the template drops the end of the message.
    fn split_at_end(&self, messages: &[Message], variables: &Map<String, Value>) -> Result<(String, String)> {
        let ([mark], mut marked) = (unused_chars(messages)?, messages.to_vec());
        if let Some(Part::Text(text)) = marked.last_mut().and_then(|message| message.content.last_mut()) {
            text.push(mark);
        }
        let found = self.template.render_with(&marked, false, variables)?;
        let after = found.rsplit_once(mark).map(|(_, after)| after);
        let whole = self.template.render_with(messages, false, variables)?;
        let split = after.and_then(|after| Some((whole.strip_suffix(after)?.to_owned(), after.to_owned())));
        let found = "a template that changes the end of the last message";
        split.ok_or_else(|| Error::input("chat template", found, "the text of the message as it is"))
    }

    /// Returns the text of the assistant's turn that the prompt of a conversation already has: what the template writes
    /// before the answer, such as `<think>`, or the beginning of an answer that is continued.
    pub fn opened(&self, messages: &[Message]) -> Result<String> {
        let none = Map::new();
        let prompt = match messages.last() {
            Some(last) if last.role == "assistant" => self.split_at_end(messages, &none)?.0,
            _ => self.template.render_with(messages, true, &none)?,
        };
        Ok(self.opened_in(&prompt).to_owned())
    }

    /// Returns the text like [`Chat::opened`], for a rendered prompt.
    pub fn opened_in<'a>(&self, prompt: &'a str) -> &'a str {
        self.turn.opened(prompt, &self.tokenizer.token(self.turn.end).unwrap_or_default())
    }

    /// Encodes the text of an assistant's turn, as a model generates it.
    pub fn encode_answer(&self, text: &str) -> Result<Vec<u32>> {
        let [mark] = unused_chars(&[Message::text("assistant", text)])?;
        self.encode_marked(&break_specials(text, &self.structural, mark), mark)
    }

    /// Returns a sampled response as text, without the tokens that end an answer and without padding. Other special tokens,
    /// such as tags, are part of the text.
    pub fn response_text(&self, ids: &[u32]) -> String {
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| !self.is_end(id)).collect();
        self.tokenizer.decode(&ids, false)
    }

    /// Returns true for a token that ends an answer, and for padding.
    pub fn is_end(&self, id: u32) -> bool {
        self.turn.stops.contains(&id) || self.pad == Some(id)
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
        let text = self.with_times(self.template.render_marked(&broken, [open, close])?, messages);
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
        self.check_placeholders(messages, &ids)?;
        Ok(Some((ids, mask)))
    }

    /// Returns an error if the ids do not have one placeholder for each image and video of the messages.
    fn check_placeholders(&self, messages: &[Message], ids: &[u32]) -> Result<()> {
        for (kind, is_video) in [("Image", false), ("Video", true)] {
            let count = |part: &Part| match (part, self.media) {
                (Part::Image, _) => usize::from(!is_video),
                (&Part::Video { frames, fps }, Some(media)) if is_video && media.timestamps => {
                    media.times(frames, fps).len()
                }
                (Part::Video { .. }, _) => usize::from(is_video),
                (Part::Text(_), _) => 0,
            };
            let expected: usize = messages.iter().flat_map(|m| &m.content).map(count).sum();
            let found = self.count(ids, is_video);
            if found != expected {
                let found = format!("{found} placeholders for {kind} in the rendered conversation");
                return Err(Error::input("chat template", found, format!("{expected}, the number in the messages")));
            }
        }
        Ok(())
    }

    /// Returns the number of placeholders of images or of videos.
    pub fn count(&self, ids: &[u32], is_video: bool) -> usize {
        self.media.map_or(0, |media| ids.iter().filter(|&&id| id == media.placeholder(is_video)).count())
    }

    /// Replaces the placeholder of each video in rendered text by one for each of its temporal patches, after its time as
    /// text, if the model has such times.
    fn with_times(&self, text: String, messages: &[Message]) -> String {
        let Some(media) = self.media.filter(|media| media.timestamps) else { return text };
        let ids = [media.ids.start, media.ids.video, media.ids.end];
        let placeholder: String = ids.iter().filter_map(|&id| self.tokenizer.token(id)).collect();
        let mut videos = messages.iter().flat_map(|m| &m.content).filter_map(|part| match *part {
            Part::Video { frames, fps } => Some(media.times(frames, fps)),
            _ => None,
        });
        let mut pieces = text.split(&placeholder);
        let mut out = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            match videos.next() {
                Some(times) => times.iter().for_each(|time| out.extend([time, &placeholder].map(String::as_str))),
                None => out.push_str(&placeholder),
            }
            out.push_str(piece);
        }
        out
    }

    /// Replaces the placeholder of each image and video by the tokens of its grid. `grids` has the grids in the order of
    /// the conversation. Returns each token with the index in `ids` that it comes from. Returns an error if the numbers
    /// of placeholders and grids differ.
    pub fn expand(&self, ids: &[u32], grids: &[Grid]) -> Result<Vec<(u32, usize)>> {
        let grids: Vec<Grid> = match self.media {
            Some(media) => grids.iter().flat_map(|&grid| media.runs(grid)).collect(),
            None => grids.to_vec(),
        };
        for (kind, is_video) in [("image", false), ("video", true)] {
            let (found, expected) =
                (self.count(ids, is_video), grids.iter().filter(|grid| grid.is_video() == is_video).count());
            if found != expected {
                let expected = format!("{expected} (one per {kind})");
                return Err(Error::input("prompt", format!("{found} {kind} placeholders"), expected));
            }
        }
        let [mut images, mut videos] = [false, true].map(|video| grids.iter().filter(move |g| g.is_video() == video));
        let mut expanded = Vec::with_capacity(ids.len());
        for (from, &id) in ids.iter().enumerate() {
            let grid = match self.media {
                Some(media) if id == media.placeholder(false) => images.next(),
                Some(media) if id == media.placeholder(true) => videos.next(),
                _ => None,
            };
            match (grid, self.media) {
                (Some(&grid), Some(media)) => expanded.extend(media.tokens(grid).map(|id| (id, from))),
                _ => expanded.push((id, from)),
            }
        }
        Ok(expanded)
    }

    /// Returns a copy of the message in which `mark` interrupts the string of every special token that it must not inject.
    /// This includes a string of which only the beginning is at the end of the text, or only the end is at its start,
    /// because the template may join the text with other text. Other text is unchanged, so conditions in the template that
    /// depend on it have the same result.
    fn break_specials(&self, message: &Message, mark: char) -> Result<Message> {
        if message.role.is_empty() || !message.role.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            return Err(Error::input("role of a message", format!("{:?}", message.role), "a name such as user"));
        }
        let specials = if message.role == "assistant" { &self.structural } else { &self.specials };
        let content = message.content.iter().map(|part| match part {
            Part::Text(text) => Part::Text(break_specials(text, specials, mark)),
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
