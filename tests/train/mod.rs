pub mod checkpoint;
mod damaged;
mod heap;
mod lanes;
mod plan;
mod rows;
mod sft;
pub mod tiny;
