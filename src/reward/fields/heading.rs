//! Directions on the map: `N 30° E`, "30° east of north", "60° north of east", "a bearing of 030°", "due west",
//! alone or behind a distance or a speed; and those along an axis, "in the -x direction".

use std::borrow::Cow;

use super::tokens::{Token, point, tokens};
use super::{Steps, equal};
use crate::reward::words::tables::{is_wordless, replaced};

/// Words that stand before a direction.
const BEFORE: [&str; 30] = [
    "the",
    "a",
    "an",
    "is",
    "was",
    "it",
    "at",
    "on",
    "in",
    "of",
    "to",
    "due",
    "direction",
    "bearing",
    "heading",
    "course",
    "towards",
    "toward",
    "directly",
    "exactly",
    "moves",
    "travels",
    "flies",
    "heads",
    "goes",
    "and",
    "plane",
    "ship",
    "wind",
    "true",
];

/// Degrees clockwise from north.
fn heading(tokens: &[Token]) -> Option<f64> {
    let said = |w: &str| tokens.iter().any(|t| matches!(t, Token::Word(x) if x == w));
    // What is left without words of frame.
    let kept: Vec<Token> = tokens
        .iter()
        .filter(|t| !matches!(t, Token::Word(w) if matches!(w.as_str(), "the" | "a" | "due" | "at" | "direction" | "exactly" | "directly")))
        .cloned()
        .collect();
    let bearing = said("bearing") || said("heading") || said("course") || said("true");
    let rest: Vec<Token> = kept
        .iter()
        .filter(|t| !matches!(t, Token::Word(w) if BEFORE.contains(&w.as_str()) && w != "of" && w != "to" && w != "toward" && w != "towards"))
        .cloned()
        .collect();
    let word = |n: usize| match rest.get(n)? {
        Token::Word(w) => Some(w.as_str()),
        _ => None,
    };
    let angle = |n: usize| match rest.get(n)? {
        Token::Angle(x) | Token::Number(x) => Some(*x),
        _ => None,
    };
    let cardinal = |n: usize| word(n).and_then(point).filter(|p| p % 90.0 == 0.0);
    let turn = |from: f64, by: f64, to: f64| {
        let clockwise = (to - from).rem_euclid(360.0);
        match by {
            by if !(0.0..=90.0).contains(&by) => None,
            by if clockwise == 90.0 => Some(from + by),
            by if clockwise == 270.0 => Some(from - by),
            _ => None,
        }
    };
    let found = match rest.len() {
        // Single letters name much else.
        1 if word(0).is_some_and(|w| w.len() > 1) => point(word(0)?),
        // "A bearing of 225°"
        1 | 2 if bearing && (rest.len() == 1 || word(0) == Some("of")) => {
            angle(rest.len() - 1).filter(|x| (0.0..=360.0).contains(x))
        }
        // "north east"
        2 if cardinal(0).is_some() && cardinal(1).is_some() => point(&format!("{}{}", word(0)?, word(1)?)),
        3 if cardinal(0).is_some_and(|p| p % 180.0 == 0.0) => turn(cardinal(0)?, angle(1)?, cardinal(2)?),
        // "30° east of north", "30° north from east"
        4 if matches!(rest[0], Token::Angle(_)) && matches!(word(2), Some("of" | "from")) && cardinal(1).is_some() => {
            turn(cardinal(3)?, angle(0)?, cardinal(1)?)
        }
        // "30° from north towards east"
        5 if matches!(rest[0], Token::Angle(_))
            && word(1) == Some("from")
            && matches!(word(3), Some("to" | "towards" | "toward")) =>
        {
            turn(cardinal(2)?, angle(0)?, cardinal(4)?)
        }
        _ => None,
    };
    // "225° clockwise from north"
    let around = || match (angle(0)?, word(1)?, word(2)?, cardinal(3)?) {
        (by, "clockwise", "from", start) if rest.len() == 4 => Some(start + by),
        (by, "counterclockwise" | "anticlockwise", "from", start) if rest.len() == 4 => Some(start - by),
        _ => None,
    };
    found.or_else(around).map(|x| x.rem_euclid(360.0))
}

/// An angle of three figures, as bearings are written: `030°`.
fn three_figures(text: &str) -> Option<f64> {
    let plain = text.replace("^{\\circ}", "\u{b0}").replace("^\\circ", "\u{b0}");
    let plain = plain.trim().trim_matches(['$', ' ', '.']);
    let (digits, degrees) = plain.strip_suffix('\u{b0}').map_or((plain, false), |d| (d, true));
    let whole = digits.split('.').next().filter(|w| w.len() == 3 && w.bytes().all(|b| b.is_ascii_digit()))?;
    let found = digits.parse().ok().filter(|x| (0.0..=360.0).contains(x))?;
    (degrees || whole.starts_with('0')).then_some(found)
}

/// The text with upright letters as plain ones.
pub(super) fn upright(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, inside)) = rest.split_once("\\text{").or_else(|| rest.split_once("\\mathrm{")) {
        let Some((letters, behind)) = inside.split_once('}') else { break };
        out = out + before + letters;
        rest = behind;
    }
    Cow::Owned(out + rest)
}

/// A direction, the amount before it, and what it is told from.
struct Way {
    amount: String,
    heading: f64,
    from: Option<String>,
}

/// What a direction is told from: "of his starting point", "from the tower".
fn told_from(text: &str) -> Option<(f64, String)> {
    const START: &str = " his her its their the a an initial original starting start started began begins point position \
        place spot location where he she it they origin ";
    let (way, from) = text.rsplit_once(" of ").or_else(|| text.rsplit_once(" from "))?;
    let own = |w: &&str| !matches!(*w, "the" | "a" | "an" | "his" | "her" | "its" | "their");
    let lower = from.to_lowercase();
    let words: Vec<&str> = lower.split([' ', '.', '$']).filter(|w| !w.is_empty()).collect();
    let start = words.iter().all(|w| START.contains(&format!(" {w} ")));
    let from = if start { "start".to_owned() } else { words.into_iter().filter(own).collect::<Vec<_>>().join(" ") };
    Some((heading(&tokens(way)?)?, from))
}

fn read(text: &str) -> Option<Way> {
    if is_wordless(text) {
        return None;
    }
    if let Some(heading) = tokens(text).and_then(|t| heading(&t)) {
        return Some(Way { amount: String::new(), heading, from: None });
    }
    let first = text.find(|c: char| c.is_ascii_digit())?;
    let said = text[..first].split_whitespace().all(|w| BEFORE.contains(&w.to_lowercase().as_str()));
    let gaps = text.match_indices([' ', ',']).map(|(at, _)| at).filter(|&at| at > first);
    let mut found = None;
    for at in gaps {
        let (amount, rest) = (&text[first..at], text[at + 1..].trim_start());
        let rest = rest.trim_start_matches("in the direction ");
        if amount.ends_with(|c: char| c.is_alphabetic())
            && !amount.contains(['\u{b0}', ','])
            && !amount.contains("circ")
            && !amount.contains(" and ")
            && let Some((heading, from)) = tokens(rest)
                .and_then(|t| heading(&t))
                .map(|h| (h, None))
                .or_else(|| told_from(rest).map(|(h, f)| (h, Some(f))))
        {
            found = Some(Way { amount: amount.to_owned(), heading, from });
            break;
        }
    }
    found.filter(|_| said)
}

/// A direction along an axis: whether it is the positive one, and the axis.
fn along(text: &str) -> Option<(bool, String)> {
    let lower = text.to_lowercase();
    if !lower.contains("direction") && !lower.contains("axis") {
        return None;
    }
    let (mut marked, mut positive, mut axis) = (false, None, None);
    for word in signed(&lower).split([' ', '-']).filter(|w| !w.is_empty()) {
        match word {
            "direction" | "axis" => marked = true,
            "in" | "along" | "the" | "of" | "towards" | "toward" => {}
            "negative" | "minus" | "positive" | "plus" if positive.is_none() => {
                positive = Some(matches!(word, "positive" | "plus"));
            }
            "x" | "y" | "z" if axis.is_none() => axis = Some(word.to_owned()),
            _ => return None,
        }
    }
    if marked { Some((positive?, axis?)) } else { None }
}

/// Signs before the letter of an axis as words.
fn signed(text: &str) -> String {
    const SIGNS: [(&str, &str); 11] = [
        ("\u{2212}", "-"),
        ("$", " "),
        ("\\(", " "),
        ("\\)", " "),
        (".", ""),
        (" -x", " negative x"),
        (" +x", " positive x"),
        (" -y", " negative y"),
        (" +y", " positive y"),
        (" -z", " negative z"),
        (" +z", " positive z"),
    ];
    replaced(format!(" {text}"), &SIGNS).into_owned()
}

pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    // A signed letter of an axis is a direction beside another.
    let signed = |text: &str| along(&format!("{} direction", text.trim().trim_matches('$')));
    match (along(gold), along(answer)) {
        (Some(a), Some(b)) => return Some(a == b),
        (Some(a), None) => return signed(answer).map(|b| a == b),
        (None, Some(b)) => return signed(gold).map(|a| a == b),
        _ => {}
    }
    let (gold, answer) = (&*upright(gold), &*upright(answer));
    // What is no direction by itself may be one beside another.
    let bearing = |text: &str| Some(Way { amount: String::new(), heading: three_figures(text)?, from: None });
    let (a, b) = match (read(gold), read(answer)) {
        (Some(a), Some(b)) => (a, b),
        (Some(a), None) if a.amount.is_empty() => (a, bearing(answer)?),
        (None, Some(b)) if b.amount.is_empty() => (bearing(gold)?, b),
        _ => return None,
    };
    let turn = (a.heading - b.heading).rem_euclid(360.0);
    let amounts =
        a.amount.is_empty() == b.amount.is_empty() && (a.amount.is_empty() || equal(&a.amount, &b.amount, steps));
    let from = a.from.is_none() || b.from.is_none() || a.from == b.from;
    Some(amounts && from && turn.min(360.0 - turn) < 1e-6)
}
