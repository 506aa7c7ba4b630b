//! Tests of a request's parameters and of the log-probs that it receives.

use std::sync::Arc;

use omr_model::engine::{Engine, EngineConfig, EngineCoreRequest, Finish, Prompt, RequestParams};
use omr_model::nn::{Inputs, LayerPolicy, Mode, Model, Policy, Tape};
use omr_runtime::device::Device;
use omr_runtime::ops::sample::{LogprobsMode, Penalties, SamplingParams};
use omr_runtime::tensor::DType;

use super::parity::{bits, config, few_ids};
use super::serving::{Answer, cpu, mixed, serve, serving_limits};

const VOCAB: usize = 300;

/// Returns the trainer's log-probs of the tokens of `ids` from `from` on, at a temperature.
fn trained(model: &Model, dev: &mut Device, prompt: &Prompt, ids: &[u32], from: usize, temperature: f32) -> Vec<f32> {
    let mut inputs = Inputs::empty();
    inputs.push(&model.config, ids, &prompt.pixels, prompt.token_ids.len()).unwrap();
    let mut tape = Tape::new(dev, Mode::train(LayerPolicy::All));
    let hidden = model.forward(&mut tape, dev, &inputs).unwrap();
    let rows: Vec<u32> = (from as u32 - 1..ids.len() as u32 - 1).collect();
    let rows = tape.upload(dev, &rows, &[rows.len()]).unwrap();
    let hidden = tape.gather(dev, hidden, rows, None).unwrap();
    let targets = tape.upload(dev, &ids[from..], &[ids.len() - from]).unwrap();
    let policy = Policy { allowed: None, temperature };
    let (logprobs, _) = tape.linear_logprob(dev, hidden, model.decoder.lm_head, policy, targets, false).unwrap();
    let logprobs = dev.read::<f32>(logprobs.tensor).unwrap();
    tape.finish(dev);
    logprobs
}

#[test]
fn rollout_raw_and_prompt_log_probs_are_the_trainers() {
    let mut requests = mixed(60, 400);
    for (at, request) in requests.iter_mut().enumerate() {
        request.params.logprobs = Some(at % 3);
        request.params.logprobs_mode = LogprobsMode::Raw;
        request.params.prompt_logprobs = (at % 2 == 0).then_some(1);
    }
    for dtype in [DType::F32, DType::Bf16] {
        let mut dev = cpu(2);
        let model = Model::init(&mut dev, config(), dtype, 5).unwrap();
        let limits = EngineConfig { max_num_batched_tokens: 150, ..serving_limits() };
        let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
        let (mut tokens, mut prompt_tokens) = (0, 0);
        for request in &requests {
            let id = engine.add_request(request.clone()).unwrap();
            let mut choices = vec![(request.prompt.token_ids.clone(), Vec::new(), Vec::new()); request.n];
            let mut of_prompt = None;
            while engine.has_unfinished_requests() {
                for output in engine.step(&model, &mut dev).unwrap() {
                    assert_eq!(output.request, id);
                    let token = output.token.unwrap();
                    let (ids, rollout, raw) = &mut choices[output.choice];
                    ids.push(token.token_id);
                    rollout.push(token.rollout_logprob);
                    raw.push(token.logprob.unwrap());
                    assert!(token.top_logprobs.is_sorted_by(|a, b| {
                        a.logprob > b.logprob || (a.logprob == b.logprob && a.token_id < b.token_id)
                    }));
                    if let Some(prompt) = output.prompt_logprobs {
                        of_prompt = Some(prompt);
                    }
                }
            }
            let p = request.prompt.token_ids.len();
            for (ids, rollout, raw) in &choices {
                let temperature = request.params.sampling.temperature;
                let want = trained(&model, &mut dev, &request.prompt, ids, p, temperature);
                assert_eq!(bits(rollout), bits(&want));
                assert_eq!(bits(raw), bits(&trained(&model, &mut dev, &request.prompt, ids, p, 1.0)));
                tokens += raw.len();
            }
            assert_eq!(of_prompt.is_some(), request.params.prompt_logprobs.is_some());
            if let Some(of_prompt) = of_prompt.filter(|_| p > 1) {
                let found: Vec<f32> = of_prompt.iter().map(|token| token.logprob).collect();
                let ids: Vec<u32> = of_prompt.iter().map(|token| token.token_id).collect();
                assert_eq!(ids, request.prompt.token_ids[1..]);
                let ids = &choices[0].0;
                let want = trained(&model, &mut dev, &request.prompt, ids, 1, 1.0);
                assert_eq!(bits(&found), bits(&want[..p - 1]));
                assert!(of_prompt.iter().all(|t| (t.rank == 1) == (t.top_logprobs[0].token_id == t.token_id)));
                prompt_tokens += p - 1;
            }
        }
        println!("{dtype:?}: {tokens} sampled tokens, {prompt_tokens} tokens of prompts: 0 differing bits");
    }
}

#[test]
fn limits_of_tokens_and_ids_hold() {
    let mut dev = cpu(2);
    let model = Model::init(&mut dev, config(), DType::F32, 5).unwrap();
    let allowed = Some(few_ids(&mut dev));
    let mut engine = Engine::new(&model, &mut dev, EngineConfig { allowed, ..serving_limits() }).unwrap();
    let prompt = Arc::new(Prompt::text((10..200).collect()));
    let plain = RequestParams::new(40, Arc::from([20]));
    let mut answer = |params: RequestParams| {
        let request = EngineCoreRequest::new(prompt.clone(), 8, params);
        let answers = serve(&model, &mut dev, &mut engine, &[request], &[0], 1);
        answers[0].0.values().cloned().collect::<Vec<Answer>>()
    };
    // Only ids 20 to 23 can be sampled, and 20 ends.
    let short = answer(plain.clone());
    assert!(short.iter().any(|a| a.token_ids.len() < 12 && a.finish == Some(Finish::Stop(20))));
    let long = answer(RequestParams { min_tokens: 12, ..plain.clone() });
    assert!(long.iter().all(|a| a.token_ids.len() > 12 && !a.token_ids[..12].contains(&20)), "{long:?}");
    let past = answer(RequestParams { ignore_eos: true, ..plain.clone() });
    assert!(past.iter().all(|a| a.finish == Some(Finish::Length) && a.token_ids.contains(&20)));
    let own = answer(RequestParams { ignore_eos: true, stop_token_ids: vec![22], ..plain.clone() });
    assert!(own.iter().any(|a| a.finish == Some(Finish::Stop(22)) && a.token_ids.last() == Some(&22)));
    let two = answer(RequestParams { allowed_token_ids: Some(vec![21, 23, 50]), ..plain.clone() });
    assert!(two.iter().all(|a| a.token_ids.iter().all(|id| [21, 23].contains(id))));
    let none = answer(RequestParams { allowed_token_ids: Some(vec![50]), ..plain.clone() });
    assert!(none.iter().all(|a| matches!(a.finish, Some(Finish::Failed(_))) && a.token_ids.is_empty()), "{none:?}");
    let biased = answer(RequestParams { logit_bias: vec![(23, 100.0)], ..plain });
    assert!(biased.iter().all(|a| a.token_ids == [23; 40]));
}

#[test]
fn parameters_out_of_range_name_their_field() {
    let plain = RequestParams::new(10, Arc::from([7]));
    assert!(plain.validate(VOCAB).is_ok());
    let penalties = |penalties| RequestParams { penalties, ..plain.clone() };
    let cases = [
        (
            "temperature",
            RequestParams { sampling: SamplingParams { temperature: -1.0, ..plain.sampling }, ..plain.clone() },
        ),
        ("presence_penalty", penalties(Penalties { presence: 2.1, ..Penalties::NONE })),
        ("frequency_penalty", penalties(Penalties { frequency: f32::NAN, ..Penalties::NONE })),
        ("repetition_penalty", penalties(Penalties { repetition: 0.0, ..Penalties::NONE })),
        ("max_tokens", RequestParams { max_tokens: 0, ..plain.clone() }),
        ("min_tokens", RequestParams { min_tokens: 11, ..plain.clone() }),
        ("logprobs", RequestParams { logprobs: Some(21), ..plain.clone() }),
        ("prompt_logprobs", RequestParams { prompt_logprobs: Some(21), ..plain.clone() }),
        ("logit_bias", RequestParams { logit_bias: vec![(3, f32::INFINITY)], ..plain.clone() }),
        ("logit_bias", RequestParams { logit_bias: vec![(300, 1.0)], ..plain.clone() }),
        ("stop_token_ids", RequestParams { stop_token_ids: vec![300], ..plain.clone() }),
        ("allowed_token_ids", RequestParams { allowed_token_ids: Some(Vec::new()), ..plain.clone() }),
        ("allowed_token_ids", RequestParams { allowed_token_ids: Some(vec![301]), ..plain.clone() }),
        ("allowed_token_ids", RequestParams { allowed_token_ids: Some(vec![7]), min_tokens: 1, ..plain.clone() }),
    ];
    for (name, params) in cases {
        let error = params.validate(VOCAB).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{name}: ")), "{name}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}
