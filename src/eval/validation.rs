//! Validation during training: the model answers questions of tasks and of the user's files. The metrics have verl's
//! names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::subsets;
use crate::config::{Mode, RlConfig, SftConfig, ValidationConfig};
use crate::data::encoder::EncodingPurpose;
use crate::data::{self, Encoder, Index, Row};
use crate::device::{Device, Region};
use crate::engine::{EngineConfig, Prompt, allowed_ids, stop_token_ids};
use crate::error::{Error, Result};
use crate::model::{Model, ModelConfig};
use crate::ops::sample::SamplingParams;
use crate::ranks::Ranks;
use crate::reward::Scorer;
use crate::rollout::generate::{self, Numbers, Question, Rollout, RolloutRequest};
use crate::rollout::wire;
use crate::task::{self, Source, Task, TaskRows, TaskSpec, VerifiedRows};
use crate::train::metrics::Metrics;
use crate::train::plan::blank;
use crate::train::trainer_config::TaskFile;
use crate::train::validation::{self as train, Validator};

/// Step number for the random numbers of a validation. No training reaches it. It is the same for each validation, so
/// that metrics differ only because of the weights.
const NOISE: u64 = (1 << 28) - 1;

/// Number of questions per rank whose images are in memory at the same time.
const TOGETHER: usize = 512;

/// Source of a row that names none, as in verl.
const UNKNOWN: &str = "unknown";

/// Settings for the validation of a run.
struct Means<'a> {
    /// Model directory that the run starts from.
    model: &'a Path,
    /// Minimum and maximum number of pixels of an image, if configured.
    pixels: [Option<usize>; 2],
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

/// Questions of a validation and the settings for answering them.
struct TaskValidator {
    sets: Vec<Box<dyn Task>>,
    task_files: Vec<TaskFile>,
    describe: String,
    index: Index,
    encoder: Encoder,
    model_config: ModelConfig,
    stop_token_ids: Arc<[u32]>,
    sampling: SamplingParams,
    n: usize,
    max_new_tokens: usize,
    max_num_seqs: usize,
    seed: u64,
}

/// Returns the validation of an `omr rl` run, if it has one. `folder` is the default folder of the tasks' files.
pub fn rl(
    config: &RlConfig,
    model: &Path,
    scorer: Arc<Scorer>,
    folder: Option<&Path>,
) -> Result<Option<train::Validation>> {
    let means = Means {
        model,
        pixels: [config.image_min_pixels, config.image_max_pixels],
        scorer,
        mode: config.reward.mode,
        max_new_tokens: config.max_response_length,
        seed: config.seed,
        folder,
    };
    open(&config.validation, &means, config.test_freq)
}

/// Returns the validation of an `omr sft` run, if it has one. The rules score in strict mode.
pub fn sft(config: &SftConfig, model: &Path, folder: Option<&Path>) -> Result<Option<train::Validation>> {
    let means = Means {
        model,
        pixels: [config.image_min_pixels, config.image_max_pixels],
        scorer: Arc::new(Scorer::rules(Mode::Strict)),
        mode: Mode::Strict,
        max_new_tokens: config.packing_length,
        seed: config.seed,
        folder,
    };
    open(&config.validation, &means, config.eval_steps)
}

fn open(config: &ValidationConfig, means: &Means<'_>, every: Option<u64>) -> Result<Option<train::Validation>> {
    if !config.is_wanted() {
        return Ok(None);
    }
    let validator = TaskValidator::open(config, means)?;
    train::Validation::new(Box::new(validator), config, every).map(Some)
}

impl TaskValidator {
    /// Reads the questions. Returns an error that names the key if a task is unknown. Returns an error that names the
    /// file and the row if a row has no correct answer, or if its prompt is longer than the model's context.
    fn open(config: &ValidationConfig, means: &Means<'_>) -> Result<TaskValidator> {
        let model_config = ModelConfig::load(&means.model.join("config.json"))?;
        let encoder = Encoder::load(means.model, EncodingPurpose::Ask, model_config.vocab_size, means.pixels)?;
        let ids = &encoder.chat.ids;
        let stop_token_ids = stop_token_ids(means.model, &[ids.im_end, ids.endoftext])?;
        let specs = specs(config)?;
        let sets = sets(config, means, &specs)?;
        let counts: Vec<String> = sets.iter().map(|set| format!("{} of {}", set.rows().len(), set.name())).collect();
        let mut index = Index::default();
        for row in sets.iter().flat_map(|set| set.rows()) {
            let measured = encoder.measure(row).map_err(Error::from)?;
            if measured.tokens > model_config.max_position_embeddings {
                let expected =
                    format!("at most max_position_embeddings, which is {}", model_config.max_position_embeddings);
                return Err(Error::input(&row.place, format!("{} tokens", measured.tokens), expected));
            }
            index.push(data::Shape { tokens: measured.tokens, targets: 0, grids: &measured.grids });
        }
        let kwargs = &config.val_kwargs;
        Ok(TaskValidator {
            sets,
            task_files: task_files(&specs, &task_source(config, means))?,
            describe: format!("{} questions ({})", index.len(), counts.join(", ")),
            index,
            encoder,
            model_config,
            stop_token_ids,
            sampling: SamplingParams {
                temperature: kwargs.temperature as f32,
                top_p: kwargs.top_p as f32,
                top_k: u32::try_from(kwargs.top_k).unwrap_or(0),
                ..SamplingParams::default()
            },
            n: kwargs.n,
            max_new_tokens: kwargs.max_new_tokens.unwrap_or(means.max_new_tokens),
            max_num_seqs: EngineConfig::new(1).max_num_seqs,
            seed: means.seed,
        })
    }

    fn question(&self, row: &Row) -> Result<Question> {
        let (prompt, _) = self.encoder.prompt(row)?;
        let prompt = Prompt::new(&self.model_config, &prompt.ids, &prompt.images).map_err(|e| e.within(&row.place))?;
        // The prompt contains the images. Scoring needs only the text.
        let row = Row { images: Vec::new(), ..row.clone() };
        Ok(Question { prompt: Arc::new(prompt.named(&row.place)), row })
    }

    fn rollout_request<'a>(&'a self, dev: &mut Device, task: &'a dyn Task) -> Result<RolloutRequest<'a>> {
        let bitmap = allowed_ids(&self.model_config, &self.encoder.chat);
        let longest = self.index.shapes().map(|shape| shape.tokens).max().unwrap_or(1);
        let engine = EngineConfig {
            max_num_seqs: self.max_num_seqs,
            vision_rows: generate::vision_rows(&self.model_config, &self.index, self.max_num_seqs),
            allowed: Some(dev.upload(Region::Overlay, &bitmap, &[bitmap.len()])?),
            seed: self.seed,
            step: NOISE,
            ..EngineConfig::new(longest.saturating_add(self.max_new_tokens))
        };
        Ok(RolloutRequest {
            engine,
            sampling: self.sampling,
            n: self.n,
            max_tokens: self.max_new_tokens,
            stop_token_ids: &self.stop_token_ids,
            chat: &self.encoder.chat,
            task,
            recorded: None,
        })
    }

    /// Distributes the questions to the ranks in turn. Every rank then gets all answers and counts them in the order of
    /// the questions.
    fn generate(&self, dev: &mut Device, model: &Model, ranks: &mut dyn Ranks) -> Result<BTreeMap<String, SourceSums>> {
        let (mut figures, mut first) = (BTreeMap::<String, SourceSums>::new(), 0);
        let (rank, size) = (ranks.rank(), ranks.size());
        for set in &self.sets {
            let rollout_request = self.rollout_request(dev, &**set)?;
            for rows in set.rows().chunks(TOGETHER * size) {
                let own: Vec<&Row> = rows.iter().skip(rank).step_by(size).collect();
                let questions = own.par_iter().map(|row| self.question(row)).collect::<Result<Vec<Question>>>()?;
                let questions: Vec<&Question> = questions.iter().collect();
                let numbers = Numbers { first: first + rank as u64, every: size as u64 };
                let generated = generate::generate(dev, model, &questions, numbers, rollout_request, None, |_| Ok(()));
                let rollouts =
                    wire::gathered(ranks, generated.map(|generated| generated.rollouts), rows.len() * self.n)?;
                for (row, answers) in rows.iter().zip(rollouts.chunks(self.n)) {
                    figures.entry(source(row).to_owned()).or_default().add(answers);
                }
                first += rows.len() as u64;
            }
        }
        Ok(figures)
    }
}

impl Validator for TaskValidator {
    fn names(&self) -> Vec<String> {
        let mut sources: Vec<&str> = self.sets.iter().flat_map(|set| set.rows()).map(source).collect();
        sources.sort_unstable();
        sources.dedup();
        let mut figures = SourceSums::default();
        figures.of_question([(); 3].map(|()| vec![0.0; self.n]), &vec![""; self.n], 0);
        let mut names: Vec<String> =
            sources.iter().flat_map(|source| figures.named(source)).map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }

    fn task_files(&self) -> &[TaskFile] {
        &self.task_files
    }

    fn max_num_seqs(&self) -> usize {
        self.max_num_seqs
    }

    fn limit_num_seqs(&mut self, max_num_seqs: usize) {
        self.max_num_seqs = max_num_seqs;
    }

    fn count(&self, dev: &mut Device, model: &Model) -> Result<()> {
        let mut largest: Vec<usize> = (0..self.index.len()).collect();
        largest.sort_by_key(|&i| std::cmp::Reverse(self.index.tokens(i)));
        largest.truncate(self.max_num_seqs);
        let question = |&i: &usize| {
            let made = blank(&self.model_config, self.index.shape(i));
            let prompt = Prompt { pixels: made.images, ..Prompt::text(made.input_ids) };
            Question { row: Row::default(), prompt: Arc::new(prompt) }
        };
        let questions: Vec<Question> = largest.iter().map(question).collect();
        let mark = dev.mark(Region::Overlay);
        let rollout_request = self.rollout_request(dev, &*self.sets[0])?;
        generate::plan(dev, model, &questions.iter().collect::<Vec<_>>(), rollout_request)?;
        dev.release(mark);
        Ok(())
    }

    fn measure(&self, dev: &mut Device, model: &Model, ranks: &mut dyn Ranks) -> Result<Metrics> {
        let mark = dev.mark(Region::Overlay);
        let figures = self.generate(dev, model, ranks)?;
        dev.release(mark);
        let named = figures.iter().flat_map(|(source, figures)| figures.named(source));
        Ok(named.map(|(name, value)| (name, value.into())).collect())
    }
}

/// Returns the questions of each file and each task, with their scorer.
fn sets(config: &ValidationConfig, means: &Means<'_>, specs: &[&'static TaskSpec]) -> Result<Vec<Box<dyn Task>>> {
    let most = config.val_max_samples;
    let mut sets: Vec<Box<dyn Task>> = Vec::new();
    for entry in &config.val_files {
        let (mut rows, _) = data::load(std::slice::from_ref(entry), means.seed)?;
        rows.truncate(most.unwrap_or(rows.len()));
        let name = entry.path.display().to_string();
        sets.push(Box::new(VerifiedRows::scored_by(name, rows, means.scorer.clone())?));
    }
    for &spec in specs {
        let rows = TaskRows::new(spec, task_source(config, means), most, means.scorer.clone(), false).load()?;
        if rows.rows().is_empty() {
            return Err(Error::input("val_tasks", format!("no questions of {}", spec.name), "at least one question"));
        }
        sets.push(Box::new(rows));
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
fn task_source<'a>(config: &'a ValidationConfig, means: &Means<'a>) -> Source<'a> {
    Source {
        datasets: &[],
        folder: config.val_data_dir.as_deref().or(means.folder),
        mode: means.mode,
        seed: means.seed,
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

/// Variables measured for each answer, named as in verl. Only the first is reported under `val-core`.
const VARIABLES: [&str; 3] = ["acc", "reward", "format_reward_score"];

/// Sums over the questions of one source.
#[derive(Default)]
struct SourceSums {
    questions: usize,
    /// Sums by section and name.
    sums: BTreeMap<(&'static str, String), f64>,
}

impl SourceSums {
    /// Adds the answers to a question.
    fn add(&mut self, answers: &[Rollout]) {
        let of = |value: fn(&Rollout) -> f64| answers.iter().map(value).collect();
        let values = [of(|a| a.score.acc_score), of(|a| a.score.score), of(|a| a.score.format_reward_score)];
        let votes: Vec<&str> = answers.iter().map(|a| a.score.predict_str.as_str()).collect();
        self.of_question(values, &votes, answers.iter().map(|a| a.output.token_ids.len()).sum());
    }

    /// Adds a question with the values and votes of its answers and their total number of tokens.
    fn of_question(&mut self, values: [Vec<f64>; 3], votes: &[&str], tokens: usize) {
        self.questions += 1;
        let mut add = |section, name, value| *self.sums.entry((section, name)).or_default() += value;
        for (variable, values) in VARIABLES.iter().zip(&values) {
            for (name, value) in subsets::of_question(values, votes) {
                let core = *variable == VARIABLES[0] && subsets::is_core(&name, values.len());
                add(if core { "val-core" } else { "val-aux" }, format!("{variable}/{name}"), value);
            }
        }
        add("val-aux", "response_length/mean".to_owned(), tokens as f64 / votes.len() as f64);
    }

    /// Returns the means over the questions, under verl's names.
    fn named(&self, source: &str) -> impl Iterator<Item = (String, f64)> {
        let mean = |sum: &f64| sum / self.questions as f64;
        self.sums.iter().map(move |((section, name), sum)| (format!("{section}/{source}/{name}"), mean(sum)))
    }
}
