//! Tests that a log-prob of the trainer that differs from the sampler's ends the run. A journal whose log-probs are
//! changed stands for a sampler that computes other bits.

use std::fs;
use std::path::Path;

use omr_base::config::{Parity, RlConfig};
use omr_base::error::Result;
use serde_json::Value;

use super::stopped::resume;
use crate::training::tiny::{rl_config, training};

/// Replaces `change` in the first finished rollout of the journal, and gives the line a valid hash. Returns the line
/// before the change.
fn change_journal(out: &Path, change: impl Fn(&mut Value)) -> Value {
    let journal = out.join("journal/1.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let (mut lines, mut found) = (Vec::new(), None);
    for line in text.lines() {
        let mut value: Value = serde_json::from_str(line).unwrap();
        if found.is_none() && value["token_ids"].as_array().is_some_and(|ids| ids.len() > 1) {
            found = Some(value.clone());
            change(&mut value);
            value.as_object_mut().unwrap().remove("blake3");
            let content = value.to_string();
            let content = content.strip_suffix('}').unwrap();
            lines.push(format!("{content},\"blake3\":\"{}\"}}", blake3::hash(content.as_bytes()).to_hex()));
        } else {
            lines.push(line.to_owned());
        }
    }
    fs::write(&journal, lines.join("\n") + "\n").unwrap();
    found.unwrap()
}

/// Starts a run, stops it within its step, changes its journal and resumes it with `parity`. Returns the result, the
/// notes and the rollout that was changed.
fn resumed(parity: Parity, change: impl Fn(&mut Value)) -> (Result<()>, String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let training = training(|t| t.save_on_stop = Some(false));
    let config = RlConfig { total_training_steps: Some(1), training, ..rl_config(dir.path()) };
    let out = dir.path().join("out");
    assert!(resume(&out, &config, 10).0.is_err());
    let line = change_journal(&out, change);
    let (done, notes) = resume(&out, &RlConfig { parity, ..config }, u64::MAX);
    (done, notes, line)
}

/// Changes the last bit of the second token's log-prob.
fn next_log_prob(line: &mut Value) {
    let log_prob = line["log_probs"][1].as_f64().unwrap() as f32;
    line["log_probs"][1] = f64::from(f32::from_bits(log_prob.to_bits() + 1)).into();
}

#[test]
fn a_log_prob_with_another_last_bit_ends_the_run_and_is_named() {
    let (done, _, line) = resumed(Parity::Error, next_log_prob);
    let text = done.unwrap_err().to_string();
    let place = format!(
        "step 1: 1 log-probs of the trainer differ from the sampler's, at most by {:e}; the first is token 1 (id {}) of \
         rollout {} of prompt {}, with the log-prob",
        0.0, line["token_ids"][1], line["rollout"], line["prompt"]
    );
    let (begin, end) = place.split_once("0e0").unwrap();
    assert!(text.starts_with(begin) && text.contains(end), "{text}");
    assert!(text.contains("omr bench parity --device cpu") && text.contains("parity=warn"), "{text}");
}

#[test]
fn a_difference_is_a_note_with_parity_warn_and_nothing_with_off() {
    let (done, notes, _) = resumed(Parity::Warn, next_log_prob);
    done.unwrap();
    assert!(notes.contains("log-probs of the trainer differ from the sampler's"), "{notes}");
    let (done, notes, _) = resumed(Parity::Off, next_log_prob);
    done.unwrap();
    assert!(!notes.contains("differ"), "{notes}");
}

#[test]
fn rollouts_of_another_arithmetic_are_excepted_with_a_note() {
    let (done, notes, _) = resumed(Parity::Error, |line| {
        next_log_prob(line);
        line["arithmetic"] = "cuda wgmma/3 on compute capability 9.0".into();
    });
    done.unwrap();
    let note = "step 1: 1 rollouts of the journal were sampled with another arithmetic (cuda wgmma/3 on compute \
                capability 9.0): their log-probs may differ from the trainer's and are not checked";
    assert!(notes.contains(note), "{notes}");
}
