//! Answers recorded requests again, and compares the answers bit for bit.

use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::answer::Answer;
use super::app::App;
use super::errors::ApiError;
use super::record::{Line, RecordedChoice};
use super::requests::{Route, prepare};
use omr_base::error::{Error, Result};
use omr_base::files;

/// Number of requests that a replay answers at the same time.
const TOGETHER: usize = 16;

/// Result of a replay.
#[derive(Default, Debug)]
pub struct Replayed {
    /// Number of requests.
    pub requests: usize,
    /// Descriptions of the requests whose answers differ.
    pub differences: Vec<String>,
}

/// Answers the requests in `file` again and compares the answers.
pub async fn replay(app: &Arc<App>, file: &Path) -> Result<Replayed> {
    let text = files::read_to_string(file).map_err(Error::io(file))?;
    let parse = |(i, line): (usize, &str)| -> Result<(String, Line)> {
        let place = format!("{} line {}", file.display(), i + 1);
        let wrong = |e| format!("text that is not a recorded request ({e})");
        let line = serde_json::from_str(line);
        let line = line.map_err(|e| Error::input(&place, wrong(e), "a line of --record-requests"))?;
        Ok((place, line))
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let answers = lines.map(parse).collect::<Result<Vec<_>>>()?.into_iter().map(|(place, line)| {
        let app = app.clone();
        async move { again(&app, &line, &place).await }
    });
    let (mut replayed, mut answers) = (Replayed::default(), stream::iter(answers).buffer_unordered(TOGETHER));
    while let Some(difference) = answers.next().await {
        replayed.requests += 1;
        replayed.differences.extend(difference?);
    }
    replayed.differences.sort();
    Ok(replayed)
}

/// Answers a recorded request. Returns a description of the first difference.
async fn again(app: &Arc<App>, line: &Line, place: &str) -> Result<Option<String>> {
    let unknown = |_| Error::input(place, &line.route, "the path of a route that generates tokens");
    let route = line.route.parse::<Route>().map_err(unknown)?;
    let mut body = line.request.clone();
    // Names of models and requests do not affect the answer, except that of the adapter.
    let is_adapter = app.options.adapter.as_ref().is_some_and(|(name, _)| body["model"] == *name);
    for name in ["model", "request_id"].into_iter().skip(usize::from(is_adapter)) {
        body.as_object_mut().map(|body| body.shift_remove(name));
    }
    let failed = |error: ApiError| Error::Failed(format!("{place}: {}", error.json()["error"]["message"]));
    let mut request = prepare(app, route, body).await.map_err(failed)?;
    let of_server = app.options.logprobs_mode;
    request.prompts.iter_mut().for_each(|(_, params)| params.logprobs_mode = line.logprobs_mode.unwrap_or(of_server));
    let mut answer = Answer::begin(app, request).map_err(failed)?;
    while answer.next().await.map_err(failed)?.is_some() {}
    let found = answer.results();
    let differs = |(i, (a, b)): (usize, (&RecordedChoice, &RecordedChoice))| {
        let at = a.token_ids.iter().zip(&b.token_ids).position(|(a, b)| a != b);
        match at.or((a.token_ids.len() != b.token_ids.len()).then(|| a.token_ids.len().min(b.token_ids.len()))) {
            Some(at) => Some(format!("choice {i}: token {at} differs")),
            None if a.logprobs != b.logprobs => Some(format!("choice {i}: equal tokens, but log-probs differ")),
            None => None,
        }
    };
    let difference = match found.len() == line.choices.len() {
        true => line.choices.iter().zip(&found).enumerate().find_map(differs),
        false => Some(format!("{} choices instead of {}", found.len(), line.choices.len())),
    };
    let fingerprint = app.fingerprint();
    Ok(difference.map(|what| match fingerprint == line.system_fingerprint {
        true => format!("{place}: {what}"),
        false => format!("{place}: {what} (recorded with {}, now {fingerprint})", line.system_fingerprint),
    }))
}
