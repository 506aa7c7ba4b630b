//! Whole jobs: a training step and a round of rollouts, at the shapes and batches of `bench/peers`.

use std::sync::Arc;

use serde_json::json;

use super::ops::label;
use super::{Case, Job};
use crate::config::{LrSchedulerType, OptimConfig, OptimizerName};
use crate::device::Device;
use crate::engine::{Engine, EngineConfig, Prompt, Request};
use crate::error::Result;
use crate::image::ImageInput;
use crate::model::{Grads, Keep, Model, ModelConfig, Policy};
use crate::ops::sample::SamplingParams;
use crate::optim::Optimizer;
use crate::tensor::DType;
use crate::train::step::{self, Sequence};

/// Rows of a batch, and prompts of a round.
const ROWS: usize = 32;
/// Tokens of a training row.
const ROW_LEN: usize = 64;
const PROMPT_LEN: usize = 24;
const ROLLOUTS: usize = 8;
const NEW_TOKENS: usize = 24;
/// Patches of a picture of 56 x 28 pixels, and the tokens they make.
const PATCHES: usize = 8;
const IMAGE_TOKENS: usize = 2;

/// The models of `bench/peers/models.py`, and the released one.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Shape {
    /// The digits recipe's
    Digits,
    /// 22 million parameters
    #[value(name = "22m")]
    M22,
    /// Qwen2.5-VL-7B
    #[value(name = "7b")]
    B7,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Digits => "digits",
            Shape::M22 => "22m",
            Shape::B7 => "7b",
        }
    }

    fn config(self) -> Result<ModelConfig> {
        let ([hidden, layers, intermediate, heads, kv], [width, depth, inner, vision_heads], vocabulary) = match self {
            Shape::Digits => ([96, 3, 256, 3, 1], [64, 2, 128, 4], 512),
            Shape::M22 => ([384, 8, 1536, 6, 2], [192, 4, 768, 4], 4096),
            Shape::B7 => ([3584, 28, 18944, 28, 4], [1280, 32, 3420, 16], 152_064),
        };
        let released = matches!(self, Shape::B7);
        let whole_frames: Vec<usize> = (0..depth).filter(|block| !released || block % 8 == 7).collect();
        let half: usize = hidden / heads / 2;
        let section = [half / 4, half * 3 / 8, half * 3 / 8];
        let config = json!({
            "model_type": "qwen2_5_vl", "hidden_act": "silu", "hidden_size": hidden, "num_hidden_layers": layers,
            "intermediate_size": intermediate, "num_attention_heads": heads, "num_key_value_heads": kv,
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": section},
            "vocab_size": vocabulary, "tie_word_embeddings": !released, "max_position_embeddings": 4096,
            "image_token_id": vocabulary - 2, "video_token_id": vocabulary - 1, "vision_start_token_id": vocabulary - 3,
            "vision_end_token_id": vocabulary - 4, "initializer_range": 0.05,
            "vision_config": {"model_type": "qwen2_5_vl", "hidden_act": "silu", "depth": depth, "hidden_size": width,
                "intermediate_size": inner, "num_heads": vision_heads, "out_hidden_size": hidden, "patch_size": 14,
                "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "in_chans": 3,
                "fullatt_block_indexes": whole_frames, "tokens_per_second": 2},
        });
        ModelConfig::from_json(&config, self.name())
    }
}

/// Row `r`: text around a picture near its start.
fn row(config: &ModelConfig, r: usize, len: usize) -> Vec<u32> {
    let vocabulary = config.vocab_size as u32;
    let mut ids: Vec<u32> = (0..len).map(|t| ((r * len + t) * 7919) as u32 % (vocabulary - 8)).collect();
    ids[4] = vocabulary - 3;
    ids[5..5 + IMAGE_TOKENS].fill(config.image_token_id);
    ids[5 + IMAGE_TOKENS] = vocabulary - 4;
    ids
}

fn picture(r: usize) -> Arc<ImageInput> {
    let pixels = (0..56 * 28 * 3).map(|i| ((i * 31 + r * 17) % 251) as u8).collect();
    Arc::new(ImageInput { grid_thw: [1, 2, 4], frames: 1, pixels })
}

/// Multiplications and additions a token of each tower costs in a forward pass, attention left out: twice its weights.
fn flops(model: &Model, tokens: usize, pictures: usize) -> f64 {
    // A tied token table multiplies as the output matrix; one of its own is only read.
    let read = if model.config.tie_word_embeddings { "" } else { "model.embed_tokens.weight" };
    let weights = |vision: bool| {
        let pieces = model.layout.pieces().map(|(_, _, piece)| piece).filter(|piece| piece.name != read);
        pieces.filter(|piece| piece.name.starts_with("visual.") == vision).map(|piece| piece.len()).sum::<usize>()
    };
    2.0 * (weights(false) * tokens + weights(true) * pictures * PATCHES) as f64
}

fn parameters(model: &Model) -> usize {
    model.layout.pieces().map(|(_, _, piece)| piece.len()).sum()
}

/// Forward, backward, clipping and AdamW on 2,048 tokens.
pub(super) fn train_step(dev: &mut Device, dtype: DType, shape: Shape) -> Result<Case> {
    let config = shape.config()?;
    let model = Model::init(dev, config.clone(), dtype, 1)?;
    let optim = OptimConfig {
        learning_rate: 1e-4,
        lr_scheduler_type: LrSchedulerType::Constant,
        warmup_steps: 0,
        min_lr_ratio: 0.0,
        weight_decay: 0.01,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        max_grad_norm: 1.0,
        optim: OptimizerName::AdamwTorch,
        bf16_stochastic_round: false,
        seed: 1,
    };
    let mut optimizer = Optimizer::new(dev, &model.layout, optim)?;
    let mut grads = Grads::new(dev, &model.layout)?;
    let rows: Vec<Vec<u32>> = (0..ROWS).map(|r| row(&config, r, ROW_LEN)).collect();
    let pictures: Vec<[Arc<ImageInput>; 1]> = (0..ROWS).map(|r| [picture(r)]).collect();
    let flops = 3.0 * flops(&model, ROWS * ROW_LEN, ROWS);
    let parameters = parameters(&model);
    Ok(Case {
        name: "train-step",
        shape: format!("{}, {ROWS} rows x {ROW_LEN}", shape.name()),
        dtype: label(dtype),
        flops,
        // AdamW alone: weight, both moments and the gradient.
        bytes: (parameters * 7 * 4) as f64,
        job: Some(Job { parameters, tokens: ROWS * ROW_LEN }),
        run: Box::new(move |dev| {
            let mask = [true; ROW_LEN];
            let sequence = |(ids, images)| Sequence { input_ids: ids, images, prompt_len: ROW_LEN, loss_mask: &mask };
            let rows = rows.iter().map(Vec::as_slice).zip(pictures.iter().map(|p| p.as_slice()));
            let sequences: Vec<Sequence<'_>> = rows.map(sequence).collect();
            grads.zero(dev)?;
            let pass = step::forward(dev, &model, &sequences, Policy::default(), Keep::All, false)?;
            let targets = pass.log_prob.len();
            pass.backward(dev, &mut grads, &vec![-1.0 / targets as f32; targets], None)?;
            optimizer.step(dev, &model.layout, &grads, 1e-4)
        }),
    })
}

/// 32 prompts with a picture, 8 rollouts each of 24 tokens.
pub(super) fn generate(dev: &mut Device, dtype: DType, shape: Shape) -> Result<Case> {
    let config = shape.config()?;
    let model = Model::init(dev, config.clone(), dtype, 1)?;
    let mut requests = Vec::new();
    for r in 0..ROWS {
        requests.push(Request {
            prompt: Arc::new(Prompt::new(&config, &row(&config, r, PROMPT_LEN), &[picture(r)])?),
            n: ROLLOUTS,
            sampling: SamplingParams::default(),
            max_tokens: NEW_TOKENS,
            stop_token_ids: Arc::from([]),
            noise: r as u32,
        });
    }
    let limits = EngineConfig { vision_rows: ROWS * IMAGE_TOKENS, ..EngineConfig::new(PROMPT_LEN + NEW_TOKENS) };
    let tokens = ROWS * (PROMPT_LEN + ROLLOUTS * NEW_TOKENS);
    let (flops, bytes) = (flops(&model, tokens, ROWS), 0.0);
    let job = Job { parameters: parameters(&model), tokens: ROWS * ROLLOUTS * NEW_TOKENS };
    Ok(Case {
        name: "generate",
        shape: format!("{}, {ROWS} x {ROLLOUTS} x {NEW_TOKENS}", shape.name()),
        dtype: label(dtype),
        flops,
        bytes,
        job: Some(job),
        run: Box::new(move |dev| {
            let mut engine = Engine::new(&model, dev, limits)?;
            engine.generate(&model, dev, &requests, |_| Ok(()))?;
            engine.release(dev);
            Ok(())
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Isa, Plan};

    #[test]
    fn the_jobs_run_as_often_as_asked() {
        let mut dev = Device::cpu(&Plan::uniform(256 << 20), 2, Isa::detect()).unwrap();
        for make in [train_step, generate] {
            let marks = crate::device::Region::ALL.map(|region| dev.mark(region));
            let mut case = make(&mut dev, DType::F32, Shape::Digits).unwrap();
            for _ in 0..2 {
                (case.run)(&mut dev).unwrap();
            }
            assert!(case.flops > 1e8, "{}", case.name);
            marks.into_iter().for_each(|mark| dev.release(mark));
        }
    }
}
