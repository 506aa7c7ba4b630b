//! Finds the files of a data set: a single file, the files of a folder, or the files that match a pattern.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{shards, splits};
use omr_base::config::{DataType, DatasetConfig};
use omr_base::error::{Error, Result};
use omr_base::files::{below, file_name};
use omr_base::hub::local;

/// Extensions of files of rows, the most likely first. From a folder, only files with the first extension that occurs
/// in it are read.
const ENDINGS: [&str; 7] = ["parquet", "arrow", "jsonl", "csv", "tsv", "tar", "json"];
/// Returns the endings of files of rows for an error message.
pub fn endings() -> String {
    ENDINGS.map(|ending| format!(".{ending}")).join(", ") + ", or text with .gz after it"
}

/// Maximum depth of subfolders that are searched.
const DEPTH: usize = 32;

/// Returns the files of a data set, sorted by name. A folder of images without a file of rows is returned itself.
pub fn of(entry: &DatasetConfig) -> Result<Vec<PathBuf>> {
    let DatasetConfig { path, name, split, revision, .. } = entry;
    if revision.is_some() && local::repository_name(path).is_none() {
        let expected = "a repository of the Hugging Face hub, because `revision` is set";
        return Err(Error::input(path, "a file or folder", expected));
    }
    if path.is_dir() {
        return of_folder(path, name, split.as_deref());
    }
    if let Some(key) = split.as_ref().map(|_| "split").or(name.first().map(|_| "name")) {
        return Err(Error::input(path, "no folder", format!("a folder, because `{key}` is set")));
    }
    files(path)
}

/// Returns the files of a folder with default settings, the files that match a pattern, or the file itself.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        return of_folder(path, &[], None);
    }
    let Some(pattern) = path.to_str().filter(|text| is_pattern(text) && !path.exists()) else {
        return Ok(vec![path.to_owned()]);
    };
    let wrong = |what: String| Error::input(pattern, what, "files of rows");
    let found = glob::glob(pattern).map_err(|e| wrong(e.to_string()))?;
    let mut files = Vec::new();
    for entry in found {
        let path = entry.map_err(|e| Error::io(e.path().to_owned())(e.into()))?;
        if path.metadata().map_err(Error::io(&path))?.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(unmatched(path).unwrap_or_else(|| wrong("no matching file".to_owned())));
    }
    // Files that the pattern does not name are left out on purpose.
    let last = path.file_name().and_then(|name| glob::Pattern::new(name.to_str()?).ok());
    shards::complete(files, &|file| last.as_ref().is_some_and(|last| last.matches(&file_name(file))))
}

/// Returns the error for a file or a pattern that does not exist in a folder that has other files of rows. The error lists
/// them.
pub fn unmatched(path: &Path) -> Option<Error> {
    let is_pattern = path.to_str().is_some_and(is_pattern);
    let folder = base(path);
    let mut files = if is_pattern || is_of_rows(path) { walk(&folder).ok()? } else { Vec::new() };
    files.retain(|file| is_of_rows(file) && (is_pattern || file.parent() == Some(&folder)));
    files.sort();
    let found = if is_pattern { "no matching file" } else { "no such file" };
    let hint = || format!("the folder {} has {}", folder.display(), splits::listing(&folder, &files));
    (!files.is_empty()).then(|| Error::input_hint(path, found, "files of rows", hint()))
}

/// Returns the files of several data sets, in order. A folder of images is replaced by its images.
pub fn all(entries: &[DatasetConfig]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in entries.iter().map(of).collect::<Result<Vec<_>>>()?.concat() {
        if path.is_dir() { all.extend(images(&path)?.iter().map(|inner| path.join(inner))) } else { all.push(path) }
    }
    Ok(all)
}

/// Returns true if `path` exists or is a pattern that matches a file.
pub fn exist(path: &Path) -> bool {
    let pattern = path.to_str().filter(|text| is_pattern(text)).and_then(|text| glob::glob(text).ok());
    path.exists() || pattern.is_some_and(|mut found| found.next().is_some())
}

/// Returns true if a path has the ending of a file of rows.
fn is_of_rows(path: &Path) -> bool {
    ENDINGS.iter().any(|ending| has_ending(&unpacked(path), ending))
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Returns the files of rows in a folder that belong to the configurations `names` and a split, if these are given.
/// Returns an error if there are none, or files of more than one split.
fn of_folder(dir: &Path, names: &[String], split: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut all = walk(dir)?;
    local::finished(dir, &|_| true)?;
    if let Some(partial) = all.iter().find(|path| local::is_partial(path)) {
        return Err(local::unfinished(partial));
    }
    all.retain(|path| is_of_rows(path) || is_image_file(path));
    all.sort();
    let is_image = !all.iter().any(|path| is_of_rows(path));
    if !is_image {
        all.retain(|path| is_of_rows(path));
    }
    let mut files: Vec<splits::SplitFile> = Vec::new();
    for list in splits::chosen(dir, &all, names, split)? {
        let ending =
            ENDINGS.into_iter().find(|ending| list.iter().any(|(path, _)| has_ending(&unpacked(path), ending)));
        let is_wanted = |path: &Path| ending.is_none_or(|ending| has_ending(&unpacked(path), ending));
        // Two of the names may match the same configuration.
        let more = list.into_iter().filter(|file| is_wanted(&file.0) && !files.contains(file));
        files.extend(more.collect::<Vec<_>>());
    }
    if files.is_empty() {
        let expected = format!("files that end in {}, or folders of images named after their class", endings());
        return Err(Error::input(dir, "a folder without dataset files", expected));
    }
    let mut found: Vec<&str> = files.iter().filter_map(|(_, split)| split.as_deref()).collect();
    found.sort_unstable();
    found.dedup();
    if let [first, _, ..] = found.as_slice() {
        let hint = format!("for example {{path: {}, split: {first}}}", dir.display());
        let found = format!("several splits: {}", found.join(", "));
        return Err(Error::input_hint(dir, found, "one split, chosen by the key `split` or by a pattern", hint));
    }
    match split.map(|split| dir.join(split)).filter(|inner| inner.is_dir()) {
        Some(inner) if is_image => Ok(vec![inner]),
        _ if is_image => Ok(vec![dir.to_owned()]),
        _ => shards::complete(files.into_iter().map(|(path, _)| path).collect(), &|_| true),
    }
}

/// Returns the images below a folder, relative to it and sorted.
pub fn images(dir: &Path) -> Result<Vec<PathBuf>> {
    let inner = |path: PathBuf| path.strip_prefix(dir).map(Path::to_owned).unwrap_or(path);
    let mut images: Vec<PathBuf> = walk(dir)?.into_iter().filter(|path| is_image_file(path)).map(inner).collect();
    images.sort();
    Ok(images)
}

/// Returns the files below a folder. Errors if a link leads to a folder that is listed already, or if folders are nested
/// too deeply.
fn walk(dir: &Path) -> Result<Vec<PathBuf>> {
    let id = |path: &Path| std::fs::metadata(path).map(|of| (of.dev(), of.ino())).map_err(Error::io(path));
    let mut seen = HashSet::from([id(dir)?]);
    let found = below(dir, &mut |inner, is_folder| {
        let path = dir.join(inner);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Hidden files and the metadata files of the `datasets` library do not contain rows.
        if name.starts_with('.') || !is_folder && name.starts_with("dataset_info") {
            return Ok(false);
        }
        if is_folder && !seen.insert(id(&path)?) {
            let found = "a link to a folder that the data set already contains";
            return Err(Error::input(path, found, "each folder once: remove the link"));
        }
        if is_folder && inner.components().count() > DEPTH {
            let found = format!("more than {DEPTH} nested folders");
            return Err(Error::input(path, found, "fewer"));
        }
        Ok(true)
    })?;
    Ok(found.iter().map(|inner| dir.join(inner)).collect())
}

/// Returns the path of a file of text without the ending `.gz`, and any other path as it is.
pub fn unpacked(path: &Path) -> PathBuf {
    let inner = path.with_extension("");
    let is_text = ["jsonl", "json", "csv", "tsv"].iter().any(|ending| has_ending(&inner, ending));
    if is_text && has_ending(path, "gz") { inner } else { path.to_owned() }
}

/// Returns true if a path has the extension `ending`, in upper or lower case.
pub fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending))
}

/// Returns true if a path has the ending of an image file.
pub fn is_image_file(path: &Path) -> bool {
    ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"].iter().any(|ending| has_ending(path, ending))
}

/// Returns the name of a data set: the stem of the file, the name of the folder, or the part of a pattern before its
/// wildcards.
pub fn name(entry: &DatasetConfig) -> String {
    let path = &entry.path;
    if path.is_dir() {
        let named = || Some(path.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned());
        return local::repository_name(path).or_else(named).unwrap_or_default();
    }
    let stem = unpacked(path).file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_pattern(&stem) || path.exists() {
        return stem;
    }
    let word: String = stem.split(['*', '?', '[']).next().unwrap_or_default().trim_end_matches(['-', '_', '.']).into();
    let parent = || Some(base(path).file_name()?.to_string_lossy().into_owned());
    if word.is_empty() { parent().unwrap_or_default() } else { word }
}

/// Returns the folder that image urls are relative to if `data_folder` is not set: the data set's folder, the file's
/// folder, or the part of a path before a pattern.
pub fn base(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    let is_sign = |path: &Path| path.to_str().is_some_and(is_pattern) && !path.exists();
    let parent = path.ancestors().skip(1).find(|parent| !is_sign(parent));
    parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Returns the format of a file: by its extension if that is known, otherwise `configured` (the entry's `data_type`).
pub fn kind(path: &Path, configured: DataType) -> DataType {
    match unpacked(path).extension().and_then(|e| e.to_str()?.parse().ok()) {
        Some(DataType::Jsonl) => DataType::Json,
        known => known.unwrap_or(configured),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::read::entry;

    #[test]
    fn folders_and_patterns_are_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rows");
        for file in
            ["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet", "README.md", ".cache/x.parquet"]
        {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let both =
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"].map(|name| root.join(name));
        assert_eq!(files(&root).unwrap(), both);
        let pattern = root.join("data/train-*.parquet");
        assert_eq!(files(&pattern).unwrap(), both);
        assert_eq!((name(&entry(&root)), name(&entry(&pattern))), ("rows".to_owned(), "train".to_owned()));
        assert_eq!(name(&entry(root.join("data/*.parquet"))), "data");
        assert_eq!(
            (base(&pattern), base(&root), base(Path::new("x.jsonl"))),
            (root.join("data"), root.clone(), ".".into())
        );
        let error = files(&root.join("data/test-*")).unwrap_err().to_string();
        assert!(error.contains("no matching file"), "{error}");
        std::fs::write(root.join("data/test-00000-of-00001.parquet"), "").unwrap();
        let error = files(&root).unwrap_err().to_string();
        assert!(error.contains("several splits: test, train") && error.contains("split: test"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        assert!(files(empty.path()).is_err_and(|e| e.to_string().contains("without dataset files")));
    }
}
