//! Changes by a factor: "it quadruples", "increases by a factor of 4", "reduced to 1/2 of its original value".

use std::sync::LazyLock;

use regex::Regex;

use super::super::words::tables::{all_as, is_wordless};
use super::super::{math, words};
use super::{Steps, equal};

/// Verbs that say a factor.
const VERBS: [(&str, &str); 25] = [
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
    ("quarters", "1/4"),
    ("cut in half", "1/2"),
    ("reduced to half", "1/2"),
    ("reduced to a quarter", "1/4"),
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
    if is_wordless(text) {
        return None;
    }
    let text = all_as(text.trim().trim_end_matches('.'), &["\\(", "\\)", "$"], "");
    let found = |head: &str, factor: String| {
        let head = head.trim();
        let head = [" is", " are", " was", " will be", " gets", " has been", " becomes", " will"]
            .iter()
            .find_map(|v| head.strip_suffix(v))
            .unwrap_or(head);
        let head = if matches!(
            head.to_lowercase().as_str(),
            "is" | "it" | "this" | "will be" | "by" | "they" | "the value" | "it becomes"
        ) {
            ""
        } else {
            head
        };
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
    let (head, n) = relative(&text).or_else(|| times(&text))?;
    let head = head.trim();
    found(DOWN.iter().chain(&UP).find_map(|v| head.strip_suffix(v)).unwrap_or(head), n)
}

/// A small number, a fraction or their word.
const NUMBER: &str = r"\\[dt]?frac\s*\{?\d+\}?\s*\{?\d+\}?|\d+(?:\.\d+)?(?:/\d+)?|(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen)(?:[ -](?:half|halves|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|sixteenth)s?)?|half|twice|thrice|double|triple|quadruple";

/// What stands before a change to a share or a multiple of what was, and the factor: "becomes 4 times its initial
/// value", "is one fourth as large", "four times the original".
fn relative(text: &str) -> Option<(&str, String)> {
    static SAID: LazyLock<[Regex; 2]> = LazyLock::new(|| {
        let head = r"(?:^|^(.*?) )(?:(?:to|becomes|become|be|is|are|was|only|just|by) )*";
        [
            format!(r"(?i){head}({NUMBER})(?: times)?(?: of)? (?:its|the|their|what it was) ?(?:original|initial|former|previous|first|old|starting|earlier)(?: [a-z]+)?$"),
            format!(r"(?i){head}({NUMBER})(?: times)? as (?:large|big|great|much|high|strong|fast|long|bright|heavy|small)(?: as (?:before|it was|originally|the original))?$"),
        ]
        .map(|p| Regex::new(&p).expect("a fixed pattern"))
    });
    (text.contains(" as ") || text.contains("its ") || text.contains("the ") || text.contains("their "))
        .then_some(())?;
    let found = SAID.iter().find_map(|p| p.captures(text))?;
    Some((found.get(1).map_or("", |m| m.as_str()), value(found.get(2)?.as_str())?))
}

/// What stands before "multiplied by 4", "divided by 4", "fourfold", and the factor.
fn times(text: &str) -> Option<(&str, String)> {
    if let Some((head, n)) = text.split_once("divided by ") {
        return Some((head, format!("1/({})", value(n)?)));
    }
    if let Some((head, n)) = text.split_once("multiplied by ") {
        return Some((head, value(n)?));
    }
    let fold = text.strip_suffix("fold").or_else(|| text.strip_suffix("fold increase"))?.trim_end_matches('-');
    let (head, n) = fold.rsplit_once(' ').unwrap_or(("", fold));
    let (head, n) = (head.trim_end_matches(" by").trim_end_matches(" a"), value(n)?);
    Some(match DOWN.iter().find_map(|v| head.strip_suffix(v)) {
        Some(head) => (head, format!("1/({n})")),
        None => (head, n),
    })
}

/// A factor in digits or words as notation.
fn value(text: &str) -> Option<String> {
    static WHOLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(&format!("^(?:{NUMBER})$")).expect("a fixed pattern"));
    let lower = text.trim().to_lowercase();
    WHOLE.is_match(&lower).then_some(())?;
    Some(match lower.as_str() {
        "a" | "an" => return None,
        "twice" | "double" => "2".to_owned(),
        "thrice" | "triple" => "3".to_owned(),
        "quadruple" => "4".to_owned(),
        "half" => "1/2".to_owned(),
        said => match said.strip_prefix("a ").or(said.strip_prefix("an ")) {
            Some(part) => format!("one {part}"),
            None => math::number_words::small(said).map_or_else(|| said.to_owned(), |n| n.to_string()),
        },
    })
}

pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    let (a, b) = (read(gold)?, read(answer)?);
    let what = a.what.is_empty() || b.what.is_empty() || words::same(&a.what, &b.what);
    Some(what && equal(&a.factor, &b.factor, steps))
}
