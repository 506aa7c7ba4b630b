//! Times of day and durations: `6 pm`, `quarter to five`, `15h45`, `1545 hours`, `PT1H30M`.

use super::expr::{Expr, integer, number};
use super::parse::Value;
use super::unit::{self, Unit};
use super::{Rational, number_words};

/// Which half of the day is said.
#[derive(Clone, Copy, PartialEq)]
enum Half {
    Morning,
    Afternoon,
    /// In the evening until midnight, in the morning after it.
    Night,
    /// All 24 hours are counted.
    Whole,
    Unsaid,
}

/// Words behind a time, and the half of the day they mean.
const HALVES: [(&str, Half); 21] = [
    ("o'clock in the morning", Half::Morning),
    ("o'clock in the afternoon", Half::Afternoon),
    ("o'clock in the evening", Half::Afternoon),
    ("o'clock at night", Half::Night),
    ("in the morning", Half::Morning),
    ("in the afternoon", Half::Afternoon),
    ("in the evening", Half::Afternoon),
    ("at night", Half::Night),
    ("o'clock am", Half::Morning),
    ("o'clock pm", Half::Afternoon),
    ("o'clock", Half::Unsaid),
    ("o clock", Half::Unsaid),
    ("am", Half::Morning),
    ("pm", Half::Afternoon),
    ("noon", Half::Afternoon),
    ("midnight", Half::Morning),
    ("uhr", Half::Whole),
    ("hours", Half::Whole),
    ("hrs", Half::Whole),
    ("h", Half::Whole),
    ("", Half::Unsaid),
];

/// A time of day or a duration of the standard; `None` for anything else. The text is in lower case.
pub(super) fn read(text: &str) -> Option<Value> {
    let text = text.trim().trim_end_matches(" sharp");
    match text.trim_start_matches("12 ").trim_start_matches("12:00 ").trim_start_matches("at ") {
        "noon" | "midday" => return Some(Value::Time(720)),
        "midnight" => return Some(Value::Time(0)),
        _ => {}
    }
    if let Some(seconds) = duration(text) {
        let second = unit::named("s");
        return Some(Value::Scalar(number(seconds), second));
    }
    let plain = text
        .replace("a.m.", "am")
        .replace("p.m.", "pm")
        .replace("a.m", "am")
        .replace("p.m", "pm")
        .replace('\u{2019}', "'");
    let (core, half, marked) = HALVES.iter().find_map(|(end, half)| {
        let core = plain.strip_suffix(end)?;
        // The words stand apart from words.
        let apart = core.ends_with(|c: char| !c.is_alphabetic()) || end.is_empty();
        apart.then_some((core.trim(), *half, *end))
    })?;
    let (hour, minute) =
        said(core, !marked.is_empty()).or_else(|| shown(core, half, marked)).or_else(|| counted(core, marked))?;
    time(hour, minute, half)
}

fn time(hour: u32, minute: u32, half: Half) -> Option<Value> {
    if minute >= 60 || hour > 24 {
        return None;
    }
    let late = match half {
        Half::Morning => false,
        Half::Afternoon => true,
        Half::Night => (6..12).contains(&hour),
        Half::Whole if hour >= 13 || hour == 0 => return Some(Value::Time(hour % 24 * 60 + minute)),
        Half::Whole | Half::Unsaid => {
            return Some(Value::Ratio(vec![integer(i64::from(hour)), integer(i64::from(minute))]));
        }
    };
    // 15:30 pm is the same as 15:30.
    let shift = if late && hour < 12 { 12 } else { 0 };
    ((1..=23).contains(&hour)).then(|| Value::Time((if hour == 12 && !late { 0 } else { hour + shift }) * 60 + minute))
}

/// `half past 3`, `quarter to five`, `ten past six`.
fn said(text: &str, marked: bool) -> Option<(u32, u32)> {
    let text = text.trim_end_matches(" o'clock");
    let (part, hour, before) = match (text.split_once(" past ").or(text.split_once(" after ")), text.split_once(" to "))
    {
        (Some((part, hour)), None) => (part, hour, false),
        (None, Some((part, hour))) => (part, hour, true),
        _ => return None,
    };
    let minutes = match part.trim_start_matches("a ") {
        "half" if !before => 30,
        "quarter" => 15,
        // Ratios are said so, too: three to five.
        other if before && !marked => whole(other.strip_suffix(" minutes")?)?,
        other => whole(other.trim_end_matches(" minutes")).filter(|m| *m < 60)?,
    };
    let hour = match hour {
        "noon" | "midnight" => 12,
        hour => whole(hour).filter(|h| (1..=12).contains(h))?,
    };
    let minutes = if before { 60 * (hour + 11) + 60u32.checked_sub(minutes)? } else { 60 * hour + minutes } % 720;
    let hour = if minutes < 60 { 12 } else { minutes / 60 };
    Some((hour, minutes % 60))
}

/// `15h45`, `3:45` and `6` with a word behind, `1545 hours`.
fn shown(text: &str, half: Half, marked: &str) -> Option<(u32, u32)> {
    let digits = |t: &str| {
        (!t.is_empty() && t.len() <= 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u32>().ok())?
    };
    if let Some((hour, minute)) = text.split_once('h').filter(|_| half == Half::Unsaid) {
        return Some((digits(hour.trim())?, digits(minute.trim()).filter(|_| minute.trim().len() == 2)?));
    }
    // By themselves 3:45 and 6 are read as mathematics.
    if marked.is_empty() {
        return None;
    }
    // 2.15 h is a duration.
    let point = if matches!(marked, "h" | "hours" | "hrs") { ':' } else { '.' };
    if let Some((hour, rest)) = text.split_once([':', point]) {
        let minute = rest.split_once(':').map_or(rest, |(m, s)| if s == "00" { m } else { rest });
        return Some((digits(hour)?, digits(minute).filter(|_| minute.len() == 2)?));
    }
    if half == Half::Whole && marked != "uhr" {
        // Four digits of a clock; 6 hours are a duration.
        let clock = text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
        return clock.then(|| Some((text[..2].parse().ok()?, text[2..].parse().ok()?)))?;
    }
    Some((digits(text)?, 0))
}

/// `nine`, `seven thirty`, with a word behind that makes it a time.
fn counted(text: &str, marked: &str) -> Option<(u32, u32)> {
    if matches!(marked, "" | "h" | "hours" | "hrs") {
        return None;
    }
    if let Some(hour) = whole(text) {
        return (1..=12).contains(&hour).then_some((hour, 0));
    }
    let (hour, minute) = text.split_once(' ')?;
    let minute = minute.trim_start_matches("oh ");
    Some((whole(hour).filter(|h| (1..=12).contains(h))?, whole(minute)?))
}

/// A whole number in digits or words.
fn whole(text: &str) -> Option<u32> {
    let words: Vec<&str> = text.split([' ', '-']).collect();
    let read = number_words::read(&words).filter(|r| r.1 == words.len() && r.0.is_integer());
    text.parse().ok().or_else(|| u32::try_from(read?.0.numer()).ok())
}

/// A duration of ISO 8601 in seconds, without years and months.
fn duration(text: &str) -> Option<Rational> {
    let (days, clock) = text.strip_prefix('p')?.split_once('t').unwrap_or((text.strip_prefix('p')?, ""));
    let (mut seconds, mut any) = (Rational::from_integer(0.into()), false);
    for (mut rest, units) in
        [(days, &[('w', 604_800), ('d', 86_400)][..]), (clock, &[('h', 3_600), ('m', 60), ('s', 1)])]
    {
        for (letter, size) in units {
            if let Some((amount, behind)) = rest.split_once(*letter) {
                let Expr::Num { value, .. } = super::numeral::number(amount)? else { return None };
                seconds += value * Rational::from_integer((*size).into());
                (rest, any) = (behind, true);
            }
        }
        if !rest.is_empty() {
            return None;
        }
    }
    any.then_some(seconds)
}

/// What `a:b` and `a:b:c` may say as a duration, in seconds.
pub(super) fn durations(parts: &[Expr]) -> Vec<Expr> {
    let times = |e: &Expr, n: i64| Expr::Mul(vec![e.clone(), integer(n)]);
    match parts {
        [a, b] => vec![Expr::Add(vec![times(a, 3_600), times(b, 60)]), Expr::Add(vec![times(a, 60), b.clone()])],
        [a, b, c] => vec![Expr::Add(vec![times(a, 3_600), times(b, 60), c.clone()])],
        _ => Vec::new(),
    }
}

/// True for the unit of time.
pub(super) fn is_time(unit: &Unit) -> bool {
    match (unit, unit::named("s")) {
        (Unit::Measure(m), Some(Unit::Measure(second))) => {
            m.first().dimension == second.first().dimension && m.first().things.is_empty()
        }
        _ => false,
    }
}
