//! Files that are mapped into memory for reading.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use omr_base::error::{Error, Result};
use omr_base::files;

/// Bytes of a complete file. The system reads them when they are accessed.
pub struct MappedFile {
    map: Option<memmap2::Mmap>,
    file: File,
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
        Ok(MappedFile { map, file })
    }

    /// Reads `out.len()` bytes from `offset` without the map. For large parts this is faster than access through the
    /// map, which interrupts the program at each page.
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(out, offset as u64)
    }

    /// Asks the system to read these bytes from the disk soon. Returns before they are read.
    pub fn will_need(&self, bytes: Range<usize>) {
        // If the system refuses, only time is lost.
        #[cfg(target_os = "linux")]
        if let Some(len) = std::num::NonZeroU64::new(bytes.len() as u64) {
            let _ = rustix::fs::fadvise(&self.file, bytes.start as u64, Some(len), rustix::fs::Advice::WillNeed);
        }
    }
}

impl std::ops::Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
