//! Uploads files to a model repository: creates it, asks the hub how it stores each file, sends the large files that it
//! does not have, and commits all changed files at once.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use reqwest::header::ETAG;
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::api::{Hub, strange};
use super::check::{Hash, Hasher};
use super::http::{Body, Failure};
use super::part::Part;
use super::repo::{Kind, Repo};
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::files;
use crate::observe::{Observer, bytes};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const LFS: &str = "application/vnd.git-lfs+json";

/// Number of files per request about them.
const FILES_AT_ONCE: usize = 256;
/// Number of bytes of a file from which the hub decides how it stores the file.
const SAMPLE: u64 = 512;
/// Interval for checking whether the user requested a stop.
const STOP_ASKED: Duration = Duration::from_millis(200);

/// A file to upload.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Path in the repository, separated by `/`.
    pub path: String,
    /// File on this machine.
    pub source: PathBuf,
    /// Size in bytes.
    pub size: u64,
}

/// An upload to perform.
#[derive(Clone, Debug)]
pub struct Job {
    /// Model repository.
    pub repo: Repo,
    /// True if only the owner may see the repository.
    pub private: bool,
    /// Files, by different paths.
    pub files: Vec<Upload>,
    /// Number of files sent at once.
    pub workers: usize,
}

/// A file that differs from the repository's.
struct Changed<'a> {
    file: &'a Upload,
    hash: Hash,
}

/// A large file that the hub does not have.
struct Object<'a> {
    oid: String,
    file: &'a Upload,
    /// Requests that send it, from the hub's reply.
    actions: Value,
}

impl Job {
    /// Uploads the files and returns the address of the commit. Reports the sizes before anything is sent. After an
    /// error, another run does not send the large files again that the hub received. If nothing has changed, returns
    /// the address of the repository.
    pub async fn run(&self, settings: &Settings, observer: &dyn Observer) -> Result<String> {
        if settings.offline {
            return Err(Error::input("HF_HUB_OFFLINE", "a value that forbids uploads", "HF_HUB_OFFLINE unset"));
        }
        let hub = Hub::new(settings)?;
        if settings.token.is_none() {
            let hint = format!("set HF_TOKEN to a token of {} that can write", hub.http.url(["settings", "tokens"]));
            return Err(Error::input_hint(&self.repo.id, "no token", "a token with write access", hint));
        }
        let total = self.files.iter().map(|file| file.size).sum();
        observer.note(&format!(
            "{} files, {} for {} at {}",
            self.files.len(),
            bytes(total),
            self.repo,
            settings.endpoint
        ));
        self.create(&hub).await?;
        let changed = self.changed(&hub, observer).await?;
        if changed.is_empty() {
            observer.note(&format!("{} already contains all files", self.repo));
            return Ok(hub.page(Kind::Model, &self.repo.id).to_string());
        }
        self.send_large(&hub, &changed, observer).await?;
        self.commit(&hub, &changed).await
    }

    /// Creates the repository if it does not exist. Before any file is sent, checks that it is as private as requested.
    async fn create(&self, hub: &Hub) -> Result<()> {
        if !self.exists(hub).await? {
            let (owner, name) = self.repo.id.split_once('/').unwrap_or_default();
            let mut body = json!({"type": "model", "name": name, "organization": owner});
            if self.private {
                body["visibility"] = json!("private");
            }
            self.post(hub, &hub.http.url(["api", "repos", "create"]), JSON, body.to_string()).await?;
            if self.private {
                self.exists(hub).await?;
            }
        }
        Ok(())
    }

    /// Returns false if the repository does not exist. Errors if it is public although a private one is requested.
    async fn exists(&self, hub: &Hub) -> Result<bool> {
        let url = hub.api(Kind::Model, &self.repo.id, &[]);
        match hub.http.json(&url).await {
            Ok((found, _)) if self.private && found["private"] != true => {
                let expected = "a private repository, or the name of a new one";
                Err(Error::input("--private", format!("{}, which is public", self.repo.id), expected))
            }
            Ok(_) => Ok(true),
            Err(Failure::Status(refusal)) if refusal.is_missing_repo() => Ok(false),
            Err(failure) => Err(self.failed(hub, &url, failure).await),
        }
    }

    /// Sends text to the hub and returns the JSON of its reply. Converts refusals into errors with a hint.
    async fn post(&self, hub: &Hub, url: &Url, kind: &'static str, text: String) -> Result<Value> {
        match hub.http.post(url, kind, text).await {
            Ok(reply) => Ok(reply),
            Err(failure) => Err(self.failed(hub, url, failure).await),
        }
    }

    async fn failed(&self, hub: &Hub, url: &Url, failure: Failure) -> Error {
        let Failure::Status(refusal) = failure else { return hub.failed(url, failure) };
        let (said, tokens) = (refusal.text(), hub.http.url(["settings", "tokens"]));
        let (found, expected, hint) = match refusal.status {
            StatusCode::FORBIDDEN => {
                let hint = format!("set HF_TOKEN to a token of {tokens} that can write");
                (format!("no write access ({said})"), "a repository that the token can write to", hint)
            }
            StatusCode::NOT_FOUND if refusal.code != "RevisionNotFound" => {
                (format!("no such repository ({said})"), "a repository that the token can see", tokens.to_string())
            }
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => {
                let hint = "run the same command again";
                (format!("another change at the same time ({said})"), "no other change", hint.to_owned())
            }
            _ => return hub.refused(Kind::Model, &self.repo, &refusal).await,
        };
        Error::input_hint(&self.repo.id, found, expected, hint)
    }

    /// Returns the files that the repository does not contain, with the hash by which the hub stores each.
    async fn changed(&self, hub: &Hub, observer: &dyn Observer) -> Result<Vec<Changed<'_>>> {
        let url = hub.api(Kind::Model, &self.repo.id, &["preupload", &self.repo.revision]);
        let mut changed = Vec::new();
        for files in self.files.chunks(FILES_AT_ONCE) {
            let body = json!({"files": files.iter().map(described).collect::<Result<Vec<_>>>()?});
            let reply = self.post(hub, &url, JSON, body.to_string()).await?;
            let replies = reply["files"].as_array().map(Vec::as_slice).unwrap_or_default();
            for file in files {
                let reply = replies.iter().find(|reply| reply["path"] == *file.path);
                let reply = reply.ok_or_else(|| strange(&url, &format!("no entry of {}", file.path)))?;
                if reply["shouldIgnore"] == true {
                    // Without its weights or its config the repository would not contain the model.
                    if file.path.ends_with(".safetensors") || file.path == "config.json" {
                        return Err(Error::input_hint(
                            format!("{}: .gitignore", self.repo),
                            format!("a pattern that names {}", file.path),
                            "patterns that do not name the model's files",
                            "change the .gitignore of the repository",
                        ));
                    }
                    observer.note(&format!("{}: left out, because the repository's .gitignore names it", file.path));
                    continue;
                }
                // The hub's store of large files does not accept empty ones.
                let is_large = reply["uploadMode"] == "lfs" && file.size > 0;
                let hash = hash(file, is_large)?;
                if reply["oid"].as_str() != Some(hash.hex()) {
                    changed.push(Changed { file, hash });
                }
            }
        }
        Ok(changed)
    }

    /// Sends the large files that the hub does not have.
    async fn send_large(&self, hub: &Hub, changed: &[Changed<'_>], observer: &dyn Observer) -> Result<()> {
        let large = changed.iter().filter(|it| matches!(it.hash, Hash::Sha256(_)));
        let large: BTreeMap<&str, &Upload> = large.map(|it| (it.hash.hex(), it.file)).collect();
        let small = changed.iter().filter(|it| !large.contains_key(it.hash.hex())).map(|it| it.file.size).sum::<u64>();
        let missing = self.missing(hub, &large).await?;
        let total: u64 = missing.iter().map(|object| object.file.size).sum();
        let count = changed.len();
        observer.note(&format!("{count} files differ from the repository's: {} to send", bytes(total + small)));
        let moved = Arc::new(AtomicU64::new(0));
        observer.begin("upload", "MB", total.div_ceil(1_000_000), 0);
        let sending = missing.iter().map(|object| self.send(hub, object, &moved));
        let mut sending = stream::iter(sending).buffer_unordered(self.workers.max(1));
        // If the loop ends early, the requests are cancelled.
        loop {
            match tokio::time::timeout(STOP_ASKED, sending.next()).await {
                Ok(Some(sent)) => sent?,
                Ok(None) => break,
                Err(_) => {}
            }
            if observer.stop_requested() {
                return Err(Error::Stopped);
            }
            observer.step(moved.load(Relaxed) / 1_000_000, &[]);
        }
        observer.end();
        Ok(())
    }

    /// Returns those of the `large` files, by hash, that the hub does not have.
    async fn missing<'a>(&self, hub: &Hub, large: &BTreeMap<&str, &'a Upload>) -> Result<Vec<Object<'a>>> {
        let repo = format!("{}.git", self.repo.id);
        let url = hub.http.url(repo.split('/').chain(["info", "lfs", "objects", "batch"]));
        let mut missing = Vec::new();
        for asked in large.iter().collect::<Vec<_>>().chunks(FILES_AT_ONCE) {
            let objects: Vec<_> = asked.iter().map(|(oid, file)| json!({"oid": oid, "size": file.size})).collect();
            let body = json!({"operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
                "ref": {"name": self.repo.revision}, "objects": objects});
            let reply = self.post(hub, &url, LFS, body.to_string()).await?;
            let answered = reply["objects"].as_array().map(Vec::as_slice).unwrap_or_default();
            let lacks = |oid: &str| answered.iter().all(|object| object["oid"] != oid);
            if let Some((_, file)) = asked.iter().find(|(oid, _)| lacks(oid)) {
                return Err(strange(&url, &format!("no answer about {}", file.path)));
            }
            for object in answered {
                let found = object["oid"].as_str().and_then(|oid| Some((oid, *large.get(oid)?)));
                let (oid, file) = found.ok_or_else(|| strange(&url, "an object that was not requested"))?;
                if let Some(what) = object["error"]["message"].as_str() {
                    return Err(Error::Server { url: url.to_string(), what: format!("{}: {what}", file.path) });
                }
                // An object without actions is already stored.
                if object["actions"].is_object() {
                    missing.push(Object { oid: oid.to_owned(), file, actions: object["actions"].clone() });
                }
            }
        }
        Ok(missing)
    }

    /// Sends a large file in as many parts as the hub wants.
    async fn send(&self, hub: &Hub, object: &Object<'_>, moved: &Arc<AtomicU64>) -> Result<()> {
        let Object { oid, file, actions } = object;
        let link = |address: &Value| {
            let place = || Error::Server { url: file.path.clone(), what: format!("no address in {actions}") };
            hub.http.linked(address).ok_or_else(place)
        };
        let part = |from, len| {
            let (path, moved, sent) = (file.source.clone(), moved.clone(), Arc::default());
            Body::Part(Part { path, from, len, moved, sent })
        };
        let header = &actions["upload"]["header"];
        let target = link(&actions["upload"]["href"])?;
        let size = header["chunk_size"].as_u64().or_else(|| header["chunk_size"].as_str()?.parse().ok());
        match size.filter(|size| *size > 0) {
            None => drop(send(hub, Method::PUT, &target, &part(0, file.size)).await?),
            Some(size) => {
                let mut parts = Vec::new();
                for number in 1..=file.size.div_ceil(size) {
                    let (url, from) = (link(&header[number.to_string()])?, (number - 1) * size);
                    let reply = send(hub, Method::PUT, &url, &part(from, size.min(file.size - from))).await?;
                    let etag = reply.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
                    let etag = etag.ok_or_else(|| strange(&public(&url), "no etag"))?;
                    parts.push(json!({"partNumber": number, "etag": etag}));
                }
                let body = json!({"oid": oid, "parts": parts}).to_string();
                send(hub, Method::POST, &target, &Body::Text(LFS, body)).await?;
            }
        }
        if actions["verify"].is_object() {
            let body = json!({"oid": oid, "size": file.size}).to_string();
            send(hub, Method::POST, &link(&actions["verify"]["href"])?, &Body::Text(LFS, body)).await?;
        }
        Ok(())
    }

    /// Commits the changed files and returns the address of the commit.
    async fn commit(&self, hub: &Hub, changed: &[Changed<'_>]) -> Result<String> {
        let summary = concat!("Upload with omr ", env!("CARGO_PKG_VERSION"));
        let mut lines = format!("{}\n", json!({"key": "header", "value": {"summary": summary, "description": ""}}));
        for Changed { file, hash } in changed {
            let line = match hash {
                Hash::Sha256(oid) => json!({"key": "lfsFile", "value":
                    {"path": file.path, "algo": "sha256", "oid": oid, "size": file.size}}),
                Hash::Git(_) => {
                    let content = STANDARD.encode(files::read(&file.source).map_err(Error::io(&file.source))?);
                    json!({"key": "file", "value": {"content": content, "path": file.path, "encoding": "base64"}})
                }
            };
            lines.push_str(&format!("{line}\n"));
        }
        let url = hub.api(Kind::Model, &self.repo.id, &["commit", &self.repo.revision]);
        let reply = self.post(hub, &url, LINES, lines).await?;
        let address = reply["commitUrl"].as_str().ok_or_else(|| strange(&url, "no address of the commit"))?;
        Ok(address.to_owned())
    }
}

/// Sends part of a large file, or a request about it, to an address of the hub's reply.
async fn send(hub: &Hub, method: Method, url: &Url, body: &Body) -> Result<Response> {
    hub.http.send(method, url, body).await.map_err(|failure| hub.failed(&public(url), failure))
}

/// Returns an address without its query, which may contain a signature.
fn public(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url
}

/// Describes a file, so that the hub decides how it stores it.
fn described(file: &Upload) -> Result<Value> {
    let mut sample = Vec::new();
    let opened = files::open(&file.source).map_err(Error::io(&file.source))?;
    opened.take(SAMPLE).read_to_end(&mut sample).map_err(Error::io(&file.source))?;
    Ok(json!({"path": file.path, "size": file.size, "sample": STANDARD.encode(sample)}))
}

fn hash(file: &Upload, is_large: bool) -> Result<Hash> {
    let size = file.size;
    let mut hasher = match is_large {
        true => Hasher::Sha256(Sha256::new()),
        false => Hasher::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
    };
    hasher.read(&file.source)?;
    Ok(if is_large { Hash::Sha256(hasher.hex()) } else { Hash::Git(hasher.hex()) })
}
