//! Finds the places in a text where the published library searches for an answer: formulas between LaTeX marks, boxes,
//! numbers, and arithmetic in plain text. Places after known words come first, then all other places.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::python::{compiled, is_space};

/// Maximum number of joined formulas.
const MAX_JOINED: usize = 6;
/// Maximum number of matches of one kind. The rightmost match counts, so the last ones are kept.
const MAX_MATCHES: usize = 400;

/// A possible answer in the text.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Found<'a> {
    /// Formulas joined by commas, "and" or "or". The flag is true if a percent sign follows.
    Formulas(Vec<(&'a str, bool)>),
    /// Everything from the first `\boxed{` to the last brace.
    Boxed(&'a str),
    /// A number: its integer part with its sign, its decimals, and true if a percent sign follows.
    Number(&'a str, &'a str, bool),
    /// Arithmetic.
    Arithmetic(&'a str),
}

/// A match: its end, its beginning and its content.
type Match<'a> = (usize, usize, Found<'a>);

const NUMBER: &str = r"(?:(-?[1-9][0-9]{0,2}(?:[ ,][0-9]{3})+)(\.[0-9]+)?|(-?[0-9]+)([.,][0-9]+)|(\.[0-9]+)|(-?[0-9]+))(\s*(?:%|[Pp]ercent|[Pp]ercentage|[Pp]ct))?";
const PREFIX: &str = r"(?:^|\s|=)(?:\*\*)?";
const SUFFIX: &str = r"(?:\*\*)?(?:\.|,|:|\s|\)|\$|$)";
const ARITHMETIC: &str =
    r"(-?\(?-?[0-9][0-9.\s+\-*\u{d7}/^()\u{f7}]*[+\-*\u{d7}/^()\u{f7}][0-9.\s+\-*\u{d7}/^()\u{f7}]+\)?)";
const CURRENCY: &str = r"[$\u{20ac}\u{a3}\u{a5}\u{20b9}\u{20a0}-\u{20bf}]?";

/// Words before an answer, the best first.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Anchor {
    /// "final answer is X. I hope".
    Hope,
    /// "final answer ... is X".
    Final,
    /// "answer: ... X".
    Colon,
    /// "answer ... X".
    Word,
    /// Anything.
    None,
}

/// The anchors, and the words with which they begin.
pub(super) const ANCHORS: [(Anchor, &str); 5] = [
    (Anchor::Hope, "final answer is"),
    (Anchor::Final, "final answer"),
    (Anchor::Colon, "answer:"),
    (Anchor::Word, "answer"),
    (Anchor::None, ""),
];

/// Patterns for plain text with their anchors. Capture group 1 is arithmetic, and the groups after it are the parts of
/// a number.
static PLAIN: LazyLock<Vec<(Regex, Anchor)>> = LazyLock::new(|| {
    let any = format!("(?:(?:{PREFIX}{ARITHMETIC}{SUFFIX})|(?:{PREFIX}{CURRENCY}{NUMBER}))");
    vec![
        (compiled(&format!(r"(?i:final answer is):?\s*{any}\.?\s?I hope")), Anchor::Hope),
        (compiled(&format!(r"(?i:final answer.{{0,100}}?)\s+is:?{any}")), Anchor::Final),
        (compiled(&format!(r"(?i:answer):(?:.{{0,100}}=\s*|.{{0,50}}?){any}")), Anchor::Colon),
        (compiled(&format!(r"(?i:answer)(?:.{{0,100}}=\s*|.{{0,50}}?){any}")), Anchor::Word),
        (compiled(&format!("{PREFIX}{ARITHMETIC}{SUFFIX}")), Anchor::None),
        (compiled(&format!("{PREFIX}()??{CURRENCY}{NUMBER}")), Anchor::None),
    ]
});

/// Maximum length in bytes of the searched text. Only the end of a longer text is searched, because the rightmost match
/// counts.
const MAX_TEXT: usize = 50_000;

/// A text and the positions of the marks of formulas, which make every search for the next mark fast.
pub(super) struct Finder<'a> {
    text: &'a str,
    /// Opening marks of formulas, the sorted positions of their closing marks that are not escaped, and true if a formula
    /// ends on its line.
    marks: [(&'static str, Vec<usize>, bool); 4],
    /// Sorted positions. In the order of the fields: ends of lines, plain square brackets, boxes, closing braces.
    lines: Vec<usize>,
    squares: Vec<usize>,
    boxes: Vec<usize>,
    braces: Vec<usize>,
    named: bool,
}

/// Returns the first of the sorted positions that is not before `from`.
fn next(places: &[usize], from: usize) -> Option<usize> {
    places.get(places.partition_point(|&p| p < from)).copied()
}

impl<'a> Finder<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut from = text.len().saturating_sub(MAX_TEXT);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let text = &text[from..];
        let bytes = text.as_bytes();
        let at = |keep: &dyn Fn(usize) -> bool| (0..bytes.len()).filter(|&i| keep(i)).collect::<Vec<_>>();
        let free = |i: usize| i == 0 || bytes[i - 1] != b'\\';
        let pair = |i: usize, second: u8| bytes[i] == b'\\' && bytes.get(i + 1) == Some(&second);
        Finder {
            text,
            marks: [
                ("$$", at(&|i| bytes[i] == b'$' && bytes.get(i + 1) == Some(&b'$') && free(i)), false),
                ("\\[", at(&|i| pair(i, b']')), false),
                ("$", at(&|i| bytes[i] == b'$' && free(i)), true),
                ("\\(", at(&|i| pair(i, b')')), true),
            ],
            lines: at(&|i| bytes[i] == b'\n'),
            squares: at(&|i| matches!(bytes[i], b'[' | b']' | b'\n')),
            boxes: text.match_indices("\\boxed{").map(|(i, _)| i).collect(),
            braces: at(&|i| bytes[i] == b'}'),
            named: bytes.windows(6).any(|word| word.eq_ignore_ascii_case(b"answer")),
        }
    }

    /// Returns the matches of one anchor. Matches that end further right come first, then longer ones.
    pub(super) fn matches(&self, anchor: Anchor, word: &str) -> Vec<Match<'a>> {
        let mut found = Vec::new();
        let mut keep = |all: Vec<Match<'a>>| {
            let skip = all.len().saturating_sub(MAX_MATCHES);
            found.extend(all.into_iter().skip(skip));
        };
        if self.named || anchor == Anchor::None {
            keep(self.behind(anchor, word.as_bytes()));
            for (pattern, _) in PLAIN.iter().filter(|p| p.1 == anchor) {
                keep(plain(self.text, pattern, matches!(anchor, Anchor::Colon | Anchor::Word)));
            }
        }
        if anchor == Anchor::Final {
            self.boxed(&mut found);
        }
        found.sort_by_key(|m| (std::cmp::Reverse(m.0), m.1));
        found
    }
}

fn plain<'a>(text: &'a str, pattern: &Regex, guarded: bool) -> Vec<Match<'a>> {
    let found = |c: Captures<'a>| {
        let all = c.get_match();
        // A value before an equals sign is not a result.
        let equated = guarded && text[all.end()..].trim_start_matches(is_space).starts_with('=');
        read(&c).filter(|_| !equated).map(|found| (all.end(), all.start(), found))
    };
    pattern.captures_iter(text).filter_map(found).collect()
}

fn read<'a>(c: &Captures<'a>) -> Option<Found<'a>> {
    let first = |groups: [usize; 3]| groups.into_iter().find_map(|i| c.get(i)).map(|m| m.as_str());
    let (whole, decimals) = (first([2, 4, 7]), first([3, 5, 6]));
    if whole.or(decimals).is_none() {
        return first([1; 3]).map(Found::Arithmetic);
    }
    Some(Found::Number(whole.unwrap_or(""), decimals.unwrap_or(""), c.get(8).is_some()))
}

impl<'a> Finder<'a> {
    /// Finds formulas after an anchor: starting at the leftmost anchor, takes the nearest formula after it.
    fn behind(&self, anchor: Anchor, word: &[u8]) -> Vec<Match<'a>> {
        let bytes = self.text.as_bytes();
        let begins = |at: usize| match anchor {
            Anchor::None => begins_formula(bytes, at),
            _ => bytes.get(at..at + word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word)),
        };
        self.scan(|at| if begins(at) { self.one(at, at + word.len(), anchor) } else { None })
    }

    /// Returns the matches from left to right. The search continues after the end of a match.
    fn scan(&self, one: impl Fn(usize) -> Option<(usize, Found<'a>)>) -> Vec<Match<'a>> {
        let (mut found, mut at) = (Vec::new(), 0);
        while at < self.text.len() {
            match Some(at).filter(|&at| self.text.is_char_boundary(at)).and_then(&one) {
                Some((end, content)) => {
                    found.push((end, at, content));
                    at = end.max(at + 1);
                }
                None => at += 1,
            }
        }
        found
    }

    fn one(&self, start: usize, body: usize, anchor: Anchor) -> Option<(usize, Found<'a>)> {
        let text = self.text;
        let spaces = |at: usize| text.len() - text[at..].trim_start_matches(is_space).len();
        let colon = |at: usize| at + usize::from(text[at..].starts_with(':'));
        let steps = |from: usize, most: usize| {
            text[from..].char_indices().map(move |(i, _)| from + i).chain([text.len()]).take(most + 1)
        };
        match anchor {
            Anchor::None => self.joined(start, false),
            Anchor::Hope => {
                let from = spaces(colon(body));
                let (end, found) = self.joined(from, false)?;
                let rest = text[end..].strip_prefix('.').unwrap_or(&text[end..]);
                let rest = rest.strip_prefix(is_space).unwrap_or(rest);
                rest.strip_prefix("I hope").map(|r| (text.len() - r.len(), found))
            }
            Anchor::Final => steps(body, 100).find_map(|at| {
                let space = spaces(at);
                let rest = text[space..].strip_prefix("is").filter(|_| space > at)?;
                self.joined(spaces(colon(text.len() - rest.len())), false)
            }),
            Anchor::Colon | Anchor::Word => steps(body, 50).find_map(|at| self.joined(at, false)),
        }
    }

    /// Returns a formula with the formulas that are joined to it.
    fn joined(&self, at: usize, boxed: bool) -> Option<(usize, Found<'a>)> {
        let text = self.text;
        let (mut end, first, percent) = self.formula(at, boxed)?;
        let mut all = vec![(first, percent)];
        while all.len() < MAX_JOINED {
            let rest = text[end..].trim_start_matches(is_space);
            let joint = [",and", ",or", "and", "or", ","].into_iter().find_map(|j| rest.strip_prefix(j));
            let Some(rest) = joint else { break };
            let from = text.len() - rest.trim_start_matches(is_space).len();
            // First tries the position before the skipped white space, because a plain bracket must have a space before
            // it.
            let next = self.formula(from, boxed).or_else(|| self.formula(text.len() - rest.len(), boxed));
            let Some((to, content, percent)) = next else { break };
            all.push((content, percent));
            end = to;
        }
        Some((end, Found::Formulas(all)))
    }

    /// Returns the formula that begins at `at`: its end, its content, and true if a percent sign follows.
    fn formula(&self, at: usize, boxed: bool) -> Option<(usize, &'a str, bool)> {
        let text = self.text;
        let (end, content) = self.marked(at, boxed)?;
        let rest = text[end..].trim_start_matches(is_space);
        let percent = ["\\%", "%", "Percent", "percent", "Percentage", "percentage", "Pct", "pct"];
        let behind = percent.into_iter().find_map(|p| rest.strip_prefix(p));
        Some((text.len() - behind.unwrap_or(rest).len(), content, behind.is_some()))
    }

    fn marked(&self, at: usize, boxed: bool) -> Option<(usize, &'a str)> {
        let text = self.text;
        let before = at.checked_sub(1).map(|i| text.as_bytes()[i]);
        let fits = |from: usize, to: usize| from < to && (!boxed || self.holds_box(from, to));
        let rest = &text[at..];
        for (open, closes, in_line) in &self.marks {
            let from = at + open.len();
            let is_money = *open == "$" && before.is_some_and(|b| b.is_ascii_digit());
            if !rest.starts_with(*open) || before == Some(b'\\') || is_money {
                continue;
            }
            let line = next(&self.lines, from).filter(|_| *in_line).unwrap_or(text.len());
            let to = next(closes, from + usize::from(*open == "$$"));
            if let Some(to) = to.filter(|&to| to < line && fits(from, to)) {
                return Some((to + open.len(), &text[from..to]));
            }
        }
        let mut chars = rest.chars();
        if let (Some(c), Some('[')) = (chars.next(), chars.next())
            && is_space(c)
        {
            let from = at + c.len_utf8() + 1;
            let closes = |&to: &usize| text.as_bytes()[to] == b']' && fits(from, to);
            if let Some(to) = next(&self.squares, from).filter(closes)
                && let Some(space) = text[to + 1..].chars().next().filter(|&c| is_space(c))
            {
                return Some((to + 1 + space.len_utf8(), &text[from..to]));
            }
        }
        if boxed { None } else { fraction(text, at) }
    }

    /// Returns true if the range contains `\boxed{` and something before a closing brace.
    fn holds_box(&self, from: usize, to: usize) -> bool {
        let last = self.braces[..self.braces.partition_point(|&p| p < to)].last();
        next(&self.boxes, from).is_some_and(|at| last.is_some_and(|&l| l > at + 7))
    }

    /// Finds formulas that contain a box, and boxes outside formulas.
    fn boxed(&self, out: &mut Vec<Match<'a>>) {
        let text = self.text;
        let Some(&first) = self.boxes.first() else { return };
        let begins = |at: usize| begins_formula(text.as_bytes(), at);
        out.extend(self.scan(|at| if begins(at) { self.joined(at, true) } else { None }));
        if let Some(&last) = self.braces.last().filter(|&&l| l > first + 7) {
            out.push((last + 1, first, Found::Boxed(&text[first..=last])));
        }
    }
}

fn begins_formula(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|b| matches!(b, b'$' | b'\\' | b'-') || b.is_ascii_whitespace())
}

/// Matches a fraction such as `-\frac{1.5}{2}` outside all marks.
fn fraction(text: &str, at: usize) -> Option<(usize, &str)> {
    static FRACTION: LazyLock<Regex> =
        LazyLock::new(|| compiled(r"^-?\\frac\{-?[0-9]+(?:[.,][0-9]+)?\}\{-?[0-9]+(?:[.,][0-9]+)?\}"));
    let rest = &text[at..];
    if !rest.starts_with(['-', '\\']) {
        return None;
    }
    FRACTION.find(rest).map(|m| (at + m.end(), m.as_str()))
}
