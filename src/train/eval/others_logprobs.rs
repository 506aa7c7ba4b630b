//! Compares the log-probs that another program recorded with those of a forward pass, and names the likely fault.
//!
//! A fault of the tokens (images missing or twice, another grid, another template) is found by comparing the recorded
//! prompt with the prompt that omr makes of the same row. Otherwise `verdict` decides whether the log-probs agree. The
//! forward pass of rows that do not is repeated as if it had a fault: without the images or one of them, with other
//! positions of an image, at other temperatures. A fault is named if its log-probs are at least four times as close to the
//! recorded ones, or agree with them. A small fault may look like the rounding of bf16: it is named if its log-probs agree
//! within the rounding of float32.

use std::collections::BTreeMap;

use serde_json::Value;

use omr_base::error::{Error, Result};
use omr_data::image::MediaFormat;
use omr_model::engine::Prompt;
use omr_model::llm::Line;
use omr_model::nn::Policy;

use super::changes::{Change, changes};
use super::verdict::{self, Row, Verdict};

/// Names of a prompt's token ids: of omr and vLLM, TRL, verl.
const PROMPT_IDS: [&str; 3] = ["prompt_token_ids", "prompt_ids", "prompts"];
/// Names of recorded log-probs: of omr and vLLM, TRL, verl.
const LOGPROBS: [&str; 5] =
    ["logprobs", "sampling_per_token_logps", "old_per_token_logps", "rollout_log_probs", "old_log_probs"];
/// Name of the grids of the images.
const GRIDS: &str = "image_grid_thw";
/// Number of rows for which faults are tried.
const TRIED: usize = 16;
/// Number of rows for which faults are tried if the log-probs agree within the rounding of bf16.
const PROBED: usize = 2;
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
    /// The log-probs.
    pub logprobs: Vec<f32>,
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
    pub fn fault_of_tokens(&self, own: &Prompt, media: Option<MediaFormat>) -> Option<&'static str> {
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

const MISSING: &str = "images missing: the model that recorded the log-probs did not see them";
const DOUBLED: &str = "images doubled: each image has its placeholders twice";
const GRID: &str =
    "another grid: the images were resized to other sizes; compare min_pixels, max_pixels and the processor";
const TEMPLATE: &str = "another template: the prompt's text tokens are not those of this model's chat template";

/// Computes the log-probs of the row with this index under a policy, after a change of the forward pass.
pub type Recompute<'a> = &'a mut dyn FnMut(usize, Policy, &Change) -> Result<Vec<f32>>;

/// A row with recorded log-probs.
pub struct Compared<'a> {
    /// Index in the file.
    pub index: usize,
    /// Prompt that omr makes of the row.
    pub prompt: &'a Prompt,
    /// Fault that the recorded tokens show.
    pub fault: Option<&'static str>,
    /// Log-probs that the repeated forward passes compute without a change.
    pub own: &'a [f32],
    /// The log-probs to compare.
    pub row: Row,
}

/// Result of the comparison of a file.
pub struct Found {
    /// The differences and the verdict in words.
    pub verdict: String,
    /// True if the log-probs agree.
    pub agrees: bool,
    /// Faults by index of the row.
    pub faults: BTreeMap<usize, String>,
}

/// Compares the rows of a file, whose images have this format.
pub fn compare(
    compared: &[Compared<'_>],
    policy: Policy,
    media: Option<MediaFormat>,
    recompute: Recompute<'_>,
) -> Result<Found> {
    let all: Vec<&Row> = compared.iter().map(|of| &of.row).collect();
    let (verdict, mut far) = verdict::judge(&all, &all);
    let of_tokens = compared.iter().filter_map(|of| Some((of.index, of.fault?.to_owned())));
    let mut faults: BTreeMap<usize, String> = of_tokens.collect();
    let is_rounded = verdict == Verdict::Bf16;
    if is_rounded {
        far = (0..all.len()).collect();
    }
    far.retain(|&i| compared[i].fault.is_none());
    far.sort_by(|&a, &b| all[b].sum().total_cmp(&all[a].sum()));
    let mut rest = far.split_off(far.len().min(TRIED));
    let mut tried: Vec<&Compared<'_>> = far.iter().map(|&i| &compared[i]).collect();
    let mut repeat = |of: &Compared<'_>, policy: Policy, change: &Change| -> Result<Row> {
        let found = recompute(of.index, policy, change)?;
        let exact = of.row.exact.iter().zip(found).zip(of.own).map(|((exact, found), own)| exact + (found - own));
        Ok(Row { exact: exact.collect(), ..of.row.clone() })
    };
    let fits = |before: &[&Row], after: &[&Row]| {
        let [old, new] = [before, after].map(|rows| rows.iter().map(|row| row.sum()).sum::<f64>());
        let judged = |rows: &[&Row]| verdict::judge(rows, &all).0;
        if is_rounded {
            return judged(before) != Verdict::Float32 && judged(after) == Verdict::Float32;
        }
        new * CLOSER <= old || new < 0.9 * old && !judged(before).agrees() && judged(after).agrees()
    };
    for (i, of) in tried.iter().enumerate() {
        if is_rounded && i == PROBED && faults.is_empty() {
            rest.splice(0..0, far.drain(PROBED..));
            tried.truncate(PROBED);
            break;
        }
        let mut best = of.row.sum();
        for (name, change) in changes(of.prompt, media) {
            let after = repeat(of, policy, &change)?;
            if after.sum() < best && fits(&[&of.row], &[&after]) {
                best = after.sum();
                faults.insert(of.index, name);
            }
        }
    }
    tried.retain(|of| !faults.contains_key(&of.index));
    let rows: Vec<&Row> = tried.iter().map(|of| &of.row).collect();
    let (mut best, mut fitted) = (rows.iter().map(|row| row.sum()).sum::<f64>(), Vec::new());
    let mut temperature = policy.temperature;
    for step in [0.5, 0.25, 0.12, 0.06, 0.03, 0.02, 0.01] {
        for next in [temperature - step, temperature + step].into_iter().filter(|next| *next > 0.05) {
            let policy = Policy { temperature: next, ..policy };
            let after = tried.iter().map(|of| repeat(of, policy, &Change::default())).collect::<Result<Vec<Row>>>()?;
            let sum = after.iter().map(Row::sum).sum::<f64>();
            if sum < best {
                (best, temperature, fitted) = (sum, next, after);
            }
        }
    }
    if !fitted.is_empty() && fits(&rows, &fitted.iter().collect::<Vec<_>>()) {
        let (found, set) = ((temperature * 100.0).round() / 100.0, policy.temperature);
        let fault = format!("another temperature: the log-probs fit temperature {found}, and not {set}");
        let rest = rest.drain(..).map(|i| &compared[i]);
        tried.into_iter().chain(rest).for_each(|of| drop(faults.insert(of.index, fault.clone())));
    }
    if is_rounded {
        // The other rows agree.
        far.clear();
        rest.clear();
    } else if faults.is_empty() {
        far.append(&mut rest);
    }
    let agrees = verdict.agrees() && faults.is_empty();
    let shown = |[median, most, rare, k3]: [f64; 4]| {
        format!("median {median:.1e}, 99 % {most:.1e}, 99.9 % {rare:.1e}, mean k3 {:.1e}", k3 * k3 / 2.0)
    };
    let [found, rounding] = [Row::differences, Row::rounding].map(|of| shown(verdict::measures(&all, of)));
    let tokens: usize = all.iter().map(|row| row.ids.len()).sum();
    let untried = if rest.is_empty() { String::new() } else { format!("; {} more rows differ", rest.len()) };
    let what = in_words(compared, verdict, &far, &faults);
    let verdict = format!(
        "{} rows, {tokens} tokens: differences {found} (omr's bf16 from f32: {rounding})\nscore: the log-probs {what}{untried}",
        all.len()
    );
    Ok(Found { verdict, agrees, faults })
}

/// Returns the verdict in words, without the differences.
fn in_words(compared: &[Compared<'_>], verdict: Verdict, far: &[usize], faults: &BTreeMap<usize, String>) -> String {
    let rows = compared.len();
    let mut counts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    faults.iter().for_each(|(index, fault)| counts.entry(fault).or_default().push(index + 1));
    let likely = |(fault, of): (&&str, &Vec<usize>)| {
        format!("likely fault in {} of {rows} rows, first in row {}: {fault}", of.len(), of[0])
    };
    let mut parts: Vec<String> = counts.iter().map(likely).collect();
    let others = compared.iter().enumerate().filter(|(_, of)| !faults.contains_key(&of.index));
    let (unnamed, near): (Vec<_>, Vec<_>) = others.partition(|(i, _)| far.contains(i));
    let apart = |size: fn(&Prompt) -> isize| {
        let sizes = |rows: &[(usize, &Compared<'_>)]| rows.iter().map(|(_, of)| size(of.prompt)).collect::<Vec<_>>();
        !near.is_empty() && sizes(&near).iter().max() < sizes(&unnamed).iter().min()
    };
    let why = match verdict {
        Verdict::Float32 if parts.is_empty() => return "agree within the rounding of float32".to_owned(),
        Verdict::Bf16 if parts.is_empty() => {
            return "agree within the rounding of bf16; if the program computed in float32, they do not".to_owned();
        }
        Verdict::Systematic => "they are small and systematic, as of weights that are one step older",
        _ if apart(|prompt| prompt.pixels.len() as isize) => "the other rows have fewer images: images or positions?",
        _ if apart(|prompt| -(prompt.token_ids.len() as isize)) => "the other rows have longer prompts: padding?",
        _ => "another model, adapter or weights?",
    };
    if !unnamed.is_empty() {
        let count = unnamed.len();
        parts.push(format!("none of the known faults explains the differences in {count} of {rows} rows: {why}"));
    }
    format!("do not agree: {}", parts.join("; "))
}
