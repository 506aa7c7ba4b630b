//! Tests of on-policy distillation.

use std::path::Path;

use omr_base::config::{DistillationConfig, LoraConfig, RlConfig, SftConfig};
use omr_base::observe::Silent;
use omr_data::reward::{Mode, Scorer};
use omr_runtime::device::{Device, Isa, Target};
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;

use crate::training::tiny::{Outcome, device, rl_config, run_rl, run_rl_over, run_sft, sft_config, training, with};

/// Returns a config in which the random model `base` learns from the tuned model alone.
fn config(dir: &Path) -> RlConfig {
    let (rl, base) = (rl_config(dir), sft_config(dir).model.unwrap());
    let teacher = DistillationConfig {
        teacher: rl.model.clone().unwrap(),
        use_task_rewards: false,
        ..DistillationConfig::default()
    };
    RlConfig {
        model: Some(base),
        distillation: Some(teacher),
        training: training(|training| training.gradient_lanes = Some(3)),
        ..rl
    }
}

#[test]
fn a_teacher_moves_its_student_with_the_same_bits_however_the_run_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let whole = run_rl(&dir.path().join("whole"), &config, 2, &[]);
    assert!(whole.figures("distillation/k1/mean").iter().all(|&k1| k1 > 0.0));
    assert!(whole.figures("actor/grad_norm").iter().all(|&norm| norm > 0.0));
    let stopped = run_rl_over(&dir.path().join("ranks"), &config, || device(1), &[2, 3], &[2]);
    whole.assert_same(&stopped, "two ranks, then three");
}

#[test]
fn a_student_without_a_score_is_not_said_to_learn_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(&config(dir.path()), |config| config.total_training_steps = Some(1));
    let out = dir.path().join("out");
    let (done, notes) = super::stopped::resume(&out, &config, u64::MAX);
    done.unwrap();
    assert_eq!(Outcome::of(&out).figures("critic/score/max"), [0.0]);
    assert!(!notes.contains("all scores are 0"), "{notes}");
}

#[test]
fn a_student_that_is_its_teacher_has_no_gradient() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(&config(dir.path()), |config| {
        config.model = Some(config.distillation.as_ref().unwrap().teacher.clone());
        config.total_training_steps = Some(2);
    });
    // The run takes exactly the memory that was planned with the teacher.
    let (out, scorer) = (dir.path().join("own"), std::sync::Arc::new(Scorer::rules(Mode::Strict)));
    let mut job = RlJob::new(&out, config, scorer).unwrap();
    let planned = job.plan(Target::cpu(1)).unwrap();
    job.run(&mut Device::cpu(&planned, 1, Isa::detect()).unwrap(), &Silent).unwrap();
    let run = Outcome::of(&out);
    assert_eq!(run.figures("distillation/k1/mean"), [0.0; 2]);
    assert_eq!(run.figures("actor/grad_norm"), [0.0; 2]);
}

#[test]
fn a_teacher_with_an_adapter_takes_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let mut sft = SftConfig { max_steps: Some(1), ..sft_config(dir.path()) };
    sft.optimizer.lora = Some(LoraConfig::default());
    run_sft(&dir.path().join("sft"), &sft, 1, &[]);
    let config = with(&config(dir.path()), |config| {
        config.distillation.as_mut().unwrap().teacher = dir.path().join("sft/model");
        config.total_training_steps = Some(1);
    });
    let scorer = std::sync::Arc::new(Scorer::rules(Mode::Strict));
    let mut job = RlJob::new(&dir.path().join("own"), config, scorer).unwrap();
    let planned = job.plan(Target::cpu(1)).unwrap();
    job.run(&mut Device::cpu(&planned, 1, Isa::detect()).unwrap(), &Silent).unwrap();
}

#[test]
fn a_teacher_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let scorer = std::sync::Arc::new(Scorer::rules(Mode::Strict));
    let message = |config: &RlConfig| {
        let made = RlJob::new(&dir.path().join("refused"), config.clone(), scorer.clone());
        made.err().expect("refused").to_string()
    };
    let own = config.distillation.clone().unwrap().teacher;
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    for file in std::fs::read_dir(&own).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, other.join(file.file_name().unwrap())).unwrap();
    }
    let of =
        |teacher: &Path| with(&config, |config| config.distillation.as_mut().unwrap().teacher = teacher.to_owned());
    let change = |file: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::from_slice(&std::fs::read(own.join(file)).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(other.join(file), value.to_string()).unwrap();
    };
    change("preprocessor_config.json", &|images| images["image_mean"] = serde_json::json!([0.5, 0.5, 0.5]));
    let error = message(&of(&other));
    assert!(error.contains("distillation.teacher") && error.contains("preprocessor_config.json"), "{error}");
    change("tokenizer.json", &|tokenizer| {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let id = vocab.remove("!").unwrap();
        vocab.insert("another".to_owned(), id);
    });
    let error = message(&of(&other));
    assert!(error.contains("tokenizer.json") && error.contains("another"), "{error}");
    let error = message(&of(&dir.path().join("missing")));
    assert!(error.contains("missing/config.json"), "{error}");
}

#[test]
fn another_teacher_is_noticed_when_a_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(&config(dir.path()), |config| config.total_training_steps = Some(1));
    let out = dir.path().join("out");
    run_rl(&out, &config, 1, &[]);
    let file = config.distillation.as_ref().unwrap().teacher.join("model.safetensors");
    let mut weights = std::fs::read(&file).unwrap();
    let last = weights.len() - 1;
    weights[last] ^= 1;
    std::fs::write(&file, weights).unwrap();
    let more = with(&config, |config| config.total_training_steps = Some(2));
    let (error, _) = super::stopped::resume(&out, &more, u64::MAX);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("teacher"), "{error}");
}
