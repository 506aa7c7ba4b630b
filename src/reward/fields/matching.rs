//! Labels matched with labels: "1-c, 2-a, 3-b", or one to a line with arrows between.

use std::collections::BTreeMap;

use super::super::words::tables::all_as;

/// Most parts of a text that are read.
const MOST: usize = 120;
/// What stands between two labels.
const JOINTS: [&str; 11] =
    ["\\longrightarrow", "\\rightarrow", "\\mapsto", "\\to", "\u{2192}", "->", "\u{2014}", "\u{2013}", " - ", "-", ":"];

/// Each label with the one it is matched with; numbers stand first.
fn read(text: &str) -> Option<BTreeMap<String, String>> {
    let text = all_as(text, &["$", "\\text", "\\mathrm", "{", "}", "(", ")", "\\,"], "");
    let text = text.trim().trim_end_matches('.');
    let text = all_as(all_as(text, &JOINTS, " > "), &["\\\\", ",", ";", " and "], " ");
    let roman = |t: &str| t.chars().all(|c| matches!(c, 'i' | 'v' | 'x' | 'I' | 'V' | 'X')) && t.len() <= 4;
    let label = |t: &str| {
        let number = t.len() <= 2 && t.bytes().all(|b| b.is_ascii_digit());
        let letter = t.len() == 1 && t.bytes().all(|b| b.is_ascii_alphabetic());
        (!t.is_empty() && (roman(t) || number || letter)).then(|| t.to_lowercase())
    };
    let parts: Vec<&str> = text.split_whitespace().take(MOST).collect();
    let mut pairs = Vec::new();
    for part in parts.chunks(3) {
        let &[a, ">", b] = part else { return None };
        pairs.push((label(a)?, label(b)?));
    }
    let number = |t: &String| t.bytes().all(|b| b.is_ascii_digit());
    if pairs.iter().all(|(_, b)| number(b)) {
        pairs = pairs.into_iter().map(|(a, b)| (b, a)).collect();
    }
    // 1-3 and 4-6 are ranges, A-B and C-D sides, and x-1 is a difference.
    let numbered = pairs.iter().all(|(a, b)| number(a) && !number(b));
    let counted = pairs.iter().all(|(a, b)| !number(a) && roman(b)) && !pairs.iter().all(|(a, _)| roman(a));
    if pairs.len() < 2 || !(numbered || counted) {
        return None;
    }
    let count = pairs.len();
    let matched: BTreeMap<String, String> = pairs.into_iter().collect();
    (matched.len() == count).then_some(matched)
}

/// Whether two matchings are the same.
pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    let told = |t: &str| t.contains(['-', ':', '>', '\\', '\u{2192}', '\u{2013}']);
    if !told(gold) || !told(answer) {
        return None;
    }
    Some(read(gold)? == read(answer)?)
}
