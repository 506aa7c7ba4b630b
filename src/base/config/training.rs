//! Config keys of a training run that SFT and RL share: checkpoints, memory, rows and ranks.

use super::{ChatTemplateKwargs, DistConfig, ImageConfig, InputKind, ReportTo, Rule, Safe};

settings! {
    /// Checkpoints, memory, rows and ranks of a training run.
    pub struct TrainingConfig with images: ImageConfig {
        /// Write a checkpoint when a signal stops the run. Without it, the steps since the last checkpoint are repeated
        /// on resume, with bitwise identical results. null = write one if these steps took more than a minute.
        save_on_stop: Option<bool> = None, safe: Safe::Yes;
        /// Number of newest checkpoints to keep. Older ones are removed once a newer one is complete. If an interval in
        /// steps is set, only the checkpoints of these steps count, and only the newest other one is kept. null = all
        /// that count.
        save_total_limit: Option<usize> = Some(3), rule: Rule::STEPS, safe: Safe::Yes;
        /// Interval in steps at which a checkpoint is written that is never removed, for `omr replay`. null = none.
        keep_every: Option<u64> = None, rule: Rule::STEPS, safe: Safe::Yes;
        /// Services that show the metrics of the run: tensorboard, wandb, mlflow, swanlab. All but tensorboard need their
        /// Python package. [] = none. metrics.jsonl is always written.
        report_to: Vec<ReportTo> = vec![ReportTo::Tensorboard], safe: Safe::Yes;
        /// Memory limit of the run, in GiB. null = all memory of the GPU or of the host. The limit decides which
        /// activations are stored and does not affect results.
        max_memory_gib: Option<f64> = None, rule: Rule::Above(0.0), safe: Safe::Yes;
        ..images;
        /// Variables of the chat template.
        chat_template_kwargs: ChatTemplateKwargs = ChatTemplateKwargs::default();
        /// Maximum share of bad rows. Bad rows are left out and listed in rejected.jsonl. A larger share ends the run.
        max_bad_rows: f64 = 0.01, rule: Rule::Within(0.0, 1.0), safe: Safe::Yes;
        /// Number of threads that load rows and images in the background. Does not affect results.
        dataloader_num_workers: usize = 2, rule: Rule::Within(1.0, 1024.0), safe: Safe::Yes;
        /// `auto` continues from the newest complete checkpoint in --out, `never` refuses a folder with checkpoints, a path
        /// continues from that checkpoint. Later checkpoints of the same run are then moved aside.
        resume: String = "auto".to_owned(), rule: Rule::NotEmpty, safe: Safe::Yes;
        /// Kinds of inputs that may have changed since the run was started: `model`, `rows`, `pictures`, `decoder` (of
        /// JPEG images), `reference`, `teacher`, `val`, `stages` (the output of a finished stage), `log`. The change is
        /// printed and recorded; afterwards the key can be removed.
        accept_changed: Vec<InputKind> = Vec::new(), safe: Safe::Yes;
        /// Number of gradient lanes, virtual data-parallel ranks that decide how an update is cut into micro-batches.
        /// Results depend on this number, and not on the number of ranks. null = the number of ranks at the start.
        /// Recorded; cannot change within a run.
        gradient_lanes: Option<usize> = None, rule: Rule::Within(1.0, 4096.0);
        /// Settings for a run with several ranks.
        dist: DistConfig = DistConfig::default();
    }
}

impl TrainingConfig {
    /// Returns the number of gradient lanes, 1 by default.
    pub fn lanes(&self) -> usize {
        self.gradient_lanes.unwrap_or(1)
    }
}
