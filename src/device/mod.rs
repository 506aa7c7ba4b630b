//! Where memory and compute live.
//!
//! A [`Device`] owns four [`Region`]s of memory, each a stack with mark and release, and a backend that
//! executes ops. The `Cpu` backend is the embedded default; `Count` executes nothing and records how high
//! each stack grew, so that a plan is the run's own code (DESIGN section 3). Ops ask for the backend they
//! have a body for; model code never does. `unsafe` lives here (views into memory, the thread pool), in the
//! matrix kernels of `ops` and where a `cpu_kernel` body is entered.

pub mod amx;
mod available;
mod backend;
mod bodies;
mod body;
pub mod cuda;
pub mod driver;
pub mod emu;
mod file;
mod gpu;
pub mod images;
mod isa;
pub mod listing;
mod memory;
pub mod nccl;
mod noted;
pub mod pace;
mod params;
mod pool;
mod ranges;
pub mod readback;
mod target;
mod tensor_map;
mod work;

pub use backend::{Cpu, Device, On};
pub use body::Body;
pub use driver::{Address, Driver, EncodedMap, Event, Graph, Launch, Properties, Stream, TensorMap};
pub use file::MappedFile;
pub use gpu::Gpu;
pub use isa::{Isa, cpu_kernel};
pub use memory::{Mark, Memory, Plan, Region, Span, View, ViewMut};
pub use params::{Param, Params};
pub(crate) use params::{params, plain};
pub use pool::{Parts, Pool};
pub use target::{Kind, Target};
pub use work::Work;
