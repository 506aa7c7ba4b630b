//! Tests `omr verify` and `omr score` with JSON lines.

use super::help::{fed, omr};

/// Runs `omr` with `input` on stdin. Returns its exit status, stdout and stderr.
fn run(args: &[&str], input: &str) -> (i32, String, String) {
    let output = fed(omr().args(args), input);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn parsed(out: &str) -> Vec<serde_json::Value> {
    out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn verify_answers_line_by_line_in_order() {
    let input = "{\"gold\":\"1/2\",\"answer\":\"0.5\"}\n{\"gold\":\"7\",\"answer\":\"8\"}\n";
    let (code, out, _) = run(&["verify", "--jsonl"], input);
    let lines = parsed(&out);
    assert_eq!((code, lines.len()), (0, 2));
    assert_eq!((&lines[0]["equal"], &lines[1]["equal"]), (&true.into(), &false.into()));
    for line in &lines {
        let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["equal", "gold_parsed", "answer_parsed", "why"]);
    }
    let (_, one, _) = run(&["verify", "--gold", "-5", "--answer", "-5.0"], "");
    assert_eq!(parsed(&one)[0]["equal"], true);
    // Gold answers that another program wrote as numbers.
    let (code, out, err) =
        run(&["verify", "--jsonl"], "{\"gold\":5,\"answer\":\"5.0\"}\n{\"gold\":null,\"answer\":1}\n");
    assert!(code == 2 && parsed(&out)[0]["equal"] == true, "{out}");
    assert!(err.contains("line 2") && err.contains("a string or a number"), "{err}");
    let (_, compat, _) = run(&["verify", "--gold", "1000", "--answer", "1e3", "--mode", "compat"], "");
    assert_eq!(parsed(&compat)[0]["equal"], false);
}

#[test]
fn score_answers_line_by_line_and_names_a_bad_line() {
    let good = "{\"response\":\"<think>3+5</think><answer>8</answer>\",\"ground_truth\":\"8\",\"question\":\"3+5?\"}\n";
    let (code, out, err) = run(&["score", "--jsonl"], &format!("{good}{{\"response\":\"8\"}}\n{good}"));
    let lines = parsed(&out);
    assert_eq!((code, lines.len()), (2, 1), "{out}");
    assert!(err.contains("line 2") && err.contains("ground_truth"), "{err}");
    let keys: Vec<&str> = lines[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["score", "acc_score", "format_reward_score", "predict_str", "why", "judge"]);
    assert_eq!((&lines[0]["score"], &lines[0]["judge"]), (&1.0.into(), &serde_json::Value::Null));
}
