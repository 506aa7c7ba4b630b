//! `MANIFEST`: the hashes of the files of a checkpoint, a model or a data stage as they were written. Each line is
//! `BLAKE3  PATH`, so `b3sum --check MANIFEST` can read it, too.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::written::{self, Writer};
use crate::error::{Error, Result};
use crate::files;

/// File name of the manifest.
pub(super) const MANIFEST: &str = "MANIFEST";

/// Files of a checkpoint to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Every file that contains no tensors. These files are small, and they determine how much memory the tensors need.
    Settings,
    /// The tensors.
    Tensors,
}

/// Returns true if a file with this name contains weights.
pub(super) fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// Manifest of a folder's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    hashes: BTreeMap<String, String>,
}

impl Manifest {
    /// Writes the manifest of all files in and below `folder`.
    pub fn write(folder: &Path) -> Result<()> {
        Manifest::write_of(folder, names(folder)?)
    }

    /// Writes the manifest of all files in and below `folder`. Errors if the folder does not contain what `writers` have
    /// written; the message names the file and the writer.
    pub fn write_checked(folder: &Path, writers: &[Writer]) -> Result<()> {
        let mut names = names(folder)?;
        names.extend(writers.iter().flat_map(|writer| &writer.written).map(|part| part.file.clone()));
        names.sort();
        names.dedup();
        Manifest::write_hashes(folder, names, writers)
    }

    /// Writes the manifest of the files `names` in `folder`.
    pub fn write_of(folder: &Path, names: Vec<String>) -> Result<()> {
        Manifest::write_hashes(folder, names, &[])
    }

    fn write_hashes(folder: &Path, names: Vec<String>, writers: &[Writer]) -> Result<()> {
        let of = |name: &String| match written::hash(folder, name, writers)? {
            Some(hash) => Ok(hash),
            None => hash(&folder.join(name)),
        };
        let hashed: Vec<(String, String)> =
            names.into_par_iter().map(|name| of(&name).map(|hash| (name, hash))).collect::<Result<_>>()?;
        let text: String = hashed.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        files::write(folder.join(MANIFEST), text.as_bytes())
    }

    /// Returns the hashes that the manifest in `folder` lists, by path. Returns `None` if there is no manifest, or if
    /// another program wrote it. Errors if it is truncated or broken.
    pub fn listed(folder: &Path) -> Result<Option<BTreeMap<String, String>>> {
        let path = folder.join(MANIFEST);
        let Some(bytes) = files::if_exists(&path, files::read(&path))? else { return Ok(None) };
        let broken = |what: &str| Error::format(&path, format!("{what}: truncated, or changed since it was written"));
        let ours = |head: &[u8]| head[..64].iter().all(u8::is_ascii_hexdigit) && head.ends_with(b"  ");
        if !bytes.get(..66).is_some_and(ours) {
            return Ok(None);
        }
        let text = str::from_utf8(&bytes).map_err(|_| broken("not text"))?;
        let lines = text.strip_suffix('\n').ok_or_else(|| broken("an incomplete last line"))?;
        let mut hashes = BTreeMap::new();
        for line in lines.split('\n') {
            let (hash, name) = line.split_once("  ").ok_or_else(|| broken("a line that is not a hash and a name"))?;
            hashes.insert(name.to_owned(), hash.to_owned());
        }
        Ok(Some(hashes))
    }

    /// Reads the manifest in `folder`. Returns `None` if there is no manifest, as in checkpoints of older versions.
    /// Errors if the manifest is truncated, broken or from another program, or if the folder contains an unlisted file
    /// that omr would read.
    pub fn read(folder: &Path) -> Result<Option<Manifest>> {
        let path = folder.join(MANIFEST);
        let hashes = match Manifest::listed(folder)? {
            Some(hashes) => hashes,
            None if path.exists() => {
                return Err(Error::format(path, "the first line does not consist of a hash and a name"));
            }
            None => return Ok(None),
        };
        let read = |name: &&String| is_weights(name) || name.ends_with(".json");
        if let Some(unknown) = names(folder)?.iter().filter(read).find(|name| !hashes.contains_key(*name)) {
            return Err(Error::format(folder.join(unknown), "not listed in MANIFEST"));
        }
        Ok(Some(Manifest { hashes }))
    }

    /// Returns this manifest of a checkpoint without the files in its subfolders, which are no part of its model.
    pub fn of_model(mut self) -> Manifest {
        self.hashes.retain(|name, _| !name.contains('/'));
        self
    }

    /// Hashes the files of this part in `folder`. Errors with the first file, by name, that differs from what was
    /// written.
    pub fn check(&self, folder: &Path, part: Part) -> Result<()> {
        let is_of_part = |name: &str| is_weights(name) == (part == Part::Tensors);
        let listed: Vec<_> = self.hashes.iter().filter(|(name, _)| is_of_part(name)).collect();
        let check = |(name, want): (&String, &String)| {
            let path = folder.join(name);
            let found = hash(&path)?;
            let what = "content that differs from what was saved (MANIFEST has another BLAKE3 hash)";
            if found == *want { Ok(()) } else { Err(Error::format(&path, what)) }
        };
        let faults: Vec<Result<()>> = listed.into_par_iter().map(check).collect();
        faults.into_iter().collect()
    }
}

/// Returns the files in and below `folder` except the manifest, sorted, as relative paths.
fn names(folder: &Path) -> Result<Vec<String>> {
    let files = files::below(folder, &mut |path, _| Ok(path != Path::new(MANIFEST)))?;
    let mut names: Vec<String> = files.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Returns the hash that the `MANIFEST` in the folder of `path` lists for this file. Returns `None` if there is no
/// manifest or if it does not list the file.
pub(super) fn listed_beside(path: &Path) -> Result<Option<String>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    Ok(Manifest::listed(folder)?.and_then(|mut listed| listed.remove(&*name.to_string_lossy())))
}

/// Returns false if a `MANIFEST` in the same folder lists another hash for the file.
pub fn is_as_listed(path: &Path) -> Result<bool> {
    listed_beside(path)?.map_or(Ok(true), |listed| Ok(hash(path)? == listed))
}

/// Returns the BLAKE3 hash of a file in hexadecimal.
pub fn hash(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    files::open(path).and_then(|file| hasher.update_reader(file).map(drop)).map_err(Error::io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}
