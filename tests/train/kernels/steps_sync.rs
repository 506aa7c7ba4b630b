//! Tests that a training step waits for the device only when a number is logged. The driver counts the waits.

use std::path::Path;

use super::questions::questions;
use omr_base::config::RlConfig;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_model::nn::{CheckpointPolicy, Grads, Model, Policy};
use omr_model::optim::Optimizer;
use omr_model_tests::models::encoder;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::policy_loss;
use omr_runtime::ranks::OneRank;
use omr_runtime::tensor::{DType, Tensor};
use omr_runtime_tests::kernels::emu;
use omr_train::rl::experience::Experience;
use omr_train::rl::group::Group;
use omr_train::rl::update::{self, Learner, MiniBatch};
use omr_train::training::nll;
use omr_train::training::sft::SftJob;
use omr_train::training::step::Sequence;

use crate::training::tiny::{rows, sft_config};

/// Number of reads in a logged step: one of the losses, and one of the norm with its flag.
const LOGGED: u64 = 2;
/// Tokens per micro-batch, few enough that an update has several micro-batches.
const MICRO_BATCH_TOKENS: usize = 160;

struct Setup {
    dev: Device,
    model: Model,
    optimizer: Optimizer,
    grads: Grads,
}

impl Setup {
    fn new(dir: &Path) -> Setup {
        let config = sft_config(dir);
        let mut dev = emu();
        let model = Model::load(&mut dev, &dir.join("base"), DType::Bf16).unwrap();
        let optimizer = Optimizer::new(&mut dev, &model.layout, config.optimizer, config.seed).unwrap();
        let grads = Grads::new(&mut dev, &model.layout).unwrap();
        Setup { dev, model, optimizer, grads }
    }

    fn waits(&mut self) -> u64 {
        self.dev.driver().unwrap().synchronizations()
    }

    fn update(&mut self, losses: Tensor) {
        let mut alone = OneRank::ALONE;
        self.optimizer
            .step_guarded(&mut alone, &mut self.dev, &self.model.layout, &self.grads, 1e-3, Some(losses))
            .unwrap();
    }

    fn first_weights(&mut self) -> Vec<u8> {
        let first = self.model.layout.params[0].tensor;
        self.dev.read_bytes(first).unwrap()
    }
}

#[test]
fn an_sft_step_waits_where_it_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = Setup::new(dir.path());
    let job = SftJob::new(dir.path(), sft_config(dir.path())).unwrap();
    let samples: Vec<_> = (0..4).map(|i| job.samples.get(i).unwrap().unwrap()).collect();
    let batch: Vec<Sequence<'_>> = samples.iter().map(|sample| (&**sample).into()).collect();
    assert!(batch.iter().map(|s| s.input_ids.len()).sum::<usize>() > MICRO_BATCH_TOKENS, "several micro-batches");
    let loss = s.dev.zeros(Region::Overlay, DType::F64, &[1]).unwrap();
    let before = (s.first_weights(), s.waits());
    let Setup { dev, model, grads, .. } = &mut s;
    grads.zero(dev).unwrap();
    nll::gradients(dev, model, grads, &batch, MICRO_BATCH_TOKENS, CheckpointPolicy::default(), loss).unwrap();
    s.update(loss);
    assert_eq!(s.waits() - before.1, 0, "a step that logs nothing");
    let value = s.dev.read::<f64>(loss).unwrap()[0];
    let stats = s.optimizer.stats(&mut s.dev).unwrap();
    assert_eq!(s.waits() - before.1, LOGGED, "a logged step");
    println!("loss {value}, {stats:?}");
    assert!(value > 1.0 && stats.finite && stats.grad_norm > 0.0);
    let after = s.first_weights();
    assert_ne!(after, before.0);

    // A loss that is NaN changes nothing, even if the gradients are finite.
    s.dev.write(loss, &[f64::NAN]).unwrap();
    s.update(loss);
    let stats = s.optimizer.stats(&mut s.dev).unwrap();
    assert!(!stats.finite && stats.clip == 0.0 && stats.grad_norm.is_finite(), "{stats:?}");
    assert_eq!(s.first_weights(), after);
}

#[test]
fn an_rl_update_waits_where_it_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = Setup::new(dir.path());
    let base = dir.path().join("base");
    let questions = questions(&rows()[..3], &encoder(&base, EncodingPurpose::Ask), &s.model.config);
    let questions: Vec<_> = questions.iter().collect();
    // One response cannot change the policy, because its advantage is zero. In a step that computes such responses for
    // metrics, only its forward pass runs.
    let step = (0..).find(|&step| update::runs_for_metrics(RlConfig::default().seed, step, 2, 0)).unwrap();
    let groups: Vec<Group> = [(0, 1.0), (1, -0.5), (2, 0.0)]
        .into_iter()
        .map(|(index, advantage)| {
            let answer: Vec<u32> = (5..8 + 4 * index as u32).collect();
            let prompt = &questions[index].prompt.token_ids;
            let made = Experience::of_tokens(prompt, &answer, vec![-6.0; answer.len()]);
            Group::made_up(index, questions[index].clone(), vec![Experience { advantage, ..made }])
        })
        .collect();
    let lengths = || groups.iter().map(|group| group.experience[0].input_ids.len());
    let longest = lengths().max().unwrap();
    let config = RlConfig { micro_batch_tokens: longest, max_response_length: 24, ..RlConfig::default() };
    let stats = policy_loss::stats(&mut s.dev, Region::Overlay).unwrap();
    let before = s.waits();
    let Setup { dev, model, grads, .. } = &mut s;
    grads.zero(dev).unwrap();
    let (policy, levels) = (Policy::default(), CheckpointPolicy::default());
    let done = update::accumulate(dev, Learner { model, policy, config: &config, levels, step }, grads, &groups, stats)
        .unwrap();
    s.update(stats.slice(0, policy_loss::LOSSES));
    assert_eq!(s.waits() - before, 0, "an update that logs nothing");
    let seen = MiniBatch::new(&config, step, &groups, 1).results(&mut s.dev, done, stats).unwrap();
    let done = s.optimizer.stats(&mut s.dev).unwrap();
    assert_eq!(s.waits() - before, LOGGED, "a logged update");
    println!("{seen:?}, {done:?}");
    assert!(done.finite && done.grad_norm > 0.0 && seen.stats.loss.is_finite());
    assert_eq!(seen.tokens, lengths().sum::<usize>());
    assert!(seen.probs_diff.valid && seen.probs_diff.max > 0.0 && seen.stats.ratio_min < seen.stats.ratio_max);
}
