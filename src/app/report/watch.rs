//! The page of `omr watch`, which is built again when files of its runs have changed.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::html::page_of;
use super::read::live;
use super::{RecipeReport, comparison, evaluation, is_evaluation};
use omr_base::error::Result;
use omr_base::files;

/// Files and folders of a run, and of the stages of a recipe, whose changes change the page.
const PARTS: [&str; 6] = ["config.yaml", "starts.jsonl", "metrics.jsonl", "summary.json", "rollouts", "samples.jsonl"];
const STAGES: [&str; 8] = ["", "sft", "control", "rl", "eval/base", "eval/sft", "eval/control", "eval/rl"];

/// A page is built at most once in this multiple of the time that it takes, so that it takes little time from training.
const REST: u32 = 10;

/// The page of runs that may continue.
pub struct Watched {
    dirs: Vec<PathBuf>,
    version: String,
    page: String,
    next: Instant,
}

impl Watched {
    /// Builds the page of `dirs`: run directories or evaluations. Errors as [`super::report`] does, but waits for
    /// runs that have not started, see [`is_awaited`].
    pub fn open(dirs: Vec<PathBuf>) -> Result<Watched> {
        let mut watched = Watched { dirs, version: String::new(), page: String::new(), next: Instant::now() };
        watched.refresh()?;
        Ok(watched)
    }

    /// Returns the page, and a text that names its version. Builds the page again if files have changed. If this fails,
    /// for example while a file is being written, the page stays as it is, and the next call tries again.
    pub fn page(&mut self) -> (&str, &str) {
        if let Err(error) = self.refresh() {
            tracing::debug!("the page stays as it is: {error}");
        }
        (&self.version, &self.page)
    }

    fn refresh(&mut self) -> Result<()> {
        let begun = Instant::now();
        let version = version(&self.dirs);
        if version == self.version || begun < self.next {
            return Ok(());
        }
        let (awaited, dirs): (Vec<&Path>, Vec<&Path>) =
            self.dirs.iter().map(PathBuf::as_path).partition(|dir| is_awaited(dir));
        let remark = |dir: &&Path| format!("{}: no run has started here yet. This page waits for it.", dir.display());
        let of = |mut report: RecipeReport| {
            report.remarks.extend(awaited.iter().map(remark));
            page_of(&report, true)
        };
        let page = match &dirs[..] {
            [] => of(RecipeReport { title: "No run yet".to_owned(), ..RecipeReport::default() }),
            dirs if dirs.iter().all(|dir| is_evaluation(dir)) => evaluation(dirs),
            [dir] => of(live(dir)?),
            dirs => of(comparison(dirs)?),
        };
        self.next = Instant::now() + (begun.elapsed() * REST).max(Duration::from_secs(1));
        (self.version, self.page) = (version, page?);
        Ok(())
    }
}

/// True if no run has started in `dir` yet: it does not exist, or contains only a lock.
pub fn is_awaited(dir: &Path) -> bool {
    let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !dir.exists() || files::entries(dir).is_ok_and(|all| all.iter().all(is_hidden))
}

/// Returns sizes and times of the files that the page is built from, hashed.
fn version(dirs: &[PathBuf]) -> String {
    let mut text = String::new();
    for dir in dirs {
        for part in STAGES.iter().flat_map(|stage| PARTS.map(|part| dir.join(stage).join(part))) {
            if let Ok(found) = part.metadata() {
                let _ = writeln!(text, "{} {} {:?}", part.display(), found.len(), found.modified().ok());
            }
        }
    }
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}
