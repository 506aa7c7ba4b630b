//! The run directory: creates it, locks it, compares the config with the one it was started with, or moves it aside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::RunArgs;
use super::{Context, start};
use omr_base::config::{self, Config, Difference};
use omr_base::error::{Error, Result};
use omr_base::files::{self, Lock};
use omr_model::rollout::journal;

/// Commands that do not start in a folder with other files, because their results would mix with them.
const TRAINS: [&str; 3] = ["sft", "rl", "recipe"];

/// Names and endings of files that may be in a folder before its run: configs, and the output of batch systems.
const BESIDE: [&str; 8] = ["lost+found", "out", "err", "log", "txt", "sh", "yaml", "yml"];

/// An open run directory. The lock is held until this value is dropped. If the directory then contains only what
/// [`RunDir::begin`] writes, these files are removed, so that the folder is as it was before.
pub struct RunDir {
    /// Path as the user gave it.
    pub out: PathBuf,
    /// The same path, or the target if it is a symbolic link.
    dir: PathBuf,
    /// Suffix of this process if several processes work in the folder, otherwise empty.
    part: String,
    /// Names of the files that existed before.
    before: BTreeSet<String>,
    /// Path to which `--fresh` has moved the old folder.
    aside: Option<PathBuf>,
    lock: Option<Lock>,
}

impl RunDir {
    /// Opens `args.out` for `config`. Moves an old run aside with `--fresh`. Returns an error if a result-relevant key
    /// of the config differs, or if another process uses the folder. Removes incomplete files of a killed run. Changes
    /// nothing else in the folder until [`RunDir::begin`].
    pub fn open<C: Config>(args: &RunArgs, config: &C, context: &Context) -> Result<RunDir> {
        let run = RunDir::open_part(args, "", config, context)?;
        files::tidy(&run.dir)?;
        Ok(run)
    }

    /// Opens the folder for one of several processes that use it at the same time. `part` (such as `-0-of-4`) is added
    /// to the names of its lock and its log.
    pub fn open_part<C: Config>(args: &RunArgs, part: &str, config: &C, context: &Context) -> Result<RunDir> {
        let run = RunDir::lock(args, part, context)?;
        run.compare(config, context)?;
        Ok(run)
    }

    /// Ends a dry run of the job `config`: prints its `plan` (see `RunArgs::planned`), and returns the error with which
    /// [`RunDir::open`] refuses the folder. Leaves everything as it is.
    pub fn planned<C: Config>(args: &RunArgs, config: &C, of: &Context, plan: impl FnOnce() -> Value) -> Result<()> {
        args.planned(of, plan)?;
        let run = of.leads().then(|| RunDir::lock(&RunArgs { fresh: false, ..args.clone() }, "", of)).transpose()?;
        run.filter(|_| !args.fresh).map_or(Ok(()), |run| run.refusal(config).map(drop))
    }

    fn lock(args: &RunArgs, part: &str, context: &Context) -> Result<RunDir> {
        // A symbolic link stays in place. A fresh run is created at its target.
        let target = std::fs::canonicalize(&args.out).ok().filter(|_| args.out.is_symlink());
        let dir = target.unwrap_or_else(|| args.out.clone());
        let mut aside = None;
        if args.fresh {
            // A process that still works in the old folder would continue in the new one, because it writes by path.
            let mut idle = if dir.is_dir() { Some(Lock::take(&dir, "")?) } else { None };
            aside = files::move_aside(&dir)?;
            if let Some(aside) = &aside {
                idle.iter_mut().for_each(|idle| idle.follow(aside));
                context.say(&format!("moved the old run {} to {}", dir.display(), aside.display()));
            }
        }
        if dir.exists() && !dir.is_dir() {
            let expected = "a run directory, or a name that does not exist";
            return Err(Error::input(dir, "a file", expected));
        }
        let before = names(&dir);
        let lock = Some(Lock::take(&dir, part)?);
        Ok(RunDir { out: args.out.clone(), dir, part: part.to_owned(), before, aside, lock })
    }

    fn compare<C: Config>(&self, config: &C, context: &Context) -> Result<()> {
        let place = self.out.display();
        let Some(changes) = self.refusal(config)? else {
            context.say(&format!("{place}: replaced an earlier run with another config, which had made no step"));
            return journal::forget(&self.dir, u64::MAX);
        };
        changes.iter().for_each(|it| context.say(&format!("{} was {} and is {}", it.path, it.was, it.now)));
        Ok(())
    }

    /// Returns the allowed differences to the config of an existing run, or `None` if that run has made no step and may
    /// be replaced. Returns an error if the folder is not a run's, or if the configs differ in other keys.
    fn refusal<C: Config>(&self, config: &C) -> Result<Option<Vec<Difference>>> {
        let dir = &self.out;
        let file = dir.join("config.yaml");
        if !file.exists() {
            let is_beside = |name: &str| name.rsplit('.').next().is_some_and(|ending| BESIDE.contains(&ending));
            let is_foreign = |name: &&String| !is_nothing(dir, name) && !is_beside(name) && !name.starts_with('.');
            return match self.before.iter().find(is_foreign).filter(|_| TRAINS.contains(&C::NAME)) {
                Some(name) => {
                    let found = format!("a folder with other files, such as {name}");
                    Err(Error::input(dir, found, "a run directory, or a new or empty folder"))
                }
                None => Ok(Some(Vec::new())),
            };
        }
        if !files::is_run(dir) {
            let expected = "a run directory, or a folder without a config.yaml";
            return Err(Error::input(file, "a config that was not written by a run", expected));
        }
        let was = config::load::<C>(Some(&file), &[], &|_| None);
        match was.and_then(|was| config::refuse_differences(dir, &was, config)) {
            Err(_) if self.part.is_empty() && !is_begun(dir) => Ok(None),
            changes => changes.map(Some),
        }
    }

    /// Writes `config.yaml`, records the start and starts `log.txt`. Called only if the run has work left.
    pub fn begin<C: Config>(&self, config: &C, context: &Context) -> Result<()> {
        let text = config::headed(config, Some(&context.place()))?;
        files::write(self.dir.join("config.yaml"), text.as_bytes())?;
        if self.part.is_empty() {
            start::record(&self.dir)?;
        }
        context.log_to(&self.dir.join(format!("log{}.txt", self.part)))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let added: Vec<String> = names(&self.dir).difference(&self.before).cloned().collect();
        // Several parts share their first files, so a part must not remove them.
        if self.part.is_empty() && !self.before.contains("config.yaml") && added.iter().all(|name| is_claim(name)) {
            added.iter().filter(|name| !is_lock(name)).for_each(|name| drop(std::fs::remove_file(self.dir.join(name))));
        }
        drop(self.lock.take());
        if let Some(aside) = self.aside.take().filter(|_| !self.dir.exists()) {
            let _ = std::fs::rename(aside, &self.dir);
        }
    }
}

/// True if the run in `dir` has produced steps, answers or rows. A run that ended before that does not restrict later
/// runs.
pub fn is_begun(dir: &Path) -> bool {
    !names(dir).iter().all(|name| is_nothing(dir, name))
}

/// True for what a run without a finished step may have written.
fn is_nothing(dir: &Path, name: &str) -> bool {
    is_claim(name)
        || [journal::FOLDER, "index", "tensorboard", "reporters", "rejected.jsonl"].contains(&name)
        || std::fs::metadata(dir.join(name)).is_ok_and(|found| found.is_file() && found.len() == 0)
}

/// True for files that a run writes before its first step.
fn is_claim(name: &str) -> bool {
    let is_log = name.starts_with("log") && name.ends_with(".txt");
    is_lock(name) || is_log || ["config.yaml", "inputs.json", start::FILE, ".ranks"].contains(&name)
}

fn is_lock(name: &str) -> bool {
    name.starts_with(".lock")
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::global::{DeviceKind, Global, VariantChoice};
    use crate::cli::ranks::RankRole;
    use omr_base::config::SftConfig;

    fn context() -> Context {
        Context::new(
            &Global {
                device: DeviceKind::Cpu,
                kernel_variant: VariantChoice::Auto,
                kernel_images: None,
                threads: 1,
                log_level: "info".to_owned(),
                quiet: true,
            },
            RankRole::ALONE,
        )
    }

    fn args(out: PathBuf, fresh: bool) -> RunArgs {
        RunArgs { out, fresh, dry_run: false, json: false }
    }

    fn begin(dir: &Path, fresh: bool, config: &SftConfig, context: &Context) -> Result<RunDir> {
        let run = RunDir::open(&args(dir.to_owned(), fresh), config, context)?;
        run.begin(config, context)?;
        std::fs::write(run.out.join("weights"), "w").unwrap();
        Ok(run)
    }

    #[test]
    fn a_run_goes_on_with_its_config_and_refuses_another() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, context) = (temp.path().join("run"), context());
        let was = SftConfig { max_steps: Some(10), ..SftConfig::default() };
        drop(begin(&dir, false, &was, &context).unwrap());
        let more = SftConfig { max_steps: Some(20), ..was.clone() };
        drop(begin(&dir, false, &more, &context).unwrap());
        let other = SftConfig { warmup_ratio: 0.5, ..more.clone() };
        let error = begin(&dir, false, &other, &context).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains("warmup_ratio was 0.1 and is 0.5"), "{error}");
        let written: SftConfig = config::load(Some(&dir.join("config.yaml")), &[], &|_| None).unwrap();
        assert_eq!(written, more, "a refused config changes nothing");
    }

    #[test]
    fn fresh_moves_the_old_run_aside_and_deletes_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, context) = (temp.path().join("run"), context());
        let config = SftConfig::default();
        for _ in 0..3 {
            begin(&dir, true, &config, &context).unwrap();
        }
        for name in ["run", "run.1", "run.2"] {
            assert!(temp.path().join(name).join("weights").exists(), "{name}");
        }
    }

    #[test]
    fn fresh_leaves_a_run_alone_that_is_being_worked_on() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, context) = (temp.path().join("run"), context());
        let first = begin(&dir, false, &SftConfig::default(), &context).unwrap();
        let error = begin(&dir, true, &SftConfig::default(), &context).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains("another omr process"), "{error}");
        assert!(dir.join("config.yaml").exists() && !temp.path().join("run.1").exists());
        drop(first);
        begin(&dir, true, &SftConfig::default(), &context).unwrap();
        assert!(temp.path().join("run.1").exists());
    }

    #[test]
    fn two_processes_do_not_share_a_folder() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, context) = (temp.path().join("run"), context());
        let first = RunDir::open(&args(dir.clone(), false), &SftConfig::default(), &context).unwrap();
        let error = RunDir::open(&args(dir.clone(), false), &SftConfig::default(), &context).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains("another omr process"), "{error}");
        drop(first);
        RunDir::open(&args(dir, false), &SftConfig::default(), &context).unwrap();
    }
    #[test]
    fn fresh_behind_a_link_moves_what_it_leads_to_and_an_unbegun_run_puts_it_back() {
        let temp = tempfile::tempdir().unwrap();
        let (link, disk, context) = (temp.path().join("link"), temp.path().join("disk"), context());
        std::fs::create_dir(&disk).unwrap();
        std::os::unix::fs::symlink(&disk, &link).unwrap();
        let config = SftConfig::default();
        begin(&link, false, &config, &context).unwrap();
        begin(&link, true, &config, &context).unwrap();
        assert!(
            link.is_symlink() && ["disk", "disk.1"].iter().all(|name| temp.path().join(name).join("weights").exists())
        );
        std::fs::write(disk.join("weights"), "second").unwrap();
        let run = RunDir::open(&args(link, true), &config, &context).unwrap();
        run.begin(&config, &context).unwrap();
        assert!(!disk.join("weights").exists());
        drop(run);
        assert_eq!(std::fs::read_to_string(disk.join("weights")).unwrap(), "second");
        assert!(!temp.path().join("disk.2").exists());
    }
}
