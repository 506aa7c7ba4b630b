//! Finds the answer inside a text and removes the marks that wrap it.

use std::borrow::Cow;

use crate::lexicon::{self, Kind};
use crate::steps::Steps;
use crate::value::{self, Value};
use crate::{extract, python};

/// Maximum number of wrappers around one answer.
const MAX_WRAPPERS: usize = 32;
/// Maximum length in bytes of a text that can be one answer.
pub(super) const MAX_ANSWER: usize = 10_000;
/// Maximum length in bytes of a sentence that is searched for its answer.
const MAX_SENTENCE: usize = 600;
/// Maximum number of words after the verb that are taken as the answer.
const MAX_SAID: usize = 3;

/// An answer and the text around it.
pub(super) struct Located<'a> {
    /// The answer.
    pub(super) text: Cow<'a, str>,
    /// Parsed value of the answer, if it was found by parsing.
    pub(super) value: Option<Value>,
    /// The sentence or mark that contains the answer, without the reason that follows it.
    pub(super) clause: Cow<'a, str>,
}

/// Opening and closing marks of formulas.
const MARKS: [(&str, &str); 5] = [("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$"), ("**", "**")];

/// Finds the answer inside a text. It is taken from the first of these that exists:
///
/// 1. the boxes,
/// 2. the text after "the answer is" or a similar marker,
/// 3. a block of code at the end,
/// 4. the complete text, if it parses as one value,
/// 5. the last sentence: all of it, the part after its verb, or its last formula.
pub(super) fn locate<'a>(text: &'a str, steps: &Steps) -> Located<'a> {
    let answer_text = extract::without_thinking(text);
    let text = python::strip(extract::last_answer_tag(answer_text).unwrap_or(answer_text));
    let whole = |text: Cow<'a, str>, value| Located { clause: text.clone(), text, value };
    if let Some(found) = boxes(text).or_else(|| after_marker(text).map(Cow::Borrowed)) {
        return whole(found, None);
    }
    if let Some(code) = code_block(text) {
        return Located { text: Cow::Borrowed(code), value: None, clause: Cow::Borrowed(text) };
    }
    if let Some(value) = read(text, steps) {
        return whole(Cow::Borrowed(text), Some(value));
    }
    let line = text.rsplit('\n').map(python::strip).find(|l| !l.is_empty() && *l != "---").unwrap_or(text);
    let sentence = before_reason(python::strip(last_sentence(line)));
    // A conclusion at the end of the sentence replaces the whole sentence.
    let clause = conclusion(sentence).unwrap_or(sentence);
    let (text, value) = in_sentence(clause, sentence, text, steps).unwrap_or_else(|| {
        let all = if clause.len() < text.len() { last_formula(text).unwrap_or(clause) } else { text };
        (Cow::Borrowed(all), None)
    });
    Located { text, value, clause: Cow::Borrowed(clause) }
}

/// Returns the text after the last sign that ends a sentence. The point after an option's letter does not end one.
fn last_sentence(line: &str) -> &str {
    let ends = ["? ", "! ", ". "].iter().flat_map(|end| line.match_indices(end).map(|(at, _)| at)).filter(|&at| {
        let word = line[..at].rsplit(' ').next().unwrap_or_default();
        let initial = word.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let is_initial = initial.len() == 1 && initial.starts_with(char::is_uppercase);
        !(line[at..].starts_with('.') && (is_initial || word.trim_start_matches(['(', '*']).len() < 2))
    });
    ends.max().map_or(line, |at| &line[at + 2..])
}

/// Returns the text after the last conclusion word that follows a comma or similar mark: ", so it is a square".
fn conclusion(sentence: &str) -> Option<&str> {
    let joints = lexicon::find(Kind::Joint, sentence);
    let concluded = |at: &&(usize, usize)| sentence[..at.0].trim_end().ends_with([',', ';', ':', '$', ')']);
    let behind = |at: &(usize, usize)| python::strip(sentence[at.1..].trim_start_matches([',', ' ']));
    joints.iter().rev().find(concluded).map(behind).filter(|t| !t.is_empty())
}

/// Returns the content of a block of code at the end of a text, without the name of its language.
fn code_block(text: &str) -> Option<&str> {
    let inner = text.strip_suffix("```")?.rsplit_once("```")?.1;
    let (tag, code) = inner.split_once(python::is_space)?;
    let tagged = inner[tag.len()..].starts_with('\n') || code.starts_with(['[', '{', '"']);
    let code = if tagged && tag.chars().all(|c| c.is_alphanumeric()) { code } else { inner };
    Some(python::strip(code)).filter(|code| !code.is_empty())
}

/// Parses a text that consists of one value only.
fn read(text: &str, steps: &Steps) -> Option<Value> {
    if text.len() > MAX_ANSWER {
        return None;
    }
    let inner = collapse(text);
    let inner = unwrapped(&inner);
    if is_prose(inner) {
        return None;
    }
    let value = value::parse(&unmarked(inner), true, steps);
    let known = match &value {
        Value::Text(_) => false,
        // Letters side by side would parse as a product.
        Value::Scalar(e, _) => {
            e.has_numbers() || !inner.contains(' ') || inner.contains(['\\', '^', '_', '+', '/', '('])
        }
        _ => true,
    };
    known.then_some(value)
}

/// Finds the answer in a sentence: its complete conclusion, the part after a verb, or a formula. Returns it with its
/// value, if it was parsed. `tried` is the text that is already known not to parse as one value.
fn in_sentence<'a>(
    clause: &'a str,
    sentence: &'a str,
    tried: &str,
    steps: &Steps,
) -> Option<(Cow<'a, str>, Option<Value>)> {
    let unread = |text: &'a str| (Cow::Borrowed(text), None);
    if sentence.len() > MAX_SENTENCE {
        return last_formula(sentence).map(unread);
    }
    let reads = |text: Cow<'a, str>| read(&text, steps).map(|value| (text, Some(value)));
    let all = [Some(clause).filter(|t| *t != tried), Some(sentence).filter(|t| *t != tried && *t != clause)];
    if let Some(found) = all.into_iter().flatten().find_map(|t| reads(Cow::Borrowed(t))) {
        return Some(found);
    }
    let verbs = lexicon::find(Kind::Shows, clause);
    let mut cuts = lexicon::find(Kind::Joint, clause);
    cuts.extend(&verbs);
    cuts.extend([" = ", ": "].into_iter().flat_map(|s| clause.match_indices(s).map(|(at, s)| (at, at + s.len()))));
    cuts.sort_unstable_by_key(|cut| cut.1);
    let is_verb = |v: &&(usize, usize)| matches!(&clause[v.0..v.1], "is" | "are" | "was" | "were");
    let shown = cuts.iter().rev().filter_map(|cut| {
        let (head, rest) = (clause[..cut.0].trim_end(), python::strip(&clause[cut.1..]));
        // A single letter is the name of what follows: "x is 5".
        let letter = |c: char| c.is_ascii_alphabetic() && !"aAI".contains(c);
        let name = head.rsplit(' ').next().filter(|w| w.len() == 1 && w.starts_with(letter));
        let name = name.filter(|_| is_verb(&cut) || clause[..cut.1].ends_with(" = ")).unwrap_or_default();
        if rest.is_empty() || is_qualified(&head[..head.len() - name.len()]) {
            return None;
        }
        Some(if name.is_empty() { Cow::Borrowed(rest) } else { Cow::Owned(format!("{name} = {rest}")) })
    });
    if let Some(found) = shown.into_iter().find_map(reads) {
        return Some(found);
    }
    let formula = last_formula(clause).filter(|f| !is_qualified(&clause[..clause.rfind(f).unwrap_or(0)]));
    let answer_text = verbs.iter().rev().find(is_verb).map(|v| python::strip(&clause[v.1..]));
    let answer_text = answer_text.filter(|s| !s.is_empty() && s.split_whitespace().count() <= MAX_SAID);
    formula
        .and_then(|f| reads(Cow::Borrowed(f)))
        .or_else(|| answer_text.or(formula).map(unread))
        .or_else(|| reads(Cow::Borrowed(behind_words(clause)?)))
}

/// Returns true if the last words before a value change its meaning ("multiples of", "greater than or"), or if the
/// value is the condition of an earlier value ("18 when x =").
fn is_qualified(before: &str) -> bool {
    let before = before.trim_end_matches([' ', '$']);
    let before = [" or", " than"].iter().fold(before, |words, end| words.strip_suffix(end).unwrap_or(words));
    let ends = |kind| lexicon::find(kind, before).last().is_some_and(|found| found.1 == before.len());
    let condition = || ends(Kind::Condition) && before.contains(|c: char| c.is_ascii_digit());
    (ends(Kind::Modifier) && !ends(Kind::Shows)) || condition()
}

/// Cuts off the reason after an answer, or the alternative that the answer is contrasted with ("12, not 13").
fn before_reason(text: &str) -> &str {
    let strong = lexicon::find(Kind::Reason, text).into_iter().map(|r| r.0);
    let apart = |at: &usize| text[..*at].trim_end().ends_with([',', '(']);
    let aside = lexicon::find(Kind::Aside, text).into_iter().map(|r| r.0).filter(apart);
    let not = text.match_indices(", not ").chain(text.match_indices("(not ")).map(|(at, _)| at);
    let leads_on = |at: &usize| lexicon::leading(Kind::Joint, &text[*at..]).is_some();
    let at = strong.chain(aside).chain(not).filter(|at| *at > 0 && !leads_on(at)).min();
    at.map_or(text, |at| text[..at].trim_end_matches([' ', ',', '(']))
}

/// Returns the text after plain words: "the point (2, 3)", "it costs $20". Returns `None` if one of the words changes
/// the value.
fn behind_words(sentence: &str) -> Option<&str> {
    let at = sentence.find(|c: char| c.is_ascii_digit() || "([{$\\-".contains(c))?;
    let (words, rest) = sentence.split_at(at);
    let plain = |w: &str| w.chars().all(|c| c.is_alphabetic() || c == '\'' || c == ',');
    let changing = [Kind::Denial, Kind::Modifier].iter().any(|kind| !lexicon::find(*kind, words).is_empty());
    // "Step 3" names one step. It does not count three of them.
    let label = words.split_whitespace().last().is_some_and(|w| lexicon::is(Kind::Label, w));
    let numbers = label && rest.starts_with(|c: char| c.is_ascii_digit());
    let plain = words.ends_with(' ') && words.split_whitespace().all(plain);
    (plain && !changing && !numbers).then(|| python::strip(rest))
}

/// Returns the positions of the dollar signs that are not escaped. An escaped one stands for money.
fn dollars(text: &str) -> Vec<usize> {
    text.match_indices('$').map(|(at, _)| at).filter(|&at| !text[..at].ends_with('\\')).collect()
}

/// Returns true if only commas, "and" and "or" stand between the formulas in dollar signs. A dollar sign of an amount
/// of money does not mark a formula.
fn formulas_only(text: &str) -> bool {
    let marks = dollars(text);
    let money = |at: &usize| text.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit);
    if marks.iter().all(money) && (marks.len() < 2 || marks.len() % 2 == 1) {
        return true;
    }
    let mut outside = vec![text.get(..marks[0]), marks.last().and_then(|at| text.get(at + 1..))];
    outside.extend(marks[1..].chunks(2).map(|c| c.get(1).and_then(|to| text.get(c[0] + 1..*to))));
    let joins = |t: &str| t.split_whitespace().all(|w| matches!(w.trim_matches([',', '.']), "and" | "or" | ""));
    outside.into_iter().flatten().all(joins)
}

/// Returns true for a text that contains formulas among words, or more than one sentence. Such a text is not a single
/// answer.
fn is_prose(text: &str) -> bool {
    let marked = ["\\[", "\\("].iter().any(|m| text.match_indices(m).any(|(at, _)| !text[..at].ends_with('\\')));
    let sentences = text.match_indices(". ").any(|(at, _)| {
        text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '$' || c == ')')
            && text[at + 2..].starts_with(|c: char| c.is_ascii_uppercase())
    });
    marked || !formulas_only(text) || sentences
}

/// Returns the content of the last box. If several boxes stand in one sentence with it, returns all of them as a list.
pub(super) fn boxes(text: &str) -> Option<Cow<'_, str>> {
    let found = extract::outer_boxes(text);
    let ends = |between: &str| {
        between.contains(char::is_alphabetic)
            && [". ", ".\n", "\n\n", "? ", "! "].iter().any(|end| between.contains(end))
    };
    let apart = (1..found.len()).rev().find(|&n| ends(text.get(found[n - 1].2..found[n].1).unwrap_or_default()));
    extract::one_or_list(&found[apart.unwrap_or(0)..])
}

/// Returns the text on the same line after the last "answer is", "answer:" or "####".
fn after_marker(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let behind = |marker: &&str| {
        let at = lower.rfind(&marker.to_lowercase())? + marker.len();
        let rest = text.get(at..)?;
        // A marker that ends in a noun needs a sign after it. A Chinese verb stands directly before the answer.
        let joined = marker.ends_with(['\u{662f}', '\u{4e3a}', '\u{9009}']);
        let verb = joined || (marker.ends_with(['s', 'e']) && marker.contains(' '));
        let sign = rest.trim_start_matches(['*', '_', ' ']).starts_with([':', '=', '-', '\u{2013}', '\u{ff1a}']);
        let apart = joined || rest.starts_with(|c: char| !c.is_alphanumeric());
        (apart && (verb || sign)).then_some(at)
    };
    let words = lexicon::rows(Kind::Marker).iter().map(|r| r.0).filter_map(|m| behind(&m));
    let at = words.chain(lower.rfind("####").map(|at| at + 4)).max()?;
    let idle = |c: char| python::is_space(c) || matches!(c, ':' | '*' | '=' | '_' | '\u{ff1a}');
    let rest = text[at..].trim_start_matches(idle);
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let line = rest.split('\n').next()?;
    let sentence = line.split(". ").next().unwrap_or(line).trim_end_matches(['*', '_', ' ', '.']);
    let found = python::strip(before_reason(sentence));
    if found.is_empty() {
        return None;
    }
    Some(last_formula(found).filter(|f| f.len() + 12 > found.len()).unwrap_or(found))
}

/// Returns the last formula or bold text. Words that follow it belong to it (as its unit), unless they begin with a
/// verb.
fn last_formula(text: &str) -> Option<&str> {
    // An escaped dollar sign is money, not the end of a formula.
    let last = |t: &str, mark: &str| t.rmatch_indices(mark).map(|(at, _)| at).find(|&at| !t[..at].ends_with('\\'));
    let (from, inner, end) = MARKS
        .iter()
        .filter_map(|(open, close)| {
            let end = last(text, close)?;
            let from = last(&text[..end], open)?;
            let inner = python::strip(&text[from + open.len()..end]);
            (!inner.is_empty()).then_some((from, inner, end + close.len()))
        })
        .max_by_key(|&(_, inner, end)| (end, inner.len()))?;
    let tail = text[end..].trim_end_matches(['.', '!', '*', ' ', ')', ',', ':']);
    let verb = [Kind::Shows, Kind::Joint].iter().any(|kind| lexicon::behind(*kind, tail).is_some());
    if tail.trim().is_empty() || verb || tail.starts_with(['.', ',', ';', ':', '\n', ')']) {
        return Some(inner);
    }
    Some(&text[from..end + tail.len()])
}

/// Collapses white space: none around the text, one space inside.
fn collapse(text: &str) -> String {
    text.split(python::is_space).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Removes the wrappers of an answer: dollar signs, boxes, bold marks, `\text`, a final full stop.
pub(super) fn bare(text: &str) -> String {
    unmarked(unwrapped(&collapse(text)))
}

fn unwrapped(text: &str) -> &str {
    let unwraps = std::iter::successors(Some(text), |text| Some(unwrap(text)).filter(|next| next.len() < text.len()));
    unwraps.take(MAX_WRAPPERS + 1).last().unwrap_or(text)
}

/// Removes dollar signs that enclose formulas. They must come in pairs, and the second of a pair must not stand before
/// an amount.
fn unmarked(text: &str) -> String {
    let marks = dollars(text);
    let money = |at: &usize| text[at + 1..].trim_start().starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if marks.is_empty() || marks.len() % 2 == 1 || marks.iter().skip(1).step_by(2).any(money) {
        return text.to_owned();
    }
    let mut plain = text.to_owned().into_bytes();
    marks.into_iter().for_each(|at| plain[at] = b' ');
    collapse(&String::from_utf8_lossy(&plain))
}

fn unwrap(text: &str) -> &str {
    let t = python::strip(text);
    for (open, close) in MARKS.into_iter().chain([("__", "__"), ("`", "`"), ("\"", "\"")]) {
        // An escaped dollar sign is money.
        let marked = |inner: &str, mark: &str| inner.match_indices(mark).any(|(at, _)| !inner[..at].ends_with('\\'));
        if let Some(inner) = t.strip_prefix(open).and_then(|t| t.strip_suffix(close))
            && !inner.ends_with('\\')
            && !marked(inner, open)
            && !marked(inner, close)
        {
            return python::strip(inner);
        }
    }
    for command in ["boxed", "fbox", "text", "bold"] {
        let body = t.strip_prefix('\\').and_then(|t| t.strip_prefix(command)).map(str::trim_start);
        let group = |b: &str| extract::closing(b, '{', '}').filter(|end| end + 1 == b.len());
        if let Some(body) = body.and_then(|b| b.strip_prefix('{'))
            && let Some(length) = group(body)
        {
            return python::strip(&body[..length]);
        }
    }
    if let Some(rest) = t.strip_suffix('.').filter(|r| !r.ends_with('.')) {
        return python::strip(rest);
    }
    t
}
