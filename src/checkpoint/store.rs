//! The checkpoints of a run: saved whole, found again, thinned out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::checkpoint::State;
use crate::error::{Error, Result};
use crate::files::{self, StagedFolder};
use crate::identity::Manifest;

const PREFIX: &str = "global_step_";

/// From where a run starts (`resume: auto|never|PATH`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resume {
    /// From the newest whole checkpoint of the run directory, if there is one.
    Auto,
    /// From the beginning; a run directory with checkpoints is refused.
    Never,
    /// From this checkpoint, or the newest of this run directory.
    Path(PathBuf),
}

impl From<&str> for Resume {
    fn from(text: &str) -> Resume {
        match text {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            path => Resume::Path(path.into()),
        }
    }
}

/// A whole checkpoint on disk: a model directory with `trainer/` in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Updates done when it was saved.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

impl Checkpoint {
    /// The folder of state and optimizer files.
    pub fn trainer(&self) -> PathBuf {
        self.path.join("trainer")
    }

    /// Its `state.json`. Errors when missing, broken, or of another step than the folder's name says.
    pub fn state(&self) -> Result<State> {
        let state = State::read(&self.trainer())?;
        if state.step != self.step {
            let what = format!("step {} in a folder of step {}", state.step, self.step);
            return Err(Error::format(self.trainer().join("state.json"), what));
        }
        Ok(state)
    }

    /// The checkpoint in a folder named `global_step_N`.
    pub fn at(path: &Path) -> Option<Checkpoint> {
        let name = path.file_name()?.to_str()?;
        let step = name.strip_prefix(PREFIX)?.parse().ok()?;
        (name == format!("{PREFIX}{step}")).then(|| Checkpoint { step, path: path.to_owned() })
    }
}

/// Which checkpoints of a run stay: the newest, and those of every so many steps.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How many of the newest; at least one stays.
    pub newest: usize,
    /// Those of the steps that are multiples of this stay, too.
    pub every: Option<u64>,
}

impl From<usize> for Retention {
    /// The newest alone.
    fn from(newest: usize) -> Retention {
        Retention { newest, every: None }
    }
}

impl Retention {
    /// Whether the checkpoint of `step` is made and stays.
    pub fn always(self, step: u64) -> bool {
        self.every.is_some_and(|n| step.is_multiple_of(n))
    }
}

/// The checkpoints of one run directory.
#[derive(Clone, Debug)]
pub struct Store {
    run: PathBuf,
    keep: Retention,
}

impl Store {
    /// The store of run directory `run`. What a killed run left half-written is removed: call it with the run's lock
    /// held.
    pub fn open(run: impl AsRef<Path>, keep: impl Into<Retention>) -> Result<Store> {
        files::tidy(run.as_ref())?;
        Ok(Store::of(run, keep))
    }

    /// The same, nothing removed: at a rank that another one writes for.
    pub fn of(run: impl AsRef<Path>, keep: impl Into<Retention>) -> Store {
        Store { run: run.as_ref().to_owned(), keep: keep.into() }
    }

    /// The run directory.
    pub fn run(&self) -> &Path {
        &self.run
    }

    fn folder(&self) -> PathBuf {
        self.run.join("checkpoints")
    }

    /// All checkpoints, oldest first.
    pub fn list(&self) -> Result<Vec<Checkpoint>> {
        let folder = self.folder();
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
            found.extend(Checkpoint::at(&entry.map_err(Error::io(&folder))?.path()));
        }
        found.sort_by_key(|c| c.step);
        Ok(found)
    }

    /// The newest checkpoint.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        Ok(self.list()?.pop())
    }

    /// Begins to save step `step`, in a temporary folder whose `trainer/` exists.
    pub fn begin(&self, step: u64) -> Result<Draft> {
        let checkpoint = Checkpoint { step, path: self.folder().join(format!("{PREFIX}{step}")) };
        let draft = Draft { folder: StagedFolder::create(&checkpoint.path)?, store: self.clone(), checkpoint };
        let trainer = draft.folder().join("trainer");
        fs::create_dir_all(&trainer).map_err(Error::io(&trainer))?;
        Ok(draft)
    }

    /// The folder of a draft that another rank has begun and calls `name`. Errors where there is no such folder.
    pub fn begun(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder().join(name);
        match folder.is_dir() {
            true => Ok(folder),
            false => Err(Error::input(
                folder.display().to_string(),
                "no folder",
                "the one that rank 0 made: the run directory must be the same for all ranks",
            )),
        }
    }

    /// Where `resume` may start, best first: of a run its checkpoints from the newest on; none for the beginning. Errors when
    /// the path holds none, when `never` meets a run with checkpoints, and when this run has checkpoints newer than that of
    /// another run.
    pub fn resume(&self, resume: &Resume) -> Result<Vec<Checkpoint>> {
        let newest = self.latest()?;
        let mut found = match (resume, newest) {
            (Resume::Auto, _) => self.list()?,
            (Resume::Never, None) => Vec::new(),
            (Resume::Never, Some(newest)) => {
                return Err(Error::input_hint(
                    self.run.display().to_string(),
                    format!("a run at step {}", newest.step),
                    "an empty directory, as resume is `never`",
                    "give another --out, or --fresh to move the old run aside",
                ));
            }
            (Resume::Path(path), newest) => {
                let found = match Checkpoint::at(path) {
                    Some(checkpoint) if checkpoint.trainer().join("state.json").is_file() => vec![checkpoint],
                    _ => Store::of(path, 1).list()?,
                };
                let Some(first) = found.last() else {
                    let what = if path.exists() { "no checkpoint" } else { "nothing" };
                    let expected = "a checkpoint (global_step_N) or a run directory with one";
                    return Err(Error::input(format!("resume: {}", path.display()), what, expected));
                };
                if let Some(newest) = newest.filter(|newest| newest.step > first.step && !self.has(first)) {
                    return Err(Error::input_hint(
                        format!("resume: {}", path.display()),
                        format!("step {}, while {} is at step {}", first.step, self.run.display(), newest.step),
                        "the newest step of the run directory, or a directory without newer ones",
                        "give another --out",
                    ));
                }
                found
            }
        };
        found.reverse();
        Ok(found)
    }

    /// True for a checkpoint of this run.
    pub fn has(&self, checkpoint: &Checkpoint) -> bool {
        let folder = |path: &Path| fs::canonicalize(path).ok();
        checkpoint.path.parent().and_then(folder).is_some_and(|at| folder(&self.folder()) == Some(at))
    }

    /// Moves those later than `step` aside, to names that are no checkpoint's, and has `latest` name it, and `best` none of
    /// them: from here on the run is what it was then. Where they are now.
    pub fn go_back(&self, step: u64) -> Result<Vec<PathBuf>> {
        let later: Vec<Checkpoint> = self.list()?.into_iter().filter(|known| known.step > step).collect();
        if later.is_empty() {
            return Ok(Vec::new());
        }
        files::write(self.run.join("latest"), format!("{PREFIX}{step}\n").as_bytes())?;
        let best = self.run.join("best");
        let name = files::read_to_string(&best).unwrap_or_default();
        if later.iter().any(|known| name.trim() == format!("{PREFIX}{}", known.step)) {
            fs::remove_file(&best).map_err(Error::io(&best))?;
        }
        let aside: Result<Vec<Option<PathBuf>>> = later.iter().map(|known| files::move_aside(&known.path)).collect();
        Ok(aside?.into_iter().flatten().collect())
    }

    /// Under another name first, so that a kill meanwhile leaves no folder that looks whole.
    fn remove(&self, checkpoint: &Checkpoint) -> Result<()> {
        let doomed = self.folder().join(format!(".{PREFIX}{}.tmp-{}", checkpoint.step, std::process::id()));
        fs::rename(&checkpoint.path, &doomed).map_err(Error::io(&checkpoint.path))?;
        fs::remove_dir_all(&doomed).map_err(Error::io(&doomed))
    }
}

/// A checkpoint that is being written. Dropped before it is committed, it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    store: Store,
    checkpoint: Checkpoint,
    folder: StagedFolder,
}

impl Draft {
    /// Where its files go.
    pub fn folder(&self) -> &Path {
        self.folder.temporary()
    }

    /// What others find the folder by, see [`Store::begun`].
    pub fn name(&self) -> String {
        self.folder().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The folder becomes `checkpoints/global_step_N` in one rename once everything in it, with a `MANIFEST`, is on disk;
    /// then `latest` names it and the oldest beyond the limit go. That of step `best` stays, and `best` names it.
    pub fn commit(self, best: Option<u64>) -> Result<Checkpoint> {
        let Draft { store, checkpoint, folder } = self;
        Manifest::write(folder.temporary())?;
        folder.commit()?;
        let (step, name) = (checkpoint.step, format!("{PREFIX}{}\n", checkpoint.step));
        files::write(store.run.join("latest"), name.as_bytes())?;
        if best == Some(step) {
            files::write(store.run.join("best"), name.as_bytes())?;
        }
        let all: Vec<Checkpoint> = store.list()?.into_iter().filter(|known| best != Some(known.step)).collect();
        for old in &all[..all.len().saturating_sub(store.keep.newest.max(1))] {
            if old.step < step && !store.keep.always(old.step) {
                store.remove(old)?;
            }
        }
        Ok(checkpoint)
    }
}

/// When a checkpoint is due: every so many steps, or so much time after the last one.
#[derive(Clone, Debug)]
pub struct Cadence {
    steps: Option<u64>,
    interval: Option<Duration>,
    last: Instant,
}

impl Cadence {
    /// Every `steps` steps or `seconds` seconds, whichever comes first; neither means never. Errors when
    /// `seconds` is not a length of time.
    pub fn new(steps: Option<u64>, seconds: Option<f64>) -> Result<Cadence> {
        let interval = seconds.map(Duration::try_from_secs_f64).transpose();
        let interval = interval.map_err(|e| Error::input("save_seconds", format!("{seconds:?} ({e})"), "seconds"))?;
        Ok(Cadence { steps, interval, last: Instant::now() })
    }

    /// True when one is due after step `step`.
    pub fn due(&self, step: u64) -> bool {
        self.steps.is_some_and(|n| n > 0 && step.is_multiple_of(n))
            || self.interval.is_some_and(|t| self.last.elapsed() >= t)
    }

    /// Time since the last one, or the start.
    pub fn since(&self) -> Duration {
        self.last.elapsed()
    }

    /// One has been saved.
    pub fn saved(&mut self) {
        self.last = Instant::now();
    }
}
