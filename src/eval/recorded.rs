//! `--responses`: answers recorded before, scored as a model's are.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::run::Measured;
use super::samples::{Answer, Sample};
use crate::data::json::jsonl;
use crate::error::{Error, Result};
use crate::reward::{Item, Judged};
use crate::task::{self, Answers, Task, TaskRows};

/// Recorded answers by task and question.
pub struct Recorded {
    /// The tasks they are of, by their own names, in the order of the file.
    pub tasks: Vec<String>,
    path: PathBuf,
    responses: HashMap<(String, u64), Vec<String>>,
}

#[derive(Deserialize)]
struct Line {
    task: String,
    index: u64,
    responses: Vec<String>,
}

/// Responses scored together.
const TOGETHER: usize = 4096;

impl Recorded {
    /// Reads lines `{"task", "index", "responses": [...]}`. Errors name the line: one that cannot be read, a task that
    /// is none, a question that stands there twice.
    pub fn read(path: &Path) -> Result<Recorded> {
        let mut recorded = Recorded { tasks: Vec::new(), path: path.to_owned(), responses: HashMap::new() };
        jsonl(path, usize::MAX, |at, fields| {
            let place = format!("{} line {}", path.display(), at.number);
            let expected = "{\"task\": name, \"index\": number, \"responses\": [text, ...]}";
            let line: Line = serde_json::from_value(fields?.into())
                .map_err(|error| Error::input(&place, error.to_string(), expected))?;
            let name = task::find(&line.task).map_err(|error| error.within(&place))?.name.to_owned();
            if !recorded.tasks.contains(&name) {
                recorded.tasks.push(name.clone());
            }
            if recorded.responses.insert((name, line.index), line.responses).is_some() {
                let found = format!("index {} of {} again", line.index, line.task);
                return Err(Error::input(&place, found, "each question once"));
            }
            Ok(())
        })?;
        Ok(recorded)
    }

    /// Scores the answers to a task's questions. Errors when a question has none recorded, or an answer no question.
    pub fn measure(&self, rows: &TaskRows, mode: crate::config::Mode) -> Result<Measured> {
        let name = rows.spec.name;
        let mut of_task: HashSet<u64> =
            self.responses.keys().filter(|(task, _)| task == name).map(|(_, index)| *index).collect();
        of_task.retain(|index| !rows.crashed.iter().any(|(crashed, _)| crashed == index));
        let mut samples = Vec::with_capacity(rows.indices.len());
        let mut items: Vec<Item> = Vec::new();
        for (index, row) in rows.indices.iter().zip(rows.rows()) {
            let missing = || {
                let found = format!("nothing for index {index} of {name}");
                Error::input(self.path.display().to_string(), found, "answers to every question measured")
            };
            let responses = self.responses.get(&(name.to_owned(), *index)).ok_or_else(missing)?;
            of_task.remove(index);
            items.extend(responses.iter().map(|response| rows.item(row, response)));
            samples.push((Sample::of(rows, *index, row), responses));
        }
        if !rows.limited
            && let Some(index) = of_task.iter().min()
        {
            let found = format!("index {index} of {name}");
            let expected = format!("questions of the {} there are", rows.indices.len() + rows.crashed.len());
            return Err(Error::input(self.path.display().to_string(), found, expected));
        }
        let mut judged = Vec::with_capacity(items.len());
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(TOGETHER));
            judged.extend(rows.scorer().score_all(std::mem::replace(&mut items, rest)));
        }
        let mut judged = judged.into_iter();
        let mut done = Vec::with_capacity(samples.len());
        for (mut sample, responses) in samples {
            for (response, judged) in responses.iter().zip(judged.by_ref()) {
                let answer = answer(response, judged?);
                match rows.spec.answers {
                    Answers::AsConfigured | Answers::Greedy if sample.greedy.is_none() => sample.greedy = Some(answer),
                    _ => sample.sampled.push(answer),
                }
            }
            done.push(sample);
        }
        Measured::new(rows, done, mode)
    }
}

fn answer(response: &str, judged: Judged) -> Answer {
    let Judged { score, judge, .. } = judged;
    Answer {
        response: response.to_owned(),
        response_length: 0,
        finish_reason: "recorded".to_owned(),
        score: score.score,
        acc_score: score.acc_score,
        format_reward_score: score.format_reward_score,
        predict_str: score.predict_str,
        why: score.why.to_string(),
        judge,
    }
}
