//! The endpoints of the hub for uploads. They refuse what the real hub refuses: requests without a token that can
//! write, content with another hash than announced, and commits of large files that were not sent.

use std::collections::{BTreeMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::server::{Fault, Reply, Seen, State, hash, is_large};

/// Addresses of both hosts.
pub struct Hosts {
    pub own: String,
    pub cdn: String,
}

/// Uploads to the model `org/new`.
#[derive(Default)]
pub struct Received {
    /// True if the repository is private; `None` if it does not exist.
    pub repo: Option<bool>,
    /// Large files by hash, also those that no commit contains.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Parts of large files, by hash and number.
    parts: BTreeMap<(String, usize), Vec<u8>>,
    /// Size of a part; `None` to receive files as a whole.
    pub part_size: Option<usize>,
    /// Number of commits.
    pub commits: usize,
    /// Ending of the files that the repository's .gitignore names. Default: `.log`.
    pub ignored: Option<&'static str>,
    /// True if replies about large files contain no file.
    pub forgets: bool,
}

/// Answers a request that belongs to an upload. Returns `None` for other requests.
pub fn receive(state: &mut State, seen: &Seen, hosts: &Hosts) -> Option<Reply> {
    let path = seen.path.split('?').next()?;
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let value: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    if let ["put", oid, rest @ ..] = parts.as_slice() {
        return (seen.method == "PUT").then(|| put(state, oid, rest.first().and_then(|n| n.parse().ok()), &seen.body));
    }
    if !matches!(
        parts.as_slice(),
        ["api", "repos", ..] | ["api", "models", "org", "new", ..] | ["org", "new.git", ..] | ["done" | "verify", ..]
    ) {
        return None;
    }
    match (seen.token.as_deref(), seen.method.as_str()) {
        // Completed parts are confirmed by the signed address.
        _ if parts[0] == "done" => {}
        (Some("Bearer hf_write"), _) | (Some("Bearer hf_read"), "GET") => {}
        (Some("Bearer hf_read"), _) => return Some(Reply::status(403, "")),
        _ => return Some(Reply::status(401, "")),
    }
    if let Some(Fault::Status(status, code)) = state.faults.get_mut(path).and_then(VecDeque::pop_front) {
        return Some(Reply::status(status, code));
    }
    let exists = state.received.repo.is_some();
    match parts.as_slice() {
        ["api", "repos", "create"] => {
            let named = value["organization"] == "org" && value["name"] == "new";
            if !named || value.get("type").is_some_and(|kind| kind != "model") {
                return Some(Reply::status(400, ""));
            }
            if exists {
                return Some(Reply::status(409, ""));
            }
            state.received.repo = Some(value["visibility"] == "private");
            Some(Reply::json(&json!({"url": format!("{}/org/new", hosts.own)})))
        }
        ["api", "models", "org", "new", ..] if !exists => Some(Reply::status(404, "RepoNotFound")),
        ["api", "models", "org", "new"] => Some(Reply::json(&json!({"id": "org/new", "private": state.received.repo}))),
        ["api", "models", "org", "new", "preupload", "main"] => {
            let files = value["files"].as_array()?.iter().map(|file| {
                let path = file["path"].as_str().unwrap();
                let sample = STANDARD.decode(file["sample"].as_str().unwrap()).unwrap();
                assert!(sample.len() == 512.min(file["size"].as_u64().unwrap() as usize));
                let oid = state.files.get(path).map(|bytes| hash(path, bytes));
                let mode = if is_large(path) { "lfs" } else { "regular" };
                json!({"path": path, "uploadMode": mode, "shouldIgnore": path.ends_with(state.received.ignored.unwrap_or(".log")), "oid": oid})
            });
            Some(Reply::json(&json!({"files": files.collect::<Vec<_>>()})))
        }
        ["org", "new.git", "info", "lfs", "objects", "batch"] => {
            if state.received.forgets {
                return Some(Reply::json(&json!({"objects": []})));
            }
            let object = |object: &Value| wanted(state, object, hosts);
            Some(Reply::json(&json!({"objects": value["objects"].as_array()?.iter().map(object).collect::<Vec<_>>()})))
        }
        ["done", oid] => {
            let named = value["parts"].as_array()?.iter().enumerate().all(|(i, part)| {
                let sent = state.received.parts.get(&((*oid).to_owned(), i + 1));
                part["partNumber"] == i + 1 && sent.is_some_and(|sent| part["etag"] == hash("part", sent))
            });
            let of_file =
                state.received.parts.iter().filter(|((of, _), _)| of == oid).map(|(_, bytes)| bytes.as_slice());
            let whole = of_file.collect::<Vec<_>>().concat();
            Some(if named && value["oid"] == *oid { put(state, oid, None, &whole) } else { Reply::status(400, "") })
        }
        ["verify"] => {
            let found = state.received.objects.get(value["oid"].as_str()?);
            let right = found.is_some_and(|bytes| value["size"] == bytes.len());
            Some(if right { Reply::json(&json!({})) } else { Reply::status(404, "") })
        }
        ["api", "models", "org", "new", "commit", "main"] => Some(commit(state, &seen.body)),
        _ => None,
    }
}

/// Returns how a large file is sent, or no actions if it is already stored.
fn wanted(state: &State, object: &Value, Hosts { own, cdn }: &Hosts) -> Value {
    let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap() as usize);
    let mut reply = object.clone();
    if state.received.objects.contains_key(oid) {
        return reply;
    }
    let upload = match state.received.part_size {
        None => json!({"href": format!("{cdn}/put/{oid}?signature=x")}),
        Some(part) => {
            let mut header = json!({"chunk_size": part.to_string()});
            (1..=size.div_ceil(part))
                .for_each(|n| header[n.to_string()] = json!(format!("{cdn}/put/{oid}/{n}?signature=x")));
            json!({"href": format!("{own}/done/{oid}"), "header": header})
        }
    };
    reply["actions"] = json!({"upload": upload, "verify": {"href": format!("{own}/verify")}});
    reply
}

/// Stores a large file, or a part of it. A file needs the hash of its name.
fn put(state: &mut State, oid: &str, part: Option<usize>, bytes: &[u8]) -> Reply {
    if let Some(Fault::Status(status, code)) = state.faults.get_mut("put").and_then(VecDeque::pop_front) {
        return Reply::status(status, code);
    }
    match part {
        Some(part) => drop(state.received.parts.insert((oid.to_owned(), part), bytes.to_vec())),
        None if hash(".safetensors", bytes) != oid => return Reply::status(400, ""),
        None => drop(state.received.objects.insert(oid.to_owned(), bytes.to_vec())),
    }
    let mut reply = Reply::json(&json!({}));
    reply.headers.push(("etag", hash("part", bytes)));
    reply
}

/// Adds the files of a commit to those of the repository.
fn commit(state: &mut State, body: &[u8]) -> Reply {
    let lines = str::from_utf8(body).unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    if lines[0]["key"] != "header" || lines[0]["value"]["summary"].as_str().is_none_or(str::is_empty) {
        return Reply::status(400, "");
    }
    let mut files = Vec::new();
    for line in &lines[1..] {
        let value = &line["value"];
        let path = value["path"].as_str().unwrap().to_owned();
        let bytes = match line["key"].as_str() {
            Some("file") if !is_large(&path) => STANDARD.decode(value["content"].as_str().unwrap()).ok(),
            Some("lfsFile") => value["oid"].as_str().and_then(|oid| state.received.objects.get(oid).cloned()),
            _ => None,
        };
        let Some(bytes) = bytes else { return Reply::status(400, "LfsFileNotFound") };
        files.push((path, bytes));
    }
    state.files.extend(files);
    state.received.commits += 1;
    let oid = "e".repeat(40);
    Reply::json(
        &json!({"commitUrl": format!("org/new/commit/{oid}"), "commitOid": oid, "hookOutput": "", "pullRequestUrl": null, "success": true}),
    )
}
