//! A run directory: made, locked, compared with the config it was started with, or moved aside.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Context, RunArgs};
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::files;

/// An open run directory; the lock is held until it is dropped.
pub struct RunDir {
    dir: PathBuf,
    /// Of several processes that work in it, which; empty of a single one.
    part: String,
    _lock: File,
}

impl RunDir {
    /// Opens `args.out` for `config`: moves an old run aside if `--fresh`, refuses a config that differs in a key
    /// that matters or a folder another process is working in. But for what a killed run left half-written, which
    /// is removed, nothing in the folder is changed until [`RunDir::begin`].
    pub fn open<C: Config>(args: &RunArgs, config: &C, context: &Context) -> Result<RunDir> {
        let run = RunDir::lock(args, "", context)?;
        // What a killed run left half-written; with the lock held nobody else is writing here.
        files::tidy_tree(&args.out)?;
        run.compare(config, context)?;
        Ok(run)
    }

    /// The same for one of several processes that work in the folder at once: `part` (`-0-of-4`) ends the names of its
    /// lock and its log.
    pub fn open_part<C: Config>(args: &RunArgs, part: &str, config: &C, context: &Context) -> Result<RunDir> {
        let run = RunDir::lock(args, part, context)?;
        run.compare(config, context)?;
        Ok(run)
    }

    fn lock(args: &RunArgs, part: &str, context: &Context) -> Result<RunDir> {
        let dir = &args.out;
        // A process that works in the old folder would go on in the new one: it writes by path.
        let _idle = if args.fresh && dir.join(".lock").exists() { Some(lock(dir, ".lock")?) } else { None };
        if args.fresh
            && let Some(aside) = files::move_aside(dir)?
        {
            context.say(&format!("moved the old {} to {}", dir.display(), aside.display()));
        }
        if dir.exists() && !dir.is_dir() {
            return Err(Error::input(dir.display().to_string(), "a file", "a run directory, or a name that is free"));
        }
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        Ok(RunDir { dir: dir.clone(), part: part.to_owned(), _lock: lock(dir, &format!(".lock{part}"))? })
    }

    fn compare<C: Config>(&self, config: &C, context: &Context) -> Result<()> {
        let dir = &self.dir;
        let file = dir.join("config.yaml");
        if file.exists() {
            let was: C = config::load(Some(&file), &[], &|_| None)?;
            for change in config::refuse_differences(dir, &was, config)? {
                context.say(&format!("{} was {} and is {}", change.path, change.was, change.now));
            }
        }
        Ok(())
    }

    /// Writes `config.yaml` and starts `log.txt`, for a run that has something left to do.
    pub fn begin<C: Config>(&self, config: &C, context: &Context) -> Result<()> {
        let text = format!("# omr {}, on {}\n{}", env!("CARGO_PKG_VERSION"), context.place(), config::to_yaml(config)?);
        files::write(self.dir.join("config.yaml"), text.as_bytes())?;
        context.log_to(&self.dir.join(format!("log{}.txt", self.part)))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

fn lock(dir: &Path, name: &str) -> Result<File> {
    let path = dir.join(name);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::input(
            dir.display().to_string(),
            "a run that another omr process is working on",
            "a folder of its own for each run",
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(Error::io(&path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{DeviceKind, Global};
    use crate::cli::ranks::Seat;
    use crate::config::SftConfig;

    fn context() -> Context {
        Context::new(
            &Global { device: DeviceKind::Cpu, threads: 1, log_level: "info".to_owned(), quiet: true },
            Seat::Alone,
        )
    }

    fn args(out: PathBuf, fresh: bool) -> RunArgs {
        RunArgs { out, fresh, dry_run: false, json: false }
    }

    fn begin(dir: &Path, fresh: bool, config: &SftConfig, context: &Context) -> Result<RunDir> {
        let run = RunDir::open(&args(dir.to_owned(), fresh), config, context)?;
        run.begin(config, context)?;
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
            let run = begin(&dir, true, &config, &context).unwrap();
            std::fs::write(run.path().join("weights"), "w").unwrap();
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
}
