//! Uploads files to a model repository: creates it, asks the hub how it stores each file, sends the large files that it
//! does not have, and commits all changed files at once.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::ETAG;
use serde_json::{Value, json};

use super::api::{Access, strange};
use super::check::{Hash, Hasher};
use super::http::{Failure, Hub, failed};
use super::part::Part;
use super::repo::{Kind, Repo};
use super::settings::Settings;
use super::transfer::{self, MEGABYTE};
use crate::client::web::server_error;
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

/// A job and its connection.
struct Session<'a> {
    job: &'a Job,
    hub: Arc<Hub>,
    observer: &'a dyn Observer,
}

/// A file that differs from the repository's.
#[derive(Clone)]
struct Changed {
    file: Upload,
    hash: Hash,
}

impl Job {
    /// Uploads the files and returns the address of the commit. Reports the sizes before anything is sent. After an
    /// error, another run does not send the large files again that the hub received. If nothing has changed, returns
    /// the address of the repository.
    pub async fn run(&self, settings: &Settings, observer: &dyn Observer) -> Result<String> {
        if settings.offline {
            return Err(Error::input("HF_HUB_OFFLINE", "a value that forbids uploads", "HF_HUB_OFFLINE unset"));
        }
        let session = Session { job: self, hub: Arc::new(Hub::new(settings)?), observer };
        if settings.token.is_none() {
            let hint = format!("set HF_TOKEN to a token of {} that can write", session.hub.tokens());
            return Err(Error::input_hint(&self.repo.id, "no token", "a token with write access", hint));
        }
        let (count, total) = (self.files.len(), bytes(self.files.iter().map(|file| file.size).sum()));
        observer.note(&format!("{count} files, {total} for {} at {}", self.repo, settings.endpoint));
        session.create().await?;
        let changed = session.changed().await?;
        if changed.is_empty() {
            observer.note(&format!("{} already contains all files", self.repo));
            return Ok(session.hub.page(Kind::Model, &self.repo.id, []).to_string());
        }
        session.send_large(&changed).await?;
        session.commit(&changed).await
    }
}

impl Session<'_> {
    /// Creates the repository if it does not exist. Before any file is sent, checks that it is as private as requested.
    async fn create(&self) -> Result<()> {
        if self.exists().await? {
            return Ok(());
        }
        let (owner, name) = self.job.repo.id.split_once('/').unwrap_or_default();
        let mut body = json!({"type": "model", "name": name, "organization": owner});
        if self.job.private {
            body["visibility"] = json!("private");
        }
        self.post(&self.hub.url(["api", "repos", "create"]), JSON, body.to_string()).await?;
        if self.job.private {
            self.exists().await?;
        }
        Ok(())
    }

    /// Returns false if the repository does not exist. Errors if it is public although a private one is requested.
    async fn exists(&self) -> Result<bool> {
        let url = self.api(&[]);
        match self.hub.json(&url).await {
            Ok((found, _)) if self.job.private && found["private"] != true => {
                let expected = "a private repository, or the name of a new one";
                Err(Error::input("--private", format!("{}, which is public", self.job.repo.id), expected))
            }
            Ok(_) => Ok(true),
            Err(Failure::Refused(refusal)) if refusal.is_missing_repo() => Ok(false),
            Err(failure) => Err(self.failed(&url, failure).await),
        }
    }

    /// Returns an address of the repository in the hub's API.
    fn api(&self, below: &[&str]) -> Url {
        self.hub.api(Kind::Model, &self.job.repo.id, below)
    }

    /// Sends text to the hub and returns the JSON of its reply. Converts refusals into errors with a hint.
    async fn post(&self, url: &Url, kind: &'static str, text: String) -> Result<Value> {
        match self.hub.post(url, kind, &text).await {
            Ok(reply) => Ok(reply),
            Err(failure) => Err(self.failed(url, failure).await),
        }
    }

    async fn failed(&self, url: &Url, failure: Failure) -> Error {
        self.hub.explained(&self.job.repo, Access::Write, url, failure).await
    }

    /// Returns the files that the repository does not contain, with the hash by which the hub stores each.
    async fn changed(&self) -> Result<Vec<Changed>> {
        let (repo, url) = (&self.job.repo, self.api(&["preupload", &self.job.repo.revision]));
        let mut changed = Vec::new();
        for files in self.job.files.chunks(FILES_AT_ONCE) {
            let body = json!({"files": files.iter().map(described).collect::<Result<Vec<_>>>()?});
            let reply = self.post(&url, JSON, body.to_string()).await?;
            for file in files {
                let path = &file.path;
                let entry = entry(&reply["files"], "path", path);
                let entry = entry.ok_or_else(|| strange(&url, format!("no entry of {path}")))?;
                if entry["shouldIgnore"] == true {
                    // Without its weights or its config the repository would not contain the model.
                    if path.ends_with(".safetensors") || path == "config.json" {
                        let (place, found) = (format!("{repo}: .gitignore"), format!("a pattern that names {path}"));
                        let hint = "change the .gitignore of the repository";
                        let expected = "patterns that do not name the model's files";
                        return Err(Error::input_hint(place, found, expected, hint));
                    }
                    self.observer.note(&format!("{path}: left out, because the repository's .gitignore names it"));
                    continue;
                }
                // The hub's store of large files does not accept empty ones.
                let is_large = entry["uploadMode"] == "lfs" && file.size > 0;
                let hash = Hasher::new(is_large, file.size).read(&file.source)?.finish();
                if entry["oid"].as_str() != Some(hash.hex()) {
                    changed.push(Changed { file: file.clone(), hash });
                }
            }
        }
        Ok(changed)
    }

    /// Sends the large files that the hub does not have.
    async fn send_large(&self, changed: &[Changed]) -> Result<()> {
        let (large, small): (Vec<_>, Vec<_>) = changed.iter().partition(|it| it.hash.is_sha256());
        let missing = self.missing(&large).await?;
        let total: u64 = missing.iter().map(|(it, _)| it.file.size).sum();
        let all = total + small.iter().map(|it| it.file.size).sum::<u64>();
        let count = changed.len();
        self.observer.note(&format!("{count} files differ from the repository's: {} to send", bytes(all)));
        self.observer.begin("upload", "MB", total.div_ceil(MEGABYTE), 0);
        let moved = Arc::new(AtomicU64::new(0));
        let sends = missing.into_iter().map(|(it, actions)| send(self.hub.clone(), it, actions, moved.clone()));
        transfer::run(sends, self.job.workers, &moved, self.observer).await
    }

    /// Returns those of the `large` files that the hub does not have, with the requests that send them.
    async fn missing(&self, large: &[&Changed]) -> Result<Vec<(Changed, Value)>> {
        let repo = format!("{}.git", self.job.repo.id);
        let url = self.hub.url(repo.split('/').chain(["info", "lfs", "objects", "batch"]));
        // Files of the same content are one object.
        let large: BTreeMap<&str, &Changed> = large.iter().map(|it| (it.hash.hex(), *it)).collect();
        let mut missing = Vec::new();
        for asked in large.into_iter().collect::<Vec<_>>().chunks(FILES_AT_ONCE) {
            let objects: Vec<_> = asked.iter().map(|(oid, it)| json!({"oid": oid, "size": it.file.size})).collect();
            let body = json!({"operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
                "ref": {"name": self.job.repo.revision}, "objects": objects});
            let reply = self.post(&url, LFS, body.to_string()).await?;
            for (oid, it) in asked {
                let path = &it.file.path;
                let object = entry(&reply["objects"], "oid", oid);
                let object = object.ok_or_else(|| strange(&url, format!("no answer about {path}")))?;
                if let Some(what) = object["error"]["message"].as_str() {
                    return Err(server_error(&url, format!("{path}: {what}")));
                }
                // An object without actions is already stored.
                if object["actions"].is_object() {
                    missing.push(((*it).clone(), object["actions"].clone()));
                }
            }
        }
        Ok(missing)
    }

    /// Commits the changed files and returns the address of the commit.
    async fn commit(&self, changed: &[Changed]) -> Result<String> {
        let summary = concat!("Upload with omr ", env!("CARGO_PKG_VERSION"));
        let mut lines = format!("{}\n", json!({"key": "header", "value": {"summary": summary, "description": ""}}));
        for Changed { file: Upload { path, source, size }, hash } in changed {
            let line = if hash.is_sha256() {
                json!({"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": hash.hex(), "size": size}})
            } else {
                let content = STANDARD.encode(files::read(source).map_err(Error::io(source))?);
                json!({"key": "file", "value": {"content": content, "path": path, "encoding": "base64"}})
            };
            lines.push_str(&format!("{line}\n"));
        }
        let url = self.api(&["commit", &self.job.repo.revision]);
        let reply = self.post(&url, LINES, lines).await?;
        let address = reply["commitUrl"].as_str().ok_or_else(|| strange(&url, "no address of the commit"))?;
        Ok(address.to_owned())
    }
}

/// Sends a large file in as many parts as the hub wants.
async fn send(hub: Arc<Hub>, changed: Changed, actions: Value, moved: Arc<AtomicU64>) -> Result<()> {
    let (file, oid) = (&changed.file, changed.hash.hex());
    let link = |address: &Value| {
        let place = || Error::Server { url: file.path.clone(), what: format!("no address in {actions}") };
        hub.linked(address).ok_or_else(place)
    };
    let put = async |url: &Url, from, len| {
        let (path, moved, sent) = (file.source.clone(), moved.clone(), Arc::default());
        hub.send_part(url, &Part { path, from, len, moved, sent }).await.map_err(failed(url))
    };
    let post = async |url: &Url, text: Value| hub.send_text(url, LFS, &text.to_string()).await.map_err(failed(url));
    let header = &actions["upload"]["header"];
    let target = link(&actions["upload"]["href"])?;
    let size = header["chunk_size"].as_u64().or_else(|| header["chunk_size"].as_str()?.parse().ok());
    if let Some(size) = size.filter(|size| *size > 0) {
        let mut parts = Vec::new();
        for number in 1..=file.size.div_ceil(size) {
            let (url, from) = (link(&header[number.to_string()])?, (number - 1) * size);
            let reply = put(&url, from, size.min(file.size - from)).await?;
            let etag = reply.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
            let etag = etag.ok_or_else(|| strange(&url, "no etag"))?;
            parts.push(json!({"partNumber": number, "etag": etag}));
        }
        post(&target, json!({"oid": oid, "parts": parts})).await?;
    } else {
        put(&target, 0, file.size).await?;
    }
    if actions["verify"].is_object() {
        post(&link(&actions["verify"]["href"])?, json!({"oid": oid, "size": file.size})).await?;
    }
    Ok(())
}

/// Describes a file, so that the hub decides how it stores it.
fn described(file: &Upload) -> Result<Value> {
    let mut sample = Vec::new();
    let opened = files::open(&file.source).map_err(Error::io(&file.source))?;
    opened.take(SAMPLE).read_to_end(&mut sample).map_err(Error::io(&file.source))?;
    Ok(json!({"path": file.path, "size": file.size, "sample": STANDARD.encode(sample)}))
}

/// Returns the object of a list whose `key` is `value`.
fn entry<'a>(list: &'a Value, key: &str, value: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry[key] == *value)
}
