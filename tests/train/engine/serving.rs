//! Tests of requests that join and leave a running engine: a choice's tokens and log-probs depend on weights, request
//! and seed only, and nothing that is held for a request outlives it.

use std::collections::BTreeMap;
use std::sync::Arc;

use omr_base::philox::{Purpose, Random};
use omr_model::engine::{
    Engine, EngineConfig, EngineCoreOutput, EngineCoreRequest, Finish, FinishReason, Noise, Prompt, RequestId,
    RequestParams,
};
use omr_model::nn::Model;
use omr_runtime::device::{Device, Isa, Plan, Region};
use omr_runtime::ops::sample::{LogprobsMode, Penalties};
use omr_runtime::tensor::DType;

use super::parity::{assert_same, bits, config, few_ids, generate, limits, partly_wrong, requests};

pub fn serving_limits() -> EngineConfig {
    EngineConfig { keep_logits: true, ..limits() }
}

/// Returns the request of a server for a request of a run: the noise is that of prompt 0 at step 0 of a run with `seed`.
fn with_seed(request: &EngineCoreRequest, seed: u64) -> EngineCoreRequest {
    let params = RequestParams { noise: Noise::of_seed(seed), ..request.params.clone() };
    EngineCoreRequest { params, ..request.clone() }
}

/// Returns requests with images and all kinds of parameters.
pub fn mixed(num_prompts: usize, longest: usize) -> Vec<EngineCoreRequest> {
    let mut random = Random::new(omr_base_tests::seed::seed(), Purpose::Test, 77);
    let of = |(at, request): (usize, EngineCoreRequest)| {
        let mut core = with_seed(&request, random.next_u64() >> if at % 2 == 0 { 32 } else { 0 });
        let p = &mut core.params;
        core.n = [1, 1, 3][at % 3];
        p.eos_token_ids = Arc::from([7, 8]);
        p.stop_token_ids = if at % 4 == 1 { vec![9, 30] } else { Vec::new() };
        p.ignore_eos = at % 9 == 4;
        p.min_tokens = if at % 5 == 2 { p.max_tokens.min(6) } else { 0 };
        if at % 6 == 3 {
            p.penalties = Penalties { repetition: 1.2, frequency: -0.3, presence: 0.5 };
        }
        p.logit_bias = if at % 7 == 2 { vec![(20, 5.0), (21, -100.0)] } else { Vec::new() };
        p.allowed_token_ids = (at % 8 == 5).then(|| (20..90).collect());
        p.logprobs = [None, Some(0), Some(3), None, Some(20)][at % 5];
        p.prompt_logprobs = [None, None, Some(2), None, Some(0), None, None][at % 7];
        p.logprobs_mode = if at % 2 == 0 { LogprobsMode::Raw } else { LogprobsMode::Processed };
        core
    };
    requests(&config(), num_prompts, longest, 1).into_iter().enumerate().map(of).collect()
}

/// Outputs of one choice of a request.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    pub token_ids: Vec<u32>,
    /// Bits of the numbers of all tokens.
    pub numbers: Vec<u32>,
    pub finish: Option<Finish>,
}

/// Outputs of a request: its choices, and the bits of the prompt's log-probs.
pub type Answers = (BTreeMap<usize, Answer>, Option<Vec<u32>>);

/// Adds an output to the answers of its request.
pub fn collect(answers: &mut Answers, output: EngineCoreOutput) {
    let answer = answers.0.entry(output.choice).or_default();
    assert_eq!(answer.finish, None, "an output after the end");
    if let Some(token) = output.token {
        answer.token_ids.push(token.token_id);
        let numbers = [Some(token.rollout_logprob), token.logprob].into_iter().flatten().map(f32::to_bits);
        let top = token.top_logprobs.iter().flat_map(|top| [top.token_id, top.logprob.to_bits()]);
        answer.numbers.extend(numbers.chain(top).chain(token.rank));
    }
    answer.finish = output.finish;
    if let Some(prompt) = output.prompt_logprobs {
        assert!(answers.1.is_none(), "log-probs of a prompt came twice");
        let one = |p: &omr_model::engine::PromptLogprob| {
            let top = p.top_logprobs.iter().flat_map(|top| [top.token_id, top.logprob.to_bits()]);
            [p.token_id, p.logprob.to_bits(), p.rank].into_iter().chain(top).collect::<Vec<u32>>()
        };
        answers.1 = Some(prompt.iter().flat_map(one).collect());
    }
}

/// Answers all requests, which join in the order `order` while others run: `together` in the first step, then some in
/// each step.
pub fn serve(
    model: &Model,
    dev: &mut Device,
    engine: &mut Engine,
    requests: &[EngineCoreRequest],
    order: &[usize],
    together: usize,
) -> Vec<Answers> {
    let mut answers: Vec<Answers> = vec![Answers::default(); requests.len()];
    let mut index: BTreeMap<RequestId, usize> = BTreeMap::new();
    let mut waiting = order.iter();
    let mut room = together;
    loop {
        for &at in waiting.by_ref().take(room) {
            index.insert(engine.add_request(requests[at].clone()).unwrap(), at);
        }
        room = index.len() % 3;
        let busy = engine.has_unfinished_requests();
        for output in engine.step(model, dev).unwrap() {
            collect(&mut answers[index[&output.request]], output);
        }
        if !busy && index.len() == order.len() {
            return answers;
        }
        room = if busy { room } else { 1 };
    }
}

/// Returns a random order of `0..n`.
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed, Purpose::Test, 5);
    let mut order: Vec<usize> = (0..n).collect();
    (1..n).rev().for_each(|i| order.swap(i, random.below(i as u64 + 1) as usize));
    order
}

pub fn cpu(threads: usize) -> Device {
    Device::cpu(&Plan::uniform(2 << 30), threads, Isa::detect()).unwrap()
}

fn assert_answers(what: &str, requests: &[EngineCoreRequest], want: &[Answers], got: &[Answers]) {
    for (at, (want, got)) in want.iter().zip(got).enumerate() {
        assert_eq!(want, got, "{what}: request {at}, {:?}", requests[at].params);
        assert_eq!(want.0.len(), requests[at].n);
        assert!(want.0.values().all(|answer| answer.finish.is_some()), "{what}: request {at}");
    }
}

fn any_company(dtype: DType, num_prompts: usize) {
    let requests = mixed(num_prompts, 400);
    let all: Vec<usize> = (0..requests.len()).collect();
    let run = |threads: usize, limits: EngineConfig, order: &[usize], together: usize| {
        let mut dev = cpu(threads);
        let model = Model::init(&mut dev, config(), dtype, 5).unwrap();
        let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
        let answers = serve(&model, &mut dev, &mut engine, &requests, order, together);
        assert_eq!(engine.load().num_used_blocks, 0);
        println!("{:?}", engine.stats());
        (answers, engine.stats())
    };
    let (want, _) = run(2, serving_limits(), &all, requests.len());
    let tokens: usize = want.iter().flat_map(|(choices, _)| choices.values()).map(|a| a.token_ids.len()).sum();
    let finishes: Vec<&Finish> =
        want.iter().flat_map(|(choices, _)| choices.values()).filter_map(|a| a.finish.as_ref()).collect();
    println!("{} requests, {} choices, {tokens} tokens", requests.len(), finishes.len());
    assert!(finishes.iter().any(|f| matches!(f, Finish::Stop(_))) && finishes.contains(&&Finish::Length));
    for (what, threads, limits, seed, together) in [
        ("chunks of 97", 1, EngineConfig { max_num_batched_tokens: 97, ..serving_limits() }, 1, 3),
        ("preemption", 2, EngineConfig { num_kv_blocks: Some(7), ..serving_limits() }, 2, num_prompts),
        (
            "no prefix cache",
            2,
            EngineConfig { enable_prefix_caching: false, max_num_seqs: 9, ..serving_limits() },
            3,
            2,
        ),
        (
            "few vision rows, one sequence",
            2,
            EngineConfig { vision_rows: 2, max_num_seqs: 1, ..serving_limits() },
            5,
            1,
        ),
    ] {
        let (got, stats) = run(threads, limits, &shuffled(requests.len(), seed), together);
        assert_answers(what, &requests, &want, &got);
        assert!(limits.num_kv_blocks.is_none() || stats.preemptions > 0, "{stats:?}");
    }
    // Alone, in an engine that has answered others before, and then again, from the prefix cache.
    let mut dev = cpu(2);
    let model = Model::init(&mut dev, config(), dtype, 5).unwrap();
    let mut engine = Engine::new(&model, &mut dev, serving_limits()).unwrap();
    for at in shuffled(requests.len(), 6) {
        for _ in 0..2 {
            let alone = serve(&model, &mut dev, &mut engine, &requests[at..at + 1], &[0], 1);
            assert_eq!(want[at], alone[0], "alone: request {at}");
        }
        // One choice of several.
        if requests[at].n == 3 && requests[at].params.prompt_logprobs.is_none() {
            let one = EngineCoreRequest { n: 1, first_choice: 2, ..requests[at].clone() };
            let alone = serve(&model, &mut dev, &mut engine, &[one], &[0], 1);
            assert_eq!(want[at].0[&2], alone[0].0[&0], "one choice of request {at}");
        }
    }
    assert!(engine.stats().cached_tokens > 0);
}

#[test]
fn answers_depend_on_the_request_alone_in_f32() {
    any_company(DType::F32, 100);
}

#[test]
fn answers_depend_on_the_request_alone_in_bf16() {
    any_company(DType::Bf16, 50);
}

#[test]
fn drafts_beside_kept_rows_change_nothing() {
    let requests = mixed(40, 200);
    let order: Vec<usize> = (0..requests.len()).collect();
    let run = |draft_rows: usize, together: usize, recorded: &[Answers]| {
        let mut dev = cpu(2);
        let model = Model::init(&mut dev, config(), DType::F32, 5).unwrap();
        let allowed = Some(few_ids(&mut dev));
        let limits = EngineConfig { draft_rows, allowed, ..serving_limits() };
        let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
        let choices = recorded.iter().enumerate().flat_map(|(at, (choices, _))| choices.iter().map(move |of| (at, of)));
        let expected = choices.map(|(at, (&choice, answer))| ((at, choice), partly_wrong(at, &answer.token_ids)));
        engine.expect(expected.collect());
        (serve(&model, &mut dev, &mut engine, &requests, &order, together), engine.stats())
    };
    let (want, without) = run(0, requests.len(), &[]);
    let (got, with) = run(256, 2, &want);
    println!("{without:?}, {with:?}");
    assert!(with.accepted_tokens > 0 && with.accepted_tokens < with.drafted_tokens, "{with:?}");
    assert_answers("drafts", &requests, &want, &got);
}

#[test]
fn a_server_gives_the_tokens_of_a_run() {
    let config = config();
    let requests = requests(&config, 30, 300, 3);
    let mut dev = cpu(2);
    let model = Model::init(&mut dev, config, DType::F32, 5).unwrap();
    let seed = 0x1234_5678;
    for request in requests.iter().take(30) {
        let mut run = [request.clone()];
        run[0].params.noise = Noise { seed, step: 0, prompt: 0 };
        let want = generate(&model, &mut dev, limits(), &run);
        let mut engine = Engine::new(&model, &mut dev, serving_limits()).unwrap();
        let answers = serve(&model, &mut dev, &mut engine, &[with_seed(request, seed)], &[0], 1);
        engine.release(&mut dev);
        for output in &want {
            let answer = &answers[0].0[&output.index];
            assert_eq!(answer.token_ids, output.token_ids);
            assert_eq!(answer.numbers, bits(&output.logprobs));
            let stopped = matches!(answer.finish, Some(Finish::Stop(_)));
            assert_eq!(stopped, output.finish_reason == FinishReason::Stop);
        }
    }
}

#[test]
fn all_64_bits_of_a_seed_count() {
    let mut dev = cpu(2);
    let model = Model::init(&mut dev, config(), DType::F32, 5).unwrap();
    let mut engine = Engine::new(&model, &mut dev, serving_limits()).unwrap();
    let prompt = Arc::new(Prompt::text((10..40).collect()));
    let mut answer = |seed: u64| {
        let params = RequestParams { noise: Noise::of_seed(seed), ..RequestParams::new(20, Arc::from([])) };
        let request = EngineCoreRequest::new(prompt.clone(), 1, params);
        serve(&model, &mut dev, &mut engine, &[request], &[0], 1)[0].0[&0].token_ids.clone()
    };
    // These seeds have the same fold to 32 bits.
    let seeds = [5, 5 << 32, (1 << 32) + 4, u64::MAX - 5];
    let answers: std::collections::BTreeSet<Vec<u32>> = seeds.map(&mut answer).into();
    assert_eq!(answers.len(), 4);
    assert_eq!(answer(5), answer(5));
}

#[test]
fn an_aborted_choice_leaves_nothing_and_changes_nothing() {
    let requests = mixed(40, 400);
    let mut dev = cpu(2);
    let model = Model::init(&mut dev, config(), DType::F32, 5).unwrap();
    let mut engine = Engine::new(&model, &mut dev, serving_limits()).unwrap();
    let all: Vec<usize> = (0..requests.len()).collect();
    let want = serve(&model, &mut dev, &mut engine, &requests, &all, requests.len());
    engine.release(&mut dev);
    for (seed, limits) in [
        (1, EngineConfig { max_num_batched_tokens: 97, ..serving_limits() }),
        (2, EngineConfig { num_kv_blocks: Some(7), ..serving_limits() }),
        (3, EngineConfig { max_num_seqs: 4, ..serving_limits() }),
    ] {
        let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
        let mut random = Random::new(seed, Purpose::Test, 9);
        let mut index: BTreeMap<RequestId, usize> = BTreeMap::new();
        let mut got: Vec<Answers> = vec![Answers::default(); requests.len()];
        let mut gone: Vec<(usize, usize)> = Vec::new();
        let mut waiting = all.iter();
        let scarce = limits.num_kv_blocks.is_some();
        while engine.has_unfinished_requests() || index.len() < requests.len() {
            let join = if scarce { requests.len() } else { random.below(3) as usize };
            for &at in waiting.by_ref().take(join) {
                index.insert(engine.add_request(requests[at].clone()).unwrap(), at);
            }
            for (&id, &at) in &index {
                let (dice, choice) =
                    (random.below(if scarce { 500 } else { 60 }), random.below(requests[at].n as u64) as usize);
                if dice == 0 && engine.abort_request(id) {
                    gone.extend((0..requests[at].n).map(|choice| (at, choice)));
                    assert!(!engine.abort_request(id));
                } else if dice < 3 && engine.abort_choice(id, choice) {
                    gone.push((at, choice));
                    assert!(!engine.abort_choice(id, choice));
                }
            }
            for output in engine.step(&model, &mut dev).unwrap() {
                let at = index[&output.request];
                assert!(!gone.contains(&(at, output.choice)), "an output after the abort");
                collect(&mut got[at], output);
            }
        }
        assert_eq!(engine.load().num_used_blocks, 0);
        assert_eq!([engine.load().num_running, engine.load().num_waiting], [0, 0]);
        for (at, (want, got)) in want.iter().zip(&got).enumerate() {
            for (choice, want) in &want.0 {
                match got.0.get(choice) {
                    Some(got) if got.finish.is_some() => assert_eq!(want, got, "request {at}, choice {choice}"),
                    Some(got) => assert!(want.token_ids.starts_with(&got.token_ids) && gone.contains(&(at, *choice))),
                    None => assert!(gone.contains(&(at, *choice)), "request {at}, choice {choice}"),
                }
            }
            assert!(got.1.is_none() || want.1 == got.1);
        }
        println!("{} choices aborted, {:?}", gone.len(), engine.stats());
        assert!(gone.len() > 10);
        // The caches hold what they held without aborts.
        let again = serve(&model, &mut dev, &mut engine, &requests, &shuffled(requests.len(), seed), 5);
        assert_answers("after aborts", &requests, &want, &again);
        engine.release(&mut dev);
    }
}

#[test]
fn new_weights_reach_requests_in_flight() {
    let requests = mixed(24, 300);
    let all: Vec<usize> = (0..requests.len()).collect();
    let mut dev = cpu(2);
    let model = Model::init(&mut dev, config(), DType::F32, 5).unwrap();
    let other = Model::init(&mut dev, config(), DType::F32, 6).unwrap();
    let mut engine = Engine::new(&other, &mut dev, serving_limits()).unwrap();
    let want = serve(&other, &mut dev, &mut engine, &requests, &all, requests.len());
    engine.release(&mut dev);
    // The first model fills the caches, and the first steps of requests that have sampled nothing yet.
    let mut engine = Engine::new(&model, &mut dev, serving_limits()).unwrap();
    let first = serve(&model, &mut dev, &mut engine, &requests, &all, requests.len());
    assert_ne!(first, want);
    engine.update_weights();
    let got = serve(&other, &mut dev, &mut engine, &requests, &all, 3);
    assert_answers("after an update", &requests, &want, &got);
    engine.release(&mut dev);

    let limits = EngineConfig { max_num_batched_tokens: 40, ..serving_limits() };
    let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
    let prompt = Arc::new(Prompt::text((0..300).map(|i| 10 + i * 7 % 200).collect()));
    let params = RequestParams { prompt_logprobs: Some(1), ..RequestParams::new(10, Arc::from([])) };
    let request = [EngineCoreRequest::new(prompt, 2, params)];
    engine.add_request(request[0].clone()).unwrap();
    for _ in 0..4 {
        assert!(engine.step(&model, &mut dev).unwrap().is_empty(), "the prompt needs eight steps");
    }
    engine.update_weights();
    assert_eq!(engine.load().num_used_blocks, 0);
    let mut updated = Answers::default();
    while engine.has_unfinished_requests() {
        engine.step(&other, &mut dev).unwrap().into_iter().for_each(|output| collect(&mut updated, output));
    }
    engine.release(&mut dev);
    let mut engine = Engine::new(&other, &mut dev, serving_limits()).unwrap();
    assert_eq!(serve(&other, &mut dev, &mut engine, &request, &[0], 1)[0], updated);
}

/// Returns the bytes of memory that the process uses, or 0 if the system does not tell.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

#[test]
fn thirty_thousand_requests_leave_the_engine_as_it_was() {
    let mut dev = cpu(1);
    let model = Model::init(&mut dev, config(), DType::F32, 5).unwrap();
    let limits = EngineConfig { max_num_seqs: 64, num_kv_blocks: Some(80), ..serving_limits() };
    let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
    let mut random = Random::new(3, Purpose::Test, 30);
    let (mut finished, mut aborted, mut baseline) = (0, 0, 0);
    let mut live: Vec<RequestId> = Vec::new();
    while finished < 20_000 || aborted < 10_000 {
        while live.len() < 64 {
            let ids = (0..1 + random.below(6)).map(|_| 10 + random.below(200) as u32).collect();
            let mut params = RequestParams::new(1 + random.below(4) as usize, Arc::from([7]));
            params.noise = Noise::of_seed(random.next_u64());
            params.penalties.frequency = if random.below(8) == 0 { 0.5 } else { 0.0 };
            params.prompt_logprobs = (random.below(16) == 0).then_some(1);
            let request = EngineCoreRequest::new(Arc::new(Prompt::text(ids)), 1, params);
            live.push(engine.add_request(request).unwrap());
        }
        for output in engine.step(&model, &mut dev).unwrap() {
            if output.finish.is_some() {
                finished += 1;
                live.retain(|&id| id != output.request);
            }
        }
        for _ in 0..random.below(20) {
            if !live.is_empty() {
                let id = live.swap_remove(random.below(live.len() as u64) as usize);
                assert!(engine.abort_request(id));
                aborted += 1;
            }
        }
        if baseline == 0 && finished > 3000 {
            baseline = resident();
        }
    }
    let grown = resident().saturating_sub(baseline);
    live.into_iter().for_each(|id| assert!(engine.abort_request(id)));
    let load = engine.load();
    println!("{finished} finished, {aborted} aborted, memory grew by {grown} bytes: {load:?}");
    assert_eq!((load.num_running, load.num_waiting, load.num_used_blocks), (0, 0, 0));
    // Other tests of this process run at the same time, so the bound is loose: 1 KiB for each request.
    assert!(!alone() || grown < 4 << 20, "{grown} bytes");
    assert!(engine.step(&model, &mut dev).unwrap().is_empty());
    engine.release(&mut dev);
    assert_eq!(dev.mark(Region::Overlay), cpu_mark());
}

/// Returns true if this test runs alone in its process, so that the process's memory is its own.
fn alone() -> bool {
    std::env::args().any(|argument| argument == "--exact")
}

fn cpu_mark() -> omr_runtime::device::Mark {
    cpu(1).mark(Region::Overlay)
}

#[test]
fn an_engine_that_serves_refuses_a_run() {
    let mut dev = cpu(1);
    let model = Model::init(&mut dev, config(), DType::F32, 5).unwrap();
    let run = requests(&config(), 2, 200, 1);
    let mut engine = Engine::new(&model, &mut dev, serving_limits()).unwrap();
    engine.add_request(with_seed(&run[0], 3)).unwrap();
    assert!(engine.generate(&model, &mut dev, &run).is_err());
    while engine.has_unfinished_requests() {
        engine.step(&model, &mut dev).unwrap();
    }
    let outputs = engine.generate(&model, &mut dev, &run).unwrap();
    engine.release(&mut dev);
    assert_same("an engine that has served", &outputs, &generate(&model, &mut dev, limits(), &run));
    // Without kept logits, only requests that need none are answered.
    let mut engine = Engine::new(&model, &mut dev, limits()).unwrap();
    let mut request = with_seed(&run[0], 3);
    assert!(engine.add_request(request.clone()).is_ok());
    request.params.logprobs = Some(1);
    assert!(engine.add_request(request).is_err());
}
