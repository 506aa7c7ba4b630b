//! Validation during training: the loss of the user's rows with answers, and the model's answers to questions of tasks
//! and of the user's rows. The metrics have verl's names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::source_sums::SourceSums;
use crate::training::job::JobCommon;
use crate::training::metrics::Metrics;
use crate::training::trainer_config::{RowImages, TaskFile};
use crate::training::val_loss::HeldOut;
use crate::training::validation as train;
use crate::training::validation::{Measured, Validator};
use omr_base::config::{DatasetConfig, Dtype, Mode, RlConfig, SftConfig, TrainingConfig, ValidationConfig};
use omr_base::error::{Error, Result};
use omr_data::reward::{Scorer, Shares};
use omr_data::rows::forms::answer::label;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{self, Encoder, Index, Row};
use omr_data::task::{self, Source, TaskRows, TaskSpec, VerifiedRows};
use omr_model::engine::{Engine, EngineConfig, EngineCoreRequest, Noise, RequestParams};
use omr_model::llm::{Llm, Workload};
use omr_model::nn::Model;
use omr_model::rollout::generate::{self, Numbers, Question, RolloutRequest};
use omr_model::rollout::wire;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::sample::SamplingParams;
use omr_runtime::ranks::Ranks;

/// Step number for the random numbers of a validation. No training reaches it. It is the same for each validation, so
/// that metrics differ only because of the weights.
const NOISE: u64 = (1 << 28) - 1;

/// Number of questions per rank whose images are in memory at the same time.
const TOGETHER: usize = 512;

/// Source of a row that names none, as in verl.
const UNKNOWN: &str = "unknown";

/// Settings for the validation of a run.
struct ValidationInputs<'a> {
    /// The training job that is validated.
    common: &'a JobCommon,
    /// Sizes of images and variables of the chat template.
    training: &'a TrainingConfig,
    /// Scorer of the answers.
    scorer: Arc<Scorer>,
    /// Mode of prompts and scores of tasks.
    mode: Mode,
    /// Default maximum length of an answer, in tokens.
    max_new_tokens: usize,
    /// Seed of the run.
    seed: u64,
    /// Default folder of the tasks' files.
    folder: Option<&'a Path>,
}

/// The user's own rows for a validation, with the name of their file or key.
struct OwnRows {
    name: String,
    rows: Vec<Row>,
}

/// Questions of a validation and the settings for answering them.
struct TaskValidator {
    sets: Vec<VerifiedRows>,
    task_files: Vec<TaskFile>,
    describe: String,
    index: Index,
    llm: Llm,
    params: RequestParams,
    n: usize,
    max_num_seqs: usize,
}

/// Returns the validation of the `omr rl` run `common`, if it has one. `folder` is the default folder of the tasks'
/// files.
pub fn rl(
    config: &RlConfig,
    common: &JobCommon,
    scorer: Arc<Scorer>,
    folder: Option<&Path>,
) -> Result<Option<train::Validation>> {
    let validation = &config.validation;
    if !validation.is_wanted() {
        return Ok(None);
    }
    let inputs = ValidationInputs {
        common,
        training: &config.training,
        scorer,
        mode: config.reward.mode,
        max_new_tokens: config.max_response_length,
        seed: config.seed,
        folder,
    };
    let (own, images) = own_rows(validation, &inputs)?;
    let answers = TaskValidator::open(validation, &inputs, own)?;
    train::Validation::new(Measured { loss: None, answers, images }, validation, config.test_freq).map(Some)
}

/// Returns the validation of the `omr sft` run `common`, if it has one. Rows with an answer give the validation loss.
/// The rules score the answers to the other rows in strict mode.
pub fn sft(config: &SftConfig, common: &JobCommon, folder: Option<&Path>) -> Result<Option<train::Validation>> {
    let validation = &config.validation;
    if !validation.is_wanted() {
        return Ok(None);
    }
    let longest = common.index.shapes().map(|shape| shape.targets).max().unwrap_or(0);
    let inputs = ValidationInputs {
        common,
        training: &config.training,
        scorer: Arc::new(Scorer::rules(Mode::Strict)),
        mode: Mode::Strict,
        max_new_tokens: (2 * longest).clamp(1, config.packing_length),
        seed: config.seed,
        folder,
    };
    let (mut answered, (mut own, images)) = (Vec::new(), own_rows(validation, &inputs)?);
    for OwnRows { rows, .. } in &mut own {
        let (with_answer, questions) = std::mem::take(rows).into_iter().partition(Row::is_answered);
        *rows = questions;
        if validation.predict_with_generate {
            rows.extend(with_answer.iter().map(|row: &Row| Row { ground_truth: label(row), ..row.clone() }));
        }
        answered.extend(with_answer);
    }
    let mut loss = None;
    if !answered.is_empty() {
        let encoder = inputs.encoder(EncodingPurpose::Train)?.with_newline(config.train_newline);
        loss = Some(HeldOut::new(answered, encoder, config)?);
    }
    let answers = TaskValidator::open(validation, &inputs, own)?;
    train::Validation::new(Measured { loss, answers, images }, validation, config.eval_steps).map(Some)
}

/// Returns the rows of `val_files` and the rows that `val_size` has split off, and the images of all of them.
fn own_rows(config: &ValidationConfig, inputs: &ValidationInputs<'_>) -> Result<(Vec<OwnRows>, Vec<RowImages>)> {
    let most = config.val_max_samples.unwrap_or(usize::MAX);
    let of_file = |entry: &DatasetConfig| {
        let (rows, _) = rows::load(std::slice::from_ref(entry), inputs.seed)?;
        Ok(OwnRows { name: entry.path.display().to_string(), rows })
    };
    let mut own = config.val_files.iter().map(of_file).collect::<Result<Vec<_>>>()?;
    own.extend(config.val_size.map(|_| OwnRows { name: "val_size".to_owned(), rows: inputs.common.held_out.clone() }));
    let of_row = |row: &Row| row.images.iter().map(|image| (row.place.clone(), image.clone())).collect::<Vec<_>>();
    let of = |own: &OwnRows| RowImages { name: own.name.clone(), images: own.rows.iter().flat_map(of_row).collect() };
    let images = own.iter().map(of).collect();
    own.iter_mut().for_each(|own| own.rows.truncate(most));
    Ok((own, images))
}

impl ValidationInputs<'_> {
    fn encoder(&self, purpose: EncodingPurpose) -> Result<Encoder> {
        let JobCommon { model, model_config, .. } = self.common;
        let encoder = Encoder::load(model, &model_config.chat(), purpose, &self.training.images)?;
        encoder.with_variables(&self.training.chat_template_kwargs.variables())
    }
}

impl TaskValidator {
    /// Reads the questions of the tasks and adds them to the user's `own` questions. Returns `None` if there are none.
    /// Returns an error that names the key if a task is unknown. Returns an error that names the file and the row if a
    /// row has no correct answer, or if its prompt is longer than the model's context.
    fn open(
        config: &ValidationConfig,
        inputs: &ValidationInputs<'_>,
        own: Vec<OwnRows>,
    ) -> Result<Option<Box<dyn Validator>>> {
        let (model, model_config) = (&inputs.common.model, inputs.common.model_config.clone());
        let longest = model_config.text.max_position_embeddings;
        let llm = Llm::open(model, model_config, &inputs.training.images, Dtype::Auto)?;
        let llm = llm.with_variables(inputs.training.chat_template_kwargs.variables())?;
        let specs = specs(config)?;
        let sets = sets(config, inputs, &specs, own)?;
        for set in &sets {
            if let Some(first) = set.rows.first() {
                set.scoring.check_prompt(&llm.encoder.chat, first)?;
            }
        }
        if sets.is_empty() {
            return Ok(None);
        }
        let counts: Vec<String> = sets.iter().map(|set| format!("{} of {}", set.rows.len(), set.name)).collect();
        let mut index = Index::default();
        for row in sets.iter().flat_map(|set| &set.rows) {
            let measured = llm.encoder.measure(row).map_err(Error::from)?;
            if measured.tokens > longest {
                let expected = format!("at most max_position_embeddings, which is {longest}");
                return Err(Error::input(&row.place, format!("{} tokens", measured.tokens), expected));
            }
            index.push(rows::Shape { tokens: measured.tokens, targets: 0, grids: &measured.grids });
        }
        let kwargs = &config.val_kwargs;
        let max_new_tokens = kwargs.max_new_tokens.unwrap_or(inputs.max_new_tokens);
        let answers = match kwargs.n {
            1 => "an answer".to_owned(),
            n => format!("{n} answers"),
        };
        let (questions, counts) = (index.len(), counts.join(", "));
        let describe = format!("{answers} of at most {max_new_tokens} tokens to {questions} questions ({counts})");
        Ok(Some(Box::new(TaskValidator {
            sets,
            task_files: task_files(&specs, &task_source(config, inputs))?,
            describe,
            index,
            params: RequestParams {
                sampling: SamplingParams {
                    temperature: kwargs.temperature as f32,
                    top_p: kwargs.top_p as f32,
                    top_k: u32::try_from(kwargs.top_k).unwrap_or(0),
                    ..SamplingParams::default()
                },
                noise: Noise { seed: inputs.seed, step: NOISE, prompt: 0 },
                ..RequestParams::new(max_new_tokens, llm.stop_token_ids())
            },
            llm,
            n: kwargs.n,
            max_num_seqs: EngineConfig::new(1).max_num_seqs,
        })))
    }

    fn question(&self, row: &Row) -> Result<Question> {
        Ok(Question::new(&self.llm.encoder, &self.llm.config, row.clone())?.0)
    }

    fn workload(&self) -> Workload<'_> {
        let (n, params, max_num_seqs) = (self.n, self.params.clone(), self.max_num_seqs);
        Workload { index: &self.index, n, params, max_num_seqs }
    }

    /// Distributes the questions to the ranks in turn. Every rank then gets all answers and counts them in the order of
    /// the questions.
    fn generate(
        &self,
        dev: &mut Device,
        model: &Model,
        ranks: &mut dyn Ranks,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<(BTreeMap<String, SourceSums>, Shares)> {
        let (mut figures, mut first, mut done) = (BTreeMap::<String, SourceSums>::new(), 0, 0);
        let mut shares = Shares::default();
        let (rank, size) = (ranks.rank(), ranks.size());
        for set in &self.sets {
            let rollout_request = RolloutRequest {
                engine: self.llm.limits(dev, Region::Overlay, &self.workload())?,
                n: self.n,
                params: &self.params,
                chat: &self.llm.encoder.chat,
                task: set,
                recorded: None,
            };
            for rows in set.rows.chunks(TOGETHER * size) {
                let own: Vec<&Row> = rows.iter().skip(rank).step_by(size).collect();
                let questions = own.par_iter().map(|row| self.question(row)).collect::<Result<Vec<Question>>>()?;
                let questions: Vec<&Question> = questions.iter().collect();
                let numbers = Numbers { first: first + rank as u64, every: size as u64 };
                let progress = |ended: usize| {
                    on_progress(done + ended);
                    Ok(())
                };
                let generated = generate::generate(dev, model, &questions, numbers, rollout_request, None, progress);
                let rollouts =
                    wire::gathered(ranks, generated.map(|generated| generated.rollouts), rows.len() * self.n)?;
                rollouts.iter().for_each(|rollout| shares.count(&rollout.response, &rollout.score.why));
                for (row, answers) in rows.iter().zip(rollouts.chunks(self.n)) {
                    figures.entry(source(row).to_owned()).or_default().add(answers);
                }
                first += rows.len() as u64;
                done += questions.len() * self.n;
            }
        }
        Ok((figures, shares))
    }

    /// Estimates the seconds of the validation on one of `size` ranks. Generates the first [`TRIED`] tokens of as many
    /// answers as are generated at the same time, and measures the seconds of a later token of all of them.
    fn estimate(&self, dev: &mut Device, model: &Model, size: usize) -> Result<f64> {
        let limits = self.llm.limits(dev, Region::Overlay, &self.workload())?;
        let max_tokens = TRIED.min(self.params.max_tokens);
        let params = RequestParams { max_tokens, eos_token_ids: [].into(), ..self.params.clone() };
        let rows = self.sets.iter().flat_map(|set| &set.rows).take(self.max_num_seqs.div_ceil(self.n));
        let questions = rows.map(|row| self.question(row)).collect::<Result<Vec<Question>>>()?;
        let answers = (questions.len() * self.n).min(self.max_num_seqs);
        let (begun, mut tokens, mut middle) = (Instant::now(), 0, 0.0);
        let mut engine = Engine::new(model, dev, limits)?;
        for question in questions {
            engine.add_request(EngineCoreRequest::new(question.prompt, self.n, params.clone()))?;
        }
        while engine.has_unfinished_requests() {
            tokens += engine.step(model, dev)?.len();
            if tokens <= answers * TRIED / 2 {
                middle = begun.elapsed().as_secs_f64();
            }
        }
        engine.release(dev);
        let seconds = begun.elapsed().as_secs_f64();
        let per_token = (seconds - middle) / (TRIED / 2) as f64;
        let batches = self.answers().div_ceil(size).div_ceil(answers) as f64;
        Ok(batches * (seconds + per_token * self.params.max_tokens.saturating_sub(TRIED) as f64))
    }
}

/// Number of tokens per answer with which the time of a validation is estimated.
const TRIED: usize = 8;

impl Validator for TaskValidator {
    fn names(&self) -> Vec<String> {
        let sources: BTreeSet<&str> = self.sets.iter().flat_map(|set| &set.rows).map(source).collect();
        let mut names: Vec<String> = sources.iter().flat_map(|source| SourceSums::names(source, self.n)).collect();
        names.sort_unstable();
        names
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }

    fn task_files(&self) -> &[TaskFile] {
        &self.task_files
    }

    fn answers(&self) -> usize {
        self.index.len() * self.n
    }

    fn max_num_seqs(&self) -> usize {
        self.max_num_seqs
    }

    fn limit_num_seqs(&mut self, max_num_seqs: usize) {
        self.max_num_seqs = max_num_seqs;
    }

    fn count(&self, dev: &mut Device, model: &Model) -> Result<()> {
        let workload = self.workload();
        dev.scope(Region::Overlay, |dev| {
            self.llm.limits(dev, Region::Overlay, &workload)?.planned(model, dev, &self.llm.largest(&workload))
        })
    }

    fn seconds(&self, dev: &mut Device, model: &Model, size: usize) -> Result<f64> {
        dev.scope(Region::Overlay, |dev| self.estimate(dev, model, size))
    }

    fn measure(
        &self,
        dev: &mut Device,
        model: &Model,
        ranks: &mut dyn Ranks,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<(Metrics, Option<String>)> {
        let (figures, shares) = dev.scope(Region::Overlay, |dev| self.generate(dev, model, ranks, on_progress))?;
        let named = figures.iter().flat_map(|(source, figures)| figures.named(source));
        Ok((named.map(|(name, value)| (name, value.into())).collect(), shares.warning()))
    }
}

/// Returns the user's own questions and those of each task, with their scorer.
fn sets(
    config: &ValidationConfig,
    inputs: &ValidationInputs<'_>,
    specs: &[&'static TaskSpec],
    own: Vec<OwnRows>,
) -> Result<Vec<VerifiedRows>> {
    let most = config.val_max_samples;
    let mut sets = Vec::new();
    for OwnRows { name, rows } in own.into_iter().filter(|own| !own.rows.is_empty()) {
        sets.push(VerifiedRows::scored_by(name, rows, inputs.scorer.clone())?);
    }
    for &spec in specs {
        let rows = TaskRows::new(spec, task_source(config, inputs), most, inputs.scorer.clone(), false).load()?;
        if rows.rows.is_empty() {
            return Err(Error::input("val_tasks", format!("no questions of {}", spec.name), "at least one question"));
        }
        sets.push(rows);
    }
    Ok(sets)
}

/// Returns the tasks named in `config`.
fn specs(config: &ValidationConfig) -> Result<Vec<&'static TaskSpec>> {
    task::named(&config.val_tasks).map_err(|error| match error {
        Error::Input { found, expected, hint, .. } => {
            Error::Input { place: "val_tasks".to_owned(), found, expected, hint }
        }
        other => other,
    })
}

/// Returns the source from which tasks make their questions.
fn task_source<'a>(config: &'a ValidationConfig, inputs: &ValidationInputs<'a>) -> Source<'a> {
    Source {
        datasets: &[],
        folder: config.val_data_dir.as_deref().or(inputs.folder),
        mode: inputs.mode,
        seed: inputs.seed,
        shuffle_seed: 0,
        file: None,
    }
}

/// Returns the files that the tasks of the hub read.
fn task_files(specs: &[&'static TaskSpec], source: &Source) -> Result<Vec<TaskFile>> {
    let mut files = Vec::new();
    for spec in specs.iter().filter(|spec| spec.hub.is_some()) {
        let of_task = task::hub::files(spec, source)?.into_iter().enumerate();
        files.extend(of_task.map(|(number, path)| TaskFile { task: spec.name, number, path }));
    }
    Ok(files)
}

fn source(row: &Row) -> &str {
    if row.data_source.is_empty() { UNKNOWN } else { &row.data_source }
}
