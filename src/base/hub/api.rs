//! The hub's API: addresses, the files of a repository, and errors with a hint for refusals.

use std::collections::HashSet;

use reqwest::header::{HeaderMap, LINK};
use reqwest::{StatusCode, Url};
use serde_json::Value;

use super::check::Hash;
use super::http::{Failure, Hub, failed};
use super::repo::{Kind, Repo, SHORT_NAMES};
use crate::client::web::{Refusal, server_error};
use crate::config::nearest;
use crate::error::{Error, Result};

/// Message of the hub for an invalid token.
const WRONG_TOKEN: &str = "Invalid credentials in Authorization header";
/// Maximum number of listing pages, of a thousand files each, and maximum number of files.
const MOST_PAGES: usize = 2_000;
const MOST_FILES: usize = 2_000_000;

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
pub(super) struct RepoListing {
    pub(super) kind: Kind,
    /// Id, `ORG/NAME`.
    pub(super) id: String,
    /// Commit that the revision referred to when it was listed.
    pub(super) commit: String,
    /// Files in the hub's order.
    pub(super) files: Vec<Listed>,
}

/// Access of a request to a repository.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Read(Kind),
    /// Only models are uploaded.
    Write,
}

impl Hub {
    /// Lists a repository. If the repository or revision does not exist or is not public, the error contains a hint.
    pub(super) async fn list(&self, repo: &Repo) -> Result<RepoListing> {
        let mut missing = None;
        for kind in repo.kinds() {
            let url = self.api(kind, &repo.id, &["revision", &repo.revision]);
            let info = match self.json(&url).await {
                Ok((info, _)) => info,
                Err(Failure::Refused(refusal)) if refusal.is_missing_repo() => {
                    missing.get_or_insert(refusal);
                    continue;
                }
                Err(failure) => return Err(self.explained(repo, Access::Read(kind), &url, failure).await),
            };
            let commit = info["sha"].as_str().filter(|sha| sha.bytes().all(|b| b.is_ascii_hexdigit()));
            let commit = commit.ok_or_else(|| strange(&url, "no commit"))?.to_owned();
            let files = self.tree(self.api(kind, &repo.id, &["tree", &commit])).await?;
            return Ok(RepoListing { kind, id: repo.id.clone(), commit, files });
        }
        Err(self.missing(repo, missing).await)
    }

    async fn tree(&self, mut url: Url) -> Result<Vec<Listed>> {
        url.set_query(Some("recursive=true&expand=false"));
        let (mut files, mut seen, mut paths) = (Vec::new(), HashSet::new(), HashSet::new());
        while seen.len() < MOST_PAGES && files.len() <= MOST_FILES {
            if !seen.insert(url.clone()) {
                return Err(strange(&url, "a next page that was already read"));
            }
            let (page, headers) = self.json(&url).await.map_err(failed(&url))?;
            let entries = page.as_array().ok_or_else(|| strange(&url, "a listing that is not an array"))?;
            for entry in entries.iter().filter(|entry| entry["type"] == "file") {
                files.push(listed(entry).ok_or_else(|| strange(&url, format!("an invalid file entry {entry}")))?);
                if !paths.insert(entry["path"].clone()) {
                    return Err(strange(&url, format!("{} twice in its listing", entry["path"])));
                }
            }
            match next(&headers).map(|next| url.join(&next)) {
                Some(Ok(next)) if next.origin() == url.origin() => url = next,
                Some(_) => return Err(strange(&url, "a listing whose next page is on another server")),
                None => return Ok(files),
            }
        }
        Err(strange(&url, "a listing with too many pages"))
    }

    /// Returns the address of a file's content.
    pub(super) fn address(&self, listing: &RepoListing, file: &Listed) -> Url {
        let below = ["resolve", &listing.commit].into_iter().chain(file.path.split('/'));
        self.page(listing.kind, &listing.id, below)
    }

    /// Returns the address of a repository in the API, or of what is `below` it.
    pub(super) fn api(&self, kind: Kind, id: &str, below: &[&str]) -> Url {
        self.url(["api", kind.name()].into_iter().chain(id.split('/')).chain(below.iter().copied()))
    }

    /// Returns the address of a repository's page, or of what is `below` it.
    pub(super) fn page<'a>(&self, kind: Kind, id: &'a str, below: impl IntoIterator<Item = &'a str>) -> Url {
        let kind = (kind == Kind::Dataset).then_some(kind.name());
        self.url(kind.into_iter().chain(id.split('/')).chain(below))
    }

    /// Returns the address of the page with the user's tokens.
    pub(super) fn tokens(&self) -> Url {
        self.url(["settings", "tokens"])
    }

    /// Converts a failure of a request to `url`, about an existing repository, into an error. A refusal has a hint.
    pub(super) async fn explained(&self, repo: &Repo, access: Access, url: &Url, failure: Failure) -> Error {
        let Failure::Refused(refusal) = failure else { return failed(url)(failure) };
        let kind = if let Access::Read(kind) = access { kind } else { Kind::Model };
        let (id, url, tokens) = (repo.id.as_str(), self.page(kind, &repo.id, []), self.tokens());
        let (found, expected, hint) = match (refusal.status, access) {
            _ if refusal.code() == "RevisionNotFound" => {
                let names = self.names(&self.api(kind, id, &["refs"]), "/branches", "name").await;
                let near = nearest(&repo.revision, names.iter().map(String::as_str));
                let branches = || format!("branches: {}", names.join(", "));
                let hint = near.map_or_else(branches, |near| format!("did you mean {near}?"));
                let found = format!("no revision {}", repo.revision);
                return Error::input_hint(id, found, "a branch, a tag or a commit", hint);
            }
            (StatusCode::UNAUTHORIZED, _) if self.token.is_some() => {
                let hint = format!("set HF_TOKEN to a token of {tokens}");
                (format!("a token that {url} rejects"), "a valid token", hint)
            }
            (StatusCode::UNAUTHORIZED, _) => {
                let hint = format!("accept its terms at {url}, then set HF_TOKEN to a token of {tokens}");
                ("no token".to_owned(), "a token with read access to the repository", hint)
            }
            (StatusCode::FORBIDDEN, Access::Read(_)) => {
                let hint = format!("accept the terms at {url} with the account of the token in HF_TOKEN");
                ("no access".to_owned(), "a repository that the token can read", hint)
            }
            (StatusCode::FORBIDDEN, Access::Write) => {
                let hint = format!("set HF_TOKEN to a token of {tokens} that can write");
                ("no write access".to_owned(), "a repository that the token can write to", hint)
            }
            (StatusCode::NOT_FOUND, Access::Read(_)) => {
                return Error::input(id, refusal.to_string(), "a file of the repository");
            }
            (StatusCode::NOT_FOUND, Access::Write) => {
                ("no such repository".to_owned(), "a repository that the token can see", tokens.to_string())
            }
            (StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED, Access::Write) => {
                let hint = "run the same command again".to_owned();
                ("another change at the same time".to_owned(), "no other change", hint)
            }
            _ => return server_error(&url, refusal.to_string()),
        };
        Error::input_hint(id, format!("{found} ({refusal})"), expected, hint)
    }

    /// Creates the error for a repository that does not exist or is not visible. It suggests the nearest name of the
    /// same owner.
    async fn missing(&self, repo: &Repo, refusal: Option<Refusal>) -> Error {
        let mut names: Vec<String> = SHORT_NAMES.iter().map(|(_, _, id)| (*id).to_owned()).collect();
        let owner = repo.id.split('/').next().unwrap_or_default();
        for kind in repo.kinds() {
            let mut url = self.url(["api", kind.name()]);
            url.query_pairs_mut().append_pair("author", owner).append_pair("limit", "100");
            names.extend(self.names(&url, "", "id").await);
        }
        let near = nearest(&repo.id, names.iter().map(String::as_str));
        let hint = near.map_or("a private repository needs HF_TOKEN".to_owned(), |id| format!("did you mean {id}?"));
        let what = refusal.map_or(String::new(), |refusal| format!(" ({refusal})"));
        Error::input_hint(&repo.id, format!("no such repository{what}"), "a repository's id", hint)
    }

    /// Returns the names in the list at the JSON pointer `list` of a reply. Returns no names if the request fails,
    /// because the names only improve an error message.
    async fn names(&self, url: &Url, list: &str, key: &str) -> Vec<String> {
        let Ok((reply, _)) = self.json(url).await else { return Vec::new() };
        let names = reply.pointer(list).and_then(Value::as_array).into_iter().flatten();
        names.filter_map(|entry| Some(entry[key].as_str()?.to_owned())).collect()
    }
}

impl Refusal {
    /// Returns the error code of the hub, such as `GatedRepo`.
    pub(super) fn code(&self) -> &str {
        self.headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default()
    }

    /// Returns true if the refusal means that the repository is missing. The hub also returns 401 for missing
    /// repositories, so that private names cannot be guessed. For an invalid token the hub returns a specific message.
    pub(super) fn is_missing_repo(&self) -> bool {
        let hidden = self.status == StatusCode::UNAUTHORIZED && self.message != WRONG_TOKEN;
        self.code() == "RepoNotFound" || (self.code().is_empty() && (hidden || self.status == StatusCode::NOT_FOUND))
    }
}

/// Creates the error for a reply that does not follow the protocol.
pub(super) fn strange(url: &Url, what: impl Into<String>) -> Error {
    server_error(url, format!("the hub's reply has {}", what.into()))
}

/// Parses a file of a listing. Returns `None` if the entry has an unexpected format or its path leaves the folder.
fn listed(entry: &Value) -> Option<Listed> {
    let is_name = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    let path = entry["path"].as_str().filter(|path| path.split('/').all(is_name))?;
    let content = entry.get("lfs").filter(|large| large.is_object()).unwrap_or(entry);
    let hash = Hash::parse(content["oid"].as_str()?)?;
    Some(Listed { path: path.to_owned(), size: content["size"].as_u64()?, hash })
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
