//! Pitches and keys: `C\u{266f}`, "C sharp", `Bb major`, "B-flat major", `F#4`.

use crate::reward::words::tables::{is_wordless, replaced};

/// The letter, its half steps, and what stands behind it: an octave, a mode.
fn read(text: &str) -> Option<(char, i32, String)> {
    if text.len() >= 40 || is_wordless(text) {
        return None;
    }
    const SIGNS: [(&str, &str); 14] = [
        ("\\sharp", " sharp "),
        ("\\flat", " flat "),
        ("\u{266f}", " sharp "),
        ("\u{266d}", " flat "),
        ("\u{266e}", " natural "),
        ("\\#", " sharp "),
        ("#", " sharp "),
        ("-", " "),
        ("$", ""),
        ("{", ""),
        ("}", ""),
        ("^", ""),
        ("_", ""),
        ("\\text", ""),
    ];
    let text = replaced(text.trim().trim_end_matches('.'), &SIGNS);
    let text = ["the key of ", "key of ", "the note ", "The key of ", "The note "]
        .iter()
        .find_map(|f| text.strip_prefix(f))
        .unwrap_or(&text);
    let mut words = text.split_whitespace();
    let first = words.next()?;
    let letter = first.chars().next().filter(|c| ('A'..='G').contains(c))?;
    let mut shift = match &first[1..] {
        "" => 0,
        // In small letters behind a capital the flat sign is a b.
        "b" => -1,
        "bb" => -2,
        _ => return None,
    };
    let mut rest = Vec::new();
    for word in words {
        match word.to_lowercase().as_str() {
            "sharp" if rest.is_empty() => shift += 1,
            "flat" if rest.is_empty() => shift -= 1,
            "natural" if rest.is_empty() => {}
            "double" | "note" | "key" => return None,
            mode @ ("major" | "minor") => rest.push(mode.to_owned()),
            octave if octave.len() == 1 && octave.bytes().all(|b| b.is_ascii_digit()) => rest.push(octave.to_owned()),
            _ => return None,
        }
    }
    (rest.len() < 2).then(|| (letter, shift, rest.concat()))
}

/// Whether both are one pitch or key: both with their modes, or one that says sharp or flat in a word or by its sign.
pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    let told = |t: &str| ["sharp", "flat", "\u{266f}", "\u{266d}", "#"].iter().any(|s| t.contains(s));
    let moded = |t: &str| t.ends_with("or") || t.ends_with("OR");
    (told(gold) || told(answer) || (moded(gold) && moded(answer))).then_some(())?;
    let (a, b) = (read(gold)?, read(answer)?);
    let mode = |p: &(char, i32, String)| p.2.starts_with('m');
    (told(gold) || told(answer) || (mode(&a) && mode(&b))).then_some(a == b)
}
