//! Defines which answers a task requires, and stores them. The key of an answer consists of the model, the content of
//! the question and the sampling settings, so a run that is killed at any moment continues with the missing answers.

use std::sync::Arc;

use super::measured::{self, QuestionAnswers};
use super::survey::Survey;
use omr_base::answers::{Key, RunStore};
use omr_base::client::Completion;
use omr_base::config::{EvalConfig, Mode};
use omr_base::error::{Error, Result};
use omr_data::image::JPEG_DECODER;
use omr_data::rows::Row;
use omr_data::task::{Answers, Crash, TaskRows, TaskSpec};
use omr_data::text::Chat;
use omr_runtime::ops::sample::SamplingParams;

/// Default top_p of lmms-eval's vLLM back-end. The published AIME scores were sampled with it.
const PUBLISHED_TOP_P: f32 = 0.95;

/// Answers required per question: at most one greedy answer, then those at temperature 1.
#[derive(Clone, Copy, Debug)]
pub struct AnswerSettings {
    /// Number of greedy answers: 1 or 0.
    pub greedy: usize,
    /// Number of answers at temperature 1.
    pub sampled: usize,
    /// Maximum number of tokens of an answer.
    pub max_tokens: usize,
    /// Top-p of the answers at temperature 1.
    pub top_p: f32,
    /// Seed of sampling.
    pub seed: u64,
}

impl AnswerSettings {
    /// Returns the answers that a config requires of a task.
    pub fn of(spec: &TaskSpec, config: &EvalConfig) -> AnswerSettings {
        let (greedy, sampled) = match spec.answers {
            Answers::AsConfigured => (usize::from(config.greedy), config.repeats),
            Answers::Greedy => (1, 0),
            Answers::Sampled(n) => (0, n),
        };
        let top_p = match (config.mode, spec.answers) {
            (Mode::Compat, Answers::Sampled(_)) => PUBLISHED_TOP_P,
            _ => SamplingParams::default().top_p,
        };
        let max_tokens = config.max_new_tokens.unwrap_or(spec.max_new_tokens);
        AnswerSettings { greedy, sampled, max_tokens, top_p, seed: config.seed }
    }

    /// Returns the number of answers to a question.
    pub fn answers(&self) -> usize {
        self.greedy + self.sampled
    }

    /// Returns the sampling parameters of answer `k`.
    pub fn sampling(&self, k: usize) -> SamplingParams {
        match k < self.greedy {
            true => SamplingParams { top_p: self.top_p, ..SamplingParams::greedy() },
            false => SamplingParams { top_p: self.top_p, ..SamplingParams::default() },
        }
    }

    /// Returns the index of answer `k` among those at temperature 1, or `None` for the greedy answer.
    pub fn rollout(&self, k: usize) -> Option<usize> {
        k.checked_sub(self.greedy)
    }
}

/// Questions of a task for a model or a server.
pub struct TaskQuestions<'a> {
    /// Rows of the task.
    pub rows: &'a TaskRows<'a>,
    /// Questions of the task.
    pub survey: Survey,
    /// Required answers per question.
    pub answer_settings: AnswerSettings,
    /// Identity of the model or server that answers.
    pub who: &'a str,
    /// Chat template of the model; `None` for a server, whose template is not known.
    pub chat: Option<&'a Chat>,
}

impl TaskQuestions<'_> {
    /// Returns the number of questions.
    pub fn count(&self) -> usize {
        self.survey.indices.len()
    }

    /// Returns the number of required answers.
    pub fn answers(&self) -> usize {
        self.count() * self.answer_settings.answers()
    }

    /// Returns the key of answer `k` to question `i`. Random numbers depend only on the question's number in the task,
    /// the answer's number and the seed, not on other requests.
    pub fn key(&self, i: usize, k: usize) -> Key {
        let AnswerSettings { max_tokens, top_p, seed, .. } = self.answer_settings;
        let decoder = if self.survey.jpegs.get(i) == Some(&true) { JPEG_DECODER } else { "" };
        let how = match self.answer_settings.rollout(k) {
            None => format!("greedy, {max_tokens} tokens{decoder}"),
            Some(rollout) => {
                let question = self.survey.indices[i];
                format!("temperature 1, top_p {top_p}, {max_tokens} tokens, seed {seed}, {question} {rollout}{decoder}")
            }
        };
        Key::new(self.who, &self.survey.contents[i], &how)
    }

    /// Returns a name of answer `k` to question `i` for messages.
    pub fn label(&self, i: usize, k: usize) -> String {
        let of =
            self.answer_settings.rollout(k).map_or_else(|| "greedy".to_owned(), |rollout| format!("sample {rollout}"));
        format!("{} index {} {of}", self.rows.spec.name, self.survey.indices[i])
    }

    fn changed(&self, i: usize) -> Error {
        let found =
            format!("questions that differ from those at the start of the run, beginning with question {}", i + 1);
        Error::input(self.rows.spec.name, found, "unchanged data")
    }

    /// Combines the questions, their required answers and `store`.
    pub fn requests<'b>(&'b self, store: &'b Arc<RunStore>) -> TaskRequests<'b> {
        TaskRequests { questions: self, store }
    }
}

/// Questions of a task, and the store with the existing answers.
pub struct TaskRequests<'a> {
    /// The questions and the required answers.
    pub questions: &'a TaskQuestions<'a>,
    /// Store of the answers.
    pub store: &'a Arc<RunStore>,
}

impl TaskRequests<'_> {
    /// Returns the numbers of the missing answers to question `i`.
    pub fn missing(&self, i: usize) -> Result<Vec<usize>> {
        let (store, mut missing) = (self.store.get()?, Vec::new());
        for k in 0..self.questions.answer_settings.answers() {
            if !store.has(&self.questions.key(i, k))? {
                missing.push(k);
            }
        }
        Ok(missing)
    }

    /// Returns the questions with missing answers for rank `rank` of `size`, and the number of their missing answers.
    /// Questions are assigned by a hash of their content, so that equal questions, also of other tasks, belong to one
    /// rank, which requests them once. The assignment must not depend on the store, because the ranks' stores differ
    /// from the second task on.
    pub fn share(&self, rank: usize, size: usize) -> Result<(Vec<usize>, usize)> {
        let (mut questions, mut answers) = (Vec::new(), 0);
        let is_of_rank = |[a, b, c, d, ..]: [u8; 32]| u32::from_le_bytes([a, b, c, d]) as usize % size == rank;
        for i in (0..self.questions.survey.indices.len()).filter(|&i| is_of_rank(self.questions.survey.contents[i])) {
            let missing = self.missing(i)?.len();
            if missing > 0 {
                questions.push(i);
                answers += missing;
            }
        }
        Ok((questions, answers))
    }

    /// Stores answer `k` to question `i`.
    pub fn keep(&self, i: usize, k: usize, answer: &Completion) -> Result<()> {
        self.store.get()?.put(&self.questions.key(i, k), &self.questions.label(i, k), answer)
    }
}

impl measured::Answers for TaskRequests<'_> {
    fn opened(&self, row: &Row, _: u64) -> String {
        self.questions.chat.and_then(|chat| chat.opened(row.prompt()).ok()).unwrap_or_default()
    }

    /// Returns an error if an answer is missing.
    fn given(&mut self, i: usize, index: u64) -> Result<QuestionAnswers> {
        if self.questions.survey.indices.get(i).is_none_or(|known| u64::from(*known) != index) {
            return Err(self.questions.changed(i));
        }
        let store = self.store.get()?;
        let mut answers = Vec::with_capacity(self.questions.answer_settings.answers());
        for k in 0..self.questions.answer_settings.answers() {
            let label = || self.questions.label(i, k);
            let lost = || Error::Failed(format!("{}: the answer to {} is missing", store.path().display(), label()));
            answers.push(store.get(&self.questions.key(i, k))?.ok_or_else(lost)?);
        }
        let sampled = answers.split_off(self.questions.answer_settings.greedy);
        Ok(QuestionAnswers { greedy: answers.pop(), sampled })
    }

    fn over(&mut self, questions: usize, _: &[(u64, Crash)], _: bool) -> Result<()> {
        if questions == self.questions.survey.indices.len() { Ok(()) } else { Err(self.questions.changed(questions)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_data::reward::Scorer;
    use omr_data::task::{self, Source};

    #[test]
    fn an_answer_to_a_jpeg_of_another_decoder_is_not_used_again() {
        let spec = task::find("digits").unwrap();
        let config = EvalConfig::default();
        let answer_settings = AnswerSettings::of(spec, &config);
        let scorer = Arc::new(Scorer::rules(Mode::Strict));
        let rows = TaskRows::new(spec, Source::of(&config), None, scorer, false);
        let keys = |jpegs: &[bool]| {
            let survey =
                Survey { indices: vec![0, 1], contents: vec![[1; 32]; 2], jpegs: jpegs.to_vec(), ..Survey::default() };
            let questions = TaskQuestions { rows: &rows, survey, answer_settings, who: "model", chat: None };
            [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(i, k)| questions.key(i, k))
        };
        // Answers to other images have the keys of versions that had no such rule.
        let older = Key::new("model", &[1; 32], &format!("greedy, {} tokens", answer_settings.max_tokens));
        let [a, b, c, d] = keys(&[true, false]);
        assert!(a != b && b == older);
        assert_eq!(keys(&[false, false])[..2], [older, older]);
        assert_ne!(keys(&[false, true])[3], d);
        assert_eq!(keys(&[]), [older, older, keys(&[false, false])[2], d]);
        assert_ne!(c, keys(&[])[2]);
    }
}
