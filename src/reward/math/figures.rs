//! Figures of geometry by their letters, and how two of them lie: an angle is told from either side, a segment from
//! either end, and parallels are so both ways.

use crate::reward::words::tables::{Bytes, is_wordless, replaced as replaced_all};

// Marks as characters that no text has: `=` and `+` mean other things elsewhere.
const SEGMENT: char = '\u{1}';
const LINE: char = '\u{2}';
const RAY: char = '\u{3}';
const ANGLE: char = '\u{4}';
const TRIANGLE: char = '\u{5}';
const PARALLEL: char = '\u{6}';
const PERPENDICULAR: char = '\u{7}';
const CONGRUENT: char = '\u{e}';
const SIMILAR: char = '\u{f}';
/// A face that says nothing.
const NOTHING: char = ' ';

/// Ways to write the marks; of two that begin alike the longer stands first.
const MARKS: [(char, &[&str]); 11] = [
    (SEGMENT, &["\\overline", "line segment", "segment"]),
    (LINE, &["\\overleftrightarrow", "the line", "line"]),
    (RAY, &["\\overrightarrow", "ray"]),
    (ANGLE, &["\\measuredangle", "m\\angle", "\\angle", "\u{2220}", "angle"]),
    (TRIANGLE, &["\\triangle", "\u{25b3}", "\u{2206}", "triangle"]),
    (PARALLEL, &["\\parallel", "\u{2225}", "||", "//", "is parallel to", "parallel to"]),
    (
        PERPENDICULAR,
        &["\\perp", "\u{22a5}", "is perpendicular to", "perpendicular to", "is orthogonal to", "orthogonal to"],
    ),
    (CONGRUENT, &["\\cong", "\u{2245}", "is congruent to", "congruent to"]),
    (SIMILAR, &["\\sim", "\u{223c}", "~", "is similar to", "similar to"]),
    ('=', &["is equal to", "equals", "equal to"]),
    (NOTHING, &["\\text", "\\mathrm"]),
];

/// Criteria by which triangles are told to be alike.
const CRITERIA: [&str; 9] = ["SSS", "SAS", "ASA", "AAS", "SAA", "HL", "RHS", "AA", "AAA"];

/// The text without the criterion behind it: "by SAS", "(by the AA similarity postulate)".
fn without_criterion(text: &str) -> &str {
    let text = text.trim().trim_end_matches(['.', ')']);
    let Some((told, reason)) = text.rsplit_once(" by ").or_else(|| text.rsplit_once("(by ")) else { return text };
    let mut words = reason.split([' ', '$']).filter(|w| !w.is_empty() && *w != "the");
    let named = words.next().is_some_and(|w| CRITERIA.contains(&w));
    const NOUNS: [&str; 7] = ["congruence", "similarity", "criterion", "postulate", "theorem", "rule", "test"];
    if named && words.all(|w| NOUNS.contains(&w)) { told.trim_end_matches([' ', ',', '(']) } else { text }
}

/// "Triangles ABC and DEF are similar", "AB and CD are parallel" with what they are between them.
fn between(text: &str) -> Option<String> {
    const NOUNS: [&str; 7] = ["triangle", "line", "segment", "angle", "side", "ray", "plane"];
    const RELATIONS: [(&str, &str); 6] = [
        ("congruent", "congruent to"),
        ("similar", "similar to"),
        ("parallel", "parallel to"),
        ("perpendicular", "perpendicular to"),
        ("orthogonal", "perpendicular to"),
        ("equal", "equal to"),
    ];
    let (subject, told) = text.trim_end_matches(" to each other").rsplit_once(" are ")?;
    let joint = RELATIONS.iter().find(|r| r.0 == told.trim_end())?.1;
    let (first, second) = subject.split_once(" and ")?;
    let first = first.trim_start_matches("The ").trim_start_matches("the ");
    let Some((noun, first)) = first.split_once(' ') else { return Some(format!("{first} {joint} {second}")) };
    let noun = noun.to_ascii_lowercase();
    let noun = NOUNS.iter().find(|n| noun.strip_suffix('s') == Some(n))?;
    Some(format!("{noun} {first} {joint} {noun} {second}"))
}

/// A figure: its mark and its letters in their first order.
type Figure = (char, String);

/// True when both name the same figure, or the same relation of figures.
pub(super) fn same_figures(a: &str, b: &str) -> bool {
    read(a).is_some_and(|x| read(b) == Some(x))
}

/// True for two figures and how they lie.
pub(super) fn is_relation(text: &str) -> bool {
    read(text).is_some_and(|(_, figures)| figures.len() == 2)
}

/// The figures of a text, in one of the orders that say the same, and the sign between them.
fn read(text: &str) -> Option<(char, Vec<Figure>)> {
    if text.len() > 120 || is_wordless(text) {
        return None;
    }
    let text = without_criterion(text);
    let mut plain = between(text).unwrap_or_else(|| text.to_owned());
    let held = Bytes::of(&plain.to_ascii_lowercase()).and(" ");
    for (sign, ways) in MARKS {
        for way in ways.iter().filter(|way| held.may_hold(way)) {
            plain = replaced(&plain, way, &format!(" {sign} "));
        }
    }
    const SPACES: [(&str, &str); 6] = [("=", " = "), ("{", " "), ("}", " "), ("$", " "), ("\\,", " "), ("\\ ", " ")];
    let plain = replaced_all(plain, &SPACES);
    let (mut figures, mut relation, mut mark, mut marked) = (Vec::new(), None, None, false);
    for word in plain.split_whitespace() {
        let sign = word.chars().next()?;
        match word {
            "and" | "are" => return None,
            // Lines are named by small letters as well.
            name if mark.is_none_or(|m| m == LINE) && is_line(name) => {
                mark = None;
                figures.push((LINE, name.to_owned()));
            }
            letters
                if letters.len() <= 6
                    && (letters.len() > 1 || mark == Some(ANGLE))
                    && letters.chars().all(|c| c.is_ascii_uppercase()) =>
            {
                figures.push((mark.take().unwrap_or(' '), letters.to_owned()));
            }
            _ if word.len() > 1 => return None,
            _ if matches!(sign, '=' | PARALLEL | PERPENDICULAR | CONGRUENT | SIMILAR) => {
                if relation.replace(sign).is_some() || figures.is_empty() {
                    return None;
                }
                marked = true;
            }
            _ if matches!(sign, SEGMENT | LINE | RAY | ANGLE | TRIANGLE) => {
                mark = Some(sign);
                marked = true;
            }
            _ => return None,
        }
    }
    if mark.is_some() || !marked || figures.len() != 1 + usize::from(relation.is_some()) {
        return None;
    }
    let sign = relation.unwrap_or(' ');
    // The sides of triangles belong together: their letters keep their order, turned together.
    if let [(m, p), (n, q)] = figures.as_slice()
        && matches!(sign, CONGRUENT | SIMILAR)
        && p.len() == q.len()
        && p.len() > 2
        && (*m != ANGLE || *n != ANGLE)
    {
        let pairs = |p: &str, q: &str| {
            let mut pairs: Vec<(char, char)> = p.chars().zip(q.chars()).collect();
            pairs.sort_unstable();
            pairs.into_iter().unzip::<char, char, String, String>()
        };
        let ((a, b), (c, d)) = (pairs(p, q), pairs(q, p));
        let (x, y) = if (a.clone(), b.clone()) <= (c.clone(), d.clone()) { (a, b) } else { (c, d) };
        return Some((sign, vec![(TRIANGLE, x), (TRIANGLE, y)]));
    }
    let mut figures: Vec<Figure> = figures.into_iter().map(|(m, l)| one(m, l, sign)).collect();
    figures.sort();
    Some((sign, figures))
}

/// `l`, `m_1`.
fn is_line(name: &str) -> bool {
    let name = if name == "\\ell" { "l" } else { name };
    let (letter, index) = name.split_once('_').unwrap_or((name, ""));
    letter.len() == 1 && letter.bytes().all(|b| b.is_ascii_lowercase()) && index.bytes().all(|b| b.is_ascii_digit())
}

/// A figure with its letters in their first order.
fn one(mark: char, letters: String, relation: char) -> Figure {
    let turned: String = letters.chars().rev().collect();
    let sorted = || {
        let mut all: Vec<char> = letters.chars().collect();
        all.sort_unstable();
        all.into_iter().collect::<String>()
    };
    match (mark, letters.len()) {
        (TRIANGLE, _) => (TRIANGLE, sorted()),
        // A ray begins at its first point.
        (RAY, _) => (RAY, letters),
        // Between lines and segments a relation makes no difference.
        (_, _) if is_line(&letters) => (LINE, letters),
        (m, 2) if relation != ' ' && m != ANGLE => (LINE, letters.min(turned)),
        (m, _) => (m, letters.min(turned)),
    }
}

/// The text with a mark replaced; words only between spaces, and whatever their case.
fn replaced(text: &str, mark: &str, sign: &str) -> String {
    if !mark.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return text.replace(mark, sign);
    }
    let lower = text.to_ascii_lowercase();
    let (mut out, mut from) = (String::new(), 0);
    for (at, _) in lower.match_indices(mark) {
        let end = at + mark.len();
        let free = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '\\');
        if at >= from && free(lower[..at].chars().next_back()) && free(lower[end..].chars().next()) {
            out.push_str(&text[from..at]);
            out.push_str(sign);
            from = end;
        }
    }
    out + &text[from..]
}
