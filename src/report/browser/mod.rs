//! The row browser: questions with their pictures, what was answered, and what a scorer said of it and why. Data sets,
//! evaluation and RL fill the same [`Browser`], which `parts.html` shows; pages with one have `browser.css` in their style and
//! [`SCRIPT`] at their end.
//!
//! A reader filters by verdict, by any facet and by words. Rows stand in the page as they are given: who fills a browser
//! chooses how many.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::Error;
use serde::{Serialize, Serializer};

use crate::image::{Limits, Rgb, decode};
use crate::page::data;

/// Belongs at the page's end, once for all browsers on it.
pub const SCRIPT: &str = include_str!("browser.js");

/// A picture's longer side is at most this many pixels in a page.
const LARGEST_SIDE: u32 = 640;
/// Encoded pictures of up to this many bytes stand in a page as they are.
const SMALL: usize = 48 << 10;
/// The same of a [`thumbnail`].
pub const THUMBNAIL_SIDE: u32 = 400;
const SMALL_THUMBNAIL: usize = 12 << 10;

/// Rows to look through.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Browser {
    /// Heading.
    pub title: String,
    /// What the rows are: which of how many.
    pub note: String,
    /// The rows, in the order shown. Templates get them as the JSON that the script reads.
    #[serde(serialize_with = "as_json")]
    pub rows: Vec<Row>,
}

/// A question. Empty parts are not shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Its id, and where it stands: file and row, task and index, or step.
    pub id: String,
    /// The question's text.
    pub question: String,
    /// Its pictures as `data:` addresses, in their order; [`picture`] makes them.
    pub pictures: Vec<String>,
    /// The right answer.
    pub gold: Option<String>,
    /// Answers that were given.
    pub answers: Vec<Answer>,
    /// Names with values by which rows are filtered: `("data set", "mmk12")`, `("answer", "a number")`.
    pub facets: Vec<(String, String)>,
    /// Whatever else is worth seeing: label and value.
    pub facts: Vec<(String, String)>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Whose, or which: `greedy`, `rollout 3`, a model.
    pub name: String,
    /// What stands between the think tags.
    pub thinking: String,
    /// What was taken as the answer, or all that was said where nothing was.
    pub answer: String,
    /// What the scorer said; none where nothing was scored.
    pub verdict: Option<Verdict>,
    /// Why it said so.
    pub why: String,
    /// Its length in tokens.
    pub tokens: Option<usize>,
    /// Its tokens with their log-probs, where they are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shades: Vec<(String, f32)>,
}

impl Answer {
    /// Of a whole response: its thinking apart from what follows.
    pub fn of(name: impl Into<String>, response: &str) -> Answer {
        let parts = response.split_once("<think>").and_then(|(_, rest)| rest.split_once("</think>"));
        let (thinking, answer) = parts.unwrap_or(("", response));
        let (thinking, answer) = (thinking.trim().to_owned(), answer.trim().to_owned());
        Answer { name: name.into(), thinking, answer, ..Answer::default() }
    }
}

/// What a scorer says of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It equals the right answer.
    Right,
    /// It does not.
    Wrong,
    /// A judge gave no word.
    Unjudged,
}

fn as_json<S: Serializer>(rows: &[Row], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&data(&rows).map_err(S::Error::custom)?)
}

/// An encoded picture as a `data:` address: as it is where it is small, else scaled down, as a JPEG. None where it cannot
/// be read.
pub fn picture(bytes: &[u8]) -> Option<String> {
    address(bytes, LARGEST_SIDE, SMALL)
}

/// As [`picture`], smaller: for pages of many rows.
pub fn thumbnail(bytes: &[u8]) -> Option<String> {
    address(bytes, THUMBNAIL_SIDE, SMALL_THUMBNAIL)
}

/// As [`picture`], of a picture that was decoded.
pub fn picture_of(bytes: &[u8], decoded: Rgb) -> Option<String> {
    unchanged(bytes, SMALL).or_else(|| scaled(decoded, LARGEST_SIDE))
}

fn address(bytes: &[u8], largest: u32, small: usize) -> Option<String> {
    unchanged(bytes, small).or_else(|| scaled(decode(bytes, &Limits::default(), "a picture").ok()?, largest))
}

fn url(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", STANDARD.encode(bytes))
}

/// The picture as it is, where browsers show it and it has at most `small` bytes.
pub(super) fn unchanged(bytes: &[u8], small: usize) -> Option<String> {
    shown_by_browsers(bytes).filter(|_| bytes.len() <= small).map(|kind| url(kind, bytes))
}

/// The picture as a JPEG, its longer side at most `largest` pixels.
fn scaled(Rgb { width, height, data }: Rgb, largest: u32) -> Option<String> {
    let mut whole = ::image::RgbImage::from_raw(width, height, data)?;
    // Of a very large picture every pixel would cost seconds: four for each that is shown will do.
    let step = width.max(height) / (4 * largest);
    if step > 1 {
        let [columns, rows] = [width.div_ceil(step), height.div_ceil(step)];
        whole = ::image::RgbImage::from_fn(columns, rows, |x, y| *whole.get_pixel(x * step, y * step));
    }
    let scale = (largest as f64 / width.max(height).max(1) as f64).min(1.0);
    let side = |length: u32| ((length as f64 * scale).round() as u32).max(1);
    let shown = ::image::imageops::thumbnail(&whole, side(width), side(height));
    let mut jpeg = Cursor::new(Vec::new());
    shown.write_to(&mut jpeg, ::image::ImageFormat::Jpeg).ok()?;
    Some(url("jpeg", jpeg.get_ref()))
}

/// The kind of a picture that browsers show, by its first bytes.
fn shown_by_browsers(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [0xff, 0xd8, ..] => Some("jpeg"),
        [b'G', b'I', b'F', ..] => Some("gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{RecipeReport, page};

    fn png(side: u32, level: impl Fn(u32, u32) -> u8) -> Vec<u8> {
        let picture = ::image::GrayImage::from_fn(side, side, |x, y| ::image::Luma([level(x, y)]));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ::image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn small_pictures_stay_large_ones_shrink_and_broken_ones_are_none() {
        let small = png(8, |_, _| 7);
        assert_eq!(picture(&small).unwrap(), format!("data:image/png;base64,{}", STANDARD.encode(&small)));
        // Noise does not compress: more bytes than a page takes as they are.
        let large = png(1000, |x, y| (x.wrapping_mul(2654435761) ^ y.wrapping_mul(40503) ^ (x * y)) as u8);
        assert!(large.len() > SMALL);
        let address = picture(&large).unwrap();
        let jpeg = STANDARD.decode(address.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let shown = decode(&jpeg, &Limits::default(), "").unwrap();
        assert_eq!((shown.width, shown.height), (LARGEST_SIDE, LARGEST_SIDE));
        assert_eq!(picture(b"<html>"), None);
    }

    #[test]
    fn nothing_a_model_wrote_is_markup() {
        let evil = "</script><img src=x onerror=alert(1)>";
        let row = Row {
            id: evil.into(),
            question: evil.into(),
            gold: Some(evil.into()),
            answers: vec![Answer::of(evil, evil)],
            facets: vec![(evil.into(), evil.into())],
            ..Row::default()
        };
        let browser = Browser { title: evil.into(), note: evil.into(), rows: vec![row] };
        let report = RecipeReport { rollouts: Some(browser), ..RecipeReport::default() };
        let html = page(&report).unwrap();
        // The scripts of the page itself, the data of its curves, and the rows.
        assert!(!html.contains("<img") && html.matches("</script>").count() == 4, "{html}");
    }

    #[test]
    fn a_response_is_taken_apart_at_its_think_tags() {
        let answer = Answer::of("greedy", "<think> 3 + 4 </think>\n<answer>7</answer>");
        assert_eq!((answer.thinking.as_str(), answer.answer.as_str()), ("3 + 4", "<answer>7</answer>"));
        assert_eq!(Answer::of("", "<think>cut").answer, "<think>cut");
    }
}
