//! Figures and places in one form: adjectives of a figure in one order, polygons by the number of their sides, the upper
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
    for n in 1..words.len() {
        if words[n - 1].is(&["left", "right"]) && words[n].is(&["top", "upper", "bottom", "lower"]) {
            words.swap(n - 1, n);
        }
    }
    for n in 0..words.len() {
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
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("isosceles right triangle", "isosceles triangle"),
            ("pentagon", "six-sided polygon"),
            ("top left", "lower left"),
            ("lower temperature", "bottom temperature"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
