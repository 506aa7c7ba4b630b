//! What a sentence comes to: "The one-sided limits are different, so the limit does not exist."

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::reward::words;
use crate::reward::words::tables::{all_as, is_wordless, replaced};

/// What limits, series, systems and functions may be said to be, and ways to say it.
const CONCLUSIONS: [(&str, &[&str]); 26] = [
    ("injective", &["one-to-one", "one to one", "injective", "is injective", "is one-to-one"]),
    ("surjective", &["onto", "surjective", "is surjective", "is onto"]),
    (
        "injective only",
        &[
            "one-to-one but not onto",
            "injective but not surjective",
            "one-to-one and not onto",
            "injective and not surjective",
        ],
    ),
    (
        "surjective only",
        &[
            "onto but not one-to-one",
            "surjective but not injective",
            "onto and not one-to-one",
            "surjective and not injective",
        ],
    ),
    (
        "neither",
        &["neither one-to-one nor onto", "neither injective nor surjective", "not injective and not surjective"],
    ),
    (
        "bijective",
        &[
            "bijective",
            "is bijective",
            "one-to-one and onto",
            "both one-to-one and onto",
            "both injective and surjective",
            "injective and surjective",
            "a bijection",
            "is a bijection",
        ],
    ),
    (
        "reject",
        &[
            "reject the null hypothesis",
            "reject null hypothesis",
            "reject h0",
            "reject h_0",
            "we reject h_0",
            "we reject the null hypothesis",
            "we can reject the null hypothesis",
            "null hypothesis should be rejected",
            "null hypothesis is rejected",
            "h_0 is rejected",
            "h0 is rejected",
        ],
    ),
    (
        "keep",
        &[
            "fail to reject the null hypothesis",
            "do not reject the null hypothesis",
            "fail to reject h0",
            "fail to reject h_0",
            "do not reject h_0",
            "do not reject h0",
            "we do not reject h_0",
            "we do not reject the null hypothesis",
            "cannot reject h_0",
            "cannot reject the null hypothesis",
            "we cannot reject the null hypothesis",
            "failed to reject the null hypothesis",
            "failed to reject h_0",
            "retain h_0",
            "retain the null hypothesis",
            "we fail to reject h_0",
            "we fail to reject the null hypothesis",
            "null hypothesis is not rejected",
            "h_0 is not rejected",
            "h0 is not rejected",
        ],
    ),
    ("does not exist", &["does not exist", "doesnt exist", "fails to exist", "dne", "do not exist"]),
    ("diverges", &["diverges", "is divergent", "divergent", "does not converge"]),
    ("conditionally", &["converges conditionally", "is conditionally convergent", "conditionally convergent"]),
    ("absolutely", &["converges absolutely", "is absolutely convergent", "absolutely convergent"]),
    ("converges", &["converges", "is convergent", "convergent"]),
    ("undefined", &["is undefined", "undefined", "is not defined", "not defined"]),
    (
        "no solution",
        &[
            "has no solution",
            "has no solutions",
            "no solution",
            "no solutions",
            "there is no solution",
            "there are no solutions",
            "has no real solutions",
            "0 solutions",
            "zero solutions",
            "has 0 solutions",
            "is inconsistent",
            "inconsistent",
        ],
    ),
    (
        "infinitely many",
        &["has infinitely many solutions", "infinitely many solutions", "there are infinitely many solutions"],
    ),
    ("always", &["always", "always true", "is always true"]),
    ("sometimes", &["sometimes", "sometimes true", "is sometimes true"]),
    ("never", &["never", "never true", "is never true"]),
    ("orthogonal", &["orthogonal", "are orthogonal", "perpendicular", "are perpendicular"]),
    ("independent", &["are linearly independent", "is linearly independent", "linearly independent"]),
    ("dependent", &["are linearly dependent", "is linearly dependent", "linearly dependent"]),
    (
        "even",
        &[
            "is even",
            "is an even function",
            "even function",
            "symmetric about the y-axis",
            "symmetric with respect to the y-axis",
            "symmetric across the y-axis",
            "symmetric about the line x = 0",
            "symmetric with respect to the line x = 0",
            "symmetric about x = 0",
        ],
    ),
    (
        "odd",
        &[
            "is odd",
            "is an odd function",
            "odd function",
            "symmetric about the origin",
            "symmetric with respect to the origin",
            "symmetric about the point (0 0)",
        ],
    ),
    (
        "about the x-axis",
        &[
            "symmetric about the x-axis",
            "symmetric with respect to the x-axis",
            "symmetric across the x-axis",
            "symmetric about the line y = 0",
            "symmetric with respect to the line y = 0",
            "symmetric about y = 0",
        ],
    ),
    (
        "about the diagonal",
        &[
            "symmetric about the line y = x",
            "symmetric with respect to the line y = x",
            "symmetric across the line y = x",
            "symmetric about y = x",
        ],
    ),
];

/// Words that may stand before: what it is said of.
const SUBJECTS: [&str; 35] = [
    "the",
    "a",
    "this",
    "that",
    "it",
    "they",
    "limit",
    "series",
    "integral",
    "improper",
    "sum",
    "sequence",
    "system",
    "equation",
    "equations",
    "function",
    "expression",
    "vectors",
    "set",
    "value",
    "derivative",
    "inverse",
    "therefore",
    "so",
    "thus",
    "hence",
    "given",
    "of",
    "which",
    "these",
    "vector",
    "graph",
    "curve",
    "is",
    "statement",
];

/// The first row of each way's key: making all the keys takes a millisecond.
static KEYS: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
    let ways =
        CONCLUSIONS.iter().enumerate().flat_map(|(row, (_, ways))| ways.iter().map(move |w| (words::key(w), row)));
    let mut rows = HashMap::new();
    for (key, row) in ways {
        rows.entry(key).or_insert(row);
    }
    rows
});

/// What a text comes to in its last clause; nothing for other texts.
pub(super) fn conclusion(text: &str) -> Option<(bool, &'static str)> {
    if text.len() > 300 || is_wordless(text) {
        return None;
    }
    let plain = all_as(replaced(text, &[("\\text{", ""), ("_{0}", "_0"), ("\u{2080}", "_0")]), &["}", "$"], "");
    // A reason may stand behind.
    let told = [" because ", " since ", ", as "].iter().find_map(|r| plain.split_once(r)).map_or(&*plain, |(t, _)| t);
    let clause = told.trim_end_matches(['.', ' ']).rsplit([',', ';', '.', ':']).next()?;
    let lower = clause.to_lowercase().replace("symmetrical ", "symmetric ");
    let said: Vec<&str> = lower.split_whitespace().collect();
    let from = said.iter().take_while(|w| SUBJECTS.contains(w)).count();
    // Words that say the same have one key.
    let row = |said: &[&str]| KEYS.get(&words::key(&said.join(" "))).copied();
    let whole = row(&said);
    let found = |words: &[&str]| {
        let rows = [whole, if words.len() < said.len() { row(words) } else { None }];
        rows.into_iter().flatten().min().map(|row| CONCLUSIONS[row].0)
    };
    if let Some(name) = found(&said[from..]) {
        return Some((true, name));
    }
    // "is not injective", where one of two is always so.
    let ["not", denied @ ..] = said[from..].strip_prefix(&["is"]).unwrap_or(&said[from..]) else { return None };
    Some(match found(denied)? {
        "converges" => (true, "diverges"),
        "diverges" => (true, "converges"),
        "independent" => (true, "dependent"),
        "dependent" => (true, "independent"),
        name => (false, name),
    })
}

/// True where both come to something, and not to the same.
pub(in crate::reward) fn concluded_otherwise(gold: &str, answer: &str) -> bool {
    conclusion(gold).is_some_and(|a| conclusion(answer).is_some_and(|b| a != b))
}
