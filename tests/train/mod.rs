mod checkpoint;
mod heap;
mod sft;
pub mod tiny;
