//! A model server on the loopback interface. Most requests get a correct answer only when they are sent a second time.
//! When they are sent first, they hang, are refused, or get a reply that is truncated, invalid or missing.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// The different bodies in order of first arrival, and the number of requests with each.
type Seen = Arc<Mutex<(Vec<Value>, HashMap<String, usize>)>>;

/// A server that runs until the test process ends.
pub struct Server {
    pub base_url: String,
    seen: Seen,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Seen::default();
        let all = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let all = all.clone();
                std::thread::spawn(move || talk(stream.unwrap(), &all));
            }
        });
        Server { base_url, seen }
    }

    /// Returns the total number of requests.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().1.values().sum()
    }

    /// Returns the different requests.
    pub fn bodies(&self) -> Vec<Value> {
        self.seen.lock().unwrap().0.clone()
    }
}

fn talk(mut stream: TcpStream, seen: &Seen) -> Option<()> {
    loop {
        let body = request(&mut stream)?;
        let (number, times) = {
            let (bodies, times) = &mut *seen.lock().unwrap();
            let times = times.entry(body.to_string()).or_default();
            *times += 1;
            if *times == 1 {
                bodies.push(body.clone());
            }
            (bodies.len(), *times)
        };
        let message = json!({"role": "assistant", "content": "<think>t</think><answer>A</answer>"});
        let reply =
            json!({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 9}});
        let (status, reply) = match number % 8 {
            _ if body["model"] == "locked" => (401, "no key".to_owned()),
            _ if times > 1 => (200, reply.to_string()),
            1 => (429, String::new()),
            2 => (500, "out of memory".to_owned()),
            3 => (200, "{\"choices\": [".to_owned()),
            4 => (200, json!({"error": "none"}).to_string()),
            5 => {
                std::thread::sleep(Duration::from_secs(4));
                return None;
            }
            6 => {
                // The header announces more bytes than are sent.
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\"");
                return None;
            }
            _ => (200, reply.to_string()),
        };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", reply.len());
        stream.write_all((head + &reply).as_bytes()).ok()?;
    }
}

fn request(stream: &mut TcpStream) -> Option<Value> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 1 << 16];
        let n = stream.read(&mut chunk).ok().filter(|&n| n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
        let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
        if bytes.len() >= head + 4 + length {
            return serde_json::from_slice(&bytes[head + 4..]).ok();
        }
    }
}
