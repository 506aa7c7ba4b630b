//! Compares the log-probs that another program recorded with those of a forward pass, and names the likely fault.
//!
//! A fault of the tokens (images missing or twice, another grid, another template) is found by comparing the recorded
//! prompt with the prompt that omr makes of the same row. Otherwise the forward pass is repeated as if it had the fault:
//! without the images, with one-dimensional positions, at other temperatures. A fault is named if its log-probs are at
//! least four times as close to the recorded ones.

use serde_json::Value;

use omr_base::error::{Error, Result};
use omr_data::image::MediaFormat;
use omr_model::engine::Prompt;
use omr_model::llm::Line;
use omr_model::nn::{Inputs, Policy};

/// Names of a prompt's token ids: of omr and vLLM, TRL, verl.
const PROMPT_IDS: [&str; 3] = ["prompt_token_ids", "prompt_ids", "prompts"];
/// Names of recorded log-probs: of omr and vLLM, TRL, verl.
const LOGPROBS: [&str; 5] =
    ["logprobs", "sampling_per_token_logps", "old_per_token_logps", "rollout_log_probs", "old_log_probs"];
/// Name of the grids of the images.
const GRIDS: &str = "image_grid_thw";
/// Number of rows for which faults are tried.
const TRIED: usize = 16;
/// Factor by which a fault must come closer to the recorded log-probs.
const CLOSER: f64 = 4.0;

/// Returns true if a line has log-probs under the names of another program, which samples from all ids.
pub fn is_foreign(line: &Line) -> bool {
    LOGPROBS[1..].iter().any(|name| line.contains_key(*name))
}

/// Log-probs of a response that another program recorded, with the prompt and the grids if it recorded them.
pub struct Recorded {
    prompt_ids: Option<Vec<u32>>,
    grids: Option<Vec<[u32; 3]>>,
    logprobs: Vec<f32>,
}

impl Recorded {
    /// Reads the recorded fields of a line, or returns `None` if it has no log-probs. `tokens` is the number of tokens of
    /// the response.
    pub fn of(line: &Line, tokens: usize, place: &str) -> Result<Option<Recorded>> {
        let is_set = |name: &&&str| line.get(**name).is_some_and(|value| !value.is_null());
        let mut names = LOGPROBS.iter().filter(is_set);
        let Some(name) = names.next() else { return Ok(None) };
        if let Some(other) = names.next() {
            return Err(Error::input(place, format!("log-probs in {name} and in {other}"), "log-probs under one name"));
        }
        let logprobs: Vec<f32> = read(place, name, &line[*name], "a list of numbers")?;
        if logprobs.len() != tokens {
            let expected = format!("{tokens}, the tokens of the response");
            return Err(Error::input(format!("{place}: {name}"), format!("{} numbers", logprobs.len()), expected));
        }
        // A sum of probabilities in f32 may exceed 1 by a rounding error.
        if let Some(logprob) = logprobs.iter().find(|logprob| **logprob > 1e-3) {
            return Err(Error::input(
                format!("{place}: {name}"),
                logprob.to_string(),
                "log-probs, which are at most 0",
            ));
        }
        let ids = PROMPT_IDS.iter().find_map(|name| Some((*name, line.get(*name)?)));
        let prompt_ids = ids.map(|(name, value)| read(place, name, value, "a list of token ids")).transpose()?;
        let grids = line.get(GRIDS).map(|value| read(place, GRIDS, value, "a list of [time, height, width]"));
        Ok(Some(Recorded { prompt_ids, grids: grids.transpose()?, logprobs }))
    }

    /// Returns the fault that the recorded tokens and grids show, compared with the prompt that omr makes of the row.
    fn fault_of_tokens(&self, own: &Prompt, media: Option<MediaFormat>) -> Option<&'static str> {
        let is_media = |id: &&u32| media.is_some_and(|media| media.ids.all().contains(id));
        let places = |ids: &[u32]| ids.iter().filter(|id| media.is_some_and(|m| m.is_placeholder(**id))).count();
        if let Some(ids) = &self.prompt_ids {
            let texts = [&ids[..], &own.token_ids[..]].map(|ids| ids.iter().filter(|id| !is_media(id)));
            let [recorded, needed] = [ids, &own.token_ids[..]].map(places);
            match recorded {
                0 if needed > 0 => return Some(MISSING),
                _ if needed > 0 && recorded == 2 * needed => return Some(DOUBLED),
                _ if recorded != needed => return Some(GRID),
                _ => {}
            }
            let [recorded, needed] = texts;
            if recorded.ne(needed) {
                return Some(TEMPLATE);
            }
        }
        let differs = |grids: &Vec<[u32; 3]>| grids.iter().ne(own.pixels.iter().map(|image| &image.grid_thw));
        self.grids.as_ref().filter(|grids| differs(grids)).map(|_| GRID)
    }
}

fn read<T: serde::de::DeserializeOwned>(place: &str, name: &str, value: &Value, expected: &str) -> Result<T> {
    serde_json::from_value(value.clone())
        .map_err(|_| Error::input(format!("{place}: {name}"), value.to_string(), expected.to_owned()))
}

const MISSING: &str = "images missing: the model that recorded the log-probs did not see the images";
const DOUBLED: &str = "images doubled: each image has its placeholders twice";
const GRID: &str =
    "another grid: the images were resized to other sizes; compare min_pixels, max_pixels and the processor";
const TEMPLATE: &str = "another template: the prompt's text tokens are not those of this model's chat template";
const POSITIONS: &str = "one-dimensional positions: the image tokens count one by one, without height and width";
const NO_FAULT: &str = "no known fault comes closer to the recorded log-probs";

/// A row whose forward pass is repeated.
struct Tried {
    index: usize,
    has_images: bool,
    logprobs: Vec<f32>,
    /// Sum of the absolute differences without a fault.
    sum: f64,
}

/// Computes the log-probs of the row with this index under a policy, after a change of the forward pass.
pub type Recompute<'a> = &'a mut dyn FnMut(usize, Policy, &Change) -> Result<Vec<f32>>;

/// The differences between recorded log-probs and those of forward passes.
#[derive(Default)]
pub struct Comparison {
    /// Rows without a fault of the tokens, whose forward passes are repeated.
    tried: Vec<Tried>,
    /// Number of rows with each fault of the tokens.
    faults: Vec<(&'static str, usize)>,
    rows: usize,
    tokens: usize,
    sum: f64,
    largest: f64,
}

impl Comparison {
    /// Adds the row `index` with the log-probs `found` by a forward pass. Returns the largest difference.
    pub fn add(
        &mut self,
        index: usize,
        recorded: Recorded,
        found: &[f32],
        prompt: &Prompt,
        media: Option<MediaFormat>,
    ) -> f64 {
        let (sum, largest) = differences(&recorded.logprobs, found);
        (self.rows, self.tokens) = (self.rows + 1, self.tokens + found.len());
        (self.sum, self.largest) = (self.sum + sum, self.largest.max(largest));
        match recorded.fault_of_tokens(prompt, media) {
            Some(fault) => match self.faults.iter_mut().find(|(name, _)| *name == fault) {
                Some((_, rows)) => *rows += 1,
                None => self.faults.push((fault, 1)),
            },
            None if self.tried.len() < TRIED => {
                let has_images = !prompt.pixels.is_empty();
                self.tried.push(Tried { index, has_images, logprobs: recorded.logprobs, sum });
            }
            None => {}
        }
        largest
    }

    /// Returns lines for the user: the differences, and the likely fault. Empty if no row has recorded log-probs.
    pub fn lines(self, policy: Policy, recompute: Recompute<'_>) -> Result<Vec<String>> {
        if self.rows == 0 {
            return Ok(Vec::new());
        }
        let mean = self.sum / self.tokens.max(1) as f64;
        let (rows, largest) = (self.rows, self.largest);
        let line = format!("{rows} rows with recorded log-probs: largest difference {largest:.1e}, mean {mean:.1e}");
        let mut lines = vec![line];
        if !self.faults.is_empty() {
            let line = |(fault, rows): &(&str, usize)| format!("likely fault in {rows} of {} rows: {fault}", self.rows);
            lines.extend(self.faults.iter().map(line));
            return Ok(lines);
        }
        let mut total = |policy: Policy, change: &Change| -> Result<f64> {
            let mut sum = 0.0;
            for row in &self.tried {
                sum += differences(&row.logprobs, &recompute(row.index, policy, change)?).0;
            }
            Ok(sum)
        };
        let own: f64 = self.tried.iter().map(|row| row.sum).sum();
        if own == 0.0 {
            lines.push(NO_FAULT.to_owned());
            return Ok(lines);
        }
        let mut best = (own / CLOSER, None);
        let mut offer = |sum: f64, fault: String| {
            if sum < best.0 {
                best = (sum, Some(fault));
            }
        };
        if self.tried.iter().any(|row| row.has_images) {
            offer(total(policy, &Change { images: false, ..Change::NONE })?, MISSING.to_owned());
            offer(total(policy, &Change { inputs: text_positions, ..Change::NONE })?, POSITIONS.to_owned());
        }
        for tenth in 1..=20 {
            let temperature = tenth as f32 / 10.0;
            if (temperature - policy.temperature).abs() > 0.05 {
                let set = policy.temperature;
                let fault = format!("another temperature: the log-probs fit temperature {temperature}, and not {set}");
                offer(total(Policy { temperature, ..policy }, &Change::NONE)?, fault);
            }
        }
        lines.push(best.1.map_or(NO_FAULT.to_owned(), |fault| format!("likely fault: {fault}")));
        Ok(lines)
    }
}

/// A change of the forward pass.
#[derive(Clone, Copy)]
pub struct Change {
    /// False to leave the embeddings of the placeholders in place of the images.
    pub images: bool,
    /// Changes the packed batch.
    pub inputs: fn(&mut Inputs),
}

impl Change {
    /// No change.
    pub const NONE: Change = Change { images: true, inputs: |_| () };
}

/// Gives each token of the only sequence its index as position on all axes.
fn text_positions(inputs: &mut Inputs) {
    let len = inputs.len() as i32;
    inputs.position_ids = std::array::from_fn(|_| (0..len).collect());
}

/// Returns the sum of the absolute differences and the largest one.
fn differences(recorded: &[f32], found: &[f32]) -> (f64, f64) {
    let differences = recorded.iter().zip(found).map(|(a, b)| f64::from((a - b).abs()));
    differences.fold((0.0, 0.0), |(sum, most), difference| (sum + difference, most.max(difference)))
}
