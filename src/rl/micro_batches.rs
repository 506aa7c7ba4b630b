//! Responses cut into micro-batches whose pictures are computed once a group: all responses to a question show the same
//! ones. Where a group goes on in the next micro-batch, what the tower made of its pictures is kept until its last.

use std::ops::Range;

use crate::device::{Device, Region};
use crate::error::Result;
use crate::model::{Kept, Model, Shared};
use crate::rl::group::{Group, ResponseId};
use crate::tensor::DType;
use crate::train::step::{self, Sequence};

/// Responses that go through the model together.
pub struct MicroBatch<'a> {
    /// Which of those that were cut.
    pub responses: Range<usize>,
    /// They as sequences.
    pub sequences: Vec<Sequence<'a>>,
}

/// Cuts `responses` of `groups`, those of a group one after another, into micro-batches of at most `max_tokens` tokens. What is kept
/// from one to the next lies in [`Region::Overlay`]. `backward`: it follows each micro-batch. Errors when a response alone
/// is longer.
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
            let kept = kept.filter(|_| !(first && last)).map(|kept| Kept { first, last, ..kept });
            responses[i].of(groups).sequence(question(i), Shared { again, kept })
        };
        MicroBatch { sequences: range.clone().map(sequence).collect(), responses: range }
    };
    Ok(ranges.into_iter().map(micro_batch).collect())
}

/// Memory for the pictures of a group that goes on, of `rows` rows at most: one group does at a time.
pub fn keep(dev: &mut Device, model: &Model, rows: usize, backward: bool) -> Result<Option<Kept>> {
    if rows == 0 {
        return Ok(None);
    }
    let dims = [rows, model.config.hidden_size];
    let sums = if backward { Some(dev.alloc(Region::Overlay, DType::F32, &dims)?) } else { None };
    let rows = dev.alloc(Region::Overlay, model.layout.dtype, &dims)?;
    Ok(Some(Kept { rows, sums, first: false, last: false }))
}
