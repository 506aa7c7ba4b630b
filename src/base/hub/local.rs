//! Finds repositories that were already downloaded, as snapshots in the cache of the Hugging Face libraries. For
//! missing ones it suggests the download command.

use std::path::{Path, PathBuf};

use super::record::{self, Record};
use super::repo::{Kind, SHORT_NAMES, is_id};
use super::settings::cache;
use crate::error::{Error, Result};
use crate::files;

/// Endings of files of repositories that omr never reads.
const UNREAD: [&str; 8] = ["md", "bin", "pt", "pth", "gguf", "onnx", "h5", "msgpack"];

/// Advice for a download that has not finished.
const AGAIN: &str = "run it again until it finishes";

/// Resolves `path`, which may be the name of a repository or, for a model, the folder of a run, whose model is in its
/// folder `model`. Returns any other `path` unchanged if it exists as a file or folder or is not a valid name; otherwise
/// returns the cached snapshot of that repository. `place` is the key or flag that contained the path.
///
/// If there is no snapshot, the error contains the command that downloads the repository. Errors for a model that was
/// downloaded in part.
pub fn find(path: &Path, kind: Kind, place: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let found = locate(path, kind, place, env)?;
    let is_model = kind == Kind::Model && found.is_dir();
    if is_model { finished(&found, &|_| true).map(|()| found) } else { Ok(found) }
}

fn locate(path: &Path, kind: Kind, place: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let Some((id, revision)) = name(path) else {
        let model = path.join("model");
        let is_of_run = kind == Kind::Model && files::is_run(path) && model.is_dir();
        return Ok(if is_of_run { model } else { path.to_owned() });
    };
    if let Some(snapshot) = cache(env).and_then(|cache| snapshot(&cache, kind, id, revision)) {
        return Ok(snapshot);
    }
    let found = format!("{}, which is neither a path nor in HF_HOME", path.display());
    Err(Error::input_hint(place, found, expected(kind), format!("omr download {} --to DIR", path.display())))
}

/// True for the name of a file that a program is downloading, or of answers that `omr generate` is writing.
pub fn is_partial(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| ["incomplete", "partial", "part", "crdownload", "aria2"].iter().any(|it| end == *it))
}

/// Errors if files of `folder` are missing that `is_wanted` accepts: a download into it, or into a folder that contains
/// it, has not finished, or a file of a finished download is gone.
pub fn finished(folder: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
    let real = folder.canonicalize().map_err(Error::io(folder))?;
    let mut partial = files::entries(folder)?;
    // The Hugging Face libraries keep partial files elsewhere. A complete blob may lie beside an old partial one.
    let blobs = blobs(&real).map(|blobs| files::entries(&blobs)).transpose()?.unwrap_or_default();
    let is_whole =
        |path: &Path| files::file_name(path).split('.').next().is_some_and(|name| path.with_file_name(name).exists());
    partial.extend(blobs.into_iter().filter(|path| !is_whole(path)));
    let theirs = |at: &Path| Some(at.join(".cache/huggingface/download")).filter(|folder| folder.is_dir());
    if let Some(theirs) = real.ancestors().find_map(theirs) {
        partial.extend(files::below(&theirs, &mut |_, _| Ok(true))?.iter().map(|inner| theirs.join(inner)));
    }
    partial.retain(|path| is_partial(path));
    if let Some(partial) = partial.first() {
        return Err(unfinished(partial));
    }
    let Some(root) = real.ancestors().find(|at| at.join(record::NAME).exists()) else { return Ok(()) };
    let record = Record::read(root);
    let listing = root.join(record::NAME);
    let hint = || format!("{AGAIN}, or remove {} if all files that you need are there", listing.display());
    if record.begun.is_some() {
        return Err(Error::input_hint(folder, "files of a download that has not finished", "all files", hint()));
    }
    let is_gone = |path: &&String| {
        let path = root.join(path);
        // Files that omr never reads may be removed.
        let is_unread = path.extension().is_none_or(|end| UNREAD.iter().any(|it| end == *it));
        let inner = path.strip_prefix(&real).ok().filter(|_| !is_unread && !path.exists());
        inner.is_some_and(|inner| is_wanted(&folder.join(inner)))
    };
    match record.whole.iter().flat_map(|whole| &whole.files).find(is_gone) {
        Some(gone) => Err(Error::input_hint(root.join(gone), "no file", "the file that was downloaded", hint())),
        None => Ok(()),
    }
}

/// Returns the error for a partial file.
pub fn unfinished(partial: &Path) -> Error {
    let hint = format!("{AGAIN}, or remove this file if it is not needed");
    Error::input_hint(partial, "a part of a file, whose download or job has not finished", "complete files", hint)
}

/// Returns a description of what a repository of this kind contains, for error messages.
pub fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "a model directory",
        Kind::Dataset => "a file or folder of rows",
    }
}

/// Returns the download command for `path`, if one applies. `path` may be a repository's name, a folder with the name
/// of a published repository of the recipe, or a path inside such a folder.
pub fn command(path: &Path, kind: Kind) -> Option<String> {
    if name(path).is_some() {
        return Some(format!("omr download {} --to DIR", path.display()));
    }
    path.ancestors().find_map(|folder| {
        let of_folder = format!("/{}", folder.file_name()?.to_str()?);
        let (short, ..) = SHORT_NAMES.iter().find(|(_, of, id)| *of == kind && id.ends_with(&of_folder))?;
        Some(format!("omr download {short} --to {}", folder.display()))
    })
}

/// Splits `path` into a repository's id and revision. Returns `None` if `path` exists, is not a valid id, looks like a
/// data file, or begins with an existing folder or a common name of a download folder.
fn name(path: &Path) -> Option<(&str, &str)> {
    let text = path.to_str()?;
    let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
    let is_file_name = ["parquet", "arrow", "jsonl", "json", "csv", "tsv", "gz", "tar", "zip", "yaml", "yml"]
        .iter()
        .any(|known| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(known)));
    let owner = id.split('/').next()?;
    // Common download folders and prefixes of hub addresses are not owners of repositories.
    let is_owner = !["models", "datasets", "data", "checkpoints"].contains(&owner) && !Path::new(owner).exists();
    (is_id(id) && !is_file_name && is_owner && !path.exists()).then_some((id, revision))
}

/// Returns `CACHE/models--ORG--NAME/snapshots/COMMIT`. `revision` is the commit, or the name of the file
/// `refs/REVISION` that contains it.
fn snapshot(cache: &Path, kind: Kind, id: &str, revision: &str) -> Option<PathBuf> {
    let repo = cache.join(format!("{}--{}", kind.name(), id.replace('/', "--")));
    let named = files::read_to_string(repo.join("refs").join(revision)).ok();
    let commit = named.as_deref().map_or(revision, str::trim);
    let single = !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric());
    let snapshot = repo.join("snapshots").join(commit);
    (single && snapshot.is_dir()).then_some(snapshot)
}

/// Returns the folder with the blobs of the snapshot that contains `path`. The snapshot's files are symbolic links to
/// them.
pub fn blobs(path: &Path) -> Option<PathBuf> {
    let (repo, _) = repository(path)?;
    Some(repo.join("blobs")).filter(|blobs| blobs.is_dir() && !blobs.is_symlink())
}

/// Returns the real path of `path`, which is sent to others or written. Errors if a link leads out of `folder`, unless it
/// leads to a blob of the snapshot that contains `folder`.
pub fn inside(folder: &Path, path: &Path) -> Result<PathBuf> {
    let real = |path: &Path| path.canonicalize().map_err(Error::io(path));
    let (root, found) = (real(folder)?, real(path)?);
    if found.starts_with(&root) || blobs(&root).is_some_and(|blobs| found.starts_with(blobs)) {
        return Ok(found);
    }
    Err(Error::input(path, "a link to a place outside the folder", "a file or folder inside it, or a copy of the file"))
}

/// Returns the name of the repository if `path` is in one of its snapshots.
pub fn repository_name(path: &Path) -> Option<String> {
    repository(&path.canonicalize().ok()?).map(|(_, name)| name)
}

/// Returns the id of the repository that `folder` was downloaded from, as a snapshot or by `omr download`.
pub fn origin(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    match repository(&folder) {
        Some((repo, _)) => Some(repo.file_name()?.to_str()?.split_once("--")?.1.replacen("--", "/", 1)),
        None => Record::read(&folder).whole.map(|listing| listing.repo),
    }
}

/// Returns the id of the repository whose snapshot `folder` is, if a config with this id finds the same snapshot.
pub fn published(folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let found = |id: &String| find(Path::new(id), Kind::Model, "model", env);
    origin(folder).filter(|id| found(id).is_ok_and(|snapshot| snapshot == folder))
}

/// Returns the cache folder of the repository that has `path` in a snapshot, and the repository's name without its
/// owner.
fn repository(path: &Path) -> Option<(PathBuf, String)> {
    let snapshots = path.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"))?;
    let repo = snapshots.parent()?;
    let (kind, name) = repo.file_name()?.to_str()?.split_once("--")?;
    let known = kind.parse::<Kind>().is_ok();
    let name = name.split_once("--").map_or(name, |(_, name)| name);
    known.then(|| (repo.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_in_the_cache_is_used_and_what_is_missing_is_named_with_its_command() {
        let home = tempfile::tempdir().unwrap();
        let repo = home.path().join("hub/datasets--org--rows");
        std::fs::create_dir_all(repo.join("snapshots/c0ffee/data")).unwrap();
        std::fs::create_dir_all(repo.join("blobs")).unwrap();
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), "c0ffee\n").unwrap();
        let at = home.path().display().to_string();
        let env = |name: &str| (name == "HF_HOME").then(|| at.clone());
        let find = |path: &str, kind| find(Path::new(path), kind, "model", &env);
        let snapshot = repo.join("snapshots/c0ffee");
        assert_eq!(find("org/rows", Kind::Dataset).unwrap(), snapshot);
        assert_eq!(find("org/rows@c0ffee", Kind::Dataset).unwrap(), snapshot);
        assert_eq!(blobs(&snapshot.join("data")), Some(repo.join("blobs")));
        assert_eq!(repository_name(&snapshot).as_deref(), Some("rows"));
        assert_eq!((origin(&snapshot).as_deref(), origin(home.path())), (Some("org/rows"), None));
        for (path, kind) in [("org/rows", Kind::Model), ("org/rows@v2", Kind::Dataset), ("org/rows@..", Kind::Dataset)]
        {
            let error = find(path, kind).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().ends_with(&format!("(omr download {path} --to DIR)")), "{error}");
        }
        let published = |path: &str, kind| command(Path::new(path), kind);
        assert_eq!(
            published("models/OpenMMReasoner-RL", Kind::Model).unwrap(),
            "omr download rl --to models/OpenMMReasoner-RL"
        );
        assert_eq!(published("models/OpenMMReasoner-RL", Kind::Dataset), None);
        assert_eq!(
            published("data/OpenMMReasoner-RL-74K/**/val*.parquet", Kind::Dataset).unwrap(),
            "omr download rl-data --to data/OpenMMReasoner-RL-74K"
        );
        // A model is named by its repository where the name leads to this snapshot.
        let model = home.path().join("hub/models--org--base");
        for commit in ["c0ffee", "older"] {
            std::fs::create_dir_all(model.join("snapshots").join(commit)).unwrap();
        }
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "c0ffee\n").unwrap();
        let named = |commit: &str| super::published(&model.join("snapshots").join(commit), &env);
        assert_eq!((named("c0ffee").as_deref(), named("older")), (Some("org/base"), None));
        // A path that is not a repository's name stays unchanged: a missing file, or an existing folder.
        for path in ["org/rows.parquet", "Cargo.toml/nothing", "model", "/a/b", "./a/b", "models/tiny", "a/b/c"] {
            assert_eq!(find(path, Kind::Model).unwrap(), Path::new(path));
        }
    }
}
