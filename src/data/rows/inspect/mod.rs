//! Inspection of a data set: columns, row counts, faults, images, lengths, kinds of labels, and a few sample rows. Rows
//! are streamed, and only a few numbers per row are kept.

mod found;
mod inspection;
mod kinds;
mod nearest;
mod preview;
mod rows;
mod spread;

pub use found::Options;
pub use inspection::{DrawnRow, Inspection, refuse_faults};
pub use kinds::kind;
pub use preview::{Preview, Previewer};
pub use rows::{inspect, of_rows};
pub use spread::Spread;
