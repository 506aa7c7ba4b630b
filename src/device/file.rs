//! Files that are mapped into memory for reading.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// Bytes of a complete file. The system reads them when they are accessed.
pub struct MappedFile {
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps `path`. The file must not be truncated while it is mapped. Weights are replaced by rename, which leaves a
    /// mapped file intact.
    pub fn open(path: &Path) -> Result<MappedFile> {
        let file = files::open(path).map_err(Error::io(path))?;
        let empty = file.metadata().map_err(Error::io(path))?.len() == 0;
        // SAFETY: the map is read-only and private to this process. Only another process that truncates the file could
        // break it, and writers of model directories are documented not to do that.
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
