//! Golden tests of models and texts.

pub mod hf;
pub mod hf_engine;
pub mod lora;
pub mod qwen3_vl;
pub mod rope;
pub mod text;
pub mod tokenizer;
