//! Sends an answer as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answer::Answer;
use super::app::App;
use super::errors::ApiError;
use super::format::Format;

/// The next event of a stream.
enum Next {
    Chunk,
    Done,
    Nothing,
}

/// Returns the response that streams an answer. If the client goes away, the response is dropped and the engine cancels
/// the request.
pub fn response(app: Arc<App>, answer: Answer) -> Response {
    let state = (app, answer, Next::Chunk);
    let events = futures_util::stream::unfold(state, |(app, mut answer, next)| async move {
        let (event, next) = event(&app, &mut answer, next).await?;
        Some((Ok::<Event, Infallible>(Event::default().data(event)), (app, answer, next)))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// Returns the next event and what follows it.
async fn event(app: &App, answer: &mut Answer, next: Next) -> Option<(String, Next)> {
    match next {
        Next::Chunk => match chunk(app, answer).await {
            Ok(Some(chunk)) => Some((chunk.to_string(), Next::Chunk)),
            Ok(None) if answer.request.output.include_usage => Some((usage(app, answer).to_string(), Next::Done)),
            Ok(None) => Some(("[DONE]".to_owned(), Next::Nothing)),
            Err(error) => Some((error.json().to_string(), Next::Done)),
        },
        Next::Done => Some(("[DONE]".to_owned(), Next::Nothing)),
        Next::Nothing => None,
    }
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
            chunk["usage"] = Value::Null;
        }
        return Ok(Some(chunk));
    }
    answer.end()?;
    Ok(None)
}

fn usage(app: &App, answer: &Answer) -> Value {
    let mut chunk = Format::new(app, &answer.request).answer(&answer.fingerprint(), Vec::new());
    chunk["usage"] = json!(answer.usage());
    chunk
}
