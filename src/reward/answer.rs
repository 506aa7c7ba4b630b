//! The answer inside a text, and the answer without its wrappers.

use std::borrow::Cow;

use super::math::{self, Steps, Value};
use super::prose::{behind_words, is_prose, spoken};
use super::python;
use super::words;

/// Most wrappers around one answer.
const MAX_WRAPPERS: usize = 32;
/// Longest text that can be one answer.
pub(super) const MAX_ANSWER: usize = 10_000;

/// One way to write a text: no white space around, one space inside.
pub(super) fn collapse(text: &str) -> String {
    text.split(python::is_space).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The text without the wrappers of an answer: dollar signs, boxes, bold, `\text`, a final full stop.
pub(super) fn bare(text: &str) -> String {
    let mut text = collapse(text);
    for _ in 0..MAX_WRAPPERS {
        let inner = unwrap(&text);
        if inner.len() == text.len() {
            break;
        }
        text = inner;
    }
    text
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
        ("'", "'"),
        ("\u{2018}", "\u{2019}"),
        ("<<", ">>"),
        ("*", "*"),
        ("_", "_"),
    ];
    for (open, close) in pairs {
        // An escaped dollar sign is money.
        let marked = |inner: &str, mark: &str| inner.match_indices(mark).any(|(at, _)| !inner[..at].ends_with('\\'));
        if let Some(inner) = t.strip_prefix(open).and_then(|t| t.strip_suffix(close))
            && !inner.ends_with('\\')
            && !marked(inner, open)
            && !marked(inner, close)
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
    for opening in
        ["So:", "Thus:", "Hence:", "Therefore:", "Total:", "Result:", "\u{2192}", "\u{21d2}", "namely ", "i.e. "]
    {
        if let Some(rest) = t.strip_prefix(opening).filter(|r| !r.trim().is_empty()) {
            return python::strip(rest).to_owned();
        }
    }
    for note in
        [", exactly", ", precisely", "(approx.)", "(approx)", "(approximately)", "(rounded)", "(exact)", "(simplified)"]
    {
        if let Some(rest) = t.strip_suffix(note).filter(|r| !r.trim().is_empty()) {
            return python::strip(rest).to_owned();
        }
    }
    if let Some(rest) = before_note(t) {
        return python::strip(rest).to_owned();
    }
    for end in ['.', '!'] {
        if let Some(rest) = t.strip_suffix(end).filter(|r| !r.ends_with('.') && (end == '.' || is_exclamation(r))) {
            return python::strip(rest).to_owned();
        }
    }
    t.to_owned()
}

/// The text before a remark of several words in brackets: "x = 1 (double root)".
fn before_note(text: &str) -> Option<&str> {
    let (rest, note) = text.strip_suffix(')')?.rsplit_once(" (")?;
    let words: Vec<&str> = note.split(' ').collect();
    let plain = |w: &&str| w.len() > 1 && w.chars().all(|c| c.is_ascii_alphabetic() || c == '-');
    let known =
        words.len() > 1 && words.iter().all(plain) && !words.iter().any(|w| matches!(*w, "not" | "or" | "and" | "per"));
    (known && rest.contains(|c: char| c.is_ascii_digit())).then_some(rest)
}

/// True when an exclamation mark behind `text` is no factorial.
fn is_exclamation(text: &str) -> bool {
    let last = text.rsplit(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    last.chars().count() >= 3 && !text.contains('\\')
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

/// A list with one name to a line, with bullets or numbers before them, as a list with commas; a line before it may
/// announce it.
pub(super) fn unbulleted(text: &str) -> Cow<'_, str> {
    const MAX_LINES: usize = 40;
    const MAX_WORDS: usize = 6;
    let plain = python::strip(text);
    if !plain.contains('\n') || plain.len() > MAX_ANSWER {
        return Cow::Borrowed(text);
    }
    let lines: Vec<&str> = plain.split('\n').map(python::strip).filter(|l| !l.is_empty()).take(MAX_LINES + 1).collect();
    let announced = lines[0].trim_end_matches('*').ends_with(':');
    let items: Option<Vec<&str>> = lines[usize::from(announced)..].iter().map(|l| bullet(l)).collect();
    match items {
        Some(items)
            if items.len() > 1
                && lines.len() <= MAX_LINES
                && items.iter().all(|i| i.split_whitespace().count() <= MAX_WORDS && !i.contains([',', '=', ':'])) =>
        {
            Cow::Owned(items.iter().map(|i| i.trim_end_matches(['.', ';'])).collect::<Vec<_>>().join(", "))
        }
        _ => Cow::Borrowed(text),
    }
}

/// What follows a bullet or a number at the beginning of a line.
fn bullet(line: &str) -> Option<&str> {
    let rest = ["- ", "* ", "\u{2022} ", "\u{2022}", "\u{2013} ", "\u{25e6} ", "\u{25aa} ", "+ "];
    if let Some(rest) = rest.iter().find_map(|b| line.strip_prefix(b)) {
        return Some(python::strip(rest));
    }
    let digits = line.trim_start_matches('(').trim_start_matches(|c: char| c.is_ascii_digit());
    if digits.len() == line.len() || line.len() - digits.len() > 3 {
        return None;
    }
    digits.strip_prefix(". ").or(digits.strip_prefix(") ")).map(python::strip)
}

/// The answer inside a text: a box, what follows "the answer is", else the last sentence: all of it, what
/// follows its verb, its last formula.
pub(super) fn locate<'a>(text: &'a str, steps: &Steps) -> &'a str {
    // What stands after the thinking, inside the answer's mark.
    let text = text.rsplit_once("</think>").map_or(text, |(_, rest)| rest);
    let tagged = text.rsplit_once("</answer>").and_then(|(before, _)| before.rsplit_once("<answer>"));
    let text = python::strip(tagged.map_or(text, |(_, content)| content));
    if let Some(found) = last_box(text).or_else(|| after_marker(text)) {
        return found;
    }
    let text = without_closing(text);
    let reads = |t: &str| {
        if t.len() > MAX_ANSWER {
            return false;
        }
        let inner = bare(t);
        if math::is_named(&inner) {
            return true;
        }
        if is_prose(&inner, steps) {
            return false;
        }
        match math::parse(&inner, true, steps) {
            Value::Text(_) => false,
            // Short words side by side read as products of letters.
            Value::Scalar(e, _) => {
                e.has_numbers() || !inner.contains(' ') || inner.contains(['\\', '^', '_', '+', '/', '('])
            }
            _ => true,
        }
    };
    // A sentence with its reason, or with what was left out on the way to its conclusion.
    if !text.contains(['\n', '$']) && !text.contains(". ") {
        let said = before_reason(text);
        if said.len() < text.len() && reads(said) {
            return python::strip(said);
        }
        let joints = [", so ", ", thus ", ", hence ", ", therefore "];
        if text.contains(", but ")
            && let Some((_, rest)) = joints.iter().find_map(|j| text.rsplit_once(j)).filter(|(_, r)| reads(r))
        {
            return python::strip(rest);
        }
    }
    if reads(text) {
        return text;
    }
    let line = text.rsplit('\n').map(python::strip).find(|l| !l.is_empty() && *l != "---").unwrap_or(text);
    let sentence = python::strip(line.rsplit(". ").next().unwrap_or(line));
    let sentence = before_reason(sentence);
    // "Hence 12 is the answer."
    let named = sentence.trim_end_matches(['.', '!', '*']);
    if let Some(named) = [" is the answer", " is the correct answer", " is the final answer"]
        .iter()
        .find_map(|end| named.strip_suffix(end))
    {
        const OPENINGS: [&str; 5] = ["Hence", "Thus", "So", "Therefore", "Then"];
        let found = OPENINGS.iter().find_map(|o| named.strip_prefix(o)).unwrap_or(named);
        return python::strip(found.trim_start_matches([',', ' ']));
    }
    // A conclusion at the end counts for all of it.
    for joint in [", so ", ", thus ", ", hence ", ", therefore ", ", then "] {
        let Some((_, rest)) = sentence.rsplit_once(joint) else { continue };
        if reads(rest) {
            return python::strip(rest);
        }
        // ", so she has 24 apples left"
        if let Some(found) = behind_words(rest).filter(|f| reads(f)) {
            return found;
        }
    }
    if reads(sentence) {
        return sentence;
    }
    // "Exactly fourteen, i.e. 14, such pairs exist."
    if let Some((_, rest)) = sentence.split_once(" i.e. ").or_else(|| sentence.split_once(" i.e., "))
        && let Some(part) = rest.split([',', ')']).next().filter(|p| reads(p))
    {
        return python::strip(part);
    }
    for cut in [
        " giving ",
        " = ",
        " is ",
        " are ",
        " equals ",
        " get ",
        " obtain ",
        " gives ",
        " yields ",
        " equal to ",
        " simplifies to ",
        " reduces to ",
        " evaluates to ",
        " comes to ",
        " it's ",
        ": ",
    ] {
        if let Some((_, rest)) = sentence.rsplit_once(cut)
            && reads(without_adverbs(rest))
        {
            return python::strip(without_adverbs(rest));
        }
    }
    if let Some(found) = last_between(sentence).filter(|f| reads(f)) {
        return found;
    }
    let said = [" is ", " are "].iter().find_map(|cut| sentence.rsplit_once(cut));
    let said = said.filter(|(subject, _)| !words::turned(subject)).map(|(_, rest)| python::strip(rest));
    if let Some(found) = said.filter(|s| s.split_whitespace().count() <= 3).or_else(|| last_between(text)) {
        return found;
    }
    if let Some(found) = behind_words(sentence).or_else(|| spoken(sentence)).filter(|f| reads(f)) {
        return found;
    }
    if sentence.len() < text.len() { sentence } else { text }
}

/// "Therefore", "simply" and the like before an answer.
fn without_adverbs(mut text: &str) -> &str {
    const ADVERBS: [&str; 16] = [
        "therefore ",
        "thus ",
        "then ",
        "hence ",
        "simply ",
        "just ",
        "indeed ",
        "clearly ",
        "still ",
        "now ",
        "also ",
        "most likely ",
        "actually ",
        "therefore, ",
        "thus, ",
        "in fact ",
    ];
    while let Some(rest) = ADVERBS.iter().find_map(|a| text.strip_prefix(a)) {
        text = rest;
    }
    text
}

/// The text without a last sentence of politeness, the end of a proof, a check or a remark.
fn without_closing(text: &str) -> &str {
    const POLITE: &[&str] = &[
        "verification",
        "verify",
        "to verify",
        "check:",
        "checking",
        "check that",
        "to check",
        "quick check",
        "double-check",
        "double check",
        "sanity check",
        "we can check",
        "we can verify",
        "you can check",
        "you can verify",
        "note:",
        "note that",
        "(note",
        "remark",
        "explanation:",
        "reason:",
        "reasoning:",
        "this is because",
        "this follows",
        "this matches",
        "this confirms",
        "this agrees",
        "recall that",
        "i hope",
        "hope this",
        "hope that",
        "let me know",
        "feel free",
        "please let",
        "if you have any",
        "if you need",
        "is there anything",
        "would you like",
        "do you want",
        "happy to help",
        "q.e.d",
        "qed",
    ];
    const MOST: usize = 6;
    let mut kept = text;
    for _ in 0..MOST {
        let end = python::strip(kept).trim_end_matches(['.', '!', '?', ' ', '*']);
        let last = ["\n", ". ", "! ", "? "].iter().filter_map(|e| end.rfind(e)).max().map_or(0, |at| at + 1);
        let tail = end.get(last..).unwrap_or_default().trim_start_matches(['*', ' ', '\n']).to_lowercase();
        if last > 0 && POLITE.iter().any(|p| tail.starts_with(p)) {
            kept = &kept[..last];
            continue;
        }
        break;
    }
    python::strip(kept)
}

/// The text without the reason behind it, or what it is told from.
fn before_reason(text: &str) -> &str {
    const REASONS: &[&str] = &[
        ", which ",
        ", even though ",
        " even though ",
        ", although ",
        " although ",
        ", though ",
        ", whereas ",
        ", while ",
        ", despite ",
        ", as required",
        ", as expected",
        ", as desired",
        ", as claimed",
        ", as shown",
        ", as can be ",
        ", as we ",
        ", consistent with ",
        ", in agreement ",
        ", matching ",
        ", confirming ",
        ", verifying ",
        ", using ",
        ", rounded ",
        ", to the nearest ",
        ", by the ",
        " by the ",
        ", due to ",
        " due to ",
        ", given that ",
        " (which ",
        " (check",
        " (see ",
        " (by ",
        " (using ",
        ", up from ",
        ", down from ",
        " instead",
        ", unlike ",
        ", where we ",
        ", after ",
        " because ",
        " since ",
        " (because ",
        " (since ",
        ", because ",
        ", since ",
        ", not ",
        " (not ",
        " rather than ",
        " instead of ",
    ];
    // "x = 7 (x = -3 is extraneous)", "x = 7; the other root is rejected".
    const REJECTED: [&str; 6] = ["extraneous", "reject", "discard", "invalid", "not valid", "impossible"];
    let rejected = [" (", "; ", ", "].iter().filter_map(|open| {
        let at = text.find(open).filter(|at| *at > 0)?;
        REJECTED.iter().any(|r| text[at..].contains(r)).then(|| &text[..at])
    });
    let reason = REASONS.iter().filter_map(|r| text.split_once(r)).map(|(s, _)| s);
    reason.chain(rejected).min_by_key(|s| s.len()).unwrap_or(text)
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
    // "x = " before a box, or between two.
    let named = |t: &str| {
        let t = t.trim_end_matches(|c: char| c == '$' || python::is_space(c));
        let name = t.strip_suffix('=').map(str::trim_end)?;
        let from = name.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "_\\{}".contains(c)).len();
        (from < name.len()).then_some(from)
    };
    while let Some((before, body)) = start(&text[..at]) {
        let Some((_, close)) = content(body) else { break };
        let between = text.get(close..at).map(|t| &t[..named(t).unwrap_or(t.len())]);
        let between = between.map(|t| t.trim_matches(|c: char| c == '$' || python::is_space(c)));
        if !between.is_some_and(|b| matches!(b, "or" | "and" | "," | ", and" | ";" | "$ and" | "$,")) {
            break;
        }
        (at, joined) = (before, true);
    }
    let at = if joined { named(&text[..at]).unwrap_or(at) } else { at };
    Some(if joined { &text[at..end] } else { last })
}

/// What follows the last "answer is", "answer:", "####" on its line.
fn after_marker(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let markers = [
        "answer is",
        "answer was",
        "answer must be",
        "answer should be",
        "answer would be",
        "answer will be",
        "answer has to be",
        "answer becomes",
        "answer equals",
        "answer comes out to be",
        "answer turns out to be",
        "answer in the box:",
        "answer: }",
        "answer:}",
        "answer} :",
        "answer}:",
        "answer:",
        "solution:",
        "\u{c815}\u{b2f5}:",
        "\u{b2f5}:",
        "\u{7b54}\u{6848}:",
        "\u{7b54}\u{6848}\u{ff1a}",
        "\u{7b54}\u{6848}\u{662f}",
        "\u{7b54}\u{3048}:",
        "\u{7b54}\u{3048}\u{306f}",
        "r\u{e9}ponse :",
        "r\u{e9}ponse:",
        "respuesta:",
        "respuesta final:",
        "resposta:",
        "risposta:",
        "antwort:",
        "\u{43e}\u{442}\u{432}\u{435}\u{442}:",
        "\u{41e}\u{442}\u{432}\u{435}\u{442}:",
        "####",
        "result:",
        "option is",
        "choice is",
        "answer =",
        "answer -",
        "answer**:",
        "result is",
        "result is:",
    ];
    let at = markers.iter().filter_map(|m| lower.rfind(m).map(|at| at + m.len())).max()?;
    let rest = &text[at..];
    let rest = rest.trim_start_matches(|c: char| python::is_space(c) || matches!(c, ':' | '*' | '}'));
    // "Not 13 but 14", "13? No, it is 14".
    let rest = without_adverbs(rest);
    let rest = if rest.starts_with("not ") { rest.split_once(" but ").map_or(rest, |(_, r)| r) } else { rest };
    let rest = match rest.split_once("? No, it is ").or_else(|| rest.split_once("? No, it's ")) {
        Some((_, meant)) => meant,
        None => rest,
    };
    let line = rest.split('\n').next()?;
    let sentence = line.split(". ").next().unwrap_or(line);
    let sentence = sentence.trim_end_matches(['*', ' ', '.']);
    // The brace of a box or of upright letters that begins before the marker.
    let braces = |c: char| sentence.matches(c).count();
    let sentence = if braces('}') > braces('{') { sentence.strip_suffix('}').unwrap_or(sentence) } else { sentence };
    let found = python::strip(before_reason(sentence));
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
