//! Stamps: 64-bit fingerprints that identify the content of files and texts.

/// Stamps of embedded images are at most this number, which distinguishes them from stamps of files.
const EMBEDDED: u64 = u32::MAX as u64;

/// Returns the stamp of an embedded image: 32 bits of the hash of its bytes.
pub fn of_embedded(bytes: &[u8]) -> u64 {
    short(&blake3::hash(bytes)) & EMBEDDED
}

/// Returns true if a stamp is that of an embedded image, or of a video of embedded images.
pub fn is_embedded(stamp: u64) -> bool {
    stamp <= EMBEDDED
}

/// Combines the stamps of several images. A single stamp is returned unchanged.
pub fn combined(stamps: &[u64]) -> u64 {
    match stamps {
        [one] => *one,
        all => {
            let most = if all.iter().all(|&stamp| is_embedded(stamp)) { EMBEDDED } else { u64::MAX };
            short(&blake3::hash(bytemuck::cast_slice(all))) & most
        }
    }
}

/// Returns the first eight bytes of a hash.
pub fn short(hash: &blake3::Hash) -> u64 {
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first)
}
