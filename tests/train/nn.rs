//! Compares the gradients of a model with finite differences.

use omr_base::philox::{Purpose, Random};
use omr_model::nn::{Grads, LayerPolicy, Model, Policy};
use omr_model_tests::nn::qwen3_vl::qwen3_vl;
use omr_model_tests::nn::{config, device, image, inputs, pass, seed};
use omr_runtime::device::{Device, Region};
use omr_runtime::tensor::DType;
use omr_train::training::step::{self, Sequence};

/// Does the same as [`pass`] for three responses that share a prompt with images.
fn shared_pass(dev: &mut Device, model: &Model, grads: &mut Grads) -> f64 {
    let mut random = Random::new(seed(), Purpose::Test, 4);
    let images = [([1, 4, 6], 1), ([2, 2, 4], 4)].map(|(grid, frames)| image(&model.config, &mut random, grid, frames));
    let mut prompt = vec![3, 82];
    prompt.resize(8, 80);
    match model.config.media.as_ref().unwrap().tokens_per_second {
        Some(_) => prompt.extend([83, 82, 81, 81, 81, 81, 83, 5]),
        None => prompt.extend([83, 82, 81, 81, 83, 7, 82, 81, 81, 83, 5]),
    }
    let mut text = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(80) as u32).collect() };
    let whole = [1, 5, 3].map(|n| [prompt.clone(), text(n)].concat());
    let masks = whole.each_ref().map(|ids| (0..ids.len()).map(|at| at >= prompt.len()).collect::<Vec<bool>>());
    let sequence = |at: usize| Sequence {
        input_ids: &whole[at],
        images: &images,
        prompt_len: prompt.len(),
        loss_mask: &masks[at],
        same_prompt: at > 0,
    };
    let policy = Policy { temperature: 0.8, ..Policy::default() };
    let forward = step::forward(dev, model, &[0, 1, 2].map(sequence), policy, LayerPolicy::Inputs, true).unwrap();
    let (log_prob, entropy) = (forward.log_prob, forward.entropy.unwrap());
    let values: [Vec<f32>; 2] = [log_prob, entropy].map(|tensor| dev.read(tensor).unwrap());
    let weights: Vec<f32> = (0..log_prob.len()).map(|i| (i % 5) as f32 / 4.0 - 0.3).collect();
    let dlog_prob = forward.upload(dev, &weights).unwrap();
    let dentropy = forward.upload(dev, &vec![0.1f32; weights.len()]).unwrap();
    forward.backward(dev, grads, dlog_prob, Some(dentropy)).unwrap();
    let terms = values[0].iter().zip(&weights).map(|(&v, &w)| f64::from(v) * f64::from(w));
    terms.sum::<f64>() + values[1].iter().map(|&v| 0.1 * f64::from(v)).sum::<f64>()
}

#[test]
fn gradients_are_finite_differences() {
    let [untied, tied] = [false, true].map(config);
    for (config, shared) in
        [(&untied, false), (&tied, false), (&untied, true), (&qwen3_vl(), false), (&qwen3_vl(), true)]
    {
        let mut dev = device(2);
        let model = Model::init(&mut dev, config.clone(), DType::F32, seed()).unwrap();
        let inputs = inputs(&model.config, true);
        let pass = |dev: &mut Device, grads: &mut Grads| match shared {
            false => pass(dev, &model, &inputs, LayerPolicy::All, grads),
            true => shared_pass(dev, &model, grads),
        };
        let mark = dev.mark(Region::Overlay);
        let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
        pass(&mut dev, &mut grads);
        let mut scratch = Grads::new(&mut dev, &model.layout).unwrap();
        for (id, param) in model.layout.params.iter().enumerate() {
            let grad: Vec<f32> = dev.read(grads.get(id).unwrap()).unwrap();
            let norm = grad.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-4, "{} has no gradient to speak of: {norm:e}", param.name());
            let weights: Vec<f32> = dev.read(param.tensor).unwrap();
            // Along the direction of the gradient, the slope is the gradient's norm. Steps of 4e-3 leave a third-order
            // error below the tolerance, and f32 noise of about 1e-6 / 8e-3 in the slope.
            let mut at = |step: f64| {
                let moved: Vec<f32> = weights
                    .iter()
                    .zip(&grad)
                    .map(|(&w, &g)| (f64::from(w) + step * f64::from(g) / norm) as f32)
                    .collect();
                dev.write(param.tensor, &moved).unwrap();
                pass(&mut dev, &mut scratch)
            };
            let step = 4e-3;
            let slope = (at(step) - at(-step)) / (2.0 * step);
            let error = (slope - norm).abs();
            assert!(error < 0.01 * norm + 1e-3, "{}: slope {slope}, gradient {norm}", param.name());
            dev.write(param.tensor, &weights).unwrap();
        }
        dev.release(mark);
    }
}
