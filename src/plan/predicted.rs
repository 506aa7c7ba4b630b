//! Predicted times of a plan's parts.

use super::assumptions::GpuOptions;
use super::launches::Launches;
use crate::device::perf_model::Range;
use crate::error::Result;
use crate::files;

/// Calls `fill` to list and predict launches on a GPU with predictions, and writes the list to a file if requested. Returns an
/// empty list for other GPUs.
pub fn predicted(
    gpu_options: &GpuOptions,
    fill: impl FnOnce(&mut Launches) -> Result<Vec<Range>>,
) -> Result<Vec<Range>> {
    if !gpu_options.gpu.has_predictions() {
        return Ok(Vec::new());
    }
    let mut launches = Launches::new(gpu_options.gpu.ceilings(), 1e6 * gpu_options.clock);
    let seconds = fill(&mut launches)?;
    gpu_options.launches.as_ref().map_or(Ok(()), |path| files::write(path, launches.text().as_bytes()))?;
    Ok(seconds)
}
