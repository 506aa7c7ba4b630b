//! Removes partial files that a killed run left in its folder. Such files are recognised by their names.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::lock::Lock;
use crate::error::{Error, Result};

/// First characters of the `config.yaml` of a run.
pub const HEAD: &str = "# omr ";

/// Folders of a run (the run itself has the empty name), and the files and folders that are written atomically in each
/// of them. The name of a folder ends in `/`. `#` stands for digits and `*` for any text. The `-I-of-N` of a part is
/// omitted.
const WHOLE: [(&str, &str); 7] = [
    (
        "",
        ".ranks *.parquet MANIFEST best config.yaml dedup.html hashes.jsonl inputs.json latest metrics.jsonl model/ \
         pictures.jsonl referee.jsonl rejected.jsonl report.html samples.jsonl summary.json unanswered.jsonl \
         unjudged.jsonl",
    ),
    ("checkpoints", "global_step_#/"),
    ("examples", "#.png questions.jsonl"),
    ("index", "*.bin *.parquet"),
    ("journal", "#.jsonl #.#.jsonl"),
    ("lmms-eval", "omr_results.json omr_samples_*.jsonl"),
    ("rollouts", "#.parquet"),
];

/// Folders of a recipe's stages.
const STAGES: [&str; 7] = ["base", "control", "data", "distill", "eval", "rl", "sft"];

/// Returns true if the folder belongs to a run of omr.
pub fn is_run(dir: &Path) -> bool {
    let mut head = [0; HEAD.len()];
    let read = super::open(dir.join("config.yaml")).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == HEAD.as_bytes()
}

/// Removes the partial files that killed processes left in the run folder `run` and in the folders of its stages.
/// Restores a folder that was renamed in order to be replaced. Does nothing if the folder is not a run. The caller must
/// hold the run's lock.
pub fn tidy(run: &Path) -> Result<()> {
    if is_run(run) { tidy_folder(run, WHOLE[0].1) } else { Ok(()) }
}

fn tidy_folder(dir: &Path, names: &str) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        let (name, at) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let Some((target, is_old)) = target(&name, names, is_folder) {
            let target = dir.join(target);
            let done = match (is_folder, is_old && !target.exists()) {
                (true, true) => fs::rename(&at, &target),
                (true, false) => fs::remove_dir_all(&at),
                (false, _) => fs::remove_file(&at),
            };
            done.map_err(Error::io(&at))?;
        } else if let Some((_, inner)) = WHOLE.iter().find(|(folder, _)| is_folder && *folder == name) {
            tidy_folder(&at, inner)?;
        } else if is_folder
            && (STAGES.contains(&name.as_str()) || is_run(&at))
            // Another process may be working in the stage.
            && let Ok(_lock) = Lock::take(&at, "")
        {
            tidy_folder(&at, WHOLE[0].1)?;
        }
    }
    Ok(())
}

/// Parses the name `.NAME.tmp-PID` or `.NAME.old-PID`, which may have a further `-N`. Returns `NAME`, and true if it is
/// an old folder. Returns `None` unless `NAME` matches `names`. Only folders are renamed to `.old`.
fn target<'a>(name: &'a str, names: &str, is_folder: bool) -> Option<(&'a str, bool)> {
    let rest = name.strip_prefix('.')?;
    let old = rest.rsplit_once(".old-").filter(|_| is_folder);
    let (target, process) = old.or_else(|| rest.rsplit_once(".tmp-"))?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_process = process.split('-').count() <= 2 && process.split('-').all(is_number);
    (is_process && is_whole(target, names, is_folder)).then_some((target, old.is_some()))
}

fn is_whole(name: &str, names: &str, is_folder: bool) -> bool {
    let mut pattern = String::new();
    for c in name.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }) {
        if c != '#' || !pattern.ends_with('#') {
            pattern.push(c);
        }
    }
    let name = pattern.replace("-#-of-#", "") + if is_folder { "/" } else { "" };
    names.split_whitespace().any(|known| match known.split_once('*') {
        Some((start, end)) => name.len() >= known.len() && name.starts_with(start) && name.ends_with(end),
        None => name == known,
    })
}
