//! Matrix products of bf16 by AMX tiles (`tdpbf16ps`): the checks that the processor and the operating system allow
//! them, and one block of a product. AMX sums in its own order (`docs/dev/design/runtime.md`). `twin.rs` emulates AMX in
//! plain Rust.

mod allowed;
mod block;
pub mod check;
mod tiles;
pub mod twin;

pub use allowed::refusal;
pub use block::{Block, ROWS, STEP};
pub use tiles::Tiles;
