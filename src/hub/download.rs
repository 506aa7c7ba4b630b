//! Downloads a repository: determines the wanted and the missing files, checks the free space, and fetches several
//! files at once.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use glob::Pattern;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::api::{Hub, Listed, RepoListing};
use super::fetch;
use super::record::Record;
use super::repo::Repo;
use super::settings::Settings;
use crate::config::nearest;
use crate::error::{Error, Result};
use crate::files;
use crate::observe::{Observer, bytes};

/// Bytes that must stay free on the disk.
const SPARE: u64 = 256 << 20;

/// Interval for checking whether the user requested a stop while no data arrives.
const STOP_ASKED: Duration = Duration::from_millis(200);

/// A download to perform.
#[derive(Clone, Debug)]
pub struct Job {
    /// Repository to download.
    pub repo: Repo,
    /// Folder to download into.
    pub dir: PathBuf,
    /// Patterns of the file paths to download; empty means all files.
    pub include: Vec<String>,
    /// Number of files fetched at once.
    pub workers: usize,
}

/// Result of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of wanted files.
    pub files: usize,
    /// Size of the wanted files in bytes; 0 if the hub was not contacted.
    pub bytes: u64,
    /// Number of files that were fetched.
    pub fetched: usize,
}

impl Job {
    /// Fetches the missing files. Reports the sizes, the existing files and the free space before the first byte is
    /// requested. After an error, the data received so far stays, and another run continues with it.
    pub async fn run(&self, settings: &Settings, observer: &dyn Observer) -> Result<Summary> {
        let patterns = self.patterns()?;
        if settings.offline {
            return self.offline(observer);
        }
        let hub = Hub::new(settings)?;
        let listing = hub.list(&self.repo).await?;
        let files = self.wanted(&listing, &patterns)?;
        let _lock = Record::lock(&self.dir)?;
        let record = Record::read(&self.dir);
        let missing = missing(&self.dir, &files, &record, observer)?;
        let total = size_of_all(&files);
        let summary = Summary { files: files.len(), bytes: total, fetched: missing.len() };
        let commit = &listing.commit[..listing.commit.len().min(12)];
        if missing.is_empty() {
            let here = self.dir.display();
            observer.note(&format!(
                "{here} already contains all of {} at {commit}: {}",
                self.repo,
                amount_text(summary.files, total)
            ));
            record.finish(&listing, &self.repo.revision, &self.include, &files)?;
            return Ok(summary);
        }
        let begun: u64 = missing.iter().map(|file| size_of(&fetch::partial(&self.dir, file)).min(file.size)).sum();
        let left = size_of_all(&missing).saturating_sub(begun);
        let free = files::free(&self.dir)?;
        observer.note(&format!(
            "{} at {commit}: {}; {} to download into {} ({} free)",
            self.repo,
            amount_text(summary.files, total),
            bytes(left),
            self.dir.display(),
            bytes(free)
        ));
        if left.saturating_add(SPARE) > free {
            let expected = format!("{} for the missing files and a reserve of {}", bytes(left), bytes(SPARE));
            return Err(Error::input(self.dir.display().to_string(), format!("{} free", bytes(free)), expected));
        }
        self.fetch(hub, &listing, missing, begun, &record, observer).await?;
        record.finish(&listing, &self.repo.revision, &self.include, &files)?;
        Ok(summary)
    }

    fn patterns(&self) -> Result<Vec<Pattern>> {
        let pattern = |text: &String| {
            Pattern::new(text)
                .map_err(|e| Error::input("--include", format!("{text:?} ({e})"), "a pattern such as *.parquet"))
        };
        self.include.iter().map(pattern).collect()
    }

    /// Returns the wanted files of a listing.
    fn wanted(&self, listing: &RepoListing, patterns: &[Pattern]) -> Result<Vec<Listed>> {
        let is_wanted = |file: &&Listed| patterns.is_empty() || patterns.iter().any(|p| p.matches(&file.path));
        let files: Vec<Listed> = listing.files.iter().filter(is_wanted).cloned().collect();
        if !files.is_empty() {
            return Ok(files);
        }
        let names: Vec<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
        let near = self.include.iter().find_map(|text| nearest(text, names.iter().copied()));
        let hint = match near {
            Some(near) => format!("did you mean {near}?"),
            None => format!("it contains {}", names[..names.len().min(8)].join(", ")),
        };
        let found = format!("no file that matches {}", self.include.join(", "));
        Err(Error::input_hint(listing.id.as_str(), found, "a pattern that matches at least one file", hint))
    }

    /// Checks the folder without contacting the hub.
    fn offline(&self, observer: &dyn Observer) -> Result<Summary> {
        let record = Record::read(&self.dir);
        if let Some(whole) = &record.whole
            && (whole.repo.as_str(), &whole.revision, &whole.include)
                == (&self.repo.id, &self.repo.revision, &self.include)
            && whole.files.iter().all(|path| record.hash(path).is_some())
        {
            observer.note(&format!("HF_HUB_OFFLINE is set; {} contains all of {}", self.dir.display(), self.repo));
            return Ok(Summary { files: whole.files.len(), bytes: 0, fetched: 0 });
        }
        let found = format!("no finished download of {} in {}", self.repo, self.dir.display());
        Err(Error::input("HF_HUB_OFFLINE", found, "a finished download, or HF_HUB_OFFLINE unset"))
    }

    /// Fetches the `missing` files, of which `begun` bytes already exist.
    async fn fetch(
        &self,
        hub: Hub,
        listing: &RepoListing,
        missing: Vec<Listed>,
        begun: u64,
        record: &Record,
        observer: &dyn Observer,
    ) -> Result<()> {
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        let all = begun + size_of_all(&missing).saturating_sub(begun);
        observer.begin("download", "MB", megabytes(all), megabytes(begun));
        let shared = Arc::new((hub, self.repo.clone(), listing.clone(), self.dir.clone()));
        let queue = Arc::new(Mutex::new(VecDeque::from(missing)));
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for _ in 0..self.workers.max(1) {
            let (shared, queue, sender) = (shared.clone(), queue.clone(), sender.clone());
            tasks.spawn(async move {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(file) = next() {
                    let (hub, repo, listing, dir) = &*shared;
                    let moved = |bytes| drop(sender.send(Progress::Moved(bytes)));
                    match fetch::file(hub, repo, listing, &file, dir, &moved).await {
                        Ok(()) => drop(sender.send(Progress::Done(file))),
                        Err(error) => return drop(sender.send(Progress::Failed(error))),
                    }
                }
            });
        }
        drop(sender);
        let mut here = begun as i64;
        // If the loop ends early, the tasks are dropped and their requests are cancelled.
        loop {
            match tokio::time::timeout(STOP_ASKED, receiver.recv()).await {
                Ok(Some(Progress::Moved(bytes))) => here += bytes,
                Ok(Some(Progress::Done(file))) => record.note(&file)?,
                Ok(Some(Progress::Failed(error))) => return Err(error),
                Ok(None) => break,
                Err(_) => {}
            }
            if observer.stop_requested() {
                return Err(Error::Stopped);
            }
            observer.step(here.max(0) as u64 / 1_000_000, &[]);
        }
        observer.end();
        match tasks.join_all().await.len() == self.workers.max(1) {
            true => Ok(()),
            false => Err(Error::Failed("a download task ended early".to_owned())),
        }
    }
}

/// Message from a task.
enum Progress {
    Moved(i64),
    Done(Listed),
    Failed(Error),
}

fn amount_text(files: usize, size: u64) -> String {
    format!("{files} file{}, {}", if files == 1 { "" } else { "s" }, bytes(size))
}

/// Returns the missing files. A file that differs from the listing is fetched again if the record shows that an earlier
/// download wrote it. Any other file belongs to the user and causes an error.
fn missing(dir: &Path, files: &[Listed], record: &Record, observer: &dyn Observer) -> Result<Vec<Listed>> {
    let mut missing = Vec::new();
    let mut read = 0;
    for file in files {
        let path = dir.join(&file.path);
        let known = record.hash(&file.path);
        if known == Some(file.hash.hex()) {
            continue;
        }
        if !path.exists() || known.is_some() {
            missing.push(file.clone());
            continue;
        }
        if size_of(&path) == file.size {
            if read == 0 {
                observer.note(&format!("checking the existing files in {}", dir.display()));
            }
            read += 1;
            let mut hasher = file.hash.hasher(file.size);
            hasher.read(&path)?;
            if hasher.hex() == file.hash.hex() {
                record.note(file)?;
                continue;
            }
        }
        let expected = "the repository's file, or no file; move this file away";
        return Err(Error::input(path.display().to_string(), "a different file that no download wrote", expected));
    }
    Ok(missing)
}

/// Returns the total size of the files, saturating because a listing may declare impossible sizes.
fn size_of_all(files: &[Listed]) -> u64 {
    files.iter().fold(0, |all, file| all.saturating_add(file.size))
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
