//! Changes by a factor: "it quadruples", "increases by a factor of 4", "reduced to 1/2 of its original value".

use super::super::words;
use super::{Steps, equal};

/// Verbs that say a factor.
const VERBS: [(&str, &str); 22] = [
    ("doubles", "2"),
    ("doubled", "2"),
    ("triples", "3"),
    ("tripled", "3"),
    ("trebles", "3"),
    ("trebled", "3"),
    ("quadruples", "4"),
    ("quadrupled", "4"),
    ("quintuples", "5"),
    ("quintupled", "5"),
    ("sextuples", "6"),
    ("sextupled", "6"),
    ("halves", "1/2"),
    ("halved", "1/2"),
    ("quartered", "1/4"),
    ("cut in half", "1/2"),
    ("reduced by half", "1/2"),
    ("decreases by half", "1/2"),
    ("unchanged", "1"),
    ("stays the same", "1"),
    ("remains constant", "1"),
    ("does not change", "1"),
];

/// Verbs before "by a factor of", and those that turn it over.
const UP: [&str; 8] = ["increases", "increased", "grows", "rises", "multiplied", "changes", "goes up", "larger"];
const DOWN: [&str; 8] = ["decreases", "decreased", "falls", "drops", "reduced", "shrinks", "goes down", "smaller"];

/// What changes, empty where it is not named, and the factor as a formula.
struct Change {
    what: String,
    factor: String,
}

fn read(text: &str) -> Option<Change> {
    let text = text.trim().trim_end_matches('.').replace("\\(", "").replace("\\)", "").replace('$', "");
    let found = |head: &str, factor: String| {
        let head = head.trim();
        let head = [" is", " are", " was", " will be", " gets", " has been", " becomes", " will"]
            .iter()
            .find_map(|v| head.strip_suffix(v))
            .unwrap_or(head);
        let head = if matches!(head, "is" | "it" | "It" | "this" | "will be" | "by") { "" } else { head };
        let plain = head.len() < 60 && head.chars().all(|c| c.is_alphabetic() || c == ' ') && !words::turned(head);
        plain.then(|| Change { what: head.to_owned(), factor })
    };
    for (verb, factor) in VERBS {
        if let Some(head) = text.strip_suffix(verb)
            && (head.is_empty() || head.ends_with(' '))
        {
            return found(head, factor.to_owned());
        }
    }
    let value = |t: &str| {
        let t = t.trim();
        let t = words_number(t).map_or_else(|| t.to_owned(), str::to_owned);
        (t.starts_with(|c: char| c.is_ascii_digit() || c == '\\') && !t.contains(' ')).then_some(t)
    };
    if let Some((head, n)) = text.split_once("a factor of ") {
        let n = value(n)?;
        let head = head.trim();
        let head = head.strip_suffix("by").unwrap_or(head).trim();
        if let Some(head) = DOWN.iter().find_map(|v| head.strip_suffix(v)) {
            return found(head, format!("1/({n})"));
        }
        return found(UP.iter().find_map(|v| head.strip_suffix(v)).unwrap_or(head), n);
    }
    for unit in [" orders of magnitude", " order of magnitude"] {
        if let Some(head) = text.strip_suffix(unit) {
            let (head, n) = head.rsplit_once(' ').unwrap_or(("", head));
            let n = value(if n == "an" { "one" } else { n })?;
            let head = head.strip_suffix(" by").or_else(|| head.strip_suffix("by")).unwrap_or(head);
            if let Some(head) = DOWN.iter().find_map(|v| head.strip_suffix(v)) {
                return found(head, format!("10^{{-{n}}}"));
            }
            return found(UP.iter().find_map(|v| head.strip_suffix(v)).unwrap_or(head), format!("10^{{{n}}}"));
        }
    }
    // "Reduced to 1/2 of its original value", "becomes 4 times its initial value".
    const ORIGINAL: [&str; 6] =
        ["its original", "its initial", "the original", "the initial", "its former", "its previous"];
    let (head, rest) = [" to ", " becomes ", "to ", "becomes "].iter().find_map(|v| Some((text.split_once(v)?, *v)))?.0;
    let at = ORIGINAL.iter().find_map(|o| rest.find(o))?;
    let n = value(rest[..at].trim().trim_end_matches(" of").trim_end_matches(" times"))?;
    let head = head.trim();
    let verb = DOWN.iter().chain(&UP).find_map(|v| head.strip_suffix(v));
    found(verb.unwrap_or(head), n)
}

/// Number words of small factors.
fn words_number(word: &str) -> Option<&'static str> {
    const WORDS: [(&str, &str); 14] = [
        ("one", "1"),
        ("two", "2"),
        ("three", "3"),
        ("four", "4"),
        ("five", "5"),
        ("six", "6"),
        ("seven", "7"),
        ("eight", "8"),
        ("nine", "9"),
        ("ten", "10"),
        ("half", "1/2"),
        ("a quarter", "1/4"),
        ("one quarter", "1/4"),
        ("one third", "1/3"),
    ];
    WORDS.iter().find(|w| w.0 == word).map(|w| w.1)
}

pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    let (a, b) = (read(gold)?, read(answer)?);
    let what = a.what.is_empty() || b.what.is_empty() || words::same(&a.what, &b.what);
    Some(what && equal(&a.factor, &b.factor, steps))
}
