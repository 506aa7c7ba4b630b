//! The number or formula at the end of a line, and whether it is a whole answer or the end of a longer expression.

use std::borrow::Cow;

use crate::lexicon::{self, Kind};
use crate::python;

/// Marks of layout that may stand directly before or behind a number.
const MARKS: [char; 5] = ['*', '$', '`', '"', '\\'];
/// Signs after which a value begins.
const OPENS: &str = "= &= ~ ≈ → ⇒ ∴ => -> \\approx \\to \\rightarrow \\Rightarrow \\implies \\therefore";
/// Words before a number that make it a part of an expression.
const JOINS: &str = "and or by per mod modulo root power sqrt versus vs through";

/// Returns the position where the digits at the end of `text` begin.
pub(super) fn start_of_digits(text: &str) -> Option<usize> {
    let start = text.trim_end_matches(python::is_digit).len();
    (start < text.len()).then_some(start)
}

/// Cuts off the end of a line after its last number: white space, one full stop, and white space before it.
pub(super) fn end_of_number(line: &str) -> &str {
    let line = line.trim_end_matches(python::is_space);
    line.strip_suffix('.').unwrap_or(line).trim_end_matches(python::is_space)
}

/// Marks of a formula in a text, before and behind it.
const FORMULA: [(&str, &str); 4] = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")];

/// Returns the answer of a line that ends with a formula or a number; see [`formulas`] and [`number`].
pub(super) fn answer(line: &str) -> Option<Cow<'_, str>> {
    formulas(line).or_else(|| binomial(line)).or_else(|| number(line).map(Cow::Borrowed))
}

/// Returns the binomial coefficient at the end of a line: `9 choose 4`.
fn binomial(line: &str) -> Option<Cow<'_, str>> {
    let (before, k) = end_of_number(line).rsplit_once(" choose ")?;
    let n = &before[start_of_digits(before)?..];
    k.chars().all(python::is_digit).then(|| Cow::Owned(format!("\\binom{{{n}}}{{{k}}}")))
}

/// Returns the value of a formula at the end of a line: `so x is $\frac{1}{2}$.` Formulas that are joined to it form a list:
/// `$x = 1$ or $x = 2$`. Behind a negation or an "or", returns all of the line.
fn formulas(line: &str) -> Option<Cow<'_, str>> {
    let text = end_of_number(line.trim_end_matches(|c: char| python::is_space(c) || "*!".contains(c)));
    let text = text.trim_end_matches('*');
    let (mut begin, last) = formula(text)?;
    let mut values = vec![value(last)];
    while let Some((from, body)) = joined(&text[..begin]) {
        values.push(value(body));
        begin = from;
    }
    values.reverse();
    let has_digit = values.iter().all(|value| value.contains(|c: char| python::is_digit(c)));
    has_digit.then(|| match (part_of(&text[..begin]), &values[..]) {
        (Some(from), _) => Cow::Borrowed(python::strip(&text[from..])),
        (None, [one]) => Cow::Borrowed(*one),
        (None, all) => Cow::Owned(all.join(", ")),
    })
}

/// Returns where the formula at the end of a text begins, and the formula without its marks.
fn formula(text: &str) -> Option<(usize, &str)> {
    FORMULA.iter().find_map(|(open, close)| {
        let inside = text.strip_suffix(close)?;
        let begin = inside.rfind(open)?;
        Some((begin, &inside[begin + open.len()..]))
    })
}

/// Returns the formula that a comma, "and" or "or" at the end of a text joins to the next one.
fn joined(text: &str) -> Option<(usize, &str)> {
    let end = FORMULA.iter().filter_map(|(_, close)| Some(text.rfind(close)? + close.len())).max()?;
    formula(&text[..end]).filter(|_| is_joint(&text[end..]))
}

/// Returns true if the text between two boxes or formulas joins them to a list: a comma, "and" or "or", perhaps with the name of the
/// next value (`and $y =`).
pub(super) fn is_joint(between: &str) -> bool {
    const LAYOUT: [&str; 6] = ["\\(", "\\)", "\\[", "\\]", "\\quad", "\\text"];
    let between = LAYOUT.iter().fold(between.to_owned(), |text, mark| text.replace(mark, " "));
    let named = between
        .trim_end()
        .strip_suffix('=')
        .and_then(|text| text.trim_end().rsplit_once(|c: char| !(c.is_alphanumeric() || "_{}\\".contains(c))));
    let joint = named.map_or(&*between, |(joint, _)| joint);
    let words = joint.split(|c: char| python::is_space(c) || "$*,;{}".contains(c)).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    words.iter().all(|word| matches!(*word, "and" | "or" | "&")) && (!words.is_empty() || joint.contains([',', ';']))
}

/// Returns what stands behind the last `=` of a formula, or all of a list or of another relation.
fn value(formula: &str) -> &str {
    let (before, value) = formula.rsplit_once('=').unwrap_or(("", formula));
    // "x = 1 \text{ or } x = 2", "x + y = 3, x - y = 1".
    let is_list = before.contains([',', ';']) || before.contains("\\text") || before.contains("\\quad");
    let is_relation = before.ends_with(['!', '<', '>', '&']) || before.contains("\\ne");
    python::strip(if is_list || is_relation { formula } else { value })
}

/// Returns the answer of a line that ends with a number: the number with sign, thousands separators and decimals
/// (`-1,234.5`) if it is whole. If it is the end of a fraction, a power, a time, a list and similar, or if a negation or an
/// "or" precedes it, returns all of the line, in which the verifier finds the expression.
fn number(line: &str) -> Option<&str> {
    let is_mark = |c: char| python::is_space(c) || MARKS.contains(&c);
    let end = end_of_number(line.trim_end_matches(|c: char| is_mark(c) || c == '!')).trim_end_matches(is_mark);
    let mut start = start_of_digits(end)?;
    loop {
        let before = &end[..start];
        let longer = before.strip_suffix(['.', ',']).and_then(start_of_digits);
        let group = end[start..].chars().take_while(|&c| python::is_digit(c)).count();
        match longer {
            Some(at) if before.ends_with('.') && !end[start..].contains(['.', ',']) => start = at,
            Some(at) if before.ends_with(',') && group == 3 && before.len() - 1 - at <= 3 => start = at,
            _ => break,
        }
    }
    let before = &end[..start];
    // A minus directly after a word, a number or a closing bracket is an operator. Elsewhere it is a sign.
    let sign = before.strip_suffix(['-', '\u{2212}']);
    let sign = sign.filter(|rest| !rest.chars().next_back().is_some_and(|c| python::is_word(c) || c == ')'));
    if before.chars().next_back().is_some_and(python::is_word) {
        return None;
    }
    let start = sign.map_or(start, str::len);
    match part_of(&end[..start]) {
        None => Some(&end[start..]),
        Some(from) => Some(python::strip(&end[from..])),
    }
}

/// Returns where the expression begins that continues with a number behind `before`, or `None` if the number is whole.
fn part_of(before: &str) -> Option<usize> {
    let unmarked = before.trim_end_matches(MARKS);
    let text = unmarked.trim_end_matches(|c| python::is_space(c) || MARKS.contains(&c));
    let from = text.rfind(python::is_space).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let (earlier, word) = (text[..from].trim_end(), &text[from..]);
    let number = earlier.rfind(python::is_space).map_or(0, |at| at + 1);
    if word == ":" && earlier[number..].starts_with(|c: char| python::is_digit(c)) {
        return Some(number);
    }
    if let Some(root) = text.rfind("square root of").filter(|at| at + "square root of".len() == text.len()) {
        return Some(root);
    }
    // "It is not 24 but 26".
    if word == "but" && earlier[number..].ends_with(|c: char| python::is_digit(c)) {
        return None;
    }
    if let Some(first) = repeated_name(text) {
        return Some(first);
    }
    if lexicon::is(Kind::Month, word.trim_end_matches('.')) {
        return Some(from);
    }
    let is_whole = if unmarked.len() == text.len() && !text.is_empty() {
        begins_value(text)
    } else {
        follows_words(earlier, word)
    };
    let clause = [". ", "; ", "? ", "! "].iter().fold(text, |rest, end| rest.rsplit(end).next().unwrap_or(rest));
    let is_choice = clause.split(|c: char| !c.is_alphanumeric()).any(|word| matches!(word, "or" | "nor"));
    let last = clause.rsplit(", ").next().unwrap_or(clause);
    let is_denied =
        !lexicon::find(Kind::Denial, last).is_empty() || last.contains(['\u{2260}']) || last.contains("\\ne");
    (!is_whole || is_choice || is_denied).then_some(0)
}

/// Returns true if a value begins directly behind the text: `x=`, `Answer:`, `####`.
fn begins_value(text: &str) -> bool {
    let before_colon = |text: &str| text.ends_with(|c: char| c.is_alphabetic() || "*)_".contains(c));
    match text.chars().next_back() {
        Some('=') => !["!=", "<=", ">="].iter().any(|sign| text.ends_with(sign)),
        Some(':') => before_colon(&text[..text.len() - 1]),
        Some('\u{ff1a}' | '#' | '\u{2248}' | '\u{2192}' | '\u{20ac}' | '\u{a3}' | '\u{a5}' | '\u{ffe5}' | '~') => true,
        Some('>') => text.ends_with("<answer>"),
        Some(_) => false,
        None => true,
    }
}

/// Returns true if a number behind `earlier` and `word` is whole.
fn follows_words(earlier: &str, word: &str) -> bool {
    let has_digit = |text: &str| text.contains(|c: char| python::is_digit(c));
    let core = word.trim_matches(|c: char| "*_,.;!?'\"()[]".contains(c) || MARKS.contains(&c));
    let before = earlier.rsplit(python::is_space).next().unwrap_or_default();
    if word.is_empty() || OPENS.split(' ').any(|sign| sign == word) || word.chars().all(|c| "#*\u{2022}".contains(c)) {
        return true;
    }
    if let Some(label) = word.trim_end_matches('*').strip_suffix([':', '\u{ff1a}']) {
        // "Step 2: 64", but not "the ratio is 3: 4".
        return !has_digit(label) || lexicon::is(Kind::Label, before);
    }
    if word.ends_with('=') {
        return begins_value(word);
    }
    if word.chars().all(|c| "-\u{2013}\u{2014}".contains(c)) {
        // The mark of a list, or a dash between words.
        return before.is_empty() || before.trim_matches(|c: char| !c.is_alphabetic()).chars().count() > 1;
    }
    if has_digit(word) {
        return earlier.is_empty() && word.ends_with(['.', ')']);
    }
    if core.is_empty() || !core.chars().all(|c| c.is_alphabetic() || "-'\u{2019}".contains(c)) {
        return false;
    }
    let text = format!("{earlier} {core}");
    let ends = |kind| lexicon::find(kind, &text).last().is_some_and(|found| found.1 == text.len());
    let verb = ends(Kind::Shows) || ends(Kind::Joint);
    let joins = JOINS.split(' ').any(|word| word == core) || lexicon::is(Kind::Function, core);
    let condition = ends(Kind::Condition) && has_digit(earlier);
    // "3 to 4", "4 of 5", "3 hours 20".
    let continues = has_digit(before) && !before.ends_with([',', '.', ':', ';']);
    // "4 out of 5", "the root of 2".
    let of = core == "of" && ["out", "root", "power", "half", "percent", "logarithm"].contains(&before);
    verb || !(joins || condition || continues || of || ends(Kind::Modifier) || ends(Kind::Spoken))
}

/// Returns where the first value begins if the name before the last sign has had values before: `x = 3 and x =`.
fn repeated_name(text: &str) -> Option<usize> {
    let rest = text.strip_suffix('=')?.trim_end();
    let name = rest.split_whitespace().next_back()?;
    let (mut next, mut first) = (rest.strip_suffix(name)?, None);
    while next.trim_end().ends_with([',', ';']) || next.trim_end().ends_with(" and") || next.trim_end().ends_with(" or")
    {
        let Some(at) = [" =", "="].iter().find_map(|sign| next.rfind(&format!("{name}{sign}"))) else { break };
        first = Some(at);
        next = &next[..at];
    }
    first
}
