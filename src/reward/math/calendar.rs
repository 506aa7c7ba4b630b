//! Days in words and digits.

use super::expr::integer;
use super::parse::Value;
use super::{clock, notation, number_words};

/// Names of the months, without accents: English, then those of other languages.
const MONTHS: [&[&str]; 12] = [
    &[
        "january",
        "januar",
        "janvier",
        "enero",
        "gennaio",
        "janeiro",
        "januari",
        "\u{44f}\u{43d}\u{432}\u{430}\u{440}\u{44f}",
    ],
    &[
        "february",
        "februar",
        "fevrier",
        "febrero",
        "febbraio",
        "fevereiro",
        "februari",
        "\u{444}\u{435}\u{432}\u{440}\u{430}\u{43b}\u{44f}",
    ],
    &["march", "marz", "mars", "marzo", "marco", "maart", "\u{43c}\u{430}\u{440}\u{442}\u{430}"],
    &["april", "avril", "abril", "aprile", "\u{430}\u{43f}\u{440}\u{435}\u{43b}\u{44f}"],
    &["may", "mai", "mayo", "maggio", "maio", "mei", "\u{43c}\u{430}\u{44f}"],
    &["june", "juni", "juin", "junio", "giugno", "junho", "\u{438}\u{44e}\u{43d}\u{44f}"],
    &["july", "juli", "juillet", "julio", "luglio", "julho", "\u{438}\u{44e}\u{43b}\u{44f}"],
    &["august", "aout", "agosto", "augustus", "\u{430}\u{432}\u{433}\u{443}\u{441}\u{442}\u{430}"],
    &[
        "september",
        "septembre",
        "septiembre",
        "settembre",
        "setembro",
        "\u{441}\u{435}\u{43d}\u{442}\u{44f}\u{431}\u{440}\u{44f}",
    ],
    &[
        "october",
        "oktober",
        "octobre",
        "octubre",
        "ottobre",
        "outubro",
        "\u{43e}\u{43a}\u{442}\u{44f}\u{431}\u{440}\u{44f}",
    ],
    &["november", "novembre", "noviembre", "novembro", "\u{43d}\u{43e}\u{44f}\u{431}\u{440}\u{44f}"],
    &[
        "december",
        "dezember",
        "decembre",
        "diciembre",
        "dicembre",
        "dezembro",
        "\u{434}\u{435}\u{43a}\u{430}\u{431}\u{440}\u{44f}",
    ],
];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// A month by its name or its first letters.
fn month(word: &str) -> Option<u8> {
    let short = |name: &str| word.is_ascii() && word.len() >= 3 && word.len() <= 4 && name.starts_with(word);
    let found = MONTHS.iter().position(|names| names.contains(&word) || short(names[0]));
    found.map(|n| n as u8 + 1)
}

/// A day or a time of day; `None` for anything else.
pub(super) fn read(text: &str) -> Option<Value> {
    if text.len() > 60 {
        return None;
    }
    let plain = notation::upright(text).replace(['{', '}'], "");
    if plain.contains(['^', '_', '=', '+']) || (text.contains('\\') && !text.contains("\\text")) {
        return None;
    }
    let lower = super::unit::folded(&plain.replace('-', "\u{1}").replace('.', "\u{2}"));
    let lower = lower.replace('\u{1}', "-").replace('\u{2}', ".");
    let lower = lower.trim();
    clock::read(lower).or_else(|| iso(lower)).or_else(|| chinese(lower)).or_else(|| era(lower)).or_else(|| date(lower))
}

/// `500 BC`, `AD 79`.
fn era(text: &str) -> Option<Value> {
    let plain = text.replace('.', "");
    let (year, side) =
        [("bce", "before"), ("bc", "before"), ("ce", "after"), ("ad", "after")].iter().find_map(|(mark, side)| {
            let year = plain.strip_suffix(mark).or_else(|| plain.strip_prefix(mark))?.trim();
            Some((year.parse::<i64>().ok().filter(|y| *y > 0 && *y < 100_000)?, *side))
        })?;
    Some(Value::Sided(side, Box::new(Value::Scalar(integer(year), None))))
}

/// Year, month and day with their signs.
fn chinese(text: &str) -> Option<Value> {
    let (year, rest) = match text.split_once('\u{5e74}') {
        Some((year, rest)) => (Some(year.trim().parse().ok()?), rest),
        None => (None, text),
    };
    let (month, rest) = rest.split_once('\u{6708}')?;
    let day = rest.trim().trim_end_matches(['\u{65e5}', '\u{53f7}', '\u{865f}']).trim();
    let month = month.trim().parse().ok().filter(|m| (1..=12).contains(m))?;
    if day.is_empty() {
        return year.map(|y| Value::Date(Some(y), month, None));
    }
    Some(Value::Date(year, month, Some(day.parse().ok().filter(|d| (1..=31).contains(d))?)))
}

/// What a date in digits may say: `3/5/2024` is in March or in May, `2024-03` a month.
pub(super) fn numeric(text: &str) -> Vec<Value> {
    let parts: Vec<&str> = text.trim().split(['/', '.', '-']).map(str::trim).collect();
    let digits = parts.iter().all(|p| !p.is_empty() && p.len() <= 4 && p.bytes().all(|b| b.is_ascii_digit()));
    let numbers: Vec<i32> = parts.iter().filter_map(|p| p.parse().ok()).collect();
    if !digits {
        return Vec::new();
    }
    let day = |y: i32, m: i32, d: i32| {
        ((1..=12).contains(&m) && (1..=31).contains(&d)).then_some(Value::Date(Some(y), m as u8, Some(d as u8)))
    };
    let candidates = match numbers.as_slice() {
        [y, m, d] if parts[0].len() == 4 => vec![day(*y, *m, *d)],
        [a, b, y] if parts[2].len() == 4 => vec![day(*y, *a, *b), day(*y, *b, *a)],
        // The year of two digits is one of this age.
        [a, b, y] if parts[2].len() == 2 => {
            let y = if *y < 50 { 2_000 + y } else { 1_900 + y };
            vec![day(y, *a, *b), day(y, *b, *a)]
        }
        [y, m] if parts[0].len() == 4 && (1..=12).contains(m) => vec![Some(Value::Date(Some(*y), *m as u8, None))],
        [m, y] if parts[1].len() == 4 && (1..=12).contains(m) => vec![Some(Value::Date(Some(*y), *m as u8, None))],
        [a, b] => {
            let day = |m: i32, d: i32| {
                ((1..=12).contains(&m) && (1..=31).contains(&d)).then_some(Value::Date(None, m as u8, Some(d as u8)))
            };
            vec![day(*a, *b), day(*b, *a)]
        }
        _ => Vec::new(),
    };
    let mut days: Vec<Value> = candidates.into_iter().flatten().collect();
    days.dedup();
    days
}

/// `2021-03-05`.
fn iso(text: &str) -> Option<Value> {
    let parts: Vec<&str> = text.split(['-', '/']).collect();
    let [y, m, d] = parts.as_slice() else { return None };
    if (y.len(), m.len(), d.len()) != (4, 2, 2) {
        return None;
    }
    let (y, m, d) = (y.parse().ok()?, m.parse().ok()?, d.parse().ok()?);
    ((1..=12).contains(&m) && (1..=31).contains(&d)).then_some(Value::Date(Some(y), m, Some(d)))
}

/// `March 5, 2021`, `5th of March`, `Mar 2021`.
fn date(text: &str) -> Option<Value> {
    let (mut year, mut found, mut day) = (None, None, None);
    let words = text.split([' ', ',', '.', '-']).filter(|w| !w.is_empty());
    for word in words {
        let ordinal = ["st", "nd", "rd", "th"].iter().find_map(|end| word.strip_suffix(end));
        let digits = ordinal.unwrap_or(word);
        let filler = matches!(word, "the" | "of" | "on" | "in" | "de" | "del" | "den" | "der" | "le" | "year");
        if filler || WEEKDAYS.contains(&word) {
            continue;
        } else if let (Some(m), None) = (month(word), found) {
            found = Some(m);
        } else if let Some(n) = number_words::ordinal(word).filter(|_| day.is_none()) {
            day = Some(n as u8);
        } else if let Ok(n) = digits.parse::<i32>() {
            if n > 31 && ordinal.is_none() && digits.len() == 4 && year.is_none() {
                year = Some(n);
            } else if (1..=31).contains(&n) && day.is_none() {
                day = Some(n as u8);
            } else {
                return None;
            }
        } else {
            return None;
        }
    }
    let month = found?;
    // A month alone is a word.
    (day.is_some() || year.is_some()).then_some(Value::Date(year, month, day))
}
