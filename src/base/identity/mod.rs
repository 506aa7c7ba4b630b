//! Content hashes of everything that a result depends on. They are recorded when a run begins. They are compared when
//! the run resumes and when the next stage reads the run's result.
//!
//! The name of an input is its kind ([`InputKind`]) and, if the kind has several files, the file: `model/tokenizer.json`,
//! `images`.

#![forbid(unsafe_code)]

mod manifest;
mod model;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::InputKind;
use crate::error::{Error, Result};
use crate::files::json;
use crate::hub::base_model;

pub use manifest::{Manifest, Part, hash, is_as_listed};
pub use model::{base_weights, of, of_files, paths, settings};
pub use written::{WriteHasher, Writer, Written};

/// File name of the record in the folder of a run or stage.
const RECORD: &str = "inputs.json";

/// Hashes of inputs by name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inputs(BTreeMap<String, String>);

impl Inputs {
    /// Reads the record in `dir`. Returns `None` if there is none.
    pub fn read(dir: &Path) -> Result<Option<Inputs>> {
        json::read_if_exists(&dir.join(RECORD))
    }

    /// Writes the record in `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        json::write(&dir.join(RECORD), self)
    }

    /// Returns true if nothing is recorded, as in folders of older versions.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns false if an input that both records contain differs.
    pub fn agree(&self, other: &Inputs) -> bool {
        self.0.iter().all(|(name, hash)| other.0.get(name).is_none_or(|of| of == hash))
    }

    /// Returns the hash of the input `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns a hash of the weights of the model, or of its base if the model is an adapter (see [`base_weights`]).
    pub fn base_weights(&self) -> String {
        let kinds = [InputKind::Model, InputKind::Reference].map(InputKind::name);
        model::of_base(self.0.iter().filter(|(name, _)| kinds.iter().any(|kind| name.starts_with(kind))))
    }

    /// Records the hash of the input `name`.
    pub fn set(&mut self, name: &str, hash: String) {
        self.0.insert(name.to_owned(), hash);
    }
}

/// An input that differs from its record.
#[derive(Clone, Debug)]
pub struct Difference {
    kind: InputKind,
    /// Description of the input for messages.
    pub what: String,
    /// Path of the file, if the input is a file.
    path: Option<PathBuf>,
}

impl Difference {
    fn new(kind: InputKind, what: String) -> Difference {
        Difference { kind, what, path: None }
    }

    /// Describes a difference of the file at `path`. `how` is appended to the path in messages.
    pub fn of_file(kind: InputKind, path: &Path, how: &str) -> Difference {
        let what = format!("{} {}{how}", kind.name(), path.display());
        Difference { kind, what, path: Some(path.to_owned()) }
    }

    /// Returns true if the input is a file and `is_one` returns true for its path.
    pub fn is_of(&self, is_one: &dyn Fn(&Path) -> bool) -> bool {
        self.path.as_deref().is_some_and(is_one)
    }
}

/// The use of a model's weights in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weights {
    /// It trains them. Samples of large weights detect a change, unless a `MANIFEST` lists them.
    Trained,
    /// They are the base of an adapter, and are read completely.
    Base,
    /// They are also the reference model, and are read completely and recorded under that kind.
    Reference,
    /// They are the teacher of on-policy distillation, and are read completely.
    Teacher,
}

/// Hashes of the inputs as they are now.
#[derive(Debug, Default)]
pub struct CurrentInputs {
    /// The hashes.
    pub inputs: Inputs,
    /// Folder of each kind of input that is a model, for messages.
    folders: BTreeMap<&'static str, String>,
    /// Files of a finished stage that differ from its `MANIFEST`.
    altered: Vec<Difference>,
}

impl CurrentInputs {
    /// Adds an input that is not a file.
    pub fn add(&mut self, kind: InputKind, hash: String) {
        self.inputs.set(kind.name(), hash);
    }

    /// Adds the file at `path`, which is number `number` of its kind and has the BLAKE3 hash `hash`.
    pub fn add_file(&mut self, kind: InputKind, number: usize, path: &Path, hash: &str) -> Result<()> {
        if manifest::listed_beside(path)?.is_some_and(|listed| listed != hash) {
            self.altered.push(Difference::new(InputKind::Stages, path.display().to_string()));
        }
        self.set(kind, &number.to_string(), path, hash);
        Ok(())
    }

    /// Adds an input that `label` and the name of the file at `path` identify among those of its kind.
    pub fn set(&mut self, kind: InputKind, label: &str, path: &Path, hash: &str) {
        // The folder is not part of the name, so a run that was moved has the same inputs.
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        self.inputs.set(&format!("{}/{label} {file}", kind.name()), hash.to_owned());
    }

    /// Adds the files at `paths`. They are read completely.
    pub fn add_files(&mut self, kind: InputKind, paths: Vec<PathBuf>) -> Result<()> {
        for (number, path) in paths.iter().enumerate() {
            self.add_file(kind, number, path, &hash(path)?)?;
        }
        Ok(())
    }

    /// Adds the files of the model directory `dir` that affect the model's output, and those of the base if `dir`
    /// contains an adapter.
    pub fn add_model(&mut self, dir: &Path, weights: Weights) -> Result<()> {
        let listed = Manifest::listed(dir)?;
        let mut found = model::files(dir, weights != Weights::Trained || listed.is_some())?;
        if let Some(base) = base_model::of(dir)? {
            found.extend(model::files(&base, true)?.into_iter().map(|(name, hash)| (format!("base/{name}"), hash)));
        }
        for (name, hash) in &found {
            let kind = match weights {
                Weights::Teacher => InputKind::Teacher,
                Weights::Reference if manifest::is_weights(name) => InputKind::Reference,
                _ => InputKind::Model,
            };
            self.folders.insert(kind.name(), dir.display().to_string());
            self.inputs.set(&format!("{}/{name}", kind.name()), hash.clone());
        }
        let Some(listed) = listed else {
            // A run that has such a record also writes a manifest for its model.
            if dir.ends_with("model") && dir.parent().is_some_and(|run| run.join(RECORD).exists()) {
                let what = format!("{} (missing)", dir.join(manifest::MANIFEST).display());
                self.altered.push(Difference::new(InputKind::Stages, what));
            }
            return Ok(());
        };
        // The manifest of a checkpoint also lists optimizer files, which do not count here.
        let names: BTreeSet<&String> = listed.keys().chain(found.keys()).filter(|name| model::decides(name)).collect();
        for name in names.into_iter().filter(|name| listed.get(*name) != found.get(*name)) {
            let what = format!("{}{}", dir.join(name).display(), one_sided(listed.get(name), found.get(name)));
            self.altered.push(Difference::new(InputKind::Stages, what));
        }
        Ok(())
    }

    /// Compares with the record `then`. Without a record, compares the files of finished stages with their manifests.
    /// Errors name the inputs that differ. If all their kinds are in `accepted`, returns lines that report the
    /// differences instead. `when` describes the time of the record in these messages.
    pub fn compare(&self, then: Option<&Inputs>, when: &str, accepted: &[InputKind]) -> Result<Vec<String>> {
        match then {
            Some(then) => refuse(self.differences(then), when, accepted),
            None => refuse(self.altered.clone(), "when its stage was finished", accepted),
        }
    }

    fn differences(&self, then: &Inputs) -> Vec<Difference> {
        let now = &self.inputs;
        let names: BTreeSet<&String> = then.0.keys().chain(now.0.keys()).collect();
        let difference = |name: &String| {
            let (kind, file) = name.split_once('/').unwrap_or((name, ""));
            let known: InputKind = kind.parse().ok()?;
            let (was, is) = (then.0.get(name), now.0.get(name));
            // Older versions sampled the base of an adapter.
            if let (Some(was), Some(is)) = (was, is)
                && was.starts_with(model::SAMPLES)
                && !is.starts_with(model::SAMPLES)
            {
                return None;
            }
            // Validation data may be added and removed, because it does not affect the training.
            if was == is || known == InputKind::Log || known == InputKind::Val && (was.is_none() || is.is_none()) {
                return None;
            }
            let of = self.folders.get(kind).map_or(String::new(), |folder| format!(" {folder}:"));
            let file = file.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
            let mut what = format!("{kind}{of} {file}").trim_end().to_owned() + one_sided(was, is);
            if known == InputKind::Decoder {
                // Versions that used another library did not record it.
                let [was, is] = [was, is].map(|of| of.map_or("zune-jpeg", String::as_str));
                what = format!("{kind} of JPEG files ({was} then, {is} now)");
            }
            Some(Difference::new(known, what))
        };
        names.into_iter().filter_map(difference).collect()
    }
}

/// Returns the text that marks an input which exists on one side of a comparison only.
fn one_sided(was: Option<&String>, is: Option<&String>) -> &'static str {
    match (was, is) {
        (Some(_), None) => " (missing)",
        (None, Some(_)) => " (new)",
        _ => "",
    }
}

/// Returns lines that report the differences. Errors if the kind of an input is not in `accepted`, and names these
/// inputs. `when` describes the time of the record in these messages.
pub fn refuse(differences: Vec<Difference>, when: &str, accepted: &[InputKind]) -> Result<Vec<String>> {
    let (taken, refused): (Vec<_>, Vec<_>) = differences.into_iter().partition(|of| accepted.contains(&of.kind));
    if refused.is_empty() {
        let line = |of: Difference| format!("accept_changed: {} is not what it was {when}", of.what);
        return Ok(taken.into_iter().map(line).collect());
    }
    let whats: Vec<&str> = refused.iter().map(|of| of.what.as_str()).collect();
    let mut kinds: Vec<&str> = refused.iter().map(|of| of.kind.name()).collect();
    kinds.dedup();
    Err(changed(whats.join("; "), when, &kinds))
}

/// File with the settings of images, which the keys of a config can set.
const IMAGE_SETTINGS: &str = "preprocessor_config.json";

/// Returns the error about inputs that differ from their record. `what` describes the inputs, `when` describes the time
/// of the record, and `kinds` are the kinds of inputs whose change the user can accept.
pub fn changed(what: impl Into<String>, when: &str, kinds: &[&str]) -> Error {
    let what = what.into();
    let keys = match what.contains(IMAGE_SETTINGS) {
        true => "; image_min_pixels, image_max_pixels and image_backend set sizes and values of images",
        false => "",
    };
    let hint = format!(
        "restore it, or continue once with the changed input by setting accept_changed=[{}] (remove the key \
         afterwards), or start a new run with --fresh{keys}",
        kinds.join(",")
    );
    Error::input_hint(what, format!("different content than {when}"), "unchanged inputs", hint)
}
