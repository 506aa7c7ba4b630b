//! The answer inside a text.

use super::answer::{MAX_ANSWER, bare};
use super::math::{self, Steps, Value};
use super::prose::{behind_words, first_sentence, is_prose, last_sentence, sentence_end, spoken};
use super::python;
use super::remarks::{before_reason, taken_somewhere, without_adverbs, without_closing};
use super::words::{self, tables::Bytes};

/// The answer inside a text: a box, what follows "the answer is", else the last sentence: all of it, what
/// follows its verb, its last formula.
pub(super) fn locate<'a>(text: &'a str, steps: &Steps) -> &'a str {
    let text = inside(text);
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
    if !text.contains(['\n', '$']) && sentence_end(text).is_none() {
        let said = before_reason(text);
        if said.len() < text.len() && reads(said) {
            return python::strip(said);
        }
        if let Some(value) = taken_somewhere(text).filter(|v| reads(v)) {
            return python::strip(value);
        }
        let given =
            [", giving ", ", yielding ", ", which gives ", ", we get ", ", we obtain ", ", we find ", ", leaving "];
        if let Some((_, rest)) = given.iter().find_map(|j| text.rsplit_once(j)).filter(|(_, r)| reads(r)) {
            return python::strip(rest);
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
    let sentence = closing_sentence(text);
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
    // "The general solution is $...$, where $A$ and $B$ are constants.": the first verb is the answer's.
    if sentence.contains('$')
        && ["integer", "constant", "real", "parameter", "arbitrary", "otherwise", " if "]
            .iter()
            .any(|w| sentence.contains(w))
    {
        const OPENINGS: [&str; 6] = ["Hence", "Thus", "So", "Therefore", "Then", "Finally"];
        let opened = OPENINGS.iter().find_map(|o| sentence.strip_prefix(o)).unwrap_or(sentence);
        let opened = python::strip(opened.trim_start_matches([',', ' ']));
        let behind = [" is ", " are ", ": "].iter().filter_map(|cut| sentence.split_once(cut)).map(|(_, rest)| rest);
        if let Some(found) = std::iter::once(opened).chain(behind).find(|t| t.len() < text.len() && reads(t)) {
            return python::strip(found);
        }
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
        if let Some((before, rest)) = sentence.rsplit_once(cut)
            && !(cut == " equal to " && before.ends_with(" or"))
            && reads(without_adverbs(rest))
        {
            return python::strip(without_adverbs(rest));
        }
    }
    if let Some(found) = last_between(sentence).filter(|f| reads(f)) {
        return with_unit(sentence, found, steps);
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

/// What an answer comes to as a whole sentence: a box, what follows "the answer is", else the last sentence.
pub(super) fn stated(text: &str) -> &str {
    let text = inside(text);
    if let Some(found) = last_box(text).or_else(|| after_marker(text)) {
        return found;
    }
    closing_sentence(without_closing(text))
}

/// The last sentence of the last line that is no rule.
fn closing_sentence(text: &str) -> &str {
    let line = text.rsplit('\n').map(python::strip).find(|l| !l.is_empty() && *l != "---").unwrap_or(text);
    python::strip(last_sentence(line))
}

/// What stands after the thinking, inside the answer's mark.
fn inside(text: &str) -> &str {
    let text = text.rsplit_once("</think>").map_or(text, |(_, rest)| rest);
    const MARKS: [(&str, &str); 8] = [
        ("<answer>", "</answer>"),
        ("<final_answer>", "</final_answer>"),
        ("<finalanswer>", "</finalanswer>"),
        ("<final>", "</final>"),
        ("<ans>", "</ans>"),
        ("<result>", "</result>"),
        ("<solution>", "</solution>"),
        ("<output>", "</output>"),
    ];
    let marks = if text.contains("</") { &MARKS[..] } else { &[] };
    let tagged = marks.iter().find_map(|(open, close)| {
        text.rsplit_once(close).and_then(|(before, _)| before.rsplit_once(open)).map(|(_, content)| content)
    });
    python::strip(tagged.unwrap_or(text))
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
        "answers:",
        "answers are",
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
        "answer \u{2192}",
        "answer \u{21d2}",
        "answer =>",
        "answer ->",
        "answer**:",
        "result is",
        "result is:",
    ];
    let (held, answers) = (Bytes::of(&lower), lower.contains("answer"));
    let told = markers.iter().filter(|m| held.may_hold(m) && (answers || !m.starts_with("answer")));
    let at = told.filter_map(|m| lower.rfind(m).map(|at| at + m.len())).max()?;
    let rest = &text[at..];
    let rest = rest.trim_start_matches(|c: char| python::is_space(c) || matches!(c, ':' | '*' | '}'));
    // "Not 13 but 14", "13? No, it is 14".
    let rest = without_adverbs(rest);
    const INSTEAD: [&str; 9] =
        [" but ", "; it is ", ", it is ", "; it's ", ", it's ", " it is ", "; rather, ", "; rather ", ", rather "];
    let denied = rest.starts_with("not ") || rest.starts_with("n't ");
    let meant = INSTEAD.iter().find_map(|j| rest.split_once(j)).filter(|_| denied);
    let rest = meant.map_or(rest, |(_, r)| r);
    let rest = match rest.split_once("? No, it is ").or_else(|| rest.split_once("? No, it's ")) {
        Some((_, meant)) => meant,
        None => rest,
    };
    let line = rest.split('\n').next()?;
    let sentence = first_sentence(line);
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

/// A number between dollar signs with the unit behind them: `$212$ degrees Celsius`.
fn with_unit<'a>(sentence: &'a str, found: &'a str, steps: &Steps) -> &'a str {
    let marked = format!("${found}$ ");
    let Some(at) = sentence.rfind(&marked) else { return found };
    let unit = sentence[at + marked.len()..].trim_end_matches(['.', ' ']);
    let number = found.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '-'));
    if number && math::is_unit(unit, steps) { &sentence[at..at + marked.len() + unit.len()] } else { found }
}

/// The last formula or bold text.
fn last_between(text: &str) -> Option<&str> {
    // An escaped dollar sign is money, not the end of a formula.
    let last = |t: &str, mark: &str| t.rmatch_indices(mark).map(|(at, _)| at).find(|&at| !t[..at].ends_with('\\'));
    [("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$"), ("**", "**"), ("`", "`")]
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
