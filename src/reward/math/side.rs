//! Values with a direction: `5 m/s north`, `a loss of $20`, `20% off`.

use super::lex::{Tok, Token};
use super::parse::{Reader, Value, is_word};

/// Words that say which way, under the one that stands for all of them.
const SIDES: [(&str, &[&str]); 17] = [
    ("north", &["north", "northward", "northwards"]),
    ("south", &["south", "southward", "southwards"]),
    ("east", &["east", "eastward", "eastwards"]),
    ("west", &["west", "westward", "westwards"]),
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
    ("off", &["off", "discount"]),
    ("more", &["more"]),
    ("less", &["less", "fewer"]),
];

fn side(token: &Token) -> Option<&'static str> {
    let (Tok::Word(w) | Tok::Text(w)) = &token.tok else { return None };
    let lower = w.trim().to_lowercase();
    SIDES.iter().find(|s| s.1.contains(&lower.as_str())).map(|s| s.0)
}

impl Reader<'_> {
    /// `20% decrease`, `a decrease of 20%`, `3 units to the left`.
    pub(super) fn sided(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let numbered = |part: &[Token]| part.iter().any(|t| matches!(t.tok, Tok::Num(_)));
        let (part, name) = match tokens {
            [inner @ .., to, the, last] if is_word(&to.tok, &["to"]) && is_word(&the.tok, &["the"]) => {
                (inner, side(last)?)
            }
            [article, name, of, inner @ ..] if is_word(&article.tok, &["a", "an"]) && is_word(&of.tok, &["of"]) => {
                (inner, side(name)?)
            }
            [name, of, inner @ ..] if is_word(&of.tok, &["of"]) => (inner, side(name)?),
            [article, inner @ .., last] if is_word(&article.tok, &["a", "an"]) => (inner, side(last)?),
            [inner @ .., last] => (inner, side(last)?),
            _ => return None,
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

/// True where one text says that something grew and the other that it shrank: 20% up is not 20% down.
pub fn turned(gold: &str, answer: &str) -> bool {
    let way = |text: &str| {
        let lower = text.to_lowercase();
        let says =
            |stems: &[&str]| lower.split(|c: char| !c.is_alphabetic()).any(|w| stems.iter().any(|s| w.starts_with(s)));
        (says(&GREW), says(&SHRANK))
    };
    matches!((way(gold), way(answer)), ((true, false), (false, true)) | ((false, true), (true, false)))
}
