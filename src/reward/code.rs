//! Answers as program code writes them: `np.array([[1, 2], [3, 4]])`, `set([1, 2])`, `complex(3, 4)`, `p && !q`.

use std::sync::LazyLock;

use regex::Regex;

use super::python;
use super::words::tables::replaced;

/// Longest answer that is read as code.
const MAX_BYTES: usize = 2_000;

/// The answer in mathematical notation, where all of it is a value as a program writes or prints it.
pub(super) fn mathematical(text: &str) -> Option<String> {
    let text = python::strip(text);
    if text.len() > MAX_BYTES {
        return None;
    }
    // The assignment of several values.
    let text = match together(text) {
        Some(tuple) => return Some(tuple),
        None => text,
    };
    if let Some(value) = literal(text) {
        return Some(value);
    }
    let named = functions(text);
    let text = named.as_deref().unwrap_or(text);
    constructed(text).or_else(|| logical(text)).or(named)
}

/// `x, y = 4, 9` as a tuple.
fn together(text: &str) -> Option<String> {
    let (names, values) = text.split_once(" = ")?;
    let name = |n: &str| !n.is_empty() && n.len() < 4 && n.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let count = names.split(',').count();
    let assigned = count > 1 && names.split(',').all(|n| name(n.trim())) && !values.contains('=');
    (assigned && arguments(values)?.len() == count).then(|| format!("({names}) = ({values})"))
}

/// Literals: dictionaries, nested lists in braces, numbers of Fortran and Julia, statements that assign.
fn literal(text: &str) -> Option<String> {
    static NUMBERS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^([+-]?\d+\.?\d*)[dD]([+-]?\d+)$|(\d)(?:im|\s?\*\s?I)\b").expect("a fixed pattern")
    });
    for word in ["let ", "const ", "var ", "return "] {
        if let Some(rest) = text.strip_prefix(word).filter(|r| r.ends_with(';') || word == "return ") {
            return Some(rest.trim_end_matches([';', ' ']).to_owned());
        }
    }
    if text.ends_with(",)") || text.ends_with(", )") {
        return Some(format!("{})", text.trim_end_matches([')', ' ', ','])));
    }
    // The digit of an index is no factor: `mu_0*I`.
    if let Some(number) = NUMBERS.captures(text).filter(|_| !text.contains('_')) {
        return Some(match number.get(3) {
            Some(_) => NUMBERS.replace_all(text, "${3}i").into_owned(),
            None => NUMBERS.replace(text, "${1}e${2}").into_owned(),
        });
    }
    if matches!(text, "Infinity" | "+Infinity" | "-Infinity") {
        return Some(text.replace("Infinity", "\\infty"));
    }
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).filter(|t| !t.contains('\\'))?;
    let parts = arguments(inner)?;
    if parts.len() > 1 && parts.iter().all(|p| p.starts_with('{') && p.ends_with('}') && p.contains(',')) {
        return Some(text.replace('{', "[").replace('}', "]"));
    }
    let entry = |part: &&str| {
        let (name, value) = part.split_once(':')?;
        let plain = name.trim().trim_matches(['\'', '"']);
        let named = !plain.is_empty() && plain.len() < 12 && plain.chars().all(|c| c.is_alphanumeric() || c == '_');
        named.then(|| format!("{plain} = {}", value.trim().trim_matches(['\'', '"'])))
    };
    let entries: Option<Vec<String>> = parts.iter().map(entry).collect();
    entries.filter(|e| e.len() > 1 || text.contains(['\'', '"'])).map(|e| e.join(", "))
}

/// Names of functions and constants in program code, and how mathematics writes them; those of one system are only
/// taken where its brackets or its module stand by.
const FUNCTIONS: &[(&str, &str)] = &[
    ("Sqrt", "sqrt"),
    ("Cbrt", "cbrt"),
    ("Sin", "sin"),
    ("Cos", "cos"),
    ("Tan", "tan"),
    ("Cot", "cot"),
    ("Sec", "sec"),
    ("Csc", "csc"),
    ("Sinh", "sinh"),
    ("Cosh", "cosh"),
    ("Tanh", "tanh"),
    ("ArcSin", "arcsin"),
    ("ArcCos", "arccos"),
    ("ArcTan", "arctan"),
    ("Exp", "exp"),
    ("Log", "ln"),
    ("Log2", "log2"),
    ("Log10", "log10"),
    ("Abs", "abs"),
    ("Floor", "floor"),
    ("Ceiling", "ceil"),
    ("Max", "max"),
    ("Min", "min"),
    ("GCD", "gcd"),
    ("LCM", "lcm"),
    ("Binomial", "binom"),
    ("Factorial", "factorial"),
];

/// Code of computer algebra and of languages with a module for mathematics: `Sqrt[3]`, `Math.pow(x, 2)`, `M_PI`.
fn functions(text: &str) -> Option<String> {
    static CALL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b([A-Z][A-Za-z0-9]*)\[").expect("a fixed pattern"));
    let mut out = text.to_owned();
    // Mathematica: a head with a capital letter and square brackets.
    for _ in 0..40 {
        let Some(call) = out.contains('[').then(|| CALL.captures(&out)).flatten() else { break };
        let (Some(head), Some(whole)) = (call.get(1), call.get(0)) else { break };
        let named = FUNCTIONS.iter().find(|f| f.0 == head.as_str()).map(|f| f.1);
        let open = whole.end() - 1;
        let Some(close) = closing(&out, open) else { break };
        let inner = out[open + 1..close].to_owned();
        let shown = match (head.as_str(), named) {
            (_, Some("binom")) => {
                let parts = arguments(&inner)?;
                let [n, k] = parts[..] else { return None };
                format!("\\binom{{{n}}}{{{k}}}")
            }
            (_, Some(name)) => format!("{name}({inner})"),
            ("Power", _) | ("Rational", _) => {
                let parts = arguments(&inner)?;
                let [a, b] = parts[..] else { return None };
                let sign = if head.as_str() == "Power" { "^" } else { "/" };
                format!("(({a}){sign}({b}))")
            }
            ("List", _) => format!("{{{inner}}}"),
            _ => return None,
        };
        out = format!("{}{shown}{}", &out[..head.start()], &out[close + 1..]);
    }
    let computer_algebra = out != text;
    const NAMES: [(&str, &str); 6] =
        [("Math.PI", "\\pi "), ("M_PI", "\\pi "), ("Math.E", "e"), ("PI()", "\\pi "), ("Math.", ""), ("std::", "")];
    let mut out = replaced(out, &NAMES);
    if computer_algebra {
        out = replaced(out, &[("Infinity", "\\infty "), ("E^", "e^")]);
    }
    if !out.contains('\\') && out.contains("Pi") {
        static PI: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bPi\b").expect("a fixed pattern"));
        out = PI.replace_all(&out, "\\pi ").into_owned().into();
    }
    // x.^2 .* y, element by element.
    let out = replaced(out, &[(".^", "^"), (".*", "*"), ("./", "/")]);
    (out != text).then(|| out.into_owned())
}

/// The place of the bracket that closes the one at `open`.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0i32;
    for (i, b) in text.bytes().enumerate().skip(open) {
        depth += i32::from(b == b'[') - i32::from(b == b']');
        if depth == 0 {
            return Some(i);
        }
    }
    None
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
    let call = text.ends_with(')').then(|| CALL.captures(text))??;
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
        ("Fraction" | "Rational", [x]) => Some(x.trim_matches(['\'', '"']).to_owned()),
        ("c", [_, _, ..]) => Some(parts.join(", ")),
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
            ("Sqrt[3]/2", "sqrt(3)/2"),
            ("Sin[Pi/3]", "sin(\\pi /3)"),
            ("x, y = 4, 9", "(x, y) = (4, 9)"),
            ("Math.sqrt(3)", "sqrt(3)"),
            ("print('12')", "12"),
        ] {
            assert_eq!(mathematical(text).as_deref(), Some(want), "{text:?}");
        }
        for text in ["f(x)", "sin(x)(x + 1)", "n!", "5! + 3", "gcd(4, 6)"] {
            assert_eq!(mathematical(text), None, "{text:?}");
        }
    }
}
