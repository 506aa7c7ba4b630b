//! The journal of a step's rollouts, `journal/STEP.jsonl`: one line with tokens and log-probs when a rollout ends, and
//! one line when its score is known. A repeated step reads its rollouts from the journal. Therefore they are bitwise
//! identical to the first ones, and no judge or unchanged reward process is called again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::{CompletionOutput, FinishReason};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::reward::Score;
use omr_data::reward::judge::Ruling;

/// Name of the journal folder in the run directory.
pub const FOLDER: &str = "journal";

/// Text between a line's content and its hash. The hash covers everything before this text.
const HASH: &str = ",\"blake3\":\"";

/// Name of a rollout: the number of its prompt in the run, and the number of the rollout within the prompt.
pub type Name = (u64, usize);

/// The rollouts of one step so far.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Device and kernel variants of this process.
    arithmetic: String,
    /// The rollouts that had ended when the journal was opened. Their `request` is 0.
    pub outputs: HashMap<Name, CompletionOutput>,
    /// The arithmetic of rollouts that were sampled with another arithmetic than that of this process.
    pub others: HashMap<Name, String>,
    /// Hash of the files of the reward commands.
    scored_by: String,
    /// The verdicts when the journal was opened.
    pub verdicts: HashMap<Name, (Score, Option<Ruling>)>,
    /// Number of verdicts that are not used, because a file of a reward command has changed since.
    pub outdated: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Ended {
        prompt: u64,
        rollout: usize,
        finish_reason: FinishReason,
        arithmetic: String,
        token_ids: Vec<u32>,
        log_probs: Vec<f64>,
    },
    Scored {
        prompt: u64,
        rollout: usize,
        #[serde(flatten)]
        score: Score,
        judge: JournalVerdict,
        #[serde(default)]
        scored_by: String,
    },
}

/// Verdict of the judge.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JournalVerdict {
    NotAsked,
    Said(i64),
    Unjudged(String),
}

impl From<Option<&Ruling>> for JournalVerdict {
    fn from(judge: Option<&Ruling>) -> JournalVerdict {
        match judge.cloned() {
            None => JournalVerdict::NotAsked,
            Some(Ruling::Said(number)) => JournalVerdict::Said(number),
            Some(Ruling::Unjudged(why)) => JournalVerdict::Unjudged(why),
        }
    }
}

impl From<JournalVerdict> for Option<Ruling> {
    fn from(word: JournalVerdict) -> Option<Ruling> {
        match word {
            JournalVerdict::NotAsked => None,
            JournalVerdict::Said(number) => Some(Ruling::Said(number)),
            JournalVerdict::Unjudged(why) => Some(Ruling::Unjudged(why)),
        }
    }
}

impl Journal {
    /// Opens the journal of `step` in the run folder `dir`. `run` describes the run and its state, and `arithmetic` the
    /// device and its kernel variants, which new rollouts record. `scored_by` is the hash of the files of the reward
    /// commands, and verdicts with another hash are not used. Journals with a different `run`, and lines that are
    /// incomplete or altered, are ignored, and deleted from this rank's part. Each rank writes its own part of the journal
    /// and reads all parts, regardless of the number of ranks that wrote them.
    pub fn open(
        dir: &Path,
        step: u64,
        rank: usize,
        run: &impl Serialize,
        arithmetic: String,
        scored_by: String,
    ) -> Result<Journal> {
        let path = dir.join(FOLDER).join(part(step, rank));
        let head = sealed(run)?;
        let mut found = Found::default();
        for (other, of) in parts(dir)? {
            if of == step && other != path {
                // If another rank is writing this part, the text may already contain new lines, which does no harm.
                let text = String::from_utf8_lossy(&fs::read(&other).unwrap_or_default()).into_owned();
                known(&text, &head, &mut found);
            }
        }
        let text = files::if_exists(&path, fs::read(&path))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let whole = known(&text, &head, &mut found);
        if whole != text {
            files::write(&path, whole.as_bytes())?;
        }
        let file = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        let Found { outputs, arithmetics: mut others, mut verdicts, scorers } = found;
        others.retain(|_, of| *of != arithmetic);
        let all = verdicts.len();
        verdicts.retain(|name, _| scorers[name].is_empty() || scorers[name] == scored_by);
        let outdated = all - verdicts.len();
        Ok(Journal { path, file, arithmetic, outputs, others, scored_by, verdicts, outdated })
    }

    /// Returns the number of rollouts that had ended when the journal was opened.
    pub fn ended(&self) -> usize {
        self.outputs.len()
    }

    /// Records a rollout that has ended, without waiting for the disk. Rollouts lost in a machine failure are sampled
    /// again with bitwise identical results.
    pub fn add_output(&mut self, (prompt, rollout): Name, output: &CompletionOutput) -> Result<()> {
        // An f64 represents every f32 exactly, so the values are read back bitwise identical.
        let log_probs = output.logprobs.iter().map(|p| f64::from(*p)).collect();
        let (finish_reason, token_ids) = (output.finish_reason, output.token_ids.clone());
        let arithmetic = self.arithmetic.clone();
        self.add(&Line::Ended { prompt, rollout, finish_reason, arithmetic, token_ids, log_probs })
    }

    /// Records a verdict.
    pub fn add_verdict(&mut self, (prompt, rollout): Name, score: &Score, judge: Option<&Ruling>) -> Result<()> {
        let (score, scored_by) = (score.clone(), self.scored_by.clone());
        self.add(&Line::Scored { prompt, rollout, score, judge: judge.into(), scored_by })
    }

    fn add(&mut self, line: &Line) -> Result<()> {
        // A single write, so that a kill leaves at most the last line incomplete.
        self.file.write_all(sealed(line)?.as_bytes()).map_err(Error::io(&self.path))
    }
}

/// The content of the parts of a journal.
#[derive(Default)]
struct Found {
    outputs: HashMap<Name, CompletionOutput>,
    /// The arithmetic of each output.
    arithmetics: HashMap<Name, String>,
    verdicts: HashMap<Name, (Score, Option<Ruling>)>,
    /// Hash of the files of the reward commands that gave each verdict.
    scorers: HashMap<Name, String>,
}

/// Reads the `text` of a part. If it begins with `head`, adds its rollouts and verdicts to `found`. Returns `head`
/// followed by the intact lines.
fn known(text: &str, head: &str, found: &mut Found) -> String {
    let mut whole = head.to_owned();
    for line in text.strip_prefix(head).unwrap_or_default().split_inclusive('\n') {
        let Some(known) = opened(line) else { continue };
        whole.push_str(line);
        match known {
            Line::Ended { prompt, rollout, finish_reason, arithmetic, token_ids, log_probs } => {
                let logprobs = log_probs.into_iter().map(|p| p as f32).collect();
                let output = CompletionOutput { request: 0, index: rollout, token_ids, logprobs, finish_reason };
                found.outputs.insert((prompt, rollout), output);
                found.arithmetics.insert((prompt, rollout), arithmetic);
            }
            Line::Scored { prompt, rollout, score, judge, scored_by } => {
                found.verdicts.insert((prompt, rollout), (score, judge.into()));
                found.scorers.insert((prompt, rollout), scored_by);
            }
        }
    }
    whole
}

/// Returns the file name of a rank's part of a step's journal.
fn part(step: u64, rank: usize) -> String {
    if rank == 0 { format!("{step}.jsonl") } else { format!("{step}.{rank}.jsonl") }
}

/// Returns the parts in the run folder `dir`, with the step of each.
fn parts(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let folder = dir.join(FOLDER);
    let entries = if folder.exists() { files::entries(&folder)? } else { Vec::new() };
    let with_step = |path: PathBuf| {
        let step = files::file_name(&path).strip_suffix(".jsonl")?.split('.').next()?.parse().ok()?;
        Some((path, step))
    };
    Ok(entries.into_iter().filter_map(with_step).collect())
}

/// Removes the journals of steps up to `step`, because a checkpoint contains their results.
pub fn forget(dir: &Path, step: u64) -> Result<()> {
    let (done, left): (Vec<_>, Vec<_>) = parts(dir)?.into_iter().partition(|(_, of)| *of <= step);
    done.iter().try_for_each(|(path, _)| fs::remove_file(path).map_err(Error::io(path)))?;
    let folder = dir.join(FOLDER);
    if left.is_empty() && folder.exists() { fs::remove_dir(&folder).map_err(Error::io(&folder)) } else { Ok(()) }
}

/// Formats a line of the journal with its hash.
fn sealed(value: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string(value).map_err(|e| Error::Failed(format!("the journal: {e}")))?;
    // Removes the closing brace, so that the hash can be added to the object.
    text.pop();
    let hash = blake3::hash(text.as_bytes()).to_hex();
    Ok(format!("{text}{HASH}{hash}\"}}\n"))
}

/// Parses a line. Returns `None` if it is not intact.
fn opened(line: &str) -> Option<Line> {
    let (text, hash) = line.strip_suffix("\"}\n")?.rsplit_once(HASH)?;
    if blake3::hash(text.as_bytes()).to_hex().as_str() != hash {
        return None;
    }
    serde_json::from_str(&format!("{text}}}")).ok()
}
