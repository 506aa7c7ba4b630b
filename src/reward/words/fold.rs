//! Text to plain letters: faces of letters, diacritics, ligatures, apostrophes and LaTeX's ways to write them.

use crate::reward::python;

/// Stands behind a vowel that is also written with an `e` after it: the `o` in the name of the wave equation.
pub(super) const UMLAUT: char = '\u{308}';

/// Letters with marks, under the letter they are written with where there are no marks.
const MARKED: [(&str, &str); 27] = [
    ("a", "\u{e0}\u{e1}\u{e2}\u{e3}\u{101}\u{103}\u{105}\u{1ce}\u{1ea1}\u{1ea3}\u{1ea5}\u{1ea7}\u{1eaf}"),
    ("c", "\u{e7}\u{107}\u{109}\u{10b}\u{10d}"),
    ("d", "\u{10f}\u{111}\u{f0}"),
    ("e", "\u{e8}\u{e9}\u{ea}\u{eb}\u{113}\u{115}\u{117}\u{119}\u{11b}\u{1ebf}\u{1ec1}\u{1ec7}"),
    ("g", "\u{11d}\u{11f}\u{121}\u{123}"),
    ("h", "\u{125}\u{127}"),
    ("i", "\u{ec}\u{ed}\u{ee}\u{ef}\u{129}\u{12b}\u{12d}\u{12f}\u{131}"),
    ("j", "\u{135}"),
    ("k", "\u{137}"),
    ("l", "\u{13a}\u{13c}\u{13e}\u{142}"),
    ("n", "\u{f1}\u{144}\u{146}\u{148}"),
    ("o", "\u{f2}\u{f3}\u{f4}\u{f5}\u{14d}\u{14f}\u{1a1}\u{1ed1}\u{1ed9}"),
    ("r", "\u{155}\u{157}\u{159}"),
    ("s", "\u{15b}\u{15d}\u{15f}\u{161}\u{219}"),
    ("t", "\u{163}\u{165}\u{167}\u{21b}"),
    ("u", "\u{f9}\u{fa}\u{fb}\u{169}\u{16b}\u{16d}\u{16f}\u{173}\u{1b0}"),
    ("w", "\u{175}"),
    ("y", "\u{fd}\u{ff}\u{177}"),
    ("z", "\u{17a}\u{17c}\u{17e}"),
    ("a\u{308}", "\u{e4}"),
    ("o\u{308}", "\u{f6}\u{f8}\u{151}"),
    ("u\u{308}", "\u{fc}\u{171}"),
    ("ss", "\u{df}"),
    ("ae", "\u{e6}"),
    ("oe", "\u{153}"),
    ("th", "\u{fe}"),
    ("a", "\u{e5}"),
];

/// Names of the Greek letters that are written as words or signs: `\alpha particle`.
const GREEK: [&str; 25] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "omicron", "pi", "rho", "sigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
];

/// Commands that change the face or the place of what they are put around, and nothing else.
const FACES: [&str; 49] = [
    "text",
    "textrm",
    "textbf",
    "textit",
    "textsf",
    "texttt",
    "textsc",
    "textsl",
    "textup",
    "textmd",
    "textnormal",
    "mathrm",
    "mathbf",
    "mathit",
    "mathsf",
    "mathtt",
    "mathbb",
    "mathcal",
    "mathfrak",
    "mathscr",
    "mathnormal",
    "boldsymbol",
    "bm",
    "pmb",
    "mbox",
    "hbox",
    "emph",
    "underline",
    "uline",
    "operatorname",
    "boxed",
    "fbox",
    "framebox",
    "bf",
    "it",
    "rm",
    "tt",
    "sf",
    "sc",
    "bfseries",
    "itshape",
    "left",
    "right",
    "displaystyle",
    "textstyle",
    "large",
    "Large",
    "centering",
    "textcircled",
];

/// True for a command that only changes how its argument looks.
pub(in crate::reward) fn is_face(command: &str) -> bool {
    FACES.contains(&command)
}

/// A letter or digit in an unusual face as the usual one: bold, in a circle or in brackets, of full width.
pub(in crate::reward) fn usual(c: char) -> Option<char> {
    let (code, letter) = (c as u32, |first: u8, n: u32| char::from(first + (n % 26) as u8));
    Some(match code {
        0xff01..=0xff5e => char::from((code - 0xff01 + 0x21) as u8),
        // Blocks of capital and small letters, in thirteen faces.
        0x1d400..=0x1d6a3 => letter(if (code - 0x1d400) / 26 % 2 == 0 { b'A' } else { b'a' }, code - 0x1d400),
        0x24b6..=0x24cf => letter(b'A', code - 0x24b6),
        0x24d0..=0x24e9 => letter(b'a', code - 0x24d0),
        0x249c..=0x24b5 => letter(b'a', code - 0x249c),
        0x1f110..=0x1f129 => letter(b'A', code - 0x1f110),
        0x1f130..=0x1f149 => letter(b'A', code - 0x1f130),
        0x1f150..=0x1f169 => letter(b'A', code - 0x1f150),
        0x1f170..=0x1f189 => letter(b'A', code - 0x1f170),
        // Letters of those faces that stand elsewhere.
        0x2102 | 0x212d => 'C',
        0x210b..=0x210d => 'H',
        0x2110 | 0x2111 => 'I',
        0x2112 => 'L',
        0x2115 => 'N',
        0x2119 => 'P',
        0x211a => 'Q',
        0x211b..=0x211d => 'R',
        0x2124 | 0x2128 => 'Z',
        0x212c => 'B',
        0x2130 => 'E',
        0x2131 => 'F',
        0x2133 => 'M',
        0x1d7ce..=0x1d7ff => char::from(b'0' + ((code - 0x1d7ce) % 10) as u8),
        _ => return None,
    })
}

/// True for a character that shows nothing.
pub(in crate::reward) fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{20e3}')
}

/// The text without LaTeX's faces and spaces, its accents as marks behind their letters. A command that says
/// something keeps its backslash, so that it equals no word.
fn undressed(text: &str) -> String {
    if !text.contains('\\') {
        let kept = text.chars().filter(|c| !matches!(c, '{' | '}'));
        return kept.map(|c| if matches!(c, '~' | '$') { ' ' } else { c }).collect();
    }
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    let letters = |from: usize| chars[from..].iter().take_while(|c| c.is_ascii_alphabetic()).count();
    while let Some(&c) = chars.get(at) {
        at += 1;
        if c != '\\' {
            match c {
                '{' | '}' => {}
                '~' | '$' => out.push(' '),
                c => out.push(c),
            }
            continue;
        }
        let name: String = chars[at..at + letters(at)].iter().collect();
        if name.is_empty() {
            let Some(&sign) = chars.get(at) else { break };
            at += 1;
            // \"o, \'{e}
            let braced = usize::from(chars.get(at) == Some(&'{'));
            let accented = chars.get(at + braced).filter(|c| c.is_ascii_alphabetic());
            if let ('"' | '\'' | '`' | '^' | '=' | '.', Some(&letter)) = (sign, accented) {
                at += braced + 1;
                out.push(letter);
                if sign == '"' {
                    out.push(UMLAUT);
                }
            } else if "&%#_".contains(sign) {
                out.push(sign);
            } else {
                out.push(' ');
            }
            continue;
        }
        at += name.len();
        match name.as_str() {
            // \c{c}, \v{s}, \H{o}: what is marked follows.
            "c" | "v" | "u" | "H" | "r" | "k" if chars.get(at) == Some(&'{') => {}
            "o" | "O" => out.push('\u{f8}'),
            "ss" => out.push_str("ss"),
            "ae" | "AE" | "oe" | "OE" | "aa" | "AA" => out.push_str(&name),
            "l" | "L" | "i" | "j" => out.push_str(&name),
            "textquotesingle" | "textquoteright" => out.push('\''),
            "quad" | "qquad" | "space" | "newline" | "thinspace" | "enspace" | "nobreakspace" | "hfill" | "par" => {
                out.push(' ');
            }
            "lt" => out.push_str(" < "),
            "gt" => out.push_str(" > "),
            "le" | "leq" => out.push_str(" \u{2264} "),
            "ge" | "geq" => out.push_str(" \u{2265} "),
            "ne" | "neq" => out.push_str(" \u{2260} "),
            "to" | "rightarrow" | "longrightarrow" => out.push_str(" \u{2192} "),
            "percent" => out.push('%'),
            n if is_face(n) => {}
            n if GREEK.contains(&n) => out.push_str(&format!(" {n} ")),
            n => out.push_str(&format!(" \\{n} ")),
        }
        // The space behind a command belongs to it.
        if chars.get(at) == Some(&' ') && !out.ends_with(' ') && name.len() < 3 {
            at += 1;
        }
    }
    out
}

/// The text in plain letters of either case, one kind of apostrophe, hyphen and space.
pub(in crate::reward) fn plain(text: &str) -> String {
    let undressed = undressed(text);
    if undressed.is_ascii() {
        return undressed;
    }
    let mut out = String::with_capacity(undressed.len());
    for c in undressed.chars() {
        if c.is_ascii() {
            out.push(c);
            continue;
        }
        let lower = c.to_lowercase().next().unwrap_or(c);
        if let Some((letters, _)) = MARKED.iter().find(|(_, marked)| marked.contains(lower)) {
            if lower == c {
                out.push_str(letters);
            } else {
                out.push_str(&letters.to_ascii_uppercase());
            }
            continue;
        }
        match c {
            UMLAUT if out.ends_with(['a', 'o', 'u', 'A', 'O', 'U']) => out.push(c),
            '\u{300}'..='\u{36f}' => {}
            c if is_unseen(c) => {}
            '\u{2018}' | '\u{2019}' | '\u{201b}' | '\u{2bc}' | '\u{2bb}' | '\u{2b9}' | '\u{2032}' | '\u{b4}'
            | '\u{ff07}' => out.push('\''),
            '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' => out.push('-'),
            '\u{27f6}' | '\u{21d2}' | '\u{27f9}' | '\u{21a6}' | '\u{279c}' | '\u{2794}' | '\u{279d}' | '\u{279e}'
            | '\u{27a1}' => out.push('\u{2192}'),
            c if python::is_space(c) => out.push(' '),
            c => match usual(c) {
                Some(c) => out.push(c),
                None => match (lower as usize).checked_sub(0x3b1).and_then(|n| GREEK.get(n)) {
                    Some(name) => out.push_str(&format!(" {name} ")),
                    None => out.push(c),
                },
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn letters_lose_their_faces_and_marks() {
        for (text, want) in [
            ("Poincar\u{e9}", "Poincare"),
            ("Poincar\\'e", "Poincare"),
            ("Erd\\H{o}s", "Erdos"),
            ("\\text{r\\^ole}", "role"),
            ("\u{1d402}\u{24b8}\u{ff23}", "CCC"),
            ("Newton\u{2019}s", "Newton's"),
            ("na\u{ef}ve", "naive"),
            ("Schr\\\"odinger", "Schro\u{308}dinger"),
            ("Schr\u{f6}dinger", "Schro\u{308}dinger"),
            ("x\u{200b}-ray", "x-ray"),
        ] {
            assert_eq!(plain(text), want, "{text:?}");
        }
    }
}
