//! Resolves the image urls of rows. A url may be relative to the entry's data folder or zip file, absolute or `file://`
//! within the folder, or a `data:` url. Files outside the folder are never opened, even if a url contains `..` or a
//! file is a symbolic link. The only exception is the blob folder of a Hugging Face cache, to which the links of a
//! snapshot point.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;

use crate::data::ImageSource;
use crate::data::paths::has_ending;
use crate::data::zipped::Archive;
use crate::error::{Error, Result};
use crate::hub::local;

/// The folder or zip file in which image urls are resolved.
#[derive(Clone, Debug)]
pub struct Folder {
    given: PathBuf,
    real: PathBuf,
    /// Folder that the symbolic links of a snapshot in the Hugging Face cache point to.
    blobs: Option<PathBuf>,
    archive: Option<Arc<Archive>>,
}

impl Folder {
    /// Opens the data folder, or the zip file used instead of it. Returns an error if it does not exist.
    pub fn open(path: impl AsRef<Path>) -> Result<Folder> {
        let given = path.as_ref().to_owned();
        let real = given.canonicalize().map_err(Error::io(&given))?;
        let archive = match real.is_dir() {
            true => None,
            false if has_ending(&given, "zip") => Some(Arc::new(Archive::open(&given)?)),
            false => return Err(Error::input("data_folder", given.display().to_string(), "a folder or a zip file")),
        };
        let blobs = local::blobs(&real).and_then(|blobs| blobs.canonicalize().ok());
        Ok(Folder { given, real, blobs, archive })
    }

    /// Returns the image that a url names. A file must exist and lie inside the folder. Errors name `place`.
    pub fn resolve(&self, url: &str, place: &str) -> Result<ImageSource> {
        if let Some(rest) = url.strip_prefix("data:") {
            let bytes = decode_data_url(rest, place)?;
            return Ok(ImageSource::Bytes { bytes: bytes.into(), path: None });
        }
        if url.starts_with("http://") || url.starts_with("https://") {
            return Err(Error::input(place, format!("image url {url:?}"), "a file in the data folder, or a data: URL"));
        }
        let path = url.strip_prefix("file://").unwrap_or(url);
        let outside = || {
            Error::input(
                place,
                format!("image {url:?}"),
                format!("a path inside the data folder {}", self.given.display()),
            )
        };
        let path = Path::new(path);
        if path.components().any(|c| c == Component::ParentDir) {
            return Err(outside());
        }
        if let Some(archive) = &self.archive {
            return member(archive, path, url).ok_or_else(|| {
                let expected = format!("a file inside {}", self.given.display());
                Error::input(place, format!("image {url:?}"), expected)
            });
        }
        let joined = self.real.join(path);
        if path.is_absolute() && !path.starts_with(&self.real) && !path.starts_with(&self.given) {
            return Err(outside());
        }
        let inside = || format!("a file inside the data folder {}", self.given.display());
        let file = joined.canonicalize().map_err(|e| Error::of_row(place, path, inside(), e))?;
        if !file.starts_with(&self.real) && !self.blobs.as_ref().is_some_and(|blobs| file.starts_with(blobs)) {
            return Err(outside());
        }
        Ok(ImageSource::File { url: url.to_owned(), file })
    }
}

/// Returns the member of a zip file that `path` names.
fn member(archive: &Arc<Archive>, path: &Path, url: &str) -> Option<ImageSource> {
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
    base64::engine::general_purpose::STANDARD
        .decode(body.trim())
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
