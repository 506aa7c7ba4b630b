//! A hub server on this machine, for downloads and uploads. It has the protocol of the real hub on one port, and the separate host for large files
//! on another. Each request for a file can have a fault.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sha1::Digest as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::receive::{Hosts, Received, receive};

/// Fault of one request for a file's content or for the API.
#[derive(Clone, Copy)]
pub enum Fault {
    /// An error status with the hub's error code.
    Status(u16, &'static str),
    /// The connection closes after the given number of bytes.
    Cut(usize),
    /// After the given number of bytes, the connection stays open but sends nothing.
    Stall(usize),
    /// One byte is changed.
    Corrupt,
    /// The complete file is sent, even if only a part was requested.
    NoRange,
    /// The file is sent from its start, even if only a part was requested, and cut after the given number of bytes.
    NoRangeCut(usize),
}

/// A request that the server received.
#[derive(Clone, Debug)]
pub struct Seen {
    pub on_cdn: bool,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
    pub method: String,
    pub body: Vec<u8>,
}

#[derive(Default)]
pub struct State {
    /// Contents of the data set `datasets/org/rows` and of the model `org/tiny`, which are the same.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Contents of further data sets, by id and revision.
    pub datasets: BTreeMap<(&'static str, &'static str), BTreeMap<String, Vec<u8>>>,
    /// Sizes that are listed instead of the true ones.
    pub printed: HashMap<String, u64>,
    pub faults: HashMap<String, VecDeque<Fault>>,
    pub seen: Vec<Seen>,
    /// Reply to requests without a token, if the repository is not public.
    pub locked: Option<(u16, &'static str)>,
    pub commit: String,
    /// Uploads: see [`super::receive`].
    pub received: Received,
}

pub struct Hub {
    pub url: String,
    pub state: Arc<Mutex<State>>,
}

impl Hub {
    pub async fn start(files: &[(&str, Vec<u8>)]) -> Hub {
        let (hub, cdn) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = format!("http://{}", hub.local_addr().unwrap());
        let other = format!("http://{}", cdn.local_addr().unwrap());
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
        let state = Arc::new(Mutex::new(State { files, commit: "c".repeat(40), ..State::default() }));
        for (listener, on_cdn) in [(hub, false), (cdn, true)] {
            let (state, other) = (state.clone(), other.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(talk(stream, on_cdn, state.clone(), other.clone()));
                }
            });
        }
        Hub { url, state }
    }

    pub fn fail(&self, path: &str, faults: &[Fault]) {
        self.state.lock().unwrap().faults.insert(path.to_owned(), faults.iter().copied().collect());
    }

    /// Returns the requests since the last call and clears the list.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Number of bytes to send, and true if the connection stays open after them.
    pub sent: Option<(usize, bool)>,
}

impl Reply {
    pub fn status(status: u16, code: &str) -> Reply {
        let headers = vec![("x-error-code", code.to_owned()), ("retry-after", "0".to_owned())];
        Reply { status, headers, body: json!({"error": "said the hub"}).to_string().into(), sent: None }
    }

    pub fn json(value: &Value) -> Reply {
        Reply { status: 200, headers: Vec::new(), body: value.to_string().into(), sent: None }
    }
}

async fn talk(mut stream: TcpStream, on_cdn: bool, state: Arc<Mutex<State>>, cdn: String) -> Option<()> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(bytes).ok()?;
    let path = head.split_whitespace().nth(1)?.to_owned();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let len = header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.ok()?;
    let method = head.split_whitespace().next()?.to_owned();
    let seen = Seen { on_cdn, path, range: header("range"), token: header("authorization"), method, body };
    let reply = {
        let mut state = state.lock().unwrap();
        state.seen.push(seen.clone());
        let own = format!("http://{}", header("host").unwrap_or_default());
        receive(&mut state, &seen, &Hosts { own, cdn: cdn.clone() }).unwrap_or_else(|| answer(&mut state, &seen, &cdn))
    };
    let (sent, open) = reply.sent.unwrap_or((reply.body.len(), false));
    let mut head =
        format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    reply.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(b"\r\n").await.ok()?;
    stream.write_all(&reply.body[..sent.min(reply.body.len())]).await.ok()?;
    stream.flush().await.ok()?;
    if open {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    Some(())
}

fn answer(state: &mut State, seen: &Seen, cdn: &str) -> Reply {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let decoded = path.replace("%20", " ").replace("%28", "(").replace("%29", ")");
    let parts: Vec<&str> = decoded.trim_start_matches('/').split('/').collect();
    let fault = if parts[0] == "api" { state.faults.get_mut("api").and_then(VecDeque::pop_front) } else { None };
    if let Some(Fault::Status(status, code)) = fault {
        return Reply::status(status, code);
    }
    match parts.as_slice() {
        ["cdn", file @ ..] => content(state, &file.join("/"), seen),
        ["api", "models", "org", "tiny", rest @ ..] | ["api", "datasets", "org", "rows", rest @ ..] => match rest {
            ["revision", "main" | "refs%2Fpr%2F1"] => Reply::json(&json!({"sha": state.commit})),
            ["revision", _] => Reply::status(404, "RevisionNotFound"),
            ["tree", commit] if *commit == state.commit => tree(&state.files, state, path, query),
            ["refs"] => Reply::json(&json!({"branches": [{"name": "main"}, {"name": "v1.5"}]})),
            _ => Reply::status(404, ""),
        },
        ["api", "datasets", org, name, kind @ ("revision" | "tree"), revision] if state.has(org, name) => {
            match (state.dataset(org, name, revision), *kind) {
                (Some(_), "revision") => Reply::json(&json!({"sha": commit_of(revision)})),
                (Some(files), _) => tree(files, state, path, query),
                (None, _) => Reply::status(404, "RevisionNotFound"),
            }
        }
        ["datasets", org, name, "resolve", commit, file @ ..] if state.has(org, name) => {
            resolve(state, &[&[*org, *name, *commit], file].concat().join("/"), seen, cdn)
        }
        ["api", "models"] => Reply::json(&json!([{"id": "org/tiny"}, {"id": "org/other"}])),
        ["api", "datasets"] => Reply::json(&json!([{"id": "org/rows"}])),
        ["api", ..] if seen.token.as_deref() == Some("Bearer hf_old") => {
            let mut reply = Reply::status(401, "");
            reply.headers.push(("x-error-message", "Invalid credentials in Authorization header".to_owned()));
            reply
        }
        ["api", "models", ..] => Reply::status(401, ""),
        ["api", ..] => Reply::status(401, "RepoNotFound"),
        ["org", "tiny", "resolve", commit, file @ ..] | ["datasets", "org", "rows", "resolve", commit, file @ ..]
            if *commit == state.commit =>
        {
            resolve(state, &file.join("/"), seen, cdn)
        }
        _ => Reply::status(404, "EntryNotFound"),
    }
}

pub fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".parquet")
}

pub fn hash(path: &str, bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
    match is_large(path) {
        true => hex(&sha2::Sha256::digest(bytes)),
        false => hex(&sha1::Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat())),
    }
}

/// Returns the commit of a revision: its letters as hexadecimal digits.
fn commit_of(revision: &str) -> String {
    revision.bytes().map(|byte| format!("{byte:02x}")).collect()
}

impl State {
    /// Returns true if there is a revision of this data set in `datasets`.
    fn has(&self, org: &str, name: &str) -> bool {
        self.datasets.keys().any(|(id, _)| *id == format!("{org}/{name}"))
    }

    /// Returns the files of a data set at a revision, written as in an address, or at a commit.
    fn dataset(&self, org: &str, name: &str, at: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        let id = format!("{org}/{name}");
        let is_at =
            |revision: &str| revision.replace('/', "%2F") == at || commit_of(&revision.replace('/', "%2F")) == at;
        self.datasets.iter().find(|((known, revision), _)| *known == id && is_at(revision)).map(|(_, files)| files)
    }

    /// Returns the content of a file of [`State::files`], or of `ORG/NAME/COMMIT/PATH`.
    fn bytes(&self, file: &str) -> Option<&Vec<u8>> {
        self.files.get(file).or_else(|| match file.splitn(4, '/').collect::<Vec<_>>()[..] {
            [org, name, commit, path] => self.dataset(org, name, commit)?.get(path),
            _ => None,
        })
    }
}

/// Lists two files per page, with folders between them.
fn tree(files: &BTreeMap<String, Vec<u8>>, state: &State, path: &str, query: &str) -> Reply {
    let page: usize = query.split('&').find_map(|part| part.strip_prefix("cursor=")?.parse().ok()).unwrap_or(0);
    let entry = |(name, bytes): (&String, &Vec<u8>)| {
        let size = state.printed.get(name).copied().unwrap_or(bytes.len() as u64);
        let hash = hash(name, bytes);
        match is_large(name) {
            true => json!({"type": "file", "path": name, "size": size, "oid": "0".repeat(40),
                "lfs": {"oid": hash, "size": size, "pointerSize": 134}}),
            false => json!({"type": "file", "path": name, "size": size, "oid": hash}),
        }
    };
    let mut entries: Vec<Value> = files.iter().skip(2 * page).take(2).map(entry).collect();
    entries.push(json!({"type": "directory", "path": "data", "oid": "0".repeat(40), "size": 0}));
    let mut reply = Reply::json(&Value::Array(entries));
    if 2 * (page + 1) < files.len() {
        reply.headers.push(("link", format!("<{path}?recursive=true&cursor={}>; rel=\"next\"", page + 1)));
    }
    reply
}

/// Sends small files directly, and redirects to the other host for large ones.
fn resolve(state: &mut State, file: &str, seen: &Seen, cdn: &str) -> Reply {
    if let (Some((status, code)), None) = (state.locked, &seen.token) {
        return Reply::status(status, code);
    }
    let Some(bytes) = state.bytes(file) else { return Reply::status(404, "EntryNotFound") };
    if !is_large(file) {
        return content(state, file, seen);
    }
    let headers = vec![
        ("location", format!("{cdn}/cdn/{file}?signature=x")),
        ("x-linked-size", bytes.len().to_string()),
        ("x-linked-etag", format!("\"{}\"", hash(file, bytes))),
    ];
    Reply { status: 302, headers, body: Vec::new(), sent: None }
}

fn content(state: &mut State, file: &str, seen: &Seen) -> Reply {
    let mut bytes = state.bytes(file).unwrap().clone();
    let fault = state.faults.get_mut(file).and_then(VecDeque::pop_front);
    if let Some(Fault::Status(status, code)) = fault {
        return Reply::status(status, code);
    }
    if let Some(Fault::Corrupt) = fault {
        bytes[0] ^= 1;
    }
    let from = seen.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let mut reply = match from {
        Some(from) if from < bytes.len() && !matches!(fault, Some(Fault::NoRange | Fault::NoRangeCut(_))) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply { status: 206, headers: vec![("content-range", range)], body: bytes.split_off(from), sent: None }
        }
        _ => Reply { status: 200, headers: Vec::new(), body: bytes, sent: None },
    };
    reply.sent = match fault {
        Some(Fault::Cut(sent) | Fault::NoRangeCut(sent)) => Some((sent, false)),
        Some(Fault::Stall(sent)) => Some((sent, true)),
        _ => None,
    };
    reply
}
