//! Roman numerals and chemical formulas.

use crate::reward::words::tables::all_as;

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
/// `\\text{H}_2\\text{O}` and with a low digit of its own alike; `None` for anything else.
pub fn formula(text: &str) -> Option<String> {
    const FACES: [&str; 7] = ["\\mathrm", "\\text", "\\ce", "\\rm", "\\,", "\\left", "\\right"];
    let plain = all_as(super::notation::ascii(text), &FACES, "");
    let known = |c: char| c.is_ascii_alphanumeric() || "_^{} ()+-".contains(c);
    let upper = plain.chars().any(|c| c.is_ascii_uppercase());
    let dense = all_as(&*plain, &["_", "{", "}", " "], "");
    // Elements begin with a capital letter; a power of digits is no charge.
    let letters =
        dense.chars().zip(dense.chars().skip(1)).all(|(a, b)| !b.is_ascii_lowercase() || a.is_ascii_uppercase());
    let power =
        dense.split('^').skip(1).any(|t| !t.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['+', '-']));
    let first = dense.starts_with(|c: char| c.is_ascii_uppercase() || c == '(' || c.is_ascii_digit());
    (plain.chars().all(known) && upper && letters && !power && first).then(|| dense.into_owned())
}
