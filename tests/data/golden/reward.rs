//! Compares compat mode with the published scorer, run by its authors' code (`goldens/reward`).

use omr_base::config::JudgeConfig;
use omr_base::error::{Error, Result};
use omr_data::reward::judge::{Reply, Request};
use omr_data::reward::{self, Mode};
use omr_verify::compat::mcq;
use omr_verify::extract;
use serde_json::{Value, json};

fn cases(name: &str) -> Vec<Value> {
    let files = omr_base_tests::golden::entries(&omr_base_tests::golden::dir().join("reward"), name, ".json");
    files.iter().flat_map(|f| omr_base_tests::golden::json(f).as_array().unwrap().clone()).collect()
}

fn run(name: &str, check: impl Fn(&Value, &str)) {
    let cases = cases(&format!("{name}."));
    for case in &cases {
        check(case, case["id"].as_str().unwrap());
    }
    omr_base_tests::golden::report(name, cases.len());
}

#[test]
fn every_file_has_a_test() {
    let known = ["compute_score", "extract", "judge", "parse_mcq", "relax_match", "think_strip"];
    let files = omr_base_tests::golden::entries(&omr_base_tests::golden::dir().join("reward"), "", ".json");
    for file in &files {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        assert!(known.contains(&stem), "{}: no test", file.display());
    }
    omr_base_tests::golden::report("reward", files.len());
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("{}: {key} is {}", case["id"], case[key]))
}

#[test]
fn extraction() {
    run("extract", |case, id| {
        let input = text(case, "input");
        assert_eq!(extract::boxes(input).last().copied().unwrap_or_default(), text(case, "boxed"), "{id}: {input:?}");
        let (raw, path) = extract::extract(input, Mode::Compat);
        assert_eq!((&*raw, path.name()), (text(case, "extracted"), text(case, "path")), "{id}: {input:?}");
        assert_eq!(extract::predict_str(input, Mode::Compat).0, text(case, "predict_str"), "{id}: {input:?}");
        let format = extract::format_score(input, Mode::Compat, omr_verify::Format::ThinkAnswerBoxed);
        assert_eq!(Some(format), case["format_reward_score"].as_f64(), "{id}: {input:?}");
    });
}

#[test]
fn parse_mcq() {
    run("parse_mcq", |case, id| {
        let input = text(case, "input");
        assert_eq!(mcq::parse_mcq(input), text(case, "output"), "{id}: {input:?}");
    });
}

#[test]
fn relax_match() {
    run("relax_match", |case, id| {
        let (predict, truth) = (text(case, "predict"), text(case, "ground_truth"));
        let got = f64::from(mcq::relaxed_match(predict, truth));
        assert_eq!(Some(got), case["output"].as_f64(), "{id}: {predict:?} and {truth:?}");
        assert_eq!(extract::simple_parse(predict), text(case, "predict_simple_parse"), "{id}");
        assert_eq!(extract::simple_parse(truth), text(case, "ground_truth_simple_parse"), "{id}");
    });
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("{}: {key} is {}", case["id"], case[key]))
}

/// Compares a compat score with a case. Returns the keys that differ, or an empty list.
fn differences(response: &str, case: &Value, acc: &str, format: &str) -> Vec<String> {
    let got = reward::score(response, text(case, "ground_truth"), None, Mode::Compat);
    let mut wrong = Vec::new();
    for (key, value) in [(acc, got.acc_score), (format, got.format_reward_score)] {
        if value != number(case, key) {
            wrong.push(format!("{key} {value} instead of {}", case[key]));
        }
    }
    if acc == "acc_score" {
        let found = got.score.expect("a score");
        if (found - number(case, "score")).abs() > 1e-12 {
            wrong.push(format!("score {found} instead of {}", case["score"]));
        }
        if case["accuracy_path"].as_str().is_some_and(|path| path != got.why) {
            wrong.push(format!("why {} instead of {}", got.why, case["accuracy_path"]));
        }
        if got.predict_str != text(case, "predict_str") {
            wrong.push(format!("predict_str {:?}", got.predict_str));
        }
    }
    wrong
}

#[test]
fn compute_score() {
    run("compute_score", |case, id| {
        let response = text(case, "response");
        let wrong = differences(response, case, "acc_score", "format_reward_score");
        let shown = format!("{:?} gold {:?}", text(case, "predict_str"), text(case, "ground_truth"));
        assert!(wrong.is_empty(), "{id}: {shown}: {wrong:?}");
        assert_eq!(extract::extract(response, Mode::Compat).1.name(), text(case, "extraction_path"), "{id}");
        let gold = extract::simple_parse(text(case, "ground_truth"));
        assert_eq!(gold, text(case, "ground_truth_normalised"), "{id}");
    });
}

#[test]
fn think_strip() {
    run("think_strip", |case, id| {
        let response = text(case, "response");
        let stripped = extract::strip_think(response, Mode::Compat);
        assert_eq!(stripped, text(case, "stripped"), "{id}: {response:?}");
        let mut wrong = differences(&stripped, case, "acc_score", "format_reward_score");
        wrong.extend(differences(response, case, "raw_acc_score", "raw_format_reward_score"));
        assert!(wrong.is_empty(), "{id}: {response:?}: {wrong:?}");
    });
}

/// Judge that answers with the replies of a case and records its requests.
struct Stub<'a> {
    replies: std::slice::Iter<'a, Value>,
    asked: Vec<Value>,
}

impl Stub<'_> {
    fn ask(&mut self, request: &Request<'_>) -> Result<Reply> {
        let mut payload = request.payload(&JudgeConfig { model: "judge".into(), ..JudgeConfig::default() })?;
        // We add the temperature, because a verdict must not be random.
        assert_eq!(payload.as_object_mut().unwrap().remove("temperature"), Some(json!(0.0)));
        let mut keys: Vec<&String> = payload.as_object().unwrap().keys().collect();
        keys.sort();
        let parts = &payload["messages"][0]["content"];
        let types: Vec<&Value> = parts.as_array().unwrap().iter().map(|p| &p["type"]).collect();
        self.asked.push(json!({
            "prediction_kind": if request.full_response { "full_response" } else { "extracted" },
            "with_question": request.question.is_some(),
            "prediction": (!request.full_response).then_some(request.prediction),
            "model": payload["model"],
            "max_tokens": payload["max_tokens"],
            "payload_keys": keys,
            "n_messages": payload["messages"].as_array().unwrap().len(),
            "part_types": types,
        }));
        let prompt = parts[0]["text"].as_str().unwrap();
        assert!(prompt.contains(request.ground_truth) && prompt.contains(request.prediction));
        match self.replies.next() {
            Some(Value::String(s)) if s == "__RAISE__" => Err(Error::Failed("no connection".into())),
            Some(Value::String(s)) => Ok(Reply::Said(s.clone())),
            _ => Ok(Reply::Said(String::new())),
        }
    }
}

#[test]
fn judge() {
    run("judge", |case, id| {
        let Some(truth) = case["ground_truth"].as_str() else {
            // Our reader rejects a gold answer that is not a text. The original program raised an exception.
            assert!(!case["raises"].is_null() && case["n_calls"] == 0, "{id}");
            return;
        };
        let question =
            case["extra_info"].get("question").map(|q| q.as_str().map_or_else(|| q.to_string(), str::to_owned));
        let mut stub = Stub { replies: case["judge_replies"].as_array().unwrap().iter(), asked: Vec::new() };
        let response = text(case, "response");
        let judged = super::judged::judged(response, truth, question.as_deref(), |request| stub.ask(request));
        assert_eq!(stub.asked.len() as u64, case["n_calls"].as_u64().unwrap(), "{id}: calls");
        for (asked, call) in stub.asked.iter().zip(case["calls"].as_array().unwrap()) {
            for (key, value) in asked.as_object().unwrap() {
                assert_eq!(*value, call[key], "{id}: {key}");
            }
        }
        match judged {
            Err(_) => assert_eq!(case["raises"], "ConnectionError", "{id}"),
            Ok(judged) => {
                assert!(case["raises"].is_null(), "{id}: {} expected", case["raises"]);
                assert_eq!(judged.calls, stub.asked.len(), "{id}");
                let s = judged.score;
                assert_eq!(s.acc_score, number(case, "acc_score"), "{id}");
                assert_eq!(s.format_reward_score, number(case, "format_reward_score"), "{id}");
                assert!((s.score.unwrap() - number(case, "score")).abs() <= 1e-12, "{id}: {s:?}");
                assert_eq!(s.predict_str, text(case, "predict_str"), "{id}");
                assert_eq!(extract::simple_parse(truth), text(case, "ground_truth_normalised"), "{id}");
            }
        }
    });
}
