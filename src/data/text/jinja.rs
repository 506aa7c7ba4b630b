//! Makes minijinja print and test values as Jinja2 does, which `transformers` uses.

use machinery::Token;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, machinery};

use super::json;

/// Filter that returns its value.
const SAME: &str = "omr_same";

/// Adds the tests and filters whose results differ.
pub(super) fn add_to(env: &mut Environment<'static>) {
    use ValueKind::{Bool, Iterable, Map, Number, Seq, String as Text, Undefined};
    let is = |kinds: &'static [ValueKind]| move |value: &Value| kinds.contains(&value.kind());
    env.add_test("iterable", is(&[Undefined, Text, Seq, Map, Iterable]));
    env.add_test("sequence", is(&[Undefined, Text, Seq, Map]));
    env.add_test("number", is(&[Bool, Number]));
    env.add_filter("string", |value: Value| Value::from(printed(&value).to_string()));
    for name in ["e", "escape"] {
        env.add_filter(name, |value: Value| {
            let text = printed(&value).to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            Value::from_safe_string(text.replace('\'', "&#39;").replace('"', "&#34;"))
        });
    }
    env.add_filter(SAME, |value: Value| value);
}

/// Writes the letters that differ in upper case and in title case, such as `ǆ`, in title case.
pub(super) fn titled(text: Value) -> Value {
    let pairs = [("Ǆ", "ǅ"), ("Ǉ", "ǈ"), ("Ǌ", "ǋ"), ("Ǳ", "ǲ")];
    pairs.iter().fold(text.to_string(), |text, (upper, title)| text.replace(upper, title)).into()
}

/// Returns a value whose text is that of Python's `str`.
pub(super) fn printed(value: &Value) -> Value {
    match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Number => repr(value).into(),
        _ => value.clone(),
    }
}

/// Returns the text of a value as Python's `repr` writes it.
fn repr(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => {
            f64::try_from(value.clone()).map_or_else(|_| value.to_string(), json::repr)
        }
        ValueKind::Seq | ValueKind::Iterable => format!("[{}]", joined(items().map(|item| repr(&item)).collect())),
        ValueKind::Map => {
            let pair = |key: Value| format!("{}: {}", repr(&key), repr(&value.get_item(&key).unwrap_or_default()));
            format!("{{{}}}", joined(items().map(pair).collect()))
        }
        ValueKind::Undefined => "Undefined".to_owned(),
        _ => value.to_string(),
    }
}

/// Returns a string as Python's `repr` writes it.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let escaped = text.chars().map(|c| match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c if c == quote || c == '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\x{:02x}", c as u32),
        c => c.to_string(),
    });
    format!("{quote}{}{quote}", escaped.collect::<String>())
}

/// Returns the source in which constants before `and` are no constants for the compiler, which would compute a truth value
/// from two constants: in Jinja2, `'' and 'b'` is `''`.
pub(super) fn without_constant_and(source: &str) -> Result<String, minijinja::Error> {
    let (mut text, mut done) = (String::new(), 0);
    let mut constant = None;
    for token in machinery::tokenize(source, false, Default::default(), Default::default()) {
        let (token, span) = token?;
        let (from, to) = (span.start_offset as usize, span.end_offset as usize);
        if let (Token::Ident("and"), Some((from, to))) = (&token, constant) {
            text += &format!("{}({}|{SAME})", &source[done..from], &source[from..to]);
            done = to;
        }
        constant = match token {
            Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Float(_) => Some((from, to)),
            // Behind `is`, the words `none` and `true` are tests.
            _ => None,
        };
    }
    Ok(text + &source[done..])
}
