//! Resolves the image urls of rows. A url may be relative to one of a few folders or a zip file, absolute or `file://`
//! within them, or a `data:` url. Files outside these folders are never opened, even if a url contains `..` or a file is
//! a symbolic link. The only exception is the blob folder of a Hugging Face cache, to which the links of a snapshot
//! point.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;

use super::paths::has_ending;
use super::zipped::Archive;
use crate::rows::ImageSource;
use omr_base::error::{Error, Result, is_of_file};
use omr_base::hub::local;

/// The folders and zip files in which image urls are resolved, in this order.
#[derive(Clone, Debug)]
pub struct Folder {
    roots: Vec<Root>,
}

/// A folder or zip file with images.
#[derive(Clone, Debug)]
struct Root {
    /// Name for messages.
    name: String,
    given: PathBuf,
    real: PathBuf,
    /// Folder that the symbolic links of a snapshot in the Hugging Face cache point to.
    blobs: Option<PathBuf>,
    archive: Option<Arc<Archive>>,
}

impl Folder {
    /// Opens a folder, or a zip file used instead of it. Returns an error if it does not exist.
    pub fn open(path: impl AsRef<Path>) -> Result<Folder> {
        let path = path.as_ref();
        Ok(Folder { roots: vec![Root::open(path, format!("the data folder {}", path.display()))?] })
    }

    /// Opens the folders in which the images of a data set are searched: its `data_folder` if that is set, the folders
    /// `beside` of its rows, and the working directory.
    pub fn of_rows(data_folder: Option<&Path>, beside: &[&Path]) -> Result<Folder> {
        let mut roots = if let Some(folder) = data_folder { Folder::open(folder)?.roots } else { Vec::new() };
        let beside = beside.iter().map(|path| (*path, format!("the folder {} of the rows", path.display())));
        for (path, name) in beside.chain([(Path::new("."), "the working directory".to_owned())]) {
            let root = Root::open(path, name)?;
            if roots.iter().all(|known: &Root| known.real != root.real) {
                roots.push(root);
            }
        }
        Ok(Folder { roots })
    }

    /// Returns the image that a url names. A file must exist and lie inside one of the folders. Errors name `place`.
    pub fn resolve(&self, url: &str, place: &str) -> Result<ImageSource> {
        if let Some(rest) = url.strip_prefix("data:") {
            let bytes = decode_data_url(rest, place)?;
            return Ok(ImageSource::Bytes { bytes: bytes.into(), path: None });
        }
        if url.starts_with("http://") || url.starts_with("https://") {
            return Err(Error::input(place, format!("image url {url:?}"), "a file in the data folder, or a data: URL"));
        }
        let path = Path::new(url.strip_prefix("file://").unwrap_or(url));
        // A path with `..` may lead from one of the folders to another one, a symbolic link may not.
        let climbs = path.components().any(|c| c == Component::ParentDir);
        let is_in = |path: &Path| self.roots.iter().any(|root| root.contains(path));
        let (mut failure, mut is_outside) = (None, false);
        for root in &self.roots {
            match &root.archive {
                Some(archive) => match member(archive, path, url) {
                    Some(member) => return Ok(member),
                    None => continue,
                },
                None if path.is_absolute() && !path.starts_with(&root.real) && !path.starts_with(&root.given) => {
                    continue;
                }
                None => {}
            }
            match root.real.join(path).canonicalize() {
                Ok(file) if root.contains(&file) || climbs && is_in(&file) => {
                    return Ok(ImageSource::File { url: url.to_owned(), file });
                }
                Ok(_) => is_outside = true,
                Err(error) if is_of_file(&error) => failure = failure.or(Some(error)),
                Err(error) => return Err(Error::of_row(place, path, self.searched("a file"), error)),
            }
        }
        // A file that does not exist is named with the system's error. Any other is outside of the folders.
        Err(match failure.filter(|_| !is_outside) {
            Some(error) => Error::of_row(place, path, self.searched("a file"), error),
            None => Error::input(place, format!("image {url:?}"), self.searched("a path")),
        })
    }

    /// Describes the folders as the expected place of `what`.
    fn searched(&self, what: &str) -> String {
        let names: Vec<&str> = self.roots.iter().map(|root| root.name.as_str()).collect();
        match names.as_slice() {
            [rest @ .., last] if !rest.is_empty() => {
                let rest = rest.join(", ");
                format!(
                    "{what} inside {rest} or {last} (the key data_folder of the data set's entry adds a data folder)"
                )
            }
            names => format!("{what} inside {}", names.concat()),
        }
    }
}

impl Root {
    fn open(path: &Path, name: String) -> Result<Root> {
        let real = path.canonicalize().map_err(Error::io(path))?;
        let archive = match real.is_dir() {
            true => None,
            false if has_ending(path, "zip") => Some(Arc::new(Archive::open(path)?)),
            false => return Err(Error::input("data_folder", path.display().to_string(), "a folder or a zip file")),
        };
        let blobs = local::blobs(&real).and_then(|blobs| blobs.canonicalize().ok());
        Ok(Root { name, given: path.to_owned(), real, blobs, archive })
    }

    /// Returns true if a canonical path lies inside the folder.
    fn contains(&self, file: &Path) -> bool {
        file.starts_with(&self.real) || self.blobs.as_ref().is_some_and(|blobs| file.starts_with(blobs))
    }
}

/// Returns the member of a zip file that `path` names.
fn member(archive: &Arc<Archive>, path: &Path, url: &str) -> Option<ImageSource> {
    if path.components().any(|c| c == Component::ParentDir) {
        return None;
    }
    let names: Vec<&str> =
        path.components().filter(|c| *c != Component::CurDir).map(|c| c.as_os_str().to_str()).collect::<Option<_>>()?;
    let index = archive.find(&names.join("/"))?;
    Some(ImageSource::Zipped { url: url.to_owned(), archive: archive.clone(), index })
}

/// Decodes the bytes of a data url, given the text after `data:`. Ignores the declared type.
pub fn decode_data_url(rest: &str, place: &str) -> Result<Vec<u8>> {
    let wrong = |what: &str| Error::input(place, what.to_owned(), "data:image/...;base64,...");
    let (head, body) = rest.split_once(',').ok_or_else(|| wrong("a data: URL without a comma"))?;
    if !head.ends_with(";base64") {
        return Err(wrong("a data: URL that is not base64"));
    }
    // As others read it: with line breaks, in the alphabet of URLs, and without padding.
    let signs = body.trim_end().trim_end_matches('=').chars().filter(|c| !c.is_ascii_whitespace());
    let body = signs.collect::<String>().replace('-', "+").replace('_', "/");
    base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(body)
        .map_err(|e| wrong(&format!("a data: URL with invalid base64 ({e})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_folder_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret.png"), "x").unwrap();
        std::fs::write(root.join("sub/a.png"), "x").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path().join("secret.png"), root.join("link.png")).unwrap();
        let folder = Folder::open(&root).unwrap();
        let inside = root.join("sub/a.png").display().to_string();
        for good in ["sub/a.png", "./sub/a.png", &inside, &format!("file://{inside}")] {
            assert!(matches!(folder.resolve(good, "t row 1"), Ok(ImageSource::File { .. })), "{good}");
        }
        let secret = dir.path().join("secret.png").display().to_string();
        let bad =
            ["../secret.png", "sub/../../secret.png", &secret, &format!("file://{secret}"), "link.png", "none.png"];
        for bad in bad.into_iter().chain(["http://127.0.0.1/a.png", "data:image/png,zz", "data:image/png;base64,*"]) {
            let error = folder.resolve(bad, "t row 1").unwrap_err();
            assert!(error.to_string().contains("t row 1"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        assert!(matches!(folder.resolve("data:image/png;base64,eHg=", ""), Ok(ImageSource::Bytes { .. })));
    }
}
