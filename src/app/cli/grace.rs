//! The grace period of a batch system: the seconds between the signal that asks a run to stop and its end by force.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::Context;
use omr_base::error::{Error, Result};
use omr_model::checkpoint::Store;
use omr_runtime::ranks::environment;

/// Environment variables with a grace period. Batch systems do not state it by themselves, so scripts set the first one.
/// The others are those of Slurm's `--signal`, with a value such as `B:USR1@120`.
const VARIABLES: [&str; 3] = ["OMR_GRACE_SECONDS", "SBATCH_SIGNAL", "SLURM_SIGNAL"];

/// Prints a warning if the grace period that the environment states is shorter than the time that the last checkpoint of
/// the run in `dir` took.
pub fn warn(dir: &Path, context: &Context) -> Result<()> {
    let stated = VARIABLES.iter().find_map(|name| Some((name, environment(name)?)));
    let Some((name, text)) = stated.filter(|_| context.leads()) else { return Ok(()) };
    let seconds = match (text.rsplit('@').next().unwrap_or_default().trim().parse(), name.starts_with("OMR")) {
        (Ok(seconds), _) => seconds,
        (Err(_), true) => {
            let place = format!("environment variable {name}");
            return Err(Error::input(place, text, "a whole number of seconds"));
        }
        // Without @, Slurm sends the signal a minute before the end.
        (Err(_), false) => 60,
    };
    if let Some((step, took)) = last_checkpoint(dir).filter(|(_, took)| *took >= Duration::from_secs(seconds)) {
        context.say(&format!(
            "warning: {name}={text} leaves {seconds} s to stop, but the checkpoint of step {step} took {:.1} s: a stop may \
             lose the steps after the last checkpoint",
            took.as_secs_f64()
        ));
    }
    Ok(())
}

/// Returns the step of the last checkpoint in `dir`, and the time from the creation of its folder to its last change, which
/// is the rename after all files are on disk.
fn last_checkpoint(dir: &Path) -> Option<(u64, Duration)> {
    let checkpoint = Store::of(dir, 1).latest().ok()??;
    let folder = checkpoint.path.metadata().ok()?;
    let ended = UNIX_EPOCH + Duration::new(folder.ctime().try_into().ok()?, folder.ctime_nsec().try_into().ok()?);
    Some((checkpoint.step, ended.duration_since(folder.created().ok()?).ok()?))
}
