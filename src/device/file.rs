//! Files mapped into memory for reading.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// A whole file's bytes, read by the system as they are touched.
pub struct MappedFile {
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps `path`. The file must not be cut short while it is mapped: weights are replaced by rename, which
    /// leaves a mapped file whole.
    pub fn open(path: &Path) -> Result<MappedFile> {
        let file = files::open(path).map_err(Error::io(path))?;
        let empty = file.metadata().map_err(Error::io(path))?.len() == 0;
        // SAFETY: the map is read-only and private to this process; the one way to break it, another process
        // cutting the file short, is the documented duty of whoever writes model directories.
        let map = if empty { None } else { Some(unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?) };
        Ok(MappedFile { map })
    }
}

impl std::ops::Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
