//! Parts of years and spans of months and days: `Q3 2020`, "the third quarter of 2020", `1H20`, `FY2019`, `Jan-Mar`.

use super::super::math::number_words;
use super::super::words;
use super::super::words::tables::all_as;
use super::tails;

/// A part of a year.
#[derive(PartialEq, Debug)]
struct Period {
    quarter: Option<u32>,
    half: Option<u32>,
    month: Option<usize>,
    fiscal: bool,
    year: Option<u32>,
}

/// Months and days of the week.
const NAMES: [&str; 19] = [
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
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

/// Runs of letters and of digits.
fn runs(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut last = None;
    for c in text.chars() {
        let kind = if c.is_ascii_digit() { Some(true) } else { c.is_alphabetic().then_some(false) };
        if kind.is_some() {
            match out.last_mut() {
                Some(run) if kind == last => run.push(c),
                _ => out.push(c.to_string()),
            }
        }
        last = kind;
    }
    out
}

fn period(text: &str) -> Option<Period> {
    let said = |c: char| c.is_alphanumeric() || matches!(c, ' ' | ',' | '\'' | '\u{2019}' | '-' | '(' | ')');
    if text.len() > 60 || !text.chars().all(said) {
        return None;
    }
    let (mut number, mut kind, mut fiscal, mut year, mut letter) = (None, None, false, None, false);
    let (mut month, mut short) = (None, false);
    for run in runs(text) {
        match run.as_str() {
            "q" | "quarter" | "qtr" if kind.is_none() => kind = Some(4),
            "h" | "half" if kind.is_none() => (kind, letter) = (Some(2), run == "h"),
            "fy" | "fiscal" | "financial" => fiscal = true,
            "the" | "of" | "in" | "year" | "calendar" | "st" | "nd" | "rd" | "th" => {}
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                let n: u32 = digits.parse().ok()?;
                let place = match digits.len() {
                    1 => &mut number,
                    2 | 4 => &mut year,
                    _ => return None,
                };
                short |= digits.len() == 2;
                let n = if digits.len() == 2 { 2_000 + n } else { n };
                place.replace(n).is_none().then_some(())?;
            }
            word if month.is_none() && named(word).is_some_and(|n| n < 12) => month = named(word),
            word => number.replace(u32::try_from(number_words::ordinal(word)?).ok()?).is_none().then_some(())?,
        }
    }
    // H2 is hydrogen.
    let sound = match (kind, number) {
        (Some(most), Some(n)) => (1..=most).contains(&n) && !(letter && year.is_none()),
        // June 19 is a day, June '19 a month.
        (None, None) if month.is_some() => year.is_some() && (!short || text.contains(['\'', '\u{2019}'])),
        (None, None) => fiscal && year.is_some(),
        _ => false,
    };
    sound.then(|| Period {
        quarter: number.filter(|_| kind == Some(4)),
        half: number.filter(|_| kind == Some(2)),
        month,
        fiscal,
        year,
    })
}

fn named(text: &str) -> Option<usize> {
    let key = words::key(text.trim());
    NAMES.iter().position(|n| *n == key)
}

/// A span of months or of days of the week by its ends.
fn span(text: &str) -> Option<[usize; 2]> {
    let text = text.strip_prefix("from ").or(text.strip_prefix("between ")).unwrap_or(text);
    let joints = [" to ", " through ", " until ", " till ", " and ", "-"];
    let (a, b) = joints.iter().find_map(|j| text.split_once(j))?;
    Some([named(a)?, named(b)?])
}

pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    let formula = |t: &str| t.contains(['^', '=', '+', '|']) || !t.contains(char::is_alphabetic);
    if formula(gold) || formula(answer) {
        return None;
    }
    let plain = |t: &str| {
        let t = all_as(t, &["\u{2010}", "\u{2011}", "\u{2012}", "\u{2013}", "\u{2014}"], "-").to_lowercase();
        super::heading::upright(&t).trim_matches(['.', '$', ' ']).to_owned()
    };
    let (gold, answer) = (plain(gold), plain(answer));
    let read = |t: &str| tails(t, &[" in ", " is ", " during ", " was "]).find_map(period);
    if let Some(a) = read(&gold)
        && let Some(b) = read(&answer)
    {
        return (a.year.is_some() == b.year.is_some()).then_some(a == b);
    }
    // "January and March" are no span.
    let listed = |t: &str| t.contains(" and ") && !t.contains("between ");
    let read = |t: &str| if listed(t) { None } else { tails(t, &[" from ", " between "]).find_map(span) };
    Some(read(&gold)? == read(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn parts_of_years() {
        for (a, b, want) in [
            ("Q3 2020", "the third quarter of 2020", Some(true)),
            ("Q3 2020", "3Q20", Some(true)),
            ("H1 2019", "first half of 2019", Some(true)),
            ("FY2019", "fiscal year 2019", Some(true)),
            ("Q3 2020", "the minimum is in the second quarter of 2020", Some(false)),
            ("Jan-Mar", "January to March", Some(true)),
            ("Jan-Mar", "January and March", None),
            ("Jun '19", "June 2019", Some(true)),
            ("March 10", "March 2010", None),
            ("H2", "2H", None),
        ] {
            assert_eq!(same(a, b), want, "{a} {b}");
        }
    }
}
