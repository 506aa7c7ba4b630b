use std::path::Path;

use omr::config::{RlConfig, SftConfig, ValKwargs, ValidationConfig, to_yaml};

use super::help::omr;
use crate::train::tiny::{Outcome, rl_config, sft_config};

const TORCHRUN: [(&str, &str); 5] =
    [("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")];

/// Stderr of a command that the input is wrong for.
fn refused(args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = omr().args(args).envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    text
}

#[test]
fn what_has_no_ranks_says_so() {
    for command in [&["recipe", "x.yaml", "--out", "x"][..], &["eval", "--out", "x"]] {
        let text = refused(&[command, &["--gpus", "2"]].concat(), &[]);
        assert!(text.contains("--gpus: found 2, expected 1: omr "), "{text}");
        let text = refused(command, &TORCHRUN);
        assert!(text.contains("processes that torchrun has started: found 2"), "{text}");
    }
}

#[test]
fn a_wrong_place_among_ranks_is_named() {
    let sft = ["sft", "x.yaml", "--out", "x"];
    let text = refused(&sft, &[("RANK", "4"), ("WORLD_SIZE", "2")]);
    assert!(text.contains("the environment's RANK: found 4, expected a whole number from 0 to 1"), "{text}");
    let text = refused(&[&sft[..], &["--gpus", "2"]].concat(), &TORCHRUN);
    assert!(text.contains("--gpus: found 2 in one of the 2 processes of torchrun"), "{text}");
    let text = refused(&sft, &[&TORCHRUN[1..], &[("RANK", "1"), ("LOCAL_RANK", "x")]].concat());
    assert!(text.contains("the environment's LOCAL_RANK: found x"), "{text}");
    let output = omr().args([&sft[..], &["--gpus", "0"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// Processes that `--gpus` starts: the same bits for SFT and for RL as one has, and one error where the lanes are fewer.
#[test]
fn two_processes_make_what_one_makes() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (sft, rl) = (sft_config(dir.path()), rl_config(dir.path()));
    let mut validation = ValidationConfig { val_files: rl.train_files.clone(), ..ValidationConfig::default() };
    validation.val_max_samples = Some(5);
    validation.val_kwargs = ValKwargs { n: 2, temperature: 1.0, max_new_tokens: Some(8), ..ValKwargs::default() };
    let (lanes, measured) = (Some(2), validation.clone());
    let sft = SftConfig { gradient_lanes: lanes, max_steps: Some(3), eval_steps: Some(3), validation: measured, ..sft };
    let (lanes, measured) = (Some(2), validation);
    let rl = RlConfig {
        gradient_lanes: lanes,
        total_training_steps: Some(2),
        test_freq: Some(2),
        validation: measured,
        ..rl
    };
    std::fs::write(file("sft.yaml"), to_yaml(&sft).unwrap()).unwrap();
    std::fs::write(file("rl.yaml"), to_yaml(&rl).unwrap()).unwrap();
    for job in ["sft", "rl"] {
        let outcome = |gpus: &str| {
            let out = file(&format!("{job}-{gpus}"));
            let args = ["--threads", "1", job, &file(&format!("{job}.yaml")), "--out", &out, "--gpus", gpus];
            let output = omr().args(args).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Outcome::of(Path::new(&out))
        };
        let one = outcome("1");
        let measured = one.metrics.iter().filter(|m| m.keys().any(|name| name.starts_with("val-core/")));
        assert_eq!(measured.count(), 2, "before the first step and behind the last");
        one.assert_same(&outcome("2"), job);
    }
    // A launcher types the command again, --fresh and all, after a fault: the run goes on.
    let again = ["sft", &file("sft.yaml"), "--out", &file("sft-1"), "--fresh"];
    let output = omr().args(again).env("TORCHELASTIC_RESTART_COUNT", "1").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--fresh was for the first start") && text.contains("finished: nothing to do"), "{text}");
    let text = refused(&["sft", &file("sft.yaml"), "--out", &file("more"), "--gpus", "3"], &[]);
    assert!(text.contains("gpus: found 3, expected at most 2 ranks"), "{text}");
}
