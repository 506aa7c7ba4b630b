//! Names of tensors and modules: in files, in this program and in memory.

use crate::nn::config::Family;

/// Prefixes of tensors as newer versions of transformers have them, and as released files and this program have them, of
/// models with a vision tower.
pub const PREFIXES: [[&str; 2]; 2] = [["model.language_model.", "model."], ["model.visual.", "visual."]];

/// Returns the name in this program of a tensor with this name in a file.
pub fn released_name(name: &str) -> String {
    let found = PREFIXES.iter().find_map(|[long, short]| Some(format!("{short}{}", name.strip_prefix(long)?)));
    found.unwrap_or_else(|| name.to_owned())
}

/// Returns the name of a tensor of this program in the files of `family`.
pub fn stored_name(family: &Family, name: &str) -> String {
    if family.stores_paths { path_in_memory(family, name) } else { name.to_owned() }
}

/// Returns the path of a module of a model of `family` in memory, as newer versions of transformers have it.
pub fn path_in_memory(family: &Family, released: &str) -> String {
    let found =
        family.prefixes.iter().find_map(|[long, short]| Some(format!("{long}{}", released.strip_prefix(short)?)));
    found.unwrap_or_else(|| released.to_owned())
}
