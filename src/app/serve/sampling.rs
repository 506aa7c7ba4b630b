//! The sampling parameters of a request, with vLLM's names.

use serde_json::{Value, json};

use super::app::App;
use super::errors::{Api, ApiError};
use super::fields::Fields;
use omr_base::error::Error;
use omr_model::engine::{Noise, RequestParams};
use omr_runtime::ops::sample::SamplingParams;

/// Maximum number of choices of a prompt.
pub const MAX_CHOICES: u64 = 64;
/// Maximum number of top log-probs of a token, as in OpenAI's API.
pub const MAX_LOGPROBS: u64 = omr_model::engine::MAX_LOGPROBS as u64;
/// Maximum number and length of stop strings.
const MAX_STOPS: usize = 16;
const LONGEST_STOP: usize = 1024;
/// Lower temperatures count as this one, as in vLLM, because logits divided by them are not finite.
const LOWEST_TEMPERATURE: f32 = 0.01;
/// Exclusive upper bound of seeds that the server draws. JavaScript reads such numbers exactly.
const DRAWN_SEEDS: u64 = 1 << 53;

/// Names of the sampling parameters whose meaning does not depend on the form of the answer.
pub const NAMES: &str = "temperature top_p top_k min_p seed n min_tokens stop stop_token_ids ignore_eos presence_penalty \
    frequency_penalty repetition_penalty logit_bias allowed_token_ids include_stop_str_in_output skip_special_tokens";

/// The sampling parameters of a request.
pub struct Sampling {
    /// Parameters of the engine. The caller sets `max_tokens`, `logprobs` and, for `echo`, `prompt_logprobs`.
    pub params: RequestParams,
    /// Maximum number of tokens of an answer, if it is given.
    pub max_tokens: Option<usize>,
    /// Name of the field with the maximum number of tokens, for errors.
    pub limit: String,
    /// Number of choices.
    pub n: usize,
    /// Strings that end an answer.
    pub stop: Vec<String>,
    /// True if an answer contains the stop string that ends it.
    pub include_stop: bool,
    /// True if special tokens have no text.
    pub skip_special: bool,
    /// Text before the names of these fields in errors.
    pub prefix: String,
}

impl Sampling {
    /// Returns the checked parameters of the engine for choices of at most `max_tokens` tokens.
    pub fn params(&self, max_tokens: usize, vocab_size: usize) -> Api<RequestParams> {
        let params = RequestParams { max_tokens, ..self.params.clone() };
        params.validate(vocab_size).map(|()| params).map_err(|error| match &error {
            Error::Input { place, .. } => {
                let param = format!("{}{}", self.prefix, place.trim_start_matches('.'));
                ApiError::refused(&param, error)
            }
            _ => ApiError::internal(&error),
        })
    }
}

/// Reads the sampling parameters. A seed that is not given is drawn.
pub fn read(fields: &mut Fields, app: &App) -> Api<Sampling> {
    let vocab_size = app.config.text.vocab_size;
    let mut params = RequestParams::new(1, app.chat.turn.stops.clone());
    let temperature = fields.number("temperature", 1.0, 0.0..=100.0)?;
    params.sampling = SamplingParams {
        temperature: if temperature > 0.0 { temperature.max(LOWEST_TEMPERATURE) } else { 0.0 },
        top_p: fields.number("top_p", 1.0, f64::from(f32::MIN_POSITIVE)..=1.0)?,
        top_k: fields.read("top_k", "-1 or 0 (all tokens), or a number of tokens", top_k)?.unwrap_or(0),
        min_p: fields.number("min_p", 0.0, 0.0..=1.0)?,
    };
    params.noise = Noise::of_seed(match fields.read("seed", "a whole number of at most 64 bits", seed)?.flatten() {
        Some(seed) => seed,
        None => {
            let failed = |e| ApiError::internal(&Error::Failed(format!("the system has no random numbers: {e}")));
            getrandom::u64().map_err(failed)? % DRAWN_SEEDS
        }
    });
    params.min_tokens = fields.count("min_tokens", 0..=u64::from(u32::MAX))?.unwrap_or(0) as usize;
    params.stop_token_ids = fields.ids("stop_token_ids", vocab_size)?.unwrap_or_default();
    params.ignore_eos = fields.bool("ignore_eos", false)?;
    params.penalties.presence = fields.number("presence_penalty", 0.0, -2.0..=2.0)?;
    params.penalties.frequency = fields.number("frequency_penalty", 0.0, -2.0..=2.0)?;
    params.penalties.repetition = fields.number("repetition_penalty", 1.0, 0.01..=100.0)?;
    let expected = format!("an object of token ids below {vocab_size} with numbers from -100 to 100");
    params.logit_bias = fields.read("logit_bias", &expected, |v| logit_bias(v, vocab_size))?.unwrap_or_default();
    params.allowed_token_ids = fields.ids("allowed_token_ids", vocab_size)?;
    let never_occurs =
        |id: &&u32| app.allowed.as_ref().is_some_and(|bits| bits[**id as usize / 32] >> (**id % 32) & 1 == 0);
    if let Some(id) = params.allowed_token_ids.iter().flatten().find(never_occurs) {
        return Err(ApiError::field(fields.name("allowed_token_ids"), id, "ids that answers can contain"));
    }
    params.prompt_logprobs = fields.count("prompt_logprobs", 0..=MAX_LOGPROBS)?.map(|n| n as usize);
    params.logprobs_mode = app.options.logprobs_mode;
    let most = u64::from(u32::MAX);
    let (old, new) = (fields.count("max_tokens", 0..=most)?, fields.count("max_completion_tokens", 1..=most)?);
    let limit = if new.is_some() { "max_completion_tokens" } else { "max_tokens" };
    let stop = fields.read("stop", "a string or a list of at most 16 strings, none of them empty", stop_strings)?;
    let sampling = Sampling {
        params,
        max_tokens: new.or(old).map(|n| n as usize),
        limit: fields.name(limit),
        n: fields.count("n", 1..=MAX_CHOICES)?.unwrap_or(1) as usize,
        stop: stop.unwrap_or_default(),
        include_stop: fields.bool("include_stop_str_in_output", false)?,
        skip_special: fields.bool("skip_special_tokens", true)?,
        prefix: fields.name(""),
    };
    let beams = [("use_beam_search", json!(false)), ("best_of", json!(1)), ("length_penalty", json!(1.0))];
    fields.only(&beams, "no beams")?;
    fields.only(&[("bad_words", json!([]))], "not supported")?;
    fields.without_effect(&["spaces_between_special_tokens", "detokenize"]);
    Ok(sampling)
}

fn top_k(value: &Value) -> Option<u32> {
    value.as_i64().filter(|k| *k >= -1).and_then(|k| u32::try_from(k.max(0)).ok())
}

/// Reads a seed. -1 is none, as in vLLM. Any other negative number stands for its 64 bits.
fn seed(value: &Value) -> Option<Option<u64>> {
    let bits = value.as_u64().or_else(|| value.as_i64().map(|seed| seed as u64))?;
    Some(Some(bits).filter(|_| value.as_i64() != Some(-1)))
}

fn logit_bias(value: &Value, vocab_size: usize) -> Option<Vec<(u32, f32)>> {
    let one = |(id, bias): (&String, &Value)| {
        let id = id.parse::<u32>().ok().filter(|&id| (id as usize) < vocab_size)?;
        Some((id, bias.as_f64().filter(|bias| bias.abs() <= 100.0)? as f32))
    };
    value.as_object()?.iter().map(one).collect()
}

fn stop_strings(value: &Value) -> Option<Vec<String>> {
    let list = match value {
        Value::String(_) => std::slice::from_ref(value),
        other => other.as_array()?,
    };
    let one = |stop: &Value| stop.as_str().filter(|s| (1..=LONGEST_STOP).contains(&s.len())).map(str::to_owned);
    if list.len() > MAX_STOPS { None } else { list.iter().map(one).collect() }
}
