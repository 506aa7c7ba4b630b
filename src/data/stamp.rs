//! Stamps: 64-bit fingerprints that identify the content of files and texts.

use std::path::Path;
use std::time::UNIX_EPOCH;

/// Returns the size of a file in bytes and its modification time in nanoseconds.
pub fn size_and_time(file: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(file)?;
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), since.as_nanos() as u64))
}

/// Combines the stamps of several files. A single stamp is returned unchanged, and the result is 0 if all are 0.
pub fn combined(stamps: &[u64]) -> u64 {
    match stamps {
        [one] => *one,
        all if all.iter().all(|&stamp| stamp == 0) => 0,
        all => short(&blake3::hash(bytemuck::cast_slice(all))),
    }
}

/// Returns the first eight bytes of a hash.
pub fn short(hash: &blake3::Hash) -> u64 {
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first)
}
