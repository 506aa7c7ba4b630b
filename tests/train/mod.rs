mod checkpoint;
mod damaged;
mod heap;
mod plan;
mod rows;
mod sft;
pub mod tiny;
