//! `goldens/reward`: the published scorer, run by its authors' code, in compat mode.

use omr::reward::{self, Mode, choice, extract};
use serde_json::Value;

fn cases(name: &str) -> Vec<Value> {
    let files = super::entries(&super::dir().join("reward"), name, ".json");
    files.iter().flat_map(|f| super::json(f).as_array().unwrap().clone()).collect()
}

fn run(name: &str, check: impl Fn(&Value, &str)) {
    let cases = cases(&format!("{name}."));
    for case in &cases {
        check(case, case["id"].as_str().unwrap());
    }
    super::report(name, cases.len());
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
        assert_eq!((raw, path.name()), (text(case, "extracted"), text(case, "path")), "{id}: {input:?}");
        assert_eq!(extract::predict_str(input, Mode::Compat).0, text(case, "predict_str"), "{id}: {input:?}");
        let format = extract::format_score(input, Mode::Compat);
        assert_eq!(Some(format), case["format_reward_score"].as_f64(), "{id}: {input:?}");
    });
}

#[test]
fn parse_mcq() {
    run("parse_mcq", |case, id| {
        let input = text(case, "input");
        assert_eq!(choice::parse_mcq(input), text(case, "output"), "{id}: {input:?}");
    });
}

#[test]
fn relax_match() {
    run("relax_match", |case, id| {
        let (predict, truth) = (text(case, "predict"), text(case, "ground_truth"));
        let got = f64::from(choice::relaxed_match(predict, truth));
        assert_eq!(Some(got), case["output"].as_f64(), "{id}: {predict:?} and {truth:?}");
        assert_eq!(extract::simple_parse(predict), text(case, "predict_simple_parse"), "{id}");
        assert_eq!(extract::simple_parse(truth), text(case, "ground_truth_simple_parse"), "{id}");
    });
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("{}: {key} is {}", case["id"], case[key]))
}

/// Compares a compat score with a case; the differing keys, empty when all agree.
fn differences(response: &str, case: &Value, acc: &str, format: &str) -> Vec<String> {
    let got = reward::score(response, text(case, "ground_truth"), None, Mode::Compat);
    let mut wrong = Vec::new();
    for (key, value) in [(acc, got.acc_score), (format, got.format_reward_score)] {
        if value != number(case, key) {
            wrong.push(format!("{key} {value} instead of {}", case[key]));
        }
    }
    if acc == "acc_score" {
        if (got.score - number(case, "score")).abs() > 1e-12 {
            wrong.push(format!("score {} instead of {}", got.score, case["score"]));
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
        let stripped = extract::strip_think(response);
        assert_eq!(stripped, text(case, "stripped"), "{id}: {response:?}");
        let mut wrong = differences(&stripped, case, "acc_score", "format_reward_score");
        wrong.extend(differences(response, case, "raw_acc_score", "raw_format_reward_score"));
        assert!(wrong.is_empty(), "{id}: {response:?}: {wrong:?}");
    });
}
