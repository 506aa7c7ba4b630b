//! Tests that the words of a model family are written in few places: everything else reads them from the configuration.

use std::fs;

use regex::Regex;

use super::imports::code;
use crate::sources;

/// Files in which such words may be written: the families, the tokenizer and models that recipes make, and keys of other
/// programs.
const ALLOWED: &[&str] = &[
    "src/model/nn/family/",
    "src/data/text/train.rs",
    "src/model/llm/new_model.rs",
    "src/app/recipe/",
    "src/data/task/recipe",
    "src/base/config/foreign",
];

/// A configuration that only tests read.
const OF_TESTS: &[&str] = &["src/model/nn/tiny.rs"];

#[test]
fn words_of_a_family_are_written_in_the_family() {
    let text = Regex::new(r#""(?:[^"\\]|\\.)*""#).unwrap();
    let words = Regex::new(r"qwen2_5_vl|Qwen2_5|<\|(im_end|im_start|endoftext|vision_|image_pad|video_pad)|\bvisual\.")
        .unwrap();
    let ids = Regex::new(r"\b151_6\d\d\b").unwrap();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in ["src", "bench/src"].iter().flat_map(|folder| sources(&crate::root().join(folder))) {
        let inner = file.strip_prefix(crate::root()).unwrap().to_str().unwrap().to_owned();
        if OF_TESTS.contains(&inner.as_str()) || inner.ends_with("tests.rs") {
            continue;
        }
        let code = code(&fs::read_to_string(&file).unwrap());
        let literals = text.find_iter(&code).map(|found| found.as_str()).filter(|literal| words.is_match(literal));
        let named: Vec<&str> = literals.chain(ids.find_iter(&code).map(|found| found.as_str())).collect();
        match ALLOWED.iter().any(|place| inner.starts_with(place)) {
            true => seen += named.len(),
            false => wrong.extend(named.iter().map(|word| format!("{inner}: {word}"))),
        }
    }
    assert!(seen > 0, "no file of a family has such a word: the patterns find nothing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
