//! Rows to tokens: training samples with their loss mask, and prompts.

use std::sync::Arc;

use crate::data::row::{Prompt, Row, Sample, text_of};
use crate::error::{Error, Result};
use crate::image::{ImageInput, Processor};
use crate::text::{Chat, Part, Special, expand_images};

/// The system prompt of training rows and of every evaluation: the format the model is taught.
pub const SYSTEM_PROMPT: &str = "You are a helpful assistant. When the user asks a question, your response must include two parts: first, the reasoning process enclosed in <think>...</think> tags, then the final answer enclosed in <answer>...</answer> tags.Please provide a clear, concise response within <answer> </answer> tags that directly addresses the question.";

/// The system prompt a teacher is asked with.
pub const TEACHER_SYSTEM_PROMPT: &str = "You are a helpful assistant. When the user asks a question, your response must include two parts and nothing else: first, the reasoning process enclosed in <think>...</think> tags, then the final answer enclosed in <answer>...</answer> tags.Please provide a clear, concise response within <answer> </answer> tags that directly addresses the question.";

/// A row in SFT form as a training sample. Each assistant turn is encoded as it would be generated: after the prompt
/// that opens it, its text as plain text, then `<|im_end|>`; these are the targets, everything else is masked.
///
/// Errors when the row has no assistant turn, or does not end with one that has text, or a picture is broken.
pub fn sft_sample(row: &Row, chat: &Chat, processor: &Processor) -> Result<Sample> {
    let pictures = pictures(row, processor)?;
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    // What the template makes of the turns before; the next prompt must continue it.
    let mut done: Vec<u32> = Vec::new();
    for (k, message) in row.messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
        let opened = chat.encode(&row.messages[..k], true, Special::Plain).map_err(at(row))?;
        let Some(next) = opened.strip_prefix(&done[..]) else {
            let found = "a chat template that rewrites earlier turns";
            return Err(Error::input(&row.place, found, "one that only appends, or one assistant turn a row"));
        };
        ids.extend_from_slice(next);
        mask.resize(ids.len(), false);
        if message.content.iter().any(|p| !matches!(p, Part::Text(_))) {
            return Err(Error::input(&row.place, "an image in an assistant message", "text"));
        }
        ids.extend(chat.tokenizer.encode(&text_of(message), Special::Plain));
        ids.push(chat.ids.im_end);
        mask.resize(ids.len(), true);
        if k + 1 < row.messages.len() {
            done = chat.encode(&row.messages[..=k], false, Special::Plain).map_err(at(row))?;
            let close = done.iter().rposition(|&id| id == chat.ids.im_end).map_or(done.len(), |i| i + 1);
            ids.extend_from_slice(&done[close..]);
            mask.resize(ids.len(), false);
        }
    }
    if row.messages.last().is_none_or(|m| m.role != "assistant" || text_of(m).trim().is_empty()) {
        return Err(Error::input(&row.place, "no answer at the end of the messages", "an assistant message with text"));
    }
    let input_ids = expand(row, &ids, chat, processor, &pictures)?;
    let loss_mask = expand_mask(&ids, &mask, chat.ids.image_pad, &pictures, processor.merge_size);
    debug_assert_eq!(input_ids.len(), loss_mask.len());
    Ok(Sample { id: row.id.clone(), input_ids, loss_mask, images: pictures })
}

/// A row's question as a prompt: every message before the final assistant turn (if the row has one), the assistant's
/// turn opened. The system prompt is the row's own, or the template's default.
pub fn prompt(row: &Row, chat: &Chat, processor: &Processor) -> Result<Prompt> {
    let images = pictures(row, processor)?;
    let asked = match row.messages.last() {
        Some(last) if last.role == "assistant" => &row.messages[..row.messages.len() - 1],
        _ => &row.messages[..],
    };
    let ids = chat.encode(asked, true, Special::Plain).map_err(at(row))?;
    Ok(Prompt { ids: expand(row, &ids, chat, processor, &images)?, images })
}

fn pictures(row: &Row, processor: &Processor) -> Result<Vec<Arc<ImageInput>>> {
    let picture = |image: &crate::data::ImageSource| {
        let pixels = image.decode(&row.place)?;
        Ok(Arc::new(processor.image(&pixels).map_err(|e| e.within(&image.place(&row.place)))?))
    };
    row.images.iter().map(picture).collect()
}

fn expand(row: &Row, ids: &[u32], chat: &Chat, processor: &Processor, images: &[Arc<ImageInput>]) -> Result<Vec<u32>> {
    let grids: Vec<[u32; 3]> = images.iter().map(|i| i.grid_thw).collect();
    expand_images(ids, chat.ids.image_pad, &grids, processor.merge_size).map_err(at(row))
}

fn expand_mask(
    ids: &[u32],
    mask: &[bool],
    image_pad: u32,
    images: &[Arc<ImageInput>],
    merge_size: impl Into<u64>,
) -> Vec<bool> {
    let merge_size = merge_size.into();
    let mut grids = images.iter().map(|i| i.grid_thw);
    let mut out = Vec::with_capacity(mask.len());
    for (&id, &target) in ids.iter().zip(mask) {
        let grid = if id == image_pad { grids.next() } else { None };
        let n = grid.map_or(1, |g| g.iter().map(|&x| u64::from(x)).product::<u64>() / (merge_size * merge_size));
        out.extend(std::iter::repeat_n(target, n as usize));
    }
    out
}

/// Adds the row to an error that does not name it.
fn at(row: &Row) -> impl Fn(Error) -> Error {
    let place = row.place.clone();
    move |error| error.within(&place)
}
