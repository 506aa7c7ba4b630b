//! One spelling for a word: British and American, long and short forms, singular and plural.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use super::{Kind, is, look, rows};

/// Endings that British and American write differently behind any stem.
const ENDINGS: [(&str, &str); 11] = [
    ("isations", "izations"),
    ("isation", "ization"),
    ("ising", "izing"),
    ("ises", "izes"),
    ("ised", "ized"),
    ("iser", "izer"),
    ("ise", "ize"),
    ("ysing", "yzing"),
    ("ysed", "yzed"),
    ("yser", "yzer"),
    ("yse", "yze"),
];

/// The one spelling of a word in small letters, and of words of one meaning the one word.
pub fn spelled(word: &str) -> Cow<'_, str> {
    if let Some(same) = look(Kind::Spelling, word).or_else(|| look(Kind::Word, word)) {
        return Cow::Borrowed(same);
    }
    // "Bikes" are bicycles.
    if let Some(one) = word.strip_suffix('s').filter(|w| plural(w, word))
        && let Some(same) = look(Kind::Word, one)
    {
        return Cow::Borrowed(same);
    }
    if word.len() < 5 || !word.is_ascii() {
        return Cow::Borrowed(word);
    }
    let mut word = stemmed(word);
    // Linearly, inversely: the adverb says what its adjective does.
    const ADJECTIVES: [&str; 9] = ["dom", "al", "ar", "ous", "ive", "ent", "ant", "erse", "irect"];
    if let Some(stem) = word.strip_suffix("ly").filter(|s| ADJECTIVES.iter().any(|e| s.ends_with(e))) {
        word = Cow::Owned(stem.to_owned());
    }
    for (from, to) in ENDINGS {
        if let Some(stem) = word.strip_suffix(from).filter(|s| s.len() > 2) {
            word = Cow::Owned(format!("{stem}{to}"));
            break;
        }
    }
    // Travelled, modelling: an l is doubled behind an unstressed syllable.
    for end in ["ed", "ing", "er", "ers", "or", "ous"] {
        let Some(stem) = word.strip_suffix(end).and_then(|s| s.strip_suffix('l')) else { continue };
        if ["el", "al", "il"].iter().any(|e| stem.ends_with(e)) && syllables(stem) > 1 {
            return Cow::Owned(format!("{stem}{end}"));
        }
    }
    word
}

/// The word with the parts of words in one spelling.
fn stemmed(word: &str) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(word);
    for (to, forms) in rows(Kind::Stem) {
        for from in forms {
            if out.contains(from) {
                out = Cow::Owned(out.replace(from, to));
            }
        }
    }
    out
}

fn syllables(text: &str) -> usize {
    let vowel = |c: u8| b"aeiouy".contains(&c);
    let bytes = text.as_bytes();
    (0..bytes.len()).filter(|&n| vowel(bytes[n]) && (n == 0 || !vowel(bytes[n - 1]))).count()
}

/// Whether two words, each in its one spelling, are one word in singular or plural.
pub fn alike(a: &str, b: &str) -> bool {
    a == b || plural(a, b) || plural(b, a)
}

/// Whether `many` is the plural of `one`, or the form of a verb with an `s`.
fn plural(one: &str, many: &str) -> bool {
    static IRREGULAR: LazyLock<HashSet<(&str, &str)>> = LazyLock::new(|| {
        rows(Kind::Plural).iter().flat_map(|(one, many)| many.iter().map(move |m| (*one, *m))).collect()
    });
    if one.len() < 3 || many.len() <= one.len().saturating_sub(2) || is(Kind::Singular, one) {
        return false;
    }
    if IRREGULAR.contains(&(one, many)) {
        return true;
    }
    let swapped = |from: &str, to: &str| one.strip_suffix(from).is_some_and(|s| many.strip_suffix(to) == Some(s));
    let hissing = ["s", "x", "z", "ch", "sh"].iter().any(|e| one.ends_with(e));
    if hissing {
        return many.strip_suffix("es") == Some(one)
            || (one.len() > 4 && (swapped("sis", "ses") || swapped("us", "i")));
    }
    let vowel = one.as_bytes()[one.len() - 2];
    if one.ends_with('y') && !b"aeiou".contains(&vowel) {
        return swapped("y", "ies");
    }
    (one.ends_with('o') && many.strip_suffix("es") == Some(one))
        || many.strip_suffix('s') == Some(one)
        || (one.len() > 4 && (swapped("um", "a") || swapped("a", "ae")))
}

#[cfg(test)]
mod tests {
    use super::{alike, spelled};

    #[test]
    fn british_and_american_spellings_are_one() {
        for (a, b) in [
            ("colour", "color"),
            ("discoloured", "discolored"),
            ("kilometres", "kilometers"),
            ("polarisation", "polarization"),
            ("analyse", "analyze"),
            ("travelled", "traveled"),
            ("catalogue", "catalog"),
            ("haemoglobin", "hemoglobin"),
            ("sulphuric", "sulfuric"),
            ("defence", "defense"),
            ("bikes", "bicycle"),
        ] {
            assert_eq!(spelled(a), spelled(b));
        }
        for (a, b) in [("filled", "filed"), ("hour", "hor"), ("caesium", "calcium"), ("sulphur", "sulfate")] {
            assert_ne!(spelled(a), spelled(b));
        }
        assert_eq!(spelled("counterclockwise"), "counterclockwise");
    }

    #[test]
    fn plurals_are_their_singulars_and_no_other_word() {
        for (a, b) in [
            ("electron", "electrons"),
            ("box", "boxes"),
            ("city", "cities"),
            ("lens", "lenses"),
            ("vertices", "vertex"),
            ("analysis", "analyses"),
            ("nucleus", "nuclei"),
            ("larva", "larvae"),
            ("bacterium", "bacteria"),
            ("mitochondria", "mitochondrion"),
            ("potatoes", "potato"),
        ] {
            assert!(alike(a, b), "{a} {b}");
        }
        for (a, b) in [("mar", "mars"), ("new", "news"), ("prince", "princess"), ("mas", "mass"), ("as", "a")] {
            assert!(!alike(a, b), "{a} {b}");
        }
    }
}
