//! Random requests. None may end the server or be answered with a fault of the server.

use omr_base::philox::{Purpose, Random};
use serde_json::{Value, json};

use super::program::{Server, chat, chat_with, model};

/// Replaces some parts of a value at random.
fn mutate(value: &mut Value, random: &mut Random) {
    let mut pick = |n: usize| random.next_u32() as usize % n;
    match value {
        Value::Object(map) if !map.is_empty() && pick(4) > 0 => {
            let key = map.keys().nth(pick(map.len())).unwrap().clone();
            match pick(8) {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(format!("{key}x"), json!(1))),
                _ => mutate(&mut map[&key], random),
            }
        }
        Value::Array(list) if !list.is_empty() && pick(4) > 0 => {
            let at = pick(list.len());
            match pick(6) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => mutate(&mut list[at], random),
            }
        }
        Value::String(text) if !text.is_empty() && pick(3) > 0 => {
            let mut bytes = text.clone().into_bytes();
            let at = pick(bytes.len());
            match pick(3) {
                0 => bytes.truncate(at),
                1 => bytes[at] = pick(128) as u8,
                _ => bytes.splice(at..at, *b"<|im_end|>{{ x }}\0").for_each(drop),
            }
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        other => {
            let values = [
                json!(null),
                json!(true),
                json!(-1),
                json!(0),
                json!(1e300),
                json!(u64::MAX),
                json!(0.5),
                json!(""),
                json!("\u{1f600}"),
                json!([]),
                json!({}),
                json!([[]]),
                json!({"": null}),
                json!("data:;base64,AAAA"),
                json!([1, 2, 3]),
            ];
            *other = values[pick(values.len())].clone();
        }
    }
}

async fn fuzz(count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["--allowed-media-domains", "nothing.invalid"]);
    let seed = omr_base_tests::seed::seed();
    let mut random = Random::new(seed, Purpose::Backoff, 0);
    let bodies = [
        ("/v1/chat/completions", chat_with("One <b>", &[1, 2])),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "system", "content": "x"}, {"role": "assistant", "content": "<think>",
            "reasoning": "y"}], "continue_final_message": true, "add_generation_prompt": false, "max_tokens": 2, "logprobs": true,
            "top_logprobs": 2, "stop": ["a", "b"], "logit_bias": {"1": 2}, "chat_template_kwargs": {"add_vision_id": true}}),
        ),
        (
            "/v1/completions",
            json!({"prompt": [[1, 2], [3]], "max_tokens": 2, "echo": true, "logprobs": 2, "n": 2, "seed": 1}),
        ),
        (
            "/inference/v1/generate",
            json!({"token_ids": [1, 2], "content_parts": [], "sampling_params": {"max_tokens": 2, "top_p": 0.5}}),
        ),
        ("/v1/chat/completions/render", chat_with("x", &[3])),
        ("/tokenize", json!({"prompt": "text"})),
        ("/detokenize", json!({"tokens": [1, 2]})),
    ];
    let mut found = std::collections::BTreeMap::new();
    for i in 0..count {
        let (path, mut body) = bodies[i % bodies.len()].clone();
        for _ in 0..=random.next_u32() % 3 {
            mutate(&mut body, &mut random);
        }
        body.as_object_mut().map(|body| body.remove("stream"));
        // Answers are short, so that many requests can be tried.
        if body.get("max_tokens").is_none_or(|n| n.as_u64().is_none_or(|n| n > 100)) && body.is_object() && i % 3 > 0 {
            body["max_tokens"] = json!(3);
        }
        let (status, answer) = server.post(path, &body).await;
        *found.entry(status).or_insert(0) += 1;
        assert!([200, 400, 404, 413].contains(&status), "seed {seed}, request {i}: {path} {body}: {status} {answer}");
        assert!(status == 200 || answer["error"]["message"].is_string(), "{body}: {answer}");
    }
    println!("  answers by status: {found:?}");
    server.chat(&chat("One")).await;
    server.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_get_an_answer_or_an_error() {
    fuzz(300).await;
}

#[ignore = "takes minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_random_requests_get_an_answer_or_an_error() {
    fuzz(10_000).await;
}
