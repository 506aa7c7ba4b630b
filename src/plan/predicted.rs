//! Predicted times of a plan's parts.

use super::assumptions::GpuOptions;
use super::floor::Floor;
use super::launches::Launches;
use crate::error::Result;
use crate::files;
use crate::train::plan::Planned;

/// Calls `fill` to list and predict launches on a Hopper GPU, and writes the list to a file if requested. Returns an
/// empty list for other GPUs.
pub fn predicted(gpu_options: &GpuOptions, fill: impl FnOnce(&mut Launches) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    if !gpu_options.gpu.is_hopper() {
        return Ok(Vec::new());
    }
    let mut launches = Launches::new(gpu_options.gpu.ceilings(), 1e6 * gpu_options.clock);
    let seconds = fill(&mut launches)?;
    gpu_options.launches.as_ref().map_or(Ok(()), |path| files::write(path, launches.text().as_bytes()))?;
    Ok(seconds)
}

/// Returns the minimum seconds of summing gradient lanes, which the list of launches does not contain.
pub fn lane_sums(on: &GpuOptions, planned: &Planned) -> f64 {
    let sums: Vec<_> = planned.update.work.iter().filter(|work| work.op == "lane_sum").copied().collect();
    Floor::sum(&sums, &on.gpu.ceilings()).seconds
}
