//! Reads recorded answers for `--responses`. They are scored like the answers of a model.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::measured::{Answers, QuestionAnswers};
use omr_base::client::Completion;
use omr_base::error::{Error, Result};
use omr_data::rows::Row;
use omr_data::rows::readers::json::jsonl;
use omr_data::task::{self, Answers as AnswerSettings, Crash, TaskSpec};
use omr_verify::extract;

/// Recorded answers by task and question.
pub struct Recorded {
    /// Names of the tasks in the file, in the order of the file.
    pub tasks: Vec<String>,
    path: PathBuf,
    responses: HashMap<(String, u64), (String, Vec<String>)>,
}

#[derive(Deserialize)]
struct Line {
    task: String,
    index: u64,
    /// Text of the assistant's turn before each response.
    #[serde(default)]
    opened: String,
    responses: Vec<String>,
}

impl Recorded {
    /// Reads lines `{"task", "index", "responses": [...], "opened"?}`. Returns an error that names the line if a line is invalid,
    /// if a task is neither known nor `own` (the user-defined task), or if a question occurs twice.
    pub fn read(path: &Path, own: Option<&TaskSpec>) -> Result<Recorded> {
        let mut recorded = Recorded { tasks: Vec::new(), path: path.to_owned(), responses: HashMap::new() };
        jsonl(path, usize::MAX, |at, fields| {
            let place = format!("{} line {}", path.display(), at.number);
            let expected = "{\"task\": name, \"index\": number, \"responses\": [text, ...]}";
            let line: Line = serde_json::from_value(fields?.into())
                .map_err(|error| Error::input(&place, error.to_string(), expected))?;
            let name = match own.filter(|own| own.name == line.task) {
                Some(own) => own.name.to_owned(),
                None => task::find(&line.task).map_err(|error| error.within(&place))?.name.to_owned(),
            };
            if line.responses.is_empty() {
                return Err(Error::input(&place, "no responses", expected));
            }
            if !recorded.tasks.contains(&name) {
                recorded.tasks.push(name.clone());
            }
            if recorded.responses.insert((name, line.index), (line.opened, line.responses)).is_some() {
                let found = format!("a second line for index {} of {}", line.index, line.task);
                return Err(Error::input(&place, found, "one line per question"));
            }
            Ok(())
        })?;
        Ok(recorded)
    }

    /// Returns true if no line says what was before the responses, and no response opens thinking itself.
    pub fn is_opened_unknown(&self) -> bool {
        let opens = |text: &String| extract::opening(text).is_some();
        self.responses.values().all(|(opened, all)| opened.is_empty() && !all.iter().any(opens))
    }

    /// Returns the answers to a task's questions.
    pub fn of(&self, spec: &'static TaskSpec) -> TaskAnswers<'_> {
        let of_task = self.responses.keys().filter(|(task, _)| task == spec.name);
        TaskAnswers { recorded: self, spec, left: of_task.map(|(_, index)| *index).collect() }
    }
}

/// Recorded answers to one task's questions.
pub struct TaskAnswers<'a> {
    recorded: &'a Recorded,
    spec: &'static TaskSpec,
    /// Question numbers that were not requested yet.
    left: HashSet<u64>,
}

impl Answers for TaskAnswers<'_> {
    fn opened(&self, _: &Row, index: u64) -> String {
        let recorded = self.recorded.responses.get(&(self.spec.name.to_owned(), index));
        recorded.map(|(opened, _)| opened.clone()).unwrap_or_default()
    }

    fn given(&mut self, _: usize, index: u64) -> Result<QuestionAnswers> {
        let name = self.spec.name;
        let missing = || {
            let found = format!("no answer to index {index} of {name}");
            Error::input(&self.recorded.path, found, "an answer to every evaluated question")
        };
        let (_, responses) = self.recorded.responses.get(&(name.to_owned(), index)).ok_or_else(missing)?;
        self.left.remove(&index);
        let mut all = responses.iter().map(|response| Completion {
            text: response.clone(),
            finish_reason: "recorded".to_owned(),
            prompt_tokens: 0,
            completion_tokens: 0,
        });
        let greedy = if matches!(self.spec.answers, AnswerSettings::Sampled(_)) { None } else { all.next() };
        Ok(QuestionAnswers { greedy, sampled: all.collect() })
    }

    fn over(&mut self, questions: usize, crashed: &[(u64, Crash)], limited: bool) -> Result<()> {
        self.left.retain(|index| !crashed.iter().any(|(crashed, _)| crashed == index));
        let Some(index) = self.left.iter().min().filter(|_| !limited) else { return Ok(()) };
        let found = format!("index {index} of {}", self.spec.name);
        let expected = format!("an index below the number of questions, {}", questions + crashed.len());
        Err(Error::input(&self.recorded.path, found, expected))
    }
}
