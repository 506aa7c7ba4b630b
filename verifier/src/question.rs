//! Reads the multiple-choice options that a question lists.

use crate::python;

/// The characters before and after the letter of an option label.
type Label = (&'static str, &'static str);

const LABELS: [Label; 4] = [("(", ")"), ("", "."), ("", ")"), ("", ":")];

/// Returns the options of a question as letters and texts. The labels are `A. 12`, `(A) 12`, `A) 12` or `A: 12`, each
/// at the beginning of a line (there also `A:12`), or several in one line. Returns an empty list if the letters are not
/// A, B, C and so on in order, or if an option has no text.
pub fn options(question: &str) -> Vec<(char, &str)> {
    let listed = |lines: bool| LABELS.iter().find_map(|label| labelled(question, label, lines));
    listed(true).or_else(|| listed(false)).unwrap_or_default()
}

/// Returns the options that use one kind of label. If `lines` is true, only labels at the beginning of a line count.
fn labelled<'a>(question: &'a str, label: &Label, lines: bool) -> Option<Vec<(char, &'a str)>> {
    let mut found: Vec<(char, usize, usize)> = Vec::new();
    let mut line_begins = true;
    let mut before = '\n';
    for (at, c) in question.char_indices() {
        // Bullets and bold marks may precede a label.
        line_begins = c == '\n' || (line_begins && (python::is_space(before) || matches!(before, '*' | '-')));
        let begins = if lines { line_begins } else { python::is_space(before) || before == '*' };
        before = c;
        if let Some((letter, end)) = begins.then(|| read(&question[at..], label, lines)).flatten() {
            found.push((letter, at, at + end));
        }
    }
    let in_order = ('A'..='J').zip(&found).filter(|(letter, f)| *letter == f.0).count() == found.len();
    if found.len() < 2 || !in_order {
        return None;
    }
    let ends = found.iter().skip(1).map(|f| f.1).chain([question.len()]);
    let text = |(&(letter, _, from), end): (&(char, usize, usize), usize)| {
        let line = question[from..end].split('\n').next().unwrap_or_default();
        let text = line.trim_matches(|c: char| python::is_space(c) || matches!(c, '*' | ',' | ';'));
        (!text.is_empty()).then_some((letter, text))
    };
    found.iter().zip(ends).map(text).collect()
}

/// Returns the letter of the label at the beginning of `text`, and the position after the label. Within a line, white
/// space must follow a label without brackets.
fn read(text: &str, &(open, close): &Label, begins_line: bool) -> Option<(char, usize)> {
    let inner = text.strip_prefix(open)?;
    let letter = inner.chars().next().filter(|c| matches!(c, 'A'..='J'))?;
    let rest = inner[1..].strip_prefix(close)?;
    let rest = rest.strip_prefix("**").unwrap_or(rest);
    let apart = rest.starts_with(python::is_space) || !open.is_empty() || begins_line;
    apart.then_some((letter, text.len() - rest.len()))
}
