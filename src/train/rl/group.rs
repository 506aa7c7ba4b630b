//! Groups: a question of a step with its rollouts and the experience from each. In a micro-batch, the prompt of a question,
//! with its images, is computed once for all its responses.

use std::ops::Range;
use std::sync::Arc;

use crate::rl::experience::Experience;
use crate::training::step::{self, Cost, Sequence};
use omr_model::rollout::{Question, Rollout};

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

    /// Returns the reward of each rollout, if it has one.
    pub fn rewards(&self) -> Vec<Option<f64>> {
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

/// Returns the ids of the responses of `groups` that are not left out of the update, group after group.
pub fn unmasked(groups: &[Group]) -> Vec<ResponseId> {
    responses(groups).into_iter().filter(|id| !id.of(groups).is_masked).collect()
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

/// Cuts `responses` of `groups` into micro-batches of at most `max_tokens` computed tokens and returns the ranges of
/// their responses. A longer response with its prompt is a micro-batch of its own.
pub fn micro_batches(groups: &[Group], responses: &[ResponseId], max_tokens: usize) -> Vec<Range<usize>> {
    let costs: Vec<Cost> = sequences(groups, responses).iter().map(Sequence::cost).collect();
    step::micro_batches(&costs, max_tokens)
}

/// Returns the responses of a micro-batch as sequences. The responses of a group must be consecutive.
pub fn sequences<'a>(groups: &'a [Group], responses: &[ResponseId]) -> Vec<Sequence<'a>> {
    let sequence = |(i, id): (usize, &ResponseId)| {
        let same_prompt = i > 0 && responses[i - 1].group == id.group;
        id.of(groups).sequence(&groups[id.group].question, same_prompt)
    };
    responses.iter().enumerate().map(sequence).collect()
}
