//! Whether an answer says the same as the gold answer.

use crate::config::Mode;

use super::math::{self, Value};
use super::{choice, compat, python};

/// The verifier's word.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Whether they are equal.
    pub equal: bool,
    /// The gold answer as it was understood.
    pub gold_parsed: String,
    /// The answer as it was understood.
    pub answer_parsed: String,
    /// Which rule decided.
    pub why: &'static str,
}

/// Compares an answer, bare or in a text, with the gold answer. Never panics and takes bounded time, whatever
/// the texts. `compat` gives the published scorer's equality for numbers and simple expressions.
pub fn verify(gold: &str, answer: &str, mode: Mode) -> Verdict {
    match mode {
        Mode::Strict => strict(gold, answer),
        Mode::Compat => compat::verify(gold, answer),
    }
}

/// One way to write a text: no white space around, one space inside.
fn collapse(text: &str) -> String {
    text.split(python::is_space).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

fn strict(gold: &str, answer: &str) -> Verdict {
    let (gold_text, answer_text) = (bare(gold), bare(locate(answer)));
    let verdict =
        |equal, why| Verdict { equal, gold_parsed: gold_text.clone(), answer_parsed: answer_text.clone(), why };
    if gold_text.is_empty() || answer_text.is_empty() {
        let same = gold_text == answer_text;
        return verdict(same, if same { "both empty" } else { "no answer" });
    }
    if gold_text == answer_text {
        return verdict(true, "same text");
    }
    if let Some(letter) = choice::letter(&gold_text) {
        return match choice::named_letter(&answer_text) {
            Some(named) => verdict(named == letter, if named == letter { "same choice" } else { "another choice" }),
            None => verdict(false, "no choice named"),
        };
    }
    let (gold_value, answer_value) = (math::parse(&gold_text), math::parse(&answer_text));
    let comparison = math::equal(&gold_value, &answer_value);
    if comparison.equal {
        return verdict(true, comparison.why);
    }
    // Words that happen to read as mathematics: "No", "red".
    let words = math::words(&gold_text);
    let wordy = words.chars().any(char::is_alphabetic) && is_wordy(&gold_value) && !gold_text.contains('\\');
    if wordy && words == math::words(&answer_text) {
        return verdict(true, "equal words");
    }
    verdict(false, comparison.why)
}

/// True when nothing but letters was read: `No` is the product of N and o, too.
fn is_wordy(value: &Value) -> bool {
    match value {
        Value::Text(_) => true,
        Value::Scalar(e, _) => e.exact().is_none() && !e.has_numbers(),
        _ => false,
    }
}

/// The text without the wrappers of an answer: dollar signs, boxes, bold, `\text`, a final full stop.
fn bare(text: &str) -> String {
    let mut text = collapse(text);
    loop {
        let inner = unwrap(&text);
        if inner.len() == text.len() {
            return text;
        }
        text = inner;
    }
}

fn unwrap(text: &str) -> String {
    let t = python::strip(text);
    let pairs = [
        ("$$", "$$"),
        ("$", "$"),
        ("\\(", "\\)"),
        ("\\[", "\\]"),
        ("**", "**"),
        ("__", "__"),
        ("`", "`"),
        ("\"", "\""),
        ("\u{201c}", "\u{201d}"),
    ];
    for (open, close) in pairs {
        if let Some(inner) = t.strip_prefix(open).and_then(|t| t.strip_suffix(close))
            && !inner.contains(open)
            && !inner.contains(close)
        {
            return python::strip(inner).to_owned();
        }
    }
    for command in ["boxed", "fbox", "text", "mathrm", "textbf", "mathbf", "textit", "operatorname"] {
        let body = t.strip_prefix('\\').and_then(|t| t.strip_prefix(command)).map(str::trim_start);
        if let Some(inner) = body.and_then(|b| b.strip_prefix('{')).and_then(whole_group) {
            return python::strip(inner).to_owned();
        }
    }
    for end in ['.', '!'] {
        if let Some(rest) =
            t.strip_suffix(end).filter(|r| !r.ends_with(|c: char| c == '.' || (end == '!' && !c.is_alphabetic())))
        {
            return python::strip(rest).to_owned();
        }
    }
    t.to_owned()
}

/// The content of a group whose closing brace ends the text.
fn whole_group(text: &str) -> Option<&str> {
    let inner = text.strip_suffix('}')?;
    let mut depth = 1i32;
    for (i, b) in text.bytes().enumerate() {
        depth += i32::from(b == b'{') - i32::from(b == b'}');
        if depth == 0 {
            return (i == inner.len()).then_some(inner);
        }
    }
    None
}

/// The answer inside a text: a box, what follows "the answer is", else the last sentence: all of it, what
/// follows its verb, its last formula.
fn locate(text: &str) -> &str {
    let text = python::strip(text);
    if let Some(found) = last_box(text).or_else(|| after_marker(text)) {
        return found;
    }
    let reads = |t: &str| !matches!(math::parse(&bare(t)), Value::Text(_));
    if reads(text) {
        return text;
    }
    let line = text.rsplit('\n').map(python::strip).find(|l| !l.is_empty() && *l != "---").unwrap_or(text);
    let sentence = python::strip(line.rsplit(". ").next().unwrap_or(line));
    if reads(sentence) {
        return sentence;
    }
    for cut in [" = ", " is ", " are ", " get ", ": "] {
        if let Some((_, rest)) = sentence.rsplit_once(cut)
            && reads(rest)
        {
            return python::strip(rest);
        }
    }
    if let Some(found) = last_between(sentence).filter(|f| reads(f)) {
        return found;
    }
    let said = [" is ", " are "].iter().find_map(|cut| sentence.rsplit_once(cut)).map(|(_, rest)| python::strip(rest));
    if let Some(found) = said.filter(|s| s.split_whitespace().count() <= 3).or_else(|| last_between(text)) {
        return found;
    }
    if sentence.len() < text.len() { sentence } else { text }
}

/// The content of the last `\boxed` or `\fbox`; several joined by "or", "and" or a comma are one answer.
fn last_box(text: &str) -> Option<&str> {
    let start = |t: &str| ["\\boxed", "\\fbox"].iter().filter_map(|c| t.rfind(c).map(|at| (at, at + c.len()))).max();
    let (mut at, body) = start(text)?;
    let content = |body: usize| {
        let rest = text[body..].trim_start();
        let inner = rest.strip_prefix('{')?;
        let mut depth = 1i32;
        for (i, b) in inner.bytes().enumerate() {
            depth += i32::from(b == b'{') - i32::from(b == b'}');
            if depth == 0 {
                return Some((&inner[..i], text.len() - inner.len() + i + 1));
            }
        }
        Some((inner, text.len()))
    };
    let (last, end) = content(body)?;
    let mut joined = false;
    while let Some((before, body)) = start(&text[..at]) {
        let Some((_, close)) = content(body) else { break };
        let between = text.get(close..at).map(|t| t.trim_matches(|c: char| c == '$' || python::is_space(c)));
        if !between.is_some_and(|b| matches!(b, "or" | "and" | ",")) {
            break;
        }
        (at, joined) = (before, true);
    }
    Some(if joined { &text[at..end] } else { last })
}

/// What follows the last "answer is", "answer:", "####" on its line.
fn after_marker(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let markers = [
        "answer is",
        "answer:",
        "####",
        "result:",
        "option is",
        "choice is",
        "answer =",
        "answer**:",
        "result is",
        "result is:",
    ];
    let at = markers.iter().filter_map(|m| lower.rfind(m).map(|at| at + m.len())).max()?;
    let rest = &text[at..];
    let rest = rest.trim_start_matches(|c: char| python::is_space(c) || matches!(c, ':' | '*'));
    let line = rest.split('\n').next()?;
    let sentence = line.split(". ").next().unwrap_or(line);
    let sentence = sentence.trim_end_matches(['*', ' ', '.']);
    let found = python::strip(sentence);
    if found.is_empty() {
        None
    } else {
        Some(last_between(found).filter(|f| f.len() + 12 > found.len()).unwrap_or(found))
    }
}

/// The last formula or bold text.
fn last_between(text: &str) -> Option<&str> {
    // An escaped dollar sign is money, not the end of a formula.
    let last = |t: &str, mark: &str| t.rmatch_indices(mark).map(|(at, _)| at).find(|&at| !t[..at].ends_with('\\'));
    [("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$"), ("**", "**")]
        .iter()
        .filter_map(|(open, close)| {
            let end = last(text, close)?;
            let from = last(&text[..end], open)? + open.len();
            let found = python::strip(&text[from..end]);
            (!found.is_empty()).then_some((end, found))
        })
        .max_by_key(|&(end, found)| (end, found.len()))
        .map(|(_, found)| found)
}
