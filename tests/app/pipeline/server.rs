//! A scripted OpenAI-compatible server. The question determines what happens to the request. If the question contains
//! `teacher-W` or `judge-W`, the fault `W` happens only to the first request of that kind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Number of requests by question.
pub type Seen = Arc<Mutex<HashMap<String, usize>>>;

pub struct Server {
    pub base_url: String,
    pub seen: Seen,
}

impl Server {
    pub fn start() -> Server {
        super::runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
            let seen = Seen::default();
            let all = seen.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(talk(stream, all.clone()));
                }
            });
            Server { base_url, seen }
        })
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().values().sum()
    }
}

async fn talk(mut stream: TcpStream, seen: Seen) -> Option<()> {
    loop {
        let body = request(&mut stream).await?;
        let text = body["messages"].as_array()?.last()?["content"].as_array()?.last()?["text"].as_str()?.to_owned();
        let times = {
            let mut seen = seen.lock().unwrap();
            let times = seen.entry(format!("{text} {}", body["seed"])).or_default();
            *times += 1;
            *times
        };
        let printed = |content: Value, reason: &str| {
            let choice =
                json!({"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": reason});
            (200, json!({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 7}}).to_string())
        };
        let right = || printed(json!("<think>t</think><answer>5</answer>"), "stop");
        let first = text.split_whitespace().next()?;
        let who = if first == "Decide" { "judge-" } else { "teacher-" };
        let once = text.split_whitespace().find_map(|word| word.strip_prefix(who)).filter(|_| times == 1);
        let word = once.unwrap_or(first);
        let (status, reply) = match word {
            "right" => right(),
            "wrong" => printed(json!("<think>t</think><answer>6</answer>"), "stop"),
            "bare" => printed(json!("5"), "stop"),
            "unanswered" => printed(json!("<think>t</think>5"), "stop"),
            "repaired" => printed(json!("t</think><answer>5</answer>"), "stop"),
            "long" => printed(json!("<think>t t t"), "length"),
            "empty" => printed(json!(""), "stop"),
            "null" => printed(Value::Null, "stop"),
            "flaky" if times > 1 => right(),
            "flaky" | "broken" => (500, "out of memory".to_owned()),
            "busy" if times > 1 => right(),
            "busy" => (429, String::new()),
            "refused" => (400, "too long".to_owned()),
            "locked" => (401, "no key".to_owned()),
            "unpaid" => (402, "insufficient balance".to_owned()),
            "forbidden" => (403, "the key was revoked".to_owned()),
            "moderated" => (403, "your input was flagged".to_owned()),
            "choiceless" => (200, json!({"choices": []}).to_string()),
            "garbage" => (200, "{\"choices\": [".to_owned()),
            "hang" => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                return None;
            }
            "hangup" => return None,
            // The header announces more bytes than are sent.
            "cut" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\"").await;
                return None;
            }
            "Decide" => {
                let verdict = ["says-yes", "says-no"].iter().position(|w| text.contains(w));
                printed(json!(["1", " 0\n", "perhaps"][verdict.unwrap_or(2)]), "stop")
            }
            "nonsense" => printed(json!("perhaps"), "stop"),
            other => panic!("{other}"),
        };
        let head = format!("HTTP/1.1 {status} X\r\nretry-after: 0\r\ncontent-length: {}\r\n\r\n", reply.len());
        stream.write_all((head + &reply).as_bytes()).await.ok()?;
    }
}

async fn request(stream: &mut TcpStream) -> Option<Value> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.ok().filter(|&n| n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
        let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
        if bytes.len() >= head + 4 + length {
            return serde_json::from_slice(&bytes[head + 4..]).ok();
        }
    }
}
