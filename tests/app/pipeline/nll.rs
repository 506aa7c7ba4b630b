//! Tests `max_nll` of the `filter` stage: rows whose answers a model finds unlikely are rejected, with the same numbers as
//! val/loss.

use std::path::Path;

use omr_app::pipeline;
use omr_base::config::{self, DataConfig, FilterConfig, ImageConfig, LoraConfig, SftConfig, StageConfig};
use omr_base::error::Error;
use omr_base::observe::Silent;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Encoder, Form, ImageSource, Row, write};
use omr_data::text::Message;
use omr_model::nn::{Model, ModelConfig};
use omr_runtime::device::{Device, Isa, Target};
use omr_runtime::machine::Machine;
use omr_runtime::ranks::OneRank;
use omr_runtime::tensor::DType;
use omr_train::training::val_loss::HeldOut;
use omr_train_tests::training::tiny;
use serde_json::Value;

use super::{Impatient, files, in_parts, lines, observed, reads, refused, rows, run};

/// Writes the tuned model and its rows. Every third row is repeated with its answer written backwards. Then follow a
/// question without an answer and a row whose image fails in decoding. Returns the config and the measurable rows.
fn set_up(dir: &Path) -> (FilterConfig, Vec<Row>) {
    let model = dir.join("model");
    tiny::tuned_model(&model);
    let mut all = Vec::new();
    for (i, row) in tiny::rows().into_iter().enumerate() {
        let answer: String = omr_data::rows::text_of(row.messages.last().unwrap()).chars().rev().collect();
        all.push(row.clone());
        if i % 3 == 0 {
            let mut messages = row.messages.clone();
            *messages.last_mut().unwrap() = Message::text("assistant", answer);
            all.push(Row { id: format!("garbage-{i}"), messages, ..row });
        }
    }
    let measured = all.clone();
    let mut question = Row { id: "question".into(), ..all[0].clone() };
    question.messages.pop();
    let mut broken = Row { id: "broken".into(), ..all[2].clone() };
    let mut bytes = broken.images[0].bytes("").unwrap().to_vec();
    let data = bytes.windows(4).position(|w| w == b"IDAT").unwrap() + 8;
    bytes[data] ^= 0xff;
    broken.images[0] = ImageSource::Bytes { bytes: bytes.into(), path: None };
    all.insert(5, broken);
    let [sft, rl] = ["sft.parquet", "rl.parquet"].map(|name| dir.join(name));
    write::write(&sft, &all, Form::Sft).unwrap();
    write::write(&rl, &[question], Form::Rl).unwrap();
    let stage = StageConfig { max_bad_rows: 0.2, ..reads(&[sft, rl]) };
    (FilterConfig { stage, model: Some(model), max_nll: Some(1.0), ..FilterConfig::default() }, measured)
}

/// Returns the val/loss of each row alone.
fn losses(model: &Path, rows: &[Row]) -> Vec<f64> {
    let config = ModelConfig::load(&model.join("config.json")).unwrap();
    let encoder = Encoder::load(model, &config.chat(), EncodingPurpose::Train, &ImageConfig::default()).unwrap();
    let mut dev = tiny::device(1);
    let model = Model::load(&mut dev, model, DType::F32).unwrap();
    let mut loss = |row: &Row| {
        let held = HeldOut::new(vec![row.clone()], encoder.clone(), &SftConfig::default()).unwrap();
        held.measure(&mut dev, &model, &mut OneRank::new(0, 1), &mut |_| ()).unwrap()
    };
    rows.iter().map(&mut loss).collect()
}

#[test]
fn unlikely_answers_are_rejected_with_their_val_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (config, measured) = set_up(dir.path());
    let out = dir.path().join("out");
    let (summary, _) = run(&config, &out, None).unwrap();
    let losses = losses(config.model.as_deref().unwrap(), &measured);
    let mut want = vec![];
    for (row, loss) in measured.iter().zip(losses) {
        assert_eq!(loss > 1.0, row.id.starts_with("garbage"), "{}: {loss}", row.id);
        if loss > 1.0 {
            want.push((row.id.clone(), "max_nll".to_owned(), format!("{loss} nats per token, at most 1")));
        }
    }
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let rejected = lines(&out.join("rejected.jsonl"));
    let found = rejected.iter().map(|line| (text(line, "id"), text(line, "reason"), text(line, "detail")));
    let (found, others): (Vec<_>, Vec<_>) = found.partition(|(_, reason, _)| reason == "max_nll");
    assert_eq!(found, want);
    let others: Vec<(&str, &str)> = others.iter().map(|(id, reason, _)| (&id[..], &reason[..])).collect();
    assert_eq!(others, [("broken", "broken_image"), ("question", "no_answer")]);
    assert_eq!((summary.kept, summary.rejected["max_nll"]), (rows(&out.join("sft.parquet")).len(), want.len()));
    assert_eq!(summary.kept + want.len(), measured.len());
}

#[test]
fn the_model_may_be_a_directory_with_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = set_up(dir.path());
    let mut sft = SftConfig { max_steps: Some(1), ..tiny::sft_config(dir.path()) };
    sft.optimizer.lora = Some(LoraConfig::default());
    tiny::run_sft(&dir.path().join("sft"), &sft, 1, &[]);
    let config = FilterConfig { model: Some(dir.path().join("sft/model")), ..config };
    assert!(run(&config, &dir.path().join("out"), None).unwrap().0.rejected["max_nll"] > 0);
}

#[test]
fn stopped_in_parts_and_on_one_thread_the_same_rows_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = set_up(dir.path());
    let [whole, stopped, parts, single] = ["whole", "stopped", "parts", "single"].map(|name| dir.path().join(name));
    let (summary, _) = run(&config, &whole, None).unwrap();
    assert!(matches!(observed(&config, &stopped, None, &Impatient::after(2)), Err(Error::Stopped)));
    assert_eq!(run(&config, &stopped, None).unwrap().0, summary);
    assert_eq!(in_parts(&config, &parts, 3), summary);
    let device = |plan: &_| Device::cpu(plan, 1, Isa::detect());
    let runtime = || Ok(super::runtime().handle().clone());
    let (target, place) = (Target::cpu(1), String::new());
    let means = Machine { target, threads: 1, place, device: &device, runtime: &runtime, observer: &Silent };
    assert_eq!(pipeline::run(&config, &single, None, &means).unwrap().0, summary);
    for other in [stopped, parts, single] {
        assert_eq!(files(&other), files(&whole), "{}", other.display());
    }
}

#[test]
fn a_limit_without_a_model_and_a_model_without_a_limit_are_refused() {
    let load = |keys: &[&str]| {
        config::load::<FilterConfig>(None, &keys.iter().map(ToString::to_string).collect::<Vec<_>>(), &|_| None)
    };
    assert!(refused(load(&["max_nll=2.5"])).contains("max_nll: found 2.5 without a model"));
    assert!(refused(load(&["min_tokens=7"])).contains("min_tokens: found 7 without a model"));
    let unused = refused(load(&["model=base", "min_pass_rate=0.5"]));
    assert!(unused.contains("model: found base, which no limit uses") && unused.contains("max_nll"), "{unused}");
    assert!(refused(load(&["model=base", "max_nll=0"])).contains("max_nll"));
    load(&["model=base", "max_nll=2"]).unwrap();
    let list = "stages=[{name: a, filter: {datasets: [a.parquet], max_nll: 2}}]";
    let refused = refused(config::load::<DataConfig>(None, &[list.to_owned()], &|_| None));
    assert!(refused.contains("stages.0.filter.max_nll"), "{refused}");
}
