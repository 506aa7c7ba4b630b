//! Memory and compute devices.
//!
//! A [`Device`] owns four [`Region`]s of memory and a backend that executes ops. Each region is a stack with mark and
//! release. There are three backends:
//!
//! - `Cpu` is the default and works on every machine.
//! - `Gpu` launches kernels through a driver: on a real GPU or on the emulator.
//! - `Count` executes nothing and records how high each stack grows. To plan the memory of a run, omr first runs the
//!   same code on this backend (`docs/dev/design/runtime.md`).
//!
//! Only ops distinguish the backends; model code never does. `unsafe` code is allowed in this module and in the ops that
//! call kernels or CPU intrinsics.

pub mod amx;
mod available;
mod backend;
pub mod cuda;
pub mod driver;
pub mod emu;
mod file;
mod gpu;
pub mod images;
mod isa;
mod kernel_variant;
pub mod limits;
mod memory;
pub mod nccl;
mod op_costs;
mod params;
pub mod peaks;
pub mod perf_model;
mod pool;
mod ranges;
pub mod readback;
pub mod recording_driver;
mod side_stream;
mod target;
mod tensor_map;
mod variants;
mod wait_limit;
mod work;

pub use backend::{Cpu, Device, On};
pub use driver::{Address, Driver, EncodedMap, Event, Graph, Launch, Stream, TensorMap};
pub use file::MappedFile;
pub use gpu::Gpu;
pub use isa::{Isa, cpu_kernel};
pub use kernel_variant::{KernelVariant, WgmmaKernels};
pub use memory::{Mark, Memory, Plan, Region, Span, View, ViewMut};
pub use params::{Param, Params};
pub(crate) use params::{params, plain};
pub use pool::{Parts, Pool};
pub use target::{Kind, Target};
pub use wait_limit::WaitLimit;
pub use work::{Sequences, Work};
