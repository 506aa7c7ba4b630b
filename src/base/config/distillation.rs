//! Config keys of on-policy distillation, named after verl's.

use std::path::PathBuf;

use super::{Rule, Source};

settings! {
    /// On-policy distillation, the sampled form: coef times the difference of the teacher's and the policy's log-prob is
    /// added to the advantage of each token.
    pub struct DistillationConfig {
        /// Model directory of the teacher. Its tokenizer has the ids of the student's.
        teacher: PathBuf = PathBuf::new(), rule: Rule::NotEmpty,
            name: "verl distillation.teacher_models.teacher_model.model_path";
        /// Weight of the teacher's term in the advantage.
        coef: f64 = 1.0, rule: Rule::Above(0.0), name: "verl distillation.distillation_loss.distillation_loss_coef";
        /// Add the term to the advantage of the rewards. false = the term alone; rewards are only reported.
        use_task_rewards: bool = true, name: "verl distillation.distillation_loss.use_task_rewards";
        /// Bound of the difference of log-probs of a token, in both directions. null = no bound.
        loss_max_clamp: Option<f64> = None, rule: Rule::Above(0.0),
            name: "verl distillation.distillation_loss.loss_max_clamp";
    }
}

/// Returns the path of the teacher as a source of a config, with the `key` that it is named by.
pub(super) fn teacher_of<'a>(
    key: &str,
    distillation: &'a mut Option<DistillationConfig>,
) -> impl Iterator<Item = (String, Source<'a>)> {
    distillation.iter_mut().map(move |distillation| (key.to_owned(), Source::Model(&mut distillation.teacher)))
}
