//! Takes the place of `fused.rs` on processors that do not have `vdpbf16ps`.

use std::ops::Range;

use super::product::Product;
use super::tile::Tile;
use crate::device::Isa;

/// Operands of a job, which do not exist here.
pub enum Fused {}

impl Fused {
    /// Returns `None`.
    pub fn new(_: Isa, _: &Product<'_>, _: usize, _: impl Iterator<Item = Range<usize>>) -> Option<Fused> {
        None
    }

    /// Is never called.
    pub fn widen_panels(&mut self, _: &Product<'_>, _: Range<usize>) {
        match *self {}
    }

    /// Is never called.
    pub fn multiply(&self, _: usize, _: &mut Tile<'_>, _: bool) {
        match *self {}
    }
}
