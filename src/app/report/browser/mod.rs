//! The row browser: questions with their images, the answers, and the verdicts of a scorer with their reasons. Data
//! sets, evaluation and RL fill the same [`Browser`], which `parts.html` shows. A page with a browser includes
//! `browser.css` in its style and [`SCRIPT`] at its end.
//!
//! A reader can filter rows by verdict, by any facet and by words. A page contains all rows of its browser, so the code
//! that fills the browser limits their number.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::Error;
use serde::{Serialize, Serializer};

use omr_base::frame::data;
use omr_data::image::{Limits, Rgb, decode, jpeg_within};

/// Script of the browser. A page includes it once, at its end, for all its browsers.
pub const SCRIPT: &str = include_str!("browser.js");

/// Maximum length of an image's longer side in a page, in pixels.
const LARGEST_SIDE: u32 = 640;
/// Maximum size in bytes of encoded images that a page contains unchanged.
const SMALL: usize = 48 << 10;
/// Limits for a [`thumbnail`]: the maximum length of its longer side in pixels, and the maximum size in bytes of an
/// encoded image that is used unchanged.
pub const THUMBNAIL_SIDE: u32 = 400;
const SMALL_THUMBNAIL: usize = 12 << 10;

/// Rows to browse.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Browser {
    /// Heading.
    pub title: String,
    /// Description of the selection, such as `20 of 1000 rows`.
    pub note: String,
    /// Rows in the order in which they are shown. Templates receive them as the JSON that the script reads.
    #[serde(serialize_with = "as_json")]
    pub rows: Vec<Row>,
}

/// A question. Empty parts are not shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Id of the row, and its position: file and row, task and index, or step.
    pub id: String,
    /// Text of the question.
    pub question: String,
    /// Images as `data:` addresses, in order, made by [`image()`].
    pub images: Vec<String>,
    /// Correct answer.
    pub gold: Option<String>,
    /// Answers to the question.
    pub answers: Vec<Answer>,
    /// Names and values that rows can be filtered by: `("data set", "mmk12")`, `("answer", "a number")`.
    pub facets: Vec<(String, String)>,
    /// Other information: label and value.
    pub facts: Vec<(String, String)>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Name of the answer: `greedy`, `rollout 3`, or a model.
    pub name: String,
    /// Text between the think tags.
    pub thinking: String,
    /// Extracted answer, or the whole text if nothing could be extracted.
    pub answer: String,
    /// Verdict of the scorer. `None` if the answer was not scored.
    pub verdict: Option<Verdict>,
    /// Reason of the verdict.
    pub why: String,
    /// Number of tokens.
    pub tokens: Option<usize>,
    /// Tokens with their log-probs, if known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shades: Vec<(String, f32)>,
}

impl Answer {
    /// Splits a response into its thinking part and the rest. The template may have opened the thinking part, and the
    /// limit of tokens may have ended it.
    pub fn of(name: impl Into<String>, response: &str) -> Answer {
        let opened = response.trim_start().strip_prefix("<think>");
        let parts = opened.unwrap_or(response).split_once("</think>").or_else(|| opened.map(|rest| (rest, "")));
        let (thinking, answer) = parts.unwrap_or(("", response));
        let (thinking, answer) = (thinking.trim().to_owned(), answer.trim().to_owned());
        Answer { name: name.into(), thinking, answer, ..Answer::default() }
    }
}

/// Verdict of a scorer on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The answer equals the correct one.
    Right,
    /// The answer differs from the correct one.
    Wrong,
    /// The judge gave no ruling.
    Unjudged,
}

fn as_json<S: Serializer>(rows: &[Row], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&data(&rows).map_err(S::Error::custom)?)
}

/// Returns an encoded image as a `data:` address. Small images are unchanged, others are scaled down to a JPEG. Returns
/// `None` if the image cannot be decoded.
pub fn image(bytes: &[u8]) -> Option<String> {
    address(bytes, LARGEST_SIDE, SMALL)
}

/// Returns a smaller version of [`image()`], for pages with many rows.
pub fn thumbnail(bytes: &[u8]) -> Option<String> {
    address(bytes, THUMBNAIL_SIDE, SMALL_THUMBNAIL)
}

/// Returns the same as [`image()`] for an image that is already decoded.
pub fn image_of(bytes: &[u8], decoded: Rgb) -> Option<String> {
    unchanged(bytes, SMALL).or_else(|| scaled(decoded, LARGEST_SIDE))
}

fn address(bytes: &[u8], largest: u32, small: usize) -> Option<String> {
    unchanged(bytes, small).or_else(|| scaled(decode(bytes, &Limits::default(), "an image").ok()?, largest))
}

fn url(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", STANDARD.encode(bytes))
}

/// Returns the image unchanged if browsers can show it and it has at most `small` bytes.
pub(super) fn unchanged(bytes: &[u8], small: usize) -> Option<String> {
    shown_by_browsers(bytes).filter(|_| bytes.len() <= small).map(|kind| url(kind, bytes))
}

/// Returns the image as a JPEG whose longer side has at most `largest` pixels.
fn scaled(rgb: Rgb, largest: u32) -> Option<String> {
    Some(url("jpeg", &jpeg_within(rgb, largest)?))
}

/// Returns the image format, recognised by the first bytes, if browsers can show it.
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
    use std::io::Cursor;

    use super::*;
    use crate::report::{RecipeReport, page};

    fn png(side: u32, level: impl Fn(u32, u32) -> u8) -> Vec<u8> {
        let image = ::image::GrayImage::from_fn(side, side, |x, y| ::image::Luma([level(x, y)]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ::image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn small_images_stay_large_ones_shrink_and_broken_ones_are_none() {
        let small = png(8, |_, _| 7);
        assert_eq!(image(&small).unwrap(), format!("data:image/png;base64,{}", STANDARD.encode(&small)));
        // Noise cannot be compressed, so this image exceeds the size of unchanged images.
        let large = png(1000, |x, y| (x.wrapping_mul(2654435761) ^ y.wrapping_mul(40503) ^ (x * y)) as u8);
        assert!(large.len() > SMALL);
        let address = image(&large).unwrap();
        let jpeg = STANDARD.decode(address.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let shown = decode(&jpeg, &Limits::default(), "").unwrap();
        assert_eq!((shown.width, shown.height), (LARGEST_SIDE, LARGEST_SIDE));
        assert_eq!(image(b"<html>"), None);
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
        // Two scripts of the page, the data of its curves, and the rows.
        assert!(!html.contains("<img") && html.matches("</script>").count() == 4, "{html}");
    }

    #[test]
    fn a_response_is_taken_apart_at_its_think_tags() {
        let answer = Answer::of("greedy", "<think> 3 + 4 </think>\n<answer>7</answer>");
        assert_eq!((answer.thinking.as_str(), answer.answer.as_str()), ("3 + 4", "<answer>7</answer>"));
        for (response, parts) in [
            ("<think>cut", ("cut", "")),
            ("opened by the template</think>8", ("opened by the template", "8")),
            ("8 </answer>", ("", "8 </answer>")),
            ("so <think>late</think> 8", ("so <think>late", "8")),
        ] {
            let answer = Answer::of("", response);
            assert_eq!((answer.thinking.as_str(), answer.answer.as_str()), parts);
        }
    }
}
