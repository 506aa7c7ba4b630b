//! Sends an answer as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::answer::Answer;
use super::app::App;
use super::errors::ApiError;
use super::format::Format;

/// Returns the response that streams an answer. If the client goes away, the response is dropped and the engine cancels
/// the request.
pub fn response(app: Arc<App>, answer: Answer) -> Response {
    // The state is `None` after the last chunk.
    let chunks = stream::unfold(Some((app, answer)), |state| async move {
        let (app, mut answer) = state?;
        match chunk(&app, &mut answer).await {
            Ok(Some(chunk)) => Some((chunk.to_string(), Some((app, answer)))),
            Ok(None) if answer.request.output.include_usage => Some((usage(&app, &answer).to_string(), None)),
            Ok(None) => None,
            Err(error) => Some((error.json().to_string(), None)),
        }
    });
    let texts = chunks.chain(stream::iter(["[DONE]".to_owned()]));
    let events = texts.map(|text| Ok::<Event, Infallible>(Event::default().data(text)));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

async fn chunk(app: &App, answer: &mut Answer) -> Result<Option<Value>, ApiError> {
    let request = answer.request.clone();
    let format = Format::new(app, &request);
    while let Some((index, delta)) = answer.next().await? {
        if !format.is_visible(&delta) {
            continue;
        }
        let mut chunk = format.answer(&answer.fingerprint(), vec![format.choice(index, &delta)]);
        if delta.is_first && index == 0 {
            format.add_prompt(&mut chunk, delta.prompt_logprobs.as_deref());
        }
        if request.output.include_usage {
            chunk["usage"] = if request.output.continuous_usage { json!(answer.usage()) } else { Value::Null };
        }
        return Ok(Some(chunk));
    }
    answer.check_server()?;
    answer.end()?;
    Ok(None)
}

fn usage(app: &App, answer: &Answer) -> Value {
    let mut chunk = Format::new(app, &answer.request).answer(&answer.fingerprint(), Vec::new());
    chunk["usage"] = json!(answer.usage());
    chunk
}
