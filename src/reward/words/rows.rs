//! Rows of capitals: outcomes, codes and orders, `HHT`, `{HH, HT, TH, TT}`, `A-C-B-D`. Their letters keep their order,
//! while factors and the ends of a segment do not.

use super::tables::replaced;

/// Most words of a text, and letters of a word.
const MAX: usize = 40;

/// Words of capitals, and how they stand.
struct Rows {
    words: Vec<String>,
    /// One after the other: in brackets, or joined by signs.
    ordered: bool,
    /// One word, or its letters apart.
    single: bool,
    /// Said to be in order.
    told: bool,
}

/// Whether two texts of capitals alone are the same rows; `None` where one of them is something else, or where both
/// may be products: `AB` and `BA`.
pub fn same_rows(gold: &str, answer: &str) -> Option<bool> {
    let (a, b) = (read(gold)?, read(answer)?);
    let letters = |r: &Rows| r.words.concat();
    // One row, as a word or letter by letter.
    if (a.single || a.told) && a.words.iter().map(String::len).sum::<usize>() > 2 {
        let alone = b.single || b.words.iter().all(|w| w.len() == 1) && a.told | b.ordered | b.told;
        return alone.then(|| letters(&a) == letters(&b));
    }
    if b.told && a.words.len() > 2 && a.words.iter().all(|w| w.len() == 1) {
        return (letters(&a) == letters(&b)).then_some(true);
    }
    // Among the outcomes of one trial a letter comes twice.
    let twice = |w: &String| w.chars().enumerate().any(|(n, c)| w.chars().skip(n + 1).any(|d| c == d));
    let outcomes = |r: &Rows| r.words.iter().any(twice) && r.words.iter().all(|w| w.len() > 1);
    if a.single || b.single || !(outcomes(&a) || outcomes(&b)) {
        return None;
    }
    if a.words.len() != b.words.len() {
        return Some(false);
    }
    if a.ordered {
        return Some(a.words == b.words);
    }
    let (mut x, mut y) = (a.words, b.words);
    x.sort();
    y.sort();
    Some(x == y)
}

fn read(text: &str) -> Option<Rows> {
    if !text.contains(|c: char| c.is_ascii_uppercase()) {
        return None;
    }
    const TOLD: [&str; 5] = ["(in that order)", "(in this order)", ", in that order", ", in this order", "in order"];
    let text = text.trim().trim_end_matches('.');
    let told = TOLD.iter().find_map(|end| text.strip_suffix(end));
    let plain = replaced(told.unwrap_or(text), &[("\\{", "{"), ("\\}", "}")]);
    let plain = plain.trim();
    let wrapped = |open, close| plain.strip_prefix(open).and_then(|t: &str| t.strip_suffix(close));
    let (inner, ordered) = match (wrapped('(', ')').or(wrapped('[', ']')), wrapped('{', '}')) {
        (Some(inner), _) => (inner, true),
        (None, Some(inner)) => (inner, false),
        (None, None) => (plain, false),
    };
    let capitals = |w: &str| !w.is_empty() && w.len() < MAX && w.bytes().all(|b| b.is_ascii_uppercase());
    let split = |sign: &str| -> Option<Vec<String>> {
        let words: Vec<String> = inner.split(sign).map(|w| w.trim().to_owned()).take(MAX).collect();
        (words.len() > 1 && words.len() < MAX && words.iter().all(|w| capitals(w))).then_some(words)
    };
    if capitals(inner) {
        return Some(Rows { words: vec![inner.to_owned()], ordered, single: inner.len() > 1, told: false });
    }
    let letters = |words: &[String]| words.iter().all(|w| w.len() == 1) && words.len() > 2;
    // Without spaces a hyphen joins; with them it subtracts.
    let joined = (!inner.contains(' ')).then(|| split("-")).flatten();
    let joined = joined.or_else(|| split("\u{2192}")).or_else(|| split("->")).or_else(|| split("\\to"));
    if let Some(words) = joined.filter(|w| w.len() > 2) {
        return Some(Rows { single: letters(&words), words, ordered: true, told: true });
    }
    if let Some(words) = split(" ").filter(|w| letters(w)) {
        return Some(Rows { words, ordered, single: true, told: told.is_some() });
    }
    let listed = replaced(inner, &[(" and ", ","), (" or ", ","), (",,", ",")]);
    let words: Vec<String> = listed.split([',', ';']).map(|w| w.trim().to_owned()).take(MAX).collect();
    (words.len() > 1 && words.len() < MAX && words.iter().all(|w| capitals(w))).then(|| Rows {
        words,
        ordered: ordered || told.is_some(),
        single: false,
        told: told.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::same_rows;

    #[test]
    fn letters_keep_their_order() {
        assert_eq!(same_rows("HHT", "HTH"), Some(false));
        assert_eq!(same_rows("HHT", "H-H-T"), Some(true));
        assert_eq!(same_rows("AB", "BA"), None);
        assert_eq!(same_rows("HHT", "H^2 T"), None);
        assert_eq!(same_rows("{HH, TT, HT}", "{TT, HH, HT}"), Some(true));
        assert_eq!(same_rows("{HH, TT, HT}", "{TT, HH, TH}"), Some(false));
    }
}
