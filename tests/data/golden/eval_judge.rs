//! Compares the judge calls of the published tasks with `goldens/eval/*/golden_judge.json`: when a task calls its
//! judge, with which content, and how it uses the reply.

use std::path::Path;

use omr_base::error::Result;
use omr_data::reward::judge::{Reply, Request};
use omr_verify::python;
use serde_json::{Value, json};

/// The stub judge of the goldens: returns 1 if a short prediction contains the letters and digits of the gold answer.
fn stub_says(prediction: &str, gold: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    let gold = plain(gold);
    !gold.is_empty() && plain(prediction).contains(&gold) && python::len(prediction) < 60
}

struct Stub {
    calls: Vec<Value>,
}

impl Stub {
    fn ask(&mut self, request: &Request<'_>) -> Result<Reply> {
        let reply = if stub_says(request.prediction, request.ground_truth) { "1" } else { "0" };
        self.calls.push(json!({
            "prediction": request.prediction,
            "ground_truth": request.ground_truth,
            "with_question": request.question.is_some(),
            "reply": reply,
        }));
        Ok(Reply::Said(reply.to_owned()))
    }
}

/// Runs the cases of one task: its rows with the judge and its rows without.
fn task(dir: &Path) -> usize {
    let name = dir.file_name().unwrap().to_str().unwrap();
    let judged = omr_base_tests::golden::json(&dir.join("golden_judge.json"));
    let golden = ["golden.json", "golden_seed0.json"].map(|f| dir.join(f)).into_iter().find(|f| f.exists()).unwrap();
    let golden = omr_base_tests::golden::json(&golden);
    let rows = judged["rows"].as_array().unwrap();
    let (mut calls, mut turned) = (0, 0);
    for row in rows {
        let of_row = |r: &&Value| r["index"] == row["index"];
        let source = golden["rows"].as_array().unwrap().iter().find(of_row).unwrap();
        let place = format!("{name} row {}", row["index"]);
        let truth = source["scored_ground_truth"].as_str().unwrap();
        let question = source["judge_question"].as_str();
        let mut stub = Stub { calls: Vec::new() };
        let responses = source["responses"].as_array().unwrap();
        let (mut acc, mut format) = (0.0, 0.0);
        for (response, alone) in responses.iter().zip(source["score_details"].as_array().unwrap()) {
            let response = python::strip(response.as_str().unwrap());
            let scored = super::judged::judged(response, truth, question, |request| stub.ask(request)).unwrap();
            assert_eq!(scored.score.predict_str, alone["predict_str"].as_str().unwrap(), "{place}");
            assert_eq!(scored.score.format_reward_score, alone["format_reward_score"].as_f64().unwrap(), "{place}");
            turned += u64::from(scored.score.acc_score != alone["acc_score"].as_f64().unwrap());
            acc += scored.score.acc_score / responses.len() as f64;
            format += scored.score.format_reward_score / responses.len() as f64;
        }
        let want = row["calls"].as_array().unwrap();
        assert_eq!((stub.calls.len(), row["n_calls"].as_u64()), (want.len(), Some(want.len() as u64)), "{place}");
        for (call, want) in stub.calls.iter().zip(want) {
            for (key, value) in call.as_object().unwrap() {
                assert_eq!(*value, want[key], "{place}: {key}");
            }
        }
        calls += stub.calls.len() as u64;
        for (key, value) in [("acc_score", acc), ("format_score", format)] {
            if let Some(want) = row["metrics"][key].as_f64() {
                assert!((value - want).abs() < 1e-12, "{place}: {key} {value} instead of {want}");
            }
        }
    }
    assert_eq!((Some(calls), Some(turned)), (judged["n_calls"].as_u64(), judged["n_turned_to_1"].as_u64()), "{name}");
    rows.len()
}

#[test]
fn judge_of_the_published_tasks() {
    let tasks: Vec<_> = omr_base_tests::golden::entries(&omr_base_tests::golden::dir().join("eval"), "", "")
        .into_iter()
        .filter(|dir| dir.join("golden_judge.json").exists())
        .collect();
    let cases = tasks.iter().map(|dir| task(dir)).sum();
    omr_base_tests::golden::report("eval judge", cases);
}
