//! Converts rows to tokens: training samples with their loss mask, and prompts.

use std::sync::Arc;

use crate::image::{Grid, ImageInput, Processor};
use crate::reward::PLAIN_LABEL;
use crate::rows::index::grids;
use crate::rows::row::{EncodedPrompt, ImageSource, Media, Row, Sample, text_of};
use crate::text::{Chat, Message, Part, Special};
use omr_base::error::{Error, Result};

/// System prompt of training rows and of every evaluation. It describes the output format that the model is trained on.
pub const SYSTEM_PROMPT: &str = "You are a helpful assistant. When the user asks a question, your response must include two parts: first, the reasoning process enclosed in <think>...</think> tags, then the final answer enclosed in <answer>...</answer> tags.Please provide a clear, concise response within <answer> </answer> tags that directly addresses the question.";

/// System prompt for requests to a teacher.
pub const TEACHER_SYSTEM_PROMPT: &str = "You are a helpful assistant. When the user asks a question, your response must include two parts and nothing else: first, the reasoning process enclosed in <think>...</think> tags, then the final answer enclosed in <answer>...</answer> tags.Please provide a clear, concise response within <answer> </answer> tags that directly addresses the question.";

/// Converts a row in SFT form to a training sample. Each assistant turn is encoded as the model would generate it: the
/// prompt that opens the turn, then the text of the turn ([`Chat::encode_answer`]) and the token that ends it. Only the text and
/// this token are targets, and only in turns that the row does not mask. A chat template with `{% generation %}` blocks
/// decides itself what is trained.
///
/// Returns an error if the row does not end with an assistant turn that has text, if an image is broken, or if the
/// template rewrites earlier turns, so that the row has several samples ([`per_sample`]).
pub fn sft_sample(row: &Row, chat: &Chat, processor: Option<&Processor>) -> Result<Sample> {
    let images = media(row, processor)?;
    let (input_ids, loss_mask) = sft_tokens(row, chat, false, &grids(&images))?;
    Ok(Sample { input_ids, loss_mask, images })
}

/// Returns the tokens of [`sft_sample`] and the mask of its targets, for a row whose images have these grids. The mask
/// comes from the chat template if that marks the generated text. With `newline`, the text of the template between the
/// token that ends a turn and the next turn, a newline, is trained, too.
pub fn sft_tokens(row: &Row, chat: &Chat, newline: bool, grids: &[Grid]) -> Result<(Vec<u32>, Vec<bool>)> {
    let messages = row.trained_messages();
    let mut answers = messages.iter().filter(|m| m.role == "assistant");
    if answers.any(|answer| answer.content.iter().any(|p| !matches!(p, Part::Text(_)))) {
        return Err(Error::input(&row.place, "an image in an assistant message", "text"));
    }
    if !row.is_answered() {
        if !row.label.is_null() {
            return Err(Error::input(&row.place, "a list or a struct as the answer", PLAIN_LABEL));
        }
        return Err(Error::input(&row.place, "no answer at the end of the messages", "an assistant message with text"));
    }
    let (ids, mask) = match chat.encode_trained(&messages).map_err(at(row))? {
        Some(marked) => marked,
        None => turn_by_turn(row, &messages, chat, newline)?.ok_or_else(|| {
            let found = "a chat template that rewrites earlier turns";
            Error::input(&row.place, found, "a template that only appends, or one assistant turn per row")
        })?,
    };
    if !mask.contains(&true) {
        return Err(untrained(row));
    }
    let expanded = chat.expand(&ids, grids).map_err(at(row))?;
    Ok(expanded.into_iter().map(|(id, from)| (id, mask[from])).unzip())
}

fn untrained(row: &Row) -> Error {
    let found = "`loss` or `weight` 0 in every assistant message";
    Error::input(&row.place, found, "at least one assistant message to train on")
}

/// Returns the rows that become one sample each: `row` itself, or a row for each trained turn if the chat template
/// rewrites earlier turns. Qwen3's template, for example, removes their thinking parts.
pub fn per_sample(row: &Row, chat: &Chat) -> Result<Vec<Row>> {
    let messages = row.trained_messages();
    if chat.template.marks_generation() || turn_by_turn(row, &messages, chat, false)?.is_some() {
        return Ok(vec![row.clone()]);
    }
    let is_trained = |&k: &usize| messages[k].role == "assistant" && !messages[k].masked;
    let rows: Vec<Row> = (0..messages.len()).filter(is_trained).map(|k| row.clone().of_turn(k + 1)).collect();
    if rows.is_empty() { Err(untrained(row)) } else { Ok(rows) }
}

/// Encodes a conversation whose targets are the texts of the assistant's turns and the tokens that end them, and with
/// `newline` also the text between turns. Returns `None` if the template rewrites earlier turns.
fn turn_by_turn(row: &Row, messages: &[Message], chat: &Chat, newline: bool) -> Result<Option<(Vec<u32>, Vec<bool>)>> {
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    // Tokens that the template produces for the previous turns. The next prompt must begin with them.
    let mut done: Vec<u32> = Vec::new();
    let first = if row.only_last { messages.len() - 1 } else { 0 };
    for (k, message) in messages.iter().enumerate().skip(first).filter(|(_, m)| m.role == "assistant") {
        let opened = chat.encode(&messages[..k], true, Special::Plain).map_err(at(row))?;
        let Some(next) = opened.strip_prefix(&done[..]) else { return Ok(None) };
        ids.extend_from_slice(next);
        mask.resize(ids.len(), false);
        let text = text_of(message);
        let open = chat.tokenizer.decode(&chat.turn.open, false);
        let is_whole = open.trim_end().ends_with(THINK) && !text.contains(THINK) && !text.contains("</think>");
        // Templates write an empty thinking part for an answer without one.
        let closed = is_whole.then(|| format!("\n</think>\n\n{}", text.trim_start()));
        let text = closed.as_deref().unwrap_or(without_opening(&text, &open));
        if text.starts_with(THINK) && open.contains("</think>") {
            let expected = "an answer without it: the generation prompt ends the thinking part (enable_thinking=false)";
            return Err(Error::input(&row.place, "an answer with a thinking part", expected));
        }
        ids.extend(chat.encode_answer(text).map_err(at(row))?);
        ids.push(chat.turn.end);
        mask.resize(ids.len(), !message.masked);
        if newline || k + 1 < messages.len() {
            done = chat.encode(&messages[..=k], false, Special::Plain).map_err(at(row))?;
            // Some templates remove thinking from the last turn, too.
            let marks = |ids: &[u32]| chat.tokenizer.decode(ids, false).matches("</think>").count();
            if k + 1 < messages.len() && text.contains("</think>") && marks(&done) <= marks(&opened) {
                return Ok(None);
            }
            let after = chat.after_last(&messages[..=k]).map_err(at(row))?;
            match after.iter().position(|&id| id == chat.turn.end) {
                Some(end) => ids.extend_from_slice(&after[end + 1..]),
                // The template closes this turn only if another one follows.
                None if after.is_empty() => done.push(chat.turn.end),
                None => {}
            }
            mask.resize(ids.len(), newline && !message.masked);
        }
    }
    Ok(Some((ids, mask)))
}

/// Returns the answer without the thinking part with which it begins, or the opening of this part, if the generation
/// prompt `opened` already ends with it.
fn without_opening<'a>(answer: &'a str, opened: &str) -> &'a str {
    let Some(at) = opened.rfind(THINK) else { return answer };
    let is_open = opened[at + THINK.len()..].trim().is_empty();
    let rest = answer.strip_prefix(&opened[at..]).or_else(|| answer.strip_prefix(THINK).filter(|_| is_open));
    rest.unwrap_or(answer)
}

/// Opening of a thinking part.
const THINK: &str = "<think>";

/// Converts [`Row::prompt`] to token ids, followed by the opening of the assistant's turn. The system prompt is the
/// row's, or the template's default.
pub fn prompt(row: &Row, chat: &Chat, processor: Option<&Processor>) -> Result<EncodedPrompt> {
    let images = media(row, processor)?;
    Ok(EncodedPrompt { ids: prompt_tokens(row, chat, &grids(&images))?, images })
}

/// Returns the tokens of [`prompt`] for a row whose images have these grids.
pub fn prompt_tokens(row: &Row, chat: &Chat, grids: &[Grid]) -> Result<Vec<u32>> {
    let ids = chat.encode_prompt(row.prompt()).map_err(at(row))?;
    Ok(chat.expand(&ids, grids).map_err(at(row))?.into_iter().map(|(id, _)| id).collect())
}

/// Returns the processor of images for a row. Errors if the row has an image and the model has no vision tower.
pub fn for_images<'a>(row: &Row, processor: Option<&'a Processor>) -> Result<Option<&'a Processor>> {
    match (row.images.is_empty(), processor) {
        (true, _) => Ok(None),
        (false, Some(processor)) => Ok(Some(processor)),
        (false, None) => Err(Error::input(&row.place, "an image or video", "text only: the model has no vision tower")),
    }
}

/// Decodes and resizes the images and videos of a row. Errors name the row and the image.
pub fn media(row: &Row, processor: Option<&Processor>) -> Result<Vec<Arc<ImageInput>>> {
    let Some(processor) = for_images(row, processor)? else { return Ok(Vec::new()) };
    let decode = |image: &ImageSource, first: &mut Option<[u32; 2]>| {
        let input = image.decode_then(&row.place, processor.decoding(), |_, pixels| {
            same_size(first, [pixels.width, pixels.height]).and_then(|()| processor.image(&pixels))
        })?;
        input.map_err(|e| e.within(&image.place(&row.place)))
    };
    let medium = |medium: Media<'_>| match medium {
        Media::Image(image) => decode(image, &mut None).map(Arc::new),
        Media::Video { frames, fps } => {
            let mut first = None;
            let frames = frames.iter().map(|frame| decode(frame, &mut first)).collect::<Result<Vec<_>>>()?;
            processor.video(&frames, fps).map(Arc::new).map_err(at(row))
        }
    };
    row.media().into_iter().map(medium).collect()
}

/// Returns an error if the width and height of a frame differ from `first`. The first call sets `first`.
pub fn same_size(first: &mut Option<[u32; 2]>, size: [u32; 2]) -> Result<()> {
    let [width, height] = *first.get_or_insert(size);
    if size == [width, height] {
        return Ok(());
    }
    let expected = format!("{width} x {height}, the size of the video's first frame");
    Err(Error::input("frame", format!("{} x {} pixels", size[0], size[1]), expected))
}

/// Adds the row to an error that does not name it.
fn at(row: &Row) -> impl Fn(Error) -> Error {
    let place = row.place.clone();
    move |error| error.within(&place)
}

#[cfg(test)]
mod tests {
    use super::without_opening;

    #[test]
    fn a_think_that_the_generation_prompt_opened_is_not_written_twice() {
        let answer = "<think>\nTwo.\n</think>\n2";
        assert_eq!(without_opening(answer, "<|im_start|>assistant\n<think>\n"), "Two.\n</think>\n2");
        assert_eq!(without_opening(answer, "<|im_start|>assistant\n<think>"), "\nTwo.\n</think>\n2");
        assert_eq!(without_opening(answer, "<|im_start|>assistant\n"), answer);
        assert_eq!(without_opening(answer, "<think>\n\n</think>\n\n"), answer);
        assert_eq!(without_opening("2", "<think>\n"), "2");
        assert_eq!(without_opening("<think>\n\n</think>\n\n2", "<think>\n\n</think>\n\n"), "2");
    }
}
