//! How the published library reads a rewritten formula, and when two of its values are equal.

use std::sync::LazyLock;

use num_bigint::BigInt;
use regex::Regex;

use crate::reward::math::{self, Expr, Rational, Steps, Unit, Value};

/// A value as the published library holds it.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// What it says.
    pub(super) value: Value,
    /// The formula, which tells a relation from a set.
    source: String,
    /// The letters, when nothing else is in it.
    symbol: Option<String>,
}

impl Read {
    /// A value that is no formula.
    pub(super) fn number(value: Value) -> Self {
        Read { value, source: String::new(), symbol: None }
    }

    /// Values joined to a set.
    pub(super) fn set(members: Vec<Value>) -> Self {
        Read { value: Value::Set(members), source: String::new(), symbol: None }
    }
}

/// Reads a rewritten formula; `None` where the published grammar has no rule for it.
pub(super) fn read(source: &str, steps: &Steps) -> Option<Read> {
    if source.is_empty() || !known(source) {
        return None;
    }
    let symbol = symbol(source);
    if symbol.is_some() && source.starts_with("\\text") || source == "\\varnothing" {
        let value = Value::Text(source.to_owned());
        return Some(Read { value, source: source.to_owned(), symbol: symbol.or(Some("varnothing".to_owned())) });
    }
    // Words before a formula are a factor of it, and some notation is read as letters.
    let words = source.starts_with("\\text{") && !source.ends_with('}') && !source.contains('=');
    if words || is_misread(source) {
        let value = Value::Scalar(Expr::Var(source.to_owned()), None);
        return Some(Read { value, source: source.to_owned(), symbol });
    }
    let value = match plain(math::parse(&dialect(source), true, steps), source) {
        Some(value) => value,
        None if symbol.is_some() => Value::Text(source.to_owned()),
        None => return None,
    };
    Some(Read { value, source: source.to_owned(), symbol })
}

/// Notation that is read as something else than it says, the same for the same formula only.
fn is_misread(source: &str) -> bool {
    static SPACED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[0-9] +[0-9]").expect("a fixed pattern"));
    source.contains("mod{") || source.contains("\\pmod") || source.contains("\\overline{") || SPACED.is_match(source)
}

/// Notation that the published grammar has no rule for.
fn known(source: &str) -> bool {
    const UNKNOWN: [&str; 10] = [
        "\\begin{cases}",
        "\\begin{align",
        "\\bmod",
        "\\langle",
        "\\mid",
        "\\boxed",
        "\\\\sqrt",
        "\\middle",
        "0.\\overline",
        "\\infinity",
    ];
    static SPACED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[0-9]\\[,;:][0-9]").expect("a fixed pattern"));
    let signs =
        |c: char| "`\u{221e}\u{221a}\u{b2}\u{b3}\u{b7}\u{2264}\u{2265}\u{bc}\u{bd}\u{be}\u{2153}\u{2154}".contains(c);
    let mut depth = 0i32;
    let mut nested_sign = false;
    for (i, b) in source.bytes().enumerate() {
        match b {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b'\\' if depth > 0 && (source[i..].starts_with("\\pm") || source[i..].starts_with("\\mp")) => {
                nested_sign = true
            }
            _ => {}
        }
    }
    depth == 0
        && !nested_sign
        && !UNKNOWN.iter().any(|u| source.contains(u))
        && !source.chars().any(signs)
        && !source.ends_with('.')
        && !SPACED.is_match(source)
}

/// The letters of a formula that is nothing but a word.
fn symbol(source: &str) -> Option<String> {
    let inner = source.strip_prefix("\\text{").and_then(|s| s.strip_suffix('}')).filter(|s| !s.contains(['{', '}']));
    let text = match inner {
        Some(text) => text,
        None if source.chars().all(|c| c.is_ascii_alphabetic() || c == ' ') => source,
        None => return None,
    };
    let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    letters.contains(char::is_alphabetic).then(|| letters.to_lowercase())
}

/// The formula in this program's language: indices of numbers are dropped, letters are lower case, `i` and a bare
/// `pi` are letters as any other.
fn dialect(source: &str) -> String {
    static INDEX: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"([0-9])_(?:\{[^{}]*\}|[0-9]+)").expect("a fixed pattern"));
    static POWER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"([0-9])e([0-9])").expect("a fixed pattern"));
    static PI: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(^|[^\\a-zA-Z])pi($|[^a-zA-Z])").expect("a fixed pattern"));
    let t = INDEX.replace_all(source, "$1");
    let t = POWER.replace_all(&t, r"$1 e \cdot $2");
    let t = PI.replace_all(&t, "$1 p q$2");
    let mut out = String::with_capacity(t.len());
    let mut command = false;
    for c in t.chars() {
        command = c == '\\' || (command && c.is_ascii_alphabetic());
        let kept = command || matches!(c, 'U' | 'T' | 'I' | 'E') || out.ends_with("mathbb{");
        out.push(if kept { c } else { c.to_ascii_lowercase() });
    }
    out
}

/// The value with words behind it as factors, degree signs dropped, `i` a letter.
fn plain(value: Value, source: &str) -> Option<Value> {
    static NAMES: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\([a-zA-Z](?:,\s*[a-zA-Z])+\)\s*=").expect("a fixed pattern"));
    let letter = |e: &Expr| e.replace("i", &Expr::Var("imaginary".to_owned()));
    let each = |items: Vec<Value>| items.into_iter().map(|v| plain(v, source)).collect::<Option<Vec<_>>>();
    Some(match value {
        Value::Text(_) | Value::Residue(..) | Value::Time(_) => return None,
        Value::Scalar(e, unit) => match unit {
            None | Some(Unit::Percent) => Value::Scalar(letter(&e), unit),
            Some(Unit::Degree) if source.contains("circ") => Value::Scalar(e, None),
            Some(unit) => Value::Scalar(Expr::Mul(vec![e, Expr::Var(format!("{unit:?}"))]), None),
        },
        Value::Assignment(name, v) => Value::Assignment(name, Box::new(plain(*v, source)?)),
        Value::List(items) if NAMES.is_match(source) => {
            let values = items.into_iter().map(|v| if let Value::Assignment(_, x) = v { *x } else { v });
            Value::Tuple(each(values.collect())?)
        }
        Value::List(items) => Value::Set(each(items)?),
        Value::Set(items) => Value::Set(each(items)?),
        Value::Tuple(items) => Value::Tuple(each(items)?),
        Value::Equation(a, b) => Value::Equation(letter(&a), letter(&b)),
        Value::Ratio(parts) => match parts.as_slice() {
            [a, b] => {
                Value::Scalar(Expr::Mul(vec![a.clone(), Expr::Pow(Box::new(b.clone()), Box::new(minus_one()))]), None)
            }
            _ => return None,
        },
        value => value,
    })
}

fn minus_one() -> Expr {
    Expr::Num { value: Rational::from_integer((-1).into()), decimals: None }
}

/// Directions of the relations in a formula, in the order of writing.
fn relations(source: &str) -> Vec<char> {
    let mut found = Vec::new();
    for (i, c) in source.char_indices() {
        match c {
            '<' | '>' => found.push(c),
            '\\' => {
                let name: String = source[i + 1..].chars().take_while(char::is_ascii_alphabetic).collect();
                match name.as_str() {
                    "le" | "leq" | "lt" | "leqslant" => found.push('<'),
                    "ge" | "geq" | "gt" | "geqslant" => found.push('>'),
                    "ne" | "neq" => found.push('n'),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    found
}

/// Equality of two values: decimals are rounded to six places first, whatever their size.
pub(super) fn equal(gold: &Read, answer: &Read, steps: &Steps) -> bool {
    if let (Some(x), Some(y)) = (&gold.symbol, &answer.symbol)
        && (gold.value_is_text() || answer.value_is_text() || x == y)
    {
        return x == y;
    }
    let (g, a) = (relations(&gold.source), relations(&answer.source));
    // Relations are compared one by one as written; a range is a relation only on the side of the gold answer.
    let listed = |r: &Read| r.source.contains(',');
    if !g.is_empty() && a.is_empty() && listed(gold) {
        return false;
    }
    if !a.is_empty() && (g.is_empty() || g.len() != a.len() || (g.len() > 1 && g != a && !listed(gold))) {
        return false;
    }
    // Only the relation itself is compared, not what it can be rearranged to.
    if !a.is_empty() && has_coefficient(&gold.source) != has_coefficient(&answer.source) {
        return false;
    }
    // What stands right of the last equals sign counts, also where it is the name.
    if let Value::Assignment(name, _) = &answer.value
        && !gold.source.contains('=')
        && answer.source.rsplit('=').next().is_some_and(|last| last.trim() == name)
    {
        return values(&gold.value, &Value::Scalar(Expr::Var(name.clone()), None), steps);
    }
    values(&gold.value, &answer.value, steps)
}

/// True when a digit stands right before a letter.
fn has_coefficient(source: &str) -> bool {
    source.as_bytes().windows(2).any(|w| w[0].is_ascii_digit() && w[1].is_ascii_alphabetic())
}

impl Read {
    fn value_is_text(&self) -> bool {
        matches!(self.value, Value::Text(_))
    }
}

fn values(gold: &Value, answer: &Value, steps: &Steps) -> bool {
    if let (Value::Scalar(a, u), Value::Scalar(b, v)) = (gold, answer)
        && let (Some(x), Some(y)) = (a.exact(steps), b.exact(steps))
    {
        let hundred = Rational::from_integer(100.into());
        let whole = is_atom(a) && is_atom(b) && x.is_integer() && y.is_integer();
        return match (u.is_some(), v.is_some()) {
            (true, false) => (whole && x == y) || numbers(a, &(&x / &hundred), b, &y),
            (false, true) => (whole && x == y) || numbers(a, &x, b, &(&y / &hundred)),
            _ => numbers(a, &x, b, &y),
        };
    }
    if matches!(gold, Value::Text(_)) != matches!(answer, Value::Text(_)) {
        return false;
    }
    // A set beside a tuple is taken in the order of writing.
    let list = |v: &Value, other: &Value| match (v, other) {
        (Value::Set(items), Value::Tuple(_)) => Value::List(items.clone()),
        _ => v.clone(),
    };
    math::equal(&list(gold, answer), &list(answer, gold), steps).equal
}

/// Two rational numbers with the expressions they came from.
fn numbers(a: &Expr, x: &Rational, b: &Expr, y: &Rational) -> bool {
    // One decimal by itself: both are rounded.
    if a.decimal().is_some() || b.decimal().is_some() {
        return x == y || rounded(x) == rounded(y);
    }
    if !is_atom(a) && !is_atom(b) {
        // A difference below the precision of the library's floats counts as none.
        let difference = if x > y { x - y } else { y - x };
        let tiny = Rational::new(1.into(), BigInt::from(1) << 52usize);
        return difference < tiny;
    }
    // An exact number and a calculation with decimals: the library's floats leave a residue.
    let (calculation, value) = if is_atom(a) { (b, x) } else { (a, y) };
    if calculation.any(|e| e.decimal().is_some())
        && let (Some(f), Some(g)) = (float(calculation), ratio(value))
    {
        return f == g;
    }
    x == y
}

/// A number by itself, with or without sign, or a fraction of such.
fn is_atom(e: &Expr) -> bool {
    match e {
        Expr::Num { .. } => true,
        Expr::Mul(factors) => match factors.as_slice() {
            [Expr::Num { decimals: None, .. }, Expr::Pow(n, m)] => {
                matches!(**n, Expr::Num { decimals: None, .. }) && **m == minus_one()
            }
            [Expr::Num { value, .. }, rest] => *value == Rational::from_integer((-1).into()) && is_atom(rest),
            _ => false,
        },
        _ => false,
    }
}

fn ratio(x: &Rational) -> Option<f64> {
    let n: f64 = x.numer().to_string().parse().ok()?;
    let d: f64 = x.denom().to_string().parse().ok()?;
    Some(n / d)
}

/// The value in double precision, in the order of writing.
fn float(e: &Expr) -> Option<f64> {
    match e {
        Expr::Num { value, .. } => ratio(value),
        Expr::Add(terms) => terms.iter().try_fold(0.0, |s, t| Some(s + float(t)?)),
        Expr::Mul(factors) => factors.iter().try_fold(1.0, |p, f| Some(p * float(f)?)),
        Expr::Pow(base, n) => Some(float(base)?.powf(float(n)?)),
        _ => None,
    }
}

fn rounded(x: &Rational) -> BigInt {
    (x * Rational::from_integer(BigInt::from(1_000_000))).round().to_integer()
}
