//! Predicted times of a plan's parts.

use super::card::Card;
use super::floor::Floor;
use super::launches::Launches;
use crate::error::Result;
use crate::files;
use crate::train::plan::Planned;

/// What `fill` lists and predicts on a Hopper card, whose launches are written where they are asked for.
pub fn predicted(card: &Card, fill: impl FnOnce(&mut Launches) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    if !card.gpu.is_hopper() {
        return Ok(Vec::new());
    }
    let mut launches = Launches::new(card.gpu.ceilings(), 1e6 * card.clock);
    let seconds = fill(&mut launches)?;
    card.launches.as_ref().map_or(Ok(()), |path| files::write(path, launches.text().as_bytes()))?;
    Ok(seconds)
}

/// Seconds of adding lanes up, which the list of launches leaves out: at its floor.
pub fn lane_sums(on: &Card, planned: &Planned) -> f64 {
    let sums: Vec<_> = planned.update.work.iter().filter(|work| work.op == "lane_sum").copied().collect();
    Floor::sum(&sums, &on.gpu.ceilings()).seconds
}
