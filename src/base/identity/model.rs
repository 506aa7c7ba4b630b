//! Identifies the model in a directory by content, so that stored answers of another model are not used for it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::manifest::is_weights;
use crate::error::{Error, Result};
use crate::files;
use crate::hub::base_model::{self, ADAPTER};

/// Larger files, which are weights, may be sampled.
const WHOLE: u64 = 32 << 20;
/// Sampling of a larger file: `SAMPLE` bytes are read in every `EVERY` bytes. Training changes weights everywhere, so
/// samples detect it.
const SAMPLE: usize = 4 << 10;
const EVERY: u64 = 1 << 20;
/// Beginning of a hash of samples.
pub(super) const SAMPLES: &str = "samples:";

/// Returns a hash of the files that affect the model's output: settings, tokenizer, template and weights. They are read
/// completely, several at a time.
pub fn of(dir: &Path) -> Result<String> {
    of_files(&paths(dir)?)
}

/// Returns a hash of these files of a model, which are read completely.
pub fn of_files(paths: &[PathBuf]) -> Result<String> {
    let is_large = |path: &PathBuf| path.metadata().is_ok_and(|file| file.len() > WHOLE);
    // Large files are read at the same time.
    let hash = |path: &PathBuf| is_large(path).then(|| super::hash(path)).transpose();
    let hashes = paths.par_iter().map(hash);
    let mut hasher = blake3::Hasher::new();
    for (path, hash) in paths.iter().zip(hashes.collect::<Result<Vec<_>>>()?) {
        let mut file = files::open(path).map_err(Error::io(path))?;
        head(&mut hasher, path, file.metadata().map_err(Error::io(path))?.len());
        match hash {
            Some(hash) => hasher.update(hash.as_bytes()),
            None => hasher.update_reader(&mut file).map_err(Error::io(path))?,
        };
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Returns a hash of the weights in `dir`, which are read completely. An adapter records it of its base.
pub fn base_weights(dir: &Path) -> Result<String> {
    Ok(of_base(files(dir, true)?.iter()))
}

/// Does the same as [`base_weights`] with the names and hashes of files, among which are the weights.
pub(super) fn of_base<'a>(hashes: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, hash) in hashes {
        let name = name.rsplit('/').next().unwrap_or_default();
        if is_weights(name) && name != ADAPTER {
            hasher.update(format!("{name} {hash} ").as_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Adds the name and the size of a file.
fn head(hasher: &mut blake3::Hasher, path: &Path, len: u64) {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&len.to_le_bytes());
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
        let hash = samples(&path).map_err(Error::io(&path))?;
        Ok((name, format!("{SAMPLES}{}", hash.to_hex())))
    };
    in_dir(dir)?.into_par_iter().map(hash).collect()
}

/// Returns true if a file with this name affects the model's output.
pub(super) fn decides(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    !name.contains('/') && ["json", "jinja", "txt", "safetensors"].contains(&ending)
}

/// Returns the hash of each file in `dir` besides config.json and the weights that affects the model's output, by name.
pub fn settings(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for path in in_dir(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_weights(&name) && !name.ends_with(".safetensors.index.json") && name != "config.json" {
            found.insert(name, super::hash(&path)?);
        }
    }
    Ok(found)
}

/// Returns the files that affect the output of the model in `dir`: those of `dir`, and those of its base if `dir` contains
/// an adapter.
pub fn paths(dir: &Path) -> Result<Vec<PathBuf>> {
    let base = base_model::of(dir)?.map_or(Ok(Vec::new()), |base| in_dir(&base))?;
    Ok([in_dir(dir)?, base].concat())
}

/// Returns the files in `dir` that affect the model's output, sorted.
fn in_dir(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = files::entries(dir)?;
    paths.retain(|path| path.is_file() && path.file_name().and_then(OsStr::to_str).is_some_and(decides));
    Ok(paths)
}

/// Returns a hash of a file's name, its size and samples of its content.
fn samples(path: &Path) -> std::io::Result<blake3::Hash> {
    let (mut hasher, mut file): (_, File) = (blake3::Hasher::new(), files::open(path)?);
    let len = file.metadata()?.len();
    head(&mut hasher, path, len);
    let mut bytes = vec![0; SAMPLE];
    let mut at = 0;
    while at < len {
        let bytes = &mut bytes[..SAMPLE.min((len - at) as usize)];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(bytes)?;
        hasher.update(bytes);
        at += EVERY;
    }
    Ok(hasher.finalize())
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
        // A byte that no sample contains.
        weights.seek(SeekFrom::Start(WHOLE + EVERY + (8 << 10))).unwrap();
        weights.write_all(&[1]).unwrap();
        assert_ne!(of(dir.path()).unwrap(), first);
        let [sampled, whole] = [false, true].map(|whole| files(dir.path(), whole).unwrap());
        assert_eq!(files(copy.path(), false).unwrap()["model.safetensors"], sampled["model.safetensors"]);
        assert_ne!(files(copy.path(), true).unwrap()["model.safetensors"], whole["model.safetensors"]);
    }
}
