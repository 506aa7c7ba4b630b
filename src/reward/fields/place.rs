//! Places on the Earth: `23.5° N`, `40°N, 75°W`, "latitude 23°30′ north".

use super::tokens::{Token, tokens};
use crate::reward::words::tables::is_wordless;

/// Degrees north and east of a place of which one or both are said.
fn read(text: &str) -> Option<(Option<f64>, Option<f64>)> {
    let tokens = (!is_wordless(text)).then(|| tokens(text))??;
    let (mut north, mut east, mut angle) = (None, None, None);
    for token in tokens {
        match token {
            Token::Angle(x) if angle.is_none() => angle = Some(x),
            Token::Word(w) => match w.as_str() {
                "latitude" | "longitude" | "lat" | "long" | "lon" | "and" | "at" | "the" | "of" => {}
                "n" | "north" if north.is_none() => north = Some(angle.take()?),
                "s" | "south" if north.is_none() => north = Some(-angle.take()?),
                "e" | "east" if east.is_none() => east = Some(angle.take()?),
                "w" | "west" if east.is_none() => east = Some(-angle.take()?),
                _ => return None,
            },
            _ => return None,
        }
    }
    let known = angle.is_none() && (north.is_some() || east.is_some());
    known.then_some((north, east))
}

pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    let (a, b) = (read(gold)?, read(answer)?);
    let near = |x: Option<f64>, y: Option<f64>| match (x, y) {
        (Some(x), Some(y)) => (x - y).abs() < 1e-6,
        (x, y) => x.is_none() && y.is_none(),
    };
    Some(near(a.0, b.0) && near(a.1, b.1))
}
