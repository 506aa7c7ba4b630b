//! The run secret, which both ends of a connection prove to know before anything else is said.
//!
//! Who accepts a connection sends a nonce. Who connects answers with a nonce of its own and a keyed hash of both; who accepts
//! checks it and sends another. A stranger gets random bytes and nothing of the run. What follows is neither encrypted nor
//! signed: the secret keeps out who can connect, not who can read or change the packets of others.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::wire::Until;
use crate::error::{Error, Result};
use crate::files;

/// Environment variable that gives all ranks their secret.
pub const VARIABLE: &str = "OMR_RUN_SECRET";

/// Name of the secret's file in the run directory.
const FILE: &str = ".secret";

/// Bytes of a nonce, a proof and a key.
const LEN: usize = blake3::OUT_LEN;

/// The two ends, whose proofs differ: neither can be answered with its own words.
const CALLS: &[u8] = b"calls";
const ACCEPTS: &[u8] = b"accepts";

/// Where a rank has the run's secret from.
#[derive(Debug)]
pub enum Secret {
    /// A text that the ranks were given.
    Given(String),
    /// A file in the run directory, which rank 0 makes and the others find.
    File {
        /// The file.
        path: PathBuf,
        /// The file and the folders that this process made for it; removed with this value.
        made: Vec<PathBuf>,
    },
}

impl Secret {
    /// A new secret.
    pub fn random() -> Result<Secret> {
        digits().map(Secret::Given)
    }

    /// The secret that is, or will be, in the run directory `dir`.
    pub fn of(dir: &Path) -> Secret {
        Secret::File { path: dir.join(FILE), made: Vec::new() }
    }

    /// A secret in the run directory `dir`, for the owner alone to read: a new one, unless an earlier start has left its own.
    pub fn made(dir: &Path) -> Result<Secret> {
        let path = dir.join(FILE);
        let folders = dir.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let mut made: Vec<PathBuf> = folders.map(Path::to_owned).collect();
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                made.insert(0, path.clone());
                let secret = Secret::File { path, made };
                file.write_all(format!("{}\n", digits()?).as_bytes()).map_err(Error::io(dir.join(FILE)))?;
                Ok(secret)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Secret::File { path, made }),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    /// What the ranks know. Errors where the file is missing, another's or open to other users.
    pub fn text(&self) -> Result<String> {
        let path = match self {
            Secret::Given(text) => return Ok(text.clone()),
            Secret::File { path, .. } => path,
        };
        let refused = |found: String, expected| {
            let hint = format!("or set {VARIABLE} to the same text at all ranks");
            Err(Error::input_hint(path.display().to_string(), found, expected, hint))
        };
        let file = files::open(path).map_err(Error::io(path))?;
        let mode = file.metadata().map_err(Error::io(path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return refused(format!("a file of mode {mode:03o}"), "mode 600: a secret of its owner");
        }
        let mut text = String::new();
        file.take(1 << 10).read_to_string(&mut text).map_err(Error::io(path))?;
        match text.trim() {
            text if text.len() == 2 * LEN && text.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(text.to_owned()),
            _ => refused("another content".to_owned(), "64 hexadecimal digits, as rank 0 writes them"),
        }
    }

    /// The key of the proofs; see [`Secret::text`].
    pub(super) fn key(&self) -> Result<Key> {
        Ok(Key(blake3::derive_key("omr: what ranks of a run prove to each other", self.text()?.as_bytes())))
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Secret::Given(_) => f.write_str(VARIABLE),
            Secret::File { path, .. } => path.display().fmt(f),
        }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        if let Secret::File { made, .. } = self {
            // A folder that is not empty by now stays.
            made.iter().for_each(|path| drop(std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path))));
        }
    }
}

/// The key that proofs are made with.
#[derive(Clone)]
pub struct Key([u8; LEN]);

impl Key {
    /// Proof of the end that `does` so, over the nonces of who accepts and who calls.
    fn proof(&self, does: &[u8], accepts: &[u8], calls: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, &[accepts, calls, does].concat())
    }

    /// The accepting end, over at `deadline`. Errors where the other end does not prove that it knows the secret.
    pub fn accept(&self, mut stream: &TcpStream, deadline: Instant) -> io::Result<()> {
        let (own, mut theirs) = (random()?, [0; 2 * LEN]);
        stream.write_all(&own)?;
        Until { stream, deadline }.read_exact(&mut theirs)?;
        let (nonce, proof) = theirs.split_at(LEN);
        proves(&self.proof(CALLS, &own, nonce), proof)?;
        stream.write_all(self.proof(ACCEPTS, &own, nonce).as_bytes())
    }

    /// The calling end, over at `deadline`. Errors where the other end does not prove that it knows the secret.
    pub fn call(&self, mut stream: &TcpStream, deadline: Instant) -> io::Result<()> {
        let (own, mut nonce, mut proof) = (random()?, [0; LEN], [0; LEN]);
        Until { stream, deadline }.read_exact(&mut nonce)?;
        stream.write_all(&[&own[..], self.proof(CALLS, &nonce, &own).as_bytes()].concat())?;
        Until { stream, deadline }.read_exact(&mut proof)?;
        proves(&self.proof(ACCEPTS, &nonce, &own), &proof)
    }
}

/// Compares in constant time.
fn proves(expected: &blake3::Hash, found: &[u8]) -> io::Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "another run secret")),
    }
}

/// A secret as it is written.
fn digits() -> Result<String> {
    let bytes = random().map_err(Error::io("/dev/urandom"))?;
    Ok(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}

fn random() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
