//! Answers in words.

/// Phrases that say the same, under their first.
const SAME: [&[&str]; 12] = [
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
];

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
    let phrase = kept.join(" ");
    match SAME.iter().find(|group| group.contains(&phrase.as_str())) {
        Some(group) => group[0].to_owned(),
        None => phrase,
    }
}
