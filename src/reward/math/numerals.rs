//! Roman and Chinese numerals, days and centuries in other languages, as digits and English.

use super::restate::{shown, whole};
use super::{Rational, foreign, number_words, text, unit};

/// Roman numerals behind a name, and ordinals in words: Louis XVI and Louis the Sixteenth as `Louis 16`.
pub(super) fn roman(text: &str) -> Option<String> {
    const SIGNS: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];
    let single = |t: &str| {
        let mut chars = t.chars();
        let c = chars.next().filter(|_| chars.as_str().is_empty())? as u32;
        let at = c.checked_sub(0x2160).filter(|n| *n < 12).or_else(|| c.checked_sub(0x2170).filter(|n| *n < 12))?;
        SIGNS.get(at as usize).map(|_| at + 1)
    };
    if let Some(n) = single(text.trim()) {
        return Some(n.to_string());
    }
    let words: Vec<&str> = text.split(' ').collect();
    let (last, head) = words.split_last()?;
    let value = |t: &str| {
        let upper = t.to_uppercase();
        text::roman(&upper).or_else(|| SIGNS.iter().position(|s| *s == upper).map(|n| n as u32 + 1))
    };
    if head.is_empty() {
        // Small letters: viii.
        let known = last.len() > 1 && last.chars().all(|c| "ivxlc".contains(c));
        return known.then(|| value(last).map(|n| n.to_string()))?;
    }
    let name = head.join(" ");
    let capital = name.chars().next().is_some_and(char::is_uppercase);
    let label =
        ["chapter", "volume", "part", "book", "act", "scene", "section", "unit", "page", "figure", "case", "type"]
            .contains(&name.to_lowercase().as_str());
    if !capital && !label {
        return None;
    }
    let name = if label { name.to_lowercase() } else { name };
    if let Some(n) = value(last).filter(|_| label || last.chars().all(char::is_uppercase)) {
        return Some(format!("{name} {n}"));
    }
    if label && let Some(n) = whole(last) {
        return Some(format!("{name} {n}"));
    }
    let (name, the) = name.rsplit_once(' ')?;
    (the == "the").then(|| number_words::ordinal(&last.to_lowercase()).map(|n| format!("{name} {n}")))?
}

/// Chinese numerals, shares and times of day, with the unit behind them.
pub(super) fn chinese(text: &str) -> Option<String> {
    const HALVES: [(&str, &str); 12] = [
        ("\u{4e0a}\u{5348}", "am"),
        ("\u{65e9}\u{4e0a}", "am"),
        ("\u{51cc}\u{6668}", "am"),
        ("\u{5348}\u{524d}", "am"),
        ("\u{c624}\u{c804}", "am"),
        ("\u{4e2d}\u{5348}", "pm"),
        ("\u{4e0b}\u{5348}", "pm"),
        ("\u{665a}\u{4e0a}", "pm"),
        ("\u{508d}\u{665a}", "pm"),
        ("\u{5348}\u{5f8c}", "pm"),
        ("\u{c624}\u{d6c4}", "pm"),
        ("", ""),
    ];
    if text.is_ascii() {
        return None;
    }
    let text = text.trim();
    let amount = |t: &str| {
        let t = t.trim();
        let read = foreign::chinese(t).filter(|(_, rest)| rest.is_empty()).map(|(n, _)| n);
        read.or_else(|| t.parse::<i64>().ok().map(|n| Rational::from_integer(n.into())))
    };
    // A time of day.
    let (half, clock) = HALVES.iter().find_map(|(h, mark)| Some((*mark, text.strip_prefix(h)?)))?;
    let hour = clock.split_once(['\u{70b9}', '\u{9ede}', '\u{65f6}', '\u{6642}', '\u{c2dc}']);
    if let Some((hour, rest)) = hour
        && let Some(h) = amount(hour)
    {
        let rest = rest.trim().trim_end_matches(['\u{5206}', '\u{949f}', '\u{6574}', '\u{9418}', '\u{bd84}']).trim();
        let minutes = match rest {
            "" => Some(Rational::from_integer(0.into())),
            "\u{534a}" => Some(Rational::from_integer(30.into())),
            "\u{4e00}\u{523b}" => Some(Rational::from_integer(15.into())),
            "\u{4e09}\u{523b}" => Some(Rational::from_integer(45.into())),
            rest => amount(rest),
        };
        if let Some(m) = minutes.filter(Rational::is_integer) {
            return Some(format!("{h}:{:0>2} {half}", m.to_string()).trim().to_owned());
        }
    }
    // Shares.
    const OF: &str = "\u{5206}\u{4e4b}";
    if let Some((under, over)) = text.split_once(OF) {
        let over = amount(over)?;
        return Some(if under == "\u{767e}" {
            format!("{}%", shown(&over))
        } else {
            format!("{}/{}", shown(&over), shown(&amount(under)?))
        });
    }
    let (sign, text) = text.strip_prefix(['\u{8d1f}', '\u{8ca0}']).map_or(("", text), |t| ("-", t));
    let (n, rest) = foreign::chinese(text)?;
    (rest.is_empty() || unit::english(rest).is_some()).then(|| format!("{sign}{}{rest}", shown(&n)))
}

/// A day of the week in another language.
pub(super) fn weekday(lower: &str) -> Option<String> {
    const DAYS: [(&str, [&str; 9]); 7] = [
        (
            "monday",
            [
                "lunes",
                "lundi",
                "montag",
                "lunedi",
                "segunda feira",
                "\u{661f}\u{671f}\u{4e00}",
                "\u{5468}\u{4e00}",
                "\u{6708}\u{66dc}\u{65e5}",
                "\u{43f}\u{43e}\u{43d}\u{435}\u{434}\u{435}\u{43b}\u{44c}\u{43d}\u{438}\u{43a}",
            ],
        ),
        (
            "tuesday",
            [
                "martes",
                "mardi",
                "dienstag",
                "martedi",
                "terca feira",
                "\u{661f}\u{671f}\u{4e8c}",
                "\u{5468}\u{4e8c}",
                "\u{706b}\u{66dc}\u{65e5}",
                "\u{432}\u{442}\u{43e}\u{440}\u{43d}\u{438}\u{43a}",
            ],
        ),
        (
            "wednesday",
            [
                "miercoles",
                "mercredi",
                "mittwoch",
                "mercoledi",
                "quarta feira",
                "\u{661f}\u{671f}\u{4e09}",
                "\u{5468}\u{4e09}",
                "\u{6c34}\u{66dc}\u{65e5}",
                "\u{441}\u{440}\u{435}\u{434}\u{430}",
            ],
        ),
        (
            "thursday",
            [
                "jueves",
                "jeudi",
                "donnerstag",
                "giovedi",
                "quinta feira",
                "\u{661f}\u{671f}\u{56db}",
                "\u{5468}\u{56db}",
                "\u{6728}\u{66dc}\u{65e5}",
                "\u{447}\u{435}\u{442}\u{432}\u{435}\u{440}\u{433}",
            ],
        ),
        (
            "friday",
            [
                "viernes",
                "vendredi",
                "freitag",
                "venerdi",
                "sexta feira",
                "\u{661f}\u{671f}\u{4e94}",
                "\u{5468}\u{4e94}",
                "\u{91d1}\u{66dc}\u{65e5}",
                "\u{43f}\u{44f}\u{442}\u{43d}\u{438}\u{446}\u{430}",
            ],
        ),
        (
            "saturday",
            [
                "sabado",
                "samedi",
                "samstag",
                "sabato",
                "sonnabend",
                "\u{661f}\u{671f}\u{516d}",
                "\u{5468}\u{516d}",
                "\u{571f}\u{66dc}\u{65e5}",
                "\u{441}\u{443}\u{431}\u{431}\u{43e}\u{442}\u{430}",
            ],
        ),
        (
            "sunday",
            [
                "domingo",
                "dimanche",
                "sonntag",
                "domenica",
                "\u{661f}\u{671f}\u{5929}",
                "\u{661f}\u{671f}\u{65e5}",
                "\u{5468}\u{65e5}",
                "\u{65e5}\u{66dc}\u{65e5}",
                "\u{432}\u{43e}\u{441}\u{43a}\u{440}\u{435}\u{441}\u{435}\u{43d}\u{44c}\u{435}",
            ],
        ),
    ];
    let plain = unit::folded(lower);
    DAYS.iter().find(|(_, names)| names.contains(&plain.as_str())).map(|(day, _)| (*day).to_owned())
}

/// `the XIX century`, `19. Jahrhundert`, `siglo XIX`.
pub(super) fn century(text: &str) -> Option<String> {
    let folded = unit::folded(text);
    let words: Vec<&str> = folded.split_whitespace().filter(|w| *w != "the").collect();
    let number = match words.as_slice() {
        [n, "century" | "jahrhundert" | "siecle" | "secolo"] => n,
        ["siglo" | "seculo" | "century", n] => n,
        _ => return None,
    };
    let digits = number.trim_end_matches(|c: char| c.is_alphabetic());
    let value = digits.parse().ok().or_else(|| {
        let upper = number.to_uppercase();
        text::roman(&upper).or_else(|| text::roman(upper.trim_end_matches('E'))).map(i64::from)
    });
    let value = value.or_else(|| number_words::ordinal(number))?;
    Some(format!("{value}th century"))
}
