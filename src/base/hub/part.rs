//! Part of a file as the body of a request. It is read while it is sent.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::stream;

use crate::error::{Error, Result};
use crate::files;

/// Number of bytes read at once.
const CHUNK: u64 = 256 << 10;

/// Part of a file.
pub(super) struct Part {
    pub(super) path: PathBuf,
    /// First byte.
    pub(super) from: u64,
    /// Number of bytes.
    pub(super) len: u64,
    /// Number of bytes sent so far, summed over all parts of a job.
    pub(super) moved: Arc<AtomicU64>,
    /// Number of bytes of this part sent in the current attempt.
    pub(super) sent: Arc<AtomicU64>,
}

impl Part {
    /// Opens the file for an attempt to send the part.
    pub(super) fn body(&self) -> Result<reqwest::Body> {
        let mut file = files::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(self.from)).map_err(Error::io(&self.path))?;
        self.moved.fetch_sub(self.sent.swap(0, Relaxed), Relaxed);
        let (moved, sent) = (self.moved.clone(), self.sent.clone());
        let next = move |(mut file, left): (std::fs::File, u64)| {
            let mut chunk = vec![0; left.min(CHUNK) as usize];
            let read = file.read_exact(&mut chunk).map(|()| chunk);
            let len = read.as_ref().map_or(left, |chunk| chunk.len() as u64);
            moved.fetch_add(len, Relaxed);
            sent.fetch_add(len, Relaxed);
            std::future::ready((left > 0).then_some((read, (file, left - len))))
        };
        Ok(reqwest::Body::wrap_stream(stream::unfold((file, self.len), next)))
    }
}
