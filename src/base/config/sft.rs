//! Config keys of supervised fine-tuning, named after those of the Hugging Face trainer and lmms-engine.

use std::path::PathBuf;

use super::data::{files_of, model_of, rows_of};
use super::table::join;
use super::{
    Config, DatasetConfig, Dtype, LrSchedulerType, MOST_STEPS, MicroBatchTokens, OptimConfig, Place, Rule, Safe,
    Source, TrainingConfig, ValidationConfig,
};
use crate::error::{Error, Result};

settings! {
    /// Config of `omr sft` and of the `sft` part of a recipe.
    pub struct SftConfig with optimizer: OptimConfig, training: TrainingConfig, validation: ValidationConfig {
        /// Model directory to start from. A recipe uses its base model.
        model: Option<PathBuf> = None,
            name: "lmms-engine model_config.load_from_pretrained_path; Hugging Face model_name_or_path",
            published: "Qwen/Qwen2.5-VL-7B-Instruct", group: "Model and rows";
        /// Rows to train on. A recipe uses the output of its data stage.
        datasets: Vec<DatasetConfig> = Vec::new(),
            name: "lmms-engine dataset_config.datasets; LLaMA-Factory dataset (paths or names on the hub); \
                TRL dataset_name";
        /// Use a new random order of the rows in each epoch.
        shuffle: bool = true,
            name: "lmms-engine dataset_config.shuffle; LLaMA-Factory disable_shuffling (its opposite); \
                TRL shuffle_dataset", published: "true";
        /// Maximum number of tokens of a packed sequence. Rows are packed into such sequences; longer rows are rejected
        /// and counted.
        packing_length: usize = 4096, rule: Rule::TOKENS,
            name: "lmms-engine dataset_config.packing_length; LLaMA-Factory cutoff_len (limits a pack of several rows); \
                TRL max_length (limits a pack of several rows); TRL max_seq_length (limits a pack of several rows)",
            published: "61440", group: "Length of a row, batches and steps";
        /// Also train the newline after `<|im_end|>`, as lmms-engine and LLaMA-Factory do. A chat template with
        /// {% generation %} blocks decides itself.
        train_newline: bool = false, published: "true";
        /// Number of packs per update, over all ranks together.
        gradient_accumulation_steps: usize = 1, rule: Rule::SEQUENCES,
            name: "lmms-engine trainer_args.gradient_accumulation_steps", published: "1 on each of 32 GPUs";
        /// Number of rows per update, for updates with a fixed number of rows. Each update then has as many packs as
        /// needed. null = as set by gradient_accumulation_steps.
        train_batch_size: Option<usize> = None, rule: Rule::SEQUENCES,
            name: "Hugging Face per_device_train_batch_size (times gradient_accumulation_steps times GPUs, but do not \
                set gradient_accumulation_steps)";
        /// Number of updates. null = as set by num_train_epochs.
        max_steps: Option<u64> = None, rule: Rule::STEPS, safe: Safe::WhenMore,
            name: "lmms-engine trainer_args.max_steps", published: "4300";
        /// Number of passes over the rows, used if max_steps is null.
        num_train_epochs: f64 = 1.0, rule: Rule::Within(1e-6, 1e6), safe: Safe::WhenMore,
            name: "lmms-engine trainer_args.num_train_epochs", published: "1";
        optimizer.learning_rate, name: "lmms-engine trainer_args.learning_rate; verl optim.lr", published: "5e-5", group: "Learning rate, and what is trained";
        ..optimizer { vision_tower_lr, multi_modal_projector_lr };
        optimizer.freeze_vision_tower, name: "LLaMA-Factory freeze_vision_tower", published: "false";
        ..optimizer { freeze_multi_modal_projector, freeze_language_model };
        optimizer.lora, name: "LLaMA-Factory finetuning_type (null trains all weights); \
            TRL use_peft (null trains all weights)";
        optimizer.quantization;
        optimizer.lr_scheduler_type = (LrSchedulerType::Cosine), name: "lmms-engine trainer_args.lr_scheduler_type",
            published: "cosine";
        /// Number of steps of linear warm-up. null = as set by warmup_ratio.
        warmup_steps: Option<u64> = None, rule: Rule::Within(0.0, MOST_STEPS), name: "Hugging Face warmup_steps";
        /// Share of the steps used for the warm-up, used if warmup_steps is null.
        warmup_ratio: f64 = 0.1, rule: Rule::Within(0.0, 1.0), name: "lmms-engine trainer_args.warmup_ratio; verl optim.lr_warmup_steps_ratio",
            published: "0.1";
        optimizer.min_lr_ratio, name: "Hugging Face lr_scheduler_kwargs.min_lr_rate; verl optim.min_lr_ratio", published: "0";
        optimizer.init_lr_ratio, published: "min_lr_ratio, which is 0";
        optimizer.weight_decay, name: "lmms-engine trainer_args.weight_decay; verl optim.weight_decay", published: "0.0", group: "Optimizer";
        optimizer.decay_norms_and_biases, name: "lmms-engine: torch AdamW of all parameters", published: "true";
        optimizer.adam_beta1, name: "Hugging Face adam_beta1", published: "0.9";
        optimizer.adam_beta2, name: "Hugging Face adam_beta2", published: "0.999";
        optimizer.adam_epsilon, name: "Hugging Face adam_epsilon", published: "1e-8";
        optimizer.max_grad_norm, name: "Hugging Face max_grad_norm; verl optim.clip_grad", published: "1.0";
        optimizer.max_skipped_updates;
        optimizer.optim, name: "lmms-engine trainer_args.optim", published: "torch AdamW";
        optimizer.optimizer_offload, name: "verl fsdp_config.optimizer_offload", published: "false";
        optimizer.bf16_stochastic_round, name: "torchao bf16_stochastic_round";
        /// Interval in steps at which a checkpoint is written. null = only by save_seconds.
        save_steps: Option<u64> = None, rule: Rule::STEPS, safe: Safe::Yes,
            name: "lmms-engine trainer_args.save_steps; Hugging Face save_strategy", published: "2000", group: "Checkpoints and reports";
        /// Time in seconds after which a new checkpoint is written. null = only by save_steps.
        save_seconds: Option<f64> = Some(600.0), rule: Rule::Above(0.0), safe: Safe::Yes;
        training.save_on_stop;
        training.save_total_limit, name: "lmms-engine trainer_args.save_total_limit", published: "3";
        training.keep_every;
        training.report_to, name: "lmms-engine trainer_args.report_to";
        /// Interval in updates of the validation on val_files, val_size and val_tasks, also after the last update.
        /// null = never.
        eval_steps: Option<u64> = None, rule: Rule::STEPS, safe: Safe::Yes,
            name: "Hugging Face eval_steps; Hugging Face eval_strategy; Hugging Face evaluation_strategy", group: "Validation";
        ..validation { val_files, val_size, val_tasks, val_data_dir, val_max_samples };
        validation.val_before_train, name: "Hugging Face eval_on_start";
        validation.val_kwargs;
        validation.predict_with_generate, name: "Hugging Face predict_with_generate";
        ..validation { metric_for_best_model, greater_is_better };
        validation.early_stopping_patience,
            name: "Hugging Face early_stopping_patience; LLaMA-Factory early_stopping_steps";
        ..validation { early_stopping_threshold, load_best_model_at_end };
        /// Seed for initialisation, order of rows and augmentation. A recipe uses its own seed.
        seed: u64 = 42, name: "Hugging Face seed; Hugging Face data_seed", published: "42", group: "Machine, images and ranks";
        /// Data type of weights and activations; `auto` = bf16 on a GPU, and on a CPU that has units for it if the
        /// weights are stored so; else f32. A recipe uses its own value.
        dtype: Dtype = Dtype::Auto,
            name: "lmms-engine trainer_args.bf16; Hugging Face fp16; Hugging Face torch_dtype; \
                LLaMA-Factory pure_bf16", published: "bf16";
        /// Maximum number of tokens computed at once. A batch is cut between rows into micro-batches of at most this
        /// size; a longer row is computed alone. Below packing_length, micro-batches are parts of packs. auto = the size
        /// that is fastest in the memory of the first start, which then stands in the run's config.yaml as a number.
        micro_batch_tokens: MicroBatchTokens = MicroBatchTokens::default(), rule: Rule::TOKENS,
            name: "lmms-engine trainer_args.per_device_train_batch_size", published: "1 pack";
        training.max_memory_gib;
        training.image_min_pixels, name: "lmms-engine dataset_config.extra_kwargs.image_min_pixels; Hugging Face min_pixels";
        training.image_max_pixels, name: "lmms-engine dataset_config.extra_kwargs.image_max_pixels; Hugging Face max_pixels",
            published: "4194304";
        ..training { image_backend, image_alpha, image_16_bit, chat_template_kwargs, max_bad_rows };
        training.dataloader_num_workers, name: "lmms-engine trainer_args.dataloader_num_workers; LLaMA-Factory preprocessing_num_workers; \
                TRL dataset_num_proc";
        training.resume, name: "lmms-engine trainer_args.resume_from_checkpoint";
        ..training { accept_changed, gradient_lanes, dist };
    }
}

impl SftConfig {
    /// Returns the number of warm-up updates in a run of `total_steps`. A share is rounded up, as in the Hugging Face
    /// trainer.
    pub fn warmup_steps(&self, total_steps: u64) -> u64 {
        self.warmup_steps.unwrap_or((self.warmup_ratio * total_steps as f64).ceil() as u64)
    }

    pub(super) fn check_parts(&self, place: &Place, path: &str) -> Result<()> {
        self.validation.check(place, path, "eval_steps", self.eval_steps)?;
        self.optimizer.check_parts(place, path)?;
        let steps = self.gradient_accumulation_steps;
        let expected = "1: train_batch_size is the number of rows per update, however many micro-batches they take";
        let is_one = steps == 1 || self.train_batch_size.is_none();
        place.check(is_one, &join(path, "gradient_accumulation_steps"), steps.to_string(), expected)?;
        if self.optimizer.bf16_stochastic_round {
            let (key, expected) = ("bf16_stochastic_round", "dtype bf16: f32 weights are not rounded");
            place.check(self.dtype != Dtype::F32, &join(path, key), "true with dtype f32", expected)?;
            check_rate(place, &join(path, "learning_rate"), self.optimizer.learning_rate)?;
        }
        self.training.images.check_parts(place, path)
    }
}

/// The precision of bf16 weights is 2^-8 of their value. Below this learning rate an update is so small relative to it
/// that mostly rounding noise remains.
const MIN_ROUNDED_RATE: f64 = 1e-5;

/// Returns an error if `rate` of the key `path` is too low for stochastically rounded weights.
pub(super) fn check_rate(place: &Place, path: &str, rate: f64) -> Result<()> {
    if rate >= MIN_ROUNDED_RATE {
        return Ok(());
    }
    let expected = format!("{MIN_ROUNDED_RATE:e} or more with bf16_stochastic_round");
    let hint = "set bf16_stochastic_round=false: the f32 master copy takes 2 bytes per weight";
    Err(Error::input_hint(place.of(path), format!("{rate:e}"), expected, hint))
}

impl Config for SftConfig {
    const NAME: &'static str = "sft";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        model_of("model", &mut self.model)
            .chain(rows_of("datasets", &mut self.datasets))
            .chain(rows_of("val_files", &mut self.validation.val_files))
            .chain(files_of("val_data_dir", &mut self.validation.val_data_dir))
            .collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        self.check_parts(place, "")
    }
}
