//! Messages and checks before a recipe begins.

use super::job::Recipe;
use omr_base::config::{JudgeConfig, ScorerConfig};
use omr_base::error::Result;
use omr_data::reward::process::Pool;
use omr_runtime::device::Kind;
use omr_train::training::reporters;

impl Recipe<'_> {
    /// Describes the planned stages to the user.
    pub fn announce(&self) {
        let c = &self.config;
        let say = |line: String| self.machine.observer.note(&line);
        let (name, dtype, place, dir) = (self.spec.name, c.dtype.name(), &self.machine.place, self.dir.display());
        say(format!("omr recipe: {name}, seed {}, {dtype} on {place}, results in {dir}", c.seed));
        say(match self.has_rows() {
            true => "  data     rows of sft.datasets, rl.train_files and eval.data".to_owned(),
            false => {
                let questions = c.task.num_sft_questions;
                format!("  data     {questions} questions x {} teacher answers, verified", c.data.num_rollouts)
            }
        });
        let steps = c.sft.max_steps.map_or("epochs of".to_owned(), |n| n.to_string());
        let base = c.base.model.as_ref().map(|dir| dir.display().to_string());
        let base = base.unwrap_or("a new model with random weights".to_owned());
        say(format!("  sft      {steps} updates from {base}"));
        if c.control.enable {
            let (steps, rows) = (self.control_steps(), self.control_rows());
            say(format!("  control  sft continued for {steps} updates of {rows} rows"));
        }
        let rl = &c.rl;
        let steps = match rl.train_files.is_empty() {
            true => rl.total_steps(c.task.num_rl_questions).to_string(),
            false => rl.total_training_steps.map_or("epochs of".to_owned(), |n| n.to_string()),
        };
        say(format!("  rl       {steps} steps of {} prompts x {} rollouts", rl.train_batch_size, rl.rollout.n));
        let questions = match c.eval.data.is_empty() {
            true => format!("{} held-out questions", c.task.num_heldout_questions),
            false => "questions of eval.data".to_owned(),
        };
        say(format!("  eval     {questions}, with greedy decoding and at temperature 1"));
        let (there, all) = (self.columns.len(), self.columns.len() + self.left_out.len());
        if all > 0 {
            say(format!("  columns  files found for {there} of {all} tasks of eval.tasks"));
            self.left_out.iter().cloned().for_each(say);
        }
        say(format!("  judge    {}", self.judges()));
        let takes = if self.machine.target.kind == Kind::Cpu { self.task.takes } else { "" };
        say(format!("{takes}the run can be stopped and continued at any time"));
    }

    /// Starts and stops the reward commands once and looks for the services of `report_to`, so that what is missing is
    /// found before the long stages.
    pub fn try_commands(&self) -> Result<()> {
        let mut services = [&self.config.sft.training.report_to[..], &self.config.rl.training.report_to].concat();
        services.dedup();
        reporters::check(&services)?;
        let (rl, eval) = (&self.config.rl.reward.scorer, &self.config.eval.reward);
        for (reward, place) in [(rl, "rl.reward"), (eval, "eval.reward")] {
            if !reward.command.is_empty() {
                Pool::start(&ScorerConfig { workers: 1, ..reward.clone() }, place)?;
            }
        }
        Ok(())
    }

    /// Describes the judges and reward commands, with the stages that use them.
    fn judges(&self) -> String {
        let c = &self.config;
        let judges = [("data", &c.data.judge), ("rl", &c.rl.judge), ("eval", &c.eval.judge)];
        let commands = [("rl", &c.rl.reward.scorer.command), ("eval", &c.eval.reward.command)];
        let named = |(stage, judge): (&str, &Option<JudgeConfig>)| Some(format!("{} ({stage})", judge.as_ref()?.model));
        let commands = commands.into_iter().filter(|(_, command)| !command.is_empty());
        let commands: Vec<String> = commands.map(|(stage, c)| format!("reward by {} ({stage})", c.join(" "))).collect();
        let judges: Vec<String> = judges.into_iter().filter_map(named).chain(commands).collect();
        match judges.is_empty() {
            true => "off: only the rules decide which answers are correct".to_owned(),
            false => judges.join(", "),
        }
    }
}
