//! `goldens/reward`: the published scorer, run by its authors' code, in compat mode.

use omr::reward::{Mode, choice, extract};
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
