//! Values with a direction: `5 m/s north`, `a loss of $20`, `20% off`, `12 km south of the start`.

use super::lex::{Tok, Token};
use super::parse::{Reader, Value, is_word};
use super::scalar::is;

/// Words that say which way, under the one that stands for all of them.
const SIDES: [(&str, &[&str]); 25] = [
    ("north", &["north", "northward", "northwards"]),
    ("south", &["south", "southward", "southwards"]),
    ("east", &["east", "eastward", "eastwards"]),
    ("west", &["west", "westward", "westwards"]),
    ("northeast", &["northeast", "northeastward", "northeastwards", "NE"]),
    ("northwest", &["northwest", "northwestward", "northwestwards", "NW"]),
    ("southeast", &["southeast", "southeastward", "southeastwards", "SE"]),
    ("southwest", &["southwest", "southwestward", "southwestwards", "SW"]),
    ("above", &["above"]),
    ("below", &["below", "beneath", "under"]),
    ("up", &["up", "upward", "upwards", "upstream"]),
    ("down", &["down", "downward", "downwards", "downstream"]),
    ("left", &["left", "leftward", "leftwards"]),
    ("right", &["right", "rightward", "rightwards"]),
    ("forward", &["forward", "forwards"]),
    ("backward", &["backward", "backwards"]),
    ("clockwise", &["clockwise"]),
    ("counterclockwise", &["counterclockwise", "anticlockwise", "counter-clockwise"]),
    ("increase", &["increase", "rise", "growth", "gain", "profit", "surplus", "increased"]),
    ("decrease", &["decrease", "drop", "fall", "loss", "reduction", "deficit", "debt", "decreased"]),
    ("before", &["before"]),
    ("after", &["after"]),
    ("off", &["off", "discount"]),
    ("more", &["more"]),
    ("less", &["less", "fewer"]),
];

fn side(token: &Token) -> Option<&'static str> {
    let (Tok::Word(w) | Tok::Text(w)) = &token.tok else { return None };
    let lower = w.trim().to_lowercase();
    SIDES.iter().find(|s| s.1.contains(&lower.as_str()) || s.1.contains(&w.trim())).map(|s| s.0)
}

/// An amount, its direction and what that is told from: `12 km due south-west of the start`, `5 m above the ground`.
fn told_from(tokens: &[Token]) -> Option<(&[Token], &'static str)> {
    // No sentence is a distance.
    const MOST: usize = 16;
    let at = tokens.iter().take(MOST).position(|t| side(t).is_some())?;
    let (mut name, mut rest) = (side(&tokens[at])?, &tokens[at + 1..]);
    if let [hyphen, second, behind @ ..] = rest
        && is(Some(hyphen), '-')
    {
        let joined = format!("{name}{}", side(second)?);
        (name, rest) = (SIDES.iter().find(|s| s.0 == joined)?.0, behind);
    }
    let from = match rest {
        [] => true,
        [of, ..] if is_word(&of.tok, &["of", "from"]) => {
            matches!(name, "left" | "right")
                || name.starts_with("north")
                || name.starts_with("south")
                || name.ends_with("st")
        }
        _ => matches!(name, "above" | "below" | "before" | "after"),
    };
    let words = |t: &Token| matches!(t.tok, Tok::Word(_) | Tok::Text(_) | Tok::Sym('\''));
    if !from
        || rest.len() > MOST
        || !rest.iter().all(words)
        || rest.iter().any(|t| is_word(&t.tok, &["zero", "freezing"]))
    {
        return None;
    }
    let mut part = &tokens[..at];
    while let [inner @ .., last] = part
        && is_word(&last.tok, &["to", "the", "due", "directly", "straight", "vertically"])
    {
        part = inner;
    }
    Some((part, name))
}

/// The text without the direction at its end: "N to the left" as "N".
pub fn undirected(text: &str) -> &str {
    let known = |w: &str| {
        let lower = w.to_lowercase();
        matches!(lower.as_str(), "to" | "the" | "due") || SIDES.iter().any(|s| s.1.contains(&lower.as_str()))
    };
    let mut text = text.trim();
    while let Some(word) = text.split_whitespace().next_back().filter(|w| known(w)) {
        text = text[..text.len() - word.len()].trim_end();
    }
    text
}

impl Reader<'_> {
    /// `20% decrease`, `a decrease of 20%`, `3 units to the left`.
    pub(super) fn sided(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let numbered = |part: &[Token]| part.iter().any(|t| matches!(t.tok, Tok::Num(_)));
        let (part, name) = match tokens {
            [article, name, of, inner @ ..] if is_word(&article.tok, &["a", "an"]) && is_word(&of.tok, &["of"]) => {
                (inner, side(name)?)
            }
            [name, of, inner @ ..] if is_word(&of.tok, &["of"]) => (inner, side(name)?),
            [article, inner @ .., last] if is_word(&article.tok, &["a", "an"]) => (inner, side(last)?),
            _ => told_from(tokens)?,
        };
        if !numbered(part) || part.last().is_some_and(|t| side(t).is_some()) {
            return None;
        }
        let value = self.value(part, depth + 1)?;
        matches!(value, Value::Scalar(..)).then(|| Value::Sided(name, Box::new(value)))
    }
}

/// True for a side on which amounts are told without their minus sign: a loss of $20 is -$20.
pub(super) fn is_negative(side: &str) -> bool {
    matches!(side, "decrease" | "less" | "off" | "down" | "before")
}

/// Words that begin as these say that something grew, or shrank.
const GREW: [&str; 10] = ["increas", "rise", "rose", "risen", "grew", "grow", "gain", "profit", "surplus", "appreciat"];
const SHRANK: [&str; 12] =
    ["decreas", "drop", "fell", "fall", "loss", "lost", "declin", "reduc", "deficit", "shrank", "shrink", "depreciat"];

/// Directions that an answer has in words where the gold answer has the opposite one. Without a place or a force
/// "left" is what remains, "up" much else.
const OPPOSITE: [(&[&str], &[&str]); 5] = [
    (&["north", "northward", "northwards"], &["south", "southward", "southwards"]),
    (&["east", "eastward", "eastwards"], &["west", "westward", "westwards"]),
    (&["upward", "upwards"], &["downward", "downwards"]),
    (&["leftward", "leftwards"], &["rightward", "rightwards"]),
    (&["inward", "inwards"], &["outward", "outwards"]),
];

/// True where one text says that something grew and the other that it shrank, or each one of two opposite directions:
/// 20% up is not 20% down.
pub fn turned(gold: &str, answer: &str) -> bool {
    let words = |text: &str| {
        let lower = text.to_lowercase();
        lower.split(|c: char| !c.is_alphabetic()).map(str::to_owned).collect::<Vec<_>>()
    };
    let (a, b) = (words(gold), words(answer));
    let says = |text: &[String], side: &[&str]| text.iter().any(|w| side.contains(&w.as_str()));
    let against = |one: &[&str], other: &[&str]| says(&a, one) && !says(&a, other) && says(&b, other) && !says(&b, one);
    if OPPOSITE.iter().any(|(one, other)| against(one, other) || against(other, one)) {
        return true;
    }
    let way = |text: &str| {
        let lower = text.to_lowercase();
        let says =
            |stems: &[&str]| lower.split(|c: char| !c.is_alphabetic()).any(|w| stems.iter().any(|s| w.starts_with(s)));
        (says(&GREW), says(&SHRANK))
    };
    matches!((way(gold), way(answer)), ((true, false), (false, true)) | ((false, true), (true, false)))
}
