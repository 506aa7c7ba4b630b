//! Notation said in words, as signs: `x is at least 4`, `log base 2 of 8`, `5 squared`.

use crate::reward::words::tables::is_wordless;

/// Words and the signs they stand for; of two that begin alike the longer stands first.
const SIGNS: [(&str, &str); 70] = [
    ("is greater than or equal to", "\\ge"),
    ("greater than or equal to", "\\ge"),
    ("is less than or equal to", "\\le"),
    ("less than or equal to", "\\le"),
    ("is not less than", "\\ge"),
    ("is not greater than", "\\le"),
    ("is no less than", "\\ge"),
    ("is no more than", "\\le"),
    ("is at least", "\\ge"),
    ("is at most", "\\le"),
    ("is greater than", ">"),
    ("is more than", ">"),
    ("is larger than", ">"),
    ("is less than", "<"),
    ("is smaller than", "<"),
    ("is not equal to", "\\ne"),
    ("does not equal", "\\ne"),
    ("is equal to", "="),
    ("equals", "="),
    ("greater than", ">"),
    ("less than", "<"),
    ("to the power of", "^"),
    ("raised to the power", "^"),
    ("raised to", "^"),
    ("the square root of", "\\sqrt"),
    ("square root of", "\\sqrt"),
    ("the cube root of", "\\sqrt[3]"),
    ("cube root of", "\\sqrt[3]"),
    ("to the power", "^"),
    ("twice", "2 *"),
    ("thrice", "3 *"),
    ("double", "2 *"),
    ("triple", "3 *"),
    ("half of", "1/2 *"),
    ("squared", "^2"),
    ("cubed", "^3"),
    ("multiplied by", "*"),
    ("divided by", "/"),
    ("times", "*"),
    ("plus or minus", "\\pm"),
    ("plus", "+"),
    ("minus", "-"),
    ("over", "/"),
    ("the natural log of", "\\ln"),
    ("natural log of", "\\ln"),
    ("the absolute value of", "\\operatorname{abs}"),
    ("absolute value of", "\\operatorname{abs}"),
    ("factorial", "!"),
    ("degrees celsius", "\\circ C"),
    ("degrees fahrenheit", "\\circ F"),
    ("log base", "\\log_"),
    ("sine of", "\\sin"),
    ("cosine of", "\\cos"),
    ("tangent of", "\\tan"),
    ("negative infinity", "-\\infty"),
    ("positive infinity", "\\infty"),
    ("union", "\\cup"),
    ("intersection", "\\cap"),
    ("is congruent to", "\\equiv"),
    ("congruent to", "\\equiv"),
    ("approximately equal to", "\\approx"),
    ("all real numbers except", "\\mathbb{R}\\setminus"),
    ("all reals except", "\\mathbb{R}\\setminus"),
    ("all real numbers greater than", "x >"),
    ("all real numbers less than", "x <"),
    ("percent of", "/100 *"),
    ("is an element of", "\\in"),
    ("is in the interval", "\\in"),
    ("belongs to", "\\in"),
    ("is in", "\\in"),
];

/// The text with such words as signs; `None` when there are none.
pub(super) fn signs(text: &str) -> Option<String> {
    if text.len() > 300 {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let (mut out, mut at, mut found) = (String::new(), 0, false);
    while at < text.len() {
        let begins = at == 0 || !lower.as_bytes()[at - 1].is_ascii_alphabetic();
        let said = SIGNS.iter().filter(|_| begins).find(|(words, _)| {
            let rest = &lower[at..];
            rest.starts_with(words) && !rest[words.len()..].starts_with(|c: char| c.is_alphabetic())
        });
        if let Some((words, sign)) = said {
            out.push(' ');
            out.push_str(sign);
            out.push(' ');
            at += words.len();
            found = true;
            // log base 2 of 8
            if *words == "log base"
                && let Some((base, rest)) = text[at..].split_once(" of ")
            {
                out = format!("{}{{{base}}}", out.trim_end());
                at = text.len() - rest.len();
            }
            continue;
        }
        let c = text[at..].chars().next()?;
        out.push(c);
        at += c.len_utf8();
    }
    found.then_some(out)
}

/// What a phrase of its own stands for.
pub(super) fn named(text: &str) -> Option<&'static str> {
    // Of words alone.
    if is_wordless(text) || text.contains(|c: char| c.is_ascii_digit() || "+=*<>/".contains(c)) {
        return None;
    }
    match crate::reward::words::key(text).as_str() {
        "right angle" => Some("90^\\circ"),
        "straight angle" => Some("180^\\circ"),
        "diverges to infinity"
        | "grows without bound"
        | "increases without bound"
        | "positive infinity"
        | "plus infinity"
        | "tends to infinity"
        | "infinity" => Some("\\infty"),
        "diverges to negative infinity"
        | "decreases without bound"
        | "negative infinity"
        | "minus infinity"
        | "diverges to minus infinity" => Some("-\\infty"),
        "no elements" | "null set" | "void set" | "empty" => Some("\\emptyset"),
        "x axis" | "line y=0" => Some("y=0"),
        "y axis" | "line x=0" => Some("x=0"),
        "xy plane" => Some("z=0"),
        "xz plane" | "zx plane" => Some("y=0"),
        "yz plane" => Some("x=0"),
        "full turn" | "full rotation" | "full circle" => Some("360^\\circ"),
        _ => None,
    }
}
