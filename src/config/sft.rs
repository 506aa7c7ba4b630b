//! Config keys of supervised fine-tuning, named after those of the Hugging Face trainer and lmms-engine.

use std::path::PathBuf;

use super::data::{model_of, rows_of};
use super::{
    Changed, Config, DatasetConfig, DistConfig, Dtype, LrSchedulerType, MOST_SEQUENCES, MOST_STEPS, OptimConfig,
    OptimizerName, Place, Rule, Safe, Source, ValKwargs, ValidationConfig,
};
use crate::error::{Error, Result};

settings! {
    /// `omr sft` and the `sft` part of a recipe.
    pub struct SftConfig with optimizer: OptimConfig, validation: ValidationConfig {
        /// Model directory to start from; a recipe uses its base model.
        model: Option<PathBuf> = None, name: "lmms-engine model_config.load_from_pretrained_path",
            published: "Qwen/Qwen2.5-VL-7B-Instruct";
        /// Rows to train on; a recipe uses what its data stage kept.
        datasets: Vec<DatasetConfig> = Vec::new(), name: "lmms-engine dataset_config.datasets";
        /// Draw the rows in a new random order each epoch.
        shuffle: bool = true, name: "lmms-engine dataset_config.shuffle", published: "true";
        /// Rows are packed into sequences of at most this many tokens; longer rows are rejected and counted.
        packing_length: usize = 4096, rule: Rule::AtLeast(1.0), name: "lmms-engine dataset_config.packing_length",
            published: "61440";
        /// Packs that make one update, those of all ranks together.
        gradient_accumulation_steps: usize = 1, rule: Rule::Within(1.0, MOST_SEQUENCES),
            name: "lmms-engine trainer_args.gradient_accumulation_steps", published: "1 on each of 32 GPUs";
        /// Rows that make one update, when updates are to have a fixed number of rows; packs are then as many as needed.
        train_batch_size: Option<usize> = None, rule: Rule::Within(1.0, MOST_SEQUENCES);
        /// Updates; null counts epochs instead.
        max_steps: Option<u64> = None, rule: Rule::Within(1.0, MOST_STEPS), safe: Safe::WhenMore,
            name: "lmms-engine trainer_args.max_steps", published: "4300";
        /// Passes over the rows, used when max_steps is null.
        num_train_epochs: f64 = 1.0, rule: Rule::Within(1e-6, 1e6), safe: Safe::WhenMore,
            name: "lmms-engine trainer_args.num_train_epochs", published: "1";
        optimizer.learning_rate = 5e-5, name: "lmms-engine trainer_args.learning_rate", published: "5e-5";
        optimizer.vision_tower_lr = None, name: "LLaVA mm_vision_tower_lr";
        optimizer.multi_modal_projector_lr = None, name: "LLaVA mm_projector_lr";
        optimizer.freeze_vision_tower = false, name: "LLaMA-Factory freeze_vision_tower", published: "false";
        optimizer.freeze_multi_modal_projector = false, name: "LLaMA-Factory freeze_multi_modal_projector",
            published: "false";
        optimizer.freeze_language_model = false, name: "LLaMA-Factory freeze_language_model", published: "false";
        optimizer.lr_scheduler_type = LrSchedulerType::Cosine, name: "lmms-engine trainer_args.lr_scheduler_type",
            published: "cosine";
        /// Steps of linear warm-up; null takes warmup_ratio.
        warmup_steps: Option<u64> = None, name: "Hugging Face warmup_steps";
        /// Share of the steps spent warming up, used when warmup_steps is null.
        warmup_ratio: f64 = 0.1, rule: Rule::Within(0.0, 1.0), name: "lmms-engine trainer_args.warmup_ratio",
            published: "0.1";
        optimizer.min_lr_ratio = 0.0, name: "Hugging Face lr_scheduler_kwargs.min_lr_rate", published: "0";
        optimizer.weight_decay = 0.0, name: "lmms-engine trainer_args.weight_decay", published: "0.0";
        optimizer.decay_norms_and_biases = false, name: "lmms-engine: torch AdamW of all parameters", published: "true";
        optimizer.adam_beta1 = 0.9, name: "Hugging Face adam_beta1", published: "0.9";
        optimizer.adam_beta2 = 0.999, name: "Hugging Face adam_beta2", published: "0.999";
        optimizer.adam_epsilon = 1e-8, name: "Hugging Face adam_epsilon", published: "1e-8";
        optimizer.max_grad_norm = 1.0, name: "Hugging Face max_grad_norm", published: "1.0";
        optimizer.max_skipped_updates = 10, published: "no bound";
        optimizer.optim = OptimizerName::AdamwTorch, name: "lmms-engine trainer_args.optim", published: "torch AdamW";
        optimizer.bf16_stochastic_round = false, name: "torchao bf16_stochastic_round";
        /// A checkpoint every so many steps; null leaves it to save_seconds.
        save_steps: Option<u64> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "lmms-engine trainer_args.save_steps", published: "2000";
        /// A checkpoint when this many seconds have passed since the last one; null never by time.
        save_seconds: Option<f64> = Some(600.0), rule: Rule::Above(0.0), safe: Safe::Yes;
        /// Write a checkpoint when a signal stops the run; without one, the steps since the last are repeated, to the same bits.
        /// null writes one where the steps since the last have taken more than a minute.
        save_on_stop: Option<bool> = None, safe: Safe::Yes;
        /// Checkpoints kept; older ones are removed once a newer one is whole.
        save_total_limit: usize = 3, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "lmms-engine trainer_args.save_total_limit", published: "3";
        /// Write a checkpoint every so many steps that stays whatever save_total_limit says, for `omr replay`; null none.
        keep_every: Option<u64> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes;
        /// Measure on val_files and val_tasks every so many updates and after the last one; null never.
        eval_steps: Option<u64> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes, name: "Hugging Face eval_steps";
        validation.val_files = Vec::new(), name: "verl data.val_files";
        validation.val_tasks = Vec::new(), name: "lmms-eval --tasks";
        validation.val_data_dir = None;
        validation.val_max_samples = None, name: "verl data.val_max_samples";
        validation.val_before_train = true, name: "Hugging Face eval_on_start";
        validation.val_kwargs = ValKwargs::default(), name: "verl actor_rollout_ref.rollout.val_kwargs";
        validation.metric_for_best_model = None, name: "Hugging Face metric_for_best_model";
        /// Seed of initialisation, order and augmentation; a recipe uses its own.
        seed: u64 = 42, name: "Hugging Face seed", published: "42";
        /// Storage of weights and activations; `auto` is bf16 where kernels run, f32 on the CPU. A recipe uses its own.
        dtype: Dtype = Dtype::Auto, name: "lmms-engine trainer_args.bf16", published: "bf16";
        /// Tokens computed at once: a batch is cut at row borders into micro-batches of at most this many.
        micro_batch_tokens: usize = 8192, rule: Rule::AtLeast(1.0),
            name: "lmms-engine trainer_args.per_device_train_batch_size", published: "1 pack";
        /// Memory the run may take, in GiB; null takes all of a card and, on the CPU, as much as is wanted. What passes
        /// keep follows from it; the result does not.
        max_memory_gib: Option<f64> = None, rule: Rule::Above(0.0), safe: Safe::Yes;
        /// Smallest picture after resizing, in pixels; null keeps the model's preprocessor_config.json.
        image_min_pixels: Option<usize> = None, rule: Rule::AtLeast(784.0),
            name: "lmms-engine dataset_config.extra_kwargs.image_min_pixels";
        /// Largest picture after resizing, in pixels; null keeps the model's preprocessor_config.json.
        image_max_pixels: Option<usize> = None, rule: Rule::AtLeast(784.0),
            name: "lmms-engine dataset_config.extra_kwargs.image_max_pixels", published: "4194304";
        /// Share of the rows that may be bad: they are left out and named in rejected.jsonl; more end the run.
        max_bad_rows: f64 = 0.01, rule: Rule::Within(0.0, 1.0), safe: Safe::Yes;
        /// Threads that read rows and pictures beside the training; their number changes no result.
        dataloader_num_workers: usize = 2, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "lmms-engine trainer_args.dataloader_num_workers";
        /// `auto` goes on from the newest whole checkpoint in --out, `never` starts over, a path goes on from there; later
        /// checkpoints of the same run are then moved aside.
        resume: String = "auto".to_owned(), rule: Rule::NotEmpty, safe: Safe::Yes,
            name: "lmms-engine trainer_args.resume_from_checkpoint";
        /// Kinds of inputs that may differ from what the run began with: `model`, `rows`, `pictures`, `reference`, `val`, `stages`
        /// (what a finished stage wrote), `log`. The change is said and recorded; the key may then be left out.
        accept_changed: Vec<Changed> = Vec::new(), safe: Safe::Yes;
        /// The sums that an update's gradients are added up in, which fix the run's bits for every number of ranks up to it;
        /// null takes the ranks it starts with. Recorded, and never changed within a run.
        gradient_lanes: Option<usize> = None, rule: Rule::AtLeast(1.0);
        /// How ranks find and lose each other.
        dist: DistConfig = DistConfig::default();
    }
}

impl SftConfig {
    /// Updates of the warm-up in a run of `total_steps`; of a share, rounded up as the Hugging Face trainer does.
    pub fn warmup_steps(&self, total_steps: u64) -> u64 {
        self.warmup_steps.unwrap_or((self.warmup_ratio * total_steps as f64).ceil() as u64)
    }

    /// Gradient lanes: one where nothing says more.
    pub fn lanes(&self) -> usize {
        self.gradient_lanes.unwrap_or(1)
    }

    pub(super) fn check_parts(&self, place: &Place, path: &str) -> Result<()> {
        self.validation.check(place, path, "eval_steps", self.eval_steps)?;
        self.optimizer.check_parts(place, path)?;
        if self.optimizer.bf16_stochastic_round {
            if self.dtype == Dtype::F32 {
                let key = place.of(&super::table::join(path, "bf16_stochastic_round"));
                return Err(Error::input(
                    key,
                    format!("true with dtype {}", self.dtype.name()),
                    "dtype bf16: f32 weights are not rounded",
                ));
            }
            check_rate(place, &super::table::join(path, "learning_rate"), self.optimizer.learning_rate)?;
        }
        check_pixels(place, path, self.image_min_pixels, self.image_max_pixels)
    }
}

/// A step of bf16 weights is 2^-8 of them; below this rate an update is so small a part of it that little but the
/// noise of rounding is left.
const MIN_ROUNDED_RATE: f64 = 1e-5;

/// Errors when `rate` of key `path` is too low for stochastically rounded weights.
pub(super) fn check_rate(place: &Place, path: &str, rate: f64) -> Result<()> {
    if rate >= MIN_ROUNDED_RATE {
        return Ok(());
    }
    let expected = format!("{MIN_ROUNDED_RATE:e} or more with bf16_stochastic_round");
    let hint = "leave bf16_stochastic_round false: the f32 master takes 2 bytes a weight";
    Err(Error::input_hint(place.of(path), format!("{rate:e}"), expected, hint))
}

impl Config for SftConfig {
    const NAME: &'static str = "sft";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        model_of("model", &mut self.model)
            .chain(rows_of("datasets", &mut self.datasets))
            .chain(rows_of("val_files", &mut self.validation.val_files))
            .collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        self.check_parts(place, "")
    }
}

/// min_pixels may not be over max_pixels.
pub(super) fn check_pixels(place: &Place, path: &str, min: Option<usize>, max: Option<usize>) -> Result<()> {
    match (min, max) {
        (Some(min), Some(max)) if min > max => {
            let key = super::table::join(path, "image_min_pixels");
            Err(Error::input(place.of(&key), min.to_string(), format!("at most image_max_pixels, which is {max}")))
        }
        _ => Ok(()),
    }
}
