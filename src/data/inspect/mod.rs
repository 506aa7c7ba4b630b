//! What is in a data set: columns, rows, faults, pictures, lengths, kinds of answers, and a few rows to look at. Rows pass
//! by; a few numbers of each are kept.

mod found;
mod inspection;
mod kinds;
mod look;
mod spread;

pub use found::Options;
pub use inspection::{DrawnRow, Inspection, refuse_faults};
pub use kinds::kind;
pub use look::{inspect, of_rows};
pub use spread::Spread;
