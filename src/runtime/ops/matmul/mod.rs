//! CPU matrix products: activations `[rows, K]` times a weight in column panels.
//!
//! Every output is summed over ascending K, from zero or from a given start value. K is never split, so a row computed
//! alone is bitwise identical to the same row in a batch. Activations are read in place, and sums stay in registers. An
//! `Epilogue` converts finished sums to the values that the op stores.

mod amx;
pub mod block;
mod cells;
mod codes;
mod epilogue;
#[cfg(target_arch = "x86_64")]
pub mod fused;
#[cfg(not(target_arch = "x86_64"))]
#[path = "fused_elsewhere.rs"]
pub mod fused;
mod gradient;
mod lanes;
mod panels;
pub mod product;
mod repack;
mod run;
pub mod tile;
mod transpose;
mod widened;

pub use panels::{Order, PANEL, Weight, index, panel_count, panel_len, panel_stride, row_stride};

pub(in crate::ops) use cells::Cells;
pub(in crate::ops) use epilogue::{InputGradient, Linear, SwiGlu, add, store};
pub(in crate::ops) use gradient::{WeightGradient, weight_gradient, weight_gradient_scratch};
pub(in crate::ops) use product::{Product, SLICE};
pub(in crate::ops) use run::run;
pub(in crate::ops) use tile::{Epilogue, Tile};
pub(in crate::ops) use transpose::transpose;
