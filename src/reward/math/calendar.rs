//! Days and times of day in words.

use super::expr::integer;
use super::number_words;
use super::parse::Value;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// A month by its name or its first letters.
fn month(word: &str) -> Option<u8> {
    let found = MONTHS.iter().position(|m| *m == word || (word.len() >= 3 && word.len() <= 4 && m.starts_with(word)));
    found.map(|n| n as u8 + 1)
}

/// A day or a time of day; `None` for anything else.
pub(super) fn read(text: &str) -> Option<Value> {
    if text.len() > 60 || text.contains('\\') {
        return None;
    }
    let lower = text.trim().to_lowercase();
    time(&lower).or_else(|| iso(&lower)).or_else(|| date(&lower))
}

/// `noon`, `6 pm`, `12 midnight`.
fn time(text: &str) -> Option<Value> {
    match text.trim_start_matches("12 ") {
        "noon" | "midday" => return Some(Value::Time(720)),
        "midnight" => return Some(Value::Time(0)),
        _ => {}
    }
    if let Some(clock) = said(text) {
        return Some(clock);
    }
    let plain = text.replace('.', "");
    let (hours, half) =
        [("am", 0), ("pm", 12)].iter().find_map(|(end, half)| Some((plain.strip_suffix(end)?, half)))?;
    let hour: u32 = hours.trim().parse().ok().filter(|h| (1..=12).contains(h))?;
    Some(Value::Time((hour % 12 + half) * 60))
}

/// `half past 3`, `quarter to five`, `ten past six`.
fn said(text: &str) -> Option<Value> {
    let (part, hour, before) = match (text.split_once(" past "), text.split_once(" to ")) {
        (Some((part, hour)), None) => (part, hour, false),
        (None, Some((part, hour))) => (part, hour, true),
        _ => return None,
    };
    let number = |t: &str| {
        let words: Vec<&str> = t.split([' ', '-']).collect();
        let read = number_words::read(&words).filter(|r| r.1 == words.len() && r.0.is_integer());
        t.parse().ok().or_else(|| u32::try_from(read?.0.numer()).ok())
    };
    let minutes = match part.trim_start_matches("a ") {
        "half" if !before => 30,
        "quarter" => 15,
        // Ratios are said so, too: three to five.
        _ if before => return None,
        other => number(other.trim_end_matches(" minutes")).filter(|m| *m < 60)?,
    };
    let hour = number(hour.trim_end_matches(" o'clock")).filter(|h| (1..=12).contains(h))?;
    let minutes = if before { 60 * (hour + 11) + 60 - minutes } else { 60 * hour + minutes } % 720;
    Some(Value::Ratio(vec![integer(i64::from(minutes / 60)), integer(i64::from(minutes % 60))]))
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
        if matches!(word, "the" | "of" | "on" | "in") || WEEKDAYS.contains(&word) {
            continue;
        } else if let (Some(m), None) = (month(word), found) {
            found = Some(m);
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
