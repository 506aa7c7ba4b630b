//! `omr chat`: a chat with a model in the terminal.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use serde_json::{Map, json};

use super::Context;
use super::args::{Overrides, repository};
use super::stdout::Stdout;
use crate::config::{GenerateConfig, ServeConfig};
use crate::error::{Error, Result};
use crate::hub::Kind;
use crate::serve::{HELP, Options, Server, Terminal};

/// Arguments of `omr chat`.
#[derive(clap::Args)]
#[command(
    after_help = "In the chat, /image PATH adds a picture to the next message, /clear begins a new conversation, \
    and /exit or the end of the input ends the chat. The keys are those of omr generate: omr config generate."
)]
pub struct Args {
    /// Model directory or repository
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
}

/// Answers lines from stdin on stdout until they end.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(config) = args.overrides.load::<GenerateConfig>(None)? else { return Ok(()) };
    let options = Options {
        model: repository(&args.model, Kind::Model, "--model")?,
        root: args.model.display().to_string(),
        config: ServeConfig {
            all_ids: config.all_ids,
            dtype: config.dtype,
            max_model_len: config.max_model_len,
            max_num_batched_tokens: config.max_num_batched_tokens,
            // There is one conversation.
            max_num_seqs: 1,
            num_kv_blocks: config.num_kv_blocks,
            enable_prefix_caching: config.enable_prefix_caching,
            image_min_pixels: config.image_min_pixels,
            image_max_pixels: config.image_max_pixels,
        },
        ..Options::default()
    };
    let mut parameters = Map::new();
    let mut set = |name: &str, value| drop(parameters.insert(name.to_owned(), value));
    set("temperature", json!(config.temperature));
    set("top_p", json!(config.top_p));
    set("top_k", json!(config.top_k));
    set("min_p", json!(config.min_p));
    set("seed", json!(config.seed));
    set("ignore_eos", json!(config.ignore_eos));
    // The default of `omr generate` may exceed what a long conversation leaves.
    if args.overrides.overrides.iter().any(|key| key.starts_with("max_tokens=")) {
        set("max_tokens", json!(config.max_tokens));
    }
    let system = config.system_prompt.clone();
    let read = || {
        if std::io::stderr().is_terminal() {
            // Without the prompt the chat works as well.
            let _ = std::io::stderr().write_all(b"> ");
        }
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).map_err(Error::io("standard input"))?;
        Ok((read > 0).then_some(line))
    };
    let write = |text: &str| {
        let mut out = Stdout::lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("standard output"))
    };
    context.with_machine(|machine| {
        let server = Server::prepare(options, machine)?;
        context.say(HELP);
        server.chat(Terminal { parameters, system, read, write }, machine)
    })
}
