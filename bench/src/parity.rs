//! Checks the sampler against the trainer at a model's real widths: rollouts with and without drafts must have the same
//! tokens, and the trainer's log-probs of these tokens must be bitwise identical to the sampler's.

use super::case::{Case, JobSize, label};
use super::jobs::{Amount, flops, image, random_model, requests, sampled};
use super::model_shape::ModelShape;
use omr_base::error::{Error, Result};
use omr_model::engine::{CompletionOutput, EngineCoreRequest};
use omr_model::nn::{LayerPolicy, Model, Policy};
use omr_runtime::device::Device;
use omr_runtime::tensor::DType;
use omr_train::training::step::{self, Sequence};

/// Samples rollouts of prompts with an image twice, and runs a training pass over them. Returns an error if a token or
/// a bit differs.
pub fn parity(dev: &mut Device, dtype: DType, shape: ModelShape, amount: Amount) -> Result<Case> {
    let config = shape.config()?;
    let model = random_model(dev, config.clone(), dtype)?;
    let requests = requests(&config, amount)?;
    let Amount { rows, prompt_len, rollouts, new_tokens, .. } = amount;
    let written = rows * rollouts * new_tokens;
    let tokens = rows * rollouts * (prompt_len + new_tokens);
    Ok(Case {
        name: "parity",
        shape: format!("{}, {rows} x {rollouts} x {new_tokens}", shape.name()),
        dtype: label(dtype),
        flops: flops(&model, tokens, rows, false),
        bytes: 0.0,
        job: Some(JobSize { parameters: model.layout.num_weights(), tokens: written, pages: None }),
        run: Box::new(move |dev| {
            let plain = sampled(dev, &model, &requests, amount, &[], &[])?;
            let drafted = sampled(dev, &model, &requests, amount, &plain, &[])?;
            let same = plain.iter().zip(&drafted).filter(|(a, b)| a == b).count();
            if same < plain.len() {
                let differ = plain.len() - same;
                return Err(Error::Failed(format!("parity: {differ} of {} rollouts differ with drafts", plain.len())));
            }
            same_bits(&plain, &trained(dev, &model, &requests, &plain)?)
        }),
    })
}

/// Returns an error if the trainer's log-probs differ from the sampler's.
fn same_bits(outputs: &[CompletionOutput], trained: &[f32]) -> Result<()> {
    let pairs = outputs.iter().flat_map(|output| &output.logprobs).zip(trained);
    let off: Vec<f32> = pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).map(|(a, b)| (a - b).abs()).collect();
    let Some(most) = off.iter().copied().reduce(f32::max) else { return Ok(()) };
    let (differ, of) = (off.len(), trained.len());
    let text =
        format!("parity: {differ} of {of} log-probs of the sampler differ from the trainer's, at most by {most:e}");
    Err(Error::Failed(text))
}

/// Computes the trainer's log-probs of the sampled tokens, rollout after rollout.
fn trained(
    dev: &mut Device,
    model: &Model,
    requests: &[EngineCoreRequest],
    outputs: &[CompletionOutput],
) -> Result<Vec<f32>> {
    let row = |output: &CompletionOutput| {
        let prompt = &requests[output.request].prompt.token_ids;
        let ids = [&prompt[..], &output.token_ids].concat();
        let mask: Vec<bool> = (0..ids.len()).map(|t| t >= prompt.len()).collect();
        (ids, mask)
    };
    let rows: Vec<(Vec<u32>, Vec<bool>)> = outputs.iter().map(row).collect();
    let images: Vec<_> = (0..requests.len()).map(|r| [image(r)]).collect();
    let mut sequences = Vec::with_capacity(rows.len());
    for (output, (ids, mask)) in outputs.iter().zip(&rows) {
        sequences.push(Sequence {
            input_ids: ids,
            images: &images[output.request],
            prompt_len: requests[output.request].prompt.token_ids.len(),
            loss_mask: mask,
            same_prompt: false,
        });
    }
    let forward = step::forward(dev, model, &sequences, Policy::default(), LayerPolicy::Inputs, false)?;
    Ok(forward.read(dev)?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_runtime::device::{Isa, Kind, Plan};

    #[test]
    fn the_sampler_is_the_trainer_and_one_bit_is_noticed() {
        let mut dev = Device::cpu(&Plan::uniform(256 << 20), 2, Isa::detect()).unwrap();
        let amount = Amount::of(Kind::Emu);
        let mut case = parity(&mut dev, DType::F32, ModelShape::Digits, amount).unwrap();
        (case.run)(&mut dev).unwrap();
        let config = ModelShape::Digits.config().unwrap();
        let model = random_model(&mut dev, config.clone(), DType::F32).unwrap();
        let requests = requests(&config, amount).unwrap();
        let outputs = sampled(&mut dev, &model, &requests, amount, &[], &[]).unwrap();
        let mut trained = trained(&mut dev, &model, &requests, &outputs).unwrap();
        trained[3] = f32::from_bits(trained[3].to_bits() ^ 1);
        let error = same_bits(&outputs, &trained).unwrap_err().to_string();
        assert!(error.contains("1 of 16 log-probs"), "{error}");
    }
}
