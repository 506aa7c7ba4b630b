//! Benchmarks: measures how long ops and whole jobs take on this machine, and compares them with peak rates or
//! predictions.

#![deny(unsafe_code)]

mod case;
mod configs;
mod cpu;
mod decode;
mod emu;
mod first_gpu;
mod gpu;
mod inputs;
mod jobs;
mod layer;
mod loading;
mod model_shape;
mod ops;
mod options;
mod parity;
mod quantized;
mod ranks;
mod rl_step;
mod run;
mod timing;
mod tower;
mod update;
mod variants;

pub use options::Options;
pub use run::run;
