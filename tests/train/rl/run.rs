//! Tests the complete RL loop: on policy, the sampler and the trainer agree bit for bit. A stopped run continues as if
//! it had not been stopped. Every mode makes its steps.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt32Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use omr_base::config::rl::{FilterGroupsConfig, OverlongBufferConfig};
use omr_base::config::{
    Curriculum, Dtype, FilterMetric, KlCtrlConfig, KlCtrlType, KlLossType, LossAggMode, LossMode, OptimConfig, RlConfig,
};
use omr_base::config::{RolloutConfig, TrainingConfig};
use omr_data::reward::{Mode, Scorer};
use omr_data::rows::{Form, read, write};
use omr_runtime::device::{Device, Isa, Plan};
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::training::tiny::{self, Outcome, device, rl_config, run_rl, run_rl_on, run_rl_over, training};

fn rollouts(dir: &Path, step: usize) -> RecordBatch {
    let file = File::open(dir.join(format!("rollouts/{step}.parquet"))).unwrap();
    let batches: Vec<_> = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().collect();
    assert_eq!(batches.len(), 1);
    batches.into_iter().next().unwrap().unwrap()
}

fn reals(batch: &RecordBatch, name: &str) -> Vec<f64> {
    batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Asserts that the trainer's log-probs equal the sampler's before the first update of a batch
/// (`docs/dev/design/training.md`).
fn assert_no_difference(run: &Outcome) {
    for name in ["training/rollout_probs_diff_max", "training/rollout_log_probs_diff_max"] {
        assert!(run.figures(name).iter().all(|&d| d == 0.0), "{name}: {:?}", run.figures(name));
    }
}

fn assert_on_policy(run: &Outcome) {
    assert_no_difference(run);
    for (name, value) in
        [("actor/ratio_min", 1.0), ("actor/ratio_max", 1.0), ("actor/pg_clipfrac", 0.0), ("actor/ppo_kl", 0.0)]
    {
        assert!(run.figures(name).iter().all(|&d| d == value), "{name}: {:?}", run.figures(name));
    }
}

#[test]
fn by_tiles_too_the_ratio_is_one_and_threads_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = RlConfig { dtype: Dtype::Bf16, total_training_steps: Some(2), ..rl_config(dir.path()) };
    let [one, five] = [1, 5].map(|threads| {
        let device = || Device::cpu(&Plan::uniform(256 << 20), threads, Isa::AmxTwin).unwrap();
        run_rl_on(&dir.path().join(threads.to_string()), &config, device, &[])
    });
    assert_on_policy(&one);
    one.assert_same(&five, "five threads");
}

#[test]
fn on_policy_the_ratio_is_one_and_a_stopped_run_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let config = RlConfig { dtype, ..rl_config(dir.path()) };
        let out = |name: &str| dir.path().join(dtype.name()).join(name);
        let whole = run_rl(&out("whole"), &config, 1, &[]);
        assert_eq!(whole.figures("step"), [1.0, 2.0, 3.0, 4.0]);
        assert_on_policy(&whole);
        assert!(whole.figures("actor/grad_norm").iter().any(|&n| n > 0.0), "rewards that never differ test nothing");
        let often = RlConfig {
            save_freq: Some(1),
            training: TrainingConfig { save_total_limit: Some(2), ..config.training.clone() },
            ..config.clone()
        };
        whole.assert_same(&run_rl(&out("stopped"), &often, 2, &[1, 3]), "stopped twice, two threads, more checkpoints");
        // The engine's limits do not change any bit.
        let rollout = RolloutConfig {
            max_num_seqs: 64,
            max_num_batched_tokens: 33,
            enable_prefix_caching: false,
            ..config.rollout.clone()
        };
        whole.assert_same(&run_rl(&out("engine"), &RlConfig { rollout, ..config }, 2, &[]), "other engine limits");
    }
}

#[test]
fn rollouts_are_dumped_as_they_were_rewarded() {
    let dir = tempfile::tempdir().unwrap();
    let config = RlConfig { total_training_steps: Some(2), ..rl_config(dir.path()) };
    let out = dir.path().join("out");
    let run = run_rl(&out, &config, 2, &[]);
    for step in 1..=2 {
        let batch = rollouts(&out, step);
        assert_eq!(batch.num_rows(), 16);
        let names: Vec<String> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names[..5], ["input", "output", "gts", "score", "step"]);
        assert!(batch.columns().iter().all(|c| c.null_count() == 0));
        assert_eq!(batch.column(4).data_type(), &DataType::UInt64);
        let at = |name: &str| run.figures(name)[step - 1];
        assert!((mean(&reals(&batch, "reward")) - at("critic/rewards/mean")).abs() < 1e-12);
        assert!((mean(&reals(&batch, "score")) - at("critic/score/mean")).abs() < 1e-12);
        assert!((mean(&reals(&batch, "acc_score")) - at("critic/score/acc_score/mean")).abs() < 1e-12);
        let inputs = batch.column_by_name("input").unwrap().as_string::<i32>();
        assert!(inputs.iter().all(|i| i.unwrap().contains("<|im_start|>assistant\n")));
        // The advantages of a group have a mean of zero.
        let mut groups: BTreeMap<String, f64> = BTreeMap::new();
        let ids = batch.column_by_name("id").unwrap().as_string::<i32>();
        for (id, advantage) in ids.iter().zip(reals(&batch, "advantage")) {
            *groups.entry(id.unwrap().to_owned()).or_default() += advantage;
        }
        assert_eq!(groups.len(), 4);
        assert!(groups.values().all(|sum| sum.abs() < 1e-6), "{groups:?}");
    }
}

#[test]
fn the_second_mini_batch_of_a_step_is_off_policy() {
    let dir = tempfile::tempdir().unwrap();
    let config = RlConfig { ppo_mini_batch_size: 2, total_training_steps: Some(3), ..rl_config(dir.path()) };
    let run = run_rl(&dir.path().join("halves"), &config, 1, &[]);
    assert_no_difference(&run);
    let (low, high) = (run.figures("actor/ratio_min"), run.figures("actor/ratio_max"));
    println!("ratios {low:?} to {high:?}");
    assert!(low.iter().zip(&high).all(|(&low, &high)| low < 1.0 || high > 1.0));
    let twice = RlConfig { ppo_epochs: 2, ppo_mini_batch_size: 4, ..config };
    let run = run_rl(&dir.path().join("twice"), &twice, 1, &[]);
    assert_no_difference(&run);
    assert!(run.figures("actor/ratio_max").iter().any(|&ratio| ratio != 1.0));
}

#[test]
fn micro_batches_change_no_step() {
    let dir = tempfile::tempdir().unwrap();
    let config = RlConfig { total_training_steps: Some(1), ..rl_config(dir.path()) };
    let runs = [90, 4096].map(|micro_batch_tokens| {
        let config = RlConfig { micro_batch_tokens, ..config.clone() };
        run_rl(&dir.path().join(micro_batch_tokens.to_string()), &config, 1, &[])
    });
    for name in ["actor/pg_loss", "actor/entropy", "actor/grad_norm", "critic/rewards/mean"] {
        let [a, b] = [&runs[0], &runs[1]].map(|run| run.figures(name)[0]);
        // The f32 sums run over the tokens of one or of many micro-batches.
        assert!((a - b).abs() <= 1e-5 * b.abs() + 1e-12, "{name}: {a} is not {b}");
    }
}

#[test]
fn a_divergence_in_the_reward_is_taken_off_and_its_weight_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let kl_ctrl = KlCtrlConfig { r#type: KlCtrlType::Adaptive, kl_coef: 0.5, horizon: 64.0, target_kl: 1e-4 };
    let config = RlConfig {
        use_kl_in_reward: true,
        kl_penalty: KlLossType::LowVarKl,
        kl_ctrl: kl_ctrl.clone(),
        save_freq: Some(1),
        training: training(|t| t.gradient_lanes = Some(2)),
        ..rl_config(dir.path())
    };
    let out = |name: &str| dir.path().join(name);
    let whole = run_rl(&out("whole"), &config, 1, &[]);
    let (kl, coef) = (whole.figures("actor/reward_kl_penalty"), whole.figures("actor/reward_kl_penalty_coeff"));
    let (score, reward) = (whole.figures("critic/score/mean"), whole.figures("critic/rewards/mean"));
    // The policy of the first step is the reference. k3 is never negative.
    assert!(kl[0] == 0.0 && score[0] == reward[0] && coef[0] == 0.5, "{kl:?} {coef:?}");
    assert!(kl[1..].iter().all(|&kl| kl > 0.0), "{kl:?}");
    for step in 1..4 {
        assert!(reward[step] < score[step], "{reward:?} {score:?}");
        // verl's controller after a step of 16 responses.
        let error = (kl[step - 1] / kl_ctrl.target_kl - 1.0).clamp(-0.2, 0.2);
        let moved = coef[step - 1] * (1.0 + error * 16.0 / kl_ctrl.horizon);
        assert!((coef[step] - moved).abs() <= 1e-15, "{coef:?}");
    }
    let steps = tiny::Step::all(&out("whole"));
    assert!(steps.iter().all(|step| step.spans("exchange").is_empty() && !step.spans("reference").is_empty()));
    // The checkpoint of a step is saved before the next step begins.
    assert!(steps[0].spans("checkpoint").is_empty());
    assert!(steps[1..].iter().all(|step| matches!(&step.spans("checkpoint")[..], [saved] if saved.start < 0.0)));
    whole.assert_same(&run_rl(&out("stopped"), &config, 2, &[2]), "stopped after two steps");
    let ranks = run_rl_over(&out("ranks"), &config, || device(1), &[2], &[]);
    whole.assert_same(&ranks, "over two ranks");
    assert!(tiny::Step::all(&out("ranks")).iter().all(|step| !step.spans("exchange").is_empty()));
}

#[test]
fn a_curriculum_asks_by_average_reward() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = tiny::rows();
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let data = dir.path().join("rated.parquet");
    // Pass rates in twelfths: 5, 0, 7, 2, ...
    rows.iter_mut().enumerate().for_each(|(i, row)| {
        row.extra.insert("avg_reward".to_owned(), (((i * 7 + 5) % 12) as f64 / 12.0).into());
    });
    write::write(&data, &rows, Form::Rl).unwrap();
    for (curriculum, most) in [(Curriculum::EasyFirst, true), (Curriculum::HardFirst, false)] {
        let config = RlConfig {
            curriculum,
            train_files: vec![read::entry(&data)],
            total_training_steps: Some(1),
            ..rl_config(dir.path())
        };
        let out = dir.path().join(curriculum.name());
        run_rl(&out, &config, 1, &[]);
        let batch = rollouts(&out, 1);
        let asked = batch.column_by_name("id").unwrap().as_string::<i32>();
        let asked: Vec<&str> = asked.iter().step_by(4).flatten().collect();
        let place = |rank: usize| ids[(0..12).find(|i| (i * 7 + 5) % 12 == rank).unwrap()].as_str();
        let wanted = [0, 1, 2, 3].map(|k| place(if most { 11 - k } else { k }));
        assert_eq!(asked, wanted, "{curriculum:?}");
    }
    let unrated = RlConfig { curriculum: Curriculum::EasyFirst, ..rl_config(dir.path()) };
    let scorer = std::sync::Arc::new(omr_data::reward::Scorer::rules(omr_data::reward::Mode::Strict));
    let error = omr_train::rl::run::RlJob::new(&dir.path().join("unrated"), unrated, scorer).err().unwrap().to_string();
    assert!(error.contains("rl.parquet row 1") && error.contains("avg_reward"), "{error}");
}

#[test]
fn every_mode_makes_its_steps() {
    let dir = tempfile::tempdir().unwrap();
    let base = RlConfig { total_training_steps: Some(2), ..rl_config(dir.path()) };
    let grpo = RlConfig { loss_mode: LossMode::Vanilla, clip_ratio_low: 0.2, clip_ratio_high: 0.2, ..base.clone() };
    let filter_groups = FilterGroupsConfig { enable: true, metric: FilterMetric::Acc, max_num_gen_batches: 0 };
    let overlong_buffer = OverlongBufferConfig { enable: true, len: 20, penalty_factor: 0.5 };
    let dapo = RlConfig {
        clip_ratio_high: 0.28,
        loss_agg_mode: LossAggMode::TokenMean,
        filter_groups,
        overlong_buffer,
        ..grpo.clone()
    };
    let sum = LossAggMode::SeqMeanTokenSum;
    let norm = LossAggMode::SeqMeanTokenSumNorm;
    let modes = [
        ("grpo", grpo.clone()),
        ("dr_grpo", RlConfig { loss_agg_mode: norm, norm_adv_by_std_in_grpo: false, ..grpo.clone() }),
        ("dapo", dapo),
        ("gspo-entropy", RlConfig { entropy_coeff: 0.01, ..base.clone() }),
        ("gspo-kl", RlConfig { use_kl_loss: true, kl_loss_coef: 0.1, ..base.clone() }),
        ("grpo-k1", RlConfig { use_kl_loss: true, kl_loss_type: KlLossType::Kl, loss_agg_mode: sum, ..grpo.clone() }),
        ("grpo-k2", RlConfig { use_kl_loss: true, kl_loss_type: KlLossType::Mse, ..grpo }),
        ("bf16-kl", RlConfig { use_kl_loss: true, dtype: Dtype::Bf16, entropy_coeff: 0.01, ..base }),
    ];
    for (name, config) in modes {
        let out = dir.path().join(name);
        let run = run_rl(&out, &config, 2, &[]);
        assert_on_policy(&run);
        assert!(run.figures("actor/grad_norm").iter().any(|&n| n > 0.0), "{name}");
        assert!(run.figures("actor/entropy").iter().all(|&e| e > 0.0), "{name}");
        if config.use_kl_loss {
            // The first step starts from the reference itself.
            let kl = run.figures("actor/kl_loss");
            assert!(kl[0] == 0.0 && kl[1] != 0.0, "{name}: {kl:?}");
        }
        if config.filter_groups.enable {
            for step in 1..=2 {
                let acc = reals(&rollouts(&out, step), "acc_score");
                assert!(acc.chunks(4).all(|group| group.iter().any(|a| *a != group[0])), "{acc:?}");
            }
            let prompts = run.figures("train/num_gen_batches").iter().sum::<f64>() * 4.0;
            assert_eq!(run.figures("training/epoch")[1], prompts / 12.0);
            // The tokens of all responses count, also of groups that were left out.
            let sampled = run.figures("training/num_response_tokens").iter().sum::<f64>();
            let lengths = |step| rollouts(&out, step).column_by_name("response_length").unwrap().clone();
            let kept = |step| lengths(step).as_primitive::<UInt32Type>().values().iter().sum::<u32>() as f64;
            assert!(prompts > 8.0 && sampled > kept(1) + kept(2), "{prompts} {sampled}");
        }
        if config.overlong_buffer.enable {
            // verl's `token_level_scores` contain the penalty.
            let [scores, acc, format] =
                ["", "/acc_score", "/format_reward_score"].map(|part| run.figures(&format!("critic/score{part}/mean")));
            let weight = config.reward.scorer.format_weight;
            let without = |i: usize| (1.0 - weight) * acc[i] + weight * format[i];
            assert!((0..2).all(|i| scores[i] < without(i)), "{scores:?} {acc:?} {format:?}");
        }
    }
}

#[test]
fn rewards_grow() {
    let dir = tempfile::tempdir().unwrap();
    let config = rl_config(dir.path());
    let config = RlConfig {
        total_training_steps: Some(20),
        train_batch_size: 12,
        ppo_mini_batch_size: 12,
        rollout: RolloutConfig { n: 8, max_num_seqs: 96, ..config.rollout },
        optimizer: OptimConfig { learning_rate: 3e-3, ..config.optimizer.clone() },
        rollout_freq: None,
        ..config
    };
    let out = dir.path().join("out");
    let rewards = run_rl(&out, &config, 2, &[]).figures("critic/rewards/mean");
    // The spans of sampling, passes and update do not overlap on the CPU.
    let steps = tiny::Step::all(&out);
    let (covered, all): (f64, f64) =
        (steps.iter().map(tiny::Step::covered).sum(), steps.iter().map(|s| s.seconds).sum());
    println!("spans cover {covered} s of {all} s");
    assert!(covered <= all);
    for name in ["sampling", "scoring", "passes", "update"] {
        assert!(steps.iter().all(|step| !step.spans(name).is_empty()), "{name}");
    }
    println!("{rewards:?}");
    // The seed is fixed. With it, the reward increases by 0.15.
    assert!(mean(&rewards[15..]) > mean(&rewards[..5]) + 0.08, "{rewards:?}");
}

#[test]
fn responses_without_an_answer_are_counted_and_named_once() {
    let dir = tempfile::tempdir().unwrap();
    tiny::base_model(&dir.path().join("untrained"));
    let config =
        RlConfig { model: Some(dir.path().join("untrained")), total_training_steps: Some(2), ..rl_config(dir.path()) };
    let run = |name: &str, mode: Mode| {
        let mut config = config.clone();
        config.reward.mode = mode;
        let out = dir.path().join(name);
        let job = RlJob::new(&out, config, Arc::new(Scorer::rules(mode))).unwrap();
        let notes = tiny::Notes::default();
        job.run(&mut device(2), &notes).unwrap();
        (job.common.data.remarks, notes.0.into_inner().unwrap(), Outcome::of(&out))
    };
    let named = |notes: &[String]| notes.iter().filter(|note| note.contains("have no answer")).count();
    let accepts = |remarks: &[String]| remarks.iter().any(|remark| remark.contains("accepts unevaluated answers"));
    let (remarks, notes, outcome) = run("strict", Mode::Strict);
    let shares = outcome.figures("critic/score/no_answer_ratio");
    assert!(shares.len() == 2 && shares.iter().all(|share| (0.1..=1.0).contains(share)), "{shares:?}");
    assert!(outcome.figures("critic/score/unevaluated_ratio").iter().all(|&share| share == 0.0));
    assert!(named(&notes) == 1 && !accepts(&remarks), "{notes:#?} {remarks:?}");
    let (remarks, notes, outcome) = run("compat", Mode::Compat);
    assert!(named(&notes) == 0 && accepts(&remarks), "{notes:#?} {remarks:?}");
    assert!(!outcome.metrics[0].contains_key("critic/score/unevaluated_ratio"));
}
