//! A tiny digits model, rows for it, and training runs of it. Tests of training share these helpers.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use omr_base::config::recipe::VisionConfig;
use omr_base::config::{BaseConfig, Dtype, OptimConfig, RlConfig, SftConfig, TaskConfig};
use omr_base::config::{RolloutConfig, TrainingConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::{Observer, Silent};
use omr_data::reward::Scorer;
use omr_data::rows::{Form, Row, read, write};
use omr_data::task::{digits, recipe};
use omr_data::text::{Message, SPECIAL_TOKENS, Tokenizer, train_tokenizer, write_tokenizer_dir};
use omr_model::nn::Model;
use omr_model::nn::config::Family;
use omr_model::nn::family::qwen2_5_vl;
use omr_runtime::device::{Device, Isa, Plan};
use omr_runtime::ranks::{OneRank, Ranks};
use omr_runtime::tensor::DType;
use omr_runtime_tests::ranks;
use omr_train::eval::validation;
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::metrics::{self, Metrics};
use omr_train::training::sft::SftJob;

/// Contents of a folder's files by relative path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Returns the digits tokenizer.
pub fn tokenizer() -> Tokenizer {
    let words = digits::words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    train_tokenizer(digits::corpus(), &SPECIAL_TOKENS, &words, 512).unwrap()
}

/// Returns the model's shape: width 32, two layers, and one block in the vision tower.
pub fn shape() -> BaseConfig {
    BaseConfig {
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 48,
        mrope_section: vec![2, 3, 3],
        initializer_range: 0.1,
        vision: VisionConfig {
            hidden_size: 16,
            depth: 1,
            num_heads: 1,
            intermediate_size: 24,
            fullatt_block_indexes: vec![0],
            ..VisionConfig::default()
        },
        ..BaseConfig::default()
    }
}

/// Returns a device with more memory than any test needs.
pub fn device(threads: usize) -> Device {
    Device::cpu(&Plan::uniform(256 << 20), threads, Isa::detect()).unwrap()
}

/// Writes a directory of a model of `family` with random weights.
pub fn model_of(family: &'static Family, dir: &Path) {
    let tokenizer = tokenizer();
    let config = omr_model::llm::new_model::model_config(family, &shape(), &tokenizer).unwrap();
    let (grid, sees) = (config.grid(), config.media.is_some());
    let mut dev = device(1);
    fs::create_dir_all(dir).unwrap();
    Model::init(&mut dev, config, DType::F32, 1).unwrap().save(&mut dev, dir, DType::F32).unwrap();
    write_tokenizer_dir(dir, &tokenizer, &omr_model::llm::new_model::chat_template(family)).unwrap();
    if sees {
        fs::write(dir.join("preprocessor_config.json"), recipe::preprocessor_config(grid).to_string()).unwrap();
    }
}

/// Writes a directory of a model with a vision tower and random weights.
pub fn base_model(dir: &Path) {
    static FILES: OnceLock<Files> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        model_of(&qwen2_5_vl::FAMILY, dir.path());
        files(dir.path())
    });
    restore(files, dir);
}

/// Writes a model that answers [`rows`] in the right format and answers some of them correctly.
pub fn tuned_model(dir: &Path) {
    static FILES: OnceLock<Files> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let config = SftConfig { max_steps: Some(TUNING_STEPS), ..sft_config(dir.path()) };
        run_sft(&dir.path().join("sft"), &config, 2, &[]);
        files(&dir.path().join("sft/model"))
    });
    restore(files, dir);
}

/// Number of updates after which the model has learned the format but still gives some wrong answers.
pub const TUNING_STEPS: u64 = 120;

/// Returns the rows that all tests train on: digits questions with answers of different lengths.
pub fn rows() -> Vec<Row> {
    let task =
        TaskConfig { num_sft_questions: 12, num_rl_questions: 1, num_heldout_questions: 1, ..TaskConfig::default() };
    let mut rows = digits::splits(&task, 1).unwrap().teach;
    for (i, row) in rows.iter_mut().enumerate() {
        let answer = row.ground_truth.clone().unwrap();
        let aside = if i % 3 == 0 { "I see. " } else { "" };
        let text = format!("<think>{aside}It looks like {answer}.</think><answer>{answer}</answer>");
        row.messages.push(Message::text("assistant", text));
    }
    rows
}

/// Returns the rows without their images.
pub fn text_rows() -> Vec<Row> {
    let mut rows = rows();
    for row in &mut rows {
        row.images.clear();
        row.messages[0].content.retain(|part| part.text().is_some());
    }
    rows
}

/// Writes a model with random weights and rows to `dir`, which [`sft_config`] and [`rl_config`] then use. The rows have
/// images if the model has a vision tower.
pub fn models_of(family: &'static Family, dir: &Path) {
    let rows = if family.prefixes.is_empty() { text_rows() } else { rows() };
    for (model, file, form) in [("base", "sft.parquet", Form::Sft), ("tuned", "rl.parquet", Form::Rl)] {
        model_of(family, &dir.join(model));
        write::write(&dir.join(file), &rows, form).unwrap();
    }
}

/// Returns keys with which a stopped run saves a checkpoint, changed by `change`.
pub fn training(change: impl FnOnce(&mut TrainingConfig)) -> TrainingConfig {
    with(&TrainingConfig { save_on_stop: Some(true), ..TrainingConfig::default() }, change)
}

/// Returns a copy of `config`, changed by `change`.
pub fn with<C: Clone>(config: &C, change: impl FnOnce(&mut C)) -> C {
    let mut config = config.clone();
    change(&mut config);
    config
}

/// Returns a config of eight updates of four rows. Writes the random model and the rows to `dir`.
pub fn sft_config(dir: &Path) -> SftConfig {
    let (model, data) = (dir.join("base"), dir.join("sft.parquet"));
    if !model.exists() {
        base_model(&model);
        write::write(&data, &rows(), Form::Sft).unwrap();
    }
    SftConfig {
        model: Some(model),
        datasets: vec![read::entry(data)],
        max_steps: Some(8),
        train_batch_size: Some(4),
        packing_length: 256,
        micro_batch_tokens: 256.into(),
        optimizer: OptimConfig { learning_rate: 1e-2, weight_decay: 0.01, ..SftConfig::default().optimizer },
        warmup_steps: Some(2),
        save_seconds: None,
        dtype: Dtype::F32,
        training: training(|_| ()),
        ..SftConfig::default()
    }
}

/// Returns a config of four steps of four prompts with four rollouts. Writes the tuned model and the prompts to `dir`.
pub fn rl_config(dir: &Path) -> RlConfig {
    let (model, data) = (dir.join("tuned"), dir.join("rl.parquet"));
    if !model.exists() {
        tuned_model(&model);
        write::write(&data, &rows(), Form::Rl).unwrap();
    }
    RlConfig {
        model: Some(model),
        train_files: vec![read::entry(data)],
        total_training_steps: Some(4),
        train_batch_size: 4,
        ppo_mini_batch_size: 4,
        rollout: RolloutConfig { n: 4, max_num_seqs: 6, max_num_batched_tokens: 100, ..RolloutConfig::default() },
        max_prompt_length: 64,
        max_response_length: 24,
        clip_ratio_low: 0.03,
        clip_ratio_high: 0.04,
        optimizer: OptimConfig { learning_rate: 1e-3, weight_decay: 0.0, ..RlConfig::default().optimizer },
        warmup_steps: 0,
        save_seconds: None,
        rollout_freq: Some(1),
        micro_batch_tokens: 256,
        dtype: Dtype::F32,
        training: training(|_| ()),
        ..RlConfig::default()
    }
}

/// The results of a run that must not depend on how the run was executed.
#[derive(PartialEq)]
pub struct Outcome {
    /// `metrics.jsonl` without times.
    pub metrics: Vec<Metrics>,
    /// The last checkpoint, the final model and the rollouts.
    pub files: Files,
}

impl Outcome {
    /// Reads the outcome of a finished run directory.
    pub fn of(dir: &Path) -> Outcome {
        let mut metrics = metrics::read(&dir.join("metrics.jsonl")).unwrap();
        metrics
            .iter_mut()
            .for_each(|m| m.retain(|name, _| !name.starts_with("timing_s/") && !name.starts_with("perf/")));
        let latest = fs::read_to_string(dir.join("latest")).unwrap();
        let mut files = Files::new();
        for name in [&*format!("checkpoints/{}", latest.trim()), "model", "rollouts"] {
            let folder = dir.join(name);
            if folder.exists() {
                files.extend(self::files(&folder).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
            }
        }
        Outcome { metrics, files }
    }

    /// Panics unless both outcomes are bitwise identical. The message names the first difference.
    pub fn assert_same(&self, other: &Outcome, what: &str) {
        assert_eq!(self.metrics.len(), other.metrics.len(), "{what}: steps");
        for (a, b) in self.metrics.iter().zip(&other.metrics) {
            assert_eq!(a, b, "{what}: metrics.jsonl");
        }
        let names = |o: &Outcome| o.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(other), "{what}: files");
        for (name, bytes) in &self.files {
            assert!(*bytes == other.files[name], "{what}: {name} differs");
        }
    }

    /// Returns the outcome without the metrics and files of validation, to compare it with a run without validation.
    pub fn unmeasured(mut self) -> Outcome {
        self.files.retain(|name, _| !name.ends_with("trainer/state.json") && !name.ends_with("MANIFEST"));
        self.metrics.retain(|m| m["step"] != 0);
        self.metrics
            .iter_mut()
            .for_each(|m| m.retain(|name, _| !name.starts_with("val-") && !name.starts_with("val/")));
        self
    }

    /// Returns a metric of every step.
    pub fn figures(&self, name: &str) -> Vec<f64> {
        let figure = |m: &Metrics| m.get(name).and_then(|v| v.as_f64());
        self.metrics.iter().map(|m| figure(m).unwrap_or_else(|| panic!("no {name} in {m:?}"))).collect()
    }
}

/// The spans of a step, which [`Outcome`] does not compare.
pub struct Step {
    /// Duration of the step.
    pub seconds: f64,
    spans: Vec<(String, f64, f64)>,
}

impl Step {
    /// Reads the steps of a run directory.
    pub fn all(dir: &Path) -> Vec<Step> {
        let step = |m: Metrics| Step {
            seconds: m["timing_s/step"].as_f64().unwrap(),
            spans: serde_json::from_value(m["timing_s/spans"].clone()).unwrap(),
        };
        metrics::read(&dir.join("metrics.jsonl")).unwrap().into_iter().map(step).collect()
    }

    /// Returns the spans of an activity.
    pub fn spans(&self, name: &str) -> Vec<Range<f64>> {
        self.spans.iter().filter(|span| span.0 == name).map(|span| span.1..span.2).collect()
    }

    /// Returns the time of the step that its spans cover, except scoring, which runs beside sampling.
    pub fn covered(&self) -> f64 {
        let counted = |span: &&(String, f64, f64)| span.0 != "scoring" && span.1 >= 0.0;
        self.spans.iter().filter(counted).map(|span| span.2 - span.1).sum()
    }
}

/// Runs an SFT job in `dir`. The run is stopped by a signal after each of `stops` updates and then runs to its end.
pub fn run_sft(dir: &Path, config: &SftConfig, threads: usize, stops: &[u64]) -> Outcome {
    run_sft_on(dir, config, || device(threads), stops)
}

/// Runs an SFT job like [`run_sft`]. `device` creates the device for each part of the run.
pub fn run_sft_on(dir: &Path, config: &SftConfig, device: impl Fn() -> Device, stops: &[u64]) -> Outcome {
    in_parts(dir, stops, |observer| {
        let mut job = SftJob::new(dir, config.clone())?;
        job.common.validation = validation::sft(config, &job.common, None)?;
        job.run(&mut device(), observer)
    })
}

/// Runs an SFT job like [`run_sft_on`], over several ranks, each of which is a thread. `sizes` contains the number of
/// ranks of each part.
pub fn run_sft_over(
    dir: &Path,
    config: &SftConfig,
    device: impl Fn() -> Device + Sync,
    sizes: &[usize],
    stops: &[u64],
) -> Outcome {
    let sizes = Mutex::new(sizes.iter());
    in_parts(dir, stops, |observer| {
        let size = *sizes.lock().unwrap().next().unwrap();
        let done = ranks::over(size, |ranks| {
            let mut job = SftJob::new(dir, config.clone())?;
            job.common.ranks = OneRank::new(ranks.rank(), size);
            job.common.validation = validation::sft(config, &job.common, None)?;
            job.run_over(ranks, &mut device(), observer)
        });
        done.into_iter().collect()
    })
}

/// Runs an RL job over several ranks, like [`run_sft_over`].
pub fn run_rl_over(
    dir: &Path,
    config: &RlConfig,
    device: impl Fn() -> Device + Sync,
    sizes: &[usize],
    stops: &[u64],
) -> Outcome {
    let scorer = Arc::new(Scorer::rules(config.reward.mode));
    let sizes = Mutex::new(sizes.iter());
    in_parts(dir, stops, |observer| {
        let size = *sizes.lock().unwrap().next().unwrap();
        let done = ranks::over(size, |ranks| {
            let mut job = RlJob::new(dir, config.clone(), scorer.clone())?;
            job.common.ranks = OneRank::new(ranks.rank(), size);
            job.common.validation = validation::rl(config, &job.common, scorer.clone(), None)?;
            job.run_over(ranks, &mut device(), observer)
        });
        done.into_iter().collect()
    })
}

/// Runs an RL job in `dir`, like [`run_sft`].
pub fn run_rl(dir: &Path, config: &RlConfig, threads: usize, stops: &[u64]) -> Outcome {
    run_rl_on(dir, config, || device(threads), stops)
}

/// Runs an RL job on the devices of `device`, like [`run_sft_on`].
pub fn run_rl_on(dir: &Path, config: &RlConfig, device: impl Fn() -> Device, stops: &[u64]) -> Outcome {
    let scorer = Arc::new(Scorer::rules(config.reward.mode));
    in_parts(dir, stops, |observer| {
        let mut job = RlJob::new(dir, config.clone(), scorer.clone())?;
        job.common.validation = validation::rl(config, &job.common, scorer.clone(), None)?;
        job.run(&mut device(), observer)
    })
}

fn in_parts(dir: &Path, stops: &[u64], run: impl Fn(&(dyn Observer + Sync)) -> Result<()>) -> Outcome {
    fs::create_dir_all(dir).unwrap();
    for &at in stops {
        let stopped = run(&StopAt { at, done: AtomicU64::new(0) });
        assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
        assert_eq!(fs::read_to_string(dir.join("latest")).unwrap(), format!("global_step_{at}\n"));
        assert!(!dir.join("model").exists() && !dir.join("summary.json").exists());
    }
    run(&Silent).unwrap();
    Outcome::of(dir)
}

/// Observer that records the notes.
#[derive(Default)]
pub struct Notes(pub Mutex<Vec<String>>);

impl Observer for Notes {
    fn begin(&self, _: &str, _: &str, _: u64, _: u64) {}
    fn step(&self, _: u64, _: &[(&str, f64)]) {}
    fn end(&self) {}
    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
    fn stop_requested(&self) -> bool {
        false
    }
}

struct StopAt {
    at: u64,
    done: AtomicU64,
}

impl Observer for StopAt {
    fn begin(&self, _: &str, _: &str, _: u64, _: u64) {}
    fn step(&self, done: u64, _: &[(&str, f64)]) {
        self.done.store(done, Ordering::Relaxed);
    }
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn stop_requested(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.at
    }
}

/// Returns every file in a folder and its subfolders.
pub fn files(dir: &Path) -> Files {
    let mut out = Files::new();
    for entry in fs::read_dir(dir).unwrap() {
        let (path, name) = entry.map(|e| (e.path(), e.file_name().into_string().unwrap())).unwrap();
        if path.is_dir() {
            out.extend(files(&path).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            out.insert(name, fs::read(&path).unwrap());
        }
    }
    out
}

fn restore(files: &Files, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(dir.join(name), bytes).unwrap());
}
