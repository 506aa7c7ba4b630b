//! Changes of a forward pass that imitate faults of other programs: images that are missing, and other positions.

use std::sync::Arc;

use omr_data::image::{ImageInput, MediaFormat};
use omr_model::engine::Prompt;
use omr_model::nn::Inputs;

/// Number of images of a row for which faults are tried one by one.
const ONE_BY_ONE: usize = 4;

/// Changes the inputs of a forward pass.
pub type ChangeInputs = Box<dyn Fn(&mut Inputs)>;

/// A change of the forward pass of a row.
#[derive(Default)]
pub struct Change {
    /// Replaces the tokens and images of the prompt.
    pub prompt: Option<(Vec<u32>, Vec<Arc<ImageInput>>)>,
    /// Changes the batch, which has the row as its only sequence.
    pub inputs: Option<ChangeInputs>,
}

/// Returns the changes of a row's images, each with the name of the fault that it imitates.
pub fn changes(prompt: &Prompt, media: Option<MediaFormat>) -> Vec<(String, Change)> {
    let count = prompt.pixels.len();
    let Some(media) = media.filter(|_| count > 0) else { return Vec::new() };
    let mut out: Vec<(String, Change)> = Vec::new();
    let single = (0..count).filter(|_| count > 1).take(ONE_BY_ONE).map(|k| vec![k]);
    for which in std::iter::once((0..count).collect::<Vec<_>>()).chain(single) {
        let [images, of, them] = match &which[..] {
            [k] if count > 1 => {
                [format!("image {} of {count}", k + 1), format!(" of image {} of {count}", k + 1), "it".to_owned()]
            }
            _ => ["images".to_owned(), String::new(), "them".to_owned()],
        };
        let missing = format!("{images} missing: the model that recorded the log-probs did not see {them}");
        let line =
            format!("one-dimensional positions{of}: the image tokens count one by one, without height and width");
        let swapped = format!("wrong positions{of}: height and width are exchanged");
        out.push((missing.clone(), Change { prompt: Some(without(prompt, media, &which)), inputs: None }));
        let mut offer = |name: &str, change: fn(&mut Inputs, &[usize])| {
            let which = which.clone();
            out.push((
                name.to_owned(),
                Change { prompt: None, inputs: Some(Box::new(move |inputs| change(inputs, &which))) },
            ));
        };
        offer(&missing, blind);
        offer(&missing, |inputs, which| {
            one_by_one(inputs, which, true);
            blind(inputs, which);
        });
        offer(&line, |inputs, which| one_by_one(inputs, which, false));
        offer(&line, |inputs, which| one_by_one(inputs, which, true));
        offer(&swapped, exchanged);
    }
    out
}

/// Returns the tokens and images of a prompt without these images.
fn without(prompt: &Prompt, media: MediaFormat, which: &[usize]) -> (Vec<u32>, Vec<Arc<ImageInput>>) {
    let (mut ids, mut pixels) = (prompt.token_ids.clone(), prompt.pixels.clone());
    for &k in which.iter().rev() {
        let (mut start, mut end) = (prompt.images[k].start, prompt.images[k].start + prompt.images[k].rows);
        start -= usize::from(start > 0 && ids[start - 1] == media.ids.start);
        end += usize::from(ids.get(end) == Some(&media.ids.end));
        ids.drain(start..end);
        pixels.remove(k);
    }
    (ids, pixels)
}

/// Leaves the embeddings of the placeholders in place of these images.
fn blind(inputs: &mut Inputs, which: &[usize]) {
    which.iter().rev().for_each(|&k| drop(inputs.images.remove(k)));
}

/// Counts the positions of the tokens of these images one by one, and, if `shifts`, continues from there.
fn one_by_one(inputs: &mut Inputs, which: &[usize], shifts: bool) {
    for &k in which {
        let (start, count) = (inputs.images[k].places[0] as usize, inputs.images[k].places.len());
        let first = inputs.position_ids[0][start];
        let next = inputs.position_ids[0][start + count];
        let shift = if shifts { first + count as i32 - next } else { 0 };
        for axis in &mut inputs.position_ids {
            axis[start..start + count].iter_mut().zip(first..).for_each(|(position, new)| *position = new);
            axis[start + count..].iter_mut().for_each(|position| *position += shift);
        }
    }
}

/// Exchanges the positions by height with those by width.
fn exchanged(inputs: &mut Inputs, which: &[usize]) {
    let [_, height, width] = &mut inputs.position_ids;
    for place in which.iter().flat_map(|&k| &inputs.images[k].places) {
        std::mem::swap(&mut height[*place as usize], &mut width[*place as usize]);
    }
}
