//! Plans the run of a config on a GPU: memory, minimum time and limiting resources. It executes the program's own code
//! on a device that only counts. It reads no data and no weights, only the model's config.json and the limits of the
//! config.

mod assumptions;
mod attention;
mod changes;
mod faster;
mod fewer;
mod fits;
mod floor;
mod gpu_table;
mod gpus;
mod hints;
mod job;
pub mod kernels;
mod launches;
mod layout;
mod length;
pub mod memory;
mod micro_batch_tokens;
mod page;
mod pass;
mod planned_rows;
mod published;
mod rl;
mod rounds;
mod sft;
mod shapes;
mod table;
mod training;

pub use assumptions::{H200, Rows};
pub use attention::Pages;
pub use fewer::{PlanRequest, text};
pub use gpus::Gpu;
pub use job::{Job, is_rl, job, model_config};
pub use launches::Launches;
pub use micro_batch_tokens::choose_micro_batch_tokens;
pub use page::Page;
pub use training::{GpuSet, Keys, Training, parameters};
