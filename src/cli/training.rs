//! What `omr sft` and `omr rl` do alike once their job is made: plan, run directory, run.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::run_dir::{RunDir, is_begun};
use super::{Context, RunArgs, dry_run};
use crate::answers;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::files;
use crate::model::ModelConfig;
use crate::plan::Page;
use crate::ranks::{self, Ranks};
use crate::train::job::TrainingJob;
use crate::train::lanes;
use crate::train::plan;

/// Does `work` as one of `ranks`, and tells the others how it ended.
pub fn over(mut ranks: Box<dyn Ranks>, work: impl FnOnce(&mut dyn Ranks) -> Result<()>) -> Result<()> {
    match work(&mut *ranks) {
        Ok(()) => ranks.leave(Ok(())),
        Err(error) => Err(ranks::last_word(&mut *ranks, error)),
    }
}

/// The gradient lanes of a run that `asked` for so many: those it began with, where there is a run, else one a rank.
pub fn lanes<C: Config>(
    args: &RunArgs,
    asked: Option<usize>,
    ranks: usize,
    of: impl FnOnce(&C) -> Option<usize>,
) -> Result<Option<usize>> {
    let file = args.out.join("config.yaml");
    let began = match !args.fresh && file.exists() && is_begun(&args.out) {
        true => of(&config::load(Some(&file), &[], &|_| None)?),
        false => Some(ranks),
    };
    let lanes = asked.or(began).unwrap_or(1);
    lanes::cover(lanes, ranks)?;
    // One lane is what a run has that says nothing.
    Ok((lanes > 1).then_some(lanes))
}

/// Plans `job` of `config`, says `what` it is and what memory it takes, runs what is left of it, this process being one of
/// `ranks`, and prints the model's path to stdout; a dry run ends with the plan, and `page`, that of a card.
pub fn run<C: Config>(
    args: &RunArgs,
    config: &C,
    (context, ranks): (&Context, &mut dyn Ranks),
    job: &mut dyn TrainingJob,
    what: &str,
    page: impl FnOnce(ModelConfig) -> Result<Page>,
) -> Result<()> {
    job.same_at(ranks)?;
    let plan = job.plan(context.target())?;
    context.say(&format!("{what}; {}", plan::line(&plan)));
    if args.dry_run {
        let what = (C::NAME, what, ranks.size());
        return dry_run::rest((args, context), what, &plan, &job.common().levels, &job.trainer_config(), page);
    }
    let leads = ranks.rank() == 0;
    let dir = leads.then(|| RunDir::open(args, config, context)).transpose()?;
    if leads && ranks.size() > 1 {
        answers::gather(&args.out)?;
    }
    same_folder(args, ranks)?;
    if ranks::first_finds(ranks, "whether the run is finished", || job.is_finished())? {
        context.say(&format!("{} is finished: nothing to do", args.out.display()));
    } else {
        dir.iter().try_for_each(|dir| dir.begin(config, context))?;
        let mut device = context.device(&plan)?;
        job.run_over(ranks, &mut device, context.observer())?;
    }
    match leads {
        true => super::print(&format!("{}\n", args.out.join("model").display())),
        false => Ok(()),
    }
}

/// Errors unless all ranks have the config that decides results alike, `deciding` as JSON; names the keys that differ.
pub fn same_config(ranks: &mut dyn Ranks, deciding: &str) -> Result<()> {
    let all = ranks.gather("the config", deciding.as_bytes())?;
    let Some(rank) = all.iter().position(|of| *of != all[0]) else { return Ok(()) };
    let [theirs, first] =
        [rank, 0].map(|rank| serde_json::from_slice::<Map<String, Value>>(&all[rank]).unwrap_or_default());
    let keys = first.keys().chain(theirs.keys().filter(|key| !first.contains_key(*key)));
    let differ: Vec<&String> = keys.filter(|key| first.get(*key) != theirs.get(*key)).collect();
    let said = |of: &Map<String, Value>| -> String {
        let one = |key: &&String| format!("{key} {}", of.get(*key).unwrap_or(&Value::Null));
        differ.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let expected = format!("{}, as {}", said(&first), ranks.name(0));
    Err(Error::input(format!("the config of {}", ranks.name(rank)), said(&theirs), expected))
}

/// Errors unless the run directory is the same folder for all ranks: what rank 0 puts there has to be found.
pub(super) fn same_folder(args: &RunArgs, ranks: &mut dyn Ranks) -> Result<()> {
    const NAME: &str = ".ranks";
    const PATIENCE: Duration = Duration::from_secs(30);
    let path = args.out.join(NAME);
    if ranks.size() == 1 {
        return Ok(());
    }
    let mut token = String::new();
    if ranks.rank() == 0 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        token = format!("{} {}", std::process::id(), since.as_nanos());
        files::write(&path, token.as_bytes())?;
    }
    let all = ranks.await_all("the run directory", token.as_bytes())?;
    // A network file system may show a new file late.
    let begun = Instant::now();
    let mut found = files::read(&path).unwrap_or_default();
    while found != all[0] && begun.elapsed() < PATIENCE {
        std::thread::sleep(PATIENCE / 60);
        found = files::read(&path).unwrap_or_default();
    }
    match found == all[0] {
        true => Ok(()),
        false => Err(Error::input(
            args.out.display().to_string(),
            format!("another folder than that of {}", ranks.name(0)),
            "one folder that all ranks write to",
        )),
    }
}
