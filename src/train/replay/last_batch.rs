//! Reads the last training batch of a run.

use std::collections::HashMap;
use std::path::Path;

use super::compute::scorer;
use super::recorded::Recorded;
use crate::eval::Trained;
use crate::rl::experience::Experience;
use crate::rl::run::RlJob;
use crate::training::sft::SftJob;
use crate::training::step::Sequence;
use crate::training::updates::Updates;
use omr_base::answers::RunStore;
use omr_base::config::{self, RlConfig, SftConfig};
use omr_base::error::{Error, Result};
use omr_model::rollout::file;
use omr_runtime::machine::Machine;

/// Returns the sequences of the last update of the SFT run in `dir`, or the rollouts of an RL run's last step whose
/// rollouts are recorded. Errors if the rows of the run are no longer there.
pub fn last_batch(dir: &Path, machine: &Machine) -> Result<Vec<Trained>> {
    let run = Recorded::open(dir)?;
    let (file, env) = (dir.join("config.yaml"), |name: &str| std::env::var(name).ok());
    if run.is_rl {
        return rollouts(&run, config::load(Some(&file), &[], &env)?, machine);
    }
    let job = SftJob::open(dir, config::load::<SftConfig>(Some(&file), &[], &env)?, false)?;
    let mut updates = Updates::new(&job.config, &job.common.index)?;
    let (mut consumed, mut last) = (0, None);
    for _ in run.steps.keys() {
        let Some(update) = updates.next(consumed)? else { break };
        consumed = update.consumed;
        last = Some(update);
    }
    let mut batch = Vec::new();
    for i in last.iter().flat_map(|update| update.samples()) {
        // A row that the run left out has no sample.
        batch.extend(job.samples.get(i)?.ok().map(|sample| Trained::from(Sequence::from(&*sample))));
    }
    Ok(batch)
}

fn rollouts(run: &Recorded, config: RlConfig, machine: &Machine) -> Result<Vec<Trained>> {
    let recorded = |&step: &u64| Some(file::read(&run.dir, step).transpose()?.map(|rows| (step, rows)));
    let missing = || Error::input(run.dir.join("rollouts"), "no file", "the rollouts of a step (rollout_freq)");
    let (step, rows) = run.steps.keys().rev().find_map(recorded).ok_or_else(missing)??;
    let scratch = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let scorer = scorer(&config, RunStore::new(scratch.path()), machine)?;
    let size = config.gen_batch() as u64;
    let job = RlJob::open(&run.dir, config, scorer, false)?;
    let first = rows.iter().map(|row| row.prompt).min().unwrap_or_default();
    let last = rows.iter().map(|row| row.prompt).max().unwrap_or_default();
    let mut loader = job.loader(first / size * size)?;
    let mut questions = HashMap::new();
    for _ in first / size..=last / size {
        let made = loader.take()?.into_iter().filter_map(|(_, made)| made.ok());
        questions.extend(made.map(|question| (question.row.id.clone(), question)));
    }
    let trained = |row: file::RolloutRow| {
        let found = || Error::input(file::path(&run.dir, step), &row.id, "a question of the run's rows");
        let question = questions.get(&row.id).ok_or_else(found)?;
        let made = Experience::of_tokens(&question.prompt.token_ids, &row.token_ids, row.log_probs);
        Ok(made.sequence(question, false).into())
    };
    rows.into_iter().map(trained).collect()
}
