//! Fetches one file: writes next to the target, resumes after an interruption, verifies the hash, and renames.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use reqwest::header::{CONTENT_RANGE, HeaderMap};
use reqwest::{StatusCode, Url};

use super::api::{Access, Listed, RepoListing, strange};
use super::check::{Hash, Hasher};
use super::http::{Attempt, Failure, Hub, TRIES};
use super::local;
use super::record::Record;
use super::repo::Repo;
use crate::client::web;
use crate::error::{Error, Result};
use crate::files;

/// A repository whose files are fetched to a folder.
pub(super) struct Source {
    pub(super) hub: Hub,
    pub(super) repo: Repo,
    pub(super) listing: RepoListing,
    pub(super) dir: PathBuf,
    pub(super) record: Record,
    /// Number of bytes in the folder, of files that were not complete before.
    pub(super) moved: AtomicU64,
}

/// The bytes of a file received so far, on disk and in the hasher.
struct Part<'a> {
    source: &'a Source,
    listed: &'a Listed,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    at: u64,
    /// Address on another host to which the hub redirected the last attempt, if this host sent data.
    elsewhere: Option<Url>,
}

/// Returns the path of the incomplete file. The name contains the hash, so a partial file of another version is not
/// continued.
pub(super) fn partial(dir: &Path, file: &Listed) -> PathBuf {
    let mut path = dir.join(&file.path);
    path.as_mut_os_string().push(format!(".{}.incomplete", &file.hash.hex()[..12]));
    path
}

/// Fetches `file` to its path in the folder and records it. Errors if a symbolic link leads out of the folder.
pub(super) async fn file(source: Arc<Source>, file: Listed) -> Result<()> {
    let target = source.dir.join(&file.path);
    let parent = target.parent().unwrap_or(&source.dir);
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    local::inside(&source.dir, parent)?;
    let mut part = Part::open(&source, &file)?;
    part.complete().await?;
    part.file.sync_all().map_err(Error::io(&part.path))?;
    std::fs::rename(&part.path, &target).map_err(Error::io(&target))?;
    files::sync_folder(parent)?;
    source.record.note(&file)
}

impl<'a> Part<'a> {
    fn open(source: &'a Source, listed: &'a Listed) -> Result<Part<'a>> {
        let path = partial(&source.dir, listed);
        let file = files::append(&path)?;
        if file.metadata().map_err(Error::io(&path))?.len() > listed.size {
            file.set_len(0).map_err(Error::io(&path))?;
        }
        let at = file.metadata().map_err(Error::io(&path))?.len();
        let hasher = Hasher::new(listed.hash.is_sha256(), listed.size).read(&path)?;
        Ok(Part { source, listed, path, file, hasher, at, elsewhere: None })
    }

    /// Requests the missing bytes until the file is complete and has the listed hash.
    async fn complete(&mut self) -> Result<()> {
        let Source { hub, repo, listing, .. } = self.source;
        let url = hub.address(listing, self.listed);
        let (mut idle, mut is_second, mut farthest) = (0, false, self.at);
        loop {
            let (before, elsewhere) = (self.at, self.elsewhere.take());
            match self.fetch(elsewhere.as_ref().unwrap_or(&url)).await {
                Ok(()) => {
                    let (found, expected) = (self.finish(), &self.listed.hash);
                    if found == *expected {
                        return Ok(());
                    }
                    // The first mismatch may come from data of an earlier process. A mismatch after a complete new fetch
                    // means that the hub's content differs from its listing.
                    if is_second {
                        let name = if expected.is_sha256() { "sha256" } else { "git's sha1" };
                        let what = format!("{name} {}, but the listing has {}", found.hex(), expected.hex());
                        return Err(web::server_error(&url, what));
                    }
                    (idle, is_second) = (0, true);
                    self.restart()?;
                }
                // The address may be valid for a limited time. The hub then redirects to a new one.
                Err(Failure::Refused(_)) if elsewhere.is_some() => {}
                Err(Failure::Refused(refusal))
                    if refusal.status == StatusCode::RANGE_NOT_SATISFIABLE && self.at > 0 =>
                {
                    self.restart()?;
                }
                Err(Failure::Passing(what, asked)) if idle + 1 < TRIES => {
                    // A server that ignores ranges begins again each time: only new bytes are progress.
                    idle = if self.at > farthest { 0 } else { idle + 1 };
                    farthest = farthest.max(self.at);
                    tracing::debug!("{}: {what}; trying again", self.listed.path);
                    tokio::time::sleep(web::wait(&self.listed.path, idle, asked)).await;
                }
                Err(failure) => return Err(hub.explained(repo, Access::Read(listing.kind), &url, failure).await),
            }
            if self.at == before {
                self.elsewhere = None;
            }
        }
    }

    /// Discards the bytes so far.
    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(Error::io(&self.path))?;
        self.source.moved.fetch_sub(std::mem::take(&mut self.at), Relaxed);
        self.finish();
        Ok(())
    }

    /// Returns the hash of the bytes so far and begins a new one.
    fn finish(&mut self) -> Hash {
        let fresh = Hasher::new(self.listed.hash.is_sha256(), self.listed.size);
        std::mem::replace(&mut self.hasher, fresh).finish()
    }

    /// Requests the missing bytes from `url` and writes them.
    async fn fetch(&mut self, url: &Url) -> Attempt<()> {
        let (hub, size) = (&self.source.hub, self.listed.size);
        if self.at == size {
            return Ok(());
        }
        let (mut response, own) = hub.get(url, self.at).await?;
        self.compare(url, &own).map_err(Failure::Fatal)?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let continues = range.trim_start_matches("bytes ").starts_with(&format!("{}-", self.at));
        if self.at > 0 && !(response.status() == StatusCode::PARTIAL_CONTENT && continues) {
            self.restart().map_err(Failure::Fatal)?;
        }
        self.elsewhere = Some(response.url().clone()).filter(|url| !hub.is_own(url));
        while let Some(chunk) = response.chunk().await.map_err(web::passing)? {
            let len = chunk.len() as u64;
            if self.at + len > size {
                return Err(Failure::Passing(format!("more than the {size} bytes in the listing"), None));
            }
            self.file.write_all(&chunk).map_err(|e| Failure::Fatal(Error::io(&self.path)(e)))?;
            self.hasher.update(&chunk);
            self.at += len;
            self.source.moved.fetch_add(len, Relaxed);
        }
        if self.at == size { Ok(()) } else { Err(Failure::Passing(format!("{} of {size} bytes", self.at), None)) }
    }

    /// Returns an error if the size or hash in the hub's redirect differs from the listing.
    fn compare(&self, url: &Url, own: &HeaderMap) -> Result<()> {
        let header = |name: &str| own.get(name).and_then(|value| value.to_str().ok());
        let size = header("x-linked-size").and_then(|size| size.parse::<u64>().ok());
        let tag = header("x-linked-etag").map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
        let hash = tag.and_then(Hash::parse);
        match size.is_none_or(|size| size == self.listed.size) && hash.is_none_or(|hash| hash == self.listed.hash) {
            true => Ok(()),
            false => Err(strange(url, "another size or hash than the listing")),
        }
    }
}
