//! Tests rewards by the type of a row: how rows are read, who scores them, and each fault's error.

use std::fs;
use std::sync::Arc;

use omr_base::config::{DatasetConfig, JudgeConfig, ProgramConfig, Rewards, ScorerConfig};
use omr_base::error::{Error, Result};
use omr_base_tests::reward::judge_server::{Server, block};
use omr_data::reward::judge::{Ruling, rating};
use omr_data::reward::{Item, Judged, Mode, Score, Scorer, score};
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Form, Row, read, write};
use omr_model::nn::ModelConfig;
use omr_model::rollout::Question;
use omr_model_tests::models::encoder;
use serde_json::{Value, json};

use crate::training::tiny;

/// Rows as Vero's script writes them.
fn vero_row(kind: &str, label: &str) -> Value {
    json!({
        "id": format!("{kind}-1"), "data_source": "made", "ability": "spatial_action", "images": ["made/shot.png"],
        "prompt": [{"role": "user", "content": "<image>Where is the button?"}],
        "reward_model": {"style": "rule", "ground_truth": label},
        "extra_info": {
            "id": "1", "split": "train", "index": 0, "question": "Where is the button?", "answer": label,
            "reward_type": kind, "tolerance": null,
        },
    })
}

fn rows_of(lines: &[Value], change: impl FnOnce(&mut DatasetConfig)) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("made")).unwrap();
    image::RgbImage::new(200, 100).save(dir.path().join("made/shot.png")).unwrap();
    let path = dir.path().join("rows.jsonl");
    fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let mut entry = DatasetConfig { data_folder: Some(dir.path().to_owned()), ..read::entry(&path) };
    change(&mut entry);
    let rows = read::read(&entry)?;
    // The images are read before the folder is removed.
    rows.into_iter().map(|row| row.embedded().map_err(Error::from)).collect()
}

/// Returns an item of a row with this type and label, with an answer in the right format.
fn item(extra_info: Value, label: &str, answer: &str) -> Item {
    Item {
        response: format!("<think>t</think><answer>{answer}</answer>"),
        ground_truth: label.to_owned(),
        question: Some("What is drawn?".to_owned()),
        extra_info: extra_info.as_object().unwrap().clone(),
        place: "rows.jsonl row 7".to_owned(),
        ..Item::default()
    }
}

#[test]
fn rows_of_vero_load_as_they_are() {
    let label = r#"[{"bbox_2d": [10, 20, 30, 40]}]"#;
    let rows = rows_of(&[vero_row("clicking", label)], |_| {}).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let parquet = dir.path().join("rows.parquet");
    write::write(&parquet, &rows, Form::Rl).unwrap();
    for rows in [rows, read::read(&read::entry(&parquet)).unwrap()] {
        let row = &rows[0];
        assert_eq!((row.ground_truth.as_deref(), row.images.len()), (Some(label), 1));
        assert_eq!((&row.extra["reward_type"], &row.extra["domain"]), (&json!("clicking"), &json!("spatial_action")));
        let item = row.item();
        assert_eq!(item.extra_info["image_sizes"], json!([[200, 100]]));
        let hit = Item {
            response: r#"<think>t</think><answer>[{"point_2d": [12, 22]}]</answer>"#.to_owned(),
            ground_truth: label.to_owned(),
            ..item
        };
        let acc = |normalize_bbox_to_1000| {
            let config = ScorerConfig { normalize_bbox_to_1000, ..ScorerConfig::default() };
            let scorer = Scorer::new(Mode::Strict, None, &config, "reward", None, || unreachable!()).unwrap();
            scorer.by_rules(&hit).unwrap().acc_score
        };
        assert_eq!([acc(false), acc(true)], [1.0, 0.0], "pixels, or normalised to 1000");
    }
}

#[test]
fn type_and_domain_can_be_columns() {
    let row = json!({"problem": "1 + 1", "answer": "2", "reward_type": "numeric", "domain": "stem"});
    let named = json!({"problem": "1 + 1", "answer": "2", "kind": "numeric", "subject": "stem", "reward_type": 3});
    let plain = rows_of(&[row], |_| {}).unwrap();
    let given = rows_of(std::slice::from_ref(&named), |entry| {
        entry.columns.reward_type = Some("kind".to_owned());
        entry.columns.domain = Some("subject".to_owned());
    });
    for rows in [plain, given.unwrap()] {
        assert_eq!((&rows[0].extra["reward_type"], &rows[0].extra["domain"]), (&json!("numeric"), &json!("stem")));
    }
    let wrong = rows_of(&[named], |entry| entry.columns.reward_type = Some("reward_type".to_owned()));
    let error = wrong.unwrap_err().to_string();
    assert!(error.contains("rows.jsonl row 1") && error.contains("a number in `reward_type`"), "{error}");
}

#[test]
fn a_question_keeps_the_sizes_of_its_image() {
    let row = rows_of(&[vero_row("grounding", "[]"), vero_row("numeric", "1")], |_| {}).unwrap();
    let dir = tempfile::tempdir().unwrap();
    tiny::base_model(dir.path());
    let config = ModelConfig::load(&dir.path().join("config.json")).unwrap();
    let encoder = encoder(dir.path(), EncodingPurpose::Ask);
    let [boxes, number] = [0, 1].map(|i| Question::new(&encoder, &config, row[i].clone()).unwrap().0);
    let pixels = &boxes.prompt.pixels[0];
    let [_, h, w] = pixels.grid_thw.map(|patches| patches as usize * config.grid().patch_size);
    assert!(boxes.row.images.is_empty() && pixels.pixels.len() == h * w * 3 && (w, h) != (200, 100));
    assert_eq!(boxes.row.item().extra_info["image_sizes"], json!([[200, 100]]));
    assert_eq!(boxes.row.item().extra_info["processed_image_sizes"], json!([[w, h]]));
    assert_eq!(number.row.extra, row[1].extra, "other rows stay as they are");
}

/// Faults of rows, each with its mode, label, fields of `extra_info` and what the error contains.
#[test]
fn each_fault_names_the_row_the_type_and_what_is_expected() {
    let strict =
        |extra: Value, label: &'static str, parts: &'static [&'static str]| (Mode::Strict, extra, label, parts);
    let boxes = r#"[{"bbox_2d": [0, 0, 9, 9]}]"#;
    let cases = [
        strict(json!({"reward_type": "strng_match"}), "x", &["\"strng_match\"", "string_match (the nearest name)"]),
        strict(
            json!({"reward_type": "exact_match"}),
            "x",
            &["\"exact_match\"", "`rewards: {exact_match: {command: [...]}}`"],
        ),
        strict(json!({"reward_type": 3}), "x", &["reward_type \"3\"", "one of string_match, counting,"]),
        strict(
            json!({"reward_type": "instruction_following"}),
            "x",
            &["`rewards: {instruction_following: {command: [...]}}`"],
        ),
        (
            Mode::Compat,
            json!({"reward_type": "Instruction_following_llm_judge"}),
            "x",
            &["instruction_following_llm_judge"],
        ),
        (Mode::Compat, json!({"reward_type": "llm_judge"}), "x", &["llm_judge and no judge", "`judge: {base_url"]),
        strict(json!({"reward_type": "numeric"}), "many", &["the label \"many\"", "reward_type numeric", "a number"]),
        strict(json!({"reward_type": "numeric", "tolerance": "some"}), "2", &["the tolerance \"some\"", "a number"]),
        strict(json!({"reward_type": "numeric", "tolerance": -1}), "2", &["the tolerance -1", "0 or more"]),
        strict(json!({"reward_type": "number_list"}), "none", &["the label \"none\"", "whole numbers"]),
        strict(json!({"reward_type": "web_action"}), "click", &["the label \"click\"", "ACTION"]),
        strict(json!({"reward_type": "list_string_match"}), "[]", &["the label \"[]\"", "letters or digits"]),
        strict(json!({"reward_type": "grounding"}), boxes, &["no image size", "an image"]),
        strict(json!({"reward_type": "clicking", "image_sizes": [[9, 9]]}), "[1, 2]", &["the label", "bbox_2d"]),
    ];
    for (mode, extra, label, parts) in cases {
        let error = Scorer::rules(mode).score_all(vec![item(extra.clone(), label, "x")]).remove(0).unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{extra}: {error}");
        let error = error.to_string();
        for part in ["rows.jsonl row 7"].iter().chain(parts) {
            assert!(error.contains(part), "{extra} {label}: {part} is not in {error}");
        }
    }
}

#[test]
fn rows_without_a_type_are_scored_as_before() {
    for mode in [Mode::Strict, Mode::Compat] {
        for extra in [json!({}), json!({"reward_type": null}), json!({"reward_type": " "}), json!({"domain": "stem"})] {
            let item = item(extra, "1/2", "0.5");
            let before: Score = score(&item.response, "1/2", item.question.as_deref(), mode);
            assert_eq!(Scorer::rules(mode).by_rules(&item).unwrap(), before);
        }
    }
    let unknown = item(json!({"reward_type": "exact_match"}), "1/2", "\\boxed{\\frac{1}{2}}");
    assert_eq!(Scorer::rules(Mode::Compat).by_rules(&unknown).unwrap().acc_score, 1.0, "equal by math-verify");
    let unknown = item(json!({"reward_type": "exact_match"}), "Red", "red");
    assert_eq!(Scorer::rules(Mode::Compat).by_rules(&unknown).unwrap().acc_score, 1.0);
}

fn program(script: &str) -> Rewards {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    [("Instruction_Following".to_owned(), ProgramConfig { command, workers: 1, ..ProgramConfig::default() })].into()
}

#[test]
fn a_program_scores_the_rows_of_its_type() {
    let scorer = |script: &str| Scorer::rules(Mode::Strict).with_programs(&program(script), "rewards");
    let items = || {
        vec![
            item(json!({"reward_type": "instruction_following"}), "{}", "x"),
            item(json!({"reward_type": "string_match"}), "x", "\\boxed{x}"),
        ]
    };
    let scores: Vec<f64> = scorer("while read -r line; do echo '{\"score\": 0.25}'; done")
        .unwrap()
        .score_all(items())
        .into_iter()
        .map(|judged| judged.unwrap().score.score.unwrap())
        .collect();
    assert_eq!(scores, [0.25, 1.0]);
    let fails = scorer("read -r line; echo no idea >&2; exit 3").unwrap();
    let [failed, other] = fails.score_all(items()).try_into().unwrap();
    let error = failed.unwrap_err().to_string();
    assert!(error.contains("rows.jsonl row 7") && error.contains("no idea"), "{error}");
    assert_eq!(other.unwrap().score.acc_score, 1.0);
    assert!(fails.check(items().remove(0)).is_err(), "found before the first rollout");
    let missing = Rewards::from([("search".to_owned(), ProgramConfig::default())]);
    let error = Scorer::rules(Mode::Strict).with_programs(&missing, "rewards").err().unwrap().to_string();
    assert!(error.contains("rewards.search.command"), "{error}");
}

fn judged(server: &Server, mode: Mode, change: impl FnOnce(&mut JudgeConfig), items: Vec<Item>) -> Vec<Result<Judged>> {
    let mut config = JudgeConfig {
        base_url: vec![server.base_url.clone()],
        model: "j".to_owned(),
        max_retries: 0,
        ..JudgeConfig::default()
    };
    change(&mut config);
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap());
    let handle = runtime.handle().clone();
    let scorer = Scorer::new(mode, Some(&config), &ScorerConfig::default(), "reward", None, || Ok(handle)).unwrap();
    scorer.score_all(items)
}

#[test]
fn a_judge_scores_from_1_to_10_and_only_rows_of_its_type() {
    let server = Server::start();
    let llm = |answer: &str| item(json!({"reward_type": "llm_judge"}), "a cat", answer);
    let items =
        || vec![llm("ten"), llm("yes"), llm("prose"), llm("both"), item(json!({"reward_type": "numeric"}), "3", "4")];
    let parts = |mode| -> Vec<(Option<f64>, Option<String>)> {
        let word = |ruling| match ruling {
            Ruling::Said(number) => number.to_string(),
            Ruling::Unjudged(why) => why,
        };
        let all = judged(&server, mode, |_| {}, items()).into_iter().map(Result::unwrap);
        all.map(|judged| (judged.score.accuracy(), judged.judge.map(word))).collect()
    };
    let said = |number: &str| Some(number.to_owned());
    let unjudged = |text: &str| Some(format!("the judge replied {text:?}"));
    let strict = parts(Mode::Strict);
    assert_eq!(strict[..2], [(Some(1.0), said("1")), (Some(0.0), said("0"))], "10 and 1 of 10");
    assert_eq!(strict[2..4], [(None, unjudged("I think it is correct.")), (None, unjudged("1 or 0"))], "no score");
    assert_eq!(strict[4], (Some(0.0), None), "the rule of a number decides alone");
    assert_eq!(parts(Mode::Compat)[3], (Some(0.0), said("0")), "the first standing number");
    let bodies = &server.seen.lock().unwrap().bodies;
    assert_eq!(bodies.len(), 8);
    let prompt = bodies[0]["messages"][0]["content"][0]["text"].as_str().unwrap();
    assert_eq!(block(prompt, "Question"), Some("What is drawn?"));
    assert_eq!(block(prompt, "Reference answer"), Some("a cat"));
    assert!(prompt.ends_with("one whole number from 1 to 10."), "{prompt}");
}

#[test]
fn a_judge_that_is_down_ends_the_scoring() {
    let server = Server::start();
    let items = (0..6).map(|i| item(json!({"reward_type": "llm_judge"}), &i.to_string(), "down")).collect();
    let down = judged(&server, Mode::Compat, |config| (config.max_failures, config.concurrency) = (2, 1), items);
    let errors: Vec<_> = down.into_iter().filter_map(Result::err).collect();
    assert!(errors.len() >= 5, "{errors:?}");
    for error in errors {
        assert!(matches!(error, Error::Server { .. }), "{error}");
        assert!(error.to_string().contains("2 consecutive requests to the judge failed"), "{error}");
    }
}

#[test]
fn strict_takes_only_a_standing_score() {
    for (reply, strict, compat) in [
        ("8", Some(8.0), Some(8.0)),
        ("Score: **8**/10", None, Some(8.0)),
        ("**SCORE:** 8/10.", Some(8.0), Some(8.0)),
        ("```json\n{\"REASONING\": \"3 objects\", \"SCORE\": \"8\"}\n```", Some(8.0), Some(8.0)),
        ("<think>2 or 3?</think>\n7.5", Some(7.5), Some(2.0)),
        ("There are 3 objects.", None, Some(3.0)),
        ("{\"REASONING\": \"3 objects\"}", None, Some(3.0)),
        ("{\"SCORE\": 11}", None, Some(11.0)),
        ("{\"SCORE\": true}", None, Some(1.0)),
        ("-3", None, Some(3.0)),
        ("0", None, None),
    ] {
        assert_eq!([Mode::Strict, Mode::Compat].map(|mode| rating::of(reply, mode)), [strict, compat], "{reply:?}");
    }
}
