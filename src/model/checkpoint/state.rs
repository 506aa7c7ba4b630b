//! `trainer/state.json`: the position of a run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::identity::Inputs;

/// Version of the definitions of the ops. It increases with each change that affects results on every device. Version
/// 2: attention applies the score scale inside the exponent, with a single rounding. Version 3: RL sums the gradients
/// of an image's rows over all responses to its question before it rounds them. Version 4: the gradient of each micro-batch
/// is computed from zero and then added to the sum of the update; an image's rows are summed over a micro-batch.
/// Version 5: the gradient of a prompt's key is one f32 sum over the responses of a micro-batch, and RL's lanes are balanced by work.
const ARITHMETIC: &str = "5";

/// Version of the content of a checkpoint (`record` in `versions`). Version 1 has `inputs` and a `MANIFEST`.
const RECORD: &str = "1";

/// Everything, besides weights and optimizer state, that a run needs to continue with bitwise identical results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Number of updates done.
    pub step: u64,
    /// Samples (SFT) or prompts (RL) consumed.
    pub samples_consumed: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Hash of the settings that affect results (see [`State::hash_of`]).
    pub config_hash: String,
    /// Device kind, for example `cpu`.
    pub device: String,
    /// Summation order of the CPU kernels, as `Isa::chains` returns it.
    pub cpu_body: String,
    /// Arithmetic of a GPU, as `Device::recorded_variant` returns it; absent on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_body: Option<String>,
    /// Versions: `omr`, `arithmetic` of the ops (1 if absent) and `record` of the checkpoint's content.
    pub versions: BTreeMap<String, String>,
    /// Hashes of the inputs of the run, and `log`, the hash of its metrics up to this step. Empty in checkpoints of
    /// older versions.
    #[serde(default, skip_serializing_if = "Inputs::is_empty")]
    pub inputs: Inputs,
    /// Further state of a job, for example running metrics or the position of a data stage.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl State {
    /// Returns the hash of a config's text, for [`State::config_hash`].
    pub fn hash_of(config: &str) -> String {
        blake3::hash(config.as_bytes()).to_hex().to_string()
    }

    /// Returns the `versions` of this build.
    pub fn versions() -> BTreeMap<String, String> {
        [("omr", env!("CARGO_PKG_VERSION")), ("arithmetic", ARITHMETIC), ("record", RECORD)]
            .map(|(what, version)| (what.to_owned(), version.to_owned()))
            .into()
    }

    /// Returns this state without device and kernel variants.
    pub fn without_arithmetic(self) -> State {
        State { device: String::new(), cpu_body: String::new(), gpu_body: None, ..self }
    }

    /// Writes `dir/state.json`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        files::json::write(&dir.join("state.json"), self)
    }

    /// Reads `dir/state.json`. Errors name the file.
    pub fn read(dir: &Path) -> Result<State> {
        files::json::read(&dir.join("state.json"))
    }

    /// Returns true if the checkpoint was written with a `MANIFEST`.
    pub fn has_manifest(&self) -> bool {
        self.versions.contains_key("record")
    }

    /// Returns a message for the user if a newer version of omr wrote the checkpoint.
    pub fn newer(&self) -> Option<String> {
        let numbers = |version: &str| -> Vec<u64> { version.split('.').map_while(|part| part.parse().ok()).collect() };
        let (was, now) = (self.versions.get("omr")?, env!("CARGO_PKG_VERSION"));
        (numbers(was) > numbers(now)).then(|| {
            format!(
                "the checkpoint was written by omr {was}, and this is omr {now}: unknown parts of its state are ignored"
            )
        })
    }

    /// Errors if another version of the arithmetic made this state: the run would end with other bits than it began to
    /// compute. `place` names the checkpoint.
    pub fn check_arithmetic(&self, place: &Path) -> Result<()> {
        match self.versions.get("arithmetic").map_or("1", String::as_str) {
            ARITHMETIC => Ok(()),
            was => Err(Error::input_hint(
                place,
                format!("a checkpoint of arithmetic version {was}"),
                format!("version {ARITHMETIC}, the version of this omr {}", env!("CARGO_PKG_VERSION")),
                "finish the run with the omr that started it, or start over with --fresh, which renames the old run \
                 directory",
            )),
        }
    }

    /// Returns a message for the user if this state was made on another kind of device, by other kernel variants or by
    /// another version of the arithmetic. The run continues, but its results may differ bitwise.
    pub fn other_arithmetic(&self, device: &str, cpu_body: &str, gpu_body: Option<&str>) -> Option<String> {
        let named = |device, cpu_body, gpu_body: Option<&str>, version| {
            let bodies = [device, cpu_body].into_iter().chain(gpu_body).collect::<Vec<&str>>().join(", ");
            format!("{bodies}, arithmetic {version}")
        };
        let version = self.versions.get("arithmetic").map_or("1", String::as_str);
        let was = named(&self.device, &self.cpu_body, self.gpu_body.as_deref(), version);
        let now = named(device, cpu_body, gpu_body, ARITHMETIC);
        (was != now).then(|| {
            format!("the checkpoint was made on {was} and this is {now}: results may not be bitwise identical")
        })
    }
}
