//! Stores an index on disk in the run directory. The file name is a hash of the settings that determine the index, so a
//! resumed run starts without reading any row.
//!
//! Format: a text line with the BLAKE3 hash of the rest, a line of JSON, then the arrays, each preceded by its length
//! in bytes.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::indexing::{Facts, Indexed};
use super::places::Places;
use crate::rows::Index;
use omr_base::error::{Error, Result};
use omr_base::files;

const MAGIC: &str = "omr index 6 ";

/// Returns the path of an index in a run directory. `key` is a text of everything that determines the index except the
/// rows.
pub fn path(dir: &Path, key: &str) -> PathBuf {
    dir.join("index").join(format!("{}.bin", &blake3::hash(key.as_bytes()).to_hex()[..16]))
}

/// Writes an index atomically. The `order` of `sizes` is not stored.
pub fn write(path: &Path, sizes: &Index, places: &Places, facts: &Facts) -> Result<()> {
    let mut header = serde_json::to_vec(facts).map_err(|e| Error::Failed(format!("index: {e}")))?;
    header.push(b'\n');
    let arrays: Vec<&[u8]> = sizes.arrays().into_iter().chain(places.arrays()).collect();
    let lengths: Vec<[u8; 8]> = arrays.iter().map(|array| (array.len() as u64).to_le_bytes()).collect();
    let arrays = lengths.iter().zip(arrays).flat_map(|(length, array)| [&length[..], array]);
    // Parts are hashed and written in place, because a copy would be as large as the index.
    let parts = || std::iter::once(&header[..]).chain(arrays.clone());
    let mut hasher = blake3::Hasher::new();
    for part in parts() {
        hasher.update(part);
    }
    let head = format!("{MAGIC}{}\n", hasher.finalize().to_hex());
    files::write_with(path, |w| {
        let written = w.write_all(head.as_bytes()).and_then(|()| parts().try_for_each(|part| w.write_all(part)));
        written.map_err(Error::io(path))
    })
}

/// Reads an index. Returns `None` if the file does not exist or is not intact; the index is then built again.
pub fn read(path: &Path) -> Result<Option<Indexed>> {
    match files::read(path) {
        Ok(bytes) => Ok(parse(&bytes)),
        // If the run directory path is invalid, the start of the run reports it.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::io(path)(e)),
    }
}

/// Returns the sizes of the rows of the run in `dir`: those of its newest index that is intact, or `None` if there is none.
pub fn of_run(dir: &Path) -> Result<Option<Index>> {
    let folder = dir.join("index");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(None) };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "bin"));
    paths.sort_by_key(|path| std::cmp::Reverse(path.metadata().and_then(|data| data.modified()).ok()));
    for path in paths {
        if let Some(Indexed { sizes, .. }) = read(&path)? {
            return Ok(Some(sizes));
        }
    }
    Ok(None)
}

fn parse(bytes: &[u8]) -> Option<Indexed> {
    let (head, body) = line(bytes)?;
    let hash = std::str::from_utf8(head).ok()?.strip_prefix(MAGIC)?;
    if blake3::hash(body).to_hex().as_str() != hash {
        return None;
    }
    let (header, mut rest) = line(body)?;
    let facts: Facts = serde_json::from_slice(header).ok()?;
    let mut arrays = [&[][..]; 10];
    for array in &mut arrays {
        let (len, after) = rest.split_first_chunk::<8>()?;
        (*array, rest) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    }
    let [tokens, targets, ends, grids, files, rows, offsets, hashes, stamps, turns] = arrays;
    let sizes = Index::from_arrays([tokens, targets, ends, grids])?;
    let images = sizes.len().checked_sub(1).map_or(0, |last| sizes.images(last).end);
    let arrays = [files, rows, offsets, hashes, stamps, turns];
    let places = Places::from_arrays(arrays, sizes.len(), images, facts.signatures.len())?;
    Some(Indexed { sizes, places, facts })
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Grid;
    use crate::rows::Signature;
    use crate::rows::index::Shape;
    use crate::rows::index::places::Place;
    use crate::rows::read::RowPosition;

    #[test]
    fn an_index_is_read_as_it_was_written_and_a_torn_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), "key");
        assert_eq!(read(&path).unwrap(), None);
        let mut indexed = Indexed::default();
        for (i, grids) in [&[Grid::image(2, 4), Grid::image(6, 8)][..], &[], &[Grid { frames: 4, h: 2, w: 2 }]]
            .into_iter()
            .enumerate()
        {
            indexed.sizes.push(Shape { tokens: 10 + i, targets: i, grids });
            let at = RowPosition { index: i as u32, offset: 1 << (40 + i) };
            indexed.places.push(Place { file: 0, at, hash: u64::MAX - i as u64, turn: 2 * i }, &vec![7; grids.len()]);
        }
        let hash = "00".to_owned();
        indexed.facts.signatures.push(Signature { path: "rows.jsonl".into(), len: 3, modified: 4, hash });
        indexed.facts.shared.count = 2;
        indexed.facts.seen.count("messages", 2, 1, 3);
        write(&path, &indexed.sizes, &indexed.places, &indexed.facts).unwrap();
        assert_eq!(read(&path).unwrap().as_ref(), Some(&indexed));
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 5, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read(&path).unwrap(), None, "{cut} bytes");
        }
    }
}
