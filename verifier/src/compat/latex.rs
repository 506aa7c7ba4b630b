//! Rewrites a formula before parsing, as the published library does.

use std::sync::LazyLock;

use regex::Regex;

use crate::python::{self, compiled};

/// Words that are cut off the end of a formula as units.
const UNITS: &str = "integerpoint|feet|sue|digit|pound|meal|edge|student|children ticket|multiple|east|degree|mph|kmph|\
    ft|m square| m east|sq m|deg|mile|q .|monkey|prime|ratio|profit of rs|rd|o|gm|p . m|lb|tile|per|dm|lt|gain|ab|way|\
    west|a .|b .|c .|d .|e .|f .|g .|h .|t|h|no change|men|soldier|pie|bc|excess|st|inches|noon|cent|by|gal|kmh|c|\
    acre|rise|a . m|th|sq|mark|l|toy|coin|sq . m|gallon|profit|minw|yr|women|am|pm|hr|cu cm|square|are|\
    rupee|rounds|cubic|cc|mtr|s|ohm|number|day|hour|minute|min|second|man|woman|sec|cube|mt|sq inch|mp|hectare|\
    more|unit|cu . m|cm 2|rs .|rs|kg|g|month|km|m|cm|mm|apple|liter|loss|yard|pure|year|increase|decrease|d|less|\
    Surface|litre|pi sq m|s .|metre|meter|inch";

macro_rules! patterns {
    ($($name:ident = $pattern:expr;)*) => { $(static $name: LazyLock<Regex> = LazyLock::new(|| compiled($pattern));)* };
}

patterns! {
    LEFT = r"\\m?left(\\\{|\{|\\\||\||\[|\(|\\lgroup|\\lbrace|\\lbrack|\\vert|\\lvert|\\lceil|\\lfloor|\\langle|\\llcorner|\\ulcorner)";
    RIGHT = r"\\m?right(\\\}|\}|\\\||\||\]|\)|\\rgroup|\\rbrace|\\rbrack|\\vert|\\rvert|\\rceil|\\rfloor|\\rangle|\\lrcorner|\\urcorner)";
    PERMUTATION = r"\(([a-zA-Z0-9+\-*/\\ ]+?)\)_\{([a-zA-Z0-9+\-*/\\ ]+?)\}";
    REMOVED = r"\\mathrm\{th\}|\\!\s*|\\text\s*\{\s*\}|\\\$|\$|\\displaystyle";
    UPRIGHT = r"\\(?:math(?:rm|it|bf)|text(?:normal|bf|it|rm))";
    FRACTION = r"\\[dtc]frac";
    COMMA = r"\s*\{\s*,\s*\}";
    JOINT = r",?\s*\\text\{\s*(?:and|or)\s*\}";
    DOTS = r",?(\\ldots)";
    PERCENT = r"\s*\b(?:percentage|percent|pct)\b|\\text\{(?:percentage|percent|pct)\}";
    DOUBLED = r"\\\\([a-zA-Z])";
    TEXT_UNIT = r"(\\(?:text|mbox)\{.*?\})(\^[0-9]|\{\^[0-9]\})?$";
    POWER = r"\^\s?\((.*?)\)";
    ROOT = r"sqrt\s?\((.*?)\)";
    TWO_DIGITS = r"\\frac\s?([0-9])\s?([0-9]+)";
    LOGARITHM = r"\\log_\s?([0-9])\s?([0-9]+)";
    SECOND_DIGIT = r"\\frac\s?\{(.*?)\}\s?([0-9])";
    FIRST_DIGIT = r"\\frac\s?([0-9])\s?\{(.*?)\}";
    ROOT_DIGIT = r"\\sqrt\s?([0-9])";
    QUOTES = r#"(\\["'])|["']"#;
    SLASH = r"^(-?[0-9]+)/(-?[0-9]+)$";
}

static UNIT_WORD: LazyLock<Regex> =
    LazyLock::new(|| compiled(&format!(r"([0-9]|\}}|\s)\s*(?:(?:{UNITS})(?:s|es)?)\s*$")));

/// Returns the contents of all boxes if `all` is true, otherwise of the last box and of the boxes close before it.
fn boxes(text: &str, all: bool) -> String {
    let mut found: Vec<&str> = Vec::new();
    let (mut end, mut next_start) = (text.len(), None::<usize>);
    loop {
        let start = |c: &str| text[..end].rfind(c).map(|i| (i, i + c.len()));
        let Some((at, body)) = start("\\boxed").max(start("\\fbox")) else { break };
        let open = text.len() - text[body..].trim_start_matches(python::is_space).len();
        if open >= end {
            break;
        }
        // The position of the closing brace, or 0 if the box has no brace.
        let mut depth = 0;
        let close = text[open..end].bytes().position(|b| {
            depth += i32::from(b == b'{') - i32::from(b == b'}');
            depth <= 0
        });
        let Some(close) = close.filter(|c| *c > 0).map(|c| open + c) else {
            if found.is_empty() {
                found.push(&text[open..]);
            }
            break;
        };
        let content = python::strip(&text[open + 1..close]);
        if let Some(next) = next_start.filter(|_| !all) {
            let between = &text[close + 1..next];
            let length = python::len(between);
            let joined = between.split(|c: char| !c.is_alphanumeric()).any(|w| w == "and" || w == "or")
                || between.contains([',', ';']);
            if !(length < 10 || (found.last() != Some(&content) && length < 70 && joined)) {
                break;
            }
        }
        if found.last() != Some(&content) {
            found.push(content);
        }
        (next_start, end) = (Some(at), at);
    }
    if found.is_empty() {
        return text.to_owned();
    }
    found.reverse();
    found.join(",")
}

/// Adds braces around the two characters after a fraction. Returns `None` if fewer than two characters follow.
fn two_arguments(text: &str) -> Option<String> {
    let mut parts = text.split("\\frac");
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let part = part.trim_start_matches(python::is_space);
        out.push_str("\\frac");
        if part.starts_with('{') {
            out.push_str(part);
            continue;
        }
        let mut chars = part.chars();
        let (a, b) = (chars.next()?, chars.next()?);
        let rest = chars.as_str();
        out.push_str(&if b == '{' { format!("{{{a}}}{b}{rest}") } else { format!("{{{a}}}{{{b}}}{rest}") });
    }
    Some(out)
}

/// Returns the rewritten formula, which the parser reads. If the rewritten formula does not parse, it is compared as
/// text.
pub(super) fn normal(text: &str, last_box: bool) -> String {
    let mut t = boxes(text, !last_box);
    let replace = |t: String, pattern: &Regex, by: &str| match pattern.replace_all(&t, by) {
        std::borrow::Cow::Borrowed(_) => t,
        std::borrow::Cow::Owned(new) => new,
    };
    t = t.replace("\\mathrm{T}", "T").replace("\\mathrm{d}", "d").replace("{\\rm d}", "d");
    t = t.replace("\\left[\\begin{matrix}", "\\begin{bmatrix}").replace("\\end{matrix}\\right]", "\\end{bmatrix}");
    t = replace(t, &LEFT, "$1");
    t = replace(t, &RIGHT, "$1");
    t = replace(t, &PERMUTATION, r"\frac{($1)!}{(($1)-($2))!}");
    t = replace(t, &REMOVED, "");
    // Quotes are removed unless they are escaped.
    t = replace(t, &QUOTES, "$1");
    t = replace(t, &UPRIGHT, r"\text");
    t = replace(t, &FRACTION, r"\frac");
    t = t.replace(" .", " 0.").replace("{.", "{0.").replace("~=", "\\approx");
    t = replace(t, &COMMA, ",");
    t = replace(t, &JOINT, ",");
    if t.contains("\\ ") {
        // A line break of a matrix keeps its backslashes.
        t = t.replace("\\\\", "\u{1}").replace("\\ ", " ").replace('\u{1}', "\\\\");
    }
    if !t.contains("\\inf") && (t.contains("infinity") || t.contains("inf")) {
        t = t.replace("infinity", "inf").replace("inf", "\\infty");
    }
    t = replace(t, &DOTS, " ");
    t = replace(t, &PERCENT, r"\%");
    t = t.replace(" sqrt", "\\sqrt").replace(['\n', '\t'], " ");
    if !t.contains("matrix") {
        t = replace(t, &DOUBLED, r"\$1");
    }
    let kept = |cut: String, t: String| if cut.is_empty() { t } else { cut };
    t = kept(TEXT_UNIT.replace(&t, "").trim().to_owned(), t);
    for _ in 0..2 {
        t = kept(UNIT_WORD.replace(&t, "$1").into_owned(), t);
    }
    if t.starts_with('.') {
        t.insert(0, '0');
    }
    if t == "0.5" {
        t = "\\frac{1}{2}".to_owned();
    }
    for (pattern, by) in [
        (&POWER, "^{$1}"),
        (&ROOT, r"\sqrt{$1}"),
        (&TWO_DIGITS, r"\frac{$1}{$2}"),
        (&LOGARITHM, r"\log_{$1}{$2}"),
        (&SECOND_DIGIT, r"\frac{$1}{$2}"),
        (&FIRST_DIGIT, r"\frac{$1}{$2}"),
        (&ROOT_DIGIT, r"\sqrt{$1}"),
    ] {
        t = replace(t, pattern, by);
    }
    t = t.replace(" sqrt", "\\sqrt");
    t = two_arguments(&t).unwrap_or(t);
    t = replace(t, &SLASH, r"\frac{$1}{$2}");
    python::strip(&t).to_owned()
}
