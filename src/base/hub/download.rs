//! Downloads a repository: determines the wanted and the missing files, checks the free space, and fetches several
//! files at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::Pattern;

use super::api::{Listed, RepoListing};
use super::check::Hasher;
use super::fetch::{self, Source};
use super::http::Hub;
use super::record::{CompleteListing, Record};
use super::repo::Repo;
use super::settings::Settings;
use super::transfer::{self, MEGABYTE};
use crate::config::nearest;
use crate::error::{Error, Result};
use crate::files;
use crate::observe::{Observer, bytes};

/// Bytes that must stay free on the disk.
const SPARE: u64 = 256 << 20;

/// A download to perform.
#[derive(Clone, Debug)]
pub struct Job {
    /// Repository to download.
    pub repo: Repo,
    /// Folder to download into.
    pub dir: PathBuf,
    /// Patterns of the file paths to download; empty means all files.
    pub include: Vec<Pattern>,
    /// Number of files fetched at once.
    pub workers: usize,
}

/// Returns the paths and sizes of the files of a repository.
pub async fn files(repo: &Repo, settings: &Settings) -> Result<Vec<(String, u64)>> {
    if settings.offline {
        return Err(Error::input("HF_HUB_OFFLINE", "1", format!("an unset variable, to list the files of {repo}")));
    }
    let listing = Hub::new(settings)?.list(repo).await?;
    Ok(listing.files.into_iter().map(|file| (file.path, file.size)).collect())
}

impl Job {
    /// Fetches the missing files. Reports the sizes, the existing files and the free space before the first byte is
    /// requested. After an error, the data received so far stays, and another run continues with it.
    pub async fn run(&self, settings: &Settings, observer: &dyn Observer) -> Result<()> {
        if settings.offline {
            return self.offline(observer);
        }
        if self.dir.exists() && !self.dir.is_dir() {
            return Err(Error::input(&self.dir, "a file", "a folder, or an unused name"));
        }
        let hub = Hub::new(settings)?;
        let listing = hub.list(&self.repo).await?;
        let files = self.wanted(&listing)?;
        let _lock = Record::lock(&self.dir)?;
        let record = Record::read(&self.dir);
        let missing = self.missing(&files, &record, observer)?;
        let (here, repo, commit) = (self.dir.display(), &self.repo, &listing.commit);
        let (short, plural) = (&commit[..commit.len().min(12)], if files.len() == 1 { "" } else { "s" });
        let (count, fetched) = (files.len(), missing.len());
        let amount = format!("{count} file{plural}, {}", bytes(size_of_all(&files)));
        let whole = CompleteListing {
            repo: listing.id.clone(),
            revision: repo.revision.clone(),
            commit: commit.clone(),
            include: self.patterns(),
            files: files.into_iter().map(|file| file.path).collect(),
        };
        if missing.is_empty() {
            observer.note(&format!("{here} already contains all of {repo} at {short}: {amount}"));
            return record.finish(whole);
        }
        let begun: u64 = missing.iter().map(|file| size_of(&fetch::partial(&self.dir, file)).min(file.size)).sum();
        let (all, free) = (size_of_all(&missing), files::free(&self.dir)?);
        let left = all.saturating_sub(begun);
        let (left_text, free_text) = (bytes(left), bytes(free));
        observer.note(&format!("{repo} at {short}: {amount}; {left_text} to download into {here} ({free_text} free)"));
        if left.saturating_add(SPARE) > free {
            let expected = format!("{left_text} for the missing files and a reserve of {}", bytes(SPARE));
            return Err(Error::input(here.to_string(), format!("{free_text} free"), expected));
        }
        observer.begin("download", "MB", all.div_ceil(MEGABYTE), begun.div_ceil(MEGABYTE));
        let (dir, moved) = (self.dir.clone(), begun.into());
        let source = Arc::new(Source { hub, repo: repo.clone(), listing, dir, record, moved });
        let fetches = missing.into_iter().map(|file| fetch::file(source.clone(), file));
        transfer::run(fetches, self.workers, &source.moved, observer).await?;
        source.record.finish(whole)?;
        observer.note(&format!("{here} is complete: downloaded {fetched} of the {count} files of {repo}"));
        Ok(())
    }

    fn patterns(&self) -> Vec<String> {
        self.include.iter().map(|pattern| pattern.as_str().to_owned()).collect()
    }

    /// Returns the wanted files of a listing.
    fn wanted(&self, listing: &RepoListing) -> Result<Vec<Listed>> {
        let is_wanted = |file: &&Listed| self.include.is_empty() || self.include.iter().any(|p| p.matches(&file.path));
        let files: Vec<Listed> = listing.files.iter().filter(is_wanted).cloned().collect();
        if !files.is_empty() {
            return Ok(files);
        }
        let names: Vec<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
        let near = self.include.iter().find_map(|pattern| nearest(pattern.as_str(), names.iter().copied()));
        let contains = || format!("it contains {}", names[..names.len().min(8)].join(", "));
        let hint = near.map_or_else(contains, |near| format!("did you mean {near}?"));
        let found = format!("no file that matches {}", self.patterns().join(", "));
        Err(Error::input_hint(listing.id.as_str(), found, "a pattern that matches at least one file", hint))
    }

    /// Checks the folder without contacting the hub.
    fn offline(&self, observer: &dyn Observer) -> Result<()> {
        let Job { repo, dir, .. } = self;
        let record = Record::read(dir);
        if let Some(whole) = &record.whole
            && (&whole.repo, &whole.revision, &whole.include) == (&repo.id, &repo.revision, &self.patterns())
            && whole.files.iter().all(|path| record.hash(path).is_some())
        {
            observer.note(&format!("HF_HUB_OFFLINE is set; {} contains all of {repo}", dir.display()));
            return Ok(());
        }
        let found = format!("no finished download of {repo} in {}", dir.display());
        Err(Error::input("HF_HUB_OFFLINE", found, "a finished download, or HF_HUB_OFFLINE unset"))
    }

    /// Returns the missing ones of `files`. A file that differs from the listing is fetched again if the record shows
    /// that an earlier download wrote it. Any other file belongs to the user and causes an error.
    fn missing(&self, files: &[Listed], record: &Record, observer: &dyn Observer) -> Result<Vec<Listed>> {
        let (mut missing, mut is_checking) = (Vec::new(), false);
        for file in files {
            let path = self.dir.join(&file.path);
            match record.hash(&file.path) {
                Some(known) if known == file.hash.hex() => continue,
                None if std::fs::symlink_metadata(&path).is_ok() => {}
                _ => {
                    missing.push(file.clone());
                    continue;
                }
            }
            if size_of(&path) == file.size {
                if !std::mem::replace(&mut is_checking, true) {
                    observer.note(&format!("checking the existing files in {}", self.dir.display()));
                }
                if Hasher::new(file.hash.is_sha256(), file.size).read(&path)?.finish() == file.hash {
                    record.note(file)?;
                    continue;
                }
            }
            let expected = "the repository's file, or no file; move this file away";
            return Err(Error::input(path, "a different file that no download wrote", expected));
        }
        Ok(missing)
    }
}

/// Returns the total size of the files, saturating because a listing may declare impossible sizes.
fn size_of_all(files: &[Listed]) -> u64 {
    files.iter().fold(0, |all, file| all.saturating_add(file.size))
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
