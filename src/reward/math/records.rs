//! Answers of several named parts: "center (1, 2), radius 3", "(a) 5 (b) 7", "mean 7/2 and variance 35/12". Each part
//! is compared with the one of its name, whatever their order.

use std::sync::LazyLock;

use super::Steps;
use super::compare::equal;
use super::equations::equations;
use super::expr::{Expr, integer, minus, negate, power, var};
use super::parse::{Value, parse};
use super::tallies::same_tallies;
use crate::reward::words;
use crate::reward::words::tables::{Rows, is_wordless, replaced};

/// Names of parts, each under its first; of two that begin alike the longer stands first.
static NAMES: [(&str, &str); 155] = [
    ("lower quartile", "first quartile"),
    ("upper quartile", "third quartile"),
    ("first quartile", "first quartile"),
    ("third quartile", "third quartile"),
    ("q1 =", "first quartile"),
    ("q_1 =", "first quartile"),
    ("q_{1} =", "first quartile"),
    ("q3 =", "third quartile"),
    ("q_3 =", "third quartile"),
    ("q_{3} =", "third quartile"),
    ("maximum value", "maximum"),
    ("minimum value", "minimum"),
    ("centered at", "center"),
    ("centred at", "center"),
    ("z-score", "z"),
    ("t-score", "t"),
    ("p-value", "p"),
    ("correlation coefficient", "correlation"),
    ("critical value", "critical"),
    ("test statistic", "statistic"),
    ("margin of error", "margin"),
    ("confidence interval", "confidence"),
    ("sample size", "size"),
    ("degrees of freedom", "freedom"),
    ("h_0 :", "null"),
    ("h_1 :", "other"),
    ("h_a :", "other"),
    ("h0 :", "null"),
    ("h1 :", "other"),
    ("ha :", "other"),
    ("radius of convergence", "convergence"),
    ("center of mass", "center of mass"),
    ("centre of mass", "center of mass"),
    ("center", "center"),
    ("centre", "center"),
    ("radius", "radius"),
    ("r =", "r"),
    ("diameter", "diameter"),
    ("vertices", "vertices"),
    ("vertex", "vertex"),
    ("foci", "foci"),
    ("focus", "focus"),
    ("directrix", "directrix"),
    ("eccentricity", "eccentricity"),
    ("axis of symmetry", "axis"),
    ("domain", "domain"),
    ("range", "range"),
    ("image", "range"),
    ("codomain", "codomain"),
    ("slope", "slope"),
    ("gradient", "slope"),
    ("m =", "slope"),
    ("y-intercepts", "y-intercept"),
    ("y-intercept", "y-intercept"),
    ("x-intercepts", "x-intercept"),
    ("x-intercept", "x-intercept"),
    ("amplitude", "amplitude"),
    ("period", "period"),
    ("phase shift", "phase"),
    ("vertical shift", "vertical shift"),
    ("midline", "midline"),
    ("frequency", "frequency"),
    ("standard deviation", "deviation"),
    ("sd", "deviation"),
    ("\\sigma =", "deviation"),
    ("\\sigma^2 =", "variance"),
    ("variance", "variance"),
    ("var(x) =", "variance"),
    ("expected value", "mean"),
    ("expectation", "mean"),
    ("e(x) =", "mean"),
    ("e[x] =", "mean"),
    ("\\mu =", "mean"),
    ("mean", "mean"),
    ("median", "median"),
    ("mode", "mode"),
    ("quotient", "quotient"),
    ("remainder", "remainder"),
    ("rank", "rank"),
    ("nullity", "nullity"),
    ("determinant", "determinant"),
    ("\\det =", "determinant"),
    ("trace", "trace"),
    ("eigenvalues", "eigenvalues"),
    ("eigenvectors", "eigenvectors"),
    ("absolute maximum", "maximum"),
    ("absolute minimum", "minimum"),
    ("global maximum", "maximum"),
    ("global minimum", "minimum"),
    ("relative maximum", "maximum"),
    ("relative minimum", "minimum"),
    ("local maximum", "maximum"),
    ("local minimum", "minimum"),
    ("local max", "maximum"),
    ("local min", "minimum"),
    ("maximum", "maximum"),
    ("minimum", "minimum"),
    ("max", "maximum"),
    ("min", "minimum"),
    ("saddle point", "saddle"),
    ("inflection point", "inflection"),
    ("point of inflection", "inflection"),
    ("increasing", "increasing"),
    ("increases", "increasing"),
    ("decreasing", "decreasing"),
    ("decreases", "decreasing"),
    ("concave up", "concave up"),
    ("concave down", "concave down"),
    ("vertical asymptotes", "vertical"),
    ("vertical asymptote", "vertical"),
    ("horizontal asymptotes", "horizontal"),
    ("horizontal asymptote", "horizontal"),
    ("area", "area"),
    ("perimeter", "perimeter"),
    ("circumference", "perimeter"),
    ("surface area", "surface"),
    ("volume", "volume"),
    ("injective", "injective"),
    ("surjective", "surjective"),
    ("length", "length"),
    ("width", "width"),
    ("breadth", "width"),
    ("height", "height"),
    ("depth", "depth"),
    ("base", "base"),
    ("hypotenuse", "hypotenuse"),
    ("greatest common divisor", "gcd"),
    ("greatest common factor", "gcd"),
    ("highest common factor", "gcd"),
    ("gcd", "gcd"),
    ("gcf", "gcd"),
    ("hcf", "gcd"),
    ("least common multiple", "lcm"),
    ("lowest common multiple", "lcm"),
    ("lcm", "lcm"),
    ("first term", "first term"),
    ("initial term", "first term"),
    ("a_1 =", "first term"),
    ("common difference", "difference"),
    ("d =", "difference"),
    ("common ratio", "ratio"),
    ("removable discontinuity", "hole"),
    ("hole", "hole"),
    ("jump discontinuity", "jump"),
    ("critical numbers", "critical points"),
    ("critical points", "critical points"),
    ("critical values", "critical points"),
    ("zeros", "roots"),
    ("zeroes", "roots"),
    ("roots", "roots"),
    ("order", "order"),
    ("constant term", "constant term"),
    ("leading coefficient", "leading coefficient"),
    ("real part", "real"),
    ("imaginary part", "imaginary"),
];

/// Most parts of an answer.
const MAX_PARTS: usize = 12;

/// A part: its name, and what it is.
type Part = (String, String);

/// True when both are the same named parts, or one is one part and the other its value.
pub(super) fn same_records(gold: &str, answer: &str, steps: &Steps) -> bool {
    let (a, b) = (parts(gold), parts(answer));
    let same = |x: &str, y: &str| {
        let (p, q) = (value(x, steps), value(y, steps));
        words::key(x) == words::key(y) || equal(&p, &q, steps).equal
    };
    // A word behind a name is its value only where that is said: the center left is no left.
    let told = |text: &str, value: &str| {
        let wordy = value.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '-')) && value.len() > 1;
        !wordy || text.contains([':', '=']) || [" is ", " are ", " of "].iter().any(|v| text.contains(v))
    };
    match (a.as_deref(), b.as_deref()) {
        (Some(a), Some(b)) => {
            let named = |name: &str| b.iter().find(|p| same_part(&p.0, name));
            // The letter of a hypothesis is part of it.
            let whole = |x: &str, y: &str| equal(&parse(x, true, steps), &parse(y, true, steps), steps).equal;
            let alike = |n: &str, x: &str, y: &str| match n {
                "null" | "other" => whole(x, y),
                "x-intercept" | "y-intercept" => same(x, y) || crossing(n, x, y, steps),
                _ => same(x, y),
            };
            a.len() == b.len() && a.iter().all(|(n, x)| named(n).is_some_and(|(_, y)| alike(n, x, y)))
        }
        // A circle by its center and radius, and by its equation.
        (Some(a), None) if a.len() == 2 && circle(a, &value(answer, steps), steps) => true,
        (None, Some(b)) if b.len() == 2 && circle(b, &value(gold, steps), steps) => true,
        // The only part, without its name.
        (Some([(n, x)]), None) => !matches!(n.as_str(), "null" | "other") && told(gold, x) && same(x, answer),
        (None, Some([(n, y)])) => !matches!(n.as_str(), "null" | "other") && told(answer, y) && same(gold, y),
        // In the order of writing.
        (Some(a), None) => in_order(a, answer, steps),
        (None, Some(b)) => in_order(b, gold, steps),
        (None, None) => same_tallies(gold, answer, steps) == Some(true),
    }
}

/// Whether two names mean one part: r is short for several.
fn same_part(a: &str, b: &str) -> bool {
    let short = |a: &str, b: &str| a == "r" && matches!(b, "radius" | "ratio" | "correlation");
    a == b || short(a, b) || short(b, a)
}

/// True where each is one named part, under another name: the focus is not the vertex.
pub fn other_part(gold: &str, answer: &str) -> bool {
    let only = |text: &str| parts(text).filter(|p| p.len() == 1)?.pop();
    only(gold).is_some_and(|a| only(answer).is_some_and(|b| !same_part(&a.0, &b.0)))
}

/// True where both have the same named parts, or one has places and the other as many values, and some part is another:
/// what is asked first and what second are no set.
pub fn parts_differ(gold: &str, answer: &str, steps: &Steps) -> bool {
    match (parts(gold), parts(answer)) {
        (Some(a), Some(b)) => {
            let named = a.iter().all(|(n, _)| b.iter().any(|(m, _)| same_part(n, m)));
            a.len() > 1 && a.len() == b.len() && named && !same_records(gold, answer, steps)
        }
        (Some(a), None) => {
            listed(plain(gold).trim()).is_some() && items(answer).len() == a.len() && !in_order(&a, answer, steps)
        }
        (None, Some(b)) => {
            listed(plain(answer).trim()).is_some() && items(gold).len() == b.len() && !in_order(&b, gold, steps)
        }
        (None, None) => same_tallies(gold, answer, steps) == Some(false),
    }
}

/// Whether two texts say where a curve meets an axis, as points or by the other coordinate.
fn crossing(axis: &str, a: &str, b: &str, steps: &Steps) -> bool {
    let place = |v: Value| match v {
        Value::Tuple(mut point) if point.len() == 2 => {
            let off = &point[usize::from(axis.starts_with('x'))];
            let on_axis = equal(off, &Value::Scalar(integer(0), None), steps).equal;
            if on_axis { point.swap_remove(usize::from(axis.starts_with('y'))) } else { Value::Tuple(point) }
        }
        v => v,
    };
    let places = |t: &str| match value(t, steps) {
        Value::List(points) => Value::List(points.into_iter().map(place).collect()),
        v => place(v),
    };
    equal(&places(a), &places(b), steps).equal
}

/// Whether an equation is that of the circle or sphere with this center and radius.
fn circle(parts: &[Part], v: &Value, steps: &Steps) -> bool {
    let zero = || Value::Scalar(integer(0), None);
    let named = |name: &str| {
        let part = &parts.iter().find(|p| same_part(&p.0, name))?.1;
        Some(if words::key(part) == "origin" { Value::Tuple(vec![zero(), zero()]) } else { value(part, steps) })
    };
    let (Value::Equation(a, b), Some(Value::Tuple(center)), Some(Value::Scalar(radius, _))) =
        (v, named("center"), named("radius"))
    else {
        return false;
    };
    let square = |e: Expr| power(e, integer(2));
    let term = |(axis, v): (&str, &Value)| match v {
        Value::Scalar(e, None) => Some(square(minus(var(axis), e.clone()))),
        _ => None,
    };
    let Some(mut terms) = ["x", "y", "z"].into_iter().zip(&center).map(term).collect::<Option<Vec<_>>>() else {
        return false;
    };
    terms.push(negate(square(radius)));
    center.len() <= 3 && equations(&Expr::Add(terms), &minus(a.clone(), b.clone()), steps).equal
}

/// True for a text of several named parts.
pub(super) fn is_record(text: &str) -> bool {
    parts(text).is_some_and(|p| p.len() > 1)
}

/// The values of a list without brackets around it.
fn items(list: &str) -> Vec<String> {
    let mut depth = 0i32;
    plain(list)
        .replace(" and ", ", ")
        .split(|c: char| {
            depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
            depth == 0 && matches!(c, ',' | ';')
        })
        .map(|t| t.trim().to_owned())
        .filter(|t| !t.is_empty())
        .collect()
}

fn in_order(parts: &[Part], list: &str, steps: &Steps) -> bool {
    let items = items(list);
    let same =
        |x: &str, y: &str| words::key(x) == words::key(y) || equal(&value(x, steps), &value(y, steps), steps).equal;
    // What has another name is another part.
    let named = |name: &str, item: &str| match self::parts(item).as_deref() {
        Some([(other, y)]) => same_part(name, other).then(|| y.clone()),
        // a_2 = 4 is no first term.
        None if item.split_once('=').is_some_and(|(n, _)| n.contains(|c: char| c.is_ascii_digit())) => None,
        _ => Some(item.to_owned()),
    };
    items.len() == parts.len()
        && parts.iter().zip(&items).all(|((n, x), y)| named(n, y).is_some_and(|v| same(x, y) || same(x, &v)))
}

fn value(text: &str, steps: &Steps) -> Value {
    match parse(text, true, steps) {
        // r = 3 behind "radius".
        Value::Assignment(_, v) if text.contains('=') => *v,
        v => v,
    }
}

/// The named parts of a text that is nothing else.
fn parts(text: &str) -> Option<Vec<Part>> {
    static KNOWN: LazyLock<Rows<&str>> = LazyLock::new(|| Rows::of(&NAMES));
    // Without letters parts have places alone.
    if text.len() > 400 || (is_wordless(text) && !text.contains([')', ':'])) {
        return None;
    }
    let plain = plain(text);
    let plain = plain.trim();
    if let Some(parts) = listed(plain) {
        return Some(parts);
    }
    // 17 R 3
    let mut words = plain.split(' ');
    if let (Some(quotient), Some("R" | "r"), Some(remainder), None) =
        (words.next(), words.next(), words.next(), words.next())
    {
        let part = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        return Some(vec![part("quotient", quotient), part("remainder", remainder)]);
    }
    let lower = plain.to_ascii_lowercase();
    let mut marks: Vec<(usize, usize, &str)> = Vec::new();
    let (mut at, mut depth) = (0, 0i32);
    while at < lower.len() {
        let rest = &lower[at..];
        let c = rest.chars().next()?;
        depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
        let begins = || depth == 0 && !lower[..at].ends_with(|c: char| c.is_alphanumeric() || c == '\\' || c == '-');
        let ends = |words: &str| {
            words.ends_with(['=', ':']) || !rest[words.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '-')
        };
        let known = KNOWN.at(rest).find(|(words, _)| ends(words)).filter(|_| begins());
        // The letter of a hypothesis names no part.
        let inside = marks.last().is_some_and(|m| matches!(m.2, "null" | "other") && lower[m.1..at].trim().is_empty());
        match known.filter(|(words, _)| !(inside && words.ends_with('='))) {
            Some((words, name)) => {
                marks.push((at, at + words.len(), name));
                at += words.len();
            }
            None => at += c.len_utf8(),
        }
    }
    let idle = |t: &str| {
        t.split([' ', ',', ';', ':', '.']).all(|w| {
            const IDLE: [&str; 24] = [
                "",
                "the",
                "a",
                "an",
                "with",
                "and",
                "has",
                "is",
                "its",
                "it",
                "circle",
                "sphere",
                "f",
                "f(x)",
                "function",
                "graph",
                "curve",
                "parabola",
                "ellipse",
                "sequence",
                "triangle",
                "rectangle",
                "there",
                "strictly",
            ];
            IDLE.contains(&w)
        })
    };
    let first = marks.first()?;
    // r = 3 alone gives a letter its value, and no part its name.
    if marks.len() == 1 && lower[first.0..first.1].ends_with('=') {
        return None;
    }
    let mut found: Vec<Part> = Vec::new();
    let before = &lower[..first.0];
    if first.2 == "remainder" && !idle(before) {
        // 17 remainder 3
        found.push(("quotient".to_owned(), trimmed(&plain[..first.0]).to_owned()));
    } else if !idle(before) {
        return None;
    }
    for (n, (_, from, name)) in marks.iter().enumerate() {
        let to = marks.get(n + 1).map_or(plain.len(), |m| m.0);
        let body = trimmed(&plain[*from..to]);
        // What a sentence sets against the answer is no part of it.
        let against = |w: &str| matches!(w, "while" | "whereas" | "but" | "although" | "though" | "unlike");
        // A divisor belongs to its remainder.
        if body.contains(" divided ")
            || body.is_empty()
            || found.iter().any(|p| p.0 == *name)
            || body.split([' ', ',']).any(against)
        {
            return None;
        }
        found.push(((*name).to_owned(), body.to_owned()));
    }
    (found.len() <= MAX_PARTS).then_some(found)
}

/// The text without marks and faces of mathematics that only set words.
fn plain(text: &str) -> String {
    const MARKS: [(&str, &str); 4] = [("$", " "), ("\\(", " "), ("\\)", " "), ("**", "")];
    const SPACES: [(&str, &str); 9] = [
        ("\\quad", " "),
        ("\\qquad", " "),
        ("\\,", " "),
        ("\\;", " "),
        ("\\ ", " "),
        ("~", " "),
        ("\u{3bc}", "\\mu"),
        ("\u{3c3}", "\\sigma"),
        ("\u{b2}", "^2"),
    ];
    const JOINTS: [(&str, &str); 23] = [
        ("Var (", "Var("),
        ("H_0:", "H_0 :"),
        ("H_1:", "H_1 :"),
        ("H_a:", "H_a :"),
        ("H_A:", "H_A :"),
        ("H0:", "H0 :"),
        ("H1:", "H1 :"),
        ("Ha:", "Ha :"),
        ("H_{0}:", "H_0 :"),
        ("H_{1}:", "H_1 :"),
        ("r=", "r ="),
        ("m=", "m ="),
        ("\\sigma=", "\\sigma ="),
        ("\\sigma^2=", "\\sigma^2 ="),
        ("\\mu=", "\\mu ="),
        ("E(X)=", "E(X) ="),
        ("E[X]=", "E[X] ="),
        ("Var(X)=", "Var(X) ="),
        ("\\det=", "\\det ="),
        ("Q_1=", "Q_1 ="),
        ("Q_3=", "Q_3 ="),
        ("Q1=", "Q1 ="),
        ("Q3=", "Q3 ="),
    ];
    let mut out = replaced(text, &MARKS);
    if out.contains('\\') {
        for face in ["\\text{", "\\mathrm{", "\\textbf{", "\\operatorname{"] {
            while let Some(at) = out.find(face) {
                let from = at + face.len();
                let Some(close) = out[from..].find('}') else { break };
                out = format!("{} {} {}", &out[..at], &out[from..from + close], &out[from + close + 1..]).into();
            }
        }
    }
    let joined = replaced(out, &SPACES).split_whitespace().collect::<Vec<_>>().join(" ");
    replaced(joined, &JOINTS).into_owned()
}

/// Without the words and signs between a name and its value.
fn trimmed(mut text: &str) -> &str {
    const JOINTS: [&str; 21] = [
        ":", "=", ",", ";", "is", "are", "of", "at", "on", "for", "and", "the", "a", "with", "in", "interval",
        "equals", "point", "when", "occurs", "has",
    ];
    loop {
        let before = text;
        text = text.trim();
        for joint in JOINTS {
            let word = joint.starts_with(char::is_alphabetic);
            if let Some(rest) = text.strip_prefix(joint)
                && !(word && rest.starts_with(|c: char| c.is_alphanumeric()))
            {
                text = rest;
            }
            if matches!(joint, "," | ";" | "and" | "the" | "a" | "with" | "has" | "is")
                && let Some(rest) = text.strip_suffix(joint)
                && !(word && rest.ends_with(|c: char| c.is_alphanumeric()))
            {
                text = rest;
            }
        }
        text = text.trim_end_matches('.');
        if text == before {
            return text;
        }
    }
}

/// `(a) 5 (b) 7`, `(i) True (ii) False`, `1) 3, 2) 5`, `A: 5, B: 7`, "Part (a): 3": parts by their places.
fn listed(text: &str) -> Option<Vec<Part>> {
    const LETTERS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    const CAPITALS: [&str; 8] = ["A", "B", "C", "D", "E", "F", "G", "H"];
    const ROMAN: [&str; 8] = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii"];
    const DIGITS: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let text = text.strip_prefix("Part ").or(text.strip_prefix("part ")).unwrap_or(text);
    for places in [LETTERS, CAPITALS, ROMAN, DIGITS] {
        // The first stands at the beginning.
        if !text.trim_start_matches('(').starts_with(places[0]) {
            continue;
        }
        let (mut found, mut at): (Vec<Part>, usize) = (Vec::new(), 0);
        let mut open: Option<usize> = None;
        for (n, place) in places.iter().enumerate() {
            // (A) and A) are options.
            let marks = if places == CAPITALS {
                vec![format!("{place}:")]
            } else {
                vec![format!("({place})"), format!("{place})")]
            };
            let next = marks.iter().find_map(|m| {
                let here = text[at..].find(m.as_str()).map(|x| x + at)?;
                let free = here == 0 || text[..here].ends_with([' ', ',', ';', '.']);
                (free && (n > 0 || here == 0)).then_some((here, here + m.len()))
            });
            let end = next.map_or(text.len(), |x| x.0);
            if let Some(from) = open.take() {
                let body = trimmed(text.get(from..end)?.trim().trim_end_matches(" part").trim_end_matches(" Part"));
                if body.is_empty() {
                    return None;
                }
                found.push(((n - 1).to_string(), body.to_owned()));
            }
            let Some((_, behind)) = next else { break };
            (open, at) = (Some(behind), behind);
        }
        if found.len() > 1 {
            return Some(found);
        }
    }
    None
}
