//! Tests a stop inside a step: no new rollout starts, finished rollouts are in the journal and are not requested again,
//! and the run ends with the same bits as one that was not stopped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use omr_base::config::{RlConfig, ScorerConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::{Observer, Silent};
use omr_data::reward::Scorer;
use omr_runtime::device::Device;
use omr_runtime::ranks::{OneRank, Parts, Ranks};
use omr_runtime::tensor::Tensor;
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;
use serde_json::Value;

use crate::training::tiny::{Outcome, device, rl_config, run_rl, training};

/// Observer that requests a stop when `is_time`. The observer also records the notes.
struct StopWhen<F> {
    is_time: F,
    notes: Mutex<Vec<String>>,
}

impl<F: Fn() -> bool + Send + Sync> Observer for StopWhen<F> {
    fn begin(&self, _: &str, _: &str, _: u64, _: u64) {}
    fn step(&self, _: u64, _: &[(&str, f64)]) {}
    fn end(&self) {}
    fn note(&self, line: &str) {
        self.notes.lock().unwrap().push(line.to_owned());
    }
    fn stop_requested(&self) -> bool {
        (self.is_time)()
    }
}

/// Returns an observer that requests a stop when it is polled for the `looks`th time.
fn stop_after(looks: u64) -> StopWhen<impl Fn() -> bool + Send + Sync> {
    let looked = AtomicU64::new(0);
    StopWhen { is_time: move || looked.fetch_add(1, Ordering::Relaxed) + 1 >= looks, notes: Mutex::default() }
}

/// Returns the text of the journal of step 1.
fn journal(out: &Path) -> String {
    fs::read_to_string(out.join("journal/1.jsonl")).unwrap_or_default()
}

/// Runs the job in `dir`, which stops at the `looks`th poll. Returns its result and its notes.
pub fn resume(dir: &Path, config: &RlConfig, looks: u64) -> (Result<()>, String) {
    let observer = stop_after(looks);
    let job = RlJob::new(dir, config.clone(), Arc::new(Scorer::rules(config.reward.mode))).unwrap();
    let done = job.run(&mut device(1), &observer);
    (done, observer.notes.into_inner().unwrap().join("\n"))
}

/// Returns the rollouts of each step's journal by name. No rollout occurs twice.
fn journals(dir: &Path) -> BTreeMap<String, BTreeMap<(u64, u64), Value>> {
    let mut out = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir.join("journal")) else { return out };
    for entry in entries {
        let path = entry.unwrap().path();
        let mut ended = BTreeMap::new();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["token_ids"].is_array() {
                let name = (line["prompt"].as_u64().unwrap(), line["rollout"].as_u64().unwrap());
                assert!(ended.insert(name, line).is_none(), "{name:?} was asked for again");
            }
        }
        out.insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), ended);
    }
    out
}

#[test]
fn rollouts_that_had_ended_are_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let training = training(|t| t.save_on_stop = Some(false));
    let config = RlConfig { total_training_steps: Some(3), training, ..rl_config(dir.path()) };
    let whole = run_rl(&dir.path().join("whole"), &config, 1, &[]);
    let out = dir.path().join("out");
    let (mut known, mut in_the_middle) = (BTreeMap::new(), 0);
    // Stops within a step of 16 rollouts, at its end, and several steps later.
    for looks in [3, 12, 8, 20] {
        let (done, printed) = resume(&out, &config, looks);
        assert!(matches!(done, Err(Error::Stopped)), "{done:?}");
        assert!(!out.join("checkpoints").exists() && !out.join("latest").exists(), "a checkpoint was written");
        let finished = fs::read_to_string(out.join("metrics.jsonl")).is_ok_and(|text| !text.is_empty());
        let lost = if finished { "updates since the start will be repeated" } else { "no finished update is lost" };
        assert!(printed.contains(lost), "{printed}");
        for (step, ended) in &known {
            let line = format!("step {step}: {} finished rollouts are read from the journal", BTreeMap::len(ended));
            assert!(ended.is_empty() || printed.contains(&line), "{line} is not in {printed}");
        }
        let now = journals(&out);
        for (step, ended) in &known {
            assert!(ended.iter().all(|(name, line)| now[step].get(name) == Some(line)), "step {step}");
        }
        in_the_middle += usize::from(now.values().any(|ended| (1..16).contains(&ended.len())));
        known = now;
    }
    assert!(in_the_middle > 0 && known.len() > 1, "{known:?}");
    let (done, _) = resume(&out, &config, u64::MAX);
    done.unwrap();
    whole.assert_same(&Outcome::of(&out), "stopped four times");
    assert!(!out.join("journal").exists());
}

#[test]
fn rollouts_are_in_the_journal_while_a_slow_command_scores_others() {
    let dir = tempfile::tempdir().unwrap();
    let config = RlConfig { total_training_steps: Some(1), ..rl_config(dir.path()) };
    let out = dir.path().join("out");
    // The command answers the request that checks it, and no other one.
    let script = r#"read -r line; printf '{"score": 1}\n'; while read -r line; do :; done"#;
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let command = ScorerConfig { command, workers: 1, ..ScorerConfig::default() };
    let scorer =
        Scorer::new(config.reward.mode, None, &command, "reward", None, || unreachable!("no judge is asked")).unwrap();
    let is_time = || journal(&out).matches("token_ids").count() == 16;
    let observer = StopWhen { is_time, notes: Mutex::default() };
    let job = RlJob::new(&out, config, Arc::new(scorer)).unwrap();
    assert!(matches!(job.run(&mut device(1), &observer), Err(Error::Stopped)));
    assert_eq!(journals(&out)["1"].len(), 16);
}

/// A user who mends a reward function and continues had scores of both versions in one step.
#[test]
fn scores_of_a_reward_program_that_was_changed_since_are_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = RlConfig { total_training_steps: Some(1), ..rl_config(dir.path()) };
    let (out, file) = (dir.path().join("out"), dir.path().join("reward.sh"));
    // The stop comes when `scores` of the responses are in the journal.
    let run = |script: &str, scores: usize| {
        fs::write(&file, format!("while read -r line; do {script}; done")).unwrap();
        let command = vec!["sh".to_owned(), file.to_str().unwrap().to_owned()];
        let command = ScorerConfig { command, workers: 1, ..ScorerConfig::default() };
        let scorer = Scorer::new(config.reward.mode, None, &command, "reward", None, || unreachable!("no judge"));
        let is_time = || journal(&out).matches("\"score\":").count() >= scores;
        let observer = StopWhen { is_time, notes: Mutex::default() };
        let job = RlJob::new(&out, config.clone(), Arc::new(scorer.unwrap())).unwrap();
        let done = job.run(&mut device(1), &observer);
        (done, observer.notes.into_inner().unwrap().join("\n"))
    };
    // Each process of this program answers the request that checks it and four more.
    let ends = r#"n=$((n + 1)); [ $n -gt 5 ] && continue; printf '{"score": 100}\n'"#;
    assert!(matches!(run(ends, 4).0, Err(Error::Stopped)));
    let (done, notes) = run(ends, 8);
    assert!(matches!(done, Err(Error::Stopped)), "{done:?}");
    assert!(!notes.contains("computed again"), "the same program: {notes}");
    let (done, notes) = run(r#"printf '{"score": 1}\n'"#, usize::MAX);
    done.unwrap();
    assert!(notes.contains("scores of the journal are computed again, because a file of the reward"), "{notes}");
    assert_eq!(Outcome::of(&out).figures("critic/score/max"), [1.0]);
}

#[test]
fn a_journal_that_was_changed_or_is_anothers_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let training = training(|t| t.save_on_stop = Some(false));
    let config = RlConfig { total_training_steps: Some(1), training, ..rl_config(dir.path()) };
    let whole = run_rl(&dir.path().join("whole"), &config, 1, &[]);
    let out = dir.path().join("out");
    let journal = out.join("journal/1.jsonl");
    let finished = |printed: &str, ended: usize| {
        match ended {
            0 => assert!(!printed.contains("journal"), "{printed}"),
            _ => assert!(
                printed.contains(&format!("step 1: {ended} finished rollouts are read from the journal")),
                "{printed}"
            ),
        }
        whole.assert_same(&Outcome::of(&out), &format!("from {ended} rollouts"));
        fs::remove_dir_all(&out).unwrap();
    };
    let stopped = || -> Vec<String> {
        assert!(resume(&out, &config, 10).0.is_err());
        fs::read_to_string(&journal).unwrap().lines().map(str::to_owned).collect()
    };
    let of_outputs = |lines: &[String]| lines.iter().filter(|line| line.contains("token_ids")).count();

    // A changed token, and an incomplete last line.
    let mut lines = stopped();
    let ended = of_outputs(&lines);
    let first = lines.iter().position(|line| line.contains("token_ids")).unwrap();
    let last = lines.iter().rposition(|line| line.contains("token_ids")).unwrap();
    assert!(first < last);
    let at = lines[first].find("token_ids").unwrap() + 12;
    let digit = lines[first].as_bytes()[at];
    lines[first].replace_range(at..=at, if digit == b'1' { "3" } else { "1" });
    lines.truncate(last + 1);
    let torn = lines[last].len() / 2;
    lines[last].truncate(torn);
    fs::write(&journal, lines.join("\n")).unwrap();
    let (done, printed) = resume(&out, &config, u64::MAX);
    done.unwrap();
    finished(&printed, ended - 2);

    // A journal of other weights.
    let mut lines = stopped();
    lines[0] = lines[0].replacen("\"model/model.safetensors\":\"", "\"model/model.safetensors\":\"0", 1);
    fs::write(&journal, format!("{}\n", lines.join("\n"))).unwrap();
    let (done, printed) = resume(&out, &config, u64::MAX);
    done.unwrap();
    finished(&printed, 0);
}

/// The only rank of a run. It sets the flag of a signal when the run comes to a micro-batch.
struct Signalled {
    alone: OneRank,
    micro_batches: u64,
    /// Number of the micro-batch, from 1, before whose pass the signal comes.
    at: u64,
    flag: Arc<AtomicBool>,
}

impl Ranks for Signalled {
    fn rank(&self) -> usize {
        self.alone.rank()
    }
    fn size(&self) -> usize {
        self.alone.size()
    }
    fn name(&self, rank: usize) -> String {
        self.alone.name(rank)
    }
    fn gather(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.micro_batches += u64::from(what == "the next micro-batches");
        self.flag.fetch_or(self.micro_batches == self.at, Ordering::Relaxed);
        self.alone.gather(what, bytes)
    }
    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.alone.await_all(what, bytes)
    }
    fn exchange(&mut self, dev: &mut Device, what: &'static str, send: &Parts, recv: &Parts) -> Result<()> {
        self.alone.exchange(dev, what, send, recv)
    }
    fn all_gather(&mut self, dev: &mut Device, what: &'static str, owned: &[(usize, Tensor)]) -> Result<()> {
        self.alone.all_gather(dev, what, owned)
    }
}

/// A checkpoint of a stopped run has all updates of its last step, or none.
#[test]
fn a_stop_between_the_updates_of_a_step_saves_no_half_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let updates = RlConfig { ppo_mini_batch_size: 1, ppo_epochs: 8, ..rl_config(dir.path()) };
    let config = RlConfig { total_training_steps: Some(2), ..updates };
    let run = |out: &Path, at: u64| {
        let flag = Arc::new(AtomicBool::new(false));
        let mut ranks = Signalled { alone: OneRank::ALONE, micro_batches: 0, at, flag: Arc::clone(&flag) };
        let mut dev = device(1);
        dev.set_stop_flag(flag);
        let job = RlJob::new(out, config.clone(), Arc::new(Scorer::rules(config.reward.mode))).unwrap();
        (job.run_over(&mut ranks, &mut dev, &Silent), ranks.micro_batches)
    };
    let whole = dir.path().join("whole");
    let (done, all) = run(&whole, u64::MAX);
    done.unwrap();
    let whole = Outcome::of(&whole);
    // The second half of the micro-batches is that of step 2: the first, the second, one in the middle, and the last.
    assert!(all >= 64 && all.is_multiple_of(2), "{all} micro-batches");
    for at in [all / 2 + 1, all / 2 + 2, all * 3 / 4, all] {
        let out = dir.path().join(at.to_string());
        let (done, _) = run(&out, at);
        assert!(matches!(done, Err(Error::Stopped)), "{at}: {done:?}");
        assert_eq!(fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().count(), 1, "{at}");
        resume(&out, &config, u64::MAX).0.unwrap();
        whole.assert_same(&Outcome::of(&out), &format!("stopped at micro-batch {at}"));
    }
}
