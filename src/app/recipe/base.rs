//! Creates the model that a recipe starts from.

use super::job::Recipe;
use omr_base::error::Result;
use omr_base::files;
use omr_base::identity::{CurrentInputs, Manifest, Weights};
use omr_model::llm::new_model::NewModel;

impl Recipe<'_> {
    /// Creates the base model: a copy of the configured one, or a new tokenizer and configuration with random weights.
    pub(super) fn base(&self) -> Result<()> {
        let dir = self.model("base");
        if dir.exists() {
            return Ok(());
        }
        if let Some(model) = &self.config.base.model {
            let mut found = CurrentInputs::default();
            found.add_model(model, Weights::Trained)?;
            self.compare(&found, None)?;
            return files::folder(&dir, |folder| {
                files::copy_files(model, folder).and_then(|()| Manifest::write(folder))
            });
        }
        let (corpus, words) = ((self.task.corpus)(), (self.task.words)());
        NewModel { config: &self.config, corpus, words }.write(&dir, self.machine).map(drop)
    }
}
