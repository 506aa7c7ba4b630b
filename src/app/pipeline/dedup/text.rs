//! Comparison of questions: normalizes a question so that layout does not matter, and computes the similarity of two
//! questions.

use std::sync::LazyLock;

use regex::Regex;

use omr_data::rows::forms::form::IMAGE_MARKER;
use omr_data::rows::short;

/// Length in characters of the overlapping parts (shingles) of a text.
const PART: usize = 5;
/// Number of hash functions of a MinHash signature.
const HASHES: usize = 64;

/// A number or a heading before the question: `12. `, `(3) `, `Question 7: `.
static NUMBERING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^\s*(?:(?:question|problem|exercise|q|no)\.?\s*\d{1,5}\s*[.):\-]?\s+|[(\[#]?\d{1,5}\s*[.):\]]+\s+)")
        .ok()
});

/// Normalizes a question for comparison: lower case, without image markers, numbering and insignificant white space.
pub fn fold(text: &str) -> String {
    let text = text.replace(IMAGE_MARKER, " ").replace("<video>", " ").to_lowercase();
    let text = NUMBERING.as_ref().map_or(text.as_str().into(), |numbering| numbering.replace(&text, ""));
    let mut out = String::with_capacity(text.len());
    let mut space = false;
    for c in text.chars() {
        let c = match c {
            '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' | '"' => '\'',
            '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
            '\u{200b}' | '\u{feff}' | '\u{ad}' => continue,
            c => c,
        };
        if c.is_whitespace() {
            space = true;
            continue;
        }
        // White space between two words or numbers separates them; anywhere else it is only layout.
        if space && c.is_alphanumeric() && out.chars().next_back().is_some_and(char::is_alphanumeric) {
            out.push(' ');
        }
        space = false;
        out.push(c);
    }
    out
}

/// Returns a hash of a folded text.
pub fn hash(folded: &str) -> u64 {
    short(&blake3::hash(folded.as_bytes()))
}

/// Returns a hash of the numbers in a folded text, in order. Questions with different numbers are not equal.
pub fn numbers(folded: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for number in folded.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()) {
        hasher.update(number.as_bytes()).update(b" ");
    }
    short(&hasher.finalize())
}

/// Returns the hashes of the parts of a folded text, sorted and without duplicates.
pub fn parts(folded: &str) -> Vec<u64> {
    let ends: Vec<usize> = folded.char_indices().map(|(at, _)| at).chain([folded.len()]).collect();
    let part = |ends: &[usize]| fnv(&folded.as_bytes()[ends[0]..ends[ends.len() - 1]]);
    let mut parts: Vec<u64> = ends.windows((PART + 1).min(ends.len())).map(part).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// Computes FNV-1a with a final mixing step (from MurmurHash3), because callers use the low bits alone.
fn fnv(bytes: &[u8]) -> u64 {
    let hash =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// Returns the Jaccard similarity of two texts, from 0 to 1: the number of common parts divided by the number of parts
/// of either.
pub fn similarity(one: &[u64], other: &[u64]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0usize);
    while i < one.len() && j < other.len() {
        match one[i].cmp(&other[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, common) = (i + 1, j + 1, common + 1),
        }
    }
    let all = one.len() + other.len() - common;
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

/// Returns the number of hashes in a band. With bands of this size, texts of similarity `threshold` share a band with a
/// probability above 0.999. Lower thresholds need smaller bands.
pub fn band_len(threshold: f64) -> usize {
    if threshold >= 0.85 { 4 } else { 2 }
}

/// Returns the bands of a folded text, from Broder's min-wise hashes. Texts that share a band may be similar.
pub fn bands(folded: &str, band_len: usize) -> Vec<u32> {
    let mut least = [u32::MAX; HASHES];
    for part in parts(folded) {
        let mut state = part;
        for least in &mut least {
            // A multiplication by an odd constant suffices here, because `part` is already mixed.
            state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x632b_e59b_d9b4_e019);
            *least = (*least).min((state >> 32) as u32);
        }
    }
    least.chunks(band_len).map(|band| fnv(bytemuck::cast_slice(band)) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_and_numbering_do_not_matter_and_numbers_do() {
        let plain = fold("What is the area of the triangle ABC, if AB = 3 and BC = 4.5?");
        for same in [
            "<image>What is the  area of the triangle\nABC , if AB=3 and BC = 4.5 ?",
            "12. What is the area of the triangle ABC, if AB = 3 and BC = 4.5?",
            "(7) what is the area of the triangle ABC, if AB = 3 and BC = 4.5?\n",
            "Question 3: What is the area of the triangle ABC, if AB = 3 and BC = 4.5? <image>",
        ] {
            assert_eq!(fold(same), plain, "{same}");
        }
        let other = fold("What is the area of the triangle ABC, if AB = 3 and BC = 4.6?");
        assert!(numbers(&plain) != numbers(&other) && similarity(&parts(&plain), &parts(&other)) > 0.8);
        assert_ne!(fold("3.5 + 2 = ?"), fold("5 + 2 = ?"));
        assert_ne!(fold("1 2"), fold("12"));
        assert_eq!(fold("\u{201c}a\u{201d} \u{2013} b"), fold("\"A\" - b"));
    }

    #[test]
    fn texts_that_are_alike_share_a_band() {
        let text = |i: u32| {
            format!("Let f be a function with f({i}) = {} that maps whole numbers to whole ones; what is f?", i * i)
        };
        let mut shared = 0;
        for i in 0..200 {
            let (one, other) = (fold(&text(i)), fold(&text(i).replace("whole ones", "whole ons")));
            let alike = similarity(&parts(&one), &parts(&other));
            assert!((0.85..1.0).contains(&alike), "{alike}");
            let bands = [bands(&one, band_len(0.9)), bands(&other, band_len(0.9))];
            shared += usize::from(bands[0].iter().zip(&bands[1]).any(|(a, b)| a == b));
        }
        assert!(shared >= 199, "{shared} of 200");
        let far = [bands(&fold("What colour is the car?"), 4), bands(&fold("How many people are there?"), 4)];
        assert!(far[0].iter().zip(&far[1]).all(|(a, b)| a != b));
        assert_eq!(similarity(&[], &[]), 1.0);
    }
}
