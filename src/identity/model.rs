//! Identifies the model in a directory by content, so that stored answers of another model are not used for it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::base_model;
use crate::error::{Error, Result};
use crate::files;

/// Files up to this size are hashed completely. Larger files, which are weights, are sampled.
const WHOLE: u64 = 32 << 20;
/// Sampling of a larger file: `SAMPLE` bytes are read in every `EVERY` bytes. Training changes weights everywhere, so
/// samples detect it.
const SAMPLE: usize = 4 << 10;
const EVERY: u64 = 1 << 20;

/// Returns a hash of the files that affect the model's output: settings, tokenizer, template and weights. Large weights
/// are sampled.
pub fn of(dir: &Path) -> Result<String> {
    of_files(&paths(dir)?)
}

/// Returns a hash of these files of a model. Large weights are sampled.
pub fn of_files(paths: &[PathBuf]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        add(&mut hasher, path).map_err(Error::io(path))?;
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Returns the hash of each file in `dir` that affects the model's output, by name. It is BLAKE3 of the whole file, or of
/// samples for weights over 32 MiB if `whole` is false.
pub(super) fn files(dir: &Path, whole: bool) -> Result<BTreeMap<String, String>> {
    let hash = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let len = path.metadata().map_err(Error::io(&path))?.len();
        if whole || len <= WHOLE || !is_weights(&name) {
            return Ok((name, super::hash(&path)?));
        }
        let mut hasher = blake3::Hasher::new();
        add(&mut hasher, &path).map_err(Error::io(&path))?;
        Ok((name, format!("samples:{}", hasher.finalize().to_hex())))
    };
    in_dir(dir)?.into_par_iter().map(hash).collect()
}

/// Returns true if a file with this name affects the model's output.
pub(super) fn decides(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    !name.contains('/') && ["json", "jinja", "txt", "safetensors"].contains(&ending)
}

/// Returns true if a file with this name contains weights.
pub(super) fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// Returns the files that affect the output of the model in `dir`: those of `dir`, and those of its base if `dir` contains
/// an adapter.
pub fn paths(dir: &Path) -> Result<Vec<PathBuf>> {
    let base = base_model::of(dir)?.map_or(Ok(Vec::new()), |base| in_dir(&base))?;
    Ok([in_dir(dir)?, base].concat())
}

/// Returns the files in `dir` that affect the model's output, sorted.
fn in_dir(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        if path.is_file() && path.file_name().and_then(OsStr::to_str).is_some_and(decides) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn add(hasher: &mut blake3::Hasher, path: &PathBuf) -> std::io::Result<()> {
    let mut file = files::open(path)?;
    let len = file.metadata()?.len();
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&len.to_le_bytes());
    if len <= WHOLE {
        return std::io::copy(&mut file, hasher).map(drop);
    }
    let mut bytes = vec![0; SAMPLE];
    let mut at = 0;
    while at < len {
        let bytes = &mut bytes[..SAMPLE.min((len - at) as usize)];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(bytes)?;
        hasher.update(bytes);
        at += EVERY;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn other_weights_or_settings_are_another_model_and_another_place_is_not() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&dir, &copy] {
            std::fs::write(dir.path().join("config.json"), "{}").unwrap();
            // The file is sparse, and larger than the files that are hashed completely.
            let weights = File::create(dir.path().join("model.safetensors")).unwrap();
            weights.set_len(WHOLE + 3 * EVERY).unwrap();
        }
        let first = of(dir.path()).unwrap();
        assert_eq!(of(copy.path()).unwrap(), first);
        std::fs::write(copy.path().join("notes.md"), "mine").unwrap();
        assert_eq!(of(copy.path()).unwrap(), first);
        std::fs::write(copy.path().join("config.json"), "[]").unwrap();
        assert_ne!(of(copy.path()).unwrap(), first);
        let mut weights = File::options().write(true).open(dir.path().join("model.safetensors")).unwrap();
        weights.seek(SeekFrom::Start(WHOLE + EVERY)).unwrap();
        weights.write_all(&[1; 8 << 10]).unwrap();
        assert_ne!(of(dir.path()).unwrap(), first);
    }
}
