//! Measuring a model on a task: greedy answers, answers at temperature 1, verdicts, summary.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::samples::{Answer, Sample, to_jsonl};
use super::stats;
use crate::config::EvalConfig;
use crate::data::{Eager, Index, Row};
use crate::device::{Device, Plan, Region, Target};
use crate::engine::{EngineConfig, allowed_ids, stop_token_ids};
use crate::error::{Error, Result};
use crate::files;
use crate::image::Processor;
use crate::model::{Model, ModelConfig};
use crate::observe::Observer;
use crate::ops::sample::SamplingParams;
use crate::reward::judge;
use crate::rollout::ask::{self, Asking, Question, Rollout};
use crate::task::{Metrics, Task, TaskSpec};
use crate::tensor::DType;
use crate::text::Chat;

/// A model to be measured on one task's rows.
pub struct Job<'a> {
    /// Model directory.
    pub model: &'a Path,
    /// Settings.
    pub config: &'a EvalConfig,
    /// What it is measured on.
    pub spec: &'static TaskSpec,
    /// Scores answers.
    pub task: &'a dyn Task,
    index: Index,
    questions: Eager<Question>,
    chat: Chat,
    stop_token_ids: Arc<[u32]>,
    model_config: ModelConfig,
}

impl<'a> Job<'a> {
    /// Makes the prompts. Errors name the row.
    pub fn new(
        model: &'a Path,
        config: &'a EvalConfig,
        spec: &'static TaskSpec,
        task: &'a dyn Task,
    ) -> Result<Job<'a>> {
        let chat = Chat::load(model)?;
        let processor = Processor::load(model)?;
        let stop_token_ids = stop_token_ids(model, &[chat.ids.im_end, chat.ids.endoftext])?;
        let model_config = ModelConfig::load(&model.join("config.json"))?;
        let rows = task.rows();
        let rows = &rows[..rows.len().min(config.limit.unwrap_or(usize::MAX))];
        // Nothing is left out of a measurement: a prompt that does not fit the model's context is an error.
        let longest = model_config.max_position_embeddings;
        let (questions, left_out) = ask::questions(rows, &chat, &processor, &model_config, longest)?;
        if left_out > 0 {
            let found = format!("{left_out} prompts longer than max_position_embeddings, which is {longest}");
            return Err(Error::input(model.display().to_string(), found, "prompts within the model's context"));
        }
        let index = ask::index(questions.iter());
        Ok(Job { model, config, spec, task, index, questions, chat, stop_token_ids, model_config })
    }

    /// Number of questions.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True when there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes each region needs, counted.
    pub fn plan(&self, target: Target) -> Result<Plan> {
        let mut dev = Device::count_for(target);
        let model = Model::empty(&mut dev, self.model_config.clone(), DType::of(self.config.dtype, target.kind))?;
        let engine = self.engine_config(&mut dev)?;
        let questions: Vec<&Question> = self.questions.iter().collect();
        ask::plan(&mut dev, &model, &questions, self.asking(engine, 1.0, self.config.repeats.max(1)))?;
        Ok(dev.high_water())
    }

    /// Answers, verdicts and metrics, in the order of the rows. Errors with [`Error::Stopped`] when the user asks to stop.
    pub fn run(&self, dev: &mut Device, observer: &dyn Observer, label: &str) -> Result<Measured> {
        let model = Model::load(dev, self.model, DType::of(self.config.dtype, dev.kind()))?;
        let engine = self.engine_config(dev)?;
        let questions: Vec<&Question> = self.questions.iter().collect();
        let greedy = usize::from(self.config.greedy);
        let total = questions.len() * (greedy + self.config.repeats);
        observer.begin(label, "answers", total as u64, 0);
        let mut done = 0;
        let mut ask = |temperature: f32, n: usize| -> Result<Vec<Rollout>> {
            if n == 0 {
                return Ok(Vec::new());
            }
            let asking = self.asking(engine, temperature, n);
            let rollouts = ask::ask(dev, &model, &questions, 0, asking, |ended| {
                observer.step((done + ended) as u64, &[]);
                // Nothing is kept of a measurement that is not whole.
                if observer.stop_requested() { Err(Error::Stopped) } else { Ok(()) }
            })?;
            done += rollouts.len();
            Ok(rollouts)
        };
        let greedy = ask(0.0, greedy)?;
        let sampled = ask(1.0, self.config.repeats)?;
        observer.end();
        let sample = |(i, question): (usize, &Question)| Sample {
            task: self.spec.name.to_owned(),
            index: i as u64,
            id: question.row.id.clone(),
            question: question.row.question(),
            target: question.row.ground_truth.clone().unwrap_or_default(),
            greedy: greedy.get(i).map(answer),
            sampled: sampled.iter().skip(i * self.config.repeats).take(self.config.repeats).map(answer).collect(),
        };
        let samples = self.questions.iter().enumerate().map(sample).collect();
        Ok(Measured::new(self.spec, self.task.rows(), samples))
    }

    fn asking(&self, engine: EngineConfig, temperature: f32, n: usize) -> Asking<'_> {
        Asking {
            engine,
            sampling: SamplingParams { temperature, ..SamplingParams::default() },
            n,
            max_tokens: self.config.max_new_tokens,
            stop_token_ids: &self.stop_token_ids,
            chat: &self.chat,
            task: self.task,
        }
    }

    fn engine_config(&self, dev: &mut Device) -> Result<EngineConfig> {
        let bitmap = allowed_ids(&self.model_config, &self.chat);
        let allowed = dev.upload(Region::Weights, &bitmap, &[bitmap.len()])?;
        let longest = self.index.shapes().map(|shape| shape.tokens).max().unwrap_or(1);
        let mut config = EngineConfig::new(longest.saturating_add(self.config.max_new_tokens));
        config.max_num_seqs = self.config.max_num_seqs;
        config.vision_rows = ask::vision_rows(&self.model_config, &self.index, self.config.max_num_seqs);
        config.allowed = Some(allowed);
        config.seed = self.config.seed;
        Ok(config)
    }
}

fn answer(rollout: &Rollout) -> Answer {
    Answer {
        response: rollout.response.clone(),
        response_length: rollout.output.token_ids.len(),
        finish_reason: rollout.output.finish_reason.as_str().to_owned(),
        score: rollout.score.score,
        acc_score: rollout.score.acc_score,
        format_reward_score: rollout.score.format_reward_score,
        predict_str: rollout.score.predict_str.clone(),
        why: rollout.score.why.to_string(),
        judge: rollout.judge.clone(),
    }
}

/// A task as it was measured.
pub struct Measured {
    /// The task.
    pub spec: &'static TaskSpec,
    /// Its questions with their answers.
    pub samples: Vec<Sample>,
    metrics: Vec<Metrics>,
    rules_alone: Vec<Metrics>,
}

impl Measured {
    /// Scores what was answered: `samples` in the order of `rows`.
    pub fn new(spec: &'static TaskSpec, rows: &[Row], samples: Vec<Sample>) -> Measured {
        let of = |rules_alone: bool| -> Vec<Metrics> {
            rows.iter().zip(&samples).map(|(row, sample)| (spec.score)(row, &sample.marks(rules_alone))).collect()
        };
        let (metrics, rules_alone) = (of(false), of(true));
        Measured { spec, samples, metrics, rules_alone }
    }

    /// Its part of `summary.json`: metrics with 95 % intervals, those by the rules alone beside them.
    fn summary(&self, config: &EvalConfig) -> Value {
        let metrics = (self.spec.aggregate)(&self.metrics, config.mode);
        let published = self.spec.published.map(|(metric, value)| json!({metric: value}));
        json!({
            "n": self.samples.len(),
            "rule_only": (self.spec.aggregate)(&self.rules_alone, config.mode),
            "ci95": intervals(&metrics, &self.metrics),
            "metrics": metrics,
            "published_omr_7b": published,
        })
    }
}

/// Intervals of the accuracies among `metrics` that are means over `questions`. The format has none: it is a habit.
fn intervals(metrics: &Metrics, questions: &[Metrics]) -> Map<String, Value> {
    let interval = |name: &String| -> Option<(String, Value)> {
        let scores: Option<Vec<f64>> = questions.iter().map(|question| question.get(name)?.as_f64()).collect();
        Some((name.clone(), json!(stats::accuracy(&scores?).ci95)))
    };
    metrics.keys().filter(|name| *name != "format_score").filter_map(interval).collect()
}

/// Writes `dir/samples.jsonl` and `dir/summary.json`, each whole; `judge` is the name of the judge that was asked,
/// `seconds` what the measurement took. What the judge came to.
pub fn write(
    dir: &Path,
    model: &Path,
    config: &EvalConfig,
    judge: Option<&str>,
    measured: &[Measured],
    seconds: f64,
) -> Result<Option<judge::Summary>> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let lines: Result<String> = measured.iter().map(|task| to_jsonl(&task.samples)).collect();
    files::write(dir.join("samples.jsonl"), lines?.as_bytes())?;
    let judge = judge.map(|name| {
        let mut judge = judge::Summary::new(name);
        let samples = measured.iter().flat_map(|task| &task.samples);
        samples.flat_map(Sample::answers).for_each(|answer| judge.count(answer.judge.as_ref()));
        judge
    });
    let tasks: Map<String, Value> =
        measured.iter().map(|task| (task.spec.name.to_owned(), task.summary(config))).collect();
    let summary = json!({
        "model": model.display().to_string(),
        "mode": config.mode.name(),
        "judge": judge,
        "tasks": tasks,
        "seconds": seconds,
    });
    files::write(dir.join("summary.json"), format!("{summary:#}\n").as_bytes())?;
    Ok(judge)
}

/// Mean format score of the answers at temperature 1, or of the greedy ones where none was sampled.
pub fn format_share(samples: &[Sample]) -> f64 {
    let sampled: Vec<f64> = samples.iter().flat_map(|s| &s.sampled).map(|a| a.format_reward_score).collect();
    let greedy = || samples.iter().filter_map(|s| s.greedy.as_ref()).map(|a| a.format_reward_score).collect();
    stats::mean(&if sampled.is_empty() { greedy() } else { sampled }).mean
}
