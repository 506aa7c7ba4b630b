//! A chat in a terminal: several turns with one conversation.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::app::App;
use super::errors::Api;
use super::requests::{Route, prepare};
use super::server::Server;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_runtime::machine::Machine;

/// The commands of a chat.
pub const HELP: &str = "/image PATH adds an image to the next message, /clear begins anew, /exit ends the chat";

impl Server {
    /// Answers the lines of a user, which `read` returns, until it returns `None`. `write` shows text to the user.
    /// `parameters` are the sampling parameters of each turn, as fields of a chat request. Without `system`, the system
    /// prompt is that of the chat template.
    pub fn chat(
        self,
        parameters: Map<String, Value>,
        system: Option<String>,
        mut read: impl FnMut() -> Result<Option<String>> + Send + 'static,
        mut write: impl FnMut(&str) -> Result<()> + Send + 'static,
        machine: &Machine,
    ) -> Result<()> {
        let app = self.app.clone();
        self.with_client(machine, async move {
            let begin: Vec<Value> = system.iter().map(|text| json!({"role": "system", "content": text})).collect();
            let (mut messages, mut images) = (begin.clone(), Vec::new());
            // The user's next line is awaited in this task, because nothing else happens meanwhile.
            while let Some(line) = tokio::task::block_in_place(&mut read)? {
                let line = line.trim();
                let note = match line.split_once(' ').unwrap_or((line, "")) {
                    ("", _) => continue,
                    ("/exit", _) => break,
                    ("/clear", _) => {
                        (messages, images) = (begin.clone(), Vec::new());
                        Some("a new conversation".to_owned())
                    }
                    ("/image", path) => match image(Path::new(path.trim())) {
                        Ok(part) => {
                            images.push(part);
                            Some(format!("{} is part of the next message", path.trim()))
                        }
                        Err(error) => Some(error.to_string()),
                    },
                    (command, _) if command.starts_with('/') => Some(format!("unknown command {command}: {HELP}")),
                    _ => None,
                };
                if let Some(note) = note {
                    write(&format!("{note}\n"))?;
                    continue;
                }
                let mut content = std::mem::take(&mut images);
                content.push(json!({"type": "text", "text": line}));
                messages.push(json!({"role": "user", "content": content}));
                match turn(&app, &messages, &parameters, &mut write).await {
                    Ok(text) => messages.push(json!({"role": "assistant", "content": text?})),
                    Err(error) => {
                        messages.pop();
                        write(&format!("{}\n", error.json()["error"]["message"].as_str().unwrap_or_default()))?;
                    }
                }
            }
            Ok(())
        })
    }
}

/// Answers a conversation and shows the answer while it is generated. Returns its text.
async fn turn(
    app: &Arc<App>,
    messages: &[Value],
    parameters: &Map<String, Value>,
    write: &mut impl FnMut(&str) -> Result<()>,
) -> Api<Result<String>> {
    let mut body = parameters.clone();
    body.insert("messages".to_owned(), json!(messages));
    body.insert("stream".to_owned(), json!(true));
    let mut answer = Answer::begin(app, prepare(app, Route::Chat, Value::Object(body)).await?)?;
    let mut text = String::new();
    while let Some((_, delta)) = answer.next().await? {
        if let Err(error) = write(&delta.text) {
            return Ok(Err(error));
        }
        text += &delta.text;
    }
    Ok(write("\n").map(|()| text))
}

fn image(path: &Path) -> Result<Value> {
    let bytes = files::read(path).map_err(Error::io(path))?;
    Ok(json!({"type": "image_url", "image_url": {"url": format!("data:;base64,{}", STANDARD.encode(bytes))}}))
}
