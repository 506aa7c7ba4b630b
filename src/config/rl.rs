//! Config keys of RL training, named after verl's.

use std::path::PathBuf;

use super::data::{model_of, rows_of};
use super::judge::check_judge;
use super::{
    Changed, Config, DatasetConfig, DistConfig, Dtype, Format, JudgeConfig, LrSchedulerType, MOST_SEQUENCES, Mode,
    OptimConfig, OptimizerName, Place, Preset, Rule, Safe, ScorerConfig, Source, ValKwargs, ValidationConfig,
};
use crate::error::{Error, Result};

choice! {
    /// How rewards of a group become advantages.
    pub enum AdvEstimator {
        /// Reward less the group's mean, over its sample deviation if asked.
        Grpo = "grpo",
    }
}

choice! {
    /// The policy loss.
    pub enum LossMode {
        /// Token-level ratio with dual clip (GRPO, DAPO).
        Vanilla = "vanilla",
        /// Sequence-level ratio, length-normalised.
        Gspo = "gspo",
    }
}

choice! {
    /// How token losses become one number.
    pub enum LossAggMode {
        /// Mean over all tokens of the mini-batch.
        TokenMean = "token-mean",
        /// Sum in a sequence, mean over sequences.
        SeqMeanTokenSum = "seq-mean-token-sum",
        /// Mean in a sequence, mean over sequences.
        SeqMeanTokenMean = "seq-mean-token-mean",
        /// Sum in a sequence over `max_response_length`, mean over sequences.
        SeqMeanTokenSumNorm = "seq-mean-token-sum-norm",
    }
}

choice! {
    /// The estimate of the divergence from the reference policy.
    pub enum KlLossType {
        /// k1: the log-ratio.
        Kl = "kl",
        /// Its absolute value.
        Abs = "abs",
        /// k2: half its square.
        Mse = "mse",
        /// k3, clamped.
        LowVarKl = "low_var_kl",
    }
}

choice! {
    /// Whether the weight of the divergence in the reward moves.
    pub enum KlCtrlType {
        /// It stays.
        Fixed = "fixed",
        /// It follows the measured divergence towards target_kl.
        Adaptive = "adaptive",
    }
}

settings! {
    /// The weight of the divergence in the reward.
    pub struct KlCtrlConfig {
        /// Whether it moves.
        r#type: KlCtrlType = KlCtrlType::Fixed, name: "verl algorithm.kl_ctrl.type", published: "fixed";
        /// The weight, or the first one.
        kl_coef: f64 = 0.001, rule: Rule::AtLeast(0.0), name: "verl algorithm.kl_ctrl.kl_coef", published: "0";
        /// Responses after which a full error has changed an adaptive weight by its bound.
        horizon: f64 = 10_000.0, rule: Rule::Above(0.0), name: "verl algorithm.kl_ctrl.horizon";
        /// The divergence that an adaptive weight aims at.
        target_kl: f64 = 0.1, rule: Rule::Above(0.0), name: "verl algorithm.kl_ctrl.target_kl";
    }
}

choice! {
    /// The order that prompts are asked in.
    pub enum Curriculum {
        /// That of `shuffle`.
        Off = "off",
        /// Those with the highest average reward first, as verl's DifficultySampler in the original.
        EasyFirst = "easy_first",
        /// Those with the lowest first.
        HardFirst = "hard_first",
    }
}

choice! {
    /// Whether tokens are drafted.
    pub enum Draft {
        /// In steps of so few sequences that more rows take little more time.
        Auto = "auto",
        /// Never.
        Off = "off",
    }
}

settings! {
    /// Sampling of responses, and what the engine may use for it.
    pub struct RolloutConfig {
        /// Responses for each prompt.
        n: usize = 8, rule: Rule::Within(1.0, MOST_SEQUENCES), name: "verl actor_rollout_ref.rollout.n", published: "16";
        /// Logits are divided by this, when sampling and in the loss.
        temperature: f64 = 1.0, rule: Rule::AtLeast(1e-6), name: "verl actor_rollout_ref.rollout.temperature",
            published: "1.0";
        /// Sample from the fewest tokens whose probabilities reach this.
        top_p: f64 = 1.0, rule: Rule::Within(0.0, 1.0), name: "verl actor_rollout_ref.rollout.top_p", published: "1.0";
        /// Sample from this many tokens; -1 from all.
        top_k: i64 = -1, rule: Rule::AtLeast(-1.0), name: "verl actor_rollout_ref.rollout.top_k", published: "-1";
        /// Sample from tokens at least this share of the likeliest one.
        min_p: f64 = 0.0, rule: Rule::Within(0.0, 1.0), name: "vLLM min_p";
        /// Tokens of one engine step: prompts longer than what is left are prefilled in chunks.
        max_num_batched_tokens: usize = 8192, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.max_num_batched_tokens", published: "33792";
        /// Sequences that run at once.
        max_num_seqs: usize = 256, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.max_num_seqs", published: "1024";
        /// Blocks of 128 keys in the cache; null makes as many as max_num_seqs sequences of full length need.
        num_kv_blocks: Option<usize> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "vLLM num_gpu_blocks_override", published: "gpu_memory_utilization 0.8";
        /// Prompts that begin alike share the cache of what they share.
        enable_prefix_caching: bool = true, safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.enable_prefix_caching", published: "true";
        /// Where few sequences run on a GPU, several tokens of each in a step, drafted from its prompt and the prompt's other
        /// responses; changes no token and no bit.
        draft: Draft = Draft::Auto, safe: Safe::Yes, name: "vLLM speculative_config method=ngram";
    }
}

choice! {
    /// What dynamic sampling compares within a group.
    pub enum FilterMetric {
        /// The score, format included.
        Score = "score",
        /// Right or wrong.
        Acc = "acc",
        /// The score and the penalty for length.
        SeqReward = "seq_reward",
    }
}

settings! {
    /// DAPO's dynamic sampling.
    pub struct FilterGroupsConfig {
        /// Leave out prompts whose responses all have the same metric, and sample more prompts.
        enable: bool = false, name: "verl algorithm.filter_groups.enable", published: "false";
        /// What is compared: score, acc or seq_reward.
        metric: FilterMetric = FilterMetric::Score, name: "verl algorithm.filter_groups.metric";
        /// Give up after this many generation batches for one update; 0 never.
        max_num_gen_batches: usize = 10, name: "verl algorithm.filter_groups.max_num_gen_batches";
    }
}

settings! {
    /// DAPO's soft penalty for long responses.
    pub struct OverlongBufferConfig {
        /// Apply the penalty.
        enable: bool = false, name: "verl reward_model.reward_kwargs.overlong_buffer_cfg.enable", published: "false";
        /// The penalty grows over the last this many tokens of max_response_length.
        len: usize = 0, name: "verl reward_model.reward_kwargs.overlong_buffer_cfg.len", published: "4096";
        /// Penalty at max_response_length.
        penalty_factor: f64 = 1.0, rule: Rule::AtLeast(0.0), name: "verl reward_model.reward_kwargs.overlong_buffer_cfg.penalty_factor",
            published: "1.0";
    }
}

settings! {
    /// The reward.
    pub struct RewardConfig {
        /// `strict` is the right behaviour, `compat` the published one.
        mode: Mode = Mode::Strict, published: "compat";
        /// Weight of the format in a score; the rest is the answer's.
        format_weight: f64 = super::FORMAT_WEIGHT, rule: Rule::Within(0.0, 1.0), name: "verl geo3k.compute_score format_score",
            published: "0.1";
        /// The format that a response is asked for.
        format: Format = Format::ThinkAnswerBoxed, published: "think_answer_boxed";
        /// One's own reward in place of the rules, a program and its arguments; empty for the rules.
        command: Vec<String> = Vec::new(), name: "verl custom_reward_function.path";
        /// Processes of it at once.
        workers: usize = 4, rule: Rule::AtLeast(1.0), safe: Safe::Yes, name: "verl reward_model.num_workers";
        /// An answer that takes longer is an error.
        timeout_s: f64 = 30.0, rule: Rule::Above(0.0), safe: Safe::Yes;
    }
}

impl RewardConfig {
    /// The same without the mode.
    pub fn scorer(&self) -> ScorerConfig {
        let RewardConfig { mode: _, format_weight, format, command, workers, timeout_s } = self.clone();
        ScorerConfig { format_weight, format, command, workers, timeout_s }
    }
}

settings! {
    /// `omr rl` and the `rl` part of a recipe.
    pub struct RlConfig with optimizer: OptimConfig, validation: ValidationConfig {
        /// Model directory to start from; a recipe uses its SFT model.
        model: Option<PathBuf> = None, name: "verl actor_rollout_ref.model.path",
            published: "OpenMMReasoner/OpenMMReasoner-ColdStart";
        /// Prompts to train on; a recipe uses its own questions.
        train_files: Vec<DatasetConfig> = Vec::new(), name: "verl data.train_files";
        /// Draw the prompts in a new random order each epoch.
        shuffle: bool = true, name: "verl data.shuffle", published: "true";
        /// Ask prompts by the average reward that a model has had with them (`avg_reward`, a column or in `extra_info`, else `pass_rate`,
        /// which `omr data passrate` writes), in the same order each epoch; off leaves it to shuffle.
        curriculum: Curriculum = Curriculum::Off, name: "verl data.sampler.class_path";
        /// Prompts of one generation batch.
        train_batch_size: usize = 64, rule: Rule::Within(1.0, MOST_SEQUENCES), name: "verl data.train_batch_size", published: "128";
        /// Prompts that dynamic sampling asks at a time until train_batch_size of them are kept; null takes train_batch_size.
        gen_batch_size: Option<usize> = None, rule: Rule::Within(1.0, MOST_SEQUENCES), name: "verl data.gen_batch_size",
            published: "384 for DAPO";
        /// Prompts of one update; train_batch_size over this is the number of updates a generation batch gives.
        ppo_mini_batch_size: usize = 64, rule: Rule::AtLeast(1.0),
            name: "verl actor_rollout_ref.actor.ppo_mini_batch_size", published: "128";
        /// Passes over a generation batch.
        ppo_epochs: usize = 1, rule: Rule::AtLeast(1.0), name: "verl actor_rollout_ref.actor.ppo_epochs",
            published: "1";
        /// Sampling.
        rollout: RolloutConfig = RolloutConfig::default();
        /// Longer prompts are left out and counted, pictures included.
        max_prompt_length: usize = 4096, rule: Rule::AtLeast(1.0), name: "verl data.max_prompt_length",
            published: "4096";
        /// Responses are cut here.
        max_response_length: usize = 1024, rule: Rule::AtLeast(1.0), name: "verl data.max_response_length",
            published: "28696";
        /// The algorithm: defaults of the keys that make it up, of which a key that is written wins. `omr config --preset dapo`
        /// lists them.
        preset: Preset = Preset::Gspo, safe: Safe::Yes, published: "gspo";
        /// How rewards become advantages.
        adv_estimator: AdvEstimator = AdvEstimator::Grpo, name: "verl algorithm.adv_estimator", published: "grpo";
        /// Divide advantages by the group's sample deviation; off is Dr.GRPO.
        norm_adv_by_std_in_grpo: bool = true, name: "verl algorithm.norm_adv_by_std_in_grpo", published: "true";
        /// The policy loss.
        loss_mode: LossMode = LossMode::Gspo, name: "verl actor_rollout_ref.actor.policy_loss.loss_mode",
            published: "gspo";
        /// The ratio is clipped at 1 less this.
        clip_ratio_low: f64 = 3e-4, rule: Rule::AtLeast(0.0), name: "verl actor_rollout_ref.actor.clip_ratio_low",
            published: "3e-4";
        /// The ratio is clipped at 1 plus this.
        clip_ratio_high: f64 = 4e-4, rule: Rule::AtLeast(0.0), name: "verl actor_rollout_ref.actor.clip_ratio_high",
            published: "4e-4";
        /// Dual clip of the vanilla loss for negative advantages.
        clip_ratio_c: f64 = 3.0, rule: Rule::Above(1.0), name: "verl actor_rollout_ref.actor.clip_ratio_c",
            published: "3.0";
        /// How token losses become one number; gspo always takes seq-mean-token-mean for its policy term.
        loss_agg_mode: LossAggMode = LossAggMode::SeqMeanTokenMean, name: "verl actor_rollout_ref.actor.loss_agg_mode",
            published: "seq-mean-token-mean";
        /// Add a divergence from the model RL started from to the loss.
        use_kl_loss: bool = false, name: "verl actor_rollout_ref.actor.use_kl_loss", published: "false";
        /// Its weight.
        kl_loss_coef: f64 = 0.001, rule: Rule::AtLeast(0.0), name: "verl actor_rollout_ref.actor.kl_loss_coef",
            published: "0";
        /// Its estimator.
        kl_loss_type: KlLossType = KlLossType::LowVarKl, name: "verl actor_rollout_ref.actor.kl_loss_type",
            published: "low_var_kl";
        /// Take the divergence from the model RL started from off the reward, token by token.
        use_kl_in_reward: bool = false, name: "verl algorithm.use_kl_in_reward", published: "false";
        /// Its estimator.
        kl_penalty: KlLossType = KlLossType::Kl, name: "verl algorithm.kl_penalty";
        /// Its weight.
        kl_ctrl: KlCtrlConfig = KlCtrlConfig::default();
        /// Weight of the entropy bonus.
        entropy_coeff: f64 = 0.0, rule: Rule::AtLeast(0.0), name: "verl actor_rollout_ref.actor.entropy_coeff",
            published: "0";
        /// Leave out prompts that teach nothing.
        filter_groups: FilterGroupsConfig = FilterGroupsConfig::default();
        /// Penalty for long responses.
        overlong_buffer: OverlongBufferConfig = OverlongBufferConfig::default();
        /// The reward.
        reward: RewardConfig = RewardConfig::default();
        /// The server asked about answers the rules call wrong; null asks none.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// Generation batches of the whole run; null counts epochs instead.
        total_training_steps: Option<u64> = None, rule: Rule::AtLeast(1.0), safe: Safe::WhenMore,
            name: "verl trainer.total_training_steps";
        /// Passes over the prompts, used when total_training_steps is null; with filter_groups as many steps as without it,
        /// for which more prompts are asked.
        total_epochs: u64 = 1, rule: Rule::Within(1.0, 1e6), safe: Safe::WhenMore, name: "verl trainer.total_epochs",
            published: "15";
        /// A checkpoint every so many steps; null leaves it to save_seconds.
        save_freq: Option<u64> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes, name: "verl trainer.save_freq",
            published: "16";
        /// A checkpoint when this many seconds have passed since the last one; null never by time.
        save_seconds: Option<f64> = Some(600.0), rule: Rule::Above(0.0), safe: Safe::Yes;
        /// Write a checkpoint when a signal stops the run; without one, the steps since the last are repeated, to the same bits.
        /// null writes one where the steps since the last have taken more than a minute.
        save_on_stop: Option<bool> = None, safe: Safe::Yes;
        /// Checkpoints kept; older ones are removed once a newer one is whole.
        save_total_limit: usize = 3, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "verl trainer.max_actor_ckpt_to_keep";
        /// Write a checkpoint every so many steps that stays whatever save_total_limit says, for `omr replay`; null none.
        keep_every: Option<u64> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes;
        /// Write a step's rollouts to rollouts/STEP.parquet every so many steps; null never.
        rollout_freq: Option<u64> = Some(10), rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "verl trainer.rollout_data_dir", published: "every step";
        /// Measure on val_files and val_tasks every so many steps and after the last one; null never.
        test_freq: Option<u64> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes, name: "verl trainer.test_freq";
        validation.val_files = Vec::new(), name: "verl data.val_files";
        validation.val_tasks = Vec::new(), name: "lmms-eval --tasks";
        validation.val_data_dir = None;
        validation.val_max_samples = None, name: "verl data.val_max_samples";
        validation.val_before_train = true, name: "verl trainer.val_before_train";
        validation.val_kwargs = ValKwargs::default(), name: "verl actor_rollout_ref.rollout.val_kwargs";
        validation.metric_for_best_model = None, name: "Hugging Face metric_for_best_model";
        optimizer.learning_rate = 1e-6, name: "verl actor_rollout_ref.actor.optim.lr", published: "1e-6";
        optimizer.vision_tower_lr = None, name: "LLaVA mm_vision_tower_lr";
        optimizer.multi_modal_projector_lr = None, name: "LLaVA mm_projector_lr";
        optimizer.freeze_vision_tower = false, name: "verl actor_rollout_ref.actor.freeze_vision_tower", published: "false";
        optimizer.freeze_multi_modal_projector = false, name: "LLaMA-Factory freeze_multi_modal_projector",
            published: "false";
        optimizer.freeze_language_model = false, name: "LLaMA-Factory freeze_language_model", published: "false";
        optimizer.lr_scheduler_type = LrSchedulerType::Constant,
            name: "verl actor_rollout_ref.actor.optim.lr_scheduler_type", published: "constant";
        /// Steps of linear warm-up.
        warmup_steps: u64 = 25, name: "verl actor_rollout_ref.actor.optim.lr_warmup_steps", published: "25";
        optimizer.min_lr_ratio = 0.0, name: "verl actor_rollout_ref.actor.optim.min_lr_ratio", published: "0";
        optimizer.weight_decay = 0.1, name: "verl actor_rollout_ref.actor.optim.weight_decay", published: "0.1";
        optimizer.decay_norms_and_biases = false, name: "verl: torch AdamW of all parameters", published: "true";
        optimizer.adam_beta1 = 0.9, name: "verl actor_rollout_ref.actor.optim.betas", published: "0.9";
        optimizer.adam_beta2 = 0.999, name: "verl actor_rollout_ref.actor.optim.betas", published: "0.999";
        optimizer.adam_epsilon = 1e-8, published: "1e-8";
        optimizer.max_grad_norm = 1.0, name: "verl actor_rollout_ref.actor.grad_clip", published: "1.0";
        optimizer.max_skipped_updates = 10, published: "no bound";
        // `bf16_stochastic_round` is not offered: RL learning rates are far too small for weights that are rounded to
        // bf16.
        optimizer.optim = OptimizerName::AdamwTorch, name: "Hugging Face optim";
        /// Seed of order and sampling; a recipe uses its own.
        seed: u64 = 42, name: "verl data.seed";
        /// Storage of weights, activations and cache; `auto` is bf16 where kernels run, f32 on the CPU. A recipe uses its own.
        dtype: Dtype = Dtype::Auto, name: "verl actor_rollout_ref.rollout.dtype", published: "bf16";
        /// Tokens computed at once: a mini-batch is cut at sequence borders into micro-batches of at most this many.
        micro_batch_tokens: usize = 8192, rule: Rule::AtLeast(1.0),
            name: "verl actor_rollout_ref.actor.ppo_max_token_len_per_gpu", published: "33792";
        /// Memory the run may take, in GiB; null takes all of a card and, on the CPU, as much as is wanted. What passes
        /// keep follows from it; the result does not.
        max_memory_gib: Option<f64> = None, rule: Rule::Above(0.0), safe: Safe::Yes;
        /// Smallest picture after resizing, in pixels; null keeps the model's preprocessor_config.json.
        image_min_pixels: Option<usize> = None, rule: Rule::AtLeast(784.0), name: "verl data.min_pixels",
            published: "3136";
        /// Largest picture after resizing, in pixels; null keeps the model's preprocessor_config.json.
        image_max_pixels: Option<usize> = None, rule: Rule::AtLeast(784.0), name: "verl data.max_pixels",
            published: "12845056";
        /// Share of the rows that may be bad: they are left out and named in rejected.jsonl; more end the run.
        max_bad_rows: f64 = 0.01, rule: Rule::Within(0.0, 1.0), safe: Safe::Yes;
        /// Threads that read rows and pictures beside the steps; their number changes no result.
        dataloader_num_workers: usize = 2, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "verl data.dataloader_num_workers", published: "8";
        /// `auto` goes on from the newest whole checkpoint in --out, `never` starts over, a path goes on from there; later
        /// checkpoints of the same run are then moved aside.
        resume: String = "auto".to_owned(), rule: Rule::NotEmpty, safe: Safe::Yes, name: "verl trainer.resume_mode",
            published: "auto";
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

impl RlConfig {
    /// Gradient lanes: one where nothing says more.
    pub fn lanes(&self) -> usize {
        self.gradient_lanes.unwrap_or(1)
    }

    /// True where the model RL started from stays beside the policy.
    pub fn has_reference(&self) -> bool {
        self.use_kl_loss || self.use_kl_in_reward
    }

    /// Prompts that are asked at a time.
    pub fn gen_batch(&self) -> usize {
        self.gen_batch_size.unwrap_or(self.train_batch_size)
    }

    /// Generation batches of a run over `prompts` prompts.
    pub fn total_steps(&self, prompts: usize) -> u64 {
        let asked = self.total_epochs.saturating_mul(prompts as u64);
        self.total_training_steps.unwrap_or(asked.div_ceil(self.gen_batch() as u64))
    }

    pub(super) fn check_parts(&self, place: &Place, path: &str) -> Result<()> {
        let at = |key: &str| place.of(&super::table::join(path, key));
        if let Some(size) = self.gen_batch_size.filter(|&n| n != self.train_batch_size && !self.filter_groups.enable) {
            let expected = "null, or filter_groups.enable: without it all prompts that are asked are trained on";
            return Err(Error::input(at("gen_batch_size"), size.to_string(), expected));
        }
        let rollouts = self.gen_batch().max(self.train_batch_size) * self.rollout.n;
        if rollouts as f64 > MOST_SEQUENCES {
            let expected =
                format!("at most {MOST_SEQUENCES} rollouts of a generation batch, which is prompts x rollout.n");
            return Err(Error::input(at("rollout.n"), rollouts.to_string(), expected));
        }
        if !self.train_batch_size.is_multiple_of(self.ppo_mini_batch_size) {
            let expected = format!("a divisor of train_batch_size, which is {}", self.train_batch_size);
            return Err(Error::input(at("ppo_mini_batch_size"), self.ppo_mini_batch_size.to_string(), expected));
        }
        if self.overlong_buffer.enable && self.overlong_buffer.len > self.max_response_length {
            let expected = format!("at most max_response_length, which is {}", self.max_response_length);
            return Err(Error::input(at("overlong_buffer.len"), self.overlong_buffer.len.to_string(), expected));
        }
        if self.overlong_buffer.enable && self.overlong_buffer.len == 0 {
            return Err(Error::input(at("overlong_buffer.len"), "0", "1 or more tokens when the penalty is enabled"));
        }
        if self.rollout.top_k == 0 {
            return Err(Error::input(at("rollout.top_k"), "0", "-1 (all tokens) or 1 and more"));
        }
        if self.rollout.top_p == 0.0 {
            return Err(Error::input(at("rollout.top_p"), "0", "more than 0"));
        }
        self.validation.check(place, path, "test_freq", self.test_freq)?;
        self.optimizer.check_parts(place, path)?;
        check_judge(place, path, &self.judge)?;
        super::sft::check_pixels(place, path, self.image_min_pixels, self.image_max_pixels)
    }
}

impl Config for RlConfig {
    const NAME: &'static str = "rl";
    const PRESET_AT: Option<&'static str> = Some("");

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        model_of("model", &mut self.model)
            .chain(rows_of("train_files", &mut self.train_files))
            .chain(rows_of("val_files", &mut self.validation.val_files))
            .collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        self.check_parts(place, "")
    }
}
