//! Measuring a model on a task: greedy answers, answers at temperature 1, verdicts, summary.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::samples::{Answer, Sample, to_jsonl};
use super::stats::{self, Interval};
use crate::config::{EvalConfig, Mode};
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
use crate::task::hub::CLUSTER;
use crate::task::{Answers, Counted, Crash, Metric, Task, TaskRows, TaskSpec, published};
use crate::tensor::DType;
use crate::text::Chat;

/// What lmms-eval's vLLM back-end samples with where a task says nothing: the published AIME figures are drawn so.
const PUBLISHED_TOP_P: f32 = 0.95;

/// A model to be measured on one task's rows.
pub struct Job<'a> {
    /// Model directory.
    pub model: &'a Path,
    /// Settings.
    pub config: &'a EvalConfig,
    /// What it is measured on.
    pub task: &'a TaskRows,
    index: Index,
    questions: Eager<Question>,
    chat: Chat,
    stop_token_ids: Arc<[u32]>,
    model_config: ModelConfig,
}

impl<'a> Job<'a> {
    /// Makes the prompts. Errors name the row.
    pub fn new(model: &'a Path, config: &'a EvalConfig, task: &'a TaskRows) -> Result<Job<'a>> {
        let chat = Chat::load(model)?;
        let processor = Processor::load(model)?;
        let stop_token_ids = stop_token_ids(model, &[chat.ids.im_end, chat.ids.endoftext])?;
        let model_config = ModelConfig::load(&model.join("config.json"))?;
        // Nothing is left out of a measurement: a prompt that does not fit the model's context is an error.
        let longest = model_config.max_position_embeddings;
        let (questions, left_out) = ask::questions(task.rows(), &chat, &processor, &model_config, longest)?;
        if left_out > 0 {
            let found = format!("{left_out} prompts longer than max_position_embeddings, which is {longest}");
            return Err(Error::input(model.display().to_string(), found, "prompts within the model's context"));
        }
        let index = ask::index(questions.iter());
        Ok(Job { model, config, task, index, questions, chat, stop_token_ids, model_config })
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
        let (_, sampled) = self.answers();
        ask::plan(&mut dev, &model, &questions, self.asking(engine, 1.0, sampled.max(1)))?;
        Ok(dev.high_water())
    }

    /// Answers, verdicts and metrics, in the order of the rows. Errors with [`Error::Stopped`] when the user asks to stop.
    pub fn run(&self, dev: &mut Device, observer: &dyn Observer, label: &str) -> Result<Measured> {
        let model = Model::load(dev, self.model, DType::of(self.config.dtype, dev.kind()))?;
        let engine = self.engine_config(dev)?;
        let questions: Vec<&Question> = self.questions.iter().collect();
        let (greedy, repeats) = self.answers();
        let total = questions.len() * (greedy + repeats);
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
        let sampled = ask(1.0, repeats)?;
        observer.end();
        let sample = |(i, row): (usize, &Row)| Sample {
            greedy: greedy.get(i).map(answer),
            sampled: sampled.iter().skip(i * repeats).take(repeats).map(answer).collect(),
            ..Sample::of(self.task, self.task.indices[i], row)
        };
        let samples = self.task.rows().iter().enumerate().map(sample).collect();
        Measured::new(self.task, samples, self.config.mode)
    }

    /// Answers to each question: greedy ones, and those at temperature 1.
    fn answers(&self) -> (usize, usize) {
        match self.task.spec.answers {
            Answers::AsConfigured => (usize::from(self.config.greedy), self.config.repeats),
            Answers::Greedy => (1, 0),
            Answers::Sampled(n) => (0, n),
        }
    }

    fn asking(&self, engine: EngineConfig, temperature: f32, n: usize) -> Asking<'_> {
        Asking {
            engine,
            sampling: SamplingParams { temperature, top_p: self.top_p(), ..SamplingParams::default() },
            n,
            max_tokens: self.max_new_tokens(),
            stop_token_ids: &self.stop_token_ids,
            chat: &self.chat,
            task: self.task,
        }
    }

    fn max_new_tokens(&self) -> usize {
        self.config.max_new_tokens.unwrap_or(self.task.spec.max_new_tokens)
    }

    fn top_p(&self) -> f32 {
        match (self.config.mode, self.task.spec.answers) {
            (Mode::Compat, Answers::Sampled(_)) => PUBLISHED_TOP_P,
            _ => SamplingParams::default().top_p,
        }
    }

    fn engine_config(&self, dev: &mut Device) -> Result<EngineConfig> {
        let bitmap = allowed_ids(&self.model_config, &self.chat);
        let allowed = dev.upload(Region::Weights, &bitmap, &[bitmap.len()])?;
        let longest = self.index.shapes().map(|shape| shape.tokens).max().unwrap_or(1);
        let mut config = EngineConfig::new(longest.saturating_add(self.max_new_tokens()));
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
    /// Its questions with their answers and metrics.
    pub samples: Vec<Sample>,
    crashed: Vec<(u64, Crash)>,
    mode: Mode,
    counted: Vec<Counted>,
    rules_alone: Vec<Counted>,
}

impl Measured {
    /// Scores what was answered: `samples` in the order of the rows. In compat, questions that the published evaluation
    /// ends with an error on are left out and named; in strict the first is an error.
    pub fn new(rows: &TaskRows, samples: Vec<Sample>, mode: Mode) -> Result<Measured> {
        let (spec, crashed) = (rows.spec, rows.crashed.clone());
        let (counted, rules_alone) = (Vec::new(), Vec::new());
        let mut measured = Measured { spec, samples: Vec::new(), crashed, mode, counted, rules_alone };
        for (row, mut sample) in rows.rows().iter().zip(samples) {
            let of = |rules_alone: bool| (spec.score)(row, &sample.marks(rules_alone), mode);
            match (of(false), of(true)) {
                (Ok(metrics), Ok(rules_alone)) => {
                    sample.metrics = metrics.clone();
                    measured.samples.push(sample);
                    let cluster = row.extra.get(CLUSTER).and_then(Value::as_str).map(str::to_owned);
                    measured.rules_alone.push(Counted { metrics: rules_alone, cluster: cluster.clone() });
                    measured.counted.push(Counted { metrics, cluster });
                }
                (Err(crash), _) | (_, Err(crash)) if mode == Mode::Compat => {
                    measured.crashed.push((sample.index, crash));
                }
                (Err(crash), _) | (_, Err(crash)) => return Err(crash.error(&row.place)),
            }
        }
        measured.crashed.sort_by_key(|(index, _)| *index);
        Ok(measured)
    }

    /// Its part of `summary.json`: metrics with 95 % intervals, those by the rules alone and the published ones beside
    /// them.
    fn summary(&self) -> Value {
        let metrics = (self.spec.aggregate)(&self.counted, self.mode);
        // The format has no interval: it is a habit.
        let means = metrics.iter().filter(|m| !m.observations.is_empty() && m.name != "format_score");
        let ci95: Map<String, Value> =
            means.map(|m| (m.name.clone(), json!(stats::clustered(&m.observations).ci95))).collect();
        let published: Map<String, Value> = self.published().map(|(model, x)| (model.to_owned(), x.into())).collect();
        let mut summary = json!({
            "n": self.samples.len(),
            "rule_only": values((self.spec.aggregate)(&self.rules_alone, self.mode)),
            "ci95": ci95,
            "metrics": values(metrics),
            "published_omr_7b": published.get(published::OURS),
        });
        if let Some(metric) = self.spec.published {
            summary["published"] = json!({"metric": metric, "models": published});
        }
        if !self.crashed.is_empty() {
            let crash = |(index, crash): &(u64, Crash)| json!({"index": index, "stage": crash.stage.name(), "type": crash.class, "found": crash.found});
            summary["crashed"] = self.crashed.iter().map(crash).collect();
        }
        summary
    }

    /// The metric that others publish, or each mean, beside what OpenMMReasoner-7B is published with: a line for people.
    pub fn line(&self) -> String {
        let metrics = (self.spec.aggregate)(&self.counted, self.mode);
        let shown = metrics.iter().filter(|m| self.spec.published.is_none_or(|name| m.name == name));
        let shown = shown.filter(|m| self.spec.published.is_some() || !m.observations.is_empty()).map(|metric| {
            let Interval { lo, hi } = stats::clustered(&metric.observations).ci95;
            let interval = format!(" ({:.1} to {:.1})", 100.0 * lo, 100.0 * hi);
            let interval = if metric.observations.is_empty() { String::new() } else { interval };
            match metric.value.as_f64() {
                Some(share) => format!("{} {:.1} %{interval}", metric.name, 100.0 * share),
                None => format!("{} {}", metric.name, metric.value),
            }
        });
        let shown: Vec<String> = shown.collect();
        let ours = self.published().find(|(model, _)| *model == published::OURS);
        let ours = ours.map(|(model, x)| format!("; {model} is published with {:.1} %", 100.0 * x));
        format!("{}: {}{}", self.spec.name, shown.join(", "), ours.unwrap_or_default())
    }

    fn published(&self) -> impl Iterator<Item = (&'static str, f64)> {
        published::of(self.spec.name).into_iter().filter(|_| self.spec.published.is_some())
    }
}

fn values(metrics: Vec<Metric>) -> Map<String, Value> {
    metrics.into_iter().map(|metric| (metric.name, metric.value)).collect()
}

/// Writes `dir/samples.jsonl` and `dir/summary.json`, each whole; `model` is what was measured,
/// where that is known, `judge` the name of the judge that was asked, `seconds` what the measurement took. What the judge came to.
pub fn write(
    dir: &Path,
    model: Option<&Path>,
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
    let tasks: Map<String, Value> = measured.iter().map(|task| (task.spec.name.to_owned(), task.summary())).collect();
    let summary = json!({
        "model": model.map(|model| model.display().to_string()),
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
