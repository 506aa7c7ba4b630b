//! Reads and writes small JSON files.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Parses `bytes`, the content of the file `path`.
pub fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::format(path, e.to_string()))
}

/// Reads the value in the file `path`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse(path, &super::read(path).map_err(Error::io(path))?)
}

/// Reads the value in the file `path`. Returns `None` if the file does not exist.
pub fn read_if_exists<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    super::if_exists(path, super::read(path))?.map(|bytes| parse(path, &bytes)).transpose()
}

/// Writes `value` to the file `path`.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?;
    super::write(path, (text + "\n").as_bytes())
}
