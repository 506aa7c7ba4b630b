//! Cuts responses into micro-batches. The pictures of a question are computed once for all its responses in a
//! micro-batch.

use std::ops::Range;

use crate::error::Result;
use crate::model::Shared;
use crate::rl::group::{Group, ResponseId};
use crate::train::step::{self, Sequence};

/// Cuts `responses` of `groups` into micro-batches of at most `max_tokens` tokens and returns the ranges of their
/// responses. Errors if a single response is longer than `max_tokens`.
pub fn cut(groups: &[Group], responses: &[ResponseId], max_tokens: usize) -> Result<Vec<Range<usize>>> {
    let lengths: Vec<usize> = responses.iter().map(|id| id.of(groups).input_ids.len()).collect();
    step::micro_batches(&lengths, max_tokens)
}

/// Returns the responses of a micro-batch as sequences. The responses of a group must be consecutive.
pub fn sequences<'a>(groups: &'a [Group], responses: &[ResponseId]) -> Vec<Sequence<'a>> {
    let sequence = |(i, id): (usize, &ResponseId)| {
        let again = i > 0 && responses[i - 1].group == id.group;
        id.of(groups).sequence(&groups[id.group].question, Shared { again })
    };
    responses.iter().enumerate().map(sequence).collect()
}
