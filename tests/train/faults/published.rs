//! Tests cases that were once wrong in the comparison page and in training: the scale of bars, messages about bad rows,
//! updates with values that are not finite, weight decay, and the divisor of Dr. GRPO.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use omr_base::config::{LossAggMode, LossMode, LrSchedulerType, OptimConfig, RlConfig, SftConfig, TrainingConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::Silent;
use omr_data::reward::{Mode, Scorer};
use omr_data::rows::{Form, Row, read, write};
use omr_data::text::Message;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::{metrics, sft};

use crate::training::tiny::{self, Outcome, device, rl_config, run_rl, run_sft, run_sft_over, sft_config};

/// Returns a question without an image, with its answer.
fn plain(i: usize) -> Row {
    let messages = vec![Message::text("user", format!("{i} + 1?")), Message::text("assistant", (i + 1).to_string())];
    Row { id: i.to_string(), messages, ..Row::default() }
}

/// Returns two configs. The first has six updates of four rows, and its second, fourth and fifth updates have images,
/// for which the model computes infinite values. The second config has only the other rows.
fn poisoned(dir: &Path) -> [SftConfig; 2] {
    let config = sft_config(dir);
    let path = config.model.as_ref().unwrap().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let head = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..head]).unwrap();
    let at = &header["visual.patch_embed.proj.weight"]["data_offsets"];
    let [from, to] = [0, 1].map(|end| head + at[end].as_u64().unwrap() as usize);
    bytes[from..to].chunks_exact_mut(4).for_each(|weight| weight.copy_from_slice(&3e38f32.to_le_bytes()));
    fs::write(path, bytes).unwrap();

    let (with_images, plain): (Vec<Row>, Vec<Row>) = (tiny::rows(), (0..12).map(plain).collect());
    let turns: [&[Row]; 6] =
        [&plain[..4], &with_images[..4], &plain[4..8], &with_images[4..8], &with_images[8..], &plain[8..]];
    let rows = |name: &str, rows: &[Row]| {
        write::write(&dir.join(name), rows, Form::Sft).unwrap();
        vec![read::entry(dir.join(name))]
    };
    let optimizer = OptimConfig { lr_scheduler_type: LrSchedulerType::Constant, ..config.optimizer.clone() };
    let config = SftConfig {
        shuffle: false,
        warmup_steps: Some(0),
        optimizer,
        max_steps: Some(6),
        datasets: rows("all.parquet", &turns.concat()),
        training: TrainingConfig { gradient_lanes: Some(2), ..config.training.clone() },
        ..config
    };
    let sound = SftConfig { max_steps: Some(3), datasets: rows("sound.parquet", &plain), ..config.clone() };
    [config, sound]
}

/// Returns the weights and the optimizer state that a run wrote.
fn learned(outcome: &Outcome) -> Vec<&Vec<u8>> {
    let is_learned = |name: &str| name.ends_with("model.safetensors") || name.contains("/optim-");
    outcome.files.iter().filter(|(name, _)| is_learned(name)).map(|(_, bytes)| bytes).collect()
}

#[test]
fn an_update_that_is_not_finite_is_skipped_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let [config, sound] = poisoned(dir.path());
    let out = |name: &str| dir.path().join(name);
    let whole = run_sft(&out("whole"), &config, 1, &[]);
    assert_eq!(whole.figures("training/skipped_updates"), [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    let sound = run_sft(&out("sound"), &sound, 1, &[]);
    assert!(learned(&sound).len() >= 3 && learned(&whole) == learned(&sound));
    whole.assert_same(&run_sft(&out("stopped"), &config, 2, &[4]), "stopped among skipped updates");
    whole.assert_same(&run_sft_over(&out("ranks"), &config, || device(1), &[2], &[]), "two ranks");
}

#[test]
fn more_skipped_updates_in_a_row_than_allowed_end_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let [config, _] = poisoned(dir.path());
    let run = |out: &str, max_steps, max_skipped_updates| -> Result<()> {
        let optimizer = OptimConfig { max_skipped_updates, ..config.optimizer.clone() };
        let config = SftConfig { max_steps: Some(max_steps), optimizer, ..config.clone() };
        sft::SftJob::new(&dir.path().join(out), config)?.run(&mut device(1), &Silent)
    };
    let ended = |done: Result<()>| match done {
        Err(Error::NonFinite { step, what }) => (step, what),
        other => panic!("{other:?}"),
    };
    assert_eq!(ended(run("none", 6, 0)), (2, "the loss".to_owned()));
    assert_eq!(ended(run("one", 6, 1)), (5, "the loss".to_owned()));
    // A checkpoint records how many earlier updates were skipped.
    run("resumed", 4, 1).unwrap();
    assert_eq!(ended(run("resumed", 6, 1)).0, 5);
    // A model that most steps did not change is no result.
    let [config, _] = poisoned(&dir.path().join("result"));
    let optimizer = OptimConfig { learning_rate: 1e30, ..config.optimizer.clone() };
    let config = SftConfig { optimizer, ..config };
    let out = dir.path().join("useless");
    let error = sft::SftJob::new(&out, config).unwrap().run(&mut device(1), &Silent).unwrap_err().to_string();
    assert!(error.contains("of 6 steps skipped updates") && !out.join("summary.json").exists(), "{error}");

    let entropy_coeff = 1e300;
    let optimizer = OptimConfig { max_skipped_updates: 1, ..rl_config(dir.path()).optimizer };
    let config = RlConfig { entropy_coeff, optimizer, ..rl_config(dir.path()) };
    let rl = dir.path().join("rl");
    let job = omr_train::rl::run::RlJob::new(&rl, config, Arc::new(Scorer::rules(Mode::Strict))).unwrap();
    assert_eq!(ended(job.run(&mut device(1), &Silent)), (2, "the gradient norm".to_owned()));
    let log = metrics::read(&rl.join("metrics.jsonl")).unwrap();
    assert!(log.len() == 1 && log[0]["training/skipped_updates"] == 1.0, "{log:?}");
}

#[test]
fn norms_and_biases_decay_where_the_key_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let [on, off] = [true, false].map(|decay_norms_and_biases| {
        let base = sft_config(dir.path());
        let optimizer = OptimConfig { weight_decay: 0.5, decay_norms_and_biases, ..base.optimizer };
        let config = SftConfig { max_steps: Some(1), warmup_steps: Some(0), optimizer, ..base };
        let out = dir.path().join(decay_norms_and_biases.to_string());
        run_sft(&out, &config, 1, &[]);
        fs::read(out.join("model/model.safetensors")).unwrap()
    });
    let [on, off] = [&on, &off].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    for (name, tensor) in on.tensors() {
        let same = tensor.data() == off.tensor(&name).unwrap().data();
        // A bias that starts as 0 does not decay.
        assert!(same || tensor.shape().len() == 1, "{name}");
        assert!(!(same && name.ends_with("norm.weight")), "{name}");
    }
}

#[test]
fn dr_grpo_divides_by_responses_and_the_longest_there_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let base = RlConfig {
        total_training_steps: Some(1),
        loss_mode: LossMode::Vanilla,
        norm_adv_by_std_in_grpo: false,
        ..rl_config(dir.path())
    };
    let [norm, sum] = [LossAggMode::SeqMeanTokenSumNorm, LossAggMode::SeqMeanTokenSum].map(|loss_agg_mode| {
        let config = RlConfig { loss_agg_mode, ..base.clone() };
        let run = run_rl(&dir.path().join(loss_agg_mode.name()), &config, 1, &[]);
        [run.figures("actor/grad_norm")[0], run.figures("actor/entropy")[0]]
    });
    for (norm, sum) in norm.into_iter().zip(sum) {
        let ratio = norm * base.max_response_length as f64 / sum;
        assert!(sum > 0.0 && (ratio - 1.0).abs() < 1e-4, "{ratio}");
    }
}
