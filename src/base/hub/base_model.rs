//! Directories of adapters, as PEFT writes them. They contain an adapter's weights and settings. The files that they
//! lack are those of the base model, whose directory `adapter_config.json` names.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Kind, local};
use crate::error::{Error, Result};
use crate::files;

/// Name of the file with the settings of an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Name of the file with the weights of an adapter.
pub const ADAPTER: &str = "adapter_model.safetensors";

/// Returns the directory of the base model if `dir` contains an adapter. Its path is relative to the current directory,
/// as in PEFT, or to `dir`. It may also be the name of a repository in the cache of the Hugging Face libraries. Errors
/// name the key if there is no such directory.
pub fn of(dir: &Path) -> Result<Option<PathBuf>> {
    let path = dir.join(ADAPTER_CONFIG);
    if !path.exists() {
        return Ok(None);
    }
    let config: Value = files::json::read(&path)?;
    let (place, value) = (format!("{}: base_model_name_or_path", path.display()), &config["base_model_name_or_path"]);
    let wrong = || Error::input(&place, value.to_string(), "the directory of the base model");
    let name = Path::new(value.as_str().filter(|name| !name.is_empty()).ok_or_else(wrong)?);
    let near = [name.to_owned(), dir.join(name)].into_iter().find(|base| base.is_dir());
    let base = local::find(near.as_deref().unwrap_or(name), Kind::Model, &place, &|key| std::env::var(key).ok())?;
    if base.is_dir() { Ok(Some(base)) } else { Err(wrong()) }
}

/// Returns the directory that has the file `name` of the model in `dir`: that of the base if `dir` contains an adapter
/// without this file, otherwise `dir`.
pub fn holder(dir: &Path, name: &str) -> Result<PathBuf> {
    let base = if dir.join(name).exists() { None } else { of(dir)? };
    Ok(base.unwrap_or_else(|| dir.to_owned()))
}
