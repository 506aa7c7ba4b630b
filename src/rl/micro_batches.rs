//! Cuts responses into micro-batches. The prompt of a question, with its pictures, is computed once for all its responses
//! in a micro-batch.

use std::ops::Range;

use crate::error::Result;
use crate::rl::group::{Group, ResponseId};
use crate::train::step::{self, Cost, Sequence};

/// Cuts `responses` of `groups` into micro-batches of at most `max_tokens` computed tokens and returns the ranges of
/// their responses. Errors if a single response with its prompt is longer than `max_tokens`.
pub fn cut(groups: &[Group], responses: &[ResponseId], max_tokens: usize) -> Result<Vec<Range<usize>>> {
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
