//! Hashes of files, in the formats that the hub lists.

use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::Sha256;
use sha2::digest::{Digest, DynDigest};

use crate::error::{Error, Result};
use crate::files;

/// Hash of a file's content in hexadecimal: SHA-256 for large files, SHA-1 of the content as a git blob for small ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash(String);

impl Hash {
    /// Parses a hash in hexadecimal. Its length determines its kind.
    pub(super) fn parse(hex: &str) -> Option<Hash> {
        let is_hash = [40, 64].contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash.then(|| Hash(hex.to_ascii_lowercase()))
    }

    /// Returns the hash in hexadecimal.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// Returns true for SHA-256.
    pub(super) fn is_sha256(&self) -> bool {
        self.0.len() == 64
    }
}

/// Hasher of a file's bytes.
pub(super) struct Hasher(Box<dyn DynDigest + Send>);

impl Hasher {
    /// Creates a hasher for a file of `size` bytes.
    pub(super) fn new(is_sha256: bool, size: u64) -> Hasher {
        match is_sha256 {
            true => Hasher(Box::new(Sha256::new())),
            false => Hasher(Box::new(Sha1::new_with_prefix(format!("blob {size}\0")))),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds the content of a file.
    pub(super) fn read(mut self, path: &Path) -> Result<Hasher> {
        let mut file = files::open(path).map_err(Error::io(path))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(Error::io(path))? {
                0 => return Ok(self),
                n => self.update(&buffer[..n]),
            }
        }
    }

    pub(super) fn finish(self) -> Hash {
        Hash(self.0.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum_and_git() {
        let of = |is_sha256: bool, text: &str| {
            let mut hasher = Hasher::new(is_sha256, text.len() as u64);
            hasher.update(text.as_bytes());
            hasher.finish().0
        };
        // Output of `git hash-object` for a file that contains "hello" and a newline.
        assert_eq!(of(false, "hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(of(true, "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((Hash::parse("12"), Hash::parse(&"g".repeat(40))), (None, None));
    }
}
