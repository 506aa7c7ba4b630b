//! Points, loci, maps of the plane and named measures that are described in words, as notation: "the circle of radius 2
//! centred at the origin", "rotation through 90° clockwise about (1, 2)", "the lines meet at the origin".
//!
//! Each pattern stands for the whole text. What a text describes is a [`Said`]: a name, and the values that go with it.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::compare::equal;
use super::conclusions::conclusion;
use super::confidence::same_confidence;
use super::extrema::same_extremum;
use super::parse::parse;
use super::tallies::same_tallies;
use super::{Steps, number_words};
use crate::reward::words::tables::{is_wordless, replaced};

/// Longest text that is read so.
pub(super) const MAX: usize = 200;

/// What is described: its name, and its values as notation.
#[derive(PartialEq, Debug)]
struct Said {
    name: String,
    values: Vec<String>,
}

/// Whether one of the texts says in words what the other says in notation, or both in words.
pub(in crate::reward) fn same(gold: &str, answer: &str, steps: &Steps) -> bool {
    if gold.len() > MAX || answer.len() > MAX || steps.spend(2_000).is_none() {
        return false;
    }
    if let Some(a) = conclusion(gold)
        && let Some(b) = conclusion(answer)
    {
        return a == b;
    }
    let (a, b) = (plain(gold), plain(answer));
    // What is denied is not described.
    const DENIALS: [&str; 9] = ["not", "never", "except", "no", "without", "isn't", "cannot", "doesn't", "neither"];
    if [&a, &b].iter().any(|t| t.split([' ', ',']).any(|w| DENIALS.contains(&w.to_lowercase().as_str()))) {
        return false;
    }
    let alike = |x: &str, y: &str| equal(&parse(x, true, steps), &parse(y, true, steps), steps).equal;
    if let Some(x) = said(&a)
        && let Some(y) = said(&b)
    {
        return x.name == y.name
            && x.values.len() == y.values.len()
            && x.values.iter().zip(&y.values).all(|(p, q)| p == q || alike(p, q));
    }
    let told = same_confidence(&a, &b, steps).or_else(|| same_extremum(&a, &b, steps));
    if let Some(same) = told.or_else(|| same_tallies(gold, answer, steps)) {
        return same;
    }
    match (notation(&a), notation(&b)) {
        (Some(x), Some(y)) => alike(&x, &y),
        // A locus of complex numbers by the equation of its points.
        (Some(x), None) => alike(&x, answer) || alike(&x, &b),
        (None, Some(y)) => alike(gold, &y) || alike(&a, &y),
        (None, None) => false,
    }
}

/// True where both count the corners, edges and faces of a solid, and not alike: their order says nothing.
pub(in crate::reward) fn counted_otherwise(gold: &str, answer: &str) -> bool {
    let short = gold.len() <= MAX && answer.len() <= MAX;
    let counts = |text: &str| counts(&plain(text));
    short && counts(gold).is_some_and(|a| counts(answer).is_some_and(|b| a != b))
}

/// The text without marks and faces, with one sign for each thing.
pub(super) fn plain(text: &str) -> String {
    static FACE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\\(?:text|mathrm|operatorname|mathbb|mathbf|textbf)\s*\{([^{}]*)\}").expect("a fixed pattern")
    });
    const SIGNS: [(&str, &str); 24] = [
        ("\u{2212}", "-"),
        ("\u{b2}", "^2"),
        ("\u{b0}", "^\\circ"),
        ("\u{2220}", "\\angle "),
        ("\u{3c3}", "\\sigma"),
        ("\u{3bc}", "\\mu"),
        ("\u{b1}", "\\pm"),
        ("\u{2192}", "\\to"),
        ("\\mapsto", "\\to"),
        ("\\rightarrow", "\\to"),
        ("->", "\\to"),
        ("\\left", ""),
        ("\\right", ""),
        ("^{\\circ}", "^\\circ"),
        ("\\lvert", "|"),
        ("\\rvert", "|"),
        ("\\(", ""),
        ("\\)", ""),
        ("$", ""),
        ("\\quad", " "),
        ("\\,", " "),
        ("\\;", " "),
        ("\\ ", " "),
        ("~", " "),
    ];
    let out = replaced(text, &SIGNS);
    let out = if out.contains('\\') { FACE.replace_all(&out, "$1").into_owned().into() } else { out };
    out.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches(['.', ' ']).to_owned()
}

/// Reads the parts of a pattern.
type Read = fn(&Captures) -> Option<String>;

pub(super) fn part<'a>(c: &'a Captures, n: usize) -> &'a str {
    c.get(n).map_or("", |m| m.as_str().trim())
}

/// Patterns of what is described, with `{n}` for a number and `{p}` for a point, and the notation of each.
const PATTERNS: [(&str, Read); 27] = [
    // Bounds.
    (r"([a-z]) (?:is|must be|has to be|lies|must lie|should be)(?: strictly)? between ({n}) and ({n})", |c| {
        Some(format!("{}<{}<{}", part(c, 2), part(c, 1), part(c, 3)))
    }),
    (r"([a-z]) (?:is|must be|has to be|should be|needs to be) (positive|negative|non-?negative|non-?positive)", |c| {
        let sign = match part(c, 2).to_lowercase().as_str() {
            "positive" => ">",
            "negative" => "<",
            w if w.ends_with("negative") => "\\ge ",
            _ => "\\le ",
        };
        Some(format!("{}{sign}0", part(c, 1)))
    }),
    (
        r"([a-z]) (?:must be|has to be|should be|needs to be) ((?:greater|less|larger|smaller|more|at least|at most) .+)",
        |c| Some(format!("{} is {}", part(c, 1), part(c, 2))),
    ),
    // Times of day.
    (
        r"(?:the |it |she |he |they |we )?[a-z' ]*\b(?:leaves|arrives|starts|begins|ends|departs|opens|closes|finishes|meets?|is|was|left|arrived|started|began|ended|departed) at ((?:half|quarter|a quarter|[a-z-]+|\d+) (?:past|to) [a-z]+|\d+:\d\d(?: ?[ap]\.?m\.?)?|noon|midnight|\d+ ?[ap]\.?m|[a-z]+ o'clock)",
        |c| Some(part(c, 1).to_owned()),
    ),
    // Points.
    (
        r"(?:[a-z' ]+? )?(?:meets?|intersects?|cross|crosses|lies?|is located|is|are concurrent)(?: each other)? (?:at )?(\(0, 0\))",
        |c| Some(part(c, 1).to_owned()),
    ),
    (
        r"(?:the )?(?:point )?([A-Z]) has (?:an )?(?:x-coordinate|abscissa)(?: of)? ({n}),? and (?:a )?(?:y-coordinate|ordinate)(?: of)? ({n})",
        |c| Some(format!("{}({}, {})", part(c, 1), part(c, 2), part(c, 3))),
    ),
    // Loci.
    (
        r"{is}circle (?:of|with)(?: a)? radius (?:of )?({n}),? (?:and |with |and with )?(?:its )?(?:centre|center|centred|centered)(?: at| is)? ({p})",
        |c| circle(part(c, 2), part(c, 1)),
    ),
    (
        r"{is}circle (?:with )?(?:its )?(?:centre|center|centred|centered)(?: at)? ({p}),? (?:and |with |and with |of )?(?:a )?radius (?:of )?({n})",
        |c| circle(part(c, 1), part(c, 2)),
    ),
    (
        r"{is}parabola with (?:its )?focus(?: at)? ({p}),? (?:and )?(?:with )?directrix (?:the line )?([xy]) ?= ?({n})",
        |c| {
            let (a, b) = point(part(c, 1))?;
            Some(format!("(x-({a}))^2+(y-({b}))^2=({}-({}))^2", part(c, 2).to_lowercase(), part(c, 3)))
        },
    ),
    (r"{is}(vertical|horizontal) line (?:passing |going )?(?:through|at|containing) (?:the )?(?:point )?({p})", |c| {
        let (a, b) = point(part(c, 2))?;
        Some(if part(c, 1).eq_ignore_ascii_case("vertical") { format!("x = {a}") } else { format!("y = {b}") })
    }),
    (
        r"{is}(?:straight )?line (?:with|of|having) (?:a )?(?:slope|gradient) (?:of )?({n}),? (?:and |with |and with )?(?:a )?y-intercept (?:of |at )?({n}|\(0, ?{n}\))",
        |c| {
            let intercept = part(c, 2);
            let height = point(intercept).filter(|_| intercept.contains(',')).map(|p| p.1);
            Some(format!("y = ({})x + ({})", part(c, 1), height.as_deref().unwrap_or(intercept)))
        },
    ),
    (
        r"{is}(?:straight )?line (?:with|of|having) (?:a )?(?:slope|gradient) (?:of )?({n}),? (?:and )?(?:that )?(?:passing|passes|going|goes)? ?through (?:the )?(?:point )?({p})",
        |c| {
            let (a, b) = point(part(c, 2))?;
            Some(format!("y - ({b}) = ({})(x - ({a}))", part(c, 1)))
        },
    ),
    (
        r"{is}(?:straight )?line (?:passing |that passes |going |joining |connecting )?(?:through )?(?:the )?(?:points )?({p}) (?:and|to) ({p})",
        |c| {
            let ((a, b), (p, q)) = (point(part(c, 1))?, point(part(c, 2))?);
            Some(format!("(y - ({b}))(({p}) - ({a})) = (({q}) - ({b}))(x - ({a}))"))
        },
    ),
    (r"{is}(ellipse) with foci(?: at)? ({p}),? and (?:a )?major axis(?: of)?(?: length)? ({n})(?: units)?", |c| {
        conic(part(c, 1), part(c, 2), &format!("({})/2", part(c, 3)))
    }),
    (
        r"{is}(hyperbola) with foci(?: at)? ({p}),? and (?:a )?transverse axis(?: of)?(?: length)? ({n})(?: units)?",
        |c| conic(part(c, 1), part(c, 2), &format!("({})/2", part(c, 3))),
    ),
    (r"{is}(ellipse|hyperbola) with foci(?: at)? ({p}),? and vertices(?: at)? ({p})", |c| {
        let ((a, b), (p, q)) = (point(part(c, 2))?, point(part(c, 3))?);
        let along = if b == "0" && q == "0" { p } else { (a == "0" && p == "0").then_some(q)? };
        conic(part(c, 1), part(c, 2), &along.replace("\\pm", ""))
    }),
    (
        r"(?:\\\{ ?z ?(?:\\in C ?)?(?::|\\mid|\|) ?)?\|z ?([+-][^|=<>]*)?\| ?(=|<|>|\\leq?|\\geq?|\u{2264}|\u{2265}) ?([^\s,()|=\\{}]+)(?: ?\\\})?",
        |c| {
            let moved = part(c, 1).replace(' ', "");
            let centre = match moved.strip_prefix('-') {
                _ if moved.is_empty() => "0".to_owned(),
                Some(m) => {
                    m.strip_prefix('(').and_then(|m| m.strip_suffix(')')).map_or_else(|| flipped(m), str::to_owned)
                }
                None => {
                    let m = &moved[1..];
                    flipped_all(m.strip_prefix('(').and_then(|m| m.strip_suffix(')')).unwrap_or(m))
                }
            };
            Some(circle(&centre, part(c, 3))?.replace('=', &format!(" {} ", part(c, 2))))
        },
    ),
    (r"{is}(open |closed )?unit (circle|disk|disc)(?:,? cent(?:e?red|ered|re|er)(?: at)? \(0, 0\))?", |c| {
        let sign = match (part(c, 1).to_lowercase().as_str(), part(c, 2).to_lowercase().as_str()) {
            ("", "circle") => "=",
            ("open", "disk" | "disc") => "<",
            ("closed", "disk" | "disc") => "\\le",
            _ => return None,
        };
        Some(format!("x^2+y^2 {sign} 1"))
    }),
    (
        r"{is}sphere (?:of|with)(?: a)? radius (?:of )?({n}),? (?:and |with |and with )?(?:its )?(?:centre|center|centred|centered)(?: at| is)? \(([^,]+),([^,]+)(?:,([^,]+))?\)",
        |c| {
            let z = if part(c, 4).is_empty() { "0" } else { part(c, 4) };
            Some(format!("(x-({}))^2+(y-({}))^2+(z-({z}))^2=({})^2", part(c, 2), part(c, 3), part(c, 1)))
        },
    ),
    (r"{is}(?:open )?(upper|lower|right|left)[- ]half[- ]plane", |c| {
        let half = match part(c, 1).to_lowercase().as_str() {
            "upper" => "y > 0",
            "lower" => "y < 0",
            "right" => "x > 0",
            _ => "x < 0",
        };
        Some(half.to_owned())
    }),
    (r"(Im|Re|\\Im|\\Re) ?\(?z\)? ?([<>]) ?0", |c| {
        let axis = if part(c, 1).to_lowercase().ends_with("im") { "y" } else { "x" };
        Some(format!("{axis} {} 0", part(c, 2)))
    }),
    // Spaces and axes.
    (r"(?:the )?(?:vector )?(?:space )?([A-Z]) is (?:an? )?([a-z0-9]+)[- ]dimensional", |c| {
        Some(format!("\\dim {} = {}", part(c, 1), number_words::digits(part(c, 2)).as_deref().unwrap_or(part(c, 2))))
    }),
    (
        r"(?:the )?(?:vector )?(?:space )?([A-Z]) has dimension ({n})|(?:the )?dimension of ([A-Z]) (?:is|=) ({n})",
        |c| Some(format!("\\dim {}{} = {}{}", part(c, 1), part(c, 3), part(c, 2), part(c, 4))),
    ),
    (r"(?:the )?([xy])-axis", |c| {
        Some(if part(c, 1).eq_ignore_ascii_case("x") { "y = 0" } else { "x = 0" }.to_owned())
    }),
    // Statistics.
    (
        r"([A-Z]) (?:has|follows|is|is distributed as)(?: a| the)? standard normal(?: distribution| variable| random variable)?",
        |c| Some(format!("{}\\sim N(0,1)", part(c, 1))),
    ),
    // What was thrown away on the way.
    (
        r"[a-z] ?= ?{n} is (?:extraneous|rejected|an extraneous (?:root|solution))(?:,|;)? (?:so|thus|hence|therefore) (?:the )?(?:only )?(?:solution|root|answer) is (.+)",
        |c| Some(part(c, 1).to_owned()),
    ),
    (r"(?:the )?origin", |_| Some("(0, 0)".to_owned())),
];

/// The notation of a text in words.
fn notation(text: &str) -> Option<String> {
    if is_wordless(text) {
        return None;
    }
    static READERS: LazyLock<Vec<(Regex, Read)>> = LazyLock::new(|| {
        let whole = |pattern: &str| {
            let pattern = pattern
                .replace("{n}", r"[^\s,()|=]+(?:\([^()]*\))?")
                .replace("{p}", r"\([^()]*\)|[^\s,()]*i|0")
                .replace("{is}", r"(?:(?:it|this|the locus|the graph|the curve) is )?(?:an |a |the )?");
            Regex::new(&format!("(?i)^(?:{pattern})$")).expect("a fixed pattern")
        };
        PATTERNS.iter().map(|(pattern, read)| (whole(pattern), *read)).collect()
    });
    static ORIGIN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)\b(?:the )?origin\b(?: O\b)?(?: \(0, ?0\))?").expect("a fixed pattern"));
    let text = ORIGIN.replace_all(text, "(0, 0)");
    if let Some(named) = renamed(&text) {
        return Some(named);
    }
    READERS.iter().find_map(|(pattern, read)| read(&pattern.captures(&text)?))
}

/// Angles by their letters alone, hats on the letters of axes as those letters, points with a sign between.
fn renamed(text: &str) -> Option<String> {
    static ANGLE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?:\bm ?)?\\angle ?\{?([A-Z]{3}|[A-Z])\}?\b").expect("a fixed pattern"));
    static AXIS: LazyLock<Regex> = LazyLock::new(|| {
        let letter = r"\{?\s*(?:\\([ij])math|([ijk]))\b\s*\}?";
        Regex::new(&format!(r"\\(?:hat|vec|boldsymbol|bm|widehat|mathbf)\s*{letter}")).expect("a fixed pattern")
    });
    static NAMED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\b([A-Z]'?) ?=? ?(\([^()]*,[^()]*\))").expect("a fixed pattern"));
    static MEAN: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\bE ?\[([A-Z](?:\^\{?2\}?)?)\]|\(E ?([A-Z])\)|\bE ?([A-Z])\b").expect("a fixed pattern")
    });
    let mut out = ANGLE
        .replace_all(text, |c: &Captures| {
            let name = &c[1];
            let (first, last) = (&name[..1], &name[name.len() - 1..]);
            match name.len() {
                1 => name.to_owned(),
                _ if first > last => format!("\\angle {last}{}{first}", &name[1..2]),
                _ => format!("\\angle {name}"),
            }
        })
        .into_owned();
    if out.contains("math") || out.contains("{j}") || out.contains(" j") {
        out = AXIS.replace_all(&out, |c: &Captures| format!("{}{} ", part(c, 1), part(c, 2))).into_owned();
    }
    if out.contains("E[") || out.contains("(E") {
        // The square of the mean, and the mean of the square.
        out = MEAN
            .replace_all(&out, |c: &Captures| format!("(E({}{}{}))", part(c, 1), part(c, 2), part(c, 3)))
            .replace("[(", "(")
            .replace(")]", ")")
            .replace("[E(", "(E(");
    }
    let points = NAMED.replace_all(&out, "$1 = $2").into_owned();
    let rest = NAMED.replace_all(&out, "");
    if rest.split([' ', ',']).all(|w| matches!(w, "" | "and" | "points" | "the" | "\\")) {
        out = points.replace(" and ", ", ");
    }
    let out = out.replace("y\u{302}", "\\hat{y}").replace('\u{177}', "\\hat{y}");
    (out != text).then_some(out)
}

/// The coordinates of a point, or those of a complex number.
fn point(text: &str) -> Option<(String, String)> {
    if let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')'))
        && let Some((x, y)) = inner.split_once(',')
    {
        return (!y.contains(',')).then(|| (x.trim().to_owned(), y.trim().to_owned()));
    }
    let text = text.trim_matches(['(', ')']);
    static COMPLEX: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(-?[\d./]+)??(?:([+-]?[\d./]*)i)?$").expect("a fixed pattern"));
    let found = COMPLEX.captures(text)?;
    let real = found.get(1).map_or("0", |m| m.as_str());
    let imaginary = found.get(2).map_or("0", |m| m.as_str()).trim_start_matches('+');
    let imaginary = match imaginary {
        "" => "1",
        "-" => "-1",
        n => n,
    };
    Some((real.to_owned(), imaginary.to_owned()))
}

/// The signs behind the first term turned: what `z-3-4i` takes away is `3+4i`.
fn flipped(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '+' {
                '-'
            } else if c == '-' {
                '+'
            } else {
                c
            }
        })
        .collect()
}

fn flipped_all(text: &str) -> String {
    match text.strip_prefix('-') {
        Some(rest) => flipped(rest),
        None => format!("-{}", flipped(text)),
    }
}

fn circle(centre: &str, radius: &str) -> Option<String> {
    let (a, b) = point(centre)?;
    Some(format!("(x-({a}))^2+(y-({b}))^2=({radius})^2"))
}

/// The equation of a conic about the origin by its foci and its half axis.
fn conic(kind: &str, foci: &str, half: &str) -> Option<String> {
    let (a, b) = point(foci)?;
    let (c, along, across) = match (a.strip_prefix("\\pm"), b.strip_prefix("\\pm")) {
        (Some(c), None) if b == "0" => (c.trim(), "x", "y"),
        (None, Some(c)) if a == "0" => (c.trim(), "y", "x"),
        _ => return None,
    };
    Some(match kind.to_lowercase().as_str() {
        "ellipse" => format!("{along}^2/({half})^2+{across}^2/(({half})^2-({c})^2)=1"),
        _ => format!("{along}^2/({half})^2-{across}^2/(({c})^2-({half})^2)=1"),
    })
}

/// What a text describes that has no one notation.
fn said(text: &str) -> Option<Said> {
    if is_wordless(text) {
        return None;
    }
    quadrant(text)
        .or_else(|| super::maps::map(text).map(|values| Said { name: "map".to_owned(), values: values.to_vec() }))
        .or_else(|| figure(text))
        .or_else(|| bisector(text))
        .or_else(|| ratio(text))
        .or_else(|| counts(text))
        .or_else(|| measure(text))
}

/// `Quadrant II`, "the second quadrant", "the angle lies in the 2nd quadrant".
fn quadrant(text: &str) -> Option<Said> {
    static IN: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"(?i)^(?:(?:(?:the |its )?(?:point|angle|terminal side|terminal arm|graph|vertex|it|number)(?: [a-z])? )?(?:is located|lies|is|falls|ends|terminates) )?(?:in )?(?:the )?(?:(quadrant|octant) ([IV]+|\d)|(Q)([IV]{1,3}|\d)|([a-z]+|\d(?:st|nd|rd|th)) (quadrant|octant))$",
        )
        .expect("a fixed pattern")
    });
    let found = IN.captures(text)?;
    let which = [2, 4, 5].iter().map(|n| part(&found, *n)).find(|t| !t.is_empty())?.to_lowercase();
    let n = match which.as_str() {
        "i" | "1" | "1st" => 1,
        "ii" | "2" | "2nd" => 2,
        "iii" | "3" | "3rd" => 3,
        "iv" | "4" | "4th" => 4,
        word => number_words::ordinal(word)?,
    };
    let kind = if part(&found, 1).eq_ignore_ascii_case("octant") || part(&found, 6).eq_ignore_ascii_case("octant") {
        "octant"
    } else {
        "quadrant"
    };
    Some(Said { name: format!("{kind} {n}"), values: Vec::new() })
}

/// A polygon by its corners, from any of them and either way round.
fn figure(text: &str) -> Option<Said> {
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"^(?:[Tt]he |[Ii]t is (?:the )?)?([Qq]uadrilateral|[Pp]arallelogram|[Rr]ectangle|[Ss]quare|[Rr]hombus|[Tt]rapezoid|[Tt]rapezium|[Kk]ite|[Pp]entagon|[Hh]exagon) ([A-Z]{4,6})$",
        )
        .expect("a fixed pattern")
    });
    let found = NAMED.captures(text)?;
    let corners: Vec<char> = part(&found, 2).chars().collect();
    let turned = |row: &[char]| (0..row.len()).map(|n| row[n..].iter().chain(&row[..n]).collect::<String>()).min();
    let back: Vec<char> = corners.iter().rev().copied().collect();
    let first = turned(&corners).into_iter().chain(turned(&back)).min()?;
    Some(Said { name: format!("{} {first}", part(&found, 1).to_lowercase()), values: Vec::new() })
}

/// The points as far from one point as from another.
fn bisector(text: &str) -> Option<Said> {
    static WAYS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
        [
            r"^(?:[Ii]t is )?(?:[Tt]he )?perpendicular bisector of (?:the )?(?:line )?(?:segment )?([A-Z])([A-Z])$",
            r"^(?:[Tt]he (?:set|locus) of )?(?:[Aa]ll )?(?:the )?points ([A-Z])(?: (?:of|in) the plane)? (?:with|such that|for which|satisfying|where) ([A-Z]{2}) ?= ?([A-Z]{2})$",
            r"^(?:[Tt]he (?:set|locus) of )?(?:[Aa]ll )?(?:the )?points (?:that are |which are )?equidistant from ([A-Z]) and ([A-Z])$",
        ]
        .map(|p| Regex::new(p).expect("a fixed pattern"))
    });
    let mut ends = if let Some(c) = WAYS[1].captures(text) {
        let far = |n: usize| {
            let other: Vec<char> = part(&c, n).replacen(part(&c, 1), "", 1).chars().collect();
            if let [end] = other.as_slice() { Some(*end) } else { None }
        };
        [far(2)?, far(3)?]
    } else {
        let c = WAYS[0].captures(text).or_else(|| WAYS[2].captures(text))?;
        [part(&c, 1).chars().next()?, part(&c, 2).chars().next()?]
    };
    ends.sort_unstable();
    Some(Said { name: format!("bisector {}{}", ends[0], ends[1]), values: Vec::new() })
}

/// `AP:PB=3:2`: two lengths by their ends, in any order with their numbers.
fn ratio(text: &str) -> Option<Said> {
    static TWO: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^([A-Z]{2}) ?(?::|/|to) ?([A-Z]{2}) ?(?:=|is) ?([\d.]+) ?(?::|/|to) ?([\d.]+)$")
            .expect("a fixed pattern")
    });
    let c = TWO.captures(text)?;
    let side = |n: usize| {
        let mut ends: Vec<char> = part(&c, n).chars().collect();
        ends.sort_unstable();
        ends.into_iter().collect::<String>()
    };
    let (a, b, m, n) = (side(1), side(2), part(&c, 3), part(&c, 4));
    let (a, b, m, n) = if a <= b { (a, b, m, n) } else { (b, a, n, m) };
    Some(Said { name: format!("ratio {a} {b}"), values: vec![format!("{m}/{n}")] })
}

/// Corners, edges and faces of a solid: `V=12, E=30`, "12 vertices, 30 edges".
fn counts(text: &str) -> Option<Said> {
    if is_wordless(text) {
        return None;
    }
    static ONE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?:\b([VEF]) ?= ?(\d+)|\b(\d+) (vertices|corners|edges|faces))").expect("a fixed pattern")
    });
    let mut found: Vec<(&str, String)> = Vec::new();
    for c in ONE.captures_iter(text) {
        let kind = match (part(&c, 1), part(&c, 4)) {
            ("V", _) | ("", "vertices" | "corners") => "corners",
            ("E", _) | ("", "edges") => "edges",
            _ => "faces",
        };
        found.push((kind, format!("{}{}", part(&c, 2), part(&c, 3))));
    }
    let idle = |w: &str| matches!(w.to_lowercase().as_str(), "" | "and" | "it" | "has" | "there" | "are" | "with");
    if found.len() < 2 || !ONE.replace_all(text, "").split([' ', ',', ';']).all(idle) {
        return None;
    }
    found.sort();
    let names: Vec<&str> = found.iter().map(|f| f.0).collect();
    let twice = names.windows(2).any(|w| w[0] == w[1]);
    (!twice).then(|| Said { name: names.join(" "), values: found.into_iter().map(|f| f.1).collect() })
}

/// `\operatorname{Var}(X)=9`, `\sigma^2 = 9`, "the variance of X is 9": one measure of a distribution.
fn measure(text: &str) -> Option<Said> {
    static NAMES: LazyLock<[(Regex, &str); 3]> = LazyLock::new(|| {
        [
            (r"^(?:(?:Var|V|D) ?[(\[][A-Z][)\]] ?=|\\sigma(?:_[A-Z])?\^\{?2\}? ?=|(?:[Tt]he )?variance (?:of [A-Z] )?(?:is|=)) ?(.+)$", "variance"),
            (r"^(?:(?:SD|sd|\\sigma) ?[(\[][A-Z][)\]] ?=|\\sigma(?:_[A-Z])? ?=|(?:[Tt]he )?standard deviation (?:of [A-Z] )?(?:is|=)) ?(.+)$", "deviation"),
            (r"^(?:E ?[(\[][A-Z][)\]] ?=|\\mu(?:_[A-Z])? ?=|(?:[Tt]he )?(?:mean|expected value|expectation) (?:of [A-Z] )?(?:is|=)) ?(.+)$", "mean"),
        ]
        .map(|(p, name)| (Regex::new(p).expect("a fixed pattern"), name))
    });
    NAMES.iter().find_map(|(pattern, name)| {
        let value = part(&pattern.captures(text)?, 1).to_owned();
        Some(Said { name: (*name).to_owned(), values: vec![value] })
    })
}
