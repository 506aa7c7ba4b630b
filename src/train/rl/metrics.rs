//! The metrics of one RL step, under verl's names.

use std::collections::{BTreeMap, BTreeSet};

use crate::rl::domains;
use crate::rl::experience::Experience;
use crate::rl::group::Group;
use crate::rl::update::UpdateResults;
use crate::training::metrics::{self, Metrics};
use omr_data::reward::{judge, typed};
use omr_model::engine::scheduler::SchedulerStats;
use omr_model::optim::StepStats;
use omr_model::rollout::generate::{Rollout, is_truncated};
use omr_runtime::ops::policy_loss::PolicyLoss;

/// Collects the metrics of a step. Metrics of several updates are averaged, except that names ending in `max` or `min`
/// take the largest or smallest value, as in verl.
#[derive(Default)]
pub struct StepMetrics {
    /// Metrics of the step.
    pub values: Metrics,
    /// Metrics of each update so far.
    pub updates: Vec<Vec<(String, f64)>>,
    tokens: usize,
    shared_tokens: usize,
    responses: usize,
    micro_batches: usize,
    skipped: usize,
}

impl StepMetrics {
    /// Creates the metrics of step `step`, counted from 1.
    pub fn new(step: u64) -> StepMetrics {
        let mut values = Metrics::new();
        values.insert("step".to_owned(), step.into());
        values.insert("training/global_step".to_owned(), step.into());
        StepMetrics { values, ..StepMetrics::default() }
    }

    /// Sets one metric. A value that is not finite is omitted, because JSON cannot represent it.
    pub fn set(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.values.insert(name.to_owned(), value.into());
        }
    }

    /// Sets the metrics of the step's rollouts: rewards, advantages and lengths. Responses without a score are left out of
    /// the metrics of scores and rewards.
    pub fn rollouts(&mut self, groups: &[Group], max_response_length: usize) {
        let rollouts: Vec<&Rollout> = groups.iter().flat_map(|group| &group.rollouts).collect();
        let of = |get: fn(&Rollout) -> Option<f64>| rollouts.iter().filter_map(|r| get(r)).collect::<Vec<f64>>();
        let learned = |get: fn(&Experience) -> Option<f64>| -> Vec<f64> {
            groups.iter().flat_map(|group| &group.experience).filter_map(get).collect()
        };
        let (rewards, advantages) = (learned(|e| e.reward), learned(|e| Some(e.advantage)));
        let lengths = of(|r| Some(r.output.token_ids.len() as f64));
        let prompt = |group: &Group| vec![group.question.prompt.token_ids.len() as f64; group.rollouts.len()];
        let prompts: Vec<f64> = groups.iter().flat_map(prompt).collect();
        // verl computes the mean over tokens, where each token has the advantage of its response.
        let tokens: f64 = lengths.iter().sum();
        let by_token: f64 = advantages.iter().zip(&lengths).map(|(a, n)| a * n).sum();
        self.spread("critic/score", &learned(|e| e.score));
        self.spread("critic/score/acc_score", &of(|r| r.score.accuracy()));
        self.spread("critic/score/format_reward_score", &of(|r| r.score.score.map(|_| r.score.format_reward_score)));
        let unscored = rollouts.iter().filter(|r| r.score.score.is_none()).count();
        self.set("critic/score/unscored_ratio", unscored as f64 / rollouts.len().max(1) as f64);
        let names: BTreeSet<&String> = rollouts.iter().flat_map(|r| r.score.further.keys()).collect();
        for name in names {
            let given: Vec<f64> = rollouts.iter().filter_map(|r| r.score.further.get(name).copied()).collect();
            self.spread(&format!("critic/score/{name}"), &given);
        }
        self.by_group("type", typed::REWARD_TYPE, groups);
        self.by_group("domain", typed::DOMAIN, groups);
        self.spread("critic/rewards", &rewards);
        self.spread("critic/advantages", &advantages);
        self.set("critic/advantages/mean", by_token / tokens.max(1.0));
        self.spread("response_length", &lengths);
        let full = lengths.iter().filter(|&&n| n >= max_response_length as f64).count();
        self.set("response_length/clip_ratio", full as f64 / lengths.len().max(1) as f64);
        let cut = rollouts.iter().filter(|r| is_truncated(&r.output)).count();
        self.set("response_length/truncated_ratio", cut as f64 / rollouts.len().max(1) as f64);
        self.spread("prompt_length", &prompts);
        let flat = advantages.iter().filter(|&&a| a == 0.0).count();
        self.set("critic/advantages/zero_ratio", flat as f64 / advantages.len().max(1) as f64);
    }

    /// Sets the shares of the domains among the prompts that were `drawn` and among those that were trained on.
    pub fn domains(&mut self, drawn: &BTreeMap<String, usize>, groups: &[Group]) {
        let all = drawn.values().sum::<usize>() as f64;
        for (name, count) in drawn {
            let trained = domains::count(groups, name);
            self.set(&format!("train/domain/{name}/drawn"), *count as f64 / all);
            self.set(&format!("train/domain/{name}/trained"), trained as f64 / groups.len().max(1) as f64);
        }
    }

    /// Sets the number of rollouts and their mean score for each value of the field `field` of the rows.
    fn by_group(&mut self, kind: &str, field: &str, groups: &[Group]) {
        let mut all: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
        for group in groups {
            if let Some(name) = typed::name(&group.question.row.extra, field) {
                all.entry(name).or_default().extend(group.rollouts.iter().map(|r| r.score.score));
            }
        }
        for (name, all) in all {
            let scores: Vec<f64> = all.iter().copied().flatten().collect();
            self.set(&format!("reward/{kind}/{name}/count"), all.len() as f64);
            self.set(&format!("reward/{kind}/{name}/mean"), scores.iter().sum::<f64>() / scores.len() as f64);
        }
    }

    /// Sets the counts of the step's judge: answers sent to the judge, answers that it called correct, and answers
    /// without a verdict.
    pub fn judge(&mut self, judge: &judge::Summary) {
        for (name, count) in [("used", judge.used), ("hits", judge.hits), ("unjudged", judge.unjudged)] {
            self.set(&format!("reward/judge/{name}"), count as f64);
        }
    }

    /// Sets mean, largest and smallest value, which do not exist without values.
    fn spread(&mut self, name: &str, values: &[f64]) {
        let n = values.len() as f64;
        self.set(&format!("{name}/mean"), values.iter().sum::<f64>() / n);
        self.set(&format!("{name}/max"), values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        self.set(&format!("{name}/min"), values.iter().copied().fold(f64::INFINITY, f64::min));
    }

    /// Adds the metrics of one update and the optimizer's statistics of it.
    pub fn update(&mut self, results: &UpdateResults, step: StepStats, lr: f64, loss: &PolicyLoss) {
        let first = self.updates.is_empty();
        let (entropy, norm) = (results.stats.entropy, step.grad_norm.into());
        let more = [("actor/entropy", entropy), ("actor/grad_norm", norm), ("actor/lr", lr)];
        let figures = results.stats.metrics(loss).into_iter().chain(more);
        self.updates.push(figures.map(|(name, value)| (name.to_owned(), value)).collect());
        self.tokens += results.tokens;
        self.shared_tokens += results.shared_tokens;
        self.responses += results.responses;
        self.micro_batches += results.micro_batches;
        self.skipped += usize::from(!step.finite);
        // The difference is measured only before the first update. Until then, the weights are the ones that sampled
        // the rollouts.
        if first {
            for (name, value) in results.probs_diff.metrics() {
                self.set(name, value);
            }
        }
        self.reduce();
    }

    fn reduce(&mut self) {
        let names: Vec<String> = self.updates[0].iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            let of = |u: &Vec<(String, f64)>| u.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
            let all: Vec<f64> = self.updates.iter().filter_map(of).collect();
            let value = if name.ends_with("max") {
                all.iter().copied().fold(f64::NEG_INFINITY, f64::max)
            } else if name.ends_with("min") {
                all.iter().copied().fold(f64::INFINITY, f64::min)
            } else {
                all.iter().sum::<f64>() / all.len().max(1) as f64
            };
            self.set(&name, value);
        }
    }

    /// Sets the counts of this rank's engine.
    pub fn sampler(&mut self, stats: &SchedulerStats) {
        self.set("perf/rollout_steps", stats.steps as f64);
        self.set("perf/rollout_drafted_tokens", stats.drafted_tokens as f64);
        self.set("perf/rollout_accepted_tokens", stats.accepted_tokens as f64);
    }

    /// Sets the numbers of responses, micro-batches and tokens that the updates computed, the number of skipped
    /// updates, and the tokens per second.
    pub fn throughput(&mut self, step_seconds: f64) {
        self.set("training/num_responses_computed", self.responses as f64);
        self.set("training/num_micro_batches", self.micro_batches as f64);
        self.set(metrics::SKIPPED_UPDATES, self.skipped as f64);
        self.set("perf/total_num_tokens", self.tokens as f64);
        self.set("perf/num_shared_tokens", self.shared_tokens as f64);
        self.set("perf/throughput", self.tokens as f64 / step_seconds);
    }

    /// Returns the metrics that are displayed next to the progress bar.
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        let get = |name: &str| self.values.get(name).and_then(|v| v.as_f64()).unwrap_or(0.0);
        vec![
            ("reward", get("critic/rewards/mean")),
            ("acc", get("critic/score/acc_score/mean")),
            ("len", get("response_length/mean")),
            ("probs_diff", get("training/rollout_probs_diff_max")),
        ]
    }
}
