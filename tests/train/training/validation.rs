//! Tests the validation loss, early stopping and the final model of the best checkpoint.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use omr_base::config::{LrSchedulerType, SftConfig, TrainingConfig, ValidationConfig};
use omr_base::error::Error;
use omr_data::rows::{Form, Row, read, write};
use omr_data::text::Message;
use omr_model::nn::{LayerPolicy, Model, Policy};
use omr_model_tests::models::encoder;
use omr_runtime::tensor::DType;
use omr_train::eval::validation;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::sft::SftJob;
use omr_train::training::step;

use super::tiny::{Notes, device, files, rows, run_sft, run_sft_over, sft_config, tuned_model};

const LOSS: &str = "val/loss";

/// Returns the loss of the model in `dir` on `rows`, each in a forward of its own.
fn loss_by_hand(dir: &Path, rows: &[Row]) -> f64 {
    let mut dev = device(1);
    let model = Model::load(&mut dev, dir, DType::F32).unwrap();
    let encoder = encoder(dir, omr_data::rows::samples::encoder::EncodingPurpose::Train);
    let (mut sum, mut targets) = (0.0, 0);
    for row in rows {
        let (sample, _) = encoder.sample(row).map_err(Error::from).unwrap();
        let batch = [(&sample).into()];
        let forward = step::forward(&mut dev, &model, &batch, Policy::default(), LayerPolicy::All, false).unwrap();
        let log_prob = dev.read::<f32>(forward.log_prob).unwrap();
        sum += log_prob.iter().map(|&p| f64::from(p)).sum::<f64>();
        targets += log_prob.len();
        forward.discard(&mut dev);
    }
    -sum / targets as f64
}

/// Returns a config that trains a model that answers [`rows`] well on wrong answers to them, and validates on the right
/// ones after each update.
fn getting_worse(dir: &Path) -> SftConfig {
    let config = sft_config(dir);
    tuned_model(&dir.join("tuned"));
    let mut wrong = rows();
    for row in &mut wrong {
        row.messages.pop();
        row.messages.push(Message::text("assistant", "<think>No.</think><answer>none</answer>".to_owned()));
    }
    write::write(&dir.join("wrong.parquet"), &wrong, Form::Sft).unwrap();
    let validation = ValidationConfig {
        val_files: config.datasets.clone(),
        early_stopping_patience: Some(2),
        load_best_model_at_end: true,
        ..ValidationConfig::default()
    };
    let mut config = SftConfig {
        model: Some(dir.join("tuned")),
        datasets: vec![read::entry(dir.join("wrong.parquet"))],
        eval_steps: Some(1),
        warmup_steps: Some(0),
        save_steps: Some(1),
        validation,
        training: TrainingConfig { gradient_lanes: Some(2), save_total_limit: Some(1), ..config.training.clone() },
        ..config
    };
    config.optimizer.lr_scheduler_type = LrSchedulerType::Constant;
    config
}

#[test]
fn the_validation_loss_is_a_forward_over_the_same_rows_for_any_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    // With 100 tokens, a micro-batch has one or two rows, so that each of four ranks has some.
    let config = SftConfig {
        max_steps: Some(2),
        packing_length: 100,
        micro_batch_tokens: 100.into(),
        eval_steps: Some(1),
        save_steps: Some(1),
        validation: ValidationConfig { val_files: config.datasets.clone(), ..ValidationConfig::default() },
        training: TrainingConfig { gradient_lanes: Some(4), ..config.training.clone() },
        ..config
    };
    let out = dir.path().join("one");
    let one = run_sft(&out, &config, 2, &[]);
    let losses = one.figures(LOSS);
    let models = [dir.path().join("base"), out.join("checkpoints/global_step_1"), out.join("model")];
    let own = read::read(&config.datasets[0]).unwrap();
    for (loss, model) in losses.iter().zip(&models) {
        let by_hand = loss_by_hand(model, &own);
        assert_eq!(loss.to_bits(), by_hand.to_bits(), "{loss} {by_hand}");
    }
    assert!(losses.len() == 3 && losses[2] < losses[0], "{losses:?}");
    assert!(one.metrics.iter().all(|m| !m.keys().any(|name| name.starts_with("val-"))), "no answer was generated");
    for size in [2, 4] {
        let over = run_sft_over(&dir.path().join(size.to_string()), &config, || device(1), &[size], &[]);
        one.assert_same(&over, &format!("{size} ranks"));
    }
    let wide = SftConfig { micro_batch_tokens: 1000.into(), packing_length: 1000, ..config };
    assert_eq!(run_sft(&dir.path().join("wide"), &wide, 1, &[]).figures(LOSS)[0], losses[0], "another cut");
}

#[test]
fn rows_of_questions_with_answers_give_the_same_loss_as_conversations() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let turn = |role: &str, text: &str| format!(r#"{{"role": "{role}", "content": "{text}"}}"#);
    let messages = format!(r#"{{"messages": [{}, {}]}}"#, turn("user", "Add 2 and 3."), turn("assistant", "5"));
    let first = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let validation = ValidationConfig { val_files: vec![read::entry(&path)], ..ValidationConfig::default() };
        let config = SftConfig { max_steps: Some(1), eval_steps: Some(1), validation, ..config.clone() };
        run_sft(&dir.path().join(name).with_extension(""), &config, 1, &[]).figures(LOSS)[0]
    };
    let loss = first("questions.jsonl", r#"{"question": "Add 2 and 3.", "answer": "5"}"#);
    assert!(loss > 0.0 && loss.to_bits() == first("messages.jsonl", &messages).to_bits(), "{loss}");
}

#[test]
fn split_off_rows_are_not_trained_on_and_do_not_depend_on_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let mut turned = rows();
    turned.reverse();
    turned.iter_mut().enumerate().for_each(|(i, row)| row.id = i.to_string());
    write::write(&dir.path().join("turned.parquet"), &turned, Form::Sft).unwrap();
    let validation = ValidationConfig { val_size: Some(0.25), ..ValidationConfig::default() };
    let config = SftConfig { eval_steps: Some(4), save_steps: Some(4), validation, ..config };
    let labels = |rows: &[Row]| -> BTreeSet<Vec<u8>> {
        rows.iter().map(|row| row.images[0].bytes(&row.place).unwrap().to_vec()).collect()
    };
    let job = SftJob::new(&dir.path().join("a"), config.clone()).unwrap();
    assert_eq!((job.common.held_out.len(), job.common.index.len()), (3, 9));
    let held = labels(&job.common.held_out);
    let trained = (0..9).map(|i| job.common.data.row(i).1).collect::<BTreeSet<u32>>();
    let all = rows();
    let trained: Vec<Row> = trained.into_iter().map(|i| all[i as usize].clone()).collect();
    assert!(trained.len() == 9 && labels(&trained).is_disjoint(&held), "no row is on both sides");

    let other = SftConfig { datasets: vec![read::entry(dir.path().join("turned.parquet"))], seed: 7, ..config.clone() };
    assert_eq!(labels(&SftJob::new(&dir.path().join("b"), other).unwrap().common.held_out), held);
    let count = ValidationConfig { val_size: Some(3.0), ..ValidationConfig::default() };
    let other = SftConfig { validation: count, ..config.clone() };
    assert_eq!(labels(&SftJob::new(&dir.path().join("c"), other).unwrap().common.held_out), held);

    let whole = run_sft(&dir.path().join("whole"), &config, 1, &[]);
    whole.assert_same(&run_sft(&dir.path().join("stopped"), &config, 2, &[3, 5]), "stopped twice");
    let by_hand = loss_by_hand(&dir.path().join("whole/model"), &job.common.held_out);
    assert_eq!(whole.metrics.last().unwrap()[LOSS], by_hand);
}

#[test]
fn a_run_that_gets_worse_ends_early_with_the_best_model() {
    let dir = tempfile::tempdir().unwrap();
    let config = getting_worse(dir.path());
    let out = dir.path().join("whole");
    let whole = run_sft(&out, &config, 1, &[]);
    let losses = whole.figures(LOSS);
    assert!(losses.len() == 4 && losses[1..].is_sorted(), "step 0, the best step and two worse ones: {losses:?}");
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(
        (&summary["steps"], &summary["best_global_step"], &summary["model_global_step"]),
        (&3.into(), &1.into(), &1.into())
    );
    assert_eq!(summary["metric_for_best_model"], LOSS);
    assert_eq!(fs::read_to_string(out.join("best")).unwrap(), "global_step_1\n");
    let (model, best) = (files(&out.join("model")), files(&out.join("checkpoints/global_step_1")));
    let last = files(&out.join("checkpoints/global_step_3"));
    let weights = "model.safetensors";
    assert!(model[weights] == best[weights] && model[weights] != last[weights]);
    assert!(SftJob::new(&out, config.clone()).is_ok_and(|job| finished(job, &config)), "nothing is left to do");

    // The state survives a stop after each step, and a kill after the last one.
    let stopped = dir.path().join("stopped");
    whole.assert_same(&run_sft(&stopped, &config, 1, &[1, 2]), "stopped twice");
    fs::remove_dir_all(stopped.join("model")).unwrap();
    fs::remove_file(stopped.join("summary.json")).unwrap();
    whole.assert_same(&run_sft(&stopped, &config, 1, &[]), "killed before the model was written");
    let over = run_sft_over(&dir.path().join("over"), &config, || device(1), &[2], &[]);
    whole.assert_same(&over, "two ranks");

    // With more patience, the same run continues; its last model is not the best one.
    let mut patient = config.clone();
    patient.validation.early_stopping_patience = Some(4);
    assert!(SftJob::new(&out, patient.clone()).is_ok_and(|job| !finished(job, &patient)));
    let longer = run_sft(&out, &patient, 1, &[]);
    assert_eq!(longer.metrics.len(), 6, "{:?}", longer.figures(LOSS));
    let plain =
        ValidationConfig { early_stopping_patience: None, load_best_model_at_end: false, ..config.validation.clone() };
    let plain = SftConfig { validation: ValidationConfig { metric_for_best_model: None, ..plain }, ..config };
    let plain = run_sft(&dir.path().join("plain"), &plain, 1, &[]);
    assert_eq!(plain.metrics.len(), 9);
    assert_eq!(plain.figures(LOSS)[..4], losses, "the rule changes no weights");
}

#[test]
fn a_run_whose_best_checkpoint_is_gone_takes_the_best_of_the_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (config, out) = (getting_worse(dir.path()), dir.path().join("run"));
    run_sft(&out, &SftConfig { max_steps: Some(2), ..config.clone() }, 1, &[]);
    assert_eq!(fs::read_to_string(out.join("best")).unwrap(), "global_step_1\n");
    fs::remove_dir_all(out.join("checkpoints/global_step_1")).unwrap();
    run_sft(&out, &config, 1, &[]);
    assert_eq!(fs::read_to_string(out.join("best")).unwrap(), "global_step_3\n");
    assert_eq!(
        files(&out.join("model"))["model.safetensors"],
        files(&out.join("checkpoints/global_step_3"))["model.safetensors"]
    );
}

/// Returns true if nothing of the run is left to do.
fn finished(mut job: SftJob, config: &SftConfig) -> bool {
    job.common.validation = validation::sft(config, &job.common, None).unwrap();
    job.is_finished()
}

#[test]
fn rows_with_answers_are_answered_only_on_request_and_with_a_bound_from_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { max_steps: Some(1), eval_steps: Some(1), ..sft_config(dir.path()) };
    let mut validation = ValidationConfig { val_size: Some(2.0), predict_with_generate: true, ..Default::default() };
    let with = SftConfig { validation: validation.clone(), ..config.clone() };
    let run = run_sft(&dir.path().join("with"), &with, 1, &[]);
    let source = &rows()[0].data_source;
    let score = format!("val-core/{source}/acc/mean@1");
    assert!(run.metrics.iter().all(|m| m.contains_key(LOSS) && m.contains_key(&score)), "{:?}", run.metrics[0].keys());
    // Without a bound of the user's, an answer has at most twice as many tokens as the longest answer to train on.
    let job = SftJob::new(&dir.path().join("with"), with.clone()).unwrap();
    let longest = job.common.index.shapes().map(|shape| shape.targets).max().unwrap();
    let lengths = run.figures(&format!("val-aux/{source}/response_length/mean"));
    assert!(longest < 100 && lengths[0] <= 2.0 * longest as f64, "{longest} {lengths:?}");
    let describe = |config: &SftConfig| validation::sft(config, &job.common, None).unwrap().unwrap().describe();
    let bound =
        format!("validation every 1 steps: val/loss of 2 rows; an answer of at most {} tokens to 2", 2 * longest);
    assert!(describe(&with).starts_with(&bound), "{}", describe(&with));
    validation.predict_with_generate = false;
    let every = SftConfig { validation, ..config };
    assert_eq!(describe(&every), "validation every 1 steps: val/loss of 2 rows");
    let once = "validation before the first step only, because test_freq or eval_steps is not set: val/loss of 2 rows";
    assert_eq!(describe(&SftConfig { eval_steps: None, ..every }), once);
}

#[test]
fn the_time_of_a_validation_is_told_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let validation = ValidationConfig {
        val_size: Some(3.0),
        predict_with_generate: true,
        val_before_train: false,
        ..ValidationConfig::default()
    };
    let config = SftConfig { max_steps: Some(3), eval_steps: Some(2), validation, ..sft_config(dir.path()) };
    let mut job = SftJob::new(&dir.path().join("out"), config.clone()).unwrap();
    job.common.validation = validation::sft(&config, &job.common, None).unwrap();
    let notes = Notes::default();
    job.run(&mut device(1), &notes).unwrap();
    let notes = notes.0.into_inner().unwrap();
    let at = |part: &str| notes.iter().position(|note| note.starts_with(part)).unwrap_or_else(|| panic!("{notes:#?}"));
    // Both validations of the untrained model find responses without an answer.
    assert_eq!(notes.iter().filter(|note| note.starts_with("validation: ")).count(), 1, "{notes:#?}");
    assert!(notes[at("validation: ")].contains(" responses have no answer that the scorer reads, such as "));
    let told = &notes[at("expected time of a validation: val/loss of 3 rows about ")];
    assert!(told.ends_with(" s)") && told.contains("(2 validations, "), "{told}");
    assert!(at("expected time") < at("step 2: val/loss ") && at("step 2: ") < at("step 3: "), "{notes:#?}");
}
