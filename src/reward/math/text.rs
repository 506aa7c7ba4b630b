//! Answers in words.

/// Phrases that say the same, under their first.
const SAME: [&[&str]; 30] = [
    &["does not exist", "dne", "d n e", "doesnt exist", "do not exist", "not exist"],
    &[
        "no solution",
        "no solutions",
        "no real solution",
        "no real solutions",
        "has no solution",
        "there is no solution",
        "there are no solutions",
        "no such solution",
        "empty set",
        "no real roots",
        "no real number",
    ],
    &["undefined", "not defined", "is undefined"],
    &[
        "infinitely many",
        "infinitely many solutions",
        "infinite solutions",
        "infinite number of solutions",
        "infinite number",
    ],
    &["all real numbers", "all reals", "every real number", "any real number", "set of all real numbers", "r"],
    &["true", "t"],
    &["false", "f"],
    &[
        "cannot be determined",
        "can not be determined",
        "not enough information",
        "insufficient information",
        "cannot determine",
    ],
    &["impossible", "not possible"],
    &["none of the above", "none of these"],
    &["diverges", "divergent", "diverge"],
    &["converges", "convergent", "converge"],
    &["monday", "mon"],
    &["tuesday", "tue", "tues"],
    &["wednesday", "wed"],
    &["thursday", "thu", "thur", "thurs"],
    &["friday", "fri"],
    &["saturday", "sat"],
    &["sunday", "sun"],
    &["january", "jan"],
    &["february", "feb"],
    &["march", "mar"],
    &["april", "apr"],
    &["june", "jun"],
    &["july", "jul"],
    &["august", "aug"],
    &["september", "sep", "sept"],
    &["october", "oct"],
    &["november", "nov"],
    &["december", "dec"],
];

/// `1st`, `2nd`, `11th`.
fn place(n: i64) -> String {
    let end = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{end}")
}

/// Words without case, articles, quotes, punctuation and space; phrases that say the same are one.
pub fn words(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() || "+-*/=<>.%&".contains(c) {
            clean.extend(c.to_lowercase());
        } else if c != '\'' && c != '\u{2019}' {
            clean.push(' ');
        }
    }
    // A hyphen joins words, a point ends them; both stay in numbers.
    let chars: Vec<char> = clean.chars().collect();
    let near = |i: usize, d: isize| chars.get(i.wrapping_add_signed(d)).copied().unwrap_or(' ');
    let joined: String = chars
        .iter()
        .enumerate()
        .map(|(i, &c)| match c {
            '-' if near(i, -1).is_alphabetic() && near(i, 1).is_alphabetic() => ' ',
            '.' if !near(i, 1).is_ascii_digit() => ' ',
            c => c,
        })
        .collect();
    let mut kept: Vec<&str> = joined.split_whitespace().collect();
    while kept.len() > 1 && matches!(kept[0], "the" | "a" | "an") {
        kept.remove(0);
    }
    if let ["to", "the", "left" | "right"] = kept.as_slice() {
        kept.drain(..2);
    }
    // "1st place" and "first place".
    let places: Vec<Option<String>> = kept.iter().map(|w| super::number_words::ordinal(w).map(place)).collect();
    let kept: Vec<&str> = kept.iter().zip(&places).map(|(w, p)| p.as_deref().unwrap_or(w)).collect();
    let phrase = kept.join(" ");
    match SAME.iter().find(|group| group.contains(&phrase.as_str())) {
        Some(group) => group[0].to_owned(),
        None => phrase,
    }
}

/// The number that capital Roman numerals write the common way; nothing for those that may be letters, such as `CD`.
pub fn roman(text: &str) -> Option<u32> {
    const SIGNS: [(&str, u32); 13] = [
        ("M", 1000),
        ("CM", 900),
        ("D", 500),
        ("CD", 400),
        ("C", 100),
        ("XC", 90),
        ("L", 50),
        ("XL", 40),
        ("X", 10),
        ("IX", 9),
        ("V", 5),
        ("IV", 4),
        ("I", 1),
    ];
    let known = text.len() > 1 && text.len() < 16 && text.chars().all(|c| "IVXLCDM".contains(c));
    if !known || !text.contains(['I', 'V', 'X']) {
        return None;
    }
    let (mut rest, mut value, mut canonical) = (text, 0, String::new());
    for (sign, n) in SIGNS {
        while let Some(behind) = rest.strip_prefix(sign) {
            (rest, value) = (behind, value + n);
            canonical.push_str(sign);
        }
    }
    // No sign more than three times, none of fives twice, and the larger ones first.
    let repeated = ["IIII", "XXXX", "CCCC", "VV", "LL", "DD", "IVI", "IXI", "XLX", "XCX", "CDC", "CMC", "IXV", "IVIV"];
    (rest.is_empty() && !repeated.iter().any(|r| canonical.contains(r))).then_some(value)
}

/// Letters, digits and charges of a chemical formula, however its faces and indices are written: `\\ce{H2O}`,
/// `\\text{H}_2\\text{O}` and `H₂O` alike; `None` for anything else.
pub fn formula(text: &str) -> Option<String> {
    let mut plain = super::notation::ascii(text);
    for face in ["\\mathrm", "\\text", "\\ce", "\\rm", "\\,", "\\left", "\\right"] {
        plain = plain.replace(face, "");
    }
    let known = |c: char| c.is_ascii_alphanumeric() || "_^{} ()+-".contains(c);
    let upper = plain.chars().any(|c| c.is_ascii_uppercase());
    let dense = plain.replace(['_', '{', '}', ' '], "");
    // Elements begin with a capital letter; a power of digits is no charge.
    let letters =
        dense.chars().zip(dense.chars().skip(1)).all(|(a, b)| !b.is_ascii_lowercase() || a.is_ascii_uppercase());
    let power =
        dense.split('^').skip(1).any(|t| !t.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['+', '-']));
    let first = dense.starts_with(|c: char| c.is_ascii_uppercase() || c == '(' || c.is_ascii_digit());
    (plain.chars().all(known) && upper && letters && !power && first).then_some(dense)
}
