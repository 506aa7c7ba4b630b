mod checkpoint;
mod heap;
mod plan;
mod sft;
pub mod tiny;
