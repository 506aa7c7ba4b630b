//! Config keys of RL training, named after verl's.

use std::path::PathBuf;

use super::data::{files_of, model_of, rows_of};
use super::distillation::teacher_of;
use super::judge::check_judge;
use super::table::join;
use super::{
    Config, DatasetConfig, DistillationConfig, DomainWeights, Dtype, JudgeConfig, KlLossType, LossAggMode, LossMode,
    MINI_BATCH, MOST_SEQUENCES, MOST_STEPS, Mode, OptimConfig, Parity, Place, Preset, Rewards, RolloutConfig, Rule,
    Safe, ScorerConfig, Source, TrainingConfig, ValidationConfig,
};
use crate::error::Result;

choice! {
    /// Method that turns the rewards of a group into advantages.
    pub enum AdvEstimator {
        /// Reward minus the mean of the group, optionally divided by the sample standard deviation.
        Grpo = "grpo",
        /// 1 for a right answer, otherwise 0: each update is a step of SFT on the model's own right answers. Requires a
        /// loss that weighs the tokens of short and long answers equally (`preset: grpo`).
        Raft = "raft",
        /// REINFORCE with leave-one-out: reward minus the mean of the other rewards of the group.
        Rloo = "rloo",
        /// REINFORCE++: the reward, whitened over the response tokens of the batch.
        ReinforcePlusPlus = "reinforce_plus_plus",
        /// REINFORCE++ with a baseline: reward minus the mean of the group, whitened over the response tokens of the batch.
        ReinforcePlusPlusBaseline = "reinforce_plus_plus_baseline",
    }
}

choice! {
    /// Control of the weight of the KL term in the reward.
    pub enum KlCtrlType {
        /// Constant weight.
        Fixed = "fixed",
        /// The weight is adjusted so that the measured divergence approaches target_kl.
        Adaptive = "adaptive",
    }
}

settings! {
    /// Weight of the KL term in the reward.
    pub struct KlCtrlConfig {
        /// Constant (`fixed`) or adjusted after each step (`adaptive`) weight.
        r#type: KlCtrlType = KlCtrlType::Fixed, name: "verl algorithm.kl_ctrl.type", published: "fixed";
        /// Weight of the KL term. With `adaptive`, its initial value.
        kl_coef: f64 = 0.001, rule: Rule::AtLeast(0.0), name: "verl algorithm.kl_ctrl.kl_coef", published: "0";
        /// Horizon of an adaptive weight, in responses: the weight changes by the error (at most 0.2) times responses /
        /// horizon per step.
        horizon: f64 = 10_000.0, rule: Rule::Above(0.0), name: "verl algorithm.kl_ctrl.horizon";
        /// Target value of the divergence for an adaptive weight.
        target_kl: f64 = 0.1, rule: Rule::Above(0.0), name: "verl algorithm.kl_ctrl.target_kl";
    }
}

choice! {
    /// Order in which prompts are used.
    pub enum Curriculum {
        /// Order set by `shuffle`.
        Off = "off",
        /// Prompts with the highest average reward first, like the DifficultySampler in the original verl code.
        EasyFirst = "easy_first",
        /// Prompts with the lowest average reward first.
        HardFirst = "hard_first",
    }
}

choice! {
    /// Metric that dynamic sampling compares within a group.
    pub enum FilterMetric {
        /// Score, including the format.
        Score = "score",
        /// Accuracy: 1 for a correct answer, 0 for a wrong one.
        Acc = "acc",
        /// Score minus the penalty for long responses.
        SeqReward = "seq_reward",
        /// The reward of the advantage. It is that of `seq_reward`, because `use_kl_in_reward` is refused with it.
        SeqFinalReward = "seq_final_reward",
    }
}

settings! {
    /// Dynamic sampling of DAPO.
    pub struct FilterGroupsConfig {
        /// Leave out prompts whose responses all have the same metric, and sample more prompts instead.
        enable: bool = false, name: "verl algorithm.filter_groups.enable", published: "false";
        /// Metric that is compared: score, acc, seq_reward or seq_final_reward.
        metric: FilterMetric = FilterMetric::Score, name: "verl algorithm.filter_groups.metric";
        /// Maximum number of generation batches for one update; more end the run with an error. 0 = no limit.
        max_num_gen_batches: usize = 10, safe: Safe::Yes, name: "verl algorithm.filter_groups.max_num_gen_batches";
    }
}

settings! {
    /// Soft penalty of DAPO for long responses.
    pub struct OverlongBufferConfig {
        /// Apply the penalty.
        enable: bool = false, name: "verl reward_model.reward_kwargs.overlong_buffer_cfg.enable; verl reward_model.overlong_buffer.enable; \
                verl reward.reward_kwargs.overlong_buffer_cfg.enable", published: "false";
        /// Number of tokens before max_response_length over which the penalty grows linearly.
        len: usize = 0, name: "verl reward_model.reward_kwargs.overlong_buffer_cfg.len; verl reward_model.overlong_buffer.len; \
                verl reward.reward_kwargs.overlong_buffer_cfg.len", published: "4096";
        /// Penalty at max_response_length.
        penalty_factor: f64 = 1.0, rule: Rule::AtLeast(0.0), name: "verl reward_model.reward_kwargs.overlong_buffer_cfg.penalty_factor; verl reward_model.overlong_buffer.penalty_factor; \
                verl reward.reward_kwargs.overlong_buffer_cfg.penalty_factor",
            published: "1.0";
    }
}

settings! {
    /// Settings of the reward.
    pub struct RewardConfig with scorer: ScorerConfig {
        /// Scoring rules: `strict` is omr's corrected version, `compat` reproduces the published scorer.
        mode: Mode = Mode::Strict, published: "compat";
        ..scorer;
    }
}

settings! {
    /// Config of `omr rl` and of the `rl` part of a recipe.
    pub struct RlConfig with optimizer: OptimConfig, training: TrainingConfig, validation: ValidationConfig {
        /// Model directory to start from. A recipe uses its SFT model.
        model: Option<PathBuf> = None, name: "verl actor_rollout_ref.model.path; Hugging Face model_name_or_path",
            published: "OpenMMReasoner/OpenMMReasoner-ColdStart", group: "Model and prompts";
        /// Prompts to train on. A recipe uses its own questions.
        train_files: Vec<DatasetConfig> = Vec::new(),
            name: "verl data.train_files; LLaMA-Factory dataset (paths or names on the hub); TRL dataset_name";
        /// Use a new random order of the prompts in each epoch.
        shuffle: bool = true, name: "verl data.shuffle; TRL shuffle_dataset", published: "true";
        /// Order prompts by the average reward that a model has had on them, the same order in each epoch. The reward
        /// is the field `avg_reward` (a column or in `extra_info`), or else `pass_rate`, which `omr data passrate`
        /// writes. off = the order set by shuffle.
        curriculum: Curriculum = Curriculum::Off, name: "verl data.sampler.class_path";
        /// Weights of the domains of the rows (columns.domain): each batch has the same share of each domain. Domains without
        /// rows are left out, and rows of other domains are not used. null = the rows decide.
        per_batch_domain_weights: Option<DomainWeights> = None, name: "verl data.per_batch_domain_weights";
        /// Number of prompts per generation batch.
        train_batch_size: usize = 64, rule: Rule::SEQUENCES,
            name: "verl data.train_batch_size; TRL generation_batch_size (/ num_generations)", published: "128", group: "Batches and rollouts";
        /// Number of prompts that dynamic sampling requests at a time, until train_batch_size of them are kept. null =
        /// train_batch_size.
        gen_batch_size: Option<usize> = None, rule: Rule::SEQUENCES, name: "verl data.gen_batch_size",
            published: "384 for DAPO";
        /// Number of prompts per update. A generation batch gives train_batch_size / ppo_mini_batch_size updates. If it is
        /// not set, the smaller of 64 and train_batch_size.
        ppo_mini_batch_size: usize = MINI_BATCH as usize, rule: Rule::SEQUENCES,
            name: "verl actor_rollout_ref.actor.ppo_mini_batch_size; \
                TRL per_device_train_batch_size (times gradient_accumulation_steps times GPUs, divided by num_generations); \
                TRL gradient_accumulation_steps (see per_device_train_batch_size)", published: "128";
        /// Number of passes over a generation batch.
        ppo_epochs: usize = 1, rule: Rule::SEQUENCES,
            name: "verl actor_rollout_ref.actor.ppo_epochs; TRL num_iterations",
            published: "1";
        /// Sampling of responses.
        rollout: RolloutConfig = RolloutConfig::default();
        /// Maximum number of tokens of a prompt, images included. Longer prompts are left out and counted.
        max_prompt_length: usize = 4096, rule: Rule::TOKENS, name: "verl data.max_prompt_length",
            published: "4096";
        /// Maximum number of tokens of a response.
        max_response_length: usize = 1024, rule: Rule::TOKENS,
            name: "verl data.max_response_length; TRL max_completion_length",
            published: "28696";
        /// Algorithm: sets the defaults of the keys that define it. Keys that the config contains take precedence. `omr
        /// config --preset dapo` lists the keys.
        preset: Preset = Preset::Gspo, safe: Safe::Yes, published: "gspo", group: "Algorithm: advantages and loss";
        /// Method that turns rewards into advantages.
        adv_estimator: AdvEstimator = AdvEstimator::Grpo, name: "verl algorithm.adv_estimator", published: "grpo";
        /// Divide advantages by the sample standard deviation of the group. false = Dr.GRPO.
        norm_adv_by_std_in_grpo: bool = true,
            name: "verl algorithm.norm_adv_by_std_in_grpo; TRL scale_rewards (group is true)", published: "true";
        /// Policy loss.
        loss_mode: LossMode = LossMode::Gspo,
            name: "verl actor_rollout_ref.actor.policy_loss.loss_mode; \
                TRL importance_sampling_level (token is vanilla, sequence is gspo)",
            published: "gspo";
        /// Leave responses that were cut at max_response_length out of the loss. Their rewards still count in the mean and
        /// the deviation of their group.
        mask_truncated_completions: bool = false, name: "TRL mask_truncated_completions", published: "false";
        /// Lower clip bound: the ratio is clipped at 1 - clip_ratio_low.
        clip_ratio_low: f64 = 3e-4, rule: Rule::AtLeast(0.0),
            name: "verl actor_rollout_ref.actor.clip_ratio_low; TRL epsilon (and clip_ratio_high)",
            published: "3e-4";
        /// Upper clip bound: the ratio is clipped at 1 + clip_ratio_high.
        clip_ratio_high: f64 = 4e-4, rule: Rule::AtLeast(0.0),
            name: "verl actor_rollout_ref.actor.clip_ratio_high; TRL epsilon_high",
            published: "4e-4";
        /// Bound of the dual clip of the vanilla loss, for negative advantages.
        clip_ratio_c: f64 = 3.0, rule: Rule::Above(1.0), name: "verl actor_rollout_ref.actor.clip_ratio_c; TRL delta",
            published: "3.0";
        /// Method that combines token losses into one number. The policy term of gspo always uses seq-mean-token-mean.
        loss_agg_mode: LossAggMode = LossAggMode::SeqMeanTokenMean,
            name: "verl actor_rollout_ref.actor.loss_agg_mode; \
                TRL loss_type (grpo is seq-mean-token-mean, dapo is token-mean)",
            published: "seq-mean-token-mean";
        /// Add a KL term to the loss, relative to the model that RL started from.
        use_kl_loss: bool = false, name: "verl actor_rollout_ref.actor.use_kl_loss", published: "false", group: "KL terms, distillation and entropy";
        /// Weight of the KL term in the loss.
        kl_loss_coef: f64 = 0.001, rule: Rule::AtLeast(0.0),
            name: "verl actor_rollout_ref.actor.kl_loss_coef; TRL beta (with use_kl_loss=true)",
            published: "0";
        /// Estimator of the KL term in the loss.
        kl_loss_type: KlLossType = KlLossType::LowVarKl, name: "verl actor_rollout_ref.actor.kl_loss_type",
            published: "low_var_kl";
        /// Subtract a KL term from the reward of each token, relative to the model that RL started from.
        use_kl_in_reward: bool = false, name: "verl algorithm.use_kl_in_reward", published: "false";
        /// Estimator of the KL term in the reward.
        kl_penalty: KlLossType = KlLossType::Kl, name: "verl algorithm.kl_penalty";
        /// Weight of the KL term in the reward.
        kl_ctrl: KlCtrlConfig = KlCtrlConfig::default();
        /// On-policy distillation from a teacher. null = none.
        distillation: Option<DistillationConfig> = None, name: "verl distillation.enabled";
        /// Weight of the entropy bonus.
        entropy_coeff: f64 = 0.0, rule: Rule::AtLeast(0.0),
            name: "verl actor_rollout_ref.actor.entropy_coeff; TRL entropy_coef",
            published: "0";
        /// Dynamic sampling: leave out prompts whose responses all have the same result.
        filter_groups: FilterGroupsConfig = FilterGroupsConfig::default(), group: "Dynamic sampling, reward and judge";
        /// Penalty for long responses.
        overlong_buffer: OverlongBufferConfig = OverlongBufferConfig::default();
        /// Settings of the reward.
        reward: RewardConfig = RewardConfig::default();
        /// Your own reward programs by reward type, such as `{instruction_following: {command: [python3, mine.py]}}`.
        rewards: Rewards = Rewards::default();
        /// Judge: a server that is asked about answers that the rules score as wrong. null = no judge.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// Number of generation batches of the whole run. null = as set by total_epochs.
        total_training_steps: Option<u64> = None, rule: Rule::STEPS, safe: Safe::WhenMore,
            name: "verl trainer.total_training_steps; Hugging Face max_steps (generation batches)", group: "Steps, checkpoints and reports";
        /// Number of passes over the prompts, used if total_training_steps is null. With filter_groups, the number of
        /// steps is the same as without, and more prompts are used.
        total_epochs: u64 = 1, rule: Rule::Within(1.0, 1e6), safe: Safe::WhenMore,
            name: "verl trainer.total_epochs; Hugging Face num_train_epochs",
            published: "15";
        /// Interval in steps at which a checkpoint is written. null = only by save_seconds.
        save_freq: Option<u64> = None, rule: Rule::STEPS, safe: Safe::Yes,
            name: "verl trainer.save_freq; Hugging Face save_steps; Hugging Face save_strategy",
            published: "16";
        /// Time in seconds after which a new checkpoint is written. null = only by save_freq.
        save_seconds: Option<f64> = Some(600.0), rule: Rule::Above(0.0), safe: Safe::Yes;
        training.save_on_stop;
        training.save_total_limit, name: "verl trainer.max_actor_ckpt_to_keep";
        training.keep_every;
        /// Interval in steps at which the rollouts of a step are written to rollouts/STEP.parquet, also those of the first
        /// and the last step. null = never.
        rollout_freq: Option<u64> = Some(10), rule: Rule::STEPS, safe: Safe::Yes,
            name: "verl trainer.rollout_data_dir; TRL log_completions", published: "every step";
        training.report_to, name: "verl trainer.logger";
        /// Interval in steps of the validation on val_files, val_size and val_tasks, also after the last step. null =
        /// never.
        test_freq: Option<u64> = None, rule: Rule::STEPS, safe: Safe::Yes,
            name: "verl trainer.test_freq; Hugging Face eval_steps; Hugging Face eval_strategy", group: "Validation";
        ..validation { val_files, val_size, val_tasks, val_data_dir, val_max_samples };
        validation.val_before_train, name: "verl trainer.val_before_train; Hugging Face eval_on_start";
        ..validation { val_kwargs, metric_for_best_model, greater_is_better };
        validation.early_stopping_patience, name: "Hugging Face early_stopping_patience";
        ..validation { early_stopping_threshold, load_best_model_at_end };
        optimizer.learning_rate = (1e-6), name: "verl actor_rollout_ref.actor.optim.lr", published: "1e-6", group: "Learning rate, and what is trained";
        ..optimizer { vision_tower_lr, multi_modal_projector_lr };
        optimizer.freeze_vision_tower, name: "verl actor_rollout_ref.actor.freeze_vision_tower", published: "false";
        ..optimizer { freeze_multi_modal_projector, freeze_language_model };
        optimizer.lora, name: "TRL use_peft (null trains all weights)";
        optimizer.quantization;
        optimizer.lr_scheduler_type,
            name: "verl actor_rollout_ref.actor.optim.lr_scheduler_type", published: "constant";
        /// Number of steps of linear warm-up.
        warmup_steps: u64 = 25, rule: Rule::Within(0.0, MOST_STEPS),
            name: "verl actor_rollout_ref.actor.optim.lr_warmup_steps; \
                Hugging Face warmup_ratio (as a number of steps)", published: "25";
        optimizer.min_lr_ratio,
            name: "verl actor_rollout_ref.actor.optim.min_lr_ratio; Hugging Face lr_scheduler_kwargs.min_lr_rate", published: "0";
        optimizer.init_lr_ratio, name: "verl actor_rollout_ref.actor.optim.init_lr_ratio", published: "0";
        optimizer.weight_decay = (0.1), name: "verl actor_rollout_ref.actor.optim.weight_decay", published: "0.1", group: "Optimizer";
        optimizer.decay_norms_and_biases, name: "verl: torch AdamW of all parameters", published: "true";
        optimizer.adam_beta1, name: "verl actor_rollout_ref.actor.optim.betas", published: "0.9";
        optimizer.adam_beta2, name: "verl actor_rollout_ref.actor.optim.betas", published: "0.999";
        optimizer.adam_epsilon, published: "1e-8";
        optimizer.max_grad_norm, name: "verl actor_rollout_ref.actor.grad_clip", published: "1.0";
        optimizer.max_skipped_updates;
        // `bf16_stochastic_round` is not offered: RL learning rates are far too small for weights that are rounded to
        // bf16.
        optimizer.optim, name: "Hugging Face optim";
        optimizer.optimizer_offload, name: "verl actor_rollout_ref.actor.fsdp_config.optimizer_offload",
            published: "false";
        /// Response to a log-prob of the trainer that differs from the sampler's before the first update of a step.
        /// `error` ends the run, `warn` prints a note, `off` does not compare them.
        parity: Parity = Parity::Error, safe: Safe::Yes, group: "Machine, images and ranks";
        /// Seed for the order of prompts and for sampling. A recipe uses its own seed.
        seed: u64 = 42, name: "verl data.seed; Hugging Face data_seed";
        /// Data type of weights, activations and KV cache; `auto` = bf16 on a GPU, and on a CPU that has units for it
        /// if the weights are stored so; else f32. A recipe uses its own value.
        dtype: Dtype = Dtype::Auto,
            name: "verl actor_rollout_ref.rollout.dtype; Hugging Face bf16; Hugging Face fp16; \
                Hugging Face torch_dtype", published: "bf16";
        /// Maximum number of tokens computed at once. A mini-batch is cut between sequences into micro-batches of at
        /// most this size.
        micro_batch_tokens: usize = 8192, rule: Rule::TOKENS,
            name: "verl actor_rollout_ref.actor.ppo_max_token_len_per_gpu", published: "33792";
        training.max_memory_gib;
        training.image_min_pixels, name: "verl data.min_pixels; Hugging Face min_pixels",
            published: "3136";
        training.image_max_pixels, name: "verl data.max_pixels; Hugging Face max_pixels",
            published: "12845056";
        ..training { image_backend, image_alpha, image_16_bit, chat_template_kwargs, max_bad_rows };
        training.dataloader_num_workers, name: "verl data.dataloader_num_workers", published: "8";
        training.resume, name: "verl trainer.resume_mode; Hugging Face resume_from_checkpoint",
            published: "auto";
        ..training { accept_changed, gradient_lanes, dist };
    }
}

impl AdvEstimator {
    /// True if the advantages are whitened over the batch.
    pub fn whitens(self) -> bool {
        matches!(self, AdvEstimator::ReinforcePlusPlus | AdvEstimator::ReinforcePlusPlusBaseline)
    }
}

impl RlConfig {
    /// True if the model that RL started from is needed for a KL term.
    pub fn has_reference(&self) -> bool {
        self.use_kl_loss || self.use_kl_in_reward
    }

    /// True if the rewards have an effect on the advantages.
    pub fn uses_rewards(&self) -> bool {
        self.distillation.as_ref().is_none_or(|distillation| distillation.use_task_rewards)
    }

    /// Returns the number of prompts that are requested at a time.
    pub fn gen_batch(&self) -> usize {
        self.gen_batch_size.unwrap_or(self.train_batch_size)
    }

    /// Returns the number of generation batches of an epoch over `prompts` prompts with `per_batch_domain_weights`. All are
    /// complete, and there is at least one.
    pub fn full_batches(&self, prompts: usize) -> u64 {
        (prompts / self.gen_batch()).max(1) as u64
    }

    /// Returns the number of generation batches of a run over `prompts` prompts.
    pub fn total_steps(&self, prompts: usize) -> u64 {
        let all = match self.per_batch_domain_weights {
            Some(_) => self.total_epochs.saturating_mul(self.full_batches(prompts)),
            None => self.total_epochs.saturating_mul(prompts as u64).div_ceil(self.gen_batch() as u64),
        };
        self.total_training_steps.unwrap_or(all)
    }

    pub(super) fn check_parts(&self, place: &Place, path: &str) -> Result<()> {
        let check = |is_right, key: &str, found: &dyn ToString, expected: &str| {
            place.check(is_right, &join(path, key), found.to_string(), expected)
        };
        let (size, is_filtered) = (self.gen_batch_size.unwrap_or(self.train_batch_size), self.filter_groups.enable);
        let expected = "null, or filter_groups.enable: without it, all requested prompts are used for training";
        check(size == self.train_batch_size || is_filtered, "gen_batch_size", &size, expected)?;
        let is_sorted = self.per_batch_domain_weights.is_some() && self.curriculum != Curriculum::Off;
        let expected = "off: per_batch_domain_weights decides which prompts a batch has";
        check(!is_sorted, "curriculum", &self.curriculum.name(), expected)?;
        let rollouts = self.gen_batch().max(self.train_batch_size) * self.rollout.n;
        let expected = format!("at most {MOST_SEQUENCES} rollouts per generation batch (prompts x rollout.n)");
        check(rollouts as f64 <= MOST_SEQUENCES, "rollout.n", &rollouts, &expected)?;
        let by_token = self.use_kl_in_reward && self.adv_estimator == AdvEstimator::ReinforcePlusPlus;
        let expected = "false: with adv_estimator=reinforce_plus_plus, verl sums the KL terms after each token, which omr does not";
        check(!by_token, "use_kl_in_reward", &true, expected)?;
        if self.adv_estimator == AdvEstimator::Raft {
            let expected = "false: with adv_estimator=raft, only right and wrong count, not the reward";
            check(!self.use_kl_in_reward, "use_kl_in_reward", &true, expected)?;
            check(!self.overlong_buffer.enable, "overlong_buffer.enable", &true, expected)?;
            // Without a baseline, the expected gradient is that of the mean of accuracy / length.
            let expected = "loss_mode=vanilla with loss_agg_mode=token-mean, as in preset=grpo: with \
                            adv_estimator=raft, a loss divided by the length of each answer makes answers shorter";
            check(self.loss_mode != LossMode::Gspo, "loss_mode", &self.loss_mode.name(), expected)?;
            let by_length = self.loss_agg_mode == LossAggMode::SeqMeanTokenMean;
            check(!by_length, "loss_agg_mode", &self.loss_agg_mode.name(), expected)?;
        }
        let loses_all = self.mask_truncated_completions && self.loss_agg_mode == LossAggMode::TokenSum;
        let expected = "false: with loss_agg_mode=token-sum, a mini-batch of cut responses alone cannot be left out";
        check(!loses_all, "mask_truncated_completions", &true, expected)?;
        let is_early = self.use_kl_in_reward && self.filter_groups.metric == FilterMetric::SeqFinalReward;
        let expected = "seq_reward: the divergence is measured after groups are left out";
        check(!is_early, "filter_groups.metric", &"seq_final_reward with use_kl_in_reward", expected)?;
        let (prompts, updated) = (self.train_batch_size, self.ppo_mini_batch_size);
        let expected = format!("a divisor of train_batch_size, which is {prompts}");
        check(prompts.is_multiple_of(updated), "ppo_mini_batch_size", &updated, &expected)?;
        let OverlongBufferConfig { enable, len, .. } = self.overlong_buffer;
        let expected = format!("at most max_response_length, which is {}", self.max_response_length);
        check(!enable || len <= self.max_response_length, "overlong_buffer.len", &len, &expected)?;
        check(!enable || len > 0, "overlong_buffer.len", &len, "1 or more tokens when the penalty is enabled")?;
        place.check_sampling(&join(path, "rollout"), self.rollout.top_k, self.rollout.top_p)?;
        self.validation.check(place, path, "test_freq", self.test_freq)?;
        self.optimizer.check_parts(place, path)?;
        check_judge(place, path, &self.judge)?;
        self.training.images.check_parts(place, path)
    }
}

impl Config for RlConfig {
    const NAME: &'static str = "rl";
    const PRESET_AT: Option<&'static str> = Some("");

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        model_of("model", &mut self.model)
            .chain(teacher_of("distillation.teacher", &mut self.distillation))
            .chain(rows_of("train_files", &mut self.train_files))
            .chain(rows_of("val_files", &mut self.validation.val_files))
            .chain(files_of("val_data_dir", &mut self.validation.val_data_dir))
            .collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        self.check_parts(place, "")
    }
}
