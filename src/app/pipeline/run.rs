//! Runs a stage: skips it if it is finished; otherwise runs it or merges its shards.

use std::path::Path;

use crate::pipeline::stage::piece;
use crate::pipeline::{Shard, Stage, Summary, Work, merge, record};
use omr_base::error::{Error, Result};
use omr_base::files::{self, json};
use omr_base::identity::{self, Manifest};
use omr_runtime::machine::Machine;

/// Part of the error messages about changed inputs: the time at which the inputs were recorded.
const WHEN: &str = "when the stage read it";

/// Returns the summary of a finished stage, or `None` if something is left to do. Returns an error if a file that it
/// read has changed, unless the config accepts the change; the stage then runs again.
pub fn finished<C: Stage>(config: &C, dir: &Path, shard: Option<Shard>) -> Result<Option<Summary>> {
    let summary: Option<Summary> = json::read_if_exists(&piece(dir, "summary", "json", shard))?;
    if summary.is_none() {
        return Ok(None);
    }
    let differences = record::differences(&record::files(config)?, dir, shard)?;
    let accepted = identity::refuse(differences, WHEN, &config.stage().accept_changed)?;
    Ok(summary.filter(|_| accepted.is_empty()))
}

/// Runs a stage in `dir`, or continues it if it was interrupted. Returns the summary of the stage, and true if the
/// stage was not finished yet.
pub fn run<C: Stage>(config: &C, dir: &Path, shard: Option<Shard>, machine: &Machine) -> Result<(Summary, bool)> {
    run_after(config, dir, shard, machine, &|_| false)
}

/// Runs a stage like `run`, after earlier stages whose files are `ours`. If one of these files has changed, the stage
/// runs again without an error: an earlier stage may have received answers from a teacher or judge that did not respond
/// before.
pub fn run_after<C: Stage>(
    config: &C,
    dir: &Path,
    shard: Option<Shard>,
    machine: &Machine,
    ours: &dyn Fn(&Path) -> bool,
) -> Result<(Summary, bool)> {
    let mut job = config.job(machine)?;
    let files = record::files(config)?;
    let accepted = &config.stage().accept_changed;
    let differences = record::differences(&files, dir, shard)?;
    let (expected, differences): (Vec<_>, Vec<_>) = differences.into_iter().partition(|it| it.is_of(ours));
    let lines = identity::refuse(differences, WHEN, accepted)?;
    lines.iter().for_each(|line| machine.observer.note(line));
    let done = piece(dir, "summary", "json", shard);
    match json::read_if_exists(&done)? {
        Some(summary) if lines.is_empty() && expected.is_empty() && job.is_final(&summary) => {
            return Ok((summary, false));
        }
        Some(_) if !(lines.is_empty() && expected.is_empty()) => {
            std::fs::remove_file(&done).map_err(Error::io(&done))?
        }
        _ => {}
    }
    if let (Some(why), Some(_)) = (C::WHOLE, shard) {
        return Err(Error::input("--shard", format!("a part of `{}`", C::NAME), why));
    }
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let parts = if shard.is_none() { merge::shards(dir)? } else { None };
    let work = Work { parts, ..Work::open(config, dir, shard, machine)? };
    let mut changed = record::altered(&files)?;
    for index in 0..parts.unwrap_or(0) {
        changed.extend(record::differences(&files, dir, Some(Shard { index, count: parts.unwrap_or(0) }))?);
    }
    changed.dedup_by(|one, other| one.what == other.what);
    identity::refuse(changed, WHEN, accepted)?.iter().for_each(|line| machine.observer.note(line));
    let claim = piece(dir, record::RECORD, "json", shard);
    let claimed = claim.exists();
    let run_job = || match parts.filter(|_| !job.gathers()) {
        Some(count) => merge::rows(&work, count),
        None => job.run(&work),
    };
    let mut summary = match run_alongside(|| record::write(&files, dir, shard), run_job) {
        // After an error the user may have to correct an input file. The record of this run would then refuse the
        // corrected file, so it is removed. A stopped stage keeps its record, and so does a stage that had one before.
        Err(error) if !claimed && !matches!(error, Error::Stopped) => {
            files::if_exists(&claim, std::fs::remove_file(&claim))?;
            return Err(error);
        }
        done => done?,
    };
    for input in &work.inputs {
        let seen = input.seen()?;
        machine.observer.note(&format!("{}: {}", input.name, seen.line()));
        seen.check()?;
        let warnings = seen.warnings();
        if !warnings.is_empty() {
            summary.more.insert("warnings".to_owned(), warnings.into());
        }
    }
    summary.check(config.outcomes())?;
    if shard.is_none() {
        Manifest::write_of(dir, outputs(&work)?)?;
    }
    json::write(&done, &summary)?;
    parts.map_or(Ok(()), |count| merge::remove(&work, count))?;
    Ok((summary, true))
}

/// Returns the names of the parquet files that the stage wrote, except the files of its shards.
fn outputs(work: &Work) -> Result<Vec<String>> {
    let count = work.parts.unwrap_or(0);
    let shards: Vec<_> = (0..count).map(|index| Shard { index, count }.suffix() + ".parquet").collect();
    let mut names: Vec<String> = files::entries(&work.dir)?.iter().map(|path| files::file_name(path)).collect();
    names.retain(|name| name.ends_with(".parquet") && !shards.iter().any(|shard| name.ends_with(shard)));
    Ok(names)
}

/// Runs `other` in a second thread while `run_job` runs. Returns the result of `run_job`.
fn run_alongside<T>(other: impl FnOnce() -> Result<()> + Send, run_job: impl FnOnce() -> Result<T>) -> Result<T> {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let done = run_job()?;
        other.join().map_err(|_| Error::Failed("hashing a file panicked".to_owned()))??;
        Ok(done)
    })
}
