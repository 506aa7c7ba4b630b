//! Client of the hub's API: lists the files of a repository, and converts refusals into errors with a hint.

use std::collections::HashSet;

use reqwest::header::{HeaderMap, LINK};
use reqwest::{StatusCode, Url};
use serde_json::Value;

use super::check::Hash;
use super::http::{Failure, Http, Refusal, Reply};
use super::repo::{Kind, Repo, SHORT_NAMES};
use super::settings::Settings;
use crate::config::nearest;
use crate::error::{Error, Result};

/// Message of the hub for an invalid token.
const WRONG_TOKEN: &str = "Invalid credentials in Authorization header";
/// Maximum number of listing pages, of a thousand files each, and maximum number of files.
const MOST_PAGES: usize = 2_000;
const MOST_FILES: usize = 2_000_000;

/// Client of a hub.
pub struct Hub {
    pub(super) http: Http,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path in the repository, separated by `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Hash of the content.
    pub hash: Hash,
}

/// The files of a repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoListing {
    /// Kind of the repository.
    pub kind: Kind,
    /// Id, `ORG/NAME`.
    pub id: String,
    /// Commit that the revision referred to when it was listed.
    pub commit: String,
    /// Files in the hub's order.
    pub files: Vec<Listed>,
}

impl Hub {
    /// Creates a client with these settings.
    pub fn new(settings: &Settings) -> Result<Hub> {
        Ok(Hub { http: Http::new(settings)? })
    }

    /// Lists a repository. If the repository or revision does not exist or is not public, the error contains a hint.
    pub async fn list(&self, repo: &Repo) -> Result<RepoListing> {
        let kinds = repo.kind.map_or(vec![Kind::Model, Kind::Dataset], |kind| vec![kind]);
        let mut refusals = Vec::new();
        for kind in kinds {
            let url = self.api(kind, &repo.id, &["revision", &repo.revision]);
            match self.http.json(&url).await {
                Ok((info, _)) => {
                    let commit = info["sha"].as_str().filter(|sha| sha.bytes().all(|b| b.is_ascii_hexdigit()));
                    let commit = commit.ok_or_else(|| strange(&url, "no commit"))?.to_owned();
                    let files = self.tree(kind, &repo.id, &commit).await?;
                    return Ok(RepoListing { kind, id: repo.id.clone(), commit, files });
                }
                Err(Failure::Status(refusal)) if refusal.is_missing_repo() => refusals.push(refusal),
                Err(Failure::Status(refusal)) => return Err(self.refused(kind, repo, &refusal).await),
                Err(other) => return Err(self.failed(&url, other)),
            }
        }
        Err(self.missing(repo, refusals.first()).await)
    }

    async fn tree(&self, kind: Kind, id: &str, commit: &str) -> Result<Vec<Listed>> {
        let mut url = self.api(kind, id, &["tree", commit]);
        url.set_query(Some("recursive=true&expand=false"));
        let (mut files, mut seen) = (Vec::new(), HashSet::new());
        while seen.len() < MOST_PAGES && files.len() <= MOST_FILES {
            if !seen.insert(url.clone()) {
                return Err(strange(&url, "a next page that was already read"));
            }
            let (page, headers) = self.http.json(&url).await.map_err(|failure| self.failed(&url, failure))?;
            let entries = page.as_array().ok_or_else(|| strange(&url, "a listing that is not an array"))?;
            for entry in entries.iter().filter(|entry| entry["type"] == "file") {
                files.push(listed(entry).ok_or_else(|| strange(&url, &format!("an invalid file entry {entry}")))?);
            }
            match next(&headers).map(|next| url.join(&next)) {
                Some(Ok(next)) if next.origin() == url.origin() => url = next,
                Some(_) => return Err(strange(&url, "a listing whose next page is on another server")),
                None => return Ok(files),
            }
        }
        Err(strange(&url, "a listing with too many pages"))
    }

    /// Requests the content of a file from byte `from` on.
    pub(super) async fn content(
        &self,
        listing: &RepoListing,
        file: &Listed,
        from: u64,
    ) -> std::result::Result<Reply, Failure> {
        self.http.get(&self.address(listing, file), from).await
    }

    pub(super) fn address(&self, listing: &RepoListing, file: &Listed) -> Url {
        let kind = listing.kind.prefix().trim_end_matches('/');
        let parts = [kind].into_iter().filter(|kind| !kind.is_empty()).chain(listing.id.split('/'));
        self.http.url(parts.chain(["resolve", &listing.commit]).chain(file.path.split('/')))
    }

    pub(super) fn api(&self, kind: Kind, id: &str, rest: &[&str]) -> Url {
        let parts = ["api", kind.plural()].into_iter().chain(id.split('/'));
        self.http.url(parts.chain(rest.iter().copied()))
    }

    pub(super) fn page(&self, kind: Kind, id: &str) -> Url {
        self.http.url([kind.prefix().trim_end_matches('/')].into_iter().filter(|p| !p.is_empty()).chain(id.split('/')))
    }

    pub(super) fn failed(&self, url: &Url, failure: Failure) -> Error {
        match failure {
            Failure::Fatal(error) => error,
            Failure::Passing(what, _) => Error::Server { url: url.to_string(), what },
            Failure::Status(refusal) => Error::Server { url: url.to_string(), what: refusal.text() },
        }
    }

    /// Converts a refusal for an existing repository into an error with a hint.
    pub(super) async fn refused(&self, kind: Kind, repo: &Repo, refusal: &Refusal) -> Error {
        let (id, url) = (repo.id.as_str(), self.page(kind, &repo.id));
        let tokens = self.http.url(["settings", "tokens"]);
        let said = refusal.text();
        let (found, expected, hint) = match (refusal.code.as_str(), refusal.status) {
            ("RevisionNotFound", _) => {
                let names = self.names(&self.api(kind, id, &["refs"]), "branches", "name").await;
                let near = nearest(&repo.revision, names.iter().map(String::as_str));
                let branches = || format!("branches: {}", names.join(", "));
                let hint = near.map_or_else(branches, |near| format!("did you mean {near}?"));
                (format!("no revision {}", repo.revision), "a branch, a tag or a commit", hint)
            }
            (_, StatusCode::UNAUTHORIZED) if self.http.has_token() => {
                let hint = format!("set HF_TOKEN to a token of {tokens}");
                (format!("a token that {url} rejects ({said})"), "a valid token", hint)
            }
            (_, StatusCode::UNAUTHORIZED) => {
                let hint = format!("accept its terms at {url}, then set HF_TOKEN to a token of {tokens}");
                (format!("no token ({said})"), "a token with read access to the repository", hint)
            }
            (_, StatusCode::FORBIDDEN) => {
                let hint = format!("accept the terms at {url} with the account of the token in HF_TOKEN");
                (format!("no access ({said})"), "a repository that the token can read", hint)
            }
            (_, StatusCode::NOT_FOUND) => return Error::input(id, said, "a file of the repository"),
            _ => return Error::Server { url: url.to_string(), what: said },
        };
        Error::input_hint(id, found, expected, hint)
    }

    /// Creates the error for a repository that does not exist or is not visible. It suggests the nearest name of the
    /// same owner.
    async fn missing(&self, repo: &Repo, refusal: Option<&Refusal>) -> Error {
        let kinds = repo.kind.map_or(vec![Kind::Model, Kind::Dataset], |kind| vec![kind]);
        let mut names: Vec<String> = SHORT_NAMES.iter().map(|(_, _, id)| (*id).to_owned()).collect();
        let owner = repo.id.split('/').next().unwrap_or_default();
        for kind in kinds {
            let mut url = self.http.url(["api", kind.plural()]);
            url.query_pairs_mut().append_pair("author", owner).append_pair("limit", "100");
            names.extend(self.names(&url, "", "id").await);
        }
        let hint = match nearest(&repo.id, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => "a private repository needs HF_TOKEN".to_owned(),
        };
        let what = refusal.map(|refusal| format!(" ({})", refusal.text())).unwrap_or_default();
        Error::input_hint(&repo.id, format!("no such repository{what}"), "a repository's id", hint)
    }

    /// Returns the names in a reply. Returns no names if the request fails, because the names only improve an error
    /// message.
    async fn names(&self, url: &Url, list: &str, key: &str) -> Vec<String> {
        let Ok((reply, _)) = self.http.json(url).await else { return Vec::new() };
        let list = if list.is_empty() { &reply } else { &reply[list] };
        let names = list.as_array().into_iter().flatten();
        names.filter_map(|entry| Some(entry[key].as_str()?.to_owned())).collect()
    }
}

impl Refusal {
    /// Returns true if the refusal means that the repository is missing. The hub also returns 401 for missing
    /// repositories, so that private names cannot be guessed. For an invalid token the hub returns a specific message.
    pub(super) fn is_missing_repo(&self) -> bool {
        let hidden = self.status == StatusCode::UNAUTHORIZED && self.message != WRONG_TOKEN;
        self.code == "RepoNotFound" || (self.code.is_empty() && (hidden || self.status == StatusCode::NOT_FOUND))
    }

    pub(super) fn text(&self) -> String {
        match self.message.is_empty() {
            true => format!("status {}", self.status),
            false => format!("status {}: {}", self.status, self.message),
        }
    }
}

/// Creates the error for a reply that does not follow the protocol.
pub(super) fn strange(url: &Url, what: &str) -> Error {
    Error::Server { url: url.to_string(), what: format!("the hub's reply has {what}") }
}

/// Parses a file of a listing. Returns `None` if the entry has an unexpected format or its path leaves the folder.
fn listed(entry: &Value) -> Option<Listed> {
    let path = entry["path"].as_str().filter(|path| stays_inside(path))?;
    let large = &entry["lfs"];
    let (size, hash) = match large.is_object() {
        true => (&large["size"], Hash::sha256(large["oid"].as_str()?)?),
        false => (&entry["size"], Hash::git(entry["oid"].as_str()?)?),
    };
    Some(Listed { path: path.to_owned(), size: size.as_u64()?, hash })
}

fn stays_inside(path: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    path.split('/').all(part)
}

/// Returns the address of the next page.
fn next(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn listed_files_stay_in_their_folder() {
        let sha = "a".repeat(40);
        let path = |path: &str| listed(&json!({"type": "file", "path": path, "size": 1, "oid": sha}));
        assert_eq!(path("data/train-0.parquet").unwrap().size, 1);
        for bad in ["../x", "/etc/passwd", "a//b", "a/../../b", "a\\..\\b", "."] {
            assert_eq!(path(bad), None, "{bad}");
        }
        assert_eq!(listed(&json!({"path": "x", "size": 1, "oid": "main"})), None);
    }
}
