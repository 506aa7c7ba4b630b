//! Layout around and inside an answer that says nothing about it: LaTeX's boxes, colours and sizes, HTML, code fences,
//! the JSON object of a structured reply. One pass over the text before anything else reads it.

use std::borrow::Cow;

use super::markup::without_html;
use super::python;
use super::words::fold::{is_face, is_unseen};

/// Longest text whose layout is looked at.
const MAX_BYTES: usize = 50_000;

/// Commands that stand for their last argument, with the number of arguments before it.
const WRAPPERS: [(&str, usize); 30] = [
    ("textcolor", 1),
    ("colorbox", 1),
    ("fcolorbox", 2),
    ("scalebox", 1),
    ("resizebox", 2),
    ("raisebox", 1),
    ("rotatebox", 1),
    ("makebox", 0),
    ("parbox", 1),
    ("ensuremath", 0),
    ("bbox", 0),
    ("underbrace", 0),
    ("overbrace", 0),
    ("smash", 0),
    ("mathclap", 0),
    ("mathstrut", 0),
    ("hl", 0),
    ("uuline", 0),
    ("uwave", 0),
    ("underbar", 0),
    ("centerline", 0),
    ("mathord", 0),
    ("mathrel", 0),
    ("mathinner", 0),
    ("shadowbox", 0),
    ("ovalbox", 0),
    ("doublebox", 0),
    ("underset", 1),
    ("overset", 1),
    ("stackrel", 1),
];

/// Other names of `\boxed`.
const BOXES: [&str; 4] = ["framebox", "Aboxed", "tcboxmath", "boxed"];

/// Commands that are dropped with so many arguments.
const DROPPED: [(&str, usize); 38] = [
    ("therefore", 0),
    ("because", 0),
    ("checkmark", 0),
    ("blacksquare", 0),
    ("qed", 0),
    ("qedsymbol", 0),
    ("color", 1),
    ("label", 1),
    ("tag", 1),
    ("hspace", 1),
    ("vspace", 1),
    ("phantom", 1),
    ("hphantom", 1),
    ("vphantom", 1),
    ("rule", 2),
    ("fontsize", 2),
    ("selectfont", 0),
    ("noindent", 0),
    ("centering", 0),
    ("nonumber", 0),
    ("notag", 0),
    ("hfill", 0),
    ("hfil", 0),
    ("vfill", 0),
    ("bigskip", 0),
    ("medskip", 0),
    ("smallskip", 0),
    ("par", 0),
    ("newpage", 0),
    ("pagebreak", 0),
    ("allowbreak", 0),
    ("nobreak", 0),
    ("protect", 0),
    ("relax", 0),
    ("negthinspace", 0),
    ("footnotesize", 0),
    ("normalsize", 0),
    ("scriptscriptstyle", 0),
];

/// Environments that only place what is in them.
const PLACES: [&str; 16] = [
    "center",
    "flushleft",
    "flushright",
    "equation",
    "equation*",
    "displaymath",
    "math",
    "document",
    "large",
    "Large",
    "huge",
    "quote",
    "verbatim",
    "minipage",
    "small",
    "tcolorbox",
];

/// The text without such layout; the same text where it has none.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let out = unset(text);
    match field(&out).and_then(|v| shown(&v)) {
        Some(answer) => Cow::Owned(answer),
        None => out,
    }
}

/// The members of a list as an answer, without its brackets: that of a JSON object, which knows no sets, and one of
/// three or more in square brackets, which is no interval.
pub(super) fn members(text: &str) -> Option<String> {
    if !text.contains('[') {
        return None;
    }
    let out = unset(text);
    if let Some(serde_json::Value::Array(items)) = field(&out) {
        let items: Option<Vec<String>> = items.iter().filter(|i| !i.is_array()).map(shown).collect();
        return items.filter(|i| i.len() > 1).map(|i| i.join(", "));
    }
    let inner = python::strip(&out).strip_prefix('[')?.strip_suffix(']')?;
    (inner.matches(',').count() > 1 && !inner.contains(['[', '(', '{'])).then(|| inner.to_owned())
}

/// The text without layout around and inside it.
fn unset(text: &str) -> Cow<'_, str> {
    let decorated = text.chars().any(is_decoration);
    if text.len() > MAX_BYTES || !(decorated || text.contains(['\\', '<', '&', '`', '{', '~'])) {
        return Cow::Borrowed(text);
    }
    let mut out = Cow::Borrowed(text);
    if decorated {
        let kept: String = text.chars().filter(|&c| !is_decoration(c)).collect();
        // A sign alone may be the answer.
        if !kept.trim().is_empty() {
            out = Cow::Owned(kept);
        }
    }
    if out.contains("~~") {
        out = Cow::Owned(without_struck(&out, "~~", "~~"));
    }
    for (open, close) in [("<s>", "</s>"), ("<del>", "</del>"), ("<strike>", "</strike>"), ("\\sout{", "}")] {
        if out.contains(open) {
            let kept = without_struck(&out, open, close);
            // The beginning and the end of a text, as tokenizers mark them.
            if !kept.trim().is_empty() {
                out = Cow::Owned(kept);
            }
        }
    }
    if text.contains('<') || text.contains('&') {
        out = Cow::Owned(without_html(&out));
    }
    // A quotation of its own.
    if out.contains("\n\n> ") {
        out = Cow::Owned(out.replace("\n> ", "\n"));
    }
    if out.contains("```") {
        out = Cow::Owned(without_fences(&out));
    }
    if out.contains('\\') {
        out = Cow::Owned(without_layout(&out));
    }
    out
}

/// Signs around an answer: ticks, pointing hands, ends of proofs, marks that show nothing.
fn is_decoration(c: char) -> bool {
    is_unseen(c)
        || matches!(c, '\u{2705}' | '\u{2713}' | '\u{2714}' | '\u{2611}' | '\u{2b50}' | '\u{2728}'
            | '\u{220e}' | '\u{25a0}' | '\u{25fc}' | '\u{1f300}'..='\u{1f5ff}' | '\u{1f600}'..='\u{1f64f}'
            | '\u{1f900}'..='\u{1f9ff}')
}

/// The text without what is struck out in it.
fn without_struck(text: &str, open: &str, close: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, inside)) = rest.split_once(open) {
        let Some((_, behind)) = inside.split_once(close) else { break };
        out.push_str(before);
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The text without the lines that open and close a block of code.
fn without_fences(text: &str) -> String {
    let lines: Vec<&str> = text.split('\n').filter(|l| !python::strip(l).starts_with("```")).collect();
    let joined = lines.join("\n");
    // Fences within a line.
    joined.replace("```", "")
}

/// The field of a JSON object, or of a Python dictionary, that holds the answer.
fn field(text: &str) -> Option<serde_json::Value> {
    const NAMES: [&str; 9] =
        ["answer", "finalanswer", "final", "result", "solution", "output", "choice", "response", "prediction"];
    const LONGEST: usize = 4_000;
    let text = python::strip(text);
    let from = text.strip_suffix('}').and_then(|_| text.find("{\"").or(text.find("{'")).or(text.find("{ ")))?;
    // Set builder notation and LaTeX have braces, too, but no quoted names.
    let object = &text[from..];
    if object.len() > LONGEST || text[..from].ends_with(['\\', '}', '^', '_']) {
        return None;
    }
    // The reader of JSON recurses.
    const DEEPEST: i32 = 6;
    let mut depth = 0;
    for b in object.bytes() {
        depth += i32::from(matches!(b, b'{' | b'[')) - i32::from(matches!(b, b'}' | b']'));
        if depth > DEEPEST {
            return None;
        }
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(object)
        .or_else(|_| serde_json::from_str(&object.replace('\'', "\"")))
        .or_else(|_| serde_json::from_str(&object.replace('\\', "\\\\")))
        .ok()?;
    let named = |name: &str| name.to_ascii_lowercase().replace([' ', '_', '-'], "");
    if let Some(amount) = amount(&object) {
        return Some(amount.into());
    }
    NAMES.iter().find_map(|n| object.iter().find(|(k, _)| named(k) == *n)).map(|(_, v)| v.clone())
}

/// The number and the unit of an object that is an amount.
fn amount(object: &serde_json::Map<String, serde_json::Value>) -> Option<String> {
    const NUMBERS: [&str; 7] = ["answer", "value", "magnitude", "amount", "number", "quantity", "result"];
    let field = |names: &[&str]| object.iter().find(|(k, _)| names.contains(&&*k.to_lowercase())).map(|(_, v)| v);
    let (number, unit) = (shown(field(&NUMBERS)?)?, shown(field(&["unit", "units"])?)?);
    Some(format!("{number} {unit}"))
}

fn shown(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(s) => Some(s.clone()),
        serde_json::Value::Number(n) => Some(n.to_string()),
        serde_json::Value::Bool(b) => Some(b.to_string()),
        serde_json::Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(shown).collect();
            items.map(|i| format!("[{}]", i.join(", ")))
        }
        serde_json::Value::Object(object) => amount(object),
        _ => None,
    }
}

/// True where formulas stand inside the argument of a command for upright letters.
fn holds_formula(argument: &str) -> bool {
    const FORMULAS: [&str; 15] = [
        "\\frac", "\\dfrac", "\\tfrac", "\\sqrt", "\\pi", "\\infty", "\\begin", "\\left", "\\pm", "\\boxed", "\\ln",
        "\\log", "\\sin", "\\cos", "\\tan",
    ];
    let face = argument.match_indices('\\').any(|(at, _)| {
        let name: String = argument[at + 1..].chars().take_while(char::is_ascii_alphabetic).collect();
        is_face(&name)
    });
    face || FORMULAS.iter().any(|f| argument.contains(f))
}

/// A text with the place of every brace that closes another.
struct Source<'a> {
    text: &'a str,
    /// Open and closing brace, by the open one's place.
    pairs: Vec<(usize, usize)>,
}

impl Source<'_> {
    /// The group in braces that begins at `at`, white space before it aside: its inside, and the place behind it.
    fn group(&self, at: usize, to: usize) -> Option<(usize, usize, usize)> {
        let open = at + self.space(at, to);
        let found = self.pairs.binary_search_by_key(&open, |p| p.0).ok()?;
        let close = self.pairs[found].1;
        (close < to).then_some((open + 1, close, close + 1))
    }

    fn space(&self, at: usize, to: usize) -> usize {
        self.text.as_bytes()[at..to].iter().take_while(|b| b.is_ascii_whitespace()).count()
    }

    /// The place behind an optional argument in square brackets.
    fn behind_option(&self, at: usize, to: usize) -> usize {
        const LONGEST: usize = 40;
        let open = at + self.space(at, to);
        let bytes = &self.text.as_bytes()[open..to];
        if bytes.first() != Some(&b'[') {
            return at;
        }
        bytes.iter().take(LONGEST).position(|b| *b == b']').map_or(at, |end| open + end + 1)
    }

    /// Writes the part of the text from `from` up to `to` without its layout.
    fn write(&self, from: usize, to: usize, depth: usize, out: &mut String) {
        const DEEPEST: usize = 8;
        let mut at = from;
        while let Some(next) = self.text[at..to].find('\\').filter(|_| depth < DEEPEST) {
            out.push_str(&self.text[at..at + next]);
            at += next;
            let letters = self.text.as_bytes()[at + 1..to].iter().take_while(|b| b.is_ascii_alphabetic()).count();
            let after = at + 1 + letters;
            let name = &self.text[at + 1..after];
            match self.command(name, after, to, depth, out) {
                Some(behind) => at = behind,
                None => {
                    // A sign with its backslash, or the command as it is.
                    let sign =
                        if name.is_empty() { self.text[after..to].chars().next().map_or(0, char::len_utf8) } else { 0 };
                    out.push_str(&self.text[at..after + sign]);
                    at = after + sign;
                }
            }
        }
        out.push_str(&self.text[at..to]);
    }

    /// Writes what a command of layout stands for and gives the place behind it; nothing for other commands.
    fn command(&self, name: &str, after: usize, to: usize, depth: usize, out: &mut String) -> Option<usize> {
        if let Some(&(_, before)) = WRAPPERS.iter().find(|w| w.0 == name) {
            // \textcolor{red}{x}, \bbox[5px]{x}: the last argument, as a group of its own.
            let mut at = self.behind_option(after, to);
            for _ in 0..before {
                at = self.group(at, to)?.2;
            }
            let (open, close, mut behind) = self.group(at, to)?;
            // \underbrace{x}_{note}
            if name.ends_with("brace")
                && self.text[behind..to].starts_with(['_', '^'])
                && let Some((_, _, end)) = self.group(behind + 1, to)
            {
                behind = end;
            }
            let group = !matches!(name, "underset" | "overset" | "stackrel");
            if group {
                out.push('{');
            }
            self.write(open, close, depth + 1, out);
            if group {
                out.push('}');
            }
            return Some(behind);
        }
        if BOXES.contains(&name) {
            out.push_str("\\boxed");
            return Some(self.behind_option(after, to));
        }
        if let Some(&(_, count)) = DROPPED.iter().find(|d| d.0 == name) {
            let mut at = after + usize::from(self.text[after..to].starts_with('*'));
            for _ in 0..count {
                at = self.behind_option(at, to);
                at = self.group(at, to).map_or(at, |g| g.2);
            }
            out.push(' ');
            return Some(at);
        }
        let (open, close, behind) = self.group(after, to)?;
        match name {
            "pmatrix" | "bmatrix" | "vmatrix" | "matrix" | "cases" => {
                // The rows of plain TeX.
                let mut rows = String::new();
                self.write(open, close, depth + 1, &mut rows);
                let rows = rows.replace("\\cr", "\\\\ ");
                let rows = rows.trim_end().trim_end_matches("\\\\");
                out.push_str(&format!("\\begin{{{name}}}{rows}\\end{{{name}}}"));
            }
            "begin" | "end" if PLACES.contains(&self.text[open..close].trim()) => out.push('\n'),
            "boxed" | "fbox" => return None,
            _ if is_face(name) && holds_formula(&self.text[open..close]) => {
                out.push('{');
                self.write(open, close, depth + 1, out);
                out.push('}');
            }
            _ => return None,
        }
        Some(behind)
    }
}

fn without_layout(text: &str) -> String {
    let (mut open, mut pairs) = (Vec::new(), Vec::new());
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'{' => open.push(i),
            b'}' => pairs.extend(open.pop().map(|from| (from, i))),
            _ => {}
        }
    }
    pairs.sort_unstable();
    let mut out = String::with_capacity(text.len());
    Source { text, pairs }.write(0, text.len(), 0, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn layout_says_nothing() {
        for (text, want) in [
            ("\\colorbox{yellow}{12}", "{12}"),
            ("\\fcolorbox{red}{white}{$x$}", "{$x$}"),
            ("\\bbox[5px]{12}", "{12}"),
            ("\\framebox{12}", "\\boxed{12}"),
            ("\\mathbf{\\frac{1}{2}}", "{\\frac{1}{2}}"),
            ("\\mathrm{\\mu m}", "\\mathrm{\\mu m}"),
            ("x<sup>2</sup>", "x^{2}"),
            ("a &lt; b", "a < b"),
            ("```\n12\n```", "12"),
            ("{\"final_answer\": 12}", "12"),
            ("{'answer': 'C'}", "C"),
            ("\\{x : x > 2\\}", "\\{x : x > 2\\}"),
            ("a < b > c", "a < b > c"),
        ] {
            assert_eq!(plain(text), want, "{text:?}");
        }
    }
}
