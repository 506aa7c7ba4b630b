//! Tests the judge against a server that hangs, fails, is busy, or replies with something other than a verdict. Checks
//! every verdict and every count.

use omr_base::answers::RunStore;
use omr_base::config::{JudgeConfig, ScorerConfig};
use omr_base::error::{Error, Result};
use omr_base_tests::reward::judge_server::{Server, block};
use omr_data::reward::judge::{Client, Ruling, Summary};
use omr_data::reward::{Item, Judged, Mode, Scorer, score};

const QUESTION: &str = "What is drawn?";

fn config(server: &Server) -> JudgeConfig {
    JudgeConfig {
        base_url: vec![server.base_url.clone()],
        model: "j".into(),
        concurrency: 4,
        timeout_s: 60.0,
        deadline_s: 120.0,
        max_retries: 1,
        max_failures: 1000,
        ..JudgeConfig::default()
    }
}

/// Returns a response in the right format. The rules reject its answer unless the answer is "gold".
fn response(answer: &str) -> String {
    format!("<think>t</think><answer>{answer}</answer>")
}

async fn ask(client: &Client, answer: &str, mode: Mode) -> Result<Judged> {
    let response = response(answer);
    let rules = score(&response, "gold", Some(QUESTION), mode);
    client.score(rules, &response, "gold", Some(QUESTION), mode).await
}

fn word(judged: &Judged) -> String {
    match &judged.judge {
        None => "not asked".to_owned(),
        Some(Ruling::Said(number)) => number.to_string(),
        Some(Ruling::Unjudged(_)) => "unjudged".to_owned(),
    }
}

#[tokio::test]
async fn every_reply_has_its_verdict_and_every_request_is_counted() {
    let server = Server::start();
    let client =
        Client::new(&JudgeConfig { timeout_s: 3.0, deadline_s: 30.0, ..config(&server) }, "judge", None).unwrap();
    // Each case: the answer, its verdicts in strict and in compat mode, and the number of requests that each mode
    // sends.
    let cases = [
        ("yes", "1", "1", 1),
        ("spaced", "1", "1", 1),
        ("thinks", "1", "unjudged", 1),
        ("no", "0", "0", 1),
        ("ten", "unjudged", "10", 1),
        ("minus", "unjudged", "-1", 1),
        ("prose", "unjudged", "unjudged", 1),
        ("both", "unjudged", "unjudged", 1),
        ("empty", "unjudged", "unjudged", 1),
        ("null", "unjudged", "unjudged", 1),
        ("broken", "unjudged", "unjudged", 2),
        ("choiceless", "unjudged", "unjudged", 2),
        ("down", "unjudged", "unjudged", 2),
        ("hangs", "unjudged", "unjudged", 2),
        ("refused", "unjudged", "unjudged", 1),
        ("later", "unjudged", "unjudged", 1),
        ("flaky", "1", "1", 2),
        ("busy", "1", "1", 2),
    ];
    let mut all = tokio::task::JoinSet::new();
    for (answer, strict, compat, asked) in cases {
        for (mode, want) in [(Mode::Strict, strict), (Mode::Compat, compat)] {
            let client = client.clone();
            // Each mode has its own answer, because equal requests are sent only once.
            all.spawn(async move {
                let answer = if mode == Mode::Strict { answer.to_owned() } else { format!("{answer} compat") };
                let judged = ask(&client, &answer, mode).await.unwrap();
                (answer, mode, want, asked, judged)
            });
        }
    }
    let mut summary = Summary::new("j");
    while let Some(done) = all.join_next().await {
        let (answer, mode, want, _, judged) = done.unwrap();
        assert_eq!(word(&judged), want, "{answer} in {mode:?}");
        let acc = want.parse::<f64>().unwrap_or(0.0);
        assert_eq!((judged.score.acc_score, judged.calls), (acc, 1), "{answer}");
        assert!((judged.score.score.unwrap() - (0.9 * acc + 0.1)).abs() < 1e-12, "{answer}");
        assert_eq!(judged.score.why == "judge", acc != 0.0, "{answer}: {}", judged.score.why);
        summary.count(judged.judge.as_ref());
    }
    // Strict: yes, spaced, thinks, flaky, busy. Compat: yes, spaced, ten, minus, flaky, busy.
    assert_eq!(summary, Summary { model: "j".into(), used: 36, hits: 11, unjudged: 23 });
    for (answer, _, _, asked) in cases {
        // "flaky" and "busy" succeed from the second request on, independent of the mode that sent the first one.
        let both = if ["flaky", "busy"].contains(&answer) { server.times(answer) } else { 2 * asked };
        assert_eq!(server.times(answer), both, "{answer}");
    }
}

#[tokio::test]
async fn what_is_sent_is_the_question_the_gold_and_the_answer_at_temperature_0() {
    let server = Server::start();
    let client = Client::new(&config(&server), "judge", None).unwrap();
    ask(&client, "yes it is", Mode::Strict).await.unwrap();
    // The rules accept this answer, so no request is sent.
    let right = ask(&client, "gold", Mode::Strict).await.unwrap();
    assert_eq!((word(&right).as_str(), right.calls), ("not asked", 0));
    let seen = server.seen.lock().unwrap();
    let [body] = seen.bodies.as_slice() else { panic!("{:?}", seen.bodies) };
    assert_eq!((&body["model"], &body["temperature"], &body["max_tokens"]), (&"j".into(), &0.0.into(), &5.into()));
    let prompt = body["messages"][0]["content"][0]["text"].as_str().unwrap();
    assert_eq!(block(prompt, "Question"), Some(QUESTION));
    assert_eq!(block(prompt, "Reference answer"), Some("gold"));
    assert_eq!(block(prompt, "Model's answer"), Some("yes it is"));
}

#[tokio::test]
async fn a_short_response_without_format_is_asked_about_whole() {
    let server = Server::start();
    let client = Client::new(&config(&server), "judge", None).unwrap();
    let asked = async |response: &str| {
        let rules = score(response, "gold", None, Mode::Strict);
        client.score(rules, response, "gold", None, Mode::Strict).await.unwrap()
    };
    let judged = asked("no\nyes it is 7077").await;
    assert_eq!((word(&judged).as_str(), judged.calls), ("0", 2));
    let prompts: Vec<String> = {
        let seen = server.seen.lock().unwrap();
        let prompt = |body: &serde_json::Value| body["messages"][0]["content"][0]["text"].as_str().unwrap().to_owned();
        seen.bodies.iter().map(prompt).collect()
    };
    assert_eq!(block(&prompts[0], "Model's answer"), Some("7077"));
    assert_eq!(block(&prompts[1], "Model's answer"), Some("no\nyes it is 7077"));
    assert_eq!(block(&prompts[0], "Question"), None);
}

#[tokio::test]
async fn equal_requests_are_sent_once_and_no_more_at_once_than_asked_for() {
    let server = Server::start();
    let client = Client::new(&config(&server), "judge", None).unwrap();
    let mut all = tokio::task::JoinSet::new();
    for i in 0..60 {
        let client = client.clone();
        all.spawn(async move { ask(&client, &format!("slow {}", i % 20), Mode::Strict).await.unwrap() });
    }
    while let Some(judged) = all.join_next().await {
        assert_eq!(word(&judged.unwrap()), "1");
    }
    assert_eq!(server.count(), 20);
    let most = server.seen.lock().unwrap().most_in_flight;
    assert!(most <= 4, "{most} at once");
}

#[tokio::test]
async fn verdicts_outlive_the_run_and_silence_does_not() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let asked = async |config: &JudgeConfig| {
        let client = Client::new(config, "judge", Some(RunStore::new(dir.path()))).unwrap();
        let mut words = Vec::new();
        for answer in ["yes", "no", "prose"] {
            words.push(word(&ask(&client, answer, Mode::Strict).await.unwrap()));
        }
        assert_eq!(words, ["1", "0", "unjudged"]);
        server.count()
    };
    assert_eq!(asked(&config(&server)).await, 3);
    assert_eq!(asked(&config(&server)).await, 4);
    // Another model has no stored verdicts yet.
    assert_eq!(asked(&JudgeConfig { model: "k".into(), ..config(&server) }).await, 7);
    assert_eq!((server.times("yes"), server.times("prose")), (2, 3));
}

#[tokio::test]
async fn a_judge_that_is_down_is_an_error_after_a_few_and_is_left_alone_then() {
    let server = Server::start();
    let config = JudgeConfig { max_retries: 0, max_failures: 3, concurrency: 1, ..config(&server) };
    let client = Client::new(&config, "judge", None).unwrap();
    let mut words = Vec::new();
    // A successful reply between the failures shows that the judge still works.
    for answer in ["down 1", "down 2", "yes", "down 3", "down 4"] {
        words.push(word(&ask(&client, answer, Mode::Strict).await.unwrap()));
    }
    assert_eq!(words, ["unjudged", "unjudged", "1", "unjudged", "unjudged"]);
    for answer in ["down 5", "down 6", "yes 2"] {
        let error = ask(&client, answer, Mode::Strict).await.unwrap_err();
        assert!(matches!(error, Error::Server { .. }) && error.exit_code() == 1, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&server.base_url) && text.contains("3 consecutive requests") && text.contains("500"),
            "{text}"
        );
    }
    // Stored verdicts remain valid.
    assert_eq!(word(&ask(&client, "yes", Mode::Strict).await.unwrap()), "1");
    assert_eq!(server.count(), 6);

    let client = Client::new(&config, "judge", None).unwrap();
    for answer in ["locked", "yes 3"] {
        let error = ask(&client, answer, Mode::Strict).await.unwrap_err().to_string();
        assert!(error.contains("401"), "{error}");
    }
    assert_eq!((server.times("locked"), server.count()), (1, 7));

    let nobody = JudgeConfig { base_url: vec!["http://127.0.0.1:9/v1".into()], max_failures: 1, ..config };
    let client = Client::new(&nobody, "judge", None).unwrap();
    let error = ask(&client, "yes", Mode::Strict).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:9"), "{error}");
}

#[tokio::test]
async fn a_request_ends_at_its_deadline_whatever_is_left_to_try() {
    let server = Server::start();
    let config = JudgeConfig { deadline_s: 0.3, max_retries: 1000, ..config(&server) };
    let client = Client::new(&config, "judge", None).unwrap();
    for answer in ["hangs", "down"] {
        let judged = ask(&client, answer, Mode::Strict).await.unwrap();
        let Some(Ruling::Unjudged(what)) = &judged.judge else { panic!("{judged:?}") };
        assert!(what.contains("within 0.3 s"), "{what}");
    }
    // Zero if the machine was too busy to send the request in time.
    assert!(server.times("hangs") <= 1);
}

/// Tests that a scorer sends its requests concurrently and returns the scores in the order of the responses.
#[test]
fn scores_come_back_in_order() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = RunStore::new(dir.path());
    let scorer = || {
        let rules = ScorerConfig::default();
        let handle = || Ok(runtime.handle().clone());
        Scorer::new(Mode::Strict, Some(&config(&server)), &rules, "reward", Some(store.clone()), handle).unwrap()
    };
    let words = ["yes", "no", "gold", "prose"];
    let items: Vec<Item> = (0..200)
        .map(|i| Item {
            response: response(&match words[i % 4] {
                "gold" => "gold".to_owned(),
                word => format!("{word} {}", i / 8),
            }),
            ground_truth: "gold".to_owned(),
            question: Some(QUESTION.to_owned()),
            place: format!("row {i}"),
            ..Item::default()
        })
        .collect();
    for round in 0..2 {
        let scorer = scorer();
        assert_eq!((scorer.judge(), scorer.describe().contains("judge j at http")), (Some("j"), true));
        for (i, judged) in scorer.score_all(items.clone()).into_iter().enumerate() {
            let want = ["1", "0", "not asked", "unjudged"][i % 4];
            assert_eq!(word(&judged.unwrap()), want, "row {i} in round {round}");
        }
        // 25 different answers of each kind.
        assert_eq!((server.times("yes"), server.times("no"), server.times("gold")), (25, 25, 0));
    }
}

#[tokio::test]
async fn the_judge_does_not_compute_an_unevaluated_answer() {
    let server = Server::start();
    let client = Client::new(&config(&server), "judge", None).unwrap();
    let response = "<think>t</think><answer>15 + 63</answer>";
    for (mode, asked) in [(Mode::Strict, 0), (Mode::Compat, 0)] {
        let rules = score(response, "78", Some(QUESTION), mode);
        let judged = client.score(rules, response, "78", Some(QUESTION), mode).await.unwrap();
        assert_eq!((word(&judged), server.count()), ("not asked".to_owned(), asked), "{}", mode.name());
        assert_eq!(judged.score.acc_score, f64::from(u8::from(mode == Mode::Compat)));
    }
}

#[tokio::test]
async fn a_prompt_of_ones_own_is_filled_once_and_refused_if_it_needs_a_question_that_is_missing() {
    let server = Server::start();
    let prompt = vec!["{question} {x} | {answer}\nModel's answer:\n```\n{prediction}\n```\n".to_owned()];
    let client = Client::new(&JudgeConfig { prompt, temperature: None, ..config(&server) }, "judge", None).unwrap();
    let response = response("yes {answer}");
    let rules = score(&response, "gold", None, Mode::Strict);
    client.score(rules.clone(), &response, "gold", Some(QUESTION), Mode::Strict).await.unwrap();
    let body = server.seen.lock().unwrap().bodies[0].clone();
    let sent = "What is drawn? {x} | gold\nModel's answer:\n```\nyes {answer}\n```\n";
    assert_eq!((&body["messages"][0]["content"][0]["text"], body.get("temperature")), (&sent.into(), None));
    let error = client.score(rules, &response, "gold", None, Mode::Strict).await.unwrap_err().to_string();
    assert!(error.contains("judge.prompt_file") && error.contains("{question}"), "{error}");
}
