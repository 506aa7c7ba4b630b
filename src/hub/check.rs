//! Hashes of files, in the formats that the hub lists.

use std::io::Read;
use std::path::Path;

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::files;

/// Hash of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256 in hexadecimal, for large files.
    Sha256(String),
    /// SHA-1 of the content as a git blob, in hexadecimal, for small files.
    Git(String),
}

impl Hash {
    pub(super) fn sha256(hex: &str) -> Option<Hash> {
        is_hex(hex, 64).then(|| Hash::Sha256(hex.to_ascii_lowercase()))
    }

    pub(super) fn git(hex: &str) -> Option<Hash> {
        is_hex(hex, 40).then(|| Hash::Git(hex.to_ascii_lowercase()))
    }

    /// Returns the hash in hexadecimal.
    pub fn hex(&self) -> &str {
        match self {
            Hash::Sha256(hex) | Hash::Git(hex) => hex,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Hash::Sha256(_) => "sha256",
            Hash::Git(_) => "git's sha1",
        }
    }

    /// Creates a hasher of the same kind for a file of `size` bytes.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Hash::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Hash::Git(_) => Hasher::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Hasher of a file's bytes.
#[derive(Clone)]
pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Git(hasher) => hasher.update(bytes),
        }
    }

    /// Hashes an entire file.
    pub(super) fn read(&mut self, path: &Path) -> Result<()> {
        let mut file = files::open(path).map_err(Error::io(path))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(Error::io(path))? {
                0 => return Ok(()),
                n => self.update(&buffer[..n]),
            }
        }
    }

    pub(super) fn hex(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        match self {
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::Git(hasher) => hex(&hasher.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum_and_git() {
        let of = |hash: Hash, text: &str| {
            let mut hasher = hash.hasher(text.len() as u64);
            hasher.update(text.as_bytes());
            hasher.hex()
        };
        let git = Hash::git(&"0".repeat(40)).unwrap();
        // Output of `git hash-object` for a file that contains "hello" and a newline.
        assert_eq!(of(git, "hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        let sha = Hash::sha256(&"0".repeat(64)).unwrap();
        assert_eq!(of(sha, "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Hash::sha256("12"), None);
    }
}
