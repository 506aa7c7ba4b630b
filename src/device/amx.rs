//! Products of bf16 by AMX tiles (`tdpbf16ps`): what the processor and the kernel must allow, and one block of a
//! product. Its chain is an arithmetic of its own (DESIGN section 3), which `twin.rs` repeats in plain Rust.

mod allowed;
mod block;
mod check;
mod tiles;
mod twin;

pub use allowed::refusal;
pub use block::{Block, ROWS, STEP};
pub use tiles::Tiles;
