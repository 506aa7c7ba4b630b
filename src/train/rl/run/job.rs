//! An RL job: its settings, its questions and the task that scores responses.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::rl::curriculum;
use crate::rl::distillation::{self, Teacher};
use crate::rl::domains::DomainOrder;
use crate::training::broken::Broken;
use crate::training::job::{JobCommon, Start};
use crate::training::record;
use omr_base::config::{AdvEstimator, RlConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::Observer;
use omr_data::reward::{Mode, Scorer};
use omr_data::rows::index::indexing::Longest;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::samples::packing::PackPlan;
use omr_data::rows::{Dataset, Loader, Samples};
use omr_data::task::VerifiedRows;
use omr_data::text::Chat;
use omr_model::nn::{Model, Policy};
use omr_model::rollout::{Question, generate};
use omr_runtime::tensor::Tensor;

/// An RL job.
pub struct RlJob {
    /// The state that every training job has.
    pub common: JobCommon,
    /// The settings of the run.
    pub config: RlConfig,
    /// The task that scores responses.
    pub task: VerifiedRows,
    /// The questions, made on demand from the rows.
    pub questions: Arc<dyn Samples<Question>>,
    /// Step and prompt number, if only one prompt is wanted. In that step, only the rollouts of this prompt are
    /// generated and written, and then the run stops.
    pub only: Option<(u64, u64)>,
    /// Folder of a recorded run that is computed again. Its recorded rollouts are used as drafts.
    pub recorded: Option<PathBuf>,
    pub(super) scorer: Arc<Scorer>,
    pub(super) chat: Chat,
    curriculum: Option<Arc<[usize]>>,
    /// The order of prompts with `per_batch_domain_weights`.
    pub(super) domains: Option<DomainOrder>,
    pub(super) num_kv_blocks: Option<usize>,
}

/// The state of a run that its steps share.
pub(super) struct Run<'a> {
    /// Bitmap of the token ids that the policy can generate.
    pub allowed: Tensor,
    /// The reference model, if the config has a KL term.
    pub reference: Option<Model>,
    /// The teacher, if the config has one.
    pub teacher: Option<Teacher>,
    /// Prepares questions ahead of use.
    pub loader: Loader<Question>,
    /// Rows that the run does not use.
    pub broken: Broken<'a>,
    /// True after a warning about the scores of a step.
    pub warned: bool,
    pub observer: &'a dyn Observer,
}

/// Number of generation batches whose questions are prepared ahead of use.
pub const AHEAD: usize = 1;

impl RlJob {
    /// Calls [`RlJob::open`] for a run that resumes if a checkpoint exists.
    pub fn new(dir: &Path, config: RlConfig, scorer: Arc<Scorer>) -> Result<RlJob> {
        RlJob::open(dir, config, scorer, false)
    }

    /// Indexes the prompts of `config`, or reads the index of an earlier start of this run unless the run is `fresh`.
    /// `scorer` scores the responses. Errors name the file and the row.
    pub fn open(dir: &Path, config: RlConfig, scorer: Arc<Scorer>, fresh: bool) -> Result<RlJob> {
        let Start { model, config: model_config, encoder } =
            Start::open(config.model.as_deref(), EncodingPurpose::Ask, &config.training.images, &config.optimizer)?;
        if config.train_files.is_empty() {
            return Err(Error::input("train_files", "an empty list", "at least one file of prompts"));
        }
        let encoder =
            encoder.with_variables(&config.training.chat_template_kwargs.variables())?.scored_by(scorer.clone());
        distillation::check(&config, &encoder, &model_config)?;
        let chat = encoder.chat.clone();
        let longest = Longest { tokens: config.max_prompt_length, key: "max_prompt_length" };
        let share = config.training.max_bad_rows;
        let fresh = fresh || record::rows_may_differ(&config.training.accept_changed);
        let data = Dataset::open(dir, &config.train_files, &encoder, longest, share, config.seed, fresh)?;
        let mut common = JobCommon::new(dir, "rl", model, model_config, data, config.validation.val_size)?;
        let (data, index) = (&mut common.data, &common.index);
        let longest = index.shapes().map(|shape| shape.tokens).max().unwrap_or(0) + config.max_response_length;
        if longest > config.micro_batch_tokens {
            let expected = format!("at least {longest}, the tokens of the longest prompt and response");
            return Err(Error::input("micro_batch_tokens", config.micro_batch_tokens.to_string(), expected));
        }
        let positions = common.model_config.text.max_position_embeddings;
        if longest > positions {
            let what =
                format!("the longest prompt and response have {longest} tokens, the model has {positions} positions");
            data.remarks.push(format!("{what} (max_position_embeddings)"));
        }
        data.remark_repeats("train_batch_size", config.train_batch_size, config.train_batch_size as u64);
        if config.rollout.n == 1 && config.adv_estimator != AdvEstimator::ReinforcePlusPlus {
            // A group of one is accepted, as in verl (TRL rejects it). It is REINFORCE without a baseline, and a remark
            // reports that.
            data.remarks.push("rollout.n is 1: a group of one response has no baseline".to_owned());
        }
        let questions = generate::streamed(data, encoder, common.model_config.clone());
        if config.reward.mode == Mode::Compat && config.reward.scorer.command.is_empty() {
            let what = "reward.mode compat accepts unevaluated answers, as the published scorer does: a model can learn to \
                        answer \"15 + 63\" with \\boxed{15 + 63}";
            data.remarks.push(what.to_owned());
        }
        data.remarks.extend(scorer.expectation());
        // The task only scores the rows that it receives and has no rows of its own.
        let task = VerifiedRows::scored_by("rl", Vec::new(), scorer.clone())?;
        let first = data.row_at(data.index.number(0))?;
        task.scoring.check(&first)?;
        data.remarks.extend(task.scoring.check_prompt(&chat, &first)?);
        let weights = config.per_batch_domain_weights.as_ref();
        let domains = weights.map(|weights| DomainOrder::open(&config, weights, data)).transpose()?;
        common.total_steps = config.total_steps(index.len());
        let (warmup, total) = (config.warmup_steps, common.total_steps);
        if warmup > 0 && warmup >= total {
            data.remarks
                .push(format!("warmup_steps is {warmup}, and the run has {total} steps: it ends within the warm-up"));
        }
        Ok(RlJob {
            task,
            curriculum: curriculum::order(config.curriculum, data)?,
            domains,
            num_kv_blocks: config.rollout.num_kv_blocks,
            common,
            config,
            questions: Arc::new(questions),
            only: None,
            recorded: None,
            scorer,
            chat,
        })
    }

    /// Returns a loader that prepares the questions of all generation batches after the first `consumed` questions.
    pub fn loader(&self, consumed: u64) -> Result<Loader<Question>> {
        let (config, size) = (&self.config, self.config.gen_batch() as u64);
        let mut order = PackPlan::new(self.common.index.len(), 1, config.seed, config.shuffle)?;
        let (sorted, mut domains) = (self.curriculum.clone(), self.domains.clone());
        let mut sample_at = move |at: u64| match (&sorted, &mut domains) {
            (Some(sorted), _) => sorted[(at % sorted.len() as u64) as usize],
            (_, Some(domains)) => domains.sample_at(at),
            _ => order.sample_at(at),
        };
        let batches = (0..).map(move |k| {
            let first = consumed + k * size;
            Ok((first..first + size).map(&mut sample_at).collect())
        });
        Loader::new(self.questions.clone(), Box::new(batches), config.training.dataloader_num_workers, AHEAD)
    }

    /// Returns the settings under which log-probs are computed.
    pub(super) fn policy(&self, allowed: Tensor) -> Policy {
        Policy { allowed: Some(allowed), temperature: self.config.rollout.temperature as f32 }
    }
}
