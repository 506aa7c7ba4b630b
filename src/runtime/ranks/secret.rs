//! The run secret. Both ends of a connection prove that they know it before anything else is exchanged.
//!
//! The accepting end sends a nonce. The connecting end answers with its own nonce and a keyed hash of both nonces. The
//! accepting end checks this hash and sends a keyed hash of its own. A caller without the secret receives only random
//! bytes and nothing about the run. The traffic that follows is neither encrypted nor signed: the secret protects
//! against unknown callers, but not against someone who can read or change the packets of others.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::wire::Until;
use omr_base::error::{Error, Result};
use omr_base::files;

/// Environment variable that gives all ranks their secret.
pub const VARIABLE: &str = "OMR_RUN_SECRET";

/// Name of the secret's file in the run directory.
const FILE: &str = ".secret";

/// Number of bytes of a nonce, a proof and a key.
const LEN: usize = blake3::OUT_LEN;

/// Labels of the two ends. Each proof covers its end's label, so an end cannot send back a proof that it received.
const CALLS: &[u8] = b"calls";
const ACCEPTS: &[u8] = b"accepts";

/// Source of the run's secret.
#[derive(Debug)]
pub enum Secret {
    /// A text that was given to the ranks.
    Given(String),
    /// A file in the run directory, which rank 0 creates and the other ranks read.
    File {
        /// Path of the file.
        path: PathBuf,
        /// The file and the folders that this process created for it. They are removed when this value is dropped.
        made: Vec<PathBuf>,
    },
}

impl Secret {
    /// Creates a new secret.
    pub fn random() -> Result<Secret> {
        digits().map(Secret::Given)
    }

    /// Returns the secret that is, or will be, in the run directory `dir`.
    pub fn of(dir: &Path) -> Secret {
        Secret::File { path: dir.join(FILE), made: Vec::new() }
    }

    /// Creates a secret in the run directory `dir` that only the file's owner can read. If an earlier start left a
    /// secret there, it is used instead.
    pub fn made(dir: &Path) -> Result<Secret> {
        let path = dir.join(FILE);
        let mut made = files::make_folder(dir)?;
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

    /// Returns the text of the secret. Errors if the file is missing, has another content, or is accessible to other
    /// users.
    pub fn text(&self) -> Result<String> {
        let path = match self {
            Secret::Given(text) => return Ok(text.clone()),
            Secret::File { path, .. } => path,
        };
        let refused = |found: String, expected| {
            let hint = format!("or set {VARIABLE} to the same text at all ranks");
            Err(Error::input_hint(path, found, expected, hint))
        };
        let file = files::open(path).map_err(Error::io(path))?;
        let mode = file.metadata().map_err(Error::io(path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return refused(format!("a file of mode {mode:03o}"), "mode 600: only its owner may read the secret");
        }
        let mut text = String::new();
        file.take(1 << 10).read_to_string(&mut text).map_err(Error::io(path))?;
        match text.trim() {
            text if text.len() == 2 * LEN && text.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(text.to_owned()),
            _ => refused("different content".to_owned(), "the 64 hexadecimal digits that rank 0 writes"),
        }
    }

    /// Returns the key of the proofs; see [`Secret::text`].
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
            // A folder that is no longer empty is not removed.
            made.iter().for_each(|path| drop(std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path))));
        }
    }
}

/// The key with which proofs are computed.
#[derive(Clone)]
pub struct Key([u8; LEN]);

/// The keys that an accepting end knows.
#[derive(Clone)]
pub struct Keys {
    /// Key of the run secret, if this process has it.
    pub secret: Option<Key>,
    /// Key of the notices of the run; see [`Key::of_notices`].
    pub notices: Key,
}

impl Key {
    /// Returns the key with which a rank that does not have the run secret gives rank 0 notice that it is there, or that
    /// it has failed. `run` names the program and the run. Everyone who knows them can compute the key.
    pub fn of_notices(run: &str) -> Key {
        Key(blake3::derive_key("omr: what a rank without the run secret says", run.as_bytes()))
    }

    /// Returns the proof of the end with label `does`, over the nonces of the accepting and the calling end.
    fn proof(&self, does: &[u8], accepts: &[u8], calls: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, &[accepts, calls, does].concat())
    }

    /// Runs the calling end's side until `deadline` at most. Errors if the other end does not prove that it knows the
    /// secret.
    pub fn call(&self, mut stream: &TcpStream, deadline: Instant) -> io::Result<()> {
        let (own, mut nonce, mut proof) = (random()?, [0; LEN], [0; LEN]);
        Until { stream, deadline }.read_exact(&mut nonce)?;
        stream.write_all(&[&own[..], self.proof(CALLS, &nonce, &own).as_bytes()].concat())?;
        Until { stream, deadline }.read_exact(&mut proof)?;
        if self.proof(ACCEPTS, &nonce, &own) == proof { Ok(()) } else { Err(unproved()) }
    }
}

impl Keys {
    /// Runs the accepting end's side until `deadline` at most. Returns true if the other end has proved that it knows the
    /// secret, and false if it gives notice. Otherwise errors.
    pub fn accept(&self, mut stream: &TcpStream, deadline: Instant) -> io::Result<bool> {
        let (own, mut theirs) = (random()?, [0; 2 * LEN]);
        stream.write_all(&own)?;
        Until { stream, deadline }.read_exact(&mut theirs)?;
        let (nonce, proof) = theirs.split_at(LEN);
        // Hashes are compared in constant time.
        let proves = |key: &&Key| key.proof(CALLS, &own, nonce) == *proof;
        let secret = self.secret.as_ref().filter(proves);
        let key = secret.or(Some(&self.notices).filter(proves)).ok_or_else(unproved)?;
        stream.write_all(key.proof(ACCEPTS, &own, nonce).as_bytes())?;
        Ok(secret.is_some())
    }
}

fn unproved() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a different run secret")
}

/// Returns a new secret as hexadecimal digits.
fn digits() -> Result<String> {
    let bytes = random().map_err(Error::io("/dev/urandom"))?;
    Ok(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}

fn random() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
