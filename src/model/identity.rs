//! Which model a directory holds, by content: answers of another are not taken for its own.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// Files up to this size are read whole; of larger ones, which are weights, the beginning and samples.
const WHOLE: u64 = 32 << 20;
/// Of a larger file so many bytes are read in every so many. Training changes weights everywhere.
const SAMPLE: usize = 4 << 10;
const EVERY: u64 = 1 << 20;

/// A hash of the files that decide what a model says: settings, tokenizer, template and weights.
pub fn of(dir: &Path) -> Result<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_file() && matches!(extension, Some("json" | "jinja" | "txt" | "safetensors")) {
            files.push(path);
        }
    }
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for path in &files {
        add(&mut hasher, path).map_err(Error::io(path))?;
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
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
            // No bytes on disk, but larger than what is read whole.
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
