//! The journal of a step's rollouts, `journal/STEP.jsonl`: tokens and log-probs as a rollout ends, its score as that is
//! known, a line each. A step that is repeated takes them from there: the same bits, and nobody is asked again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::{FinishReason, Output};
use crate::error::{Error, Result};
use crate::files;
use crate::reward::Score;
use crate::reward::judge::Ruling;

/// Their folder in a run's.
const FOLDER: &str = "journal";

/// What stands before a line's hash, which is of everything before it.
const HASH: &str = ",\"blake3\":\"";

/// A rollout's name: the number of its prompt in the run, and its own among the prompt's.
pub type Name = (u64, usize);

/// The rollouts of one step so far.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    outputs: HashMap<Name, Output>,
    verdicts: HashMap<Name, (Score, Option<Ruling>)>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Ended {
        prompt: u64,
        rollout: usize,
        finish_reason: String,
        token_ids: Vec<u32>,
        log_probs: Vec<f64>,
    },
    Scored {
        prompt: u64,
        rollout: usize,
        score: f64,
        acc_score: f64,
        format_reward_score: f64,
        predict_str: String,
        judge: Word,
    },
}

/// The judge's word.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    NotAsked,
    Said(i64),
    Unjudged(String),
}

impl Journal {
    /// Opens that of `step` in the run folder `dir`, of a run and a moment that `run` describes. What another one left, and
    /// lines that are torn or were changed, are left out.
    pub fn open(dir: &Path, step: u64, run: &impl Serialize) -> Result<Journal> {
        let path = dir.join(FOLDER).join(format!("{step}.jsonl"));
        let head = sealed(run)?;
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let (mut outputs, mut verdicts) = (HashMap::new(), HashMap::new());
        let mut whole = head.clone();
        if text.starts_with(&head) {
            for line in text[head.len()..].split_inclusive('\n') {
                let Some(known) = opened(line) else { continue };
                whole.push_str(line);
                match known {
                    Line::Ended { prompt, rollout, finish_reason, token_ids, log_probs } => {
                        let logprobs = log_probs.into_iter().map(|p| p as f32).collect();
                        let Some(finish_reason) = FinishReason::named(&finish_reason) else { continue };
                        let output = Output { request: 0, rollout, token_ids, logprobs, finish_reason };
                        outputs.insert((prompt, rollout), output);
                    }
                    Line::Scored { prompt, rollout, score, acc_score, format_reward_score, predict_str, judge } => {
                        let score = Score { score, acc_score, format_reward_score, predict_str, why: "journal" };
                        let judge = match judge {
                            Word::NotAsked => None,
                            Word::Said(number) => Some(Ruling::Said(number)),
                            Word::Unjudged(why) => Some(Ruling::Unjudged(why)),
                        };
                        verdicts.insert((prompt, rollout), (score, judge));
                    }
                }
            }
        }
        if whole != text {
            files::write(&path, whole.as_bytes())?;
        }
        let file = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Journal { path, file, outputs, verdicts })
    }

    /// Rollouts that had ended when it was opened.
    pub fn ended(&self) -> usize {
        self.outputs.len()
    }

    /// A rollout that had ended when the journal was opened, its `request` 0.
    pub fn output(&self, name: Name) -> Option<&Output> {
        self.outputs.get(&name)
    }

    /// The verdict on it, where there was one.
    pub fn verdict(&self, name: Name) -> Option<&(Score, Option<Ruling>)> {
        self.verdicts.get(&name)
    }

    /// Takes down a rollout that has ended. It is not waited for the disk: what a machine that fails loses is sampled again, to
    /// the same bits.
    pub fn add_output(&mut self, (prompt, rollout): Name, output: &Output) -> Result<()> {
        // As f64, which holds every f32 and is read back to the bit.
        let log_probs = output.logprobs.iter().map(|p| f64::from(*p)).collect();
        let finish_reason = output.finish_reason.as_str().to_owned();
        self.add(&Line::Ended { prompt, rollout, finish_reason, token_ids: output.token_ids.clone(), log_probs })
    }

    /// Takes down a verdict.
    pub fn add_verdict(&mut self, (prompt, rollout): Name, score: &Score, judge: Option<&Ruling>) -> Result<()> {
        let Score { score, acc_score, format_reward_score, predict_str, .. } = score.clone();
        let judge = match judge.cloned() {
            None => Word::NotAsked,
            Some(Ruling::Said(number)) => Word::Said(number),
            Some(Ruling::Unjudged(why)) => Word::Unjudged(why),
        };
        self.add(&Line::Scored { prompt, rollout, score, acc_score, format_reward_score, predict_str, judge })
    }

    fn add(&mut self, line: &Line) -> Result<()> {
        // One write, so that a kill tears at most the last line.
        self.file.write_all(sealed(line)?.as_bytes()).map_err(Error::io(&self.path))
    }
}

/// Removes the journals of steps up to `step`: a checkpoint has what came of them.
pub fn forget(dir: &Path, step: u64) -> Result<()> {
    let folder = dir.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(&folder))?,
    };
    let mut left = 0;
    for entry in entries {
        let path = entry.map_err(Error::io(&folder))?.path();
        let of = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        match of.is_some_and(|of| of <= step) {
            true => fs::remove_file(&path).map_err(Error::io(&path))?,
            false => left += 1,
        }
    }
    if left == 0 { fs::remove_dir(&folder).map_err(Error::io(&folder)) } else { Ok(()) }
}

/// A line of the journal.
fn sealed(value: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string(value).map_err(|e| Error::Failed(format!("the journal: {e}")))?;
    // An object, to which its hash is added.
    text.pop();
    let hash = blake3::hash(text.as_bytes()).to_hex();
    Ok(format!("{text}{HASH}{hash}\"}}\n"))
}

/// What a line says; nothing where it is not whole.
fn opened(line: &str) -> Option<Line> {
    let (text, hash) = line.strip_suffix("\"}\n")?.rsplit_once(HASH)?;
    if blake3::hash(text.as_bytes()).to_hex().as_str() != hash {
        return None;
    }
    serde_json::from_str(&format!("{text}}}")).ok()
}
