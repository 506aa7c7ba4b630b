//! `omr chat`: a chat with a model in the terminal.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use serde_json::json;

use super::Context;
use super::args::{ModelArgs, repository};
use super::stdout::print;
use crate::serve::{HELP, Options, Server};
use omr_base::config::{GenerateConfig, ServeConfig};
use omr_base::error::{Error, Result};
use omr_base::hub::Kind;

/// Arguments of `omr chat`.
#[derive(clap::Args)]
#[command(
    after_help = "In the chat, /image PATH adds an image to the next message, /clear begins a new conversation, \
    and /exit or the end of the input ends the chat. The keys are those of omr generate: omr config generate."
)]
pub struct Args {
    #[command(flatten)]
    named: ModelArgs,
}

/// Answers lines from stdin on stdout until they end.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let (root, overrides) = args.named.resolve()?;
    let Some(mut config) = overrides.load::<GenerateConfig>(None, None)? else { return Ok(()) };
    let model = repository(Path::new(&root), Kind::Model, "MODEL")?;
    config.dtype = context.dtype(config.dtype, Some(&model));
    // There is one conversation.
    let engine = ServeConfig { max_num_seqs: 1, ..config.engine() };
    let options = Options { model, root, config: engine, ..Options::default() };
    let mut parameters = config.parameters();
    parameters.insert("seed".to_owned(), json!(config.seed));
    parameters.insert("chat_template_kwargs".to_owned(), config.chat_template_kwargs.variables().into());
    // The default of `omr generate` may exceed what a long conversation leaves.
    if overrides.sets("max_tokens") {
        parameters.insert("max_tokens".to_owned(), json!(config.max_tokens));
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
    context.with_machine(|machine| {
        let server = Server::prepare(options, machine)?;
        context.say(HELP);
        server.chat(parameters, system, read, print, machine)
    })
}
