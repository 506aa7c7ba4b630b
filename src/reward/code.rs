//! Answers as program code writes them: `np.array([[1, 2], [3, 4]])`, `set([1, 2])`, `complex(3, 4)`, `p && !q`.

use std::sync::LazyLock;

use regex::Regex;

use super::python;

/// Longest answer that is read as code.
const MAX_BYTES: usize = 2_000;

/// The answer in mathematical notation, where all of it is a value as a program writes or prints it.
pub(super) fn mathematical(text: &str) -> Option<String> {
    let text = python::strip(text);
    if text.len() > MAX_BYTES {
        return None;
    }
    constructed(text).or_else(|| logical(text))
}

/// The arguments of a call that is the whole text, parted at commas outside brackets.
fn arguments(inner: &str) -> Option<Vec<&str>> {
    let (mut depth, mut from, mut parts) = (0i32, 0, Vec::new());
    for (i, b) in inner.bytes().enumerate() {
        match b {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(python::strip(&inner[from..i]));
                from = i + 1;
            }
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    parts.push(python::strip(&inner[from..]));
    (depth == 0).then_some(parts)
}

/// Constructors of values.
fn constructed(text: &str) -> Option<String> {
    static CALL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?:(?:np|numpy|sp|sympy|torch|tf|jnp|math|cmath|fractions|decimal)\.)?([A-Za-z_.]+)\((.*)\)$")
            .expect("a fixed pattern")
    });
    let call = CALL.captures(text)?;
    let (name, inner) = (call.get(1)?.as_str(), python::strip(call.get(2)?.as_str()));
    let parts = arguments(inner)?;
    // dtype=..., evaluate=...
    let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty() && !is_option(p)).collect();
    let listed = |t: &str| {
        let inside = [('[', ']'), ('(', ')'), ('{', '}')]
            .iter()
            .find_map(|&(open, close)| t.strip_prefix(open).and_then(|t| t.strip_suffix(close)));
        inside.map(str::to_owned)
    };
    match (name, parts.as_slice()) {
        ("print" | "str" | "repr" | "float" | "int" | "Integer" | "Float" | "Decimal" | "N" | "simplify", [x]) => {
            Some(x.trim_matches(['\'', '"']).to_owned())
        }
        ("array" | "matrix" | "Matrix" | "tensor" | "Tensor" | "list" | "List" | "vector", [x]) => {
            Some((*x).to_owned())
        }
        ("tuple" | "Tuple" | "Point" | "Point2D" | "Point3D" | "Vector", [x]) => listed(x).map(|x| format!("({x})")),
        ("Tuple" | "Point" | "Point2D" | "Point3D" | "Vector" | "vec", [_, _, ..]) => Some(format!("({inner})")),
        ("set" | "frozenset", [x]) => listed(x).map(|x| format!("\\{{{x}\\}}")),
        ("set", []) | ("EmptySet", []) => Some("\\emptyset".to_owned()),
        ("FiniteSet" | "Set", [_, ..]) => Some(format!("\\{{{}\\}}", parts.join(", "))),
        ("complex", [re, im]) => Some(format!("({re}) + ({im})i")),
        ("Interval", [a, b]) => Some(format!("[{a}, {b}]")),
        ("Interval.open", [a, b]) => Some(format!("({a}, {b})")),
        ("Interval.Lopen", [a, b]) => Some(format!("({a}, {b}]")),
        ("Interval.Ropen", [a, b]) => Some(format!("[{a}, {b})")),
        ("Union", [_, _, ..]) => {
            let sets: Option<Vec<String>> = parts.iter().map(|p| constructed(p)).collect();
            sets.map(|s| s.join(" \\cup "))
        }
        ("Eq" | "Equation", [a, b]) => Some(format!("{a} = {b}")),
        ("Ne", [a, b]) => Some(format!("{a} \\ne {b}")),
        _ => None,
    }
}

/// True for a named argument that changes only how a value is stored.
fn is_option(argument: &str) -> bool {
    argument
        .split_once('=')
        .is_some_and(|(name, _)| matches!(name.trim(), "dtype" | "evaluate" | "device" | "precision"))
}

/// Logic with the signs of C: `p && !q`, `a || b`.
fn logical(text: &str) -> Option<String> {
    let joined = [" && ", " || ", " \\land ", " \\lor ", " \\wedge ", " \\vee ", "\u{2227}", "\u{2228}"];
    let negated = |t: &str| {
        let chars: Vec<char> = t.chars().collect();
        let near = |n: usize| chars.get(n).copied().unwrap_or(' ');
        let mut out = String::with_capacity(t.len() + 8);
        for (n, &c) in chars.iter().enumerate() {
            let before = n == 0 || matches!(near(n - 1), ' ' | '(' | '!' | '~');
            let denies = matches!(c, '!' | '~') && before && (near(n + 1).is_alphabetic() || near(n + 1) == '(');
            if denies { out.push_str("\\neg ") } else { out.push(c) }
        }
        out
    };
    if joined.iter().any(|j| text.contains(j)) {
        let text = text.replace(" && ", " \\land ").replace(" || ", " \\lor ");
        let plain = negated(&text);
        return (text.contains("\\l") || plain != text).then_some(plain);
    }
    // A negation by itself: "!a" and "~p" of one letter.
    let letter = text.strip_prefix(['!', '~'])?;
    let one = letter.chars().count() == 1 && letter.chars().all(char::is_alphabetic);
    one.then(|| format!("\\neg {letter}"))
}

#[cfg(test)]
mod tests {
    use super::mathematical;

    #[test]
    fn values_of_programs() {
        for (text, want) in [
            ("np.array([[1, 2], [3, 4]], dtype=int)", "[[1, 2], [3, 4]]"),
            ("set([1, 2])", "\\{1, 2\\}"),
            ("tuple((1, 2))", "(1, 2)"),
            ("complex(3, -4)", "(3) + (-4)i"),
            ("Union(Interval.open(0, 1), FiniteSet(3))", "(0, 1) \\cup \\{3\\}"),
            ("p && !q", "p \\land \\neg q"),
            ("~p", "\\neg p"),
            ("print('12')", "12"),
        ] {
            assert_eq!(mathematical(text).as_deref(), Some(want), "{text:?}");
        }
        for text in ["f(x)", "sin(x)(x + 1)", "n!", "5! + 3", "gcd(4, 6)"] {
            assert_eq!(mathematical(text), None, "{text:?}");
        }
    }
}
