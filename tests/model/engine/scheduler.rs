//! Tests the scheduler and the block manager with a model cache that stores for each key the complete prefix from which
//! it was computed. If a block is shared, copied, cached or reused wrongly, a sequence reads a key of another prefix,
//! which the model detects.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use omr_model::engine::scheduler::{Finished, Scheduler, SchedulerConfig, Step};
use omr_model::engine::sequence::{FinishReason, GroupRequest, ImageSpan, Prompt};
use proptest::prelude::*;

const STOP: u32 = 7;

/// Represents a key that is computed from a prefix of tokens and images.
fn extend(prefix: u64, token: u32, image: Option<(&ImageSpan, usize)>) -> u64 {
    let mut h = prefix.wrapping_add(token as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if let Some((image, row)) = image {
        h ^= (image.key[0] as u64 + 1) << 32 | row as u64;
    }
    (h ^ (h >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn keys(prompt: &Prompt, token_ids: &[u32]) -> Vec<u64> {
    let mut prefix = 0;
    let image = |i: usize| prompt.images.iter().find(|im| im.overlaps(i, i + 1)).map(|im| (im, i - im.start));
    let step = |(i, &t): (usize, &u32)| {
        prefix = extend(prefix, t, image(i));
        prefix
    };
    token_ids.iter().enumerate().map(step).collect()
}

/// Returns the token that a model would sample after `len` tokens. It depends on the prefix, the request and the
/// rollout, but never on the batch. The tokens mostly repeat a cycle.
fn sample(prefix: u64, len: usize, request: usize, rollout: usize) -> u32 {
    let h = extend(extend(prefix, request as u32, None), rollout as u32, None);
    if h >> 61 < 6 { len as u32 % 6 } else { (h >> 40) as u32 % 24 }
}

struct Runner {
    scheduler: Scheduler,
    cache: Vec<Option<u64>>,
    vision: HashMap<u32, ([u8; 32], usize)>,
    most_in_flight: usize,
}

impl Runner {
    /// Executes a step and returns the sampled tokens. The key of a drafted token is computed from a prefix that
    /// contains the draft. If the draft is rejected and its key is still read, the model detects the wrong prefix.
    fn execute(&mut self, step: &Step) -> Vec<u32> {
        let config = *self.scheduler.config();
        assert!(step.num_tokens() <= config.max_num_batched_tokens);
        assert!(step.samples.len() <= config.max_num_seqs);
        for &(from, to) in &step.copies {
            let (from, to) = (from as usize * config.block_size, to as usize * config.block_size);
            self.cache.copy_within(from..from + config.block_size, to);
        }
        for encode in &step.encode {
            let image = &self.scheduler.group(encode.group).request.prompt.images[encode.image];
            for (row, &at) in self.scheduler.vision().rows(&image.key).unwrap().iter().enumerate() {
                self.vision.insert(at, (image.key, row));
            }
        }
        for s in &step.scheduled {
            let (seq, group) = (self.scheduler.sequence(s.seq), self.scheduler.group(s.seq.group));
            let prompt = &group.request.prompt;
            let keys = keys(prompt, &[&seq.token_ids[..], &s.draft].concat());
            assert!(s.len > 0 && s.start == seq.num_computed_tokens);
            for i in s.start..s.start + s.len {
                if let Some(image) = prompt.images.iter().find(|image| image.overlaps(i, i + 1)) {
                    let rows = self.scheduler.vision().rows(&image.key).unwrap();
                    assert_eq!(self.vision[&rows[i - image.start]], (image.key, i - image.start));
                }
                let block = seq.block_table[i / config.block_size];
                assert_eq!(self.scheduler.blocks().ref_count(block), 1 + forks(&self.scheduler, step, s.seq, block));
                self.cache[block as usize * config.block_size + i % config.block_size] = Some(keys[i]);
            }
        }
        let mut token_ids = vec![u32::MAX; step.samples.len()];
        for s in &step.scheduled {
            let (seq, group) = (self.scheduler.sequence(s.seq), self.scheduler.group(s.seq.group));
            let keys = keys(&group.request.prompt, &[&seq.token_ids[..], &s.draft].concat());
            for (i, &key) in keys[..s.start + s.len].iter().enumerate() {
                let block = seq.block_table[i / config.block_size] as usize;
                assert_eq!(
                    self.cache[block * config.block_size + i % config.block_size],
                    Some(key),
                    "key {i} of {:?}",
                    s.seq
                );
            }
            let computed = s.start + s.len - s.draft.len();
            assert_eq!(s.samples.is_empty(), computed < seq.num_tokens());
            assert!(s.draft.is_empty() || s.samples.len() == s.draft.len() + 1);
            for at in s.samples.clone() {
                let (rollout, len) = (step.samples[at].rollout, computed + s.ahead(at));
                token_ids[at] = sample(keys[len - 1], len, group.request.request, rollout);
            }
        }
        token_ids
    }

    fn run(&mut self) -> BTreeMap<(usize, usize), Finished> {
        let mut results = BTreeMap::new();
        while !self.scheduler.is_finished() {
            let mut step = self.scheduler.schedule().unwrap();
            let mut token_ids = self.execute(&step);
            self.most_in_flight = self.most_in_flight.max(step.samples.len());
            let mut logprobs: Vec<f32> = token_ids.iter().map(|&t| -(t as f32)).collect();
            step.verify(&mut token_ids, &mut logprobs);
            for done in self.scheduler.postprocess(&step, &token_ids, &logprobs) {
                let key = (done.request, done.sequence.rollout);
                assert!(results.insert(key, done).is_none(), "{key:?} ended twice");
            }
        }
        results
    }
}

/// Counts the block tables that this step copied from the prompt that `seq` has just prefilled. These block tables may
/// share the block that `seq` writes.
fn forks(scheduler: &Scheduler, step: &Step, seq: omr_model::engine::scheduler::SeqId, block: u32) -> u32 {
    let group = scheduler.group(seq.group);
    let fresh = step.samples.iter().filter(|s| s.group == seq.group && s.rollout != seq.rollout);
    let sharing = fresh.filter(|&&s| scheduler.sequence(s).block_table.contains(&block)).count();
    (sharing + group.pinned.iter().flatten().filter(|&&b| b == block).count()) as u32
}

/// Returns the expected result of a rollout, computed without an engine.
fn expected(request: &GroupRequest, rollout: usize, max_model_len: usize) -> (Vec<u32>, FinishReason) {
    let mut token_ids = request.prompt.token_ids.clone();
    let prompt_len = token_ids.len();
    loop {
        let prefix = *keys(&request.prompt, &token_ids).last().unwrap();
        let token = sample(prefix, token_ids.len(), request.request, rollout);
        token_ids.push(token);
        let new = token_ids[prompt_len..].to_vec();
        if token == STOP {
            return (new, FinishReason::Stop);
        }
        if new.len() == request.max_tokens || token_ids.len() == max_model_len {
            return (new, FinishReason::Length);
        }
    }
}

/// Returns the tokens of all rollouts. Every second rollout has a wrong token.
fn recorded(requests: &[GroupRequest], max_model_len: usize) -> HashMap<(usize, usize), Vec<u32>> {
    let names = requests.iter().flat_map(|request| (0..request.n).map(move |rollout| (request, rollout)));
    let tokens = |(request, rollout): (&GroupRequest, usize)| {
        let mut tokens = expected(request, rollout, max_model_len).0;
        if rollout % 2 == 1 {
            let middle = tokens.len() / 2;
            tokens[middle] += 1;
        }
        ((request.request, rollout), tokens)
    };
    names.map(tokens).collect()
}

/// A prompt's tokens, its optional image (name, start, rows), its number of rollouts, and the maximum number of tokens.
type Spec = (Vec<u32>, Option<(u8, usize, usize)>, usize, usize);

/// Generates prompts from a small vocabulary, so that many share prefixes. Images are in the middle of prompts.
fn prompts() -> impl Strategy<Value = Vec<Spec>> {
    let prompt = (
        prop::collection::vec(0u32..2, 1..40),
        prop::option::of((0u8..3, 0usize..20, 1usize..9)),
        1usize..6,
        1usize..40,
    );
    prop::collection::vec(prompt, 1..12)
}

fn request(at: usize, spec: &Spec) -> GroupRequest {
    let (token_ids, image, n, max_tokens) = spec;
    let mut prompt = Prompt::text(token_ids.clone());
    if let Some((name, start, rows)) = *image
        && start + rows <= token_ids.len()
    {
        prompt.images.push(ImageSpan { key: [name * 16 + rows as u8; 32], start, rows });
    }
    let stop_token_ids = Arc::from([STOP].as_slice());
    GroupRequest {
        request: at,
        prompt: Arc::new(prompt),
        n: *n,
        max_tokens: *max_tokens,
        stop_token_ids,
        drafts: true,
        prompt_logprobs: false,
        is_wide: *n > 3,
    }
}

proptest! {
    #![proptest_config(omr_base_tests::seed::proptest(400))]

    #[test]
    fn every_rollout_ends_with_its_own_tokens_and_no_block_is_lost(
        specs in prompts(),
        block_size in 1usize..9,
        max_num_seqs in 1usize..36,
        max_num_batched_tokens in 1usize..40,
        spare_blocks in 0usize..30,
        enable_prefix_caching: bool,
        draft_rows in 0usize..30,
    ) {
        let max_model_len = 60;
        let num_blocks = 60usize.div_ceil(block_size) + spare_blocks;
        let config = SchedulerConfig {
            max_num_seqs, max_num_batched_tokens, max_model_len, num_blocks, block_size, vision_rows: 10,
            enable_prefix_caching, draft_rows,
        };
        let requests: Vec<GroupRequest> = specs.iter().enumerate().map(|(i, s)| request(i, s)).collect();
        let mut runner = Runner {
            scheduler: Scheduler::new(config).unwrap(),
            cache: vec![None; num_blocks * block_size],
            vision: HashMap::new(),
            most_in_flight: 0,
        };
        runner.scheduler.expect(recorded(&requests, max_model_len));
        for request in &requests {
            runner.scheduler.add(request.clone()).unwrap();
        }
        let results = runner.run();
        prop_assert_eq!(results.len(), requests.iter().map(|r| r.n).sum::<usize>());
        for ((at, rollout), done) in &results {
            let (token_ids, reason) = expected(&requests[*at], *rollout, max_model_len);
            prop_assert_eq!(done.sequence.completion(), &*token_ids);
            prop_assert_eq!(done.sequence.finish_reason, Some(reason));
            prop_assert!(done.sequence.logprobs.iter().zip(&token_ids).all(|(l, &t)| *l == -(t as f32)));
        }
        prop_assert_eq!(runner.scheduler.blocks().num_free_blocks(), num_blocks);
        prop_assert!((0..num_blocks as u32).all(|b| runner.scheduler.blocks().ref_count(b) == 0));
    }
}

fn run(config: SchedulerConfig, requests: &[GroupRequest]) -> (Scheduler, usize) {
    let mut runner = Runner {
        scheduler: Scheduler::new(config).unwrap(),
        cache: vec![None; config.num_blocks * config.block_size],
        vision: HashMap::new(),
        most_in_flight: 0,
    };
    runner.scheduler.expect(recorded(requests, config.max_model_len));
    for request in requests {
        runner.scheduler.add(request.clone()).unwrap();
    }
    for ((at, rollout), done) in runner.run() {
        let (token_ids, reason) = expected(&requests[at], rollout, config.max_model_len);
        assert_eq!((done.sequence.completion(), done.sequence.finish_reason), (&*token_ids, Some(reason)));
    }
    (runner.scheduler, runner.most_in_flight)
}

const ROOMY: SchedulerConfig = SchedulerConfig {
    max_num_seqs: 64,
    max_num_batched_tokens: 4096,
    max_model_len: 1000,
    num_blocks: 200,
    block_size: 16,
    vision_rows: 0,
    enable_prefix_caching: false,
    draft_rows: 0,
};

#[test]
fn a_small_request_starts_while_wide_ones_wait() {
    let config = SchedulerConfig { max_num_seqs: 32, ..ROOMY };
    let mut scheduler = Scheduler::new(config).unwrap();
    let spec = |n| -> Spec { (vec![1, 2, 1], None, n, 100) };
    for at in 0..3 {
        scheduler.add(request(at, &spec(40))).unwrap();
    }
    let step = |scheduler: &mut Scheduler| {
        let step = scheduler.schedule().unwrap();
        scheduler.postprocess(&step, &vec![1; step.samples.len()], &vec![0.0; step.samples.len()]);
        step.samples
    };
    assert_eq!(step(&mut scheduler).len(), 30);
    let small = scheduler.add(request(3, &spec(1))).unwrap();
    assert!(step(&mut scheduler).iter().any(|sample| sample.group == small));
    assert_eq!(scheduler.num_running_and_waiting(), [31, 90]);
}

#[test]
fn a_wide_request_starts_while_small_ones_take_most_places() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_num_seqs: 32, ..ROOMY }).unwrap();
    for at in 0..31 {
        scheduler.add(request(at, &(vec![1, 2, 1], None, 1, 100))).unwrap();
    }
    let step = scheduler.schedule().unwrap();
    scheduler.postprocess(&step, &[1; 31], &[0.0; 31]);
    let wide = scheduler.add(request(31, &(vec![1, 2, 1], None, 4, 100))).unwrap();
    assert!(scheduler.schedule().unwrap().samples.iter().any(|sample| sample.group == wide));
}

/// Measures how many steps drafts save with few sequences, long answers and small blocks, also with preemption and with
/// cached prefixes.
#[test]
fn drafts_save_steps_and_nobody_loses_blocks_to_them() {
    let specs = |at: usize| -> Spec { ((0..20).map(|i| (i * at as u32) % 3).collect(), None, 8, 200) };
    let requests: Vec<GroupRequest> = (0..4).map(|at| request(at, &specs(at))).collect();
    for config in [
        SchedulerConfig { max_num_seqs: 32, block_size: 4, num_blocks: 2000, ..ROOMY },
        SchedulerConfig { max_num_seqs: 32, block_size: 4, num_blocks: 2000, enable_prefix_caching: true, ..ROOMY },
        SchedulerConfig { max_num_seqs: 16, block_size: 4, num_blocks: 120, max_model_len: 300, ..ROOMY },
    ] {
        let without = run(config, &requests).0.stats();
        let with = run(SchedulerConfig { draft_rows: 64, ..config }, &requests).0.stats();
        println!("without {without:?}\nwith    {with:?}");
        assert!(with.accepted_tokens > 50 && with.accepted_tokens < with.drafted_tokens);
        assert!(with.steps < without.steps);
        assert!(with.preemptions <= without.preemptions);
    }
}

#[test]
fn a_prompt_is_prefilled_once_for_its_rollouts() {
    let spec = ((0..37).collect(), None, 8, 1);
    let (scheduler, most) = run(ROOMY, &[request(0, &spec)]);
    assert_eq!((scheduler.stats().computed_tokens, scheduler.stats().steps, most), (37, 1, 8));
}

#[test]
fn rollouts_that_start_late_compute_one_token_of_the_prompt_again() {
    let spec = ((0..37).collect(), None, 8, 1);
    let config = SchedulerConfig { max_num_seqs: 1, ..ROOMY };
    let (scheduler, _) = run(config, &[request(0, &spec)]);
    assert_eq!(scheduler.stats().computed_tokens, 37 + 7);
}

#[test]
fn a_known_prefix_is_not_computed_again() {
    let long: Vec<u32> = (0..100).collect();
    let config = SchedulerConfig { enable_prefix_caching: true, max_num_seqs: 1, ..ROOMY };
    let requests: Vec<GroupRequest> = (0..3).map(|i| request(i, &(long.clone(), None, 1, 1))).collect();
    let (scheduler, _) = run(config, &requests);
    assert_eq!(scheduler.stats().cached_tokens, 2 * 96);
    assert_eq!(scheduler.stats().computed_tokens, 100 + 2 * 4);
}

#[test]
fn too_few_blocks_cost_time_and_nothing_else() {
    let requests: Vec<GroupRequest> = (0..6).map(|i| request(i, &((0..50).collect(), None, 4, 200))).collect();
    let (scheduler, _) = run(SchedulerConfig { num_blocks: 17, max_model_len: 270, ..ROOMY }, &requests);
    assert_eq!(scheduler.blocks().num_free_blocks(), 17);
    assert!(run(SchedulerConfig { num_blocks: 16, max_model_len: 270, ..ROOMY }, &requests).0.is_finished());
}

#[test]
fn what_can_never_run_is_refused_at_once() {
    let mut scheduler = Scheduler::new(ROOMY).unwrap();
    let ok: Spec = ((0..37).collect(), None, 1, 10);
    for bad in [
        (vec![], None, 1, 10),
        ((0..1000).collect(), None, 1, 10),
        (ok.0.clone(), None, 0, 10),
        (ok.0.clone(), None, 1, 0),
        (ok.0.clone(), Some((0, 1, 4)), 1, 10),
    ] {
        assert_eq!(scheduler.add(request(3, &bad)).unwrap_err().exit_code(), 2);
    }
    assert!(Scheduler::new(SchedulerConfig { num_blocks: 3, ..ROOMY }).unwrap().add(request(0, &ok)).is_ok());
    let error = Scheduler::new(SchedulerConfig { num_blocks: 2, ..ROOMY }).unwrap().add(request(0, &ok)).unwrap_err();
    assert!(error.to_string().contains("num_kv_blocks"), "{error}");
    assert!(scheduler.is_finished());
}

#[test]
fn an_abort_frees_every_block() {
    let mut scheduler = Scheduler::new(SchedulerConfig { max_num_seqs: 3, ..ROOMY }).unwrap();
    for i in 0..4 {
        scheduler.add(request(i, &((0..37).collect(), None, 8, 100))).unwrap();
    }
    for _ in 0..5 {
        let step = scheduler.schedule().unwrap();
        let ids = vec![1; step.samples.len()];
        scheduler.postprocess(&step, &ids, &vec![0.0; ids.len()]);
    }
    assert!(scheduler.blocks().num_free_blocks() < ROOMY.num_blocks);
    scheduler.abort();
    assert_eq!(scheduler.blocks().num_free_blocks(), ROOMY.num_blocks);
    assert!(scheduler.is_finished());
}
