//! Cuts responses into micro-batches and computes pictures once per group, because all responses to a question contain
//! the same pictures. If the cut is inside a group, the vision tower's output for its pictures is kept until the
//! group's last micro-batch.

use std::ops::Range;

use crate::device::{Device, Region};
use crate::error::Result;
use crate::model::{Model, Shared, SharedImages};
use crate::rl::group::{Group, ResponseId};
use crate::tensor::DType;
use crate::train::step::{self, Sequence};

/// Responses that pass through the model together.
pub struct MicroBatch<'a> {
    /// Range of these responses in the list that was cut.
    pub responses: Range<usize>,
    /// The responses as sequences.
    pub sequences: Vec<Sequence<'a>>,
}

/// Cuts `responses` of `groups` into micro-batches of at most `max_tokens` tokens. The responses of a group must be
/// consecutive. Memory that is kept from one micro-batch to the next is in [`Region::Overlay`]. `backward` is true if
/// backward follows each micro-batch. Errors if a single response is longer than `max_tokens`.
pub fn cut<'a>(
    dev: &mut Device,
    model: &Model,
    groups: &'a [Group],
    responses: &[ResponseId],
    max_tokens: usize,
    backward: bool,
) -> Result<Vec<MicroBatch<'a>>> {
    let lengths: Vec<usize> = responses.iter().map(|id| id.of(groups).input_ids.len()).collect();
    let ranges = step::micro_batches(&lengths, max_tokens)?;
    let goes_on = |at: usize| 0 < at && at < responses.len() && responses[at - 1].group == responses[at].group;
    let merge = model.config.vision_config.spatial_merge_size as u32;
    let question = |at: usize| &groups[responses[at].group].question;
    let rows = |at: usize| question(at).prompt.pixels.iter().map(|p| p.tokens(merge)).sum();
    let most = ranges.iter().filter(|range| goes_on(range.end)).map(|range| rows(range.end)).max().unwrap_or(0);
    let kept = keep(dev, model, most, backward)?;
    let micro_batch = |range: Range<usize>| {
        let of = |at: usize| responses[at].group;
        let sequence = |i: usize| {
            let again = i > range.start && goes_on(i);
            let first = !(goes_on(range.start) && of(range.start) == of(i));
            let last = !(goes_on(range.end) && of(range.end) == of(i));
            let kept = kept.filter(|_| !(first && last)).map(|kept| SharedImages { first, last, ..kept });
            responses[i].of(groups).sequence(question(i), Shared { again, kept })
        };
        MicroBatch { sequences: range.clone().map(sequence).collect(), responses: range }
    };
    Ok(ranges.into_iter().map(micro_batch).collect())
}

/// Allocates memory for the pictures of a group that continues in the next micro-batch, at most `rows` rows. Only one
/// group at a time continues.
pub fn keep(dev: &mut Device, model: &Model, rows: usize, backward: bool) -> Result<Option<SharedImages>> {
    if rows == 0 {
        return Ok(None);
    }
    let dims = [rows, model.config.hidden_size];
    let sums = if backward { Some(dev.alloc(Region::Overlay, DType::F32, &dims)?) } else { None };
    let rows = dev.alloc(Region::Overlay, model.layout.dtype, &dims)?;
    Ok(Some(SharedImages { rows, sums, first: false, last: false }))
}
