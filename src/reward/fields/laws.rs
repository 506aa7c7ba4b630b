//! Laws and sizes: what something is proportional to, of which order of magnitude it is, that it has no dimension, a
//! vector by its length and angle, and from where to where something changes.

use super::super::words;
use super::{Steps, equal};
use crate::reward::words::tables::{Bytes, all_as, is_wordless, replaced};

/// Words before what something is proportional to, and whether they turn it over.
const PROPORTIONAL: [(&str, bool); 14] = [
    ("inversely proportional to ", true),
    ("varies inversely as ", true),
    ("varies inversely with ", true),
    ("inversely with ", true),
    ("directly proportional to ", false),
    ("varies in direct proportion to ", false),
    ("varies directly as ", false),
    ("varies directly with ", false),
    ("varies jointly as ", false),
    ("varies jointly with ", false),
    ("proportional to ", false),
    ("varies as ", false),
    ("\\propto", false),
    ("\u{221d}", false),
];

/// The quantity, empty where it is not named, and what it is proportional to.
fn proportional(text: &str) -> Option<(String, String)> {
    let held = Bytes::of(text);
    PROPORTIONAL.iter().any(|p| held.may_hold(p.0) && text.contains(p.0)).then_some(())?;
    let text = all_as(text, &["\\(", "\\)", "$"], "");
    let text = text.trim().trim_end_matches('.');
    let ((what, of), over) = PROPORTIONAL.iter().find_map(|(w, over)| Some((text.split_once(w)?, *over)))?;
    let what = what.trim();
    let what = [" is", " are", " is directly", " also"].iter().find_map(|v| what.strip_suffix(v)).unwrap_or(what);
    let idle = matches!(what.to_lowercase().as_str(), "it" | "is" | "it is" | "directly");
    let of = powered(of.trim(), 0)?;
    let of = if over { format!("1/({of})") } else { of };
    (!words::turned(what)).then(|| (if idle { String::new() } else { what.to_owned() }, of))
}

/// A power in words as notation: "the square of the distance r" as `(r)^2`.
fn powered(text: &str, depth: usize) -> Option<String> {
    const BEFORE: [(&str, &str, &str); 8] = [
        ("square of ", "(", ")^2"),
        ("cube of ", "(", ")^3"),
        ("fourth power of ", "(", ")^4"),
        ("square root of ", "(", ")^{1/2}"),
        ("cube root of ", "(", ")^{1/3}"),
        ("inverse square of ", "(", ")^{-2}"),
        ("inverse of ", "(", ")^{-1}"),
        ("reciprocal of ", "(", ")^{-1}"),
    ];
    const BEHIND: [(&str, &str); 2] = [(" squared", "^2"), (" cubed", "^3")];
    if depth > 4 {
        return None;
    }
    let text = text.strip_prefix("the ").unwrap_or(text);
    if let Some((rest, open, close)) = BEFORE.iter().find_map(|(w, o, c)| Some((text.strip_prefix(w)?, o, c))) {
        return Some(format!("{open}{}{close}", powered(rest, depth + 1)?));
    }
    if let Some((rest, close)) = BEHIND.iter().find_map(|(w, c)| Some((text.strip_suffix(w)?, c))) {
        return Some(format!("({}){close}", powered(rest, depth + 1)?));
    }
    let joined = text.strip_prefix("product of ").unwrap_or(text);
    if let Some((a, b)) = joined.split_once(" and ") {
        return Some(format!("({})({})", powered(a, depth + 1)?, powered(b, depth + 1)?));
    }
    // The letter behind its name.
    let last = text.rsplit(' ').next().unwrap_or(text);
    let named = last.chars().count() == 1 && text.chars().all(|c| c.is_alphabetic() || c == ' ');
    Some(if named { last.to_owned() } else { text.to_owned() })
}

/// Whether two names are one, or one the letter behind the other: "the force F" and `F`.
fn one_name(a: &str, b: &str) -> bool {
    let last = |t: &str| t.rsplit(' ').next().unwrap_or_default().to_owned();
    let letter = |t: &str| t.chars().count() == 1;
    a == b || a.is_empty() || b.is_empty() || ((letter(a) || letter(b)) && last(a) == last(b)) || words::same(a, b)
}

/// A size that is told by its order alone, as the plain amount.
fn order(text: &str) -> Option<&str> {
    const BEFORE: [&str; 4] = ["of the order of ", "on the order of ", "of order ", "of the order "];
    BEFORE.iter().find_map(|b| text.strip_prefix(b))
}

fn nearly(text: &str) -> Option<&str> {
    const NEARLY: [&str; 7] = ["~", "\\sim", "about ", "approximately ", "around ", "roughly ", "\u{2248}"];
    NEARLY.iter().find_map(|b| text.trim_start_matches('$').trim_start().strip_prefix(b))
}

/// True for a quantity without dimension: in words, or with every base to the power nought.
fn without_dimension(text: &str) -> Option<bool> {
    if is_wordless(text) {
        return None;
    }
    const WORDS: [&str; 7] = [
        "dimensionless",
        "it is dimensionless",
        "no dimensions",
        "no dimension",
        "unitless",
        "it has no dimensions",
        "has no dimensions",
    ];
    if WORDS.contains(&text.trim().trim_end_matches('.').to_lowercase().as_str()) {
        return Some(true);
    }
    let text = replaced(text, &[("\\mathrm", ""), ("\\text", ""), ("\\Theta", "K"), ("\\,", "")]);
    let text: String = text.chars().filter(|c| !matches!(c, '$' | '{' | '}' | '[' | ']' | ' ' | '^')).collect();
    let (mut rest, mut count, mut none) = (text.as_str(), 0, true);
    while let Some(c) = rest.chars().next() {
        "MLTAKIN".contains(c).then_some(())?;
        rest = &rest[1..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
        none &= &rest[..end] == "0";
        rest = &rest[end..];
        count += 1;
    }
    (count > 1).then_some(none)
}

/// A vector in the plane by its length and its angle with an axis, as its two parts.
fn parts(text: &str) -> Option<String> {
    const DEGREES: [&str; 6] = ["^{\\circ}", "^\\circ", "\u{b0}", "\\degree", " degrees", " deg"];
    const AXES: [(&str, i32); 8] = [
        ("above the +x axis", 1),
        ("above the positive x axis", 1),
        ("counterclockwise from the +x axis", 1),
        ("counterclockwise from the positive x axis", 1),
        ("anticlockwise from the +x axis", 1),
        ("below the +x axis", -1),
        ("below the positive x axis", -1),
        ("clockwise from the +x axis", -1),
    ];
    let text = replaced(text, &[("-axis", " axis"), ("$", "")]);
    let (amount, angle) = text.split_once(" at ")?;
    let angle = angle.trim().trim_start_matches("an angle of ");
    let (angle, axis) = DEGREES.iter().find_map(|d| angle.split_once(d))?;
    let sign = AXES.iter().find(|a| a.0 == axis.trim().trim_end_matches('.'))?.1;
    let amount = amount.trim();
    let (size, unit) = amount.split_at(amount.find(' ').unwrap_or(amount.len()));
    let number = |t: &str| !t.is_empty() && t.len() < 16 && t.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let turned = if sign < 0 { "-" } else { "" };
    (number(size) && number(angle.trim())).then(|| {
        format!("({size}\\cos({angle}^\\circ), {turned}{size}\\sin({angle}^\\circ)){unit}", angle = angle.trim())
    })
}

/// "From A to B" as its two ends.
fn ends(text: &str) -> Option<(String, String)> {
    let bare = |t: &str| t.replace("\\(", "").replace("\\)", "").replace('\u{2212}', "-").replace(['$', ' '], "");
    let (a, b) = match text.trim().trim_end_matches('.').strip_prefix("from ") {
        Some(rest) => rest.split_once(" to ")?,
        None => ["\\rightarrow", "->", "\\to", "\u{2192}"].iter().find_map(|arrow| text.split_once(arrow))?,
    };
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    // A level, or an oxidation state.
    let level = |t: &str| {
        t.split_once('=').is_some_and(|(n, v)| n.len() == 1 && digits(v))
            || t.strip_prefix(['+', '-']).is_some_and(digits)
            || t == "0"
    };
    let (a, b) = (bare(a), bare(b));
    (level(&a) && level(&b)).then_some((a, b))
}

/// Electrons in shells: "2, 8, 1" and "2.8.1".
fn shells(text: &str) -> Option<Vec<u32>> {
    let text = text.replace(['$', ' ', '(', ')'], "");
    let shells: Vec<u32> =
        text.split([',', '.']).map(|n| n.parse().ok().filter(|n| *n <= 32)).collect::<Option<_>>()?;
    (shells.len() > 2 && shells[0] == 2 && shells[1] <= 8).then_some(shells)
}

pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    if let Some(a) = proportional(gold)
        && let Some(b) = proportional(answer)
    {
        return (one_name(&a.0, &b.0) && (words::same(&a.1, &b.1) || equal(&a.1, &b.1, steps))).then_some(true);
    }
    if let Some(a) = order(gold)
        && let Some(b) = order(answer).or_else(|| nearly(answer))
        && equal(a, b, steps)
    {
        return Some(true);
    }
    if let Some(a) = without_dimension(gold)
        && let Some(b) = without_dimension(answer)
    {
        // Two formulas are compared elsewhere.
        return if a == b && !a { None } else { Some(a == b) };
    }
    if let Some(a) = ends(gold)
        && let Some(b) = ends(answer)
    {
        return Some(a == b);
    }
    if gold.matches('.').count() != answer.matches('.').count()
        && gold.contains('.') != answer.contains('.')
        && let (Some(a), Some(b)) = (shells(gold), shells(answer))
    {
        return Some(a == b);
    }
    match (parts(gold), parts(answer)) {
        (Some(a), Some(b)) => Some(equal(&a, &b, steps)),
        (Some(a), None) => equal(&a, answer, steps).then_some(true),
        (None, Some(b)) => equal(gold, &b, steps).then_some(true),
        (None, None) => None,
    }
}
