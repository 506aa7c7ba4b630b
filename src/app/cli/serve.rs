//! `omr serve`: answers requests of OpenAI's API, and serves a page for them.

use std::path::{Path, PathBuf};

use super::Context;
use super::args::{ModelArgs, repository};
use super::stdout::print;
use crate::serve::{Options, Server, listen};
use omr_base::config::ServeConfig;
use omr_base::error::{Error, Result};
use omr_base::hub::Kind;
use omr_base::secrets;
use omr_base::signal;
use omr_runtime::ops::sample::LogprobsMode;

/// Arguments of `omr serve`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    omr serve runs/digits/rl/model --reasoning-parser qwen3\n      \
        then open http://127.0.0.1:8000, or point a client of OpenAI's API at http://127.0.0.1:8000/v1\n\
    Keys such as dtype=bf16 or image_max_pixels=401408 set further engine settings: omr config serve lists them.\n\
    The first SIGTERM or Ctrl-C finishes the requests in flight, the second ends the server at once.")]
pub struct Args {
    #[command(flatten)]
    named: ModelArgs,
    /// Address to listen on. Without this option it is 127.0.0.1, and only requests to localhost are answered; other
    /// addresses accept requests of other machines
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on. 0 = a free one, which is printed
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Key that clients must send as `Authorization: Bearer KEY`. May be given several times
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// Key of the routes that pause the engine, abort requests and load weights. Without it, these routes do not exist
    #[arg(long, value_name = "KEY")]
    admin_api_key: Option<String>,
    /// Names of the model for clients; answers contain the first. Default: the model as it is given here
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    served_model_name: Vec<String>,
    /// An adapter (LoRA) of the model: requests for the model NAME get its answers, others those of the model itself
    #[arg(long, value_name = "NAME=DIR")]
    lora_modules: Option<String>,
    /// Maximum number of tokens of a prompt with its answer. Default: the limit in the model's config
    #[arg(long, value_name = "N")]
    max_model_len: Option<usize>,
    /// Maximum number of answers that are generated at once
    #[arg(long, value_name = "N")]
    max_num_seqs: Option<usize>,
    /// Parser that separates reasoning from answers: qwen3 = the text between <think> and </think>
    #[arg(long, value_parser = ["qwen3", "none"], default_value = "none")]
    reasoning_parser: String,
    /// Log-probs in answers: at temperature 1 without penalties, or of the distribution that tokens are sampled from
    #[arg(long, value_parser = ["raw_logprobs", "processed_logprobs"], default_value = "raw_logprobs")]
    logprobs_mode: String,
    /// Origins whose web pages may use the server, such as http://localhost:3000; * allows all. Default: none
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    allowed_origins: Vec<String>,
    /// Domains from which images may be loaded. Default: none
    #[arg(long, value_name = "DOMAIN", value_delimiter = ',')]
    allowed_media_domains: Vec<String>,
    /// Folder below which images may be loaded with file:// URLs. Default: none
    #[arg(long, value_name = "DIR")]
    allowed_local_media_path: Option<PathBuf>,
    /// File to which each request is appended with its answer, for omr replay --requests
    #[arg(long, value_name = "FILE")]
    record_requests: Option<PathBuf>,
    /// Refused with advice
    #[arg(long, value_name = "URL", hide = true)]
    compare_url: Option<String>,
}

/// Parses the value of `--lora-modules`.
pub(super) fn adapter(text: &str) -> Result<(String, PathBuf)> {
    const FLAG: &str = "--lora-modules";
    match text.split_once('=').filter(|(name, dir)| !name.is_empty() && !dir.is_empty() && !name.starts_with('{')) {
        Some((name, dir)) => Ok((name.to_owned(), repository(Path::new(dir), Kind::Model, FLAG)?)),
        None => Err(Error::input(FLAG, text, "NAME=DIR, the name for requests and the directory of the adapter")),
    }
}

/// Loads the model and answers requests until a signal ends the server.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    if let Some(url) = &args.compare_url {
        return Err(Error::input("--compare-url", url, "no such flag: open the pages of both servers side by side"));
    }
    let (root, mut overrides) = args.named.resolve()?;
    overrides.overrides.extend(args.max_model_len.map(|n| format!("max_model_len={n}")));
    overrides.overrides.extend(args.max_num_seqs.map(|n| format!("max_num_seqs={n}")));
    let Some(config) = overrides.load::<ServeConfig>(None, None)? else { return Ok(()) };
    let model = repository(Path::new(&root), Kind::Model, "MODEL")?;
    let config = ServeConfig { dtype: context.dtype(config.dtype, Some(&model)), ..config };
    args.api_key.iter().chain(&args.admin_api_key).for_each(|key| secrets::keep(key));
    let options = Options {
        model,
        root,
        config,
        names: args.served_model_name.clone(),
        adapter: args.lora_modules.as_deref().map(adapter).transpose()?,
        api_keys: args.api_key.clone(),
        admin_api_key: args.admin_api_key.clone(),
        has_reasoning_parser: args.reasoning_parser == "qwen3",
        logprobs_mode: match args.logprobs_mode.as_str() {
            "raw_logprobs" => LogprobsMode::Raw,
            _ => LogprobsMode::Processed,
        },
        allowed_origins: args.allowed_origins.clone(),
        allowed_media_domains: args.allowed_media_domains.clone(),
        allowed_local_media_path: args.allowed_local_media_path.clone(),
        only_localhost: args.host.is_none(),
        max_tokens: None,
        record_requests: args.record_requests.clone(),
    };
    let (listener, address) = listen(args.host.as_deref().unwrap_or("127.0.0.1"), args.port)?;
    context.with_machine(|machine| {
        let server = Server::prepare(options, machine)?;
        if !address.ip().is_loopback() && args.api_key.is_empty() {
            context.say("warning: other machines can use this server without a key; --api-key KEY requires one");
        }
        signal::listen(true);
        signal::wait(true);
        print(&format!("http://{address}\n"))?;
        context.say("serving; the page is at this address, the API below /v1; Ctrl-C ends the server");
        server.serve(listener, machine)
    })
}
