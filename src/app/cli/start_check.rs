//! Records that a GPU has passed the start check of the wgmma kernels, so that the check does not run at every start. A
//! fault is not recorded: the next start checks again, and prints the fault again if it is still there.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use omr_base::error::Result;
use omr_base::files;
use omr_runtime::device::{Device, KernelVariant};

/// Returns the path and the content of the record of `dev`, which may not exist yet. The content has the properties that
/// the result of a check depends on: the kernel variant, the GPU, its driver, the machine code of the kernels, and the
/// program, which chooses their tiles and arguments. Returns `None` on the emulator, or if there is no cache folder.
fn record(dev: &mut Device) -> Option<(PathBuf, String)> {
    let gpu = dev.driver()?.identity()?;
    let program = std::env::current_exe().ok()?.metadata().ok()?;
    let built = program.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    let variant = KernelVariant::Wgmma.recorded();
    let content = format!("{variant} passed\n{gpu}\nprogram {} bytes, {built} ns\n", program.len());
    let name = format!("start-check.{}", &blake3::hash(content.as_bytes()).to_hex()[..32]);
    Some((files::user_cache("cuda")?.join(name), content))
}

/// Returns the faults that `check` finds. Unless `always` is true, a GPU with a record of having passed is not checked:
/// it uses wgmma, and there are no faults. Several processes may call this at once.
pub fn faults(
    dev: &mut Device,
    always: bool,
    check: impl FnOnce(&mut Device) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let record = record(dev);
    // A file with any other content does not count.
    let is_there = |(path, content): &(PathBuf, String)| files::read_to_string(path).is_ok_and(|text| text == *content);
    if !always && record.as_ref().is_some_and(is_there) {
        return dev.use_variant(KernelVariant::Wgmma).map(|()| Vec::new());
    }
    // The record is removed first, because a check that hangs ends the process.
    record.iter().for_each(|(path, _)| drop(std::fs::remove_file(path)));
    let faults = check(dev)?;
    if let (true, Some((path, content))) = (faults.is_empty(), record)
        && let Err(error) = files::write(&path, content.as_bytes())
    {
        tracing::debug!("{error}; the next start checks again");
    }
    Ok(faults)
}
