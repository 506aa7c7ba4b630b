//! The checkpoints of a run: saving them atomically, finding them and deleting old ones.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::checkpoint::State;
use omr_base::error::{Error, Result};
use omr_base::files::{self, StagedFolder};
use omr_base::identity::{Manifest, Part, Writer};

const PREFIX: &str = "global_step_";
/// File in `trainer/` that says how long the checkpoint is kept. A later start may have other settings.
const KEPT: &str = "kept";

/// Starting point of a run (`resume: auto|never|PATH`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resume {
    /// Starts from the newest complete checkpoint of the run directory, if there is one.
    Auto,
    /// Starts from the initial model. A run directory with checkpoints is refused.
    Never,
    /// Starts from this checkpoint, or from the newest one of this run directory.
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

/// A complete checkpoint on disk: a model directory that contains `trainer/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Number of updates done when it was saved.
    pub step: u64,
    /// Folder of the checkpoint.
    pub path: PathBuf,
}

impl Checkpoint {
    /// Returns the folder of the state and the optimizer files.
    pub fn trainer(&self) -> PathBuf {
        self.path.join("trainer")
    }

    /// Reads the checkpoint's `state.json`. Errors if it is missing or broken, or if its step differs from the folder's
    /// name.
    pub fn state(&self) -> Result<State> {
        let state = State::read(&self.trainer())?;
        if state.step != self.step {
            let what = format!("state of step {} in the folder of step {}", state.step, self.step);
            return Err(Error::format(self.trainer().join("state.json"), what));
        }
        Ok(state)
    }

    /// Returns the checkpoint in a folder named `global_step_N`, or `None` for other names.
    pub fn at(path: &Path) -> Option<Checkpoint> {
        let name = path.file_name()?.to_str()?;
        let step = name.strip_prefix(PREFIX)?.parse().ok()?;
        (name == format!("{PREFIX}{step}")).then(|| Checkpoint { step, path: path.to_owned() })
    }
}

/// Rule for the checkpoints that a run keeps: the newest ones, and those of steps at a fixed interval.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Number of newest checkpoints to keep; at least one is kept.
    pub newest: usize,
    /// Checkpoints of steps that are multiples of this number are kept, too.
    pub every: Option<u64>,
    /// Interval of the regular checkpoints. Of all others, only the newest is kept, and it does not count as one of
    /// `newest`.
    pub interval: Option<u64>,
}

impl From<usize> for Retention {
    /// Keeps only the newest checkpoints.
    fn from(newest: usize) -> Retention {
        Retention { newest, every: None, interval: None }
    }
}

impl Retention {
    /// Returns true if the checkpoint of `step` is always saved and kept.
    pub fn always(self, step: u64) -> bool {
        self.every.is_some_and(|n| step.is_multiple_of(n))
    }

    /// Returns the text of [`KEPT`] for the checkpoint of `step`: `always` if it is never removed, `regular` if it counts
    /// as one of `newest`.
    fn kind(self, step: u64) -> String {
        let is_regular = self.interval.is_none_or(|n| step.is_multiple_of(n));
        let words = [(self.always(step), "always"), (is_regular, "regular")].into_iter().filter(|(holds, _)| *holds);
        words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    }
}

/// The checkpoints of one run directory.
#[derive(Clone, Debug)]
pub struct Store {
    run: PathBuf,
    keep: Retention,
    /// Device and inode of the run directory when it was opened for writing.
    place: Option<(u64, u64)>,
}

impl Store {
    /// Opens the store of run directory `run` and removes the partial files that a killed run left. The caller must
    /// hold the run's lock.
    pub fn open(run: impl AsRef<Path>, keep: impl Into<Retention>) -> Result<Store> {
        files::tidy(run.as_ref())?;
        let mut store = Store::of(run, keep);
        store.place = place(&store.run);
        Ok(store)
    }

    /// Opens the store without removing anything, for a rank that does not write the run's files.
    pub fn of(run: impl AsRef<Path>, keep: impl Into<Retention>) -> Store {
        Store { run: run.as_ref().to_owned(), keep: keep.into(), place: None }
    }

    /// Returns the run directory.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Errors if the run directory was moved or replaced since the store was opened. The files that are written next
    /// would otherwise be in another folder than those before.
    pub fn check_place(&self) -> Result<()> {
        if self.place.is_none() || self.place == place(&self.run) {
            return Ok(());
        }
        let expected = "the run directory, which was here when the run started";
        let hint = "move it back and start the command again; it continues from the last checkpoint";
        Err(Error::input_hint(&self.run, "another folder, or none", expected, hint))
    }

    fn folder(&self) -> PathBuf {
        self.run.join("checkpoints")
    }

    /// Returns the folder of the checkpoint of `step`, which may be missing.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder().join(format!("{PREFIX}{step}"))
    }

    /// Returns all checkpoints, oldest first.
    pub fn list(&self) -> Result<Vec<Checkpoint>> {
        let folder = self.folder();
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut found: Vec<_> = files::entries(&folder)?.iter().filter_map(|path| Checkpoint::at(path)).collect();
        found.sort_by_key(|c| c.step);
        Ok(found)
    }

    /// Returns the newest checkpoint.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        Ok(self.list()?.pop())
    }

    /// Writes the names of the checkpoints of `step` and `best` to the files `latest` and `best`, unless they contain them,
    /// and deletes the oldest checkpoints beyond the limit, but never that of `best`. If `best` is `None`, its file is
    /// removed. A start calls this, too, because a kill after the rename of a checkpoint leaves the rest undone.
    pub fn settle(&self, step: u64, best: Option<u64>) -> Result<()> {
        for (file, step) in [("latest", Some(step)), ("best", best)] {
            let (path, name) = (self.run.join(file), step.map(|step| format!("{PREFIX}{step}\n")));
            match (files::read_to_string(&path).ok(), name) {
                (found, name) if found == name => {}
                (_, Some(name)) => files::write(path, name.as_bytes())?,
                (_, None) => fs::remove_file(&path).map_err(Error::io(&path))?,
            }
        }
        let all = self.list()?.into_iter().filter(|known| best != Some(known.step));
        let has = |known: &Checkpoint, word| {
            let kind = files::read_to_string(known.trainer().join(KEPT));
            kind.unwrap_or_else(|_| self.keep.kind(known.step)).contains(word)
        };
        let (regular, others): (Vec<_>, Vec<_>) = all.partition(|known| has(known, "regular"));
        for old in regular[..regular.len().saturating_sub(self.keep.newest.max(1))].iter().chain(&others) {
            if old.step < step && !self.keep.always(old.step) && !has(old, "always") {
                self.remove(old)?;
            }
        }
        Ok(())
    }

    /// Begins to save step `step`, in a temporary folder whose `trainer/` only contains the file `kept`.
    pub fn begin(&self, step: u64) -> Result<UnfinishedCheckpoint> {
        self.check_place()?;
        let checkpoint = Checkpoint { step, path: self.path(step) };
        let draft =
            UnfinishedCheckpoint { folder: StagedFolder::create(&checkpoint.path)?, store: self.clone(), checkpoint };
        let trainer = draft.folder().join("trainer");
        fs::create_dir_all(&trainer).map_err(Error::io(&trainer))?;
        files::write(trainer.join(KEPT), self.keep.kind(step).as_bytes())?;
        Ok(draft)
    }

    /// Returns the folder of a draft that another rank has begun under this name. Errors if there is no such folder.
    pub fn begun(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder().join(name);
        let expected = "the folder that rank 0 created: all ranks must use the same run directory";
        if folder.is_dir() { Ok(folder) } else { Err(Error::input(folder, "no folder", expected)) }
    }

    /// Returns the checkpoints from which `resume` may start, the newest first. An empty list means that the run starts
    /// from the initial model. Errors if the path contains no checkpoint, if `never` is used in a run with checkpoints,
    /// or if this run has checkpoints newer than the given one of another run.
    pub fn resume(&self, resume: &Resume) -> Result<Vec<Checkpoint>> {
        let newest = self.latest()?;
        let mut found = match (resume, newest) {
            (Resume::Auto, _) => self.list()?,
            (Resume::Never, None) => Vec::new(),
            (Resume::Never, Some(newest)) => {
                let expected = "an empty directory, because resume is `never`";
                let hint = "use another --out, or --fresh to rename the old run directory";
                return Err(Error::input_hint(&self.run, format!("a run at step {}", newest.step), expected, hint));
            }
            (Resume::Path(path), newest) => {
                let found = match Checkpoint::at(path) {
                    Some(checkpoint) if checkpoint.trainer().join("state.json").is_file() => vec![checkpoint],
                    _ => Store::of(path, 1).list()?,
                };
                let Some(first) = found.last() else {
                    let what = if path.exists() { "no checkpoint" } else { "nothing" };
                    let expected = "a checkpoint (global_step_N) or a run directory that contains one";
                    return Err(Error::input(format!("resume: {}", path.display()), what, expected));
                };
                if let Some(newest) = newest.filter(|newest| newest.step > first.step && !self.has(first)) {
                    let place = format!("resume: {}", path.display());
                    let found = format!("step {}, but {} is at step {}", first.step, self.run.display(), newest.step);
                    let expected = "the newest step of the run directory, or a run directory without newer steps";
                    let hint = "resume=auto continues this run; another --out starts a second one";
                    return Err(Error::input_hint(place, found, expected, hint));
                }
                found
            }
        };
        found.reverse();
        Ok(found)
    }

    /// Returns true if the checkpoint belongs to this run.
    pub fn has(&self, checkpoint: &Checkpoint) -> bool {
        let folder = |path: &Path| fs::canonicalize(path).ok();
        checkpoint.path.parent().and_then(folder).is_some_and(|at| folder(&self.folder()) == Some(at))
    }

    /// Renames the checkpoints later than `step`, so that they are no longer found as checkpoints, and returns the new
    /// paths. [`Store::settle`] then corrects the files `latest` and `best`.
    pub fn go_back(&self, step: u64) -> Result<Vec<PathBuf>> {
        let later: Vec<Checkpoint> = self.list()?.into_iter().filter(|known| known.step > step).collect();
        let aside: Result<Vec<Option<PathBuf>>> = later.iter().map(|known| files::move_aside(&known.path)).collect();
        Ok(aside?.into_iter().flatten().collect())
    }

    /// Copies the model directory of the checkpoint of `step` to the empty folder `to`. Errors if the checkpoint is
    /// missing or damaged, and if the copy of its weights differs.
    pub fn copy_model(&self, step: u64, to: &Path) -> Result<()> {
        let from = self.path(step);
        if !from.is_dir() {
            return Err(Error::input(from, "nothing", "the run's best checkpoint"));
        }
        let manifest = Manifest::read(&from)?;
        if let Some(manifest) = &manifest {
            manifest.check(&from, Part::Settings)?;
            manifest.check(&from, Part::Tensors)?;
        }
        files::copy_files(&from, to)?;
        manifest.map_or(Ok(()), |manifest| manifest.of_model().check(to, Part::Tensors))
    }

    /// Deletes a checkpoint. It is renamed first, so a kill in between leaves no folder that looks complete.
    fn remove(&self, checkpoint: &Checkpoint) -> Result<()> {
        let doomed = self.folder().join(format!(".{PREFIX}{}.tmp-{}", checkpoint.step, std::process::id()));
        fs::rename(&checkpoint.path, &doomed).map_err(Error::io(&checkpoint.path))?;
        fs::remove_dir_all(&doomed).map_err(Error::io(&doomed))
    }
}

fn place(dir: &Path) -> Option<(u64, u64)> {
    dir.metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// A checkpoint that is being written. If it is dropped before it is committed, its files are deleted.
#[derive(Debug)]
pub struct UnfinishedCheckpoint {
    store: Store,
    checkpoint: Checkpoint,
    folder: StagedFolder,
}

impl UnfinishedCheckpoint {
    /// Returns the folder for the checkpoint's files.
    pub fn folder(&self) -> &Path {
        self.folder.temporary()
    }

    /// Returns the folder's name, with which other ranks find it (see [`Store::begun`]).
    pub fn name(&self) -> String {
        self.folder().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Writes a `MANIFEST`, waits until all files are on disk, and renames the folder to `checkpoints/global_step_N`.
    /// Then settles the store, see [`Store::settle`]. Errors, and commits nothing, if the files do not contain what
    /// `writers` have written.
    pub fn commit(self, best: Option<u64>, writers: &[Writer]) -> Result<Checkpoint> {
        let UnfinishedCheckpoint { store, checkpoint, folder } = self;
        Manifest::write_checked(folder.temporary(), writers)?;
        folder.commit()?;
        store.settle(checkpoint.step, best)?;
        Ok(checkpoint)
    }
}

/// Schedule for saving checkpoints: after a number of steps, or after a time since the last checkpoint.
#[derive(Clone, Debug)]
pub struct Cadence {
    steps: Option<u64>,
    interval: Option<Duration>,
    last: Instant,
}

impl Cadence {
    /// Creates a cadence of every `steps` steps or `seconds` seconds, whichever comes first. With neither, no
    /// checkpoint is due. Errors if `seconds` is not a valid duration.
    pub fn new(steps: Option<u64>, seconds: Option<f64>) -> Result<Cadence> {
        let interval = seconds.map(Duration::try_from_secs_f64).transpose();
        let interval = interval.map_err(|e| Error::input("save_seconds", format!("{seconds:?} ({e})"), "seconds"))?;
        Ok(Cadence { steps, interval, last: Instant::now() })
    }

    /// Returns true if a checkpoint is due after step `step`.
    pub fn due(&self, step: u64) -> bool {
        self.steps.is_some_and(|n| n > 0 && step.is_multiple_of(n))
            || self.interval.is_some_and(|t| self.last.elapsed() >= t)
    }

    /// Returns the time since the last checkpoint, or since the start.
    pub fn since(&self) -> Duration {
        self.last.elapsed()
    }

    /// Restarts the timer after a checkpoint was saved.
    pub fn saved(&mut self) {
        self.last = Instant::now();
    }
}
