//! Names of repositories.

use std::fmt;
use std::str::FromStr;

use crate::choice::choice;
use crate::error::{Error, Result};

/// Published repositories of the recipe, with their short names in `omr download`.
pub const SHORT_NAMES: [(&str, Kind, &str); 5] = [
    ("base", Kind::Model, "Qwen/Qwen2.5-VL-7B-Instruct"),
    ("coldstart", Kind::Model, "OpenMMReasoner/OpenMMReasoner-ColdStart"),
    ("rl", Kind::Model, "OpenMMReasoner/OpenMMReasoner-RL"),
    ("sft-data", Kind::Dataset, "OpenMMReasoner/OpenMMReasoner-SFT-874K"),
    ("rl-data", Kind::Dataset, "OpenMMReasoner/OpenMMReasoner-RL-74K"),
];

choice! {
    /// Kind of a repository, with its name in paths under `/api` and in folder names of the cache.
    pub enum Kind {
        /// A model directory.
        Model = "models",
        /// A data set.
        Dataset = "datasets",
    }
}

/// A repository as named by the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    /// Kind of the repository, or `None` if the name does not contain it; models are then searched first.
    pub kind: Option<Kind>,
    /// Id, `ORG/NAME`.
    pub id: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl Repo {
    /// Returns the kinds that the repository may have, in the order of the search.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.kind.map_or(vec![Kind::Model, Kind::Dataset], |kind| vec![kind])
    }
}

impl FromStr for Repo {
    type Err = Error;

    /// Parses `SHORT`, `ORG/NAME`, `datasets/ORG/NAME` or `models/ORG/NAME`, each with an optional `@REVISION`.
    fn from_str(text: &str) -> Result<Repo> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let known = SHORT_NAMES.iter().find(|(short, ..)| *short == name);
        let (kind, id) = match (known, name.strip_prefix("datasets/"), name.strip_prefix("models/")) {
            (Some((_, kind, id)), ..) => (Some(*kind), *id),
            (None, Some(id), _) if id.contains('/') => (Some(Kind::Dataset), id),
            (None, _, Some(id)) if id.contains('/') => (Some(Kind::Model), id),
            _ => (None, name),
        };
        if !is_id(id) || !is_revision(revision) {
            let short: Vec<&str> = SHORT_NAMES.iter().map(|(short, ..)| *short).collect();
            let expected = format!("{}, or ORG/NAME, or ORG/NAME@REVISION", short.join(", "));
            return Err(Error::input("the repository", format!("{text:?}"), expected));
        }
        Ok(Repo { kind, id: id.to_owned(), revision: revision.to_owned() })
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

/// Returns true for `ORG/NAME` as the hub allows it.
pub(super) fn is_id(text: &str) -> bool {
    let part = |part: &str| {
        let inner = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        (1..=96).contains(&part.len()) && inner && !part.starts_with(['.', '-']) && !part.ends_with(['.', '-'])
    };
    text.split_once('/').is_some_and(|(org, name)| part(org) && part(name))
}

/// Returns true for a valid revision. The name of a branch may contain slashes, but no part may be `.` or `..`, which
/// would change the address.
fn is_revision(text: &str) -> bool {
    let inner = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    !text.is_empty() && inner && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_users_type_them() {
        let read = |text: &str| text.parse::<Repo>().map(|r| (r.kind, r.id, r.revision));
        let repo = |kind, id: &str, revision: &str| (kind, id.to_owned(), revision.to_owned());
        assert_eq!(read("base").unwrap(), repo(Some(Kind::Model), "Qwen/Qwen2.5-VL-7B-Instruct", "main"));
        assert_eq!(read("a/b-1.5@refs/pr/3").unwrap(), repo(None, "a/b-1.5", "refs/pr/3"));
        assert_eq!(read("datasets/a/b").unwrap(), repo(Some(Kind::Dataset), "a/b", "main"));
        assert_eq!(read("datasets/b").unwrap(), repo(None, "datasets/b", "main"));
        for bad in ["", "gpt", "a/b/c", "../b", "a/..", "a/b@", "a/b@../../x", "a b/c", "https://h/a/b"] {
            let error = read(bad).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("sft-data"), "{bad}: {error}");
        }
    }
}
