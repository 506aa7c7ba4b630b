//! Turns the tokens of an answer into text as they arrive: stop strings are found and cut, and reasoning is separated
//! from the answer. Text that may still become part of a stop string or a tag is held back, so the pieces of a stream
//! always add up to the text of an answer that is not streamed.

use omr_data::text::{DecodeStream, Tokenizer};

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Returns the length of the longest end of `text` that begins, but does not complete, one of `words`.
fn overlap<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> usize {
    let of = |word: &str| {
        let begins = |n: &usize| word.is_char_boundary(*n) && text.ends_with(&word[..*n]);
        (1..word.len()).rev().find(begins).unwrap_or(0)
    };
    words.into_iter().map(of).max().unwrap_or(0)
}

/// Converts tokens to text up to the first stop string.
pub struct Detokenizer {
    decode: DecodeStream,
    stop: Vec<String>,
    include_stop: bool,
    held: String,
    /// Bytes and characters of the text so far, with the text that is held back.
    pub decoded: [usize; 2],
}

impl Detokenizer {
    /// Creates a detokenizer. With `include_stop`, the text ends with the stop string instead of before it.
    pub fn new(tokenizer: &Tokenizer, stop: Vec<String>, include_stop: bool, skip_special: bool) -> Detokenizer {
        let (decode, held) = (tokenizer.decode_stream(skip_special), String::new());
        Detokenizer { decode, stop, include_stop, held, decoded: [0, 0] }
    }

    /// Adds a token. Returns the text that is complete, and the stop string if one was found. If `is_early`, stop
    /// strings that begin or end in this token do not count.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32, is_early: bool) -> (String, Option<String>) {
        let text = self.decode.push(tokenizer, id);
        self.decoded[0] += text.len();
        self.decoded[1] += text.chars().count();
        self.held.push_str(&text);
        if is_early {
            return (std::mem::take(&mut self.held), None);
        }
        let found = self.stop.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        if let Some((at, stop)) = found.min_by_key(|(at, _)| *at) {
            let stop = stop.clone();
            self.held.truncate(at + if self.include_stop { stop.len() } else { 0 });
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let keep = overlap(&self.held, self.stop.iter().map(String::as_str));
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// Returns the text that is still held back. An incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held) + &self.decode.finish()
    }
}

/// Separates the text between `<think>` and `</think>`, as vLLM's parser `qwen3` does. A text that neither begins with
/// `<think>` nor continues reasoning of the prompt has no reasoning. A tag that is one token of the tokenizer counts only
/// as that token, not if other tokens spell it.
pub struct ReasoningParser {
    state: State,
    held: String,
    /// Tokens of the opening and the closing tag.
    tags: [Option<u32>; 2],
    /// Positions in the text at which such a token begins.
    marks: Vec<usize>,
    /// Position of `held` in the text.
    position: usize,
}

enum State {
    /// Only white space, or the beginning of the opening tag, has arrived.
    Start,
    Reasoning,
    Content,
}

impl ReasoningParser {
    /// Creates a parser. `is_open` is true if the prompt ends inside reasoning.
    pub fn new(is_open: bool, tags: [Option<u32>; 2]) -> ReasoningParser {
        let state = if is_open { State::Reasoning } else { State::Start };
        ReasoningParser { state, held: String::new(), tags, marks: Vec::new(), position: 0 }
    }

    /// Returns the tokens of the opening and the closing tag, if they are tokens.
    pub fn tags(tokenizer: &Tokenizer) -> [Option<u32>; 2] {
        [OPEN, CLOSE].map(|tag| tokenizer.id(tag))
    }

    /// Notes a token, behind which the text has `end` bytes. Must be called before [`ReasoningParser::push`].
    pub fn note(&mut self, id: u32, end: usize) {
        for (tag, text) in self.tags.iter().zip([OPEN, CLOSE]) {
            self.marks.extend((*tag == Some(id)).then(|| end.saturating_sub(text.len())));
        }
    }

    /// Returns the first position in `held` of the tag `OPEN` (0) or `CLOSE` (1).
    fn find(&self, tag: usize) -> Option<usize> {
        let mut all = self.held.match_indices([OPEN, CLOSE][tag]).map(|(at, _)| at);
        all.find(|at| self.tags[tag].is_none() || self.marks.contains(&(self.position + at)))
    }

    /// Removes the first `count` bytes of `held` and returns them.
    fn take(&mut self, count: usize) -> String {
        self.position += count;
        let rest = self.held.split_off(count);
        std::mem::replace(&mut self.held, rest)
    }

    /// Adds text. Returns reasoning and content that are complete.
    pub fn push(&mut self, text: &str) -> [String; 2] {
        self.held.push_str(text);
        let mut reasoning = String::new();
        if let State::Start = self.state {
            let begun = self.held.trim_start();
            let at = self.held.len() - begun.len();
            if self.find(0) == Some(at) {
                self.state = State::Reasoning;
                self.take(at + OPEN.len());
            } else if !OPEN.starts_with(begun) || begun == OPEN {
                self.state = State::Content;
            }
        }
        if let State::Reasoning = self.state {
            match self.find(1) {
                Some(at) => {
                    reasoning = self.take(at);
                    self.state = State::Content;
                    self.take(CLOSE.len());
                }
                None => reasoning = self.take(self.held.len() - overlap(&self.held, [CLOSE])),
            }
        }
        match self.state {
            State::Content => [reasoning, self.take(self.held.len())],
            _ => [reasoning, String::new()],
        }
    }

    /// Returns the reasoning and content that are still held back.
    pub fn finish(&mut self) -> [String; 2] {
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Reasoning => [rest, String::new()],
            _ => [String::new(), rest],
        }
    }
}

/// Returns true if a prompt ends inside reasoning: after the last turn was opened, `<think>` is not closed.
pub fn is_reasoning_open(turn: &str) -> bool {
    turn.rfind(OPEN).is_some_and(|at| !turn[at..].contains(CLOSE))
}

/// Returns an assistant's message with its reasoning in tags. With `is_open`, the reasoning is not closed.
pub fn with_reasoning(reasoning: &str, content: &str, is_open: bool) -> String {
    format!("{OPEN}{reasoning}{}{content}", if is_open { "" } else { CLOSE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, size: usize, is_open: bool) -> [String; 2] {
        let mut parser = ReasoningParser::new(is_open, [None, None]);
        let mut all = [String::new(), String::new()];
        let chars: Vec<char> = text.chars().collect();
        let pieces = chars.chunks(size).map(|piece| parser.push(&piece.iter().collect::<String>())).collect::<Vec<_>>();
        for [reasoning, content] in pieces.into_iter().chain([parser.finish()]) {
            all[0] += &reasoning;
            all[1] += &content;
        }
        all
    }

    #[test]
    fn reasoning_is_separated_whatever_the_pieces_are() {
        for size in 1..20 {
            let both = |text, is_open| parsed(text, size, is_open);
            assert_eq!(both("<think>a < b</th</think>\n4", false), ["a < b</th", "\n4"]);
            assert_eq!(both("\n <think>a", false), ["a", ""]);
            assert_eq!(both("a</think>b", true), ["a", "b"]);
            assert_eq!(both("a</think>b", false), ["", "a</think>b"]);
            assert_eq!(both(" <thin", false), ["", " <thin"]);
            assert_eq!(both("<think></think>", false), ["", ""]);
        }
        assert!(is_reasoning_open("<think>a") && !is_reasoning_open("<think>a</think>b") && !is_reasoning_open("a"));
    }

    #[test]
    fn a_tag_that_is_a_token_is_not_closed_by_text() {
        let mut parser = ReasoningParser::new(true, [Some(1), Some(2)]);
        let mut all = [String::new(), String::new()];
        let mut end = 0;
        for (id, text) in [(5, "remove "), (6, "</thi"), (7, "nk>"), (8, " first"), (2, "</think>"), (9, "done")] {
            end += text.len();
            parser.note(id, end);
            let [reasoning, content] = parser.push(text);
            all = [all[0].clone() + &reasoning, all[1].clone() + &content];
        }
        assert_eq!(all, ["remove </think> first", "done"]);
    }

    #[test]
    fn text_that_may_become_a_stop_string_is_held_back() {
        assert_eq!(overlap("abc", ["cde", "bcd"]), 2);
        assert_eq!(overlap("a\u{e9}", ["\u{e9}x"]), 2);
        assert_eq!(overlap("abc", ["abc"]), 0);
        assert_eq!(overlap("", ["abc"]), 0);
    }
}
