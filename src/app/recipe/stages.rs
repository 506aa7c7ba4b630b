//! The stages of a recipe after its base model. Each stage looks for its results in its own folder and skips finished
//! work.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::job::{COLUMNS, Recipe};
use crate::pipeline::{self, Summary};
use crate::report;
use omr_base::answers::{self, RunStore};
use omr_base::config::{
    Config, DatasetConfig, InputKind, JudgeConfig, LrSchedulerType, Mode, OptimConfig, Rewards, RlConfig, ScorerConfig,
    SftConfig, headed,
};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::identity::{CurrentInputs, Inputs, Manifest, Weights};
use omr_data::reward::Scorer;
use omr_data::rows::files::paths;
use omr_data::rows::{Form, Row, read, write};
use omr_data::task::{self, Source, TaskRows, TaskSpec};
use omr_runtime::ranks::{self, OneRank, Ranks};
use omr_train::eval::local::{self, Local};
use omr_train::eval::measured::{self, Answers};
use omr_train::eval::validation;
use omr_train::rl::run as rl;
use omr_train::training::job::{TrainingJob, finished_steps};
use omr_train::training::sft;

/// Name of the collective in which rank 0 reports whether a stage is finished.
const FINISHED: &str = "whether a stage is finished";

impl Recipe<'_> {
    /// True if no rows need to be generated, because every stage has configured rows.
    pub(super) fn has_rows(&self) -> bool {
        let c = &self.config;
        !c.sft.datasets.is_empty() && !c.rl.train_files.is_empty() && !c.eval.data.is_empty()
    }

    /// Makes the questions, and the teacher's verified answers to some of them.
    pub(super) fn data(&self) -> Result<()> {
        let dir = self.path("data");
        let done = dir.join("summary.json");
        if done.exists() {
            return Ok(());
        }
        let begun = Instant::now();
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        if self.has_rows() {
            let summary = json!({"in": 0, "kept": 0, "rejected": {}, "unjudged": 0, "seconds": 0.0});
            return files::write(done, format!("{summary:#}\n").as_bytes());
        }
        let splits = (self.task.splits)(&self.config.task, self.config.seed)?;
        let save = |name: &str, rows: &[Row]| write::write(&dir.join(name), rows, Form::Rl);
        save("questions.parquet", &splits.teach)?;
        save("rl.parquet", &splits.train)?;
        save("heldout.parquet", &splits.heldout)?;
        let kept = self.distill(&dir)?;
        Manifest::write_of(&dir, ["heldout", "questions", "rl"].map(|name| format!("{name}.parquet")).into())?;
        let summary = json!({
            "in": kept.rows, "kept": kept.kept, "rejected": kept.rejected, "unjudged": kept.unjudged,
            "requests": kept.requests, "tokens": kept.tokens, "judge": kept.judge, "seconds": begun.elapsed().as_secs_f64(),
        });
        files::write(done, format!("{summary:#}\n").as_bytes())
    }

    /// Generates the answers with the configured teacher, or with the task's own teacher if none is configured.
    fn distill(&self, dir: &Path) -> Result<Summary> {
        let runtime = (self.machine.runtime)()?;
        let mut config = self.config.data.clone();
        let taught = ["questions.parquet", "rl.parquet"];
        let taught = &taught[..1 + usize::from(self.config.task.teach_rl_questions)];
        config.stage.datasets = taught.iter().map(|name| read::entry(dir.join(name))).collect();
        config.seed = self.config.seed;
        let own = match &config.teacher {
            Some(_) => None,
            None => Some((self.task.teacher)(&self.config.task, &runtime)?),
        };
        config.teacher = own.as_ref().map(|teacher| teacher.endpoint()).or(config.teacher);
        Ok(pipeline::run(&config, &dir.join("distill"), None, self.machine)?.0)
    }

    pub(super) fn sft(&self, ranks: &mut dyn Ranks) -> Result<()> {
        self.fine_tune("sft", SftConfig { model: Some(self.model("base")), ..self.config.sft.clone() }, ranks)
    }

    pub(super) fn control_steps(&self) -> u64 {
        let rl = &self.config.rl;
        let updates = (rl.train_batch_size / rl.ppo_mini_batch_size * rl.ppo_epochs) as u64;
        let steps = rl.total_steps(self.config.task.num_rl_questions);
        self.config.control.max_steps.unwrap_or(steps * updates)
    }

    /// Returns the number of rows of an update of the control.
    pub(super) fn control_rows(&self) -> usize {
        let rl = &self.config.rl;
        self.config.control.train_batch_size.unwrap_or(rl.ppo_mini_batch_size * rl.rollout.n)
    }

    /// Continues SFT as a control: with the same rows and the final learning rate of SFT, for as many updates as RL makes
    /// and with as many sequences per update.
    pub(super) fn control(&self, ranks: &mut dyn Ranks) -> Result<()> {
        let sft = &self.config.sft;
        let last_rate = match sft.optimizer.lr_scheduler_type {
            LrSchedulerType::Constant => sft.optimizer.learning_rate,
            _ => sft.optimizer.learning_rate * sft.optimizer.min_lr_ratio,
        };
        let learning_rate = self.config.control.learning_rate.unwrap_or(last_rate);
        // Learning rates of model parts are scaled by the same factor.
        let share = |own: f64| if own > 0.0 { own * learning_rate / sft.optimizer.learning_rate } else { 0.0 };
        let optimizer = OptimConfig {
            learning_rate,
            vision_tower_lr: sft.optimizer.vision_tower_lr.map(share),
            multi_modal_projector_lr: sft.optimizer.multi_modal_projector_lr.map(share),
            lr_scheduler_type: LrSchedulerType::Constant,
            ..sft.optimizer.clone()
        };
        let config = SftConfig {
            model: Some(self.model("sft")),
            max_steps: Some(self.control_steps()),
            train_batch_size: Some(self.control_rows()),
            optimizer,
            warmup_steps: Some(self.config.rl.warmup_steps),
            // The order of the rows must differ from that of SFT's first epochs.
            seed: sft.seed.wrapping_add(1),
            ..sft.clone()
        };
        self.fine_tune("control", config, ranks)
    }

    fn fine_tune(&self, stage: &str, mut config: SftConfig, ranks: &mut dyn Ranks) -> Result<()> {
        let dir = self.path(stage);
        if ranks::first_finds(ranks, FINISHED, || finished_steps(&dir).is_some())? {
            return Ok(());
        }
        if config.datasets.is_empty() {
            config.datasets = vec![read::entry(self.path("data").join("distill").join("questions.parquet"))];
        }
        self.keep_config(&dir, &config, ranks)?;
        let mut job = sft::SftJob::new(&dir, config)?;
        job.common.label = stage.to_owned();
        job.common.ranks = OneRank::new(ranks.rank(), ranks.size());
        job.common.validation = validation::sft(&job.config, &job.common, Some(&self.path("data")))?;
        let what = format!("{stage}: {} rows", job.common.index.len());
        self.train(&mut job, &what, ranks)
    }

    pub(super) fn rl(&self, ranks: &mut dyn Ranks) -> Result<()> {
        let dir = self.path("rl");
        if ranks::first_finds(ranks, FINISHED, || finished_steps(&dir).is_some())? {
            return Ok(());
        }
        let mut config = RlConfig { model: Some(self.model("sft")), ..self.config.rl.clone() };
        if config.train_files.is_empty() {
            config.train_files = vec![read::entry(self.path("data").join("rl.parquet"))];
        }
        self.keep_config(&dir, &config, ranks)?;
        let store = match ranks.size() {
            1 => self.store.clone(),
            size => {
                ranks::by_first(ranks, "the stored answers", || answers::gather(&self.dir))?;
                RunStore::of_rank(&self.dir, ranks.rank(), size)
            }
        };
        let scorer =
            self.scorer(config.reward.mode, &config.judge, &config.reward.scorer, &config.rewards, "rl", &store)?;
        let mut job = rl::RlJob::new(&dir, config, scorer.clone())?;
        job.common.ranks = OneRank::new(ranks.rank(), ranks.size());
        job.common.validation = validation::rl(&job.config, &job.common, scorer, Some(&self.path("data")))?;
        let what = format!("rl: {} questions", job.common.index.len());
        self.train(&mut job, &what, ranks)?;
        drop(job);
        self.close(store, ranks)
    }

    /// Closes a stage's store. A single process keeps its store open for the next stage.
    fn close(&self, store: Arc<RunStore>, ranks: &dyn Ranks) -> Result<()> {
        if ranks.size() > 1 { store.close() } else { Ok(()) }
    }

    /// Plans a training job and runs what is left of it.
    fn train(&self, job: &mut dyn TrainingJob, what: &str, ranks: &mut dyn Ranks) -> Result<()> {
        job.same_at(ranks)?;
        let plan = job.plan(self.machine.target)?;
        self.machine.observer.note(&format!("{what}; {}", plan.line()));
        let mut device = (self.machine.device)(&plan)?;
        job.run_over(ranks, &mut device, self.machine.observer)
    }

    fn scorer(
        &self,
        mode: Mode,
        judge: &Option<JudgeConfig>,
        reward: &ScorerConfig,
        rewards: &Rewards,
        stage: &str,
        store: &Arc<RunStore>,
    ) -> Result<Arc<Scorer>> {
        let (place, store) = (format!("{stage}.reward"), Some(store.clone()));
        let scorer = Scorer::new(mode, judge.as_ref(), reward, &place, store, self.machine.runtime)?;
        scorer.with_programs(rewards, &format!("{stage}.rewards")).map(Arc::new)
    }

    /// Returns the held-out questions.
    pub(super) fn heldout(&self) -> Vec<DatasetConfig> {
        match self.config.eval.data.is_empty() {
            true => vec![read::entry(self.path("data").join("heldout.parquet"))],
            false => self.config.eval.data.clone(),
        }
    }

    /// Evaluates the model of `stage` on the recipe's own questions and on `eval.tasks`.
    pub(super) fn measure(&self, stage: &str, ranks: &mut dyn Ranks) -> Result<()> {
        let out = self.path("eval").join(stage);
        self.measure_on(&[self.spec], &self.heldout(), stage, &out, ranks)?;
        match &self.columns[..] {
            [] => Ok(()),
            columns => self.measure_on(columns, &[], stage, &out.join(COLUMNS), ranks),
        }
    }

    /// Evaluates the model of `stage` on `tasks` in the folder `out`.
    fn measure_on(
        &self,
        tasks: &[&'static TaskSpec],
        data: &[DatasetConfig],
        stage: &str,
        out: &Path,
        ranks: &mut dyn Ranks,
    ) -> Result<()> {
        if ranks::first_finds(ranks, FINISHED, || out.join("summary.json").exists())? {
            return Ok(());
        }
        let config = &self.config.eval;
        let model = self.model(stage);
        ranks::by_first(ranks, "the evaluated files", || self.record(out, &model, tasks, data))?;
        let store = if ranks.size() == 1 { self.store.clone() } else { RunStore::new(&self.dir) };
        let scorer = match ranks.rank() {
            0 => self.scorer(config.mode, &config.judge, &config.reward, &config.rewards, "eval", &store)?,
            // The other ranks only generate answers. Rank 0 scores all of them.
            _ => Arc::new(Scorer::rules(config.mode)),
        };
        let strip = config.strip_thinking;
        let of_task = |spec| {
            TaskRows::new(spec, Source { datasets: data, ..Source::of(config) }, config.limit, scorer.clone(), strip)
        };
        let rows: Vec<TaskRows> = tasks.iter().map(|&spec| of_task(spec)).collect();
        let local = Local::new(&model, config, self.machine.target)?;
        let label = |rows: &TaskRows| match tasks {
            [_] => format!("eval {stage}"),
            _ => format!("eval {stage} {}", rows.spec.name),
        };
        let job = |rows| Ok((local::Job::new(&local, rows)?, label(rows)));
        let jobs: Vec<(local::Job, String)> = rows.iter().map(job).collect::<Result<_>>()?;
        let begun = Instant::now();
        local::generate_answers(ranks, &jobs, &self.dir, &store, self.machine)?;
        ranks::by_first(ranks, "the scores", || {
            std::fs::create_dir_all(out).map_err(Error::io(out))?;
            let sources = jobs
                .iter()
                .map(|(job, _)| (job.questions.rows, Box::new(job.questions.requests(&store)) as Box<dyn Answers>));
            let all = measured::measure(out, sources.collect(), self.machine.observer)?;
            report::keep_images(out, &rows)?;
            all.write(out, Some(&model.display().to_string()), config, begun.elapsed().as_secs_f64())?;
            if let Some(judge) = &all.judge {
                self.machine.observer.note(&judge.summary.line());
            }
            Ok(())
        })?;
        drop(jobs);
        drop(rows);
        self.close(store, ranks)
    }

    /// Compares the inputs of an evaluation of `tasks` in `out` with the inputs that an earlier start recorded, and
    /// records the current inputs.
    fn record(&self, out: &Path, model: &Path, tasks: &[&TaskSpec], data: &[DatasetConfig]) -> Result<()> {
        let of_task = |spec: &&TaskSpec| task::hub::files(spec, &Source::of(&self.config.eval));
        let files = match data {
            [] => tasks.iter().map(of_task).collect::<Result<Vec<_>>>()?.concat(),
            data => paths::all(data)?,
        };
        let mut found = CurrentInputs::default();
        found.add_model(model, Weights::Trained)?;
        found.add_files(InputKind::Rows, files)?;
        self.compare(&found, Inputs::read(out)?.as_ref())?;
        found.inputs.write(out)
    }

    /// Compares inputs with [`CurrentInputs::compare`] and the changes that the recipe's config accepts.
    pub(super) fn compare(&self, found: &CurrentInputs, then: Option<&Inputs>) -> Result<()> {
        let lines = found.compare(then, "at the start of the stage", &self.config.accept_changed)?;
        lines.iter().for_each(|line| self.machine.observer.note(line));
        Ok(())
    }

    /// Writes the config of a stage to its folder, on rank 0.
    fn keep_config<C: Config>(&self, dir: &Path, config: &C, ranks: &dyn Ranks) -> Result<()> {
        match ranks.rank() {
            0 => files::write(dir.join("config.yaml"), headed(config, Some(&self.machine.place))?.as_bytes()),
            _ => Ok(()),
        }
    }
}
