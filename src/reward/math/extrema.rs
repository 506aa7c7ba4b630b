//! Greatest and least values with their places: "maximum value 5 at x = 2", "at x = 2 it has a maximum of 5".

use std::sync::LazyLock;

use regex::Regex;

use super::Steps;
use super::compare::equal;
use super::described::{MAX, part, plain};
use super::parse::parse;

/// An extremum: whether it is one of all values or of those near it, where that is said, which, its value, its place.
struct Extremum {
    near: Option<bool>,
    kind: String,
    value: String,
    place: String,
}

fn alike(x: &str, y: &str, steps: &Steps) -> bool {
    equal(&parse(x, true, steps), &parse(y, true, steps), steps).equal
}

/// Whether two plain texts say the same extremum; `None` where one of them says none.
pub(super) fn same_extremum(a: &str, b: &str, steps: &Steps) -> Option<bool> {
    let (a, b) = (extremum(a)?, extremum(b)?);
    let kinds = a.kind == b.kind && (a.near.is_none() || b.near.is_none() || a.near == b.near);
    Some(kinds && alike(&a.value, &b.value, steps) && alike(&a.place, &b.place, steps))
}

/// True where one says an extremum with its place, and the other another, or the place alone.
pub(in crate::reward) fn another_extremum(gold: &str, answer: &str, steps: &Steps) -> bool {
    if gold.len() > MAX || answer.len() > MAX {
        return false;
    }
    let (a, b) = (plain(gold), plain(answer));
    match (extremum(&a), extremum(&b)) {
        (Some(_), Some(_)) => same_extremum(&a, &b, steps) == Some(false),
        (Some(e), None) => !alike(&e.value, answer, steps),
        (None, Some(e)) => !alike(gold, &e.value, steps),
        (None, None) => false,
    }
}

/// The extremum that a text says.
fn extremum(text: &str) -> Option<Extremum> {
    static WAYS: LazyLock<[Regex; 2]> = LazyLock::new(|| {
        const KIND: &str = r"(?:(absolute|global|local|relative) )?(max|min)(?:imum)?(?: value| point)?";
        const OF: &str = r"(?: of (?:the function|[a-z](?:\([a-z]\))?))?";
        const AT: &str = r"(?:at|when|for|where)";
        [
            format!(
                r"(?i)^(?:(?:the function|it|[a-z](?:\([a-z]\))?) (?:has|attains|reaches|takes) )?(?:the |a |an |its )?{KIND}{OF}(?: is| equals| of| =|:)? ?([^\s,]+(?: ?[a-z/^2]+)??),? ?(?:and |which |it )?(?:is |that )?(?:occurs?|occurring|attained|achieved|reached|taken)? ?{AT} ([a-z] ?= ?[^,;]+?)$"
            ),
            format!(
                r"(?i)^(?:at|when) ([a-z] ?= ?[^,;]+?),? (?:the function|it|[a-z](?:\([a-z]\))?|there) (?:has|attains|reaches|takes|is) (?:the |a |an |its )?{KIND}(?: is| equals| of| =|:)? ?([^\s,]+)$"
            ),
        ]
        .map(|p| Regex::new(&p).expect("a fixed pattern"))
    });
    let (c, [value, place, near, kind]) = match (WAYS[0].captures(text), WAYS[1].captures(text)) {
        (Some(c), _) => (c, [3, 4, 1, 2]),
        (_, Some(c)) => (c, [4, 1, 2, 3]),
        _ => return None,
    };
    let said = |n: usize| part(&c, n).to_lowercase();
    // Several of them are a list.
    if ["max", "min"].iter().any(|k| said(place).contains(k)) {
        return None;
    }
    let near = match said(near).as_str() {
        "" => None,
        word => Some(matches!(word, "local" | "relative")),
    };
    Some(Extremum { near, kind: said(kind), value: part(&c, value).to_owned(), place: part(&c, place).to_owned() })
}
