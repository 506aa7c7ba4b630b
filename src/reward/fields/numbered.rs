//! Things told apart by a code, with or without their noun: "gate B12", "Platform 3", "flight BA 117", "#23".

use crate::reward::words::tables::among;

/// What has a code on it.
const NOUNS: &str = "gate platform terminal flight bus train tram route highway interstate room seat track lane line pier \
    dock bay aisle locker suite unit court channel exit exhibit volume episode lesson slide page chapter jersey player \
    number no building door stop stand booth car truck table figure fig question problem apartment";

/// A code, and the noun before it.
fn read(text: &str) -> Option<(Option<String>, String)> {
    let text = text.trim_end_matches('.').trim();
    let text = ["the ", "The ", "it is ", "It is "].iter().find_map(|a| text.strip_prefix(a)).unwrap_or(text);
    let words: Vec<&str> = text.split(' ').collect();
    let code = |w: &str| {
        let plain = !w.is_empty() && w.len() <= 8 && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let letter = w.len() == 1 && w.chars().all(|c| c.is_ascii_uppercase());
        (plain && (letter || w.contains(|c: char| c.is_ascii_digit())) && !w.starts_with('-'))
            .then(|| w.replace('-', "").to_uppercase())
    };
    let noun = |w: &str| {
        let lower = w.trim_end_matches('.').to_lowercase();
        among(NOUNS, &lower).then_some(lower)
    };
    match words[..] {
        [w] => w
            .strip_prefix('#')
            .map(|c| Some((Some("number".to_owned()), code(c)?)))
            .unwrap_or_else(|| Some((None, code(w)?))),
        [kind, c] => Some((Some(noun(kind)?), code(c.strip_prefix('#').unwrap_or(c))?)),
        [kind, "number" | "no." | "No." | "Number", c] => Some((Some(noun(kind)?), code(c)?)),
        // The two parts of a flight's number.
        [kind, a, b] if a.len() == 2 && b.bytes().all(|c| c.is_ascii_digit()) => {
            Some((Some(noun(kind)?), code(&format!("{a}{b}"))?))
        }
        _ => None,
    }
}

/// Whether two texts name the same thing by its code; `None` where neither has a noun, or their nouns are not the same.
pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    let (a, b) = (read(gold)?, read(answer)?);
    let kinds = match (&a.0, &b.0) {
        (None, None) => return None,
        (Some(x), Some(y)) => x == y || [x, y].iter().any(|k| matches!(k.as_str(), "number" | "no")),
        // A bare letter is much else: a point, a choice.
        _ => a.1.contains(|c: char| c.is_ascii_digit()),
    };
    (kinds && a.1 == b.1).then_some(true)
}
