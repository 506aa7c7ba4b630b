//! Bounds in words, as inequalities and intervals: "x is at least -1 but less than 4", "from 3 to 5, both ends
//! included", "nonnegative", "more than half".

/// Longest text.
const MAX: usize = 120;

/// Words of a bound and its sign; of two that begin alike the longer stands first.
const SIGNS: [(&str, &str); 34] = [
    ("greater than or equal to ", ">="),
    ("less than or equal to ", "<="),
    ("more than or equal to ", ">="),
    ("no less than ", ">="),
    ("not less than ", ">="),
    ("no smaller than ", ">="),
    ("no more than ", "<="),
    ("not more than ", "<="),
    ("no greater than ", "<="),
    ("not greater than ", "<="),
    ("strictly greater than ", ">"),
    ("strictly less than ", "<"),
    ("greater than ", ">"),
    ("more than ", ">"),
    ("larger than ", ">"),
    ("bigger than ", ">"),
    ("above ", ">"),
    ("exceeds ", ">"),
    ("less than ", "<"),
    ("fewer than ", "<"),
    ("smaller than ", "<"),
    ("below ", "<"),
    ("at least ", ">="),
    ("at most ", "<="),
    ("\\geq", ">="),
    ("\\ge", ">="),
    ("\u{2265}", ">="),
    (">=", ">="),
    (">", ">"),
    ("\\leq", "<="),
    ("\\le", "<="),
    ("\u{2264}", "<="),
    ("<=", "<="),
    ("<", "<"),
];

/// The text as notation, where all of it is bounds.
pub fn said_bounds(text: &str) -> Option<String> {
    let text = behind_label(text);
    if text.len() > MAX {
        return None;
    }
    let plain = text.trim().trim_end_matches('.').replace(['$'], "");
    if let Some(rest) = of_reals(&plain) {
        return among_reals(rest);
    }
    // all k less than 4
    let every =
        ["all values of ", "all ", "any "].iter().find_map(|w| plain.strip_prefix(w)).and_then(|r| r.split_once(' '));
    let (name, rest) = match every.or_else(|| plain.split_once(" is ")).or_else(|| plain.split_once(" must be ")) {
        Some((name, rest)) => (name.trim(), rest.trim()),
        None => ("", plain.trim()),
    };
    let letter = name.is_empty() || (name.len() == 1 && name.bytes().all(|b| b.is_ascii_alphabetic()));
    if !letter {
        return None;
    }
    let lower = rest.to_lowercase();
    if !name.is_empty() {
        let sign = match lower.as_str() {
            "nonnegative" | "non-negative" | "not negative" => ">= 0",
            "nonpositive" | "non-positive" | "not positive" => "<= 0",
            "positive" | "strictly positive" => "> 0",
            "negative" | "strictly negative" => "< 0",
            "nonzero" | "non-zero" | "not zero" => "\\ne 0",
            _ => "",
        };
        if !sign.is_empty() {
            return Some(format!("{name} {sign}"));
        }
    }
    if let Some(interval) = ends(&lower) {
        return Some(interval);
    }
    let joint = [" but ", " and ", ", but ", ", and "].iter().find_map(|j| lower.split_once(j));
    match joint {
        Some((a, b)) => {
            let ((s, a), (t, b)) = (bound(a)?, bound(b)?);
            let (low, high) = match (s.starts_with('>'), t.starts_with('>')) {
                (true, false) => ((s, a), (t, b)),
                (false, true) => ((t, b), (s, a)),
                _ => return None,
            };
            let open = if low.0 == ">" { '(' } else { '[' };
            let close = if high.0 == "<" { ')' } else { ']' };
            Some(format!("{open}{}, {}{close}", low.1, high.1))
        }
        None => {
            let (sign, value) = bound(&lower)?;
            Some(format!("{} {sign} {value}", if name.is_empty() { "x" } else { name }))
        }
    }
}

/// What stands behind the last label of a set: "Domain: ...", "**Range:** ...".
fn behind_label(text: &str) -> &str {
    const LABELS: [&str; 8] =
        ["Domain:", "Range:", "domain:", "range:", "domain is ", "range is ", "Solution set:", "solution set is "];
    let behind = LABELS.iter().filter_map(|l| text.rfind(l).map(|at| at + l.len())).max();
    behind.map_or(text, |at| text[at..].trim_start_matches(['*', ' ', '}']))
}

/// What is said of all real numbers.
fn of_reals(plain: &str) -> Option<&str> {
    const REALS: [&str; 8] =
        ["the set of ", "all ", "real numbers ", "reals ", "real values ", "numbers ", "real ", "values "];
    let mut rest = plain;
    for opening in REALS {
        rest = rest.strip_prefix(opening).unwrap_or(rest);
    }
    let opening = &plain[..plain.len() - rest.len()];
    let ranged = opening.contains("all values") && (rest.starts_with("from ") || rest.starts_with("between "));
    let real = opening.contains("real") || ranged;
    let rest = ["of ", "that are ", "which are "].iter().find_map(|w| rest.strip_prefix(w)).unwrap_or(rest);
    // The letter of the numbers.
    let rest =
        rest.strip_prefix(['x', 'y', 't']).filter(|r| !r.starts_with(char::is_alphanumeric)).unwrap_or(rest).trim();
    real.then_some(rest)
}

/// Bounds behind "all real numbers"; without a word for its ends, what lies between two numbers is neither of them.
fn among_reals(rest: &str) -> Option<String> {
    let lower = rest.to_lowercase();
    if let Some((a, b)) = lower.split_once(" or ").filter(|_| !lower.contains(" equal ")) {
        let ((s, a), (t, b)) = (bound(a)?, bound(b)?);
        return Some(format!("x {s} {a} or x {t} {b}"));
    }
    let spaced = lower.replace(" inclusive", ", inclusive").replace(" exclusive", ", exclusive").replace(",,", ",");
    if let Some(interval) = ends(&spaced) {
        return Some(interval);
    }
    if let Some((a, b)) =
        lower.trim_start_matches("strictly ").strip_prefix("between ").and_then(|r| r.split_once(" and "))
    {
        return Some(format!("({}, {})", value(a)?, value(b)?));
    }
    // All but some need no other words.
    if lower.starts_with("except ") {
        return Some(format!("all real numbers {rest}"));
    }
    let (sign, value) = bound(&lower)?;
    Some(format!("x {sign} {value}"))
}

fn bound(text: &str) -> Option<(&'static str, String)> {
    let text = text.trim().trim_end_matches(',');
    let text = text.strip_prefix("it is ").or(text.strip_prefix("is ")).unwrap_or(text);
    let (words, sign) = SIGNS.iter().find(|(w, _)| text.starts_with(w))?;
    Some((sign, value(&text[words.len()..])?))
}

/// A number, in digits or as the name of a share; with a percent sign as a decimal of one.
fn value(text: &str) -> Option<String> {
    let text = text.trim();
    if matches!(text, "half" | "one half" | "a half" | "one-half") {
        return Some("1/2".to_owned());
    }
    if let Some(n) = super::restate::whole(text) {
        return Some(n.to_string());
    }
    let plain = text.strip_suffix('%').or(text.strip_suffix(" percent"));
    let number = |t: &str| {
        t.bytes().any(|b| b.is_ascii_digit())
            && t.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'/'))
    };
    match plain.map(|p| p.trim_end_matches('\\')) {
        Some(p) => number(p).then(|| format!("{p}/100")),
        None => number(text).then(|| text.to_owned()),
    }
}

/// "from 3 to 5, both ends included", "between 3 and 5, including 3 but not 5".
fn ends(lower: &str) -> Option<String> {
    let (span, said) = lower.split_once(',').or_else(|| lower.split_once('('))?;
    let span = span.trim();
    let (a, b) = match span.strip_prefix("between ") {
        Some(rest) => rest.split_once(" and ")?,
        None => span.strip_prefix("from ")?.split_once(" to ")?,
    };
    let (a, b) = (value(a)?, value(b)?);
    let said = said.trim().trim_end_matches(')').replace("endpoints", "ends").replace("end points", "ends");
    match said.as_str() {
        "both ends included"
        | "both included"
        | "both inclusive"
        | "ends included"
        | "including both ends"
        | "including the ends"
        | "inclusive"
        | "with both ends included" => Some(format!("[{a}, {b}]")),
        "both ends excluded"
        | "both excluded"
        | "both exclusive"
        | "ends excluded"
        | "excluding both ends"
        | "excluding the ends"
        | "exclusive"
        | "with both ends excluded"
        | "neither end included" => Some(format!("({a}, {b})")),
        said => {
            let half = |low: &str, high: &str| {
                said == format!("including {low} but not {high}")
                    || said == format!("{low} included and {high} excluded")
                    || said == format!("including {low} but excluding {high}")
                    || said == format!("{low} included but {high} excluded")
                    || said == format!("{low} included, {high} excluded")
            };
            if half(&a, &b) {
                Some(format!("[{a}, {b})"))
            } else if half(&b, &a) || said == format!("excluding {a} but including {b}") {
                Some(format!("({a}, {b}]"))
            } else {
                None
            }
        }
    }
}
