//! Tests `omr score` with a judge and with a user's own reward, and the judge in `omr eval` and `omr rl`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use omr_base::config::to_yaml;
use omr_base_tests::reward::judge_server::Server;
use omr_data::rows::{Form, write};
use omr_train_tests::training::tiny::{rl_config, rows};
use serde_json::{Value, json};

use super::help::{fed, omr};

/// Runs `omr ARGS` with `input` on stdin. Returns its exit status, the lines of stdout as JSON, and stderr.
fn run(args: &[&str], variables: &[(&str, &str)], input: &str) -> (i32, Vec<Value>, String) {
    let output = fed(omr().args(args).envs(variables.iter().copied()), input);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let lines = text(output.stdout).lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
    (output.status.code().unwrap(), lines, text(output.stderr))
}

fn line(answer: &str) -> String {
    let response = format!("<think>t</think><answer>{answer}</answer>");
    format!("{}\n", json!({"response": response, "ground_truth": "gold", "question": "What is drawn?"}))
}

fn lines<S: AsRef<str>>(answers: &[S]) -> String {
    answers.iter().map(|answer| line(answer.as_ref())).collect()
}

fn words(lines: &[Value]) -> Vec<&Value> {
    lines.iter().map(|line| &line["judge"]).collect()
}

#[test]
fn a_file_after_jsonl_is_answered_with_the_redirection() {
    let (code, _, stderr) = run(&["score", "--jsonl", "answers.jsonl"], &[], "");
    assert!(code == 2 && stderr.contains("omr score --jsonl < answers.jsonl"), "{stderr}");
}

#[test]
fn the_environment_turns_the_judge_on_and_off() {
    let server = Server::start();
    let input = lines(&["gold", "yes", "no", "prose"]);
    let server_is = [("OPENAI_BASE_URL", server.base_url.as_str()), ("OPENAI_MODEL_NAME", "j")];
    for on in ["true", "Yes", "1", "TRUE"] {
        let variables = [&server_is[..], &[("USE_LLM_JUDGE", on)]].concat();
        let (code, out, err) = run(&["score", "--jsonl"], &variables, &input);
        assert_eq!(code, 0, "{err}");
        assert_eq!(words(&out), [&Value::Null, &json!(1), &json!(0), &json!("unjudged")]);
        let accs: Vec<&Value> = out.iter().map(|line| &line["acc_score"]).collect();
        assert_eq!(accs, [1.0, 1.0, 0.0, 0.0]);
        assert_eq!((&out[1]["why"], &out[1]["score"]), (&json!("judge"), &json!(1.0)));
        assert!(err.contains(&format!("judge j at {}", server.base_url)), "{err}");
        assert!(err.contains("3 answers sent, 1 of them correct, 1 without a usable reply"), "{err}");
    }
    assert_eq!(server.count(), 12);
    for off in ["false", "0", "no", ""] {
        let variables = [&server_is[..], &[("USE_LLM_JUDGE", off)]].concat();
        let (code, out, err) = run(&["score", "--jsonl"], &variables, &input);
        assert!(code == 0 && err.contains("judge off"), "{err}");
        assert_eq!(words(&out), [&Value::Null; 4]);
    }
    assert_eq!(server.count(), 12);
    for (variables, place) in [
        (vec![("USE_LLM_JUDGE", "1")], ["judge.base_url", "OPENAI_BASE_URL"]),
        (vec![("USE_LLM_JUDGE", "1"), server_is[0]], ["judge.model", "OPENAI_MODEL_NAME"]),
    ] {
        let (code, out, err) = run(&["score", "--jsonl"], &variables, &input);
        assert_eq!((code, out.len()), (2, 0), "{err}");
        assert!(place.iter().all(|part| err.contains(part)), "{err}");
    }
}

#[test]
fn a_judge_that_is_down_ends_the_command_after_what_is_known() {
    let server = Server::start();
    let url = format!("judge.base_url={}", server.base_url);
    let args = ["score", "--jsonl", &url, "judge.model=j", "judge.concurrency=1", "judge.max_retries=0"];
    let (code, out, err) =
        run(&[&args[..], &["judge.max_failures=1"]].concat(), &[], &lines(&["gold", "down", "gold"]));
    assert_eq!(code, 1, "{err}");
    assert_eq!(words(&out), [&Value::Null]);
    assert!(err.contains(&server.base_url) && err.contains("out of memory"), "{err}");
    // With fewer consecutive failures than the limit, only the failed answers have no verdict.
    let (code, out, err) = run(&args, &[], &lines(&["gold", "down", "gold"]));
    assert_eq!(code, 0, "{err}");
    assert_eq!(words(&out), [&Value::Null, &json!("unjudged"), &Value::Null]);
}

#[test]
fn processes_share_a_file_of_verdicts() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("verdicts.sqlite");
    let args = [
        "score".to_owned(),
        "--jsonl".to_owned(),
        format!("judge.base_url={}", server.base_url),
        "judge.model=j".to_owned(),
        format!("judge.cache={}", cache.display()),
    ];
    let answers: Vec<String> = (0..60).map(|i| format!("{} {}", ["yes", "no"][i % 2], i / 2)).collect();
    let input = lines(&answers);
    let asked: Vec<_> = (0..3)
        .map(|_| {
            let (args, input) = (args.clone(), input.clone());
            std::thread::spawn(move || run(&args.each_ref().map(String::as_str), &[], &input))
        })
        .collect();
    let asked: Vec<_> = asked.into_iter().map(|thread| thread.join().unwrap()).collect();
    for (code, out, err) in &asked {
        assert_eq!(*code, 0, "{err}");
        assert!(words(out).iter().enumerate().all(|(i, word)| **word == json!(1 - i % 2)), "{out:?}");
    }
    assert!((60..=180).contains(&server.count()), "{}", server.count());
    let before = server.count();
    let (code, out, err) = run(&args.each_ref().map(String::as_str), &[], &input);
    assert_eq!((code, &out), (0, &asked[0].1), "{err}");
    assert_eq!(server.count(), before);
    assert_eq!(omr_base_tests::answers::count(&cache), 60);
}

#[test]
fn ones_own_reward_speaks_the_same_lines() {
    let args = |script: &str| format!("reward.command=[sh, -c, {}]", json!(script));
    let good = args("while read -r line; do echo '{\"score\": 0.25, \"acc_score\": 0}'; done");
    let (code, out, err) = run(&["score", "--jsonl", &good], &[], &lines(&["gold", "silver"]));
    assert_eq!((code, out.len()), (0, 2), "{err}");
    assert!(out.iter().all(|line| line["score"] == 0.25 && line["judge"].is_null()), "{out:?}");
    assert!(err.contains("judge off, reward by sh -c"), "{err}");

    let dies = args("read -r line; echo '{\"score\": 1}'; read -r line; echo boom >&2; exit 3");
    let (code, out, err) = run(&["score", "--jsonl", &dies, "reward.workers=1"], &[], &lines(&["a", "b", "c"]));
    assert_eq!((code, out.len()), (1, 1), "{err}");
    assert!(err.contains("standard input, line 2") && err.contains("boom"), "{err}");
    let (code, _, err) = run(&["score", "--jsonl", "reward.command=[no-such-program]"], &[], "");
    assert!(code == 2 && err.contains("reward.command") && err.contains("no-such-program"), "{err}");

    // `omr score` itself can be the reward process.
    let own = format!("reward.command=[{}, --quiet, score, --jsonl]", env!("CARGO_BIN_EXE_omr"));
    let (code, out, err) = run(&["score", "--jsonl", &own], &[], &lines(&["gold", "silver"]));
    assert_eq!(code, 0, "{err}");
    let (_, rules, _) = run(&["score", "--jsonl"], &[], &lines(&["gold", "silver"]));
    for (by_command, by_rules) in out.iter().zip(&rules) {
        for key in ["score", "acc_score", "format_reward_score", "predict_str"] {
            assert_eq!(by_command[key], by_rules[key], "{key}");
        }
    }
}

#[test]
fn verls_reward_is_this_verifier_and_a_function_of_verls_is_a_reward() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let text = fs::read_to_string(docs.join("verl_reward.py")).unwrap();
    assert!(text.lines().count() <= 30, "{} lines", text.lines().count());
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("this machine has no python3: docs/verl_reward.py is not run");
        return;
    }
    let command = json!(["python3", "omr:my_reward.py", docs.join("verl_reward.py")]);
    let by_verl = format!("reward.command={command}");
    let input = lines(&["gold", "silver", "\\boxed{gold}", ""]);
    let omr = format!("{} --quiet score --jsonl", env!("CARGO_BIN_EXE_omr"));
    let (code, out, err) = run(&["score", "--jsonl", &by_verl, "reward.workers=2"], &[("OMR", &omr)], &input);
    assert_eq!(code, 0, "{err}");
    let (_, rules, _) = run(&["score", "--jsonl"], &[], &input);
    assert_eq!((out.len(), rules.len()), (4, 4));
    for (by_command, by_rules) in out.iter().zip(&rules) {
        for key in ["score", "acc_score", "format_reward_score", "predict_str"] {
            assert_eq!(by_command[key], by_rules[key], "{key}");
        }
    }
    // A verifier that exits is an error and never a score of 0.
    let (code, out, err) = run(&["score", "--jsonl", &by_verl, "reward.workers=1"], &[("OMR", "false")], &input);
    assert!(code == 1 && out.is_empty() && err.contains("line 1"), "{err}");
}

#[test]
fn http_needs_no_certificates() {
    let server = Server::start();
    let none = [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")];
    let judge = |url: &str| [format!("judge.base_url={url}"), "judge.model=j".to_owned()];
    let [url, model] = judge(&server.base_url);
    let (code, out, err) = run(&["score", "--jsonl", &url, &model], &none, &lines(&["yes"]));
    assert_eq!((code, words(&out)), (0, vec![&json!(1)]), "{err}");
    let [url, model] = judge("https://127.0.0.1:9/v1");
    let (code, _, err) = run(&["score", "--jsonl", &url, &model], &none, &lines(&["yes"]));
    assert!(code == 1 && err.contains("certificates"), "{err}");
}

#[test]
fn a_partner_that_waits_for_each_answer_gets_it() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_omr"))
        .args(["--quiet", "score", "--jsonl"])
        .env_remove("USE_LLM_JUDGE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for answer in ["gold", "silver", "gold"] {
        stdin.write_all(line(answer).as_bytes()).unwrap();
        let mut scored = String::new();
        stdout.read_line(&mut scored).unwrap();
        let scored: Value = serde_json::from_str(&scored).unwrap();
        assert_eq!(scored["acc_score"], f64::from(answer == "gold"));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn eval_and_rl_ask_the_judge_and_count_it() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let summary = |run: &str| -> Value {
        serde_json::from_slice(&fs::read(Path::new(&at(run)).join("summary.json")).unwrap()).unwrap()
    };
    let mut config = rl_config(dir.path());
    config.total_training_steps = Some(1);
    fs::write(at("rl.yaml"), to_yaml(&config).unwrap()).unwrap();
    let judge = [format!("judge.base_url={}", server.base_url), "judge.model=j".to_owned()];
    let judge = judge.each_ref().map(String::as_str);

    let (code, _, err) = run(&[&["rl", &at("rl.yaml"), "--out", &at("rl")], &judge[..]].concat(), &[], "");
    assert_eq!(code, 0, "{err}");
    assert!(err.contains(&format!("judge j at {}", server.base_url)), "{err}");
    let judge_summary = summary("rl")["judge"].clone();
    assert!(
        judge_summary["model"] == "j"
            && judge_summary["used"].as_u64().unwrap() > 0
            && judge_summary["used"] == judge_summary["hits"],
        "{judge_summary}"
    );
    let metrics: Value = serde_json::from_str(fs::read_to_string(at("rl/metrics.jsonl")).unwrap().trim()).unwrap();
    assert_eq!(metrics["reward/judge/used"].as_f64(), judge_summary["used"].as_f64());
    // The judge answers yes to everything.
    assert_eq!(metrics["critic/score/acc_score/mean"], 1.0);

    write::write(&dir.path().join("heldout.parquet"), &rows(), Form::Rl).unwrap();
    let (model, data, out) = (at("rl/model"), at(""), at("eval"));
    let args = ["eval", "--model", &model, "--data", &data, "--out", &out, "dtype=f32", "max_new_tokens=24"];
    let (code, _, err) = run(&[&args[..], &judge[..]].concat(), &[], "");
    assert_eq!(code, 0, "{err}");
    let summary = summary("eval");
    let (judge_summary, task) = (&summary["judge"], &summary["tasks"]["digits"]);
    assert!(
        judge_summary["model"] == "j"
            && judge_summary["used"] == judge_summary["hits"]
            && judge_summary["unjudged"] == 0,
        "{judge_summary}"
    );
    assert_eq!(task["metrics"]["acc_score"], 1.0);
    // Two answers per row, one of them greedy. The judge was asked about the answers that the rules did not accept.
    let by_rules: f64 = ["acc_score", "acc_score_t1"].iter().map(|key| task["rule_only"][key].as_f64().unwrap()).sum();
    assert_eq!(judge_summary["used"].as_f64().unwrap(), (12.0 * (2.0 - by_rules)).round());

    // A user's own reward receives the source of a row, and its additional numbers become metrics of the step.
    let script = "while read -r line; do case \"$line\" in *'\"data_source\":\"digits\"'*'\"kind\"'*) known=1;; *) known=0;; esac; \
                  echo '{\"score\":1,\"known\":'$known',\"word\":\"x\"}'; done";
    let own = format!("reward.command=[sh, -c, {}]", serde_json::json!(script));
    let (code, _, err) = run(&["rl", &at("rl.yaml"), "--out", &at("own"), &own], &[], "");
    assert_eq!(code, 0, "{err}");
    let metrics: Value = serde_json::from_str(fs::read_to_string(at("own/metrics.jsonl")).unwrap().trim()).unwrap();
    assert_eq!(metrics["critic/score/known/min"], 1.0, "{metrics}");
    assert!(metrics.get("critic/score/word/min").is_none(), "{metrics}");

    let dies = "reward.command=[sh, -c, 'exit 5']";
    let (code, _, err) = run(&["rl", &at("rl.yaml"), "--out", &at("dead"), dies], &[], "");
    assert!(code == 1 && err.contains("exit status: 5") && err.contains("row "), "{err}");
    assert!(!Path::new(&at("dead/summary.json")).exists());
}
