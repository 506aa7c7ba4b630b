//! Maps of the plane in words or notation: "translation by 3 to the right", "rotation 90° clockwise about (1, 2)",
//! `(x, y) \to (2x, 2y)`. Each is where it takes the point `(x, y)`.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::described::{MAX, plain};

/// Where a map takes `(x, y)`; nothing for other texts.
pub(super) fn map(text: &str) -> Option<[String; 2]> {
    static FRAME: LazyLock<Regex> = LazyLock::new(|| {
        const SUBJECT: &str = "it|this|that|the (?:figure|graph|triangle|shape|image|curve|polygon|square|rectangle|(?:single )?transformation)";
        let done = r"(?:(reflected|mirrored)|(rotated|turned)|(enlarged|dilated))\b";
        Regex::new(&format!(r"(?i)^(?:(?:{SUBJECT}) (?:is|was|has been|must be) )?(?:(?:an? |the )|{done})?"))
            .expect("a fixed pattern")
    });
    let noun = |c: &Captures| match [1, 2, 3].iter().find(|n| c.get(**n).is_some()) {
        Some(1) => "reflection",
        Some(2) => "rotation",
        Some(_) => "enlargement",
        None => "",
    };
    let text = FRAME.replace(text, noun);
    let turns = [("half-turn", "180"), ("half turn", "180"), ("quarter-turn", "90"), ("quarter turn", "90")];
    let text = &*turns.iter().fold(text.into_owned(), |t, (w, n)| t.replace(w, &format!("rotation of {n} degrees")));
    written(text)
        .or_else(|| moved(text))
        .or_else(|| along(text))
        .or_else(|| enlarged(text))
        .or_else(|| turned(text))
        .or_else(|| mirrored(text))
}

/// A map of the plane in words, by its arrow.
pub(super) fn notation(text: &str) -> Option<String> {
    const KINDS: [&str; 9] = ["eflect", "irror", "otat", "turn", "ranslat", "nlarge", "ilat", "omothety", "hift"];
    let words = text.len() <= MAX && text.contains(' ');
    if !words || !KINDS.iter().any(|k| text.contains(k)) {
        return None;
    }
    let [x, y] = map(&plain(text))?;
    Some(format!("(x, y) \\mapsto ({x}, {y})"))
}

fn part<'a>(c: &'a Captures, n: usize) -> &'a str {
    c.get(n).map_or("", |m| m.as_str().trim())
}

/// `(x, y) \to (x + 3, y)`.
fn written(text: &str) -> Option<[String; 2]> {
    static ARROW: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\(x, ?y\) ?\\to ?\(([^,]+),([^,]+)\)$").expect("a fixed pattern"));
    let c = ARROW.captures(text)?;
    Some([part(&c, 1).to_owned(), part(&c, 2).to_owned()])
}

/// "3 units right and 1 unit up", "moves down 2".
fn moved(text: &str) -> Option<[String; 2]> {
    static STEP: LazyLock<Regex> = LazyLock::new(|| {
        let way = r"(?:to the )?(right|left|up|down)(?:wards?)?";
        let n = r"(\d+(?:[./]\d+)?)(?: units?)?";
        Regex::new(&format!(r"(?:\b{n} {way}\b|\b{way}(?: by)? {n}\b)")).expect("a fixed pattern")
    });
    const IDLE: [&str; 30] = [
        "horizontal",
        "horizontally",
        "vertical",
        "vertically",
        "",
        "the",
        "a",
        "an",
        "graph",
        "is",
        "was",
        "moves",
        "moved",
        "move",
        "shift",
        "shifts",
        "shifted",
        "translation",
        "translated",
        "translate",
        "translates",
        "by",
        "of",
        "and",
        "it",
        "then",
        "curve",
        "function",
        "figure",
        "horizontally",
    ];
    const NUMBERS: [&str; 10] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    let lower = text.to_lowercase();
    let digits = |w: &str| NUMBERS.iter().position(|n| *n == w).map_or_else(|| w.to_owned(), |n| (n + 1).to_string());
    let lower = lower.split(' ').map(digits).collect::<Vec<_>>().join(" ");
    if !STEP.replace_all(&lower, "").split([' ', ',', ';']).all(|w| IDLE.contains(&w)) {
        return None;
    }
    let mut by: [Option<String>; 2] = [None, None];
    for c in STEP.captures_iter(&lower) {
        let (n, way) = (format!("{}{}", part(&c, 1), part(&c, 4)), format!("{}{}", part(&c, 2), part(&c, 3)));
        let (axis, sign) = match way.as_str() {
            "right" => (0, "+"),
            "left" => (0, "-"),
            "up" => (1, "+"),
            _ => (1, "-"),
        };
        if by[axis].replace(format!("{sign}{n}")).is_some() {
            return None;
        }
    }
    if by == [None, None] {
        return None;
    }
    let [dx, dy] = by.map(Option::unwrap_or_default);
    Some([format!("x{dx}"), format!("y{dy}")])
}

/// "translation by the vector (3, -2)".
fn along(text: &str) -> Option<[String; 2]> {
    static VECTOR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"(?i)^(?:it is )?(?:an? |the )?translation (?:by|of|along|with|through)(?: the)?(?: vector)? ?(?:\\begin\{[pb]matrix\}|\(|\\langle|<)([^,\\()]+)(?:,|\\\\)([^,\\()]+)(?:\\end\{[pb]matrix\}|\)|\\rangle|>)$",
        )
        .expect("a fixed pattern")
    });
    let c = VECTOR.captures(text)?;
    Some([format!("x+({})", part(&c, 1)), format!("y+({})", part(&c, 2))])
}

/// "an enlargement with scale factor 2, centre the origin".
fn enlarged(text: &str) -> Option<[String; 2]> {
    static SCALE: LazyLock<Regex> = LazyLock::new(|| {
        let centre = r"(?:cent(?:re|er)(?:ed|d)?|about|from)(?: at| of enlargement| of dilation)?";
        Regex::new(&format!(
            r"(?i)^(?:it is )?(?:an? |the )?(?:enlargement|dilation|dilatation|homothety)(?: with| of| by)?(?: a)?(?: scale)?(?: factor)?(?: of)? ?(-?[\d./]+|\\frac\S+),? ?(?:and |with )?{centre} ?(?:\(([^,()]+),([^,()]+)\)|(the origin))$"
        ))
        .expect("a fixed pattern")
    });
    let c = SCALE.captures(text)?;
    let (k, origin) = (part(&c, 1), !part(&c, 4).is_empty());
    let (a, b) = if origin { ("0", "0") } else { (part(&c, 2), part(&c, 3)) };
    Some([format!("({a})+({k})*(x-({a}))"), format!("({b})+({k})*(y-({b}))")])
}

/// "rotation through 270° anticlockwise about (1, 2)", "a 90° clockwise rotation about the origin".
fn turned(text: &str) -> Option<[String; 2]> {
    static TURN: LazyLock<Regex> = LazyLock::new(|| {
        let way = r"(clockwise|counter-?clockwise|anti-?clockwise)";
        let degrees = r"(\d+) ?(?:\^\\circ|degrees)";
        let centre = r"(?:about|around)(?: the)?(?: point)?(?: [A-Z])? ?(?:\(([^,()]+),([^,()]+)\)|(?:the )?(origin))";
        Regex::new(&format!(
            r"(?i)^(?:it is )?(?:a |the )?(?:rotation|turn)(?: of| through| by)?(?: an angle of)? ?(?:{degrees},? ?{way}?|{way} ?(?:by |of |through )?{degrees}),? ?{centre}(?:,? {way})?$"
        ))
        .expect("a fixed pattern")
    });
    static FIRST: LazyLock<Regex> = LazyLock::new(|| {
        let way = r"(?:(?:counter-?|anti-?)?clockwise )?";
        Regex::new(&format!(r"(?i)^(?:it is )?(?:an? |the )?(\d+) ?(?:\^\\circ|-?degrees?) ({way})(?:rotation|turn) "))
            .expect("a fixed pattern")
    });
    let text = FIRST.replace(text, "rotation of $1 degrees $2");
    let c = TURN.captures(&text)?;
    let angle: i64 = format!("{}{}", part(&c, 1), part(&c, 4)).parse().ok().filter(|a| *a <= 720)?;
    let way = format!("{}{}{}", part(&c, 2), part(&c, 3), part(&c, 8)).to_lowercase();
    // Without a word the positive way, which only a half turn may leave unsaid.
    if way.is_empty() && angle % 180 != 0 {
        return None;
    }
    let angle = if way == "clockwise" { -angle } else { angle }.rem_euclid(360);
    let (a, b) = if part(&c, 7).is_empty() { (part(&c, 5), part(&c, 6)) } else { ("0", "0") };
    let (cos, sin) = match angle {
        0 => ("1".to_owned(), "0".to_owned()),
        90 => ("0".to_owned(), "1".to_owned()),
        180 => ("(-1)".to_owned(), "0".to_owned()),
        270 => ("0".to_owned(), "(-1)".to_owned()),
        n => (format!("\\cos({n}^\\circ)"), format!("\\sin({n}^\\circ)")),
    };
    Some([format!("({a})+(x-({a}))*{cos}-(y-({b}))*{sin}"), format!("({b})+(x-({a}))*{sin}+(y-({b}))*{cos}")])
}

/// "reflection in the line y = x", "reflection across the x-axis".
fn mirrored(text: &str) -> Option<[String; 2]> {
    static MIRROR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"(?i)^(?:it is )?(?:a |the )?reflection (?:in|across|over|about|through)(?: the)?(?: line)? ?(?:([xy])-axis|([xy]) ?= ?(-?[\d./]+)|y ?= ?(-?)x|(origin))$",
        )
        .expect("a fixed pattern")
    });
    let c = MIRROR.captures(text)?;
    let both = |x: &str, y: &str| Some([x.to_owned(), y.to_owned()]);
    match (part(&c, 1).to_lowercase().as_str(), part(&c, 2).to_lowercase().as_str()) {
        ("x", _) => both("x", "-y"),
        ("y", _) => both("-x", "y"),
        (_, "x") => both(&format!("2*({})-x", part(&c, 3)), "y"),
        (_, "y") => both("x", &format!("2*({})-y", part(&c, 3))),
        _ if !part(&c, 5).is_empty() => both("-x", "-y"),
        _ if part(&c, 4) == "-" => both("-y", "-x"),
        _ => both("y", "x"),
    }
}
