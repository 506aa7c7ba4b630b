//! Tests the `passrate` stage: a small model answers, rows get the results, and nothing is requested twice.

use std::path::{Path, PathBuf};

use omr_app::pipeline::{self, passrate};
use omr_base::config::{FilterConfig, PassrateConfig, StageConfig};
use omr_base::error::Error;
use omr_base::observe::Silent;
use omr_data::rows::{Form, ImageSource, Row, write};
use omr_runtime::device::{Device, Isa, Plan, Target};
use omr_runtime::machine::Machine;
use omr_runtime_tests::ranks;
use omr_train_tests::training::tiny;

use super::{Impatient, files, in_parts, lines, observed, reads, rows, run};

const N: usize = 4;

/// Writes the tuned model and its rows, and adds a row that is too long and one whose image fails in decoding.
fn set_up(dir: &Path) -> (PassrateConfig, usize) {
    let model = dir.join("model");
    tiny::tuned_model(&model);
    let mut all = tiny::rows();
    let sound = all.len();
    let mut long = all[0].clone();
    long.extra.remove("question");
    let words = "Read the two digits as a number. ".repeat(200);
    long.messages.iter_mut().for_each(|m| m.content.push(omr_data::text::Part::Text(words.clone())));
    let mut broken = all[1].clone();
    let mut bytes = broken.images[0].bytes("").unwrap().to_vec();
    let data = bytes.windows(4).position(|w| w == b"IDAT").unwrap() + 8;
    bytes[data] ^= 0xff;
    broken.images[0] = ImageSource::Bytes { bytes: bytes.into(), path: None };
    all.insert(3, Row { id: "long".into(), ..long });
    all.push(Row { id: "broken".into(), ..broken });
    let path: PathBuf = dir.join("questions.parquet");
    write::write(&path, &all, Form::Rl).unwrap();
    let config = PassrateConfig {
        stage: StageConfig { max_bad_rows: 0.2, ..reads(&[path]) },
        model: Some(model),
        n: N,
        top_p: 1.0,
        max_tokens: 24,
        max_prompt_length: 64,
        max_num_seqs: 6,
        ..PassrateConfig::default()
    };
    (config, sound)
}

#[test]
fn rows_carry_the_share_of_right_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (config, sound) = set_up(dir.path());
    let out = dir.path().join("out");
    let (summary, _) = run(&config, &out, None).unwrap();
    assert_eq!((summary.rows, summary.kept, summary.requests), (sound + 2, sound, sound * N));
    assert_eq!((summary.rejected["overlong"], summary.rejected["broken_image"]), (1, 1));
    let ids: Vec<String> =
        lines(&out.join("rejected.jsonl")).iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["long", "broken"]);
    let rates: Vec<f64> =
        rows(&out.join("questions.parquet")).iter().map(|row| row.extra["pass_rate"].as_f64().unwrap()).collect();
    assert!(rates.iter().all(|rate| (rate * N as f64).fract() == 0.0 && (0.0..=1.0).contains(rate)), "{rates:?}");
    assert!(rates.iter().any(|&rate| rate > 0.0) && rates.iter().any(|&rate| rate < 1.0), "{rates:?}");

    let bounds = FilterConfig {
        stage: reads(&[out.join("questions.parquet")]),
        min_pass_rate: Some(0.25),
        ..FilterConfig::default()
    };
    let (kept, _) = run(&bounds, &dir.path().join("kept"), None).unwrap();
    assert_eq!(kept.kept, rates.iter().filter(|&&rate| rate >= 0.25).count());
}

#[test]
fn the_label_of_an_sft_row_is_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = set_up(dir.path());
    let path = dir.path().join("taught.parquet");
    let mut taught = tiny::rows();
    taught.iter_mut().for_each(|row| row.ground_truth = None);
    write::write(&path, &taught, Form::Sft).unwrap();
    let out = dir.path().join("out");
    let (summary, _) = run(&PassrateConfig { stage: reads(&[path]), ..config }, &out, None).unwrap();
    assert_eq!((summary.rows, summary.kept), (taught.len(), taught.len()));
    let rated = rows(&out.join("taught.parquet"));
    assert!(rated.iter().all(|row| row.messages.last().unwrap().role == "assistant" && row.ground_truth.is_none()));
    assert!(rated.iter().any(|row| row.extra["pass_rate"].as_f64().unwrap() > 0.0));
}

#[test]
fn stopped_and_in_parts_the_rates_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = set_up(dir.path());
    let [whole, stopped, parts] = ["whole", "stopped", "parts"].map(|name| dir.path().join(name));
    let (summary, _) = run(&config, &whole, None).unwrap();
    assert!(matches!(observed(&config, &stopped, None, &Impatient::after(50)), Err(Error::Stopped)));
    let store = |dir: &Path| omr_base_tests::answers::count(&dir.join("answers.sqlite"));
    let (before, all) = (store(&stopped), store(&whole));
    assert!(before > 0 && before < all, "{before} of {all} answers");
    assert_eq!(run(&config, &stopped, None).unwrap().0, summary);
    assert_eq!(in_parts(&config, &parts, 2), summary);
    assert_eq!(files(&whole), files(&stopped));
    assert_eq!(files(&whole), files(&parts));
    assert!(!run(&config, &whole, None).unwrap().1, "a finished stage asks nothing");
}

#[test]
fn where_every_answer_is_stored_no_model_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut config, sound) = set_up(dir.path());
    // Leaves out the row with the broken image, because it has no answer to store.
    config.stage.datasets[0].limit = Some(sound + 1);
    let out = dir.path().join("out");
    let (summary, _) = run(&config, &out, None).unwrap();
    std::fs::remove_file(out.join("summary.json")).unwrap();
    let means = Machine {
        target: Target::cpu(2),
        threads: 2,
        place: String::new(),
        device: &|_| panic!("a device is made"),
        runtime: &|| Ok(super::runtime().handle().clone()),
        observer: &Silent,
    };
    assert_eq!(pipeline::run(&config, &out, None, &means).unwrap(), (summary, true));
}

/// Tests that each rank answers its share of the questions, and that the stage then finds every answer.
#[test]
fn ranks_answer_together() {
    let dir = tempfile::tempdir().unwrap();
    let (mut config, sound) = set_up(dir.path());
    config.stage.datasets[0].limit = Some(sound + 1);
    let [whole, shared] = ["whole", "shared"].map(|name| dir.path().join(name));
    let (summary, _) = run(&config, &whole, None).unwrap();
    std::fs::create_dir(&shared).unwrap();
    let means = |device: &dyn Fn(&Plan) -> omr_base::error::Result<Device>, act: &mut dyn FnMut(&Machine)| {
        let runtime = || Ok(super::runtime().handle().clone());
        let (target, threads, place) = (Target::cpu(1), 1, String::new());
        act(&Machine { target, threads, place, device, runtime: &runtime, observer: &Silent });
    };
    let counts = ranks::over(2, |ranks| {
        let devices = std::cell::Cell::new(0);
        let device = |plan: &Plan| {
            devices.set(devices.get() + 1);
            Device::cpu(plan, 1, Isa::detect())
        };
        means(&device, &mut |means| passrate::answer(&config, &shared, ranks, means).unwrap());
        devices.get()
    });
    assert_eq!(counts, [1, 1], "each rank answers its share");
    let unneeded = |_: &Plan| panic!("a device is made");
    means(&unneeded, &mut |means| assert_eq!(pipeline::run(&config, &shared, None, means).unwrap().0, summary));
    assert_eq!(files(&whole), files(&shared));
}
