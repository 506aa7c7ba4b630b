//! `trainer/state.json`: where a run stands.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::identity::Inputs;

/// Version of the ops' definitions: goes up with a change that moves bits on every device. 2: a row of attention has its
/// scores scaled within the exponent, once rounded. 3: RL sums the gradients of a picture's rows over the responses to its
/// question before they are rounded.
const ARITHMETIC: &str = "3";

/// Version of what a checkpoint records, `record` of `versions`. 1: it has `inputs` and a `MANIFEST`.
const RECORD: &str = "1";

/// What a run needs, besides weights and optimizer state, to go on with the same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Updates done.
    pub step: u64,
    /// Samples (SFT) or prompts (RL) consumed.
    pub samples_consumed: u64,
    /// The run's seed.
    pub seed: u64,
    /// Hash of the settings that decide results (see [`State::hash_of`]).
    pub config_hash: String,
    /// Device kind: `cpu`, ...
    pub device: String,
    /// CPU kernel bodies, as `Isa::name`.
    pub cpu_body: String,
    /// How matrix products ran, as `Body::recorded`; none on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_body: Option<String>,
    /// Versions: `omr`, `arithmetic` of the ops (1 where it is missing), and `record` of what a checkpoint has.
    pub versions: BTreeMap<String, String>,
    /// What the run depends on, and `log`, the hash of its metrics up to this step; empty in a checkpoint of an older version.
    #[serde(default, skip_serializing_if = "Inputs::is_empty")]
    pub inputs: Inputs,
    /// What a job keeps beside these: running figures, a data stage's cursor.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl State {
    /// A hash for [`State::config_hash`] of a config's text.
    pub fn hash_of(config: &str) -> String {
        blake3::hash(config.as_bytes()).to_hex().to_string()
    }

    /// `versions` of this build.
    pub fn versions() -> BTreeMap<String, String> {
        [("omr", env!("CARGO_PKG_VERSION")), ("arithmetic", ARITHMETIC), ("record", RECORD)]
            .map(|(what, version)| (what.to_owned(), version.to_owned()))
            .into()
    }

    /// Writes `dir/state.json`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join("state.json");
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Failed(format!("state.json: {e}")))?;
        files::write(path, format!("{text}\n").as_bytes())
    }

    /// Reads `dir/state.json`. Errors name the file.
    pub fn read(dir: &Path) -> Result<State> {
        let path = dir.join("state.json");
        let text = files::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))
    }

    /// True when the checkpoint was written with a `MANIFEST`.
    pub fn has_manifest(&self) -> bool {
        self.versions.contains_key("record")
    }

    /// What to tell the user when a newer version than this one wrote the checkpoint.
    pub fn newer(&self) -> Option<String> {
        let numbers = |version: &str| -> Vec<u64> { version.split('.').map_while(|part| part.parse().ok()).collect() };
        let (was, now) = (self.versions.get("omr")?, env!("CARGO_PKG_VERSION"));
        (numbers(was) > numbers(now)).then(|| {
            format!(
                "the checkpoint was written by omr {was}, and this is {now}: what it does not know of it, it leaves out"
            )
        })
    }

    /// What to tell the user when this state was made on another device kind, by other kernel bodies or by another
    /// version of the arithmetic: the run goes on, its bits may differ.
    pub fn other_arithmetic(&self, device: &str, cpu_body: &str, gpu_body: Option<&str>) -> Option<String> {
        let named = |device, cpu_body, gpu_body: Option<&str>, version| {
            let bodies = [device, cpu_body].into_iter().chain(gpu_body).collect::<Vec<&str>>().join(", ");
            format!("{bodies}, arithmetic {version}")
        };
        let version = self.versions.get("arithmetic").map_or("1", String::as_str);
        let was = named(&self.device, &self.cpu_body, self.gpu_body.as_deref(), version);
        let now = named(device, cpu_body, gpu_body, ARITHMETIC);
        (was != now).then(|| format!("the checkpoint was made on {was} and this is {now}: bits may differ"))
    }
}
