//! Angles and words of directions, as tokens.

use crate::reward::words::tables::replaced;

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    Number(f64),
    /// An angle in degrees, from degrees, minutes and seconds.
    Angle(f64),
    /// A word or letters, in small letters.
    Word(String),
}

/// The four cardinal points and those between, clockwise from north in steps of 22.5 degrees.
const POINTS: [&str; 16] =
    ["n", "nne", "ne", "ene", "e", "ese", "se", "sse", "s", "ssw", "sw", "wsw", "w", "wnw", "nw", "nnw"];

/// Degrees clockwise from north of a compass point in words or capital letters.
pub(super) fn point(word: &str) -> Option<f64> {
    const SHORT: [(&str, &str); 18] = [
        ("-", ""),
        (" ", ""),
        ("northwards", "n"),
        ("northward", "n"),
        ("northern", "n"),
        ("north", "n"),
        ("southwards", "s"),
        ("southward", "s"),
        ("southern", "s"),
        ("south", "s"),
        ("eastwards", "e"),
        ("eastward", "e"),
        ("eastern", "e"),
        ("east", "e"),
        ("westwards", "w"),
        ("westward", "w"),
        ("western", "w"),
        ("west", "w"),
    ];
    let short = replaced(word, &SHORT);
    POINTS.iter().position(|p| *p == short).map(|n| n as f64 * 22.5)
}

/// The tokens of a text of numbers, angles, words and commas; `None` where there is anything else.
pub(super) fn tokens(text: &str) -> Option<Vec<Token>> {
    const SIGNS: [(&str, &str); 22] = [
        ("^{\\circ}", "\u{b0}"),
        ("^\\circ", "\u{b0}"),
        ("\\degree", "\u{b0}"),
        ("\\circ", "\u{b0}"),
        ("\\(", " "),
        ("\\)", " "),
        ("\\text", " "),
        ("\\mathrm", " "),
        ("\\,", " "),
        ("\\ ", " "),
        ("$", " "),
        ("{", " "),
        ("}", " "),
        ("^\\prime\\prime", "\u{2033}"),
        ("^\\prime", "\u{2032}"),
        ("''", "\u{2033}"),
        ("\"", "\u{2033}"),
        ("'", "\u{2032}"),
        ("\u{2019}", "\u{2032}"),
        ("\u{201d}", "\u{2033}"),
        (",", " "),
        ("+", " +"),
    ];
    // Signs that no row takes away.
    if text.contains(['=', '<', '>', '|', '/', '*', '_', '[', ']']) {
        return None;
    }
    let text = replaced(text, &SIGNS);
    if text.contains('\\') {
        return None;
    }
    let chars: Vec<char> = text.trim().trim_end_matches('.').chars().collect();
    let (mut out, mut at): (Vec<Token>, usize) = (Vec::new(), 0);
    while let Some(&c) = chars.get(at) {
        let run = |keep: &dyn Fn(char) -> bool| chars[at..].iter().take_while(|c| keep(**c)).collect::<String>();
        if c == ' ' {
            at += 1;
        } else if c.is_ascii_digit() {
            let digits = run(&|c| c.is_ascii_digit() || c == '.');
            at += digits.chars().count();
            out.push(Token::Number(digits.parse().ok()?));
        } else if c.is_alphabetic() {
            let word = run(&|c| c.is_alphabetic() || c == '-').to_lowercase();
            at += word.chars().count();
            match (word.as_str(), out.last()) {
                ("degrees" | "degree" | "deg", Some(Token::Number(n))) => *out.last_mut()? = Token::Angle(*n),
                ("minutes" | "minute", _) => sixtieth(&mut out, 60.0)?,
                ("seconds" | "second", _) => sixtieth(&mut out, 3600.0)?,
                _ => out.push(Token::Word(word)),
            }
        } else if c == '\u{b0}' {
            let Some(Token::Number(n)) = out.last() else { return None };
            *out.last_mut()? = Token::Angle(*n);
            at += 1;
        } else if matches!(c, '\u{2032}' | '\u{2033}') {
            sixtieth(&mut out, if c == '\u{2032}' { 60.0 } else { 3600.0 })?;
            at += 1;
        } else {
            return None;
        }
    }
    Some(out)
}

/// Adds the number at the end, minutes or seconds, to the angle before it.
fn sixtieth(out: &mut Vec<Token>, part: f64) -> Option<()> {
    let Some(Token::Number(n)) = out.pop() else { return None };
    let Some(Token::Angle(whole)) = out.last_mut() else { return None };
    *whole += n / part;
    (n < 60.0).then_some(())
}
