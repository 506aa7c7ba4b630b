//! Tests validation during training: no weight depends on it, a stopped run has the same metrics, and the best
//! checkpoint is kept.

use std::fs;
use std::path::Path;

use omr_base::config::validation::ValKwargs;
use omr_base::config::{RlConfig, ScorerConfig, SftConfig, ValidationConfig};
use omr_data::reward::{Mode, Scorer};
use omr_data::rows::{Form, read, write};
use omr_runtime::device::Target;
use omr_train::eval::validation;
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;

use crate::training::tiny::{Outcome, device, rl_config, rows, run_rl, run_rl_over, run_sft, sft_config, training};

const MINE: &str = "val-core/mine/acc/mean@2";
const DIGITS: &str = "val-core/digits/acc/mean@2";

/// Returns a validation with the user's own rows and rows of a task, with two answers each.
fn validation(dir: &Path) -> ValidationConfig {
    let file = dir.join("mine.parquet");
    let mut rows = rows();
    rows.truncate(5);
    rows.iter_mut().for_each(|row| row.data_source = "mine".to_owned());
    write::write(&file, &rows, Form::Rl).unwrap();
    ValidationConfig {
        val_files: vec![read::entry(file)],
        val_tasks: vec!["digits".to_owned()],
        val_max_samples: Some(4),
        val_kwargs: ValKwargs { n: 2, temperature: 1.0, ..ValKwargs::default() },
        ..ValidationConfig::default()
    }
}

/// Returns the steps that have this metric.
fn measured(run: &Outcome, name: &str) -> Vec<u64> {
    run.metrics.iter().filter(|m| m.contains_key(name)).map(|m| m["step"].as_u64().unwrap()).collect()
}

#[test]
fn rl_does_not_know_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = RlConfig { total_training_steps: Some(3), ..rl_config(dir.path()) };
    let plain = run_rl(&dir.path().join("plain"), &config, 1, &[]);
    let config = RlConfig { test_freq: Some(2), validation: validation(dir.path()), ..config };
    let run = run_rl(&dir.path().join("measured"), &config, 2, &[]);
    let best = "val-core/digits/acc/best@2/mean";
    for name in [MINE, DIGITS, best, "val-aux/mine/reward/maj@2/std", "val-aux/digits/response_length/mean"] {
        assert_eq!(measured(&run, name), [0, 2, 3], "{name}");
    }
    let shares: Vec<f64> = run.metrics.iter().filter_map(|m| m.get(MINE)?.as_f64()).collect();
    assert!(shares.iter().all(|share| (share * 8.0).fract() == 0.0), "{shares:?} of eight answers");
    for m in run.metrics.iter().filter(|m| m.contains_key(MINE)) {
        let [mean, best, worst] =
            ["val-core/mine/acc/mean@2", "val-core/mine/acc/best@2/mean", "val-aux/mine/acc/worst@2/mean"]
                .map(|name| m[name].as_f64().unwrap());
        // best@2 and worst@2 are means over all ordered pairs of the two answers. Half of the pairs contain the same
        // answer twice. In the other half, best is the larger score and worst the smaller one. Both metrics therefore
        // have the same distance from the mean.
        assert!((best - mean - (mean - worst)).abs() < 1e-12 && best >= mean, "{worst} {mean} {best}");
    }
    plain.unmeasured().assert_same(&run.unmeasured(), "measured beside");
}

#[test]
fn sft_does_not_know_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let plain = run_sft(&dir.path().join("plain"), &config, 1, &[]);
    let validation = ValidationConfig { val_before_train: false, ..validation(dir.path()) };
    let config = SftConfig { eval_steps: Some(3), validation, ..config };
    let run = run_sft(&dir.path().join("measured"), &config, 1, &[4]);
    assert_eq!(measured(&run, DIGITS), [3, 6, 8]);
    plain.unmeasured().assert_same(&run.unmeasured(), "measured beside");
}

#[test]
fn the_best_checkpoint_stays_and_a_stopped_run_has_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    let mut validation = validation(dir.path());
    validation.metric_for_best_model = Some(MINE.to_owned());
    let training = training(|t| t.save_total_limit = Some(1));
    let config = RlConfig { test_freq: Some(1), save_freq: Some(1), validation, training, ..rl_config(dir.path()) };
    let out = dir.path().join("whole");
    let whole = run_rl(&out, &config, 2, &[]);
    whole.assert_same(&run_rl(&dir.path().join("stopped"), &config, 1, &[1, 3]), "stopped twice");

    let figures: Vec<f64> = whole.metrics[1..].iter().map(|m| m[MINE].as_f64().unwrap()).collect();
    let highest = figures.iter().copied().fold(f64::MIN, f64::max);
    let best = figures.iter().position(|&figure| figure == highest).unwrap() + 1;
    assert_eq!(fs::read_to_string(out.join("best")).unwrap(), format!("global_step_{best}\n"), "{figures:?}");
    let mut kept: Vec<String> = fs::read_dir(out.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    let mut wanted = vec![format!("global_step_{best}"), "global_step_4".to_owned()];
    wanted.dedup();
    assert_eq!(kept, wanted, "{figures:?}");
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["best_global_step"], &summary["best_metric"]), (&best.into(), &highest.into()));
}

/// Answers without a number are not counted as 0 in validation, nor in training.
#[test]
fn a_number_that_a_reward_program_gives_for_some_answers_is_the_mean_of_these() {
    let dir = tempfile::tempdir().unwrap();
    let validation = ValidationConfig { val_tasks: Vec::new(), val_max_samples: None, ..validation(dir.path()) };
    let config = rl_config(dir.path());
    let config = RlConfig { total_training_steps: Some(1), test_freq: Some(1), validation, ..config };
    let script = r#"while read -r _; do echo '{"score": 1, "seen": 3}'; read -r _; echo '{"score": 0}'; done"#;
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let command = ScorerConfig { command, workers: 1, ..ScorerConfig::default() };
    let scorer = Scorer::new(Mode::Strict, None, &command, "reward", None, || unreachable!("no judge")).unwrap();
    let scorer = std::sync::Arc::new(scorer);
    let out = dir.path().join("out");
    let mut job = RlJob::new(&out, config.clone(), scorer.clone()).unwrap();
    job.common.validation = validation::rl(&config, &job.common, scorer, None).unwrap();
    job.run(&mut device(1), &omr_base::observe::Silent).unwrap();
    let run = Outcome::of(&out);
    assert_eq!(run.metrics[1]["critic/score/seen/mean"], 3.0);
    assert_eq!(run.figures("val-aux/mine/seen/mean@2"), [3.0; 2]);
    assert_eq!(run.figures("val-aux/mine/reward/mean@2"), [0.5; 2]);
}

#[test]
fn as_many_answers_at_once_as_fit() {
    let dir = tempfile::tempdir().unwrap();
    let mut validation = validation(dir.path());
    // The sequences of validation are longer than those of training, and together they need more memory than training.
    validation.val_kwargs.max_new_tokens = Some(4000);
    let config = RlConfig { test_freq: Some(1), validation, ..rl_config(dir.path()) };
    let scorer = std::sync::Arc::new(Scorer::rules(Mode::Strict));
    let mut job = RlJob::new(&dir.path().join("out"), config.clone(), scorer.clone()).unwrap();
    let target = Target::cpu(1);
    let plain = job.plan(target).unwrap().total();
    job.common.validation = validation::rl(&config, &job.common, scorer, None).unwrap();
    let wanted = job.plan(target).unwrap().total();
    let budget = plain + (wanted - plain) / 3;
    let fitted = job.plan(target.within(Some(budget))).unwrap().total();
    assert!(plain < fitted && fitted <= budget && budget < wanted, "{plain} {fitted} {budget} {wanted}");
    // Training would fit, but a single answer of that length does not.
    let error = job.plan(target.within(Some(plain))).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("memory"), "{error}");
}

/// A policy that a far too large learning rate ruins scores worse after each step.
#[test]
fn a_policy_that_gets_worse_ends_the_run_early_with_its_best_model() {
    let dir = tempfile::tempdir().unwrap();
    let config = rl_config(dir.path());
    let validation = ValidationConfig {
        val_tasks: Vec::new(),
        val_size: Some(4.0),
        val_files: Vec::new(),
        val_max_samples: None,
        val_kwargs: ValKwargs::default(),
        early_stopping_patience: Some(2),
        load_best_model_at_end: true,
        ..validation(dir.path())
    };
    let mut config = RlConfig { total_training_steps: Some(8), test_freq: Some(1), validation, ..config };
    config.optimizer.learning_rate = 0.05;
    let out = dir.path().join("whole");
    let whole = run_rl(&out, &config, 2, &[]);
    let name = "val-core/digits/acc/mean@1";
    let scores = whole.figures(name);
    let best = scores[1..].iter().copied().fold(f64::MIN, f64::max);
    let at = 1 + scores[1..].iter().position(|&score| score == best).unwrap();
    assert_eq!(scores.len(), at + 3, "step 0, and two steps after the best one: {scores:?}");
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["metric_for_best_model"], &summary["best_metric"]), (&name.into(), &best.into()));
    assert_eq!((&summary["steps"], &summary["model_global_step"]), (&(at + 2).into(), &at.into()));
    let weights = |folder: &str| fs::read(out.join(folder).join("model.safetensors")).unwrap();
    assert!(weights("model") == weights(&format!("checkpoints/global_step_{at}")));
    assert!(weights("model") != weights(&format!("checkpoints/global_step_{}", at + 2)));
    whole.assert_same(&run_rl(&dir.path().join("stopped"), &config, 1, &[1, 2]), "stopped twice");
    whole.assert_same(&run_rl_over(&dir.path().join("over"), &config, || device(1), &[2], &[]), "two ranks");
}
