//! Rewards by the type of a row, beside the scores of Vero's own code (`tests/data/vero`, see its README).

use std::collections::BTreeMap;
use std::path::Path;

use omr_verify::Mode;
use omr_verify::typed::{Details, Label, RewardType, normal};
use serde_json::Value;

fn cases(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vero").join(file);
    let read: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    read["cases"].as_array().unwrap().clone()
}

fn details(extra: &Value) -> Details {
    let side = |size: &Value, name: &str, at: usize| size[name].as_f64().or_else(|| size[at].as_f64());
    let both = |size: &Value| Some((side(size, "width", 0)?, side(size, "height", 1)?));
    let number = |key: &str| extra[key].as_f64().or_else(|| extra[key].as_str()?.parse().ok());
    let weights = &extra["grounding_component_weights"];
    let weights = ["location", "recall", "penalty"].map(|key| weights[key].as_f64());
    Details {
        tolerance: number("tolerance"),
        image_size: both(&extra["image_sizes"][0])
            .or_else(|| both(extra.get("image_size").filter(|size| size.is_object())?)),
        processed_size: None,
        normalize_bbox_to_1000: extra["normalize_bbox_to_1000"].as_bool().unwrap_or(false),
        iou_threshold: number("iou_threshold"),
        component_weights: weights.iter().copied().collect::<Option<Vec<f64>>>().map(|all| all.try_into().unwrap()),
    }
}

/// Categories that are not supported, with their numbers of cases.
const LEFT_OUT: [(&str, usize); 2] = [("molmo2", 8), ("judge_without_judge", 2)];

#[test]
fn golden_vero_rewards() {
    let (mut seen, mut wrong) = (BTreeMap::new(), Vec::new());
    for case in cases("rewards.json") {
        let text = |key: &str| case[key].as_str().unwrap();
        let number = |key: &str| case[key].as_f64().unwrap();
        *seen.entry(text("category").to_owned()).or_insert(0) += 1;
        let kind = case["extra_info"]["reward_type"].as_str().unwrap_or_default();
        let is_left_out = LEFT_OUT.iter().any(|(category, _)| *category == text("category"));
        if is_left_out || kind.trim().to_lowercase().starts_with("instruction_following") {
            continue;
        }
        let kind = RewardType::of(kind).unwrap_or(RewardType::Unknown);
        let label = Label::read(kind, text("ground_truth"), &details(&case["extra_info"]), Mode::Compat).unwrap();
        let scores = label.score(text("response"));
        if (scores.accuracy - number("accuracy")).abs() > 1e-12 || scores.format != number("format") {
            wrong.push(format!("{case}: {scores:?}"));
        }
    }
    for (category, count) in LEFT_OUT {
        assert_eq!(seen[category], count, "{category}");
    }
    assert_eq!(seen.values().sum::<usize>(), 645);
    assert!(wrong.is_empty(), "{} differ: {}", wrong.len(), wrong.join("\n"));
}

#[test]
fn golden_vero_normalize() {
    let cases = cases("normalize.json");
    assert_eq!(cases.len(), 23);
    for case in cases {
        assert_eq!(normal(case["input"].as_str().unwrap(), Mode::Compat), case["output"].as_str().unwrap(), "{case}");
    }
}

/// The intersection of two boxes divided by their union is 1 to 12 decimals only for equal boxes.
#[test]
fn golden_vero_bbox() {
    let cases = cases("bbox.json");
    assert_eq!(cases.len(), 16);
    let mut left_as_they_are = 0;
    for case in cases {
        let label = case["ground_truth"].as_str().unwrap();
        let size = |key: &str| Some((case[key][0].as_f64().unwrap(), case[key][1].as_f64().unwrap()));
        for (normalize_bbox_to_1000, key) in [(false, "rescaled"), (true, "normalized_to_1000")] {
            let details = Details {
                image_size: size("source_size"),
                processed_size: size("processed_size"),
                normalize_bbox_to_1000,
                // Only the mean overlap counts, so the score is not clipped.
                component_weights: Some([1.0, 0.0, 0.0]),
                ..Details::default()
            };
            left_as_they_are += usize::from(case[key].is_null());
            let Some(boxes) = case[key].as_str() else { continue };
            for mode in [Mode::Strict, Mode::Compat] {
                let score = accuracy("grounding", label, &details, boxes, mode);
                assert!((score - 1.0).abs() < 1e-12, "{mode:?} {key}: {case}: {score}");
            }
        }
    }
    assert_eq!(left_as_they_are, 3, "a label that is no JSON (twice), and an image that is not resized");
}

#[test]
fn pixels_are_those_of_the_image_that_the_model_sees() {
    let details =
        Details { image_size: Some((100.0, 80.0)), processed_size: Some((200.0, 160.0)), ..Details::default() };
    let hits = |point: &str| {
        let answer = format!(r#"[{{"point_2d": {point}}}]"#);
        let label = r#"[{"bbox_2d": [90, 70, 100, 80]}]"#;
        [Mode::Strict, Mode::Compat].map(|mode| accuracy("clicking", label, &details, &answer, mode))
    };
    assert_eq!(hits("[95, 75]"), [0.0, 0.0]);
    // Vero limits the point by the original image.
    assert_eq!(hits("[190, 150]"), [1.0, 0.0]);
    let corners = r#"{"bbox_2d": [100, 80, 90, 70]}"#;
    let original = Details { processed_size: None, ..details };
    let score = |mode| accuracy("clicking", corners, &original, r#"[{"point_2d": [95, 75]}]"#, mode);
    assert_eq!([Mode::Strict, Mode::Compat].map(score), [1.0, 0.0], "corners in another order, outside a list");
}

/// Returns the accuracy of an answer in a box and the right format.
fn accuracy(kind: &str, label: &str, details: &Details, answer: &str, mode: Mode) -> f64 {
    let label = Label::read(RewardType::of(kind).unwrap(), label, details, mode).unwrap();
    label.score(&format!("<think>It is clear.</think><answer>\\boxed{{{answer}}}</answer>")).accuracy
}

/// Answers that the two modes score differently: type, label, answer, accuracy of `strict` and of `compat`.
const DIFFERENT: [(&str, &str, &str, f64, f64); 14] = [
    ("string_match", "-12", "12", 0.0, 1.0),
    ("string_match", "3.5", "3 5", 0.0, 1.0),
    ("counting", "12", "-12", 0.0, 1.0),
    ("multiple_choice", "A", "Option A", 1.0, 0.0),
    ("multiple_choice", "A", "A) a cat", 1.0, 0.0),
    ("multiple_choice", "(A) a cat", "A", 1.0, 0.0),
    ("list_string_match", r#"["-5", "x"]"#, "5", 0.0, 1.0),
    ("number_list", "[8, 2]", "8-2", 1.0, 0.0),
    ("number_list", "[2, 2]", "2, 2", 1.0, 0.0),
    ("number_list", "[1, 5, 2, 5, 0]", "1.5, 2.5, 0", 0.0, 0.0),
    ("numeric", "1000", "1e3", 1.0, 0.0),
    ("web_action", r#"{"ACTION": "CLICK"}"#, "```json\n{\"ACTION\": \"CLICK\"}\n```", 1.0, 0.0),
    ("grounding", r#"[{"bbox_2d": [0, 0, 9, 9]}]"#, "```json\n[{\"bbox_2d\": [0, 0, 9, 9]}]\n```", 1.0, 0.0),
    ("clicking", r#"[{"bbox_2d": [0, 0, 9, 9]}]"#, "```\n[{\"point_2d\": [4, 9]}]\n```", 1.0, 0.0),
];

#[test]
fn strict_corrects_what_the_published_rules_get_wrong() {
    let details = Details { image_size: Some((100.0, 80.0)), ..Details::default() };
    for (kind, label, answer, strict, compat) in DIFFERENT {
        for (mode, right) in [(Mode::Strict, strict), (Mode::Compat, compat)] {
            assert_eq!(accuracy(kind, label, &details, answer, mode), right, "{kind} {label} {answer} {mode:?}");
        }
    }
}

#[test]
fn one_of_two_boxes_does_not_get_the_full_score() {
    let details = Details { image_size: Some((100.0, 80.0)), ..Details::default() };
    let score = |answer, mode| {
        accuracy("grounding", r#"[{"bbox_2d": [0, 0, 9, 9]}, {"bbox_2d": [20, 20, 40, 40]}]"#, &details, answer, mode)
    };
    let (one, both) =
        (r#"[{"bbox_2d": [0, 0, 9, 9]}]"#, r#"[{"bbox_2d": [20, 20, 40, 40]}, {"bbox_2d": [0, 0, 9, 9]}]"#);
    assert_eq!([Mode::Compat, Mode::Strict].map(|mode| score(one, mode)), [1.0, 2.0 / 3.0]);
    assert_eq!([Mode::Compat, Mode::Strict].map(|mode| score(both, mode)), [1.0, 1.0]);
    // A box that is given twice is wrong once.
    let twice = r#"[{"bbox_2d": [20, 20, 40, 40]}, {"bbox_2d": [0, 0, 9, 9]}, {"bbox_2d": [0, 0, 9, 9]}]"#;
    assert_eq!(score(twice, Mode::Strict), 0.8);
}

#[test]
fn strict_names_a_label_that_a_rule_cannot_use() {
    let details = Details { tolerance: Some(-0.1), ..Details::default() };
    let read = |kind: &str, label: &str, mode| Label::read(RewardType::of(kind).unwrap(), label, &details, mode);
    for (kind, label, found) in [
        ("string_match", "?!", "found the label \"?!\", expected a text with letters or digits"),
        ("list_string_match", "[]", "found the label \"[]\""),
        ("numeric", "many apples", "expected a number"),
        ("numeric", "12", "found the tolerance -0.1, expected 0 or more"),
        ("number_list", "none", "expected whole numbers"),
        ("web_action", "click", "expected an object with"),
        ("grounding", r#"[{"bbox_2d": [0, 0, 9, 9]}]"#, "found no image size"),
    ] {
        let error = read(kind, label, Mode::Strict).unwrap_err().to_string();
        assert!(error.contains(found), "{kind}: {error}");
        assert_eq!(read(kind, label, Mode::Compat).map(|label| label.score("12").accuracy), Ok(0.0), "{kind}");
    }
}

#[test]
fn coordinates_of_responses_are_normalised_only_if_the_row_says_so() {
    let label = r#"[{"bbox_2d": [10, 8, 20, 16]}]"#;
    let score = |normalize_bbox_to_1000, answer: &str| {
        let details = Details { image_size: Some((100.0, 80.0)), normalize_bbox_to_1000, ..Details::default() };
        accuracy("clicking", label, &details, answer, Mode::Strict)
    };
    for (point, pixels, normalised) in [("[15, 12]", 1.0, 0.0), ("[150, 150]", 0.0, 1.0)] {
        let answer = format!(r#"[{{"point_2d": {point}}}]"#);
        assert_eq!([score(false, &answer), score(true, &answer)], [pixels, normalised]);
    }
}
