//! Laws and sizes: what something is proportional to, of which order of magnitude it is, that it has no dimension, a
//! vector by its length and angle, and from where to where something changes.

use super::{Steps, equal};

/// The quantity, empty where it is not named, and what it is proportional to.
fn proportional(text: &str) -> Option<(String, String)> {
    const INVERSE: [&str; 2] = [" is inversely proportional to ", " varies inversely as "];
    const DIRECT: [&str; 5] =
        [" is directly proportional to ", " is proportional to ", " varies as ", "\\propto", "\u{221d}"];
    let text = text.trim().trim_end_matches('.');
    let bare = |t: &str| t.replace("\\(", "").replace("\\)", "").replace('$', "").trim().to_owned();
    if let Some((what, of)) = INVERSE.iter().find_map(|w| text.split_once(w)) {
        return Some((bare(what), format!("1/({})", bare(of))));
    }
    let (what, of) = DIRECT.iter().find_map(|w| text.split_once(w))?;
    Some((bare(what), bare(of)))
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
    let text = text.replace("\\mathrm", "").replace("\\text", "").replace("\\Theta", "K").replace("\\,", "");
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
    let text = text.replace("-axis", " axis").replace("$", "");
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
    let bare = |t: &str| t.replace("\\(", "").replace("\\)", "").replace(['$', ' '], "");
    let (a, b) = match text.trim().trim_end_matches('.').strip_prefix("from ") {
        Some(rest) => rest.split_once(" to ")?,
        None => ["\\rightarrow", "\\to", "\u{2192}"].iter().find_map(|arrow| text.split_once(arrow))?,
    };
    let level = |t: &str| t.split_once('=').is_some_and(|(n, v)| n.len() == 1 && v.bytes().all(|b| b.is_ascii_digit()));
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
    if let (Some(a), Some(b)) = (proportional(gold), proportional(answer)) {
        return (a.0 == b.0 && equal(&a.1, &b.1, steps)).then_some(true);
    }
    if let (Some(a), Some(b)) = (order(gold), order(answer).or_else(|| nearly(answer)))
        && equal(a, b, steps)
    {
        return Some(true);
    }
    if let (Some(a), Some(b)) = (without_dimension(gold), without_dimension(answer)) {
        // Two formulas are compared elsewhere.
        return if a == b && !a { None } else { Some(a == b) };
    }
    if let (Some(a), Some(b)) = (ends(gold), ends(answer)) {
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
