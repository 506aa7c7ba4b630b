//! Tests runs over several processes from the command line: launchers, `--gpus`, training and evaluation.

use std::path::Path;

use omr_base::answers::{FILE, shard};
use omr_base::config::validation::ValKwargs;
use omr_base::config::{RlConfig, SftConfig, TrainingConfig, ValidationConfig, to_yaml};
use omr_base_tests::reward::judge_server::Server as Judge;
use omr_data::rows::{Form, Row, write};
use omr_runtime_tests::ranks::nccl::StandIn;
use omr_train::training::metrics;
use omr_train_tests::training::tiny::{Outcome, rl_config, rows, sft_config, tuned_model};
use serde_json::Value;

use super::help::omr;

const TORCHRUN: [(&str, &str); 5] =
    [("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")];

/// Runs a command whose input is invalid, and returns its stderr.
fn refused(args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = omr().args(args).envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    text
}

#[test]
fn what_ranks_have_no_part_in_says_so() {
    let command = ["eval", "--model-url", "http://127.0.0.1:9/v1", "--model", "m", "--out", "x"];
    let text = refused(&[&command[..], &["--gpus", "2"]].concat(), &[]);
    assert!(text.contains("--gpus: found 2, expected 1: "), "{text}");
    // Rank 0 tells the other rank before it ends.
    let mut other = omr();
    other.args(command).envs(TORCHRUN).env("RANK", "1").stderr(std::process::Stdio::null());
    let mut other = other.spawn().unwrap();
    let text = refused(&command, &TORCHRUN);
    assert!(text.contains("processes that torchrun has started: found 2"), "{text}");
    assert_eq!(other.wait().unwrap().code(), Some(2));
}

#[test]
fn a_wrong_place_among_ranks_is_named() {
    let sft = ["sft", "x.yaml", "--out", "x"];
    let text = refused(&sft, &[("RANK", "4"), ("WORLD_SIZE", "2")]);
    assert!(text.contains("environment variable RANK: found 4, expected a whole number from 0 to 1"), "{text}");
    let text = refused(&[&sft[..], &["--gpus", "2"]].concat(), &TORCHRUN);
    assert!(text.contains("the command line: found --gpus 2, in one of 2 processes started by torchrun"), "{text}");
    let text = refused(&sft, &[&TORCHRUN[1..], &[("RANK", "1"), ("LOCAL_RANK", "x")]].concat());
    assert!(text.contains("environment variable LOCAL_RANK: found x"), "{text}");
    let output = omr().args([&sft[..], &["--gpus", "0"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn nccl_without_a_card_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("sft.yaml"), to_yaml(&sft_config(dir.path())).unwrap()).unwrap();
    for (device, hint) in [("cpu", "GPU memory"), ("emu", "set OMR_NCCL_LIBRARY to a library")] {
        let args = ["--device", device, "sft", &file("sft.yaml"), "--out", &file("out"), "dist.backend=nccl"];
        let text = refused(&args, &[]);
        assert!(
            text.contains(&format!("dist.backend: found nccl with --device {device}")) && text.contains(hint),
            "{text}"
        );
    }
}

/// Tests that two and three processes that `--gpus` starts give the same bits as one process, for SFT and for RL with two
/// gradient lanes.
#[test]
fn two_processes_make_what_one_makes() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (sft, rl) = (sft_config(dir.path()), rl_config(dir.path()));
    let mut validation = ValidationConfig { val_files: rl.train_files.clone(), ..ValidationConfig::default() };
    validation.val_max_samples = Some(5);
    validation.val_kwargs = ValKwargs { n: 2, temperature: 1.0, max_new_tokens: Some(8), ..ValKwargs::default() };
    // The rows have answers, so SFT measures their loss, too.
    let (lanes, measured) = (Some(2), ValidationConfig { predict_with_generate: true, ..validation.clone() });
    let sft = SftConfig {
        max_steps: Some(3),
        eval_steps: Some(3),
        validation: measured,
        training: TrainingConfig { gradient_lanes: lanes, ..sft.training.clone() },
        ..sft
    };
    let (lanes, measured) = (Some(2), validation);
    let rl = RlConfig {
        total_training_steps: Some(2),
        test_freq: Some(2),
        validation: measured,
        training: TrainingConfig { gradient_lanes: lanes, ..rl.training.clone() },
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
        ["2", "3"].into_iter().for_each(|gpus| one.assert_same(&outcome(gpus), &format!("{job} as {gpus}")));
        // Every rank's times are in the metrics of rank 0.
        let times = if job == "rl" { &["rollouts", "forward", "exchange"][..] } else { &["forward", "exchange"] };
        for step in metrics::read(&Path::new(&file(&format!("{job}-3"))).join("metrics.jsonl")).unwrap().iter().skip(1)
        {
            for name in times {
                let [median, max] = ["median", "max"].map(|of| step[&format!("timing_s/ranks/{name}/{of}")].as_f64());
                assert!(median.unwrap() > 0.0 && max >= median, "{step:?}");
            }
            assert_eq!(step.contains_key("timing_s/ranks/rollouts/max"), job == "rl", "{step:?}");
        }
    }
    // After a fault, a launcher runs the same command again, including --fresh. The run continues.
    let again = ["sft", &file("sft.yaml"), "--out", &file("sft-1"), "--fresh"];
    let output = omr().args(again).env("TORCHELASTIC_RESTART_COUNT", "1").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--fresh") && text.contains("finished: nothing to do"), "{text}");
}

/// Tests the transfers between ranks on the emulator and a stand-in of NCCL, whose messages would break a program that
/// reads the result.
#[test]
fn messages_of_nccl_do_not_mix_with_the_result_on_stdout() {
    let stand_in = StandIn::new("");
    let args = ["--device", "emu", "--threads", "1", "bench", "ranks", "--gpus", "2"];
    let output = omr().args(args).env("OMR_NCCL_LIBRARY", stand_in.path()).env("NCCL_DEBUG", "INFO").output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{err}");
    assert!(out.starts_with("2 ranks, ") && out.ends_with("sums as on the CPU\n") && out.lines().count() == 1, "{out}");
    assert_eq!(err.matches("NCCL INFO of the stand-in").count(), 2, "{err}");
    let text = refused(&["bench", "rms_norm", "--gpus", "2"], &[]);
    assert!(text.contains("omr bench --gpus: found another benchmark, expected ranks"), "{text}");
}

/// Returns the result of an evaluation without times, and its answers by key.
fn measured(out: &Path) -> (Value, String, Vec<(Vec<u8>, String)>) {
    let mut summary: Value = serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    summary.as_object_mut().unwrap().remove("seconds");
    let database = rusqlite::Connection::open(out.join(FILE)).unwrap();
    let mut rows = database.prepare("SELECT key, text FROM answers ORDER BY key").unwrap();
    let answers = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let answers = answers.collect::<Result<_, _>>().unwrap();
    (summary, std::fs::read_to_string(out.join("samples.jsonl")).unwrap(), answers)
}

/// Tests that an evaluation gives the same result and sends the same requests to the judge with one process, with two,
/// and if three processes start it and two continue it.
#[test]
fn two_processes_measure_what_one_measures() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let at = |name: &str| path(name).to_str().unwrap().to_owned();
    tuned_model(&path("model"));
    // Two questions occur twice.
    let rows: Vec<Row> = rows().into_iter().chain(rows().into_iter().take(2)).collect();
    std::fs::create_dir(path("data")).unwrap();
    write::write(&path("data/heldout.parquet"), &rows, Form::Rl).unwrap();
    let judge = Judge::start();
    let measure = |out: &str, gpus: &str| {
        let (model, data, out, url) =
            (at("model"), at("data"), at(out), format!("judge.base_url=[{}]", judge.base_url));
        let args = ["--threads", "1", "eval", "--model", &model, "--data", &data, "--tasks", "digits", "--out", &out];
        let keys = ["--gpus", gpus, "dtype=f32", "max_new_tokens=24", "repeats=2", "judge.model=j", &url];
        let (before, output) = (judge.count(), omr().args(args).args(keys).output().unwrap());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        judge.count() - before
    };
    let asked = measure("one", "1");
    assert!(asked > 2, "{asked} wrong answers are too few to tell");
    assert_eq!(measure("two", "2"), asked);
    let one = measured(&path("one"));
    assert_eq!(measured(&path("two")), one);

    let moved = path("moved");
    std::fs::create_dir(&moved).unwrap();
    for part in 0..3 {
        let store = shard(&moved, part, 3);
        std::fs::copy(path("two").join(FILE), &store).unwrap();
        let database = rusqlite::Connection::open(store).unwrap();
        database.execute(&format!("DELETE FROM answers WHERE rowid % 5 <> {part}"), []).unwrap();
    }
    assert!(measure("moved", "2") < asked, "what the judge said was asked for again");
    assert_eq!(measured(&moved), one);
}
