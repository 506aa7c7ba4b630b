//! `omr recipe`: data, SFT, RL, control, evaluation and report, each stage in its own folder, each gone on with
//! where it stopped.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::run_dir::RunDir;
use super::{ConfigArgs, Context, RunArgs, memory};
use crate::config::{
    CommandConfig, DatasetConfig, EndpointConfig, JudgeConfig, LrSchedulerType, OptimConfig, RecipeConfig, RlConfig,
    SftConfig, to_yaml,
};
use crate::data::{Form, Row, distill, read, write};
use crate::device::{Device, Kind};
use crate::error::{Error, Result};
use crate::eval::run as eval;
use crate::eval::samples::{self, Sample};
use crate::eval::stats;
use crate::files;
use crate::model::{Model, ModelConfig};
use crate::report;
use crate::reward::process::Pool;
use crate::rl::run as rl;
use crate::task::{VerifiedRows, digits, digits_teacher};
use crate::tensor::DType;
use crate::text::{CHAT_TEMPLATE, SPECIAL_TOKENS, train_tokenizer, write_tokenizer_dir};
use crate::train::metrics;
use crate::train::sft;

/// Arguments of `omr recipe`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs what is left of the recipe and prints the report's path to stdout.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(mut config) = args.config.load::<RecipeConfig>()? else { return Ok(()) };
    let RecipeConfig { dtype, sft, rl, eval, .. } = &mut config;
    for dtype in [dtype, &mut sft.dtype, &mut rl.dtype, &mut eval.dtype] {
        *dtype = context.dtype(*dtype);
    }
    if config.task.name != digits::NAME {
        return Err(Error::input("task.name", config.task.name.clone(), digits::NAME));
    }
    let recipe = Recipe { dir: args.run.out.clone(), config, context };
    recipe.announce();
    recipe.try_commands()?;
    if args.run.dry_run {
        return Ok(());
    }
    let dir = RunDir::open(&args.run, &recipe.config, context)?;
    let page = dir.path().join("report.html");
    if recipe.dir.join("summary.json").exists() && page.exists() {
        context.say(&format!("{} is finished: nothing to do", dir.path().display()));
    } else {
        dir.begin(&recipe.config, context)?;
        recipe.stages()?;
    }
    super::print(&format!("{}\n", page.display()))
}

struct Recipe<'a> {
    dir: PathBuf,
    config: RecipeConfig,
    context: &'a Context,
}

/// The models measured, in order.
const MEASURED: [&str; 4] = ["base", "sft", "control", "rl"];

impl Recipe<'_> {
    fn announce(&self) {
        let c = &self.config;
        let say = |line: String| self.context.say(&line);
        say(format!(
            "omr recipe: {}, seed {}, {} on {}, results in {}",
            c.task.name,
            c.seed,
            c.dtype.name(),
            self.context.place(),
            self.dir.display()
        ));
        let questions = c.task.num_sft_questions;
        say(format!("  data     {questions} questions x {} drafts from a teacher, verified", c.data.num_rollouts));
        let steps = c.sft.max_steps.map_or("epochs of".to_owned(), |n| n.to_string());
        say(format!("  sft      {steps} updates from {}", self.base_name()));
        if c.control.enable {
            say(format!("  control  sft continued for {} updates", self.control_steps()));
        }
        let rl = &c.rl;
        let steps = rl.total_training_steps.map_or("one epoch of".to_owned(), |n| n.to_string());
        say(format!("  rl       {steps} steps of {} prompts x {} rollouts", rl.train_batch_size, rl.rollout.n));
        say(format!("  eval     {} held-out questions, greedy and at temperature 1", c.task.num_heldout_questions));
        say(format!("  judge    {}", self.judges()));
        say(match self.context.kind() {
            Kind::Cpu => "one to three minutes on two cores with configs/digits.yaml; stop and go on at any time",
            Kind::Cuda | Kind::Emu => "stop and go on at any time",
        }
        .to_owned());
    }

    /// Starts and ends the reward commands: one that is not there is found before the hours of the stages before it.
    fn try_commands(&self) -> Result<()> {
        let (rl, eval) = (self.config.rl.reward.command(), &self.config.eval.reward);
        for (command, place) in [(&rl, "rl.reward"), (eval, "eval.reward")] {
            if !command.command.is_empty() {
                Pool::start(&CommandConfig { workers: 1, ..command.clone() }, place)?;
            }
        }
        Ok(())
    }

    /// Who decides what is right beside the rules, and where.
    fn judges(&self) -> String {
        let c = &self.config;
        let judges = [("data", &c.data.judge), ("rl", &c.rl.judge), ("eval", &c.eval.judge)];
        let commands = [("rl", &c.rl.reward.command), ("eval", &c.eval.reward.command)];
        let named = |(stage, judge): (&str, &Option<JudgeConfig>)| Some(format!("{} ({stage})", judge.as_ref()?.model));
        let commands = commands.into_iter().filter(|(_, command)| !command.is_empty());
        let commands: Vec<String> = commands.map(|(stage, c)| format!("reward by {} ({stage})", c.join(" "))).collect();
        let judges: Vec<String> = judges.into_iter().filter_map(named).chain(commands).collect();
        if judges.is_empty() { "off: rules alone decide what is right".to_owned() } else { judges.join(", ") }
    }

    fn base_name(&self) -> String {
        match &self.config.base.model {
            Some(dir) => dir.display().to_string(),
            None => "a random initialisation".to_owned(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn model(&self, stage: &str) -> PathBuf {
        self.dir.join(stage).join("model")
    }

    fn stages(&self) -> Result<()> {
        let begun = Instant::now();
        self.base()?;
        self.data()?;
        self.sft()?;
        if self.config.control.enable {
            self.control()?;
        }
        self.rl()?;
        for stage in MEASURED {
            if stage != "control" || self.config.control.enable {
                self.measure(stage)?;
            }
        }
        self.summarise(begun.elapsed().as_secs_f64())?;
        let report = report::report(&self.dir)?;
        files::write(self.path("report.html"), report::page(&report)?.as_bytes())?;
        self.context.say(&report.headline);
        Ok(())
    }

    /// The model to start from: tokenizer, configuration, random weights.
    fn base(&self) -> Result<()> {
        let dir = self.model("base");
        if dir.exists() {
            return Ok(());
        }
        let base = &self.config.base;
        if let Some(model) = &base.model {
            return files::folder(&dir, |folder| copy_files(model, folder));
        }
        let corpus = digits::corpus();
        let words = digits::words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let tokenizer = train_tokenizer(&corpus, &SPECIAL_TOKENS, &words, base.vocab_size)?;
        let config = digits::model_config(base, &tokenizer)?;
        let config = ModelConfig::from_json(&config, "base")?;
        let mut count = Device::count_for(self.context.target());
        let dtype = DType::of(self.config.dtype, self.context.kind());
        Model::empty(&mut count, config.clone(), dtype)?;
        let mut device = self.context.device(&count.high_water())?;
        let model = Model::init(&mut device, config, dtype, self.config.seed)?;
        files::folder(&dir, |folder| {
            model.save(&mut device, folder, dtype)?;
            write_tokenizer_dir(folder, &tokenizer, CHAT_TEMPLATE)?;
            let preprocessor = digits::preprocessor_config();
            files::write(folder.join("preprocessor_config.json"), format!("{preprocessor:#}\n").as_bytes())?;
            let generation = json!({
                "bos_token_id": tokenizer.id("<|endoftext|>"),
                "eos_token_id": [tokenizer.id("<|im_end|>"), tokenizer.id("<|endoftext|>")],
                "pad_token_id": tokenizer.id("<|endoftext|>"),
                "do_sample": true,
                "temperature": 1.0,
            });
            files::write(folder.join("generation_config.json"), format!("{generation:#}\n").as_bytes())
        })
    }

    /// Questions, and the teacher's verified answers to some of them.
    fn data(&self) -> Result<()> {
        let dir = self.path("data");
        let done = dir.join("summary.json");
        if done.exists() {
            return Ok(());
        }
        let begun = Instant::now();
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let splits = digits::splits(&self.config.task, self.config.seed)?;
        let save = |name: &str, rows: &[Row]| write::write(&dir.join(name), rows, Form::Rl);
        save("questions.parquet", &splits.teach)?;
        save("rl.parquet", &splits.train)?;
        save("heldout.parquet", &splits.heldout)?;
        let kept = self.context.runtime()?.block_on(self.distill(&dir))?;
        let summary = json!({
            "in": kept.rows, "kept": kept.kept, "rejected": kept.rejected, "unjudged": kept.unjudged,
            "requests": kept.requests, "tokens": kept.tokens, "judge": kept.judge, "seconds": begun.elapsed().as_secs_f64(),
        });
        files::write(done, format!("{summary:#}\n").as_bytes())
    }

    async fn distill(&self, dir: &Path) -> Result<distill::Summary> {
        let mut config = self.config.data.clone();
        config.datasets = vec![read::entry(dir.join("questions.parquet"))];
        config.seed = self.config.seed;
        let task = &self.config.task;
        let mut own = None;
        if config.teacher.is_none() {
            let teacher =
                digits_teacher::Teacher::start(&task.teacher, digits::ranges(task.tuning).0, task.shift).await?;
            config.teacher = Some(EndpointConfig {
                base_url: vec![teacher.base_url()],
                model: digits_teacher::MODEL.to_owned(),
                ..EndpointConfig::default()
            });
            own = Some(teacher);
        }
        let summary = distill::run(&config, &dir.join("distill"), self.context.observer()).await;
        drop(own);
        summary
    }

    fn sft(&self) -> Result<()> {
        self.train("sft", SftConfig { model: Some(self.model("base")), ..self.config.sft.clone() })
    }

    fn control_steps(&self) -> u64 {
        let rl = &self.config.rl;
        let updates = (rl.train_batch_size / rl.ppo_mini_batch_size * rl.ppo_epochs) as u64;
        let prompts = (self.config.task.num_rl_questions as u64).div_ceil(rl.train_batch_size as u64);
        let steps = rl.total_training_steps.unwrap_or(prompts);
        self.config.control.max_steps.unwrap_or(steps * updates)
    }

    /// SFT continued: the rows, the batch and the rate it ended with, for as many updates as RL makes.
    fn control(&self) -> Result<()> {
        let sft = &self.config.sft;
        let last_rate = match sft.optimizer.lr_scheduler_type {
            LrSchedulerType::Constant => sft.optimizer.learning_rate,
            _ => sft.optimizer.learning_rate * sft.optimizer.min_lr_ratio,
        };
        let optimizer = OptimConfig {
            learning_rate: self.config.control.learning_rate.unwrap_or(last_rate),
            lr_scheduler_type: LrSchedulerType::Constant,
            ..sft.optimizer
        };
        let config = SftConfig {
            model: Some(self.model("sft")),
            max_steps: Some(self.control_steps()),
            optimizer,
            warmup_steps: Some(self.config.rl.warmup_steps),
            // Another order than SFT's own first epochs.
            seed: sft.seed.wrapping_add(1),
            ..sft.clone()
        };
        self.train("control", config)
    }

    fn train(&self, stage: &str, mut config: SftConfig) -> Result<()> {
        let dir = self.path(stage);
        if sft::finished_steps(&dir).is_some() {
            return Ok(());
        }
        if config.datasets.is_empty() {
            config.datasets = vec![read::entry(self.path("data").join("distill").join("questions.parquet"))];
        }
        self.keep_config(&dir, &to_yaml(&config)?)?;
        let mut job = sft::Job::new(&dir, config)?;
        job.label = stage.to_owned();
        let plan = job.plan(self.context.target())?;
        self.context.say(&format!("{stage}: {} rows; {}", job.index.len(), memory::line(&plan)));
        let mut device = self.context.device(&plan)?;
        job.run(&mut device, self.context.observer())
    }

    fn rl(&self) -> Result<()> {
        let dir = self.path("rl");
        if sft::finished_steps(&dir).is_some() {
            return Ok(());
        }
        let mut config = RlConfig { model: Some(self.model("sft")), ..self.config.rl.clone() };
        if config.train_files.is_empty() {
            config.train_files = vec![read::entry(self.path("data").join("rl.parquet"))];
        }
        self.keep_config(&dir, &to_yaml(&config)?)?;
        let command = config.reward.command();
        let scorer =
            self.context.scorer(config.reward.mode, config.judge.as_ref(), (&command, "rl.reward"), Some(&self.dir))?;
        let mut job = rl::Job::new(&dir, config, scorer)?;
        let plan = job.plan(self.context.target())?;
        self.context.say(&format!("rl: {} questions; {}", job.index.len(), memory::line(&plan)));
        let mut device = self.context.device(&plan)?;
        job.run(&mut device, self.context.observer())
    }

    fn keep_config(&self, dir: &Path, text: &str) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        files::write(dir.join("config.yaml"), text.as_bytes())
    }

    fn measure(&self, stage: &str) -> Result<()> {
        let out = self.path("eval").join(stage);
        if out.join("summary.json").exists() {
            return Ok(());
        }
        let config = &self.config.eval;
        let data: Vec<DatasetConfig> = match config.data.is_empty() {
            true => vec![read::entry(self.path("data").join("heldout.parquet"))],
            false => config.data.clone(),
        };
        let rows = crate::data::load(&data, config.seed)?.0;
        let command = (&config.reward, "eval.reward");
        let scorer = self.context.scorer(config.mode, config.judge.as_ref(), command, Some(&self.dir))?;
        let task = VerifiedRows::scored_by(digits::NAME, rows, scorer.clone())?;
        let model = self.model(stage);
        let job = eval::Job::new(&model, config, &digits::TASK, &task)?;
        let mut device = self.context.device(&job.plan(self.context.target())?)?;
        let begun = Instant::now();
        let measured = job.run(&mut device, self.context.observer(), &format!("eval {stage}"))?;
        let seconds = begun.elapsed().as_secs_f64();
        let judge = eval::write(&out, &model, config, scorer.judge(), &[measured], seconds)?;
        if let Some(judge) = judge {
            self.context.say(&judge.line());
        }
        Ok(())
    }

    fn summarise(&self, elapsed: f64) -> Result<()> {
        let mut stages = Map::new();
        let mut eval = 0.0;
        for stage in MEASURED {
            let path = self.path("eval").join(stage).join("samples.jsonl");
            if path.exists() {
                stages.insert(stage.to_owned(), stage_summary(&samples::read(&path)?));
                eval += number(&path.with_file_name("summary.json"), "seconds")?;
            }
        }
        let data = number(&self.path("data").join("summary.json"), "seconds")?;
        let [sft, control, rl] = ["sft", "control", "rl"].map(|stage| self.step_seconds(stage));
        let (sft, control, rl) = (sft?, control?, rl?);
        let judges: Map<String, Value> =
            report::judges(&self.dir).into_iter().map(|(stage, judge)| (stage, json!(judge))).collect();
        let summary = json!({
            "seed": self.config.seed,
            "judge": Some(judges).filter(|judges| !judges.is_empty()),
            "device": self.context.device_kind(),
            "stages": stages,
            // Of steps that count: what a kill threw away is not in them, nor is time between two starts.
            "seconds": {
                "data": data, "sft": sft, "control": control, "rl": rl,
                "eval": eval, "total": elapsed.max(data + sft + control + rl + eval),
            },
            "tokens_per_sec": {
                "sft": number(&self.path("sft").join("summary.json"), "tokens_per_sec")?,
                "rollout": number(&self.path("rl").join("summary.json"), "rollout_tokens_per_sec")?,
            },
        });
        files::write(self.path("summary.json"), format!("{summary:#}\n").as_bytes())
    }

    fn step_seconds(&self, stage: &str) -> Result<f64> {
        Ok(metrics::sum(&metrics::read(&self.path(stage).join("metrics.jsonl"))?, "timing_s/step"))
    }
}

/// FORMATS section 5's S.
fn stage_summary(samples: &[Sample]) -> Value {
    let greedy: Option<Vec<f64>> = samples.iter().map(Sample::acc).collect();
    let sampled: Option<Vec<f64>> = samples.iter().map(Sample::acc_t1).collect();
    let greedy = greedy.map(|scores| stats::accuracy(&scores));
    let sampled = sampled.map(|scores| stats::accuracy(&scores));
    json!({
        "acc": greedy.map(|e| e.mean),
        "acc_t1": sampled.map(|e| e.mean),
        "ci95": sampled.map(|e| e.ci95),
        "acc_ci95": greedy.map(|e| e.ci95),
        "format": eval::format_share(samples),
        "n": samples.len(),
    })
}

fn number(path: &Path, key: &str) -> Result<f64> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| Error::format(path, e.to_string()))?;
    value[key].as_f64().ok_or_else(|| Error::format(path, format!("no number at `{key}`")))
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).map_err(Error::io(from))? {
        let path = entry.map_err(Error::io(from))?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            std::fs::copy(&path, to.join(name)).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}
