//! What every stage does: nothing where it is finished, its work or the joining of its shards' where it is not.

use std::path::Path;

use crate::data::Signature;
use crate::error::{Error, Result};
use crate::files;
use crate::identity::{self, Manifest};
use crate::pipeline::merge;
use crate::pipeline::stage::{Means, Shard, Stage, Work, piece};
use crate::pipeline::summary::Summary;

/// The summary of a finished stage; none where there is something left to do. Errors when a file it read is another
/// than it was.
pub fn finished(dir: &Path, shard: Option<Shard>) -> Result<Option<Summary>> {
    let path = piece(dir, "summary", "json", shard);
    let Some(summary): Option<Summary> = read(&path)? else { return Ok(None) };
    let inputs: Vec<Signature> = read(&piece(dir, "inputs", "json", shard))?.unwrap_or_default();
    for input in inputs {
        input.check(&mut input.modified.clone())?;
    }
    Ok(Some(summary))
}

/// Has a finished stage run again where a file it read is another since, one of those that earlier stages wrote (`ours`):
/// a teacher or judge that was silent then has answered.
pub fn reopen(dir: &Path, ours: &dyn Fn(&Path) -> bool) -> Result<()> {
    let [inputs, summary] = ["inputs", "summary"].map(|stem| piece(dir, stem, "json", None));
    let inputs: Vec<Signature> = read(&inputs)?.unwrap_or_default();
    let other = |input: &&Signature| ours(&input.path) && input.check(&mut input.modified.clone()).is_err();
    match inputs.iter().find(other) {
        Some(_) if summary.exists() => std::fs::remove_file(&summary).map_err(Error::io(&summary)),
        _ => Ok(()),
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match files::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::format(path, e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path)(e)),
    }
}

/// Runs a stage in `dir`, or what is left of it. Its summary, and whether there was anything to do.
pub fn run<C: Stage>(config: &C, dir: &Path, shard: Option<Shard>, means: &Means) -> Result<(Summary, bool)> {
    let mut job = config.job(means)?;
    if let Some(summary) = finished(dir, shard)?.filter(|summary| job.is_final(summary)) {
        return Ok((summary, false));
    }
    if let (Some(why), Some(_)) = (C::WHOLE, shard) {
        return Err(Error::input("--shard", format!("a part of `{}`", C::NAME), why));
    }
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let parts = if shard.is_none() { merge::shards(dir)? } else { None };
    let work = Work { parts, ..Work::open(config, dir, shard, means)? };
    for (_, file) in work.inputs.iter().flat_map(|input| &input.files) {
        identity::check_listed(&file.path)?;
    }
    let act = || match parts.filter(|_| !job.gathers()) {
        Some(count) => merge::rows(&work, count),
        None => job.run(&work),
    };
    let (summary, signatures) = beside(&work, act)?;
    for input in &work.inputs {
        means.observer.note(&format!("{}: {}", input.name, input.seen()?.line()));
    }
    summary.check(config.outcomes())?;
    write(&work.path("inputs", "json"), &signatures)?;
    if shard.is_none() {
        Manifest::write_of(dir, outputs(&work)?)?;
    }
    write(&work.path("summary", "json"), &summary)?;
    parts.map_or(Ok(()), |count| merge::remove(&work, count))?;
    Ok((summary, true))
}

/// The files of rows that the stage has written, those of its shards aside.
fn outputs(work: &Work) -> Result<Vec<String>> {
    let count = work.parts.unwrap_or(0);
    let shards: Vec<_> = (0..count).map(|index| Shard { index, count }.suffix() + ".parquet").collect();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&work.dir).map_err(Error::io(&work.dir))? {
        names.push(entry.map_err(Error::io(&work.dir))?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name.ends_with(".parquet") && !shards.iter().any(|shard| name.ends_with(shard)));
    names.sort();
    Ok(names)
}

/// What the files were, hashed beside the work on them.
fn beside(work: &Work, act: impl FnOnce() -> Result<Summary>) -> Result<(Summary, Vec<Signature>)> {
    let paths: Vec<_> = work.inputs.iter().flat_map(|input| &input.files).map(|(_, file)| file.path.clone()).collect();
    std::thread::scope(|scope| {
        let signatures = scope.spawn(|| paths.iter().map(|path| Signature::of(path)).collect::<Result<Vec<_>>>());
        let summary = act()?;
        let signatures = signatures.join().map_err(|_| Error::Failed("hashing a file panicked".to_owned()))??;
        Ok((summary, signatures))
    })
}

fn write<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?;
    files::write(path, (text + "\n").as_bytes())
}
