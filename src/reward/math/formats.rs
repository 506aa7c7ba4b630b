//! Two numbers before a noun that name a form and are no value: a `2 × 3 matrix`, `6/8 time`, `20/40 vision`.

/// Nouns of which two or three numbers are the sizes; in order where the noun tells rows from columns.
const SIZED: [(&str, bool); 17] = [
    ("matrix", true),
    ("matrices", true),
    ("array", true),
    ("table", true),
    ("tensor", true),
    ("grid", true),
    ("factorial design", true),
    ("contingency table", true),
    ("board", false),
    ("chessboard", false),
    ("rectangle", false),
    ("box", false),
    ("sheet", false),
    ("room", false),
    ("floor", false),
    ("garden", false),
    ("field", false),
];

/// Nouns of which two numbers are the name.
const NAMED: [&str; 9] =
    ["time", "time signature", "signature", "note", "rhythm", "vision", "mmHg", "mm Hg", "blood pressure"];

struct Format<'a> {
    numbers: Vec<String>,
    noun: &'a str,
    ordered: bool,
}

/// Whether two forms of one noun have the same numbers; `None` where one of them is none.
pub fn same_format(gold: &str, answer: &str) -> Option<bool> {
    let (a, b) = (read(gold)?, read(answer)?);
    if a.noun.trim_end_matches('s') != b.noun.trim_end_matches('s') && (a.ordered != b.ordered) {
        return None;
    }
    let (mut x, mut y) = (a.numbers, b.numbers);
    if !a.ordered {
        x.sort();
        y.sort();
    }
    Some(x == y)
}

/// "3 rows and 2 columns", in any order: rows before columns.
fn counted(text: &str) -> Option<Vec<String>> {
    let text = text.to_lowercase().replace(',', " ");
    let idle =
        |w: &&str| !matches!(*w, "it" | "has" | "the" | "matrix" | "array" | "table" | "with" | "and" | "having");
    let words: Vec<&str> = text.split_whitespace().filter(idle).collect();
    let number = |w: &str| super::restate::whole(w).filter(|n| *n > 0).map(|n| n.to_string());
    match words[..] {
        [m, "rows" | "row", n, "columns" | "column"] | [n, "columns" | "column", m, "rows" | "row"] => {
            Some(vec![number(m)?, number(n)?])
        }
        _ => None,
    }
}

fn read(text: &str) -> Option<Format<'_>> {
    let text = text.trim().trim_end_matches('.');
    let text = ["a ", "an ", "the ", "A ", "An ", "The "].iter().find_map(|w| text.strip_prefix(w)).unwrap_or(text);
    let digits = |t: &str| !t.is_empty() && t.len() < 9 && t.bytes().all(|b| b.is_ascii_digit());
    if let Some(numbers) = counted(text) {
        return Some(Format { numbers, noun: "matrix", ordered: true });
    }
    if let Some((noun, ordered)) = SIZED.iter().find(|(n, _)| text.ends_with(n)) {
        let sizes = text.strip_suffix(noun)?.replace("\\times", "x").replace(['\u{d7}', '*', '$'], "x");
        let sizes = sizes.replace("-by-", "x").replace(" by ", "x");
        let numbers: Vec<String> =
            sizes.split(['x', 'X']).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect();
        let known = (2..=3).contains(&numbers.len()) && numbers.iter().all(|t| digits(t));
        return known.then_some(Format { numbers, noun, ordered: *ordered });
    }
    let (noun, numbers) = NAMED.iter().find_map(|n| Some((*n, text.strip_suffix(n)?.strip_suffix(' ')?)))?;
    let numbers: Vec<String> = numbers.split('/').map(|t| t.trim().to_owned()).collect();
    let known = numbers.len() == 2 && numbers.iter().all(|t| digits(t));
    known.then_some(Format { numbers, noun, ordered: true })
}
