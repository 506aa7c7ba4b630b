//! Tests a user's own reward process: the answers that it may give, and that none of its failures becomes a score.

use std::path::Path;

use omr_base::config::ScorerConfig;
use omr_base::error::{Error, Result};
use omr_data::reward::shares::all_zero;
use omr_data::reward::{Item, Judged, Mode, Score, Scorer};

fn scorer(script: &str, workers: usize) -> Scorer {
    within(60.0, script, workers)
}

fn within(timeout_s: f64, script: &str, workers: usize) -> Scorer {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let config = ScorerConfig { command, workers, timeout_s, ..ScorerConfig::default() };
    Scorer::new(Mode::Strict, None, &config, "reward", None, || unreachable!("no judge is asked")).unwrap()
}

fn items(count: usize) -> Vec<Item> {
    let item = |i: usize| Item {
        response: format!("response {i}"),
        ground_truth: i.to_string(),
        question: None,
        place: format!("rows.jsonl row {}", i + 1),
        ..Item::default()
    };
    (0..count).map(item).collect()
}

fn failure(result: &Result<Judged>) -> String {
    let error = result.as_ref().unwrap_err();
    assert_eq!(error.exit_code(), 1);
    error.to_string()
}

#[test]
fn answers_come_back_in_the_order_of_the_rows() {
    // The score is the number after "id". The processes share the work dynamically.
    let script = "while read -r line; do id=${line#*'\"id\":'}; id=${id%%,*}; \
                  printf '{\"id\":%d,\"score\":%d.5,\"acc_score\":1,\"predict_str\":\"p\"}\\n' $id $id; done";
    let judged = scorer(script, 3).score_all(items(40));
    for (i, judged) in judged.into_iter().enumerate() {
        let score = judged.unwrap().score;
        assert_eq!((score.score, score.acc_score), (Some(i as f64 + 0.5), 1.0));
        assert_eq!((score.format_reward_score, score.predict_str.as_str()), (0.0, "p"));
    }
}

#[test]
fn a_process_that_dies_is_an_error_that_names_the_row_it_died_at() {
    let script = "read -r line; echo '{\"score\": 1}'; read -r line; echo 'KeyError: boom' >&2; exit 3";
    let judged = scorer(script, 1).score_all(items(4));
    assert_eq!(judged[0].as_ref().unwrap().score.score, Some(1.0));
    // The items after the failed one report that failure. They do not count as failed themselves.
    for judged in &judged[1..] {
        let text = failure(judged);
        for part in ["rows.jsonl row 2", "ended", "exit status: 3", "KeyError: boom"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let text = failure(&scorer("exit 4", 2).score_all(items(1))[0]);
    assert!(text.contains("rows.jsonl row 1") && text.contains("exit status: 4"), "{text}");
}

#[test]
fn a_process_that_hangs_is_an_error_that_names_the_row() {
    let script = "read -r line; echo '{\"score\": 1}'; exec sleep 600";
    let judged = within(3.0, script, 1).score_all(items(2));
    assert!(judged[0].is_ok(), "{judged:?}");
    let text = failure(&judged[1]);
    assert!(text.contains("rows.jsonl row 2: no answer within 3 s"), "{text}");
    // Tests a process that does not read its input at all.
    let long = Item { response: "x".repeat(1 << 20), ..items(1).remove(0) };
    let text = failure(&within(0.4, "exec sleep 600", 1).score_all(vec![long])[0]);
    assert!(text.contains("rows.jsonl row 1: no answer within 0.4 s"), "{text}");
}

#[test]
fn a_program_that_floods_its_output_is_stopped_in_bounded_memory() {
    // After an answer it writes lines without a pause, and ignores the end of its input.
    let script = "trap '' HUP INT TERM; read -r line; echo '{\"score\": 1}'; read -r line; exec yes '{\"score\": 1}'";
    let scorer = scorer(script, 1);
    assert!(scorer.score_all(items(1))[0].is_ok());
    let text = failure(&scorer.score_all(items(1))[0]);
    assert!(text.contains("more than one line for one answer"), "{text}");
    // Dropping it once waited as long as lines came.
    drop(scorer);
}

#[test]
fn a_reward_of_ones_own_hears_what_the_row_carries_and_says_more_than_a_score() {
    let script = "while read -r line; do case \"$line\" in *'\"data_source\":\"geo\",\"extra_info\":{\"split\":\"x\"}'*) \
                  echo '{\"score\":1,\"brevity\":0.25,\"note\":\"long\"}';; *) echo '{\"score\":0}';; esac; done";
    let mut rows = items(2);
    rows[1].data_source = "geo".to_owned();
    rows[1].extra_info.insert("split".to_owned(), "x".into());
    let judged = scorer(script, 1).score_all(rows);
    let scores: Vec<&Score> = judged.iter().map(|judged| &judged.as_ref().unwrap().score).collect();
    assert!(scores[0].score == Some(0.0) && scores[0].further.is_empty(), "{scores:?}");
    assert!(scores[1].score == Some(1.0) && scores[1].further == [("brevity".to_owned(), 0.25)].into(), "{scores:?}");
}

#[test]
fn rubbish_is_an_error_that_names_the_row_and_quotes_it() {
    for (rubbish, part) in [
        ("hello", "not a JSON line: \"hello\""),
        ("{\"score\": NaN}", "not a JSON line"),
        ("{\"acc_score\": 1}", "without a score"),
        ("{\"score\": null, \"acc_score\": 1}", "an acc_score beside a score of null"),
        ("{\"score\": \"high\"}", "score is not a number"),
        ("{\"score\": 1, \"acc_score\": []}", "acc_score is not a number"),
        ("[1]", "without a score"),
        ("0.5", "without a score"),
    ] {
        let script = format!("while read -r line; do echo '{rubbish}'; done");
        let text = failure(&scorer(&script, 1).score_all(items(1))[0]);
        assert!(text.contains("rows.jsonl row 1") && text.contains(part), "{rubbish}: {text}");
    }
    let text = failure(&scorer("read -r line; head -c 3000000 /dev/zero | tr '\\0' x", 1).score_all(items(1))[0]);
    assert!(text.contains("an answer line that is too long"), "{text}");
}

#[test]
fn a_response_without_a_score_is_not_a_score_of_0() {
    let script = "while read -r line; do echo '{\"score\": null, \"brevity\": 0.5}'; done";
    let judged = scorer(script, 1).score_all(items(1)).remove(0).unwrap();
    assert_eq!((judged.score.score, judged.score.accuracy(), judged.score.further["brevity"]), (None, None, 0.5));
    assert_eq!(judged.undecided(), Some("the reward program gave no score"));
    // The journal and the messages between ranks hold a score as JSON; those of earlier versions have a number.
    let line = serde_json::to_string(&judged.score).unwrap();
    assert_eq!(serde_json::from_str::<Score>(&line).unwrap(), judged.score);
    let earlier = line.replace("\"score\":null", "\"score\":0.25");
    assert_eq!(serde_json::from_str::<Score>(&earlier).unwrap().score, Some(0.25));
    // A step in which nothing has a score is named.
    let warning = all_zero([("x", &judged.score)].into_iter()).unwrap();
    assert!(warning.starts_with("no response has a score"), "{warning}");
}

/// Lines of `omr score` with labels of every type.
fn labelled(label: &serde_json::Value) -> Item {
    let line = serde_json::json!({"response": "x", "ground_truth": label}).to_string();
    Item { place: "line 1".to_owned(), ..serde_json::from_str::<Item>(&line).unwrap().labelled() }
}

#[test]
fn a_label_of_any_type_reaches_the_reward_program_and_the_rules_refuse_a_list_or_a_struct() {
    let countdown = serde_json::json!({"target": 98, "numbers": [44, 19, 35]});
    let nested = serde_json::json!([{"names": ["Zoey"], "knights": {"Zoey": true}}, null, 1.5]);
    let text = serde_json::json!("{\"a\": 1}");
    // The rules compare numbers as texts, so programs get them as texts, too.
    let five = (serde_json::json!(5), serde_json::json!("5"));
    let same = [countdown, nested, serde_json::json!([]), text].map(|label| (label.clone(), label));
    for (label, sent) in same.into_iter().chain([five]) {
        let item = labelled(&label);
        let script = format!(
            "while read -r line; do case \"$line\" in *'\"ground_truth\":{sent},'*) echo '{{\"score\": 1}}';; \
             *) echo '{{\"error\": \"another label\"}}';; esac; done"
        );
        let judged = scorer(&script, 1).score_all(vec![item.clone()]).remove(0);
        assert_eq!(judged.unwrap().score.score, Some(1.0), "{label}");
        let by_rules = Scorer::rules(Mode::Strict).by_rules(&item);
        assert_eq!(by_rules.is_err(), label.is_object() || label.is_array(), "{label}");
        if let Err(error) = by_rules {
            let text = error.to_string();
            let parts = ["line 1", "as the label", "columns: {answers: NAME}", "`reward.command`"];
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
    let null = serde_json::from_str::<Item>(r#"{"response": "x", "ground_truth": null}"#).unwrap_err().to_string();
    assert!(null.contains("expected a label"), "{null}");
    let missing = serde_json::from_str::<Item>(r#"{"response": "x"}"#).unwrap_err().to_string();
    assert!(missing.contains("missing field `ground_truth`"), "{missing}");
}

#[test]
fn answers_out_of_order_are_an_error() {
    let text = failure(&scorer("read -r line; echo '{\"id\": 1, \"score\": 1}'", 1).score_all(items(2))[0]);
    assert!(text.contains("rows.jsonl row 1") && text.contains("id 1 instead of 0"), "{text}");
    let twice = "while read -r line; do printf '{\"score\": 1}\\n{\"score\": 0}\\n'; done";
    let text = failure(&scorer(twice, 1).score_all(items(2))[0]);
    assert!(text.contains("rows.jsonl row 1") && text.contains("more than one line"), "{text}");
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let (command, found) = (vec!["no-such-program".to_owned()], "no-such-program");
    let config = ScorerConfig { command, ..ScorerConfig::default() };
    let made = Scorer::new(Mode::Strict, None, &config, "rl.reward", None, || unreachable!());
    let error = made.err().unwrap();
    assert!(matches!(error, Error::Input { .. }) && error.to_string().contains("rl.reward.command"), "{error}");
    assert!(error.to_string().contains(found), "{error}");
}

#[test]
fn the_python_example_scores() {
    let example = omr_base_tests::root().join("docs/my_reward.py");
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("this machine has no python3: the example is not run");
        return;
    }
    let command = vec!["python3".to_owned(), example.display().to_string()];
    let config = ScorerConfig { command, workers: 2, timeout_s: 30.0, ..ScorerConfig::default() };
    let scorer = Scorer::new(Mode::Strict, None, &config, "reward", None, || unreachable!()).unwrap();
    let mut items = items(6);
    items[3].ground_truth = "another".to_owned();
    items[4].response = format!("response 4 {}", "and so on ".repeat(50));
    let scores: Vec<f64> =
        scorer.score_all(items).into_iter().map(|judged| judged.unwrap().score.score.unwrap()).collect();
    assert_eq!(scores, [1.1, 1.1, 1.1, 0.1, 1.0, 1.1]);
}

#[test]
fn a_reward_that_returns_true_is_a_score_of_1() {
    let script = "while read -r line; do echo '{\"score\": true, \"acc_score\": false, \"exact\": true}'; done";
    let score = scorer(script, 1).score_all(items(1)).remove(0).unwrap().score;
    assert_eq!((score.score, score.acc_score, score.further["exact"]), (Some(1.0), 0.0, 1.0));
    let text = failure(&scorer("read -r line; echo '{\"error\": \"KeyError: x\"}'", 1).score_all(items(1))[0]);
    assert!(text.contains("rows.jsonl row 1: KeyError: x"), "{text}");
}

/// Functions in the forms of verl, TRL and EasyR1.
const FUNCTIONS: &str = r#"
import os, sys
def compute_score(data_source, solution_str, ground_truth, extra_info=None, weight=1.0):
    print("printed")
    os.system("echo from a child")
    print("to stderr", file=sys.stderr)
    return {"score": weight * (data_source == "geo"), "acc": extra_info["kind"] == "sum", "note": "x"}
def is_right(completions, solution, prompts, **kwargs):
    assert len(completions) == len(prompts) == len(kwargs["level"]) == 1
    return [c[0]["content"] == s for c, s in zip(completions, solution)]
def is_short(completions, level):
    return [0.5]
def not_mine(completions, **kwargs):
    return [None]
neither = not_mine
def forgotten(completions, **kwargs):
    pass
def structure(data_source, solution_str, ground_truth, extra_info, given=None):
    return float(ground_truth == {"target": 98, "numbers": [44, 19, 35]})
def batch(reward_inputs, format_weight=0.1):
    return [{"overall": 1 - format_weight, "format": 1.0, "accuracy": i["ground_truth"] == "0"} for i in reward_inputs]
def one(reward_input):
    return {"overall": reward_input["level"], "accuracy": 0.0}
def typed(data_source, solution_str, ground_truth, extra_info):
    assert ground_truth == extra_info["reward_model"]["ground_truth"] == 0
    return {"score": 1.0, "pred": 7}
def word(data_source, solution_str, ground_truth, extra_info):
    return float(ground_truth == "None")
async def later(data_source, solution_str, ground_truth, extra_info):
    return 0.25
def other(a, b): return 1
def text(completions, **kwargs): return ["high"]
def boom(completions, **kwargs): return [kwargs["reward_type"]]
"#;

/// Scores one row with functions of [`FUNCTIONS`], called by docs/my_reward.py.
fn by_python(arguments: &[&str]) -> Result<Score> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.py");
    std::fs::write(&file, FUNCTIONS).unwrap();
    let example = omr_base_tests::root().join("docs/my_reward.py");
    let paths = [Path::new("python3"), &example, &file].map(|path| path.display().to_string());
    let command = paths.into_iter().chain(arguments.iter().map(|&name| name.to_owned())).collect();
    let config = ScorerConfig { command, workers: 1, ..ScorerConfig::default() };
    let mut item = items(1).remove(0);
    let columns = serde_json::json!({"solution": "response 0", "level": 2, "problem": "q"});
    item.columns = columns.as_object().unwrap().clone();
    if arguments == ["typed"] {
        item.columns.insert("reward_model".to_owned(), serde_json::json!({"ground_truth": 0}));
    }
    if arguments == ["word"] {
        item.ground_truth = "None".to_owned();
    }
    if arguments[..1.min(arguments.len())] == ["structure"] {
        let label = serde_json::json!({"target": 98, "numbers": [44, 19, 35]});
        // With the key `gold: '{{ reward_model.ground_truth | tojson }}'`, the label is a text.
        item.ground_truth = label.to_string();
        item.columns.insert("reward_model".to_owned(), serde_json::json!({"ground_truth": label}));
        if arguments.len() > 1 {
            (item.label, item.columns) = (label, Default::default());
        }
    }
    item.extra_info.insert("kind".to_owned(), "sum".into());
    item.data_source = "geo".to_owned();
    let scorer = Scorer::new(Mode::Strict, None, &config, "reward", None, || unreachable!())?;
    scorer.score_all(vec![item]).remove(0).map(|judged| judged.score)
}

fn has_python() -> bool {
    let found = std::process::Command::new("python3").arg("--version").output().is_ok();
    if !found {
        eprintln!("this machine has no python3: docs/my_reward.py is not run");
    }
    found
}

#[test]
fn functions_of_verl_trl_and_easyr1_are_called_by_name() {
    if !has_python() {
        return;
    }
    let parts = |arguments: &[&str]| {
        let score = by_python(arguments).unwrap();
        (score.score.unwrap(), score.acc_score, score.format_reward_score)
    };
    assert_eq!(parts(&[]), (1.0, 1.0, 0.0));
    assert_eq!(parts(&["compute_score", "weight=0.5"]), (0.5, 1.0, 0.0));
    assert_eq!(parts(&["is_right"]), (1.0, 1.0, 0.0));
    assert_eq!(parts(&["batch", "format_weight=0.25"]), (0.75, 1.0, 1.0));
    assert_eq!(parts(&["one"]), (2.0, 0.0, 0.0));
    assert_eq!(parts(&["later"]), (0.25, 0.25, 0.0));
    // As in TRL, a response about which no function says anything has no score.
    for names in [&["not_mine"][..], &["not_mine", "neither"]] {
        let skipped = by_python(names).unwrap();
        assert_eq!((skipped.score, skipped.accuracy(), skipped.further.len()), (None, None, 0), "{names:?}");
    }
    assert_eq!(by_python(&["typed"]).unwrap().predict_str, "7");
    assert_eq!(by_python(&["word"]).unwrap().score, Some(1.0), "a label that is the word None");
    for arguments in [&["structure"][..], &["structure", "given=true"]] {
        assert_eq!(by_python(arguments).unwrap().score, Some(1.0), "a label that is a struct: {arguments:?}");
    }
    let sum = by_python(&["is_right", "is_short", "not_mine"]).unwrap();
    assert_eq!((sum.score, sum.further["is_right"], sum.further["is_short"]), (Some(1.5), 1.0, 0.5));
    assert_eq!(sum.further.len(), 2, "a function that gives no score is left out of the sum");
}

#[test]
fn a_wrong_function_is_one_line_that_says_what_is_wrong() {
    if !has_python() {
        return;
    }
    for (name, part) in [
        ("nothing", "mine.py has no function nothing, only compute_score, is_right"),
        ("other", "other(a, b): expected a parameter solution_str (verl), completions (TRL), reward_input"),
        ("text", "text returned 'high', expected a number, or a dict with score"),
        ("forgotten", "forgotten returned None, expected a number"),
        ("boom", "KeyError: 'reward_type' (/"),
        ("one=x", "JSONDecodeError"),
    ] {
        let text = by_python(&[name]).unwrap_err().to_string();
        assert!(text.contains("rows.jsonl row 1: ") && text.contains(part), "{name}: {text}");
        assert!(!text.contains(['\n', '{']), "{name}: {text}");
    }
}
