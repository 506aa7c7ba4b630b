//! Figures and places in one form: adjectives of a figure or a line in one order, polygons by the number of their sides, the upper
//! left as the top left.

use super::phrase::Word;

/// Adjectives that class a figure, which stand in any order before it.
const CLASSES: &[&str] = &[
    "right",
    "isosceles",
    "scalene",
    "equilateral",
    "equiangular",
    "acute",
    "obtuse",
    "regular",
    "irregular",
    "convex",
    "concave",
    "cyclic",
    "oblique",
    "closed",
];

/// Figures that such adjectives class.
const FIGURES: &[&str] = &[
    "triangle",
    "triangles",
    "quadrilateral",
    "polygon",
    "trapezoid",
    "trapezium",
    "pentagon",
    "hexagon",
    "octagon",
    "figure",
    "prism",
    "pyramid",
    "cone",
    "cylinder",
    "polyhedron",
];

/// What is counted by places: the second row is row 2.
const COUNTED: &[&str] = &[
    "row",
    "column",
    "step",
    "trial",
    "year",
    "grade",
    "week",
    "day",
    "month",
    "question",
    "page",
    "chapter",
    "table",
    "figure",
    "stage",
    "quarter",
    "period",
    "cycle",
    "round",
    "group",
    "line",
    "floor",
    "level",
    "layer",
    "generation",
    "picture",
    "image",
    "panel",
    "test",
    "experiment",
    "attempt",
    "graph",
];

/// How a line or a mark is drawn.
const STYLES: &[&str] = &["dashed", "dotted", "solid", "dash", "dot", "thick", "thin", "bold", "striped", "hatched"];

/// Colours, and what shades them.
pub(super) const COLORS: &[&str] = &[
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "violet",
    "pink",
    "brown",
    "black",
    "white",
    "gray",
    "cyan",
    "teal",
    "magenta",
    "navy",
    "gold",
    "silver",
    "beige",
    "maroon",
    "olive",
    "turquoise",
    "tan",
    "light",
    "dark",
    "pale",
    "bright",
    "deep",
];

/// Polygons with their numbers of sides; the first name is the one that is kept.
const POLYGONS: [(&str, &[&str]); 12] = [
    ("3", &["triangle"]),
    ("4", &["quadrilateral", "quadrangle", "tetragon"]),
    ("5", &["pentagon"]),
    ("6", &["hexagon"]),
    ("7", &["heptagon", "septagon"]),
    ("8", &["octagon"]),
    ("9", &["nonagon", "enneagon"]),
    ("10", &["decagon"]),
    ("11", &["hendecagon", "undecagon"]),
    ("12", &["dodecagon"]),
    ("15", &["pentadecagon"]),
    ("20", &["icosagon"]),
];

/// What has a top and a bottom, or a side of them.
const PLACES: &[&str] = &[
    "left", "right", "center", "middle", "half", "row", "panel", "panels", "corner", "subplot", "plot", "graph",
    "chart", "edge", "end", "part", "side", "section", "portion", "region", "image", "picture", "shelf",
];

/// Puts the names of figures and places into their one form.
pub(super) fn one_way(words: &mut Vec<Word>) {
    let mut from = 0;
    while from < words.len() {
        let run = words[from..].iter().take_while(|w| w.is(CLASSES)).count();
        if run > 1 && words.get(from + run).is_some_and(|w| w.is(FIGURES)) {
            words[from..from + run].sort_by(|a, b| a.text.cmp(&b.text));
        }
        from += run + 1;
    }
    // A dashed blue line is a blue dashed one.
    let mut from = 0;
    while from < words.len() {
        let run = words[from..].iter().take_while(|w| w.is(STYLES) || w.is(COLORS)).count();
        if words[from..from + run].iter().filter(|w| w.is(STYLES)).count() == 1 {
            words[from..from + run].sort_by_key(|w| w.is(STYLES));
        }
        from += run + 1;
    }
    // The second row is row 2; by "then" alone one follows the other.
    for n in 1..words.len() {
        let digits = words[n - 1].text.trim_end_matches(|c: char| c.is_ascii_lowercase()).to_owned();
        let place = !digits.is_empty() && digits.len() + 2 == words[n - 1].text.len();
        if place && digits.bytes().all(|b| b.is_ascii_digit()) && words[n].is(COUNTED) {
            words[n - 1].text = digits;
            words.swap(n - 1, n);
        }
    }
    if let Some(then) = words.iter().position(|w| w.is(&["then"])).filter(|n| *n > 1) {
        if words[then - 1].is(&["and"]) {
            words.remove(then - 1);
        }
        if words[0].is(&["1st"]) {
            words.remove(0);
        }
    }
    // On top of is on, next to is beside.
    for (said, one) in [(&["on", "top", "of"][..], "on"), (&["next", "to"], "beside")] {
        let at = words.windows(said.len()).position(|w| w.iter().zip(said).all(|(w, s)| w.text == *s));
        if let Some(at) = at {
            words[at].text = one.to_owned();
            words.drain(at + 1..at + said.len());
        }
    }
    // The left-hand side.
    let mut at = 1;
    while at < words.len() {
        let sided = words[at].is(&["hand"]) && words[at - 1].is(&["left", "right"]);
        if sided && words.get(at + 1).is_some_and(|w| w.is(PLACES)) {
            words.remove(at);
        }
        at += 1;
    }
    for n in 1..words.len() {
        if words[n - 1].is(&["left", "right"]) && words[n].is(&["top", "upper", "bottom", "lower"]) {
            words.swap(n - 1, n);
        }
    }
    // Behind its name a saint is a street.
    if let [_, .., last] = words.as_mut_slice()
        && last.is(&["saint"])
    {
        last.text = "street".to_owned();
    }
    // The man on the left is the left man.
    if let [_, on, side] = words.as_slice()
        && on.is(&["on"])
        && side.is(&["left", "right"])
    {
        words.remove(1);
        words.swap(0, 1);
    }
    for n in 0..words.len() {
        if words[n].is(&["middle"]) {
            words[n].text = "center".to_owned();
        }
        if words.get(n + 1).is_some_and(|w| w.is(PLACES)) {
            match words[n].text.as_str() {
                "upper" => words[n].text = "top".to_owned(),
                "lower" => words[n].text = "bottom".to_owned(),
                _ => {}
            }
        }
    }
    let mut at = 0;
    while at < words.len() {
        let next = |n: usize, names: &[&str]| words.get(at + n).is_some_and(|w| w.is(names));
        let behind = match (next(1, &["gon"]), next(1, &["sided"]) && next(2, &["polygon", "figure", "shape"])) {
            (true, _) => 1,
            (_, true) => 2,
            _ => 0,
        };
        let known = |p: &&(&str, &[&str])| {
            if behind == 0 { p.1.contains(&words[at].text.as_str()) } else { p.0 == words[at].text }
        };
        if let Some((_, names)) = POLYGONS.iter().find(known) {
            words[at].text = names[0].to_owned();
            words.drain(at + 1..=at + behind);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::same;

    #[test]
    fn figures_have_one_form() {
        for (a, b) in [
            ("isosceles right triangle", "right-angled isosceles triangle"),
            ("pentagon", "a five-sided polygon"),
            ("dodecagon", "12-gon"),
            ("top left", "the upper-left corner"),
            ("blue dashed line", "the dashed blue line"),
            ("left", "on the left-hand side"),
            ("left man", "the man on the left"),
            ("row 2, column 1", "second row, first column"),
            ("increases then decreases", "first increases, and then decreases"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("isosceles right triangle", "isosceles triangle"),
            ("pentagon", "six-sided polygon"),
            ("top left", "lower left"),
            ("light blue dashed line", "the dashed blue line"),
            ("dashed, solid", "solid, dashed"),
            ("lower temperature", "bottom temperature"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
