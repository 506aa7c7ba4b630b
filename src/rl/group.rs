//! Groups: a question of a step with its rollouts and the experience from each.

use std::sync::Arc;

use crate::rl::experience::Experience;
use crate::rollout::{Question, Rollout};

/// A question with its rollouts.
#[derive(Clone, Debug)]
pub struct Group {
    /// Index of the question among those of its step.
    pub index: usize,
    /// Number of the question in the run, which is its position in the order of prompts.
    pub number: u64,
    /// The question.
    pub question: Arc<Question>,
    /// Rollouts of the question. Empty for the made-up responses of a memory plan.
    pub rollouts: Vec<Rollout>,
    /// Experience from each rollout, in the same order.
    pub experience: Vec<Experience>,
}

impl Group {
    /// Creates a group of made-up responses.
    pub fn made_up(index: usize, question: Question, experience: Vec<Experience>) -> Group {
        Group { index, number: index as u64, question: Arc::new(question), rollouts: Vec::new(), experience }
    }

    /// Returns the reward of each rollout.
    pub fn rewards(&self) -> Vec<f64> {
        self.experience.iter().map(|one| one.reward).collect()
    }
}

/// Identifies a response in a batch of groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseId {
    /// Index of the group in the batch.
    pub group: usize,
    /// Index of the rollout in the group.
    pub rollout: usize,
}

impl ResponseId {
    /// Returns the response from `groups`.
    pub fn of(self, groups: &[Group]) -> &Experience {
        &groups[self.group].experience[self.rollout]
    }
}

/// Returns the ids of the responses of `groups`, group after group.
pub fn responses(groups: &[Group]) -> Vec<ResponseId> {
    let of = |(group, responses): (usize, &Group)| {
        (0..responses.experience.len()).map(move |rollout| ResponseId { group, rollout })
    };
    groups.iter().enumerate().flat_map(of).collect()
}

/// Returns the offsets at which consecutive responses begin, in response tokens, followed by the end of the last
/// response.
pub fn borders<'a>(responses: impl IntoIterator<Item = &'a Experience>) -> Vec<u32> {
    let mut borders = vec![0u32];
    borders.extend(responses.into_iter().scan(0, |end, one| {
        *end += one.old_log_prob.len() as u32;
        Some(*end)
    }));
    borders
}
