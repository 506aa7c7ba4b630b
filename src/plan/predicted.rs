//! Predicted times of a plan's parts.

use super::card::Card;
use super::floor::Floor;
use super::launches::Launches;
use crate::error::Result;
use crate::files;
use crate::train::plan::Planned;

/// Calls `fill` to list and predict launches on a Hopper GPU, and writes the list to a file if requested. Returns an
/// empty list for other GPUs.
pub fn predicted(card: &Card, fill: impl FnOnce(&mut Launches) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    if !card.gpu.is_hopper() {
        return Ok(Vec::new());
    }
    let mut launches = Launches::new(card.gpu.ceilings(), 1e6 * card.clock);
    let seconds = fill(&mut launches)?;
    card.launches.as_ref().map_or(Ok(()), |path| files::write(path, launches.text().as_bytes()))?;
    Ok(seconds)
}

/// Returns the minimum seconds of summing gradient lanes, which the list of launches does not contain.
pub fn lane_sums(on: &Card, planned: &Planned) -> f64 {
    let sums: Vec<_> = planned.update.work.iter().filter(|work| work.op == "lane_sum").copied().collect();
    Floor::sum(&sums, &on.gpu.ceilings()).seconds
}
