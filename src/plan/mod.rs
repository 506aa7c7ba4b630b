//! What a config takes on a GPU: memory, the least time and what binds it, from the program's own code run on a device that
//! only counts. No data and no weights are read: the model's config.json and the config's limits decide.

mod card;
mod fewer;
mod fits;
mod floor;
mod gpus;
mod job;
mod launches;
pub mod memory;
mod page;
mod pass;
mod predicted;
mod rl;
mod seats;
mod sft;
mod shapes;
mod table;
mod training;

pub use card::{Card, H200, Rows};
pub use fewer::{Asked, text};
pub use gpus::Gpu;
pub use job::{Job, is_rl, job, model_config};
pub use launches::Launches;
pub use page::Page;
pub use training::{Cards, Keys, Training};
