//! Tests `omr replay`: an unchanged run is reproduced, and every manual change is named.

use std::fs;
use std::path::{Path, PathBuf};

use omr_base::config::{RlConfig, SftConfig, to_yaml};
use omr_model::rollout::file::{self, RolloutRow};
use omr_train_tests::training::tiny::{rl_config, sft_config, training};

use super::help::omr;

/// Makes a run of `job` with the binary. Each step has a checkpoint.
fn made(dir: &Path, job: &str, config: &str) -> PathBuf {
    let (file, out) = (dir.join(format!("{job}.yaml")), dir.join(job));
    fs::write(&file, config).unwrap();
    let output = omr().args(["--threads", "1", job]).arg(&file).arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

/// Runs the replay. Returns its output and exit status.
fn replayed(run: &Path, more: &[&str]) -> (String, i32) {
    let output = omr().args(["--threads", "2", "--quiet", "replay"]).arg(run).args(more).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (text, output.status.code().unwrap())
}

fn equal(run: &Path, more: &[&str]) {
    let (text, status) = replayed(run, more);
    assert!(status == 0 && text.contains("equal the record"), "{more:?}: {text}");
}

fn named(run: &Path, more: &[&str], words: &[&str]) {
    let (text, status) = replayed(run, more);
    assert!(status == 1 && words.iter().all(|word| text.contains(word)), "{more:?}, wanted {words:?}: {text}");
}

fn changed(run: &Path, step: u64, change: impl FnOnce(&mut Vec<RolloutRow>)) {
    let mut rows = file::read(run, step).unwrap().unwrap();
    change(&mut rows);
    file::write(run, step, &rows).unwrap();
}

#[test]
fn an_rl_run_is_computed_again_and_what_was_changed_by_hand_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        RlConfig { rollout_freq: Some(1), training: training(|t| t.keep_every = Some(1)), ..rl_config(dir.path()) };
    let run = made(dir.path(), "rl", &to_yaml(&config).unwrap());
    let before = files(&run);
    equal(&run, &["--sample", "9"]);
    equal(&run, &["--step", "2", "--rollout", "5"]);
    assert_eq!(files(&run), before, "a replay leaves the run as it is");

    changed(&run, 2, |rows| rows[5].score = rows[5].score.map(|score| score + 0.125));
    named(&run, &["--step", "2"], &["step 2: rollout 5 (answer 1 to", "score: recorded"]);
    equal(&run, &["--step", "2", "--rollout", "0"]);
    changed(&run, 3, |rows| rows[6].token_ids[2] ^= 1);
    named(&run, &["--step", "3", "--rollout", "6"], &["step 3: rollout 2 (answer 2 to", "token 2: recorded"]);
    changed(&run, 4, |rows| rows[0].log_probs[1] = f32::from_bits(rows[0].log_probs[1].to_bits() ^ 1));
    named(&run, &["--step", "4"], &["step 4: rollout 0", "log-prob of token 1: recorded"]);
    let log = run.join("metrics.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("\"actor/lr\":", "\"actor/lr\":1", 1)).unwrap();
    named(&run, &["--step", "1"], &["step 1: actor/lr: recorded 1"]);
    fs::write(&log, text).unwrap();

    // Changes a weight of the checkpoint from which a step starts, and then a weight of the model after the last step.
    flip(&run.join("checkpoints/global_step_1/model.safetensors"));
    named(
        &run,
        &["--step", "2", "--rollout", "0"],
        &["global_step_1/model.safetensors", "differs from what was saved"],
    );
    changed(&run, 4, |rows| rows[0].log_probs[1] = f32::from_bits(rows[0].log_probs[1].to_bits() ^ 1));
    flip(&run.join("model/model.safetensors"));
    named(&run, &["--step", "4"], &["model.safetensors:", "element", "differs"]);
    let (text, status) = replayed(&run, &["--step", "5"]);
    assert!(status == 2 && text.contains("--step: found 5, expected a recorded step, 1 to 4"), "{text}");
}

#[test]
fn an_sft_run_is_computed_from_what_it_kept() {
    let dir = tempfile::tempdir().unwrap();
    let training = training(|t| (t.keep_every, t.save_total_limit) = (Some(3), Some(1)));
    let config = SftConfig { max_steps: Some(7), training, ..sft_config(dir.path()) };
    let run = made(dir.path(), "sft", &to_yaml(&config).unwrap());
    let kept = |step: u64| run.join(format!("checkpoints/global_step_{step}")).is_dir();
    assert_eq!((1..=7).filter(|&step| kept(step)).collect::<Vec<_>>(), [3, 6, 7]);
    equal(&run, &["--step", "2"]);
    equal(&run, &["--step", "7"]);
    let (text, status) = replayed(&run, &["--step", "5", "--rollout", "0"]);
    assert!(status == 2 && text.contains("rollouts"), "{text}");
    let state = run.join("checkpoints/global_step_6/trainer/state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace("\"device\": \"cpu\"", "\"device\": \"cuda\"")).unwrap();
    let (text, status) = replayed(&run, &["--step", "2"]);
    assert!(status == 2 && text.contains("made on cuda") && text.contains("nothing was compared"), "{text}");
    let (text, status) = replayed(dir.path(), &["--step", "2"]);
    assert!(status == 2 && text.contains("config.yaml and metrics.jsonl") && text.contains("sft"), "{text}");
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path));
        } else {
            out.push((path.clone(), fs::metadata(path).unwrap().len()));
        }
    }
    out.sort();
    out
}
