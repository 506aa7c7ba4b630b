//! A response as it is learned from.

use crate::model::Shared;
use crate::rollout::ask::{Question, Rollout};
use crate::train::step::Sequence;

/// One response to learn from.
#[derive(Clone, Debug)]
pub struct Experience {
    /// Prompt and response tokens.
    pub input_ids: Vec<u32>,
    /// `[len]`: true for the response.
    pub loss_mask: Vec<bool>,
    /// Log-probs of the response tokens under the policy that sampled them.
    pub old_log_prob: Vec<f32>,
    /// Log-probs under the reference policy, with a KL term.
    pub ref_log_prob: Option<Vec<f32>>,
    /// Group-relative advantage.
    pub advantage: f64,
    /// Index of the question among those asked.
    pub question: usize,
}

impl Experience {
    /// Of a rollout and its advantage.
    pub fn new(question: &Question, rollout: &Rollout, advantage: f64) -> Experience {
        let prompt = &question.prompt.token_ids;
        let response = &rollout.output.token_ids;
        let mut loss_mask = vec![false; prompt.len()];
        loss_mask.resize(prompt.len() + response.len(), true);
        Experience {
            input_ids: [&prompt[..], &response[..]].concat(),
            loss_mask,
            old_log_prob: rollout.output.logprobs.clone(),
            ref_log_prob: None,
            advantage,
            question: rollout.question,
        }
    }

    /// It as a sequence to be trained on; `shared`: what its images have to do with those of other responses.
    pub fn sequence<'a>(&'a self, questions: &[&'a Question], shared: Shared) -> Sequence<'a> {
        let prompt = &questions[self.question].prompt;
        Sequence {
            input_ids: &self.input_ids,
            images: &prompt.pixels,
            prompt_len: prompt.token_ids.len(),
            loss_mask: &self.loss_mask,
            shared,
        }
    }
}
