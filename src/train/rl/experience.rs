//! The form of a response in which an update uses it.

use crate::training::step::Sequence;
use omr_model::rollout::generate::{Question, Rollout};

/// A response to train on.
#[derive(Clone, Debug, Default)]
pub struct Experience {
    /// Prompt and response tokens.
    pub input_ids: Vec<u32>,
    /// True for response tokens, `[len]`.
    pub loss_mask: Vec<bool>,
    /// Log-probs of the response tokens under the policy that sampled them.
    pub old_log_prob: Vec<f32>,
    /// Log-probs of the response tokens under the reference policy, if there is a KL term.
    pub ref_log_prob: Option<Vec<f32>>,
    /// Log-probs of the response tokens under the teacher, if there is one.
    pub teacher_log_prob: Option<Vec<f32>>,
    /// Score, with the penalty for long responses (verl's `token_level_scores`, summed). `None` if the response has no
    /// score, as in [`Score`](omr_data::reward::Score).
    pub score: Option<f64>,
    /// Score, from which the divergence from the reference is subtracted if the config requires it (verl's
    /// `token_level_rewards`, summed).
    pub reward: Option<f64>,
    /// Group-relative advantage.
    pub advantage: f64,
    /// True if the response is left out of the update (`mask_truncated_completions`).
    pub is_masked: bool,
}

impl Experience {
    /// Creates the experience of `rollout` with a score, which is also its first reward. Its advantage is computed later.
    pub fn new(question: &Question, rollout: &Rollout, score: Option<f64>) -> Experience {
        let output = &rollout.output;
        let made = Experience::of_tokens(&question.prompt.token_ids, &output.token_ids, output.logprobs.clone());
        Experience { score, reward: score, ..made }
    }

    /// Creates the experience of the tokens `response` after `prompt`, with a score, a reward and an advantage of 0.
    pub fn of_tokens(prompt: &[u32], response: &[u32], old_log_prob: Vec<f32>) -> Experience {
        let mut loss_mask = vec![false; prompt.len()];
        loss_mask.resize(prompt.len() + response.len(), true);
        let input_ids = [prompt, response].concat();
        Experience { input_ids, loss_mask, old_log_prob, ..Experience::default() }
    }

    /// Returns the response to `question` as a sequence to train on. `same_prompt` is true if the sequence before it is a
    /// response to the same question.
    pub fn sequence<'a>(&'a self, question: &'a Question, same_prompt: bool) -> Sequence<'a> {
        let prompt = &question.prompt;
        Sequence {
            input_ids: &self.input_ids,
            images: &prompt.pixels,
            prompt_len: prompt.token_ids.len(),
            loss_mask: &self.loss_mask,
            same_prompt,
        }
    }
}
