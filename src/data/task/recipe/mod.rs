//! Parts of a task that a recipe needs: rows, texts for a tokenizer and a teacher. The small initial model is the same
//! for all tasks.

use serde_json::Value;
use tokio::runtime::Handle;

use super::teacher::Teacher;
use crate::image::{PatchGrid, Processor};
use crate::rows::Row;
use omr_base::config::TaskConfig;
use omr_base::error::Result;

/// Functions with which a recipe trains a model on a task from scratch.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// Duration of the recipe on the CPU, empty if it was not measured. The text ends with "; ", because the announcement
    /// continues after it.
    pub takes: &'static str,
    /// Makes the rows of a run with this seed. Equal arguments give equal rows.
    pub splits: fn(&TaskConfig, u64) -> Result<Splits>,
    /// Returns texts that contain every word that the task can produce, for training a tokenizer.
    pub corpus: fn() -> Vec<String>,
    /// Returns texts whose words should become single tokens.
    pub words: fn() -> Vec<String>,
    /// Starts the teacher.
    pub teacher: fn(&TaskConfig, &Handle) -> Result<Teacher>,
}

/// Rows of a run.
pub struct Splits {
    /// Questions for the teacher.
    pub teach: Vec<Row>,
    /// Questions for RL.
    pub train: Vec<Row>,
    /// Questions for evaluation. No training uses them.
    pub heldout: Vec<Row>,
}

/// Returns the `preprocessor_config.json` of a small model with these patches. Its minimum size allows images of one merged
/// patch, so images of 28 x 28 pixels are not enlarged further.
pub fn preprocessor_config(grid: PatchGrid) -> Value {
    let mut file = fixed(include_str!("preprocessor_config.json"));
    let Processor { patch_size, image_mean, image_std, .. } = Processor::released(grid);
    if file["patch_size"] != patch_size {
        let least = (grid.patch_size * grid.merge_size).pow(2);
        file["size"]["shortest_edge"] = least.into();
        file["min_pixels"] = least.into();
        file["patch_size"] = patch_size.into();
        file["image_mean"] = image_mean.to_vec().into();
        file["image_std"] = image_std.to_vec().into();
        file["processor_class"] = "Qwen3VLProcessor".into();
    }
    file
}

fn fixed(text: &str) -> Value {
    serde_json::from_str(text).expect("a fixed text")
}
