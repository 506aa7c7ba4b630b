//! Fetches one file: writes next to the target, resumes after an interruption, verifies the hash, and renames.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, HeaderMap};

use super::api::{Hub, Listed, RepoListing};
use super::check::{Hash, Hasher};
use super::http::{Failure, TRIES};
use super::repo::Repo;
use crate::client;
use crate::error::{Error, Result};
use crate::files;

/// Returns the path of the incomplete file. The name contains the hash, so a partial file of another version is not
/// continued.
pub(super) fn partial(dir: &Path, file: &Listed) -> PathBuf {
    let target = dir.join(&file.path);
    let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(format!("{name}.{}.incomplete", &file.hash.hex()[..12]))
}

/// Fetches `file` to its path in `dir`. Calls `moved` with the number of bytes received, or a negative number for bytes
/// that were discarded.
pub(super) async fn file(
    hub: &Hub,
    repo: &Repo,
    listing: &RepoListing,
    file: &Listed,
    dir: &Path,
    moved: &(dyn Fn(i64) + Send + Sync),
) -> Result<()> {
    let target = dir.join(&file.path);
    let parent = target.parent().unwrap_or(dir).to_owned();
    std::fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
    inside(dir, &parent)?;
    let mut part = Part::open(partial(dir, file), file)?;
    let (mut idle, mut wrong) = (0, 0);
    while !part.is_right() {
        if part.at == file.size {
            // The first mismatch may come from data of an earlier process. A mismatch after a complete new fetch means
            // that the hub's content differs from its listing.
            wrong += 1;
            let found = part.restart(moved)?;
            if wrong > 1 {
                let what = format!("{} {found}, but the listing has {}", file.hash.name(), file.hash.hex());
                return Err(Error::Server { url: hub.address(listing, file).to_string(), what });
            }
            continue;
        }
        let before = part.at;
        match part.fetch(hub, listing, moved).await {
            Ok(()) => idle = 0,
            Err(Failure::Status(refusal)) if refusal.status == StatusCode::RANGE_NOT_SATISFIABLE && part.at > 0 => {
                part.restart(moved)?;
            }
            Err(Failure::Status(refusal)) => return Err(hub.refused(listing.kind, repo, &refusal).await),
            Err(Failure::Passing(what, asked)) if idle + 1 < TRIES => {
                idle = if part.at > before { 0 } else { idle + 1 };
                tracing::debug!("{}: {what}; trying again", file.path);
                tokio::time::sleep(client::wait(&file.path, idle, asked)).await;
            }
            Err(failure) => return Err(hub.failed(&hub.address(listing, file), failure)),
        }
    }
    part.file.sync_all().map_err(Error::io(&part.path))?;
    std::fs::rename(&part.path, &target).map_err(Error::io(&target))?;
    files::sync_folder(&parent)
}

/// Returns an error if a symbolic link leads `parent` out of `dir`.
fn inside(dir: &Path, parent: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().map_err(Error::io(path));
    match real(parent)?.starts_with(real(dir)?) {
        true => Ok(()),
        false => Err(Error::input(
            parent.display().to_string(),
            "a link to a place outside the folder",
            "a folder inside it",
        )),
    }
}

/// The bytes received so far, on disk and in the hasher.
struct Part<'a> {
    path: PathBuf,
    file: File,
    listed: &'a Listed,
    hasher: Hasher,
    at: u64,
}

impl<'a> Part<'a> {
    fn open(path: PathBuf, listed: &'a Listed) -> Result<Part<'a>> {
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let mut at = file.metadata().map_err(Error::io(&path))?.len();
        if at > listed.size {
            file.set_len(0).map_err(Error::io(&path))?;
            at = 0;
        }
        let mut hasher = listed.hash.hasher(listed.size);
        if at > 0 {
            hasher.read(&path)?;
        }
        Ok(Part { path, file, listed, hasher, at })
    }

    /// Discards the bytes so far and returns their hash.
    fn restart(&mut self, moved: &(dyn Fn(i64) + Send + Sync)) -> Result<String> {
        self.file.set_len(0).map_err(Error::io(&self.path))?;
        moved(-(self.at as i64));
        self.at = 0;
        let fresh = self.listed.hash.hasher(self.listed.size);
        Ok(std::mem::replace(&mut self.hasher, fresh).hex())
    }

    /// Returns true if all bytes exist and their hash equals the listed one.
    fn is_right(&self) -> bool {
        self.at == self.listed.size && self.hasher.clone().hex() == self.listed.hash.hex()
    }

    /// Requests the missing bytes and writes them.
    async fn fetch(
        &mut self,
        hub: &Hub,
        listing: &RepoListing,
        moved: &(dyn Fn(i64) + Send + Sync),
    ) -> std::result::Result<(), Failure> {
        let reply = hub.content(listing, self.listed, self.at).await?;
        let mut response = reply.response;
        self.compare(&reply.linked).map_err(Failure::Fatal)?;
        if self.at > 0 && !continues(response.status(), response.headers(), self.at) {
            self.restart(moved).map_err(Failure::Fatal)?;
        }
        loop {
            let chunk = response.chunk().await.map_err(|e| Failure::Passing(client::chain(&e), None))?;
            let Some(chunk) = chunk else { break };
            if self.at + chunk.len() as u64 > self.listed.size {
                return Err(Failure::Passing(format!("more than the {} bytes in the listing", self.listed.size), None));
            }
            self.file.write_all(&chunk).map_err(|e| Failure::Fatal(Error::io(&self.path)(e)))?;
            self.hasher.update(&chunk);
            self.at += chunk.len() as u64;
            moved(chunk.len() as i64);
        }
        match self.at == self.listed.size {
            true => Ok(()),
            false => Err(Failure::Passing(format!("{} of {} bytes", self.at, self.listed.size), None)),
        }
    }

    /// Returns an error if the size or hash in the hub's redirect differs from the listing.
    fn compare(&self, linked: &HeaderMap) -> Result<()> {
        let header = |name: &str| linked.get(name).and_then(|value| value.to_str().ok());
        let size = header("x-linked-size").and_then(|size| size.parse::<u64>().ok());
        let tag = header("x-linked-etag").map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
        let hash = tag.and_then(|tag| Hash::sha256(tag).or_else(|| Hash::git(tag)));
        let other_hash = hash.is_some_and(|hash| hash != self.listed.hash);
        if size.is_some_and(|size| size != self.listed.size) || other_hash {
            let found = "a redirect with another size or hash than the listing";
            return Err(Error::Server { url: self.listed.path.clone(), what: found.to_owned() });
        }
        Ok(())
    }
}

/// Returns true if a reply continues at byte `from`.
fn continues(status: StatusCode, headers: &HeaderMap, from: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let begins = range.is_some_and(|range| range.trim_start_matches("bytes ").starts_with(&format!("{from}-")));
    status == StatusCode::PARTIAL_CONTENT && begins
}
