//! Which answers a task is measured by, and the store that keeps them: each by who answers, what is asked and how, so
//! that a run killed at any moment goes on with what is missing.

use std::sync::Arc;

use super::measured::{self, Given};
use super::survey::Survey;
use crate::answers::{Key, RunStore};
use crate::client::Completion;
use crate::config::{EvalConfig, Mode};
use crate::error::{Error, Result};
use crate::ops::sample::SamplingParams;
use crate::task::{Answers, Crash, TaskSpec};

/// What lmms-eval's vLLM back-end samples with where a task says nothing: the published AIME figures are drawn so.
const PUBLISHED_TOP_P: f32 = 0.95;

/// The answers asked for to each question: a greedy one, or none, then those at temperature 1.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Greedy answers: 1 or 0.
    pub greedy: usize,
    /// Answers at temperature 1.
    pub sampled: usize,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Of those at temperature 1.
    pub top_p: f32,
    /// Seed of sampling.
    pub seed: u64,
}

impl Wanted {
    /// What a config wants of a task.
    pub fn of(spec: &TaskSpec, config: &EvalConfig) -> Wanted {
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
        Wanted { greedy, sampled, max_tokens, top_p, seed: config.seed }
    }

    /// Returns the number of answers to a question.
    pub fn answers(&self) -> usize {
        self.greedy + self.sampled
    }

    /// How answer `k` is drawn.
    pub fn sampling(&self, k: usize) -> SamplingParams {
        match k < self.greedy {
            true => SamplingParams { top_p: self.top_p, ..SamplingParams::greedy() },
            false => SamplingParams { top_p: self.top_p, ..SamplingParams::default() },
        }
    }

    /// The number of answer `k` among those at temperature 1; nothing for the greedy one.
    pub fn rollout(&self, k: usize) -> Option<usize> {
        k.checked_sub(self.greedy)
    }
}

/// A task's questions, the answers wanted, and those there are.
pub struct Asked<'a> {
    /// The task.
    pub spec: &'static TaskSpec,
    /// Its questions.
    pub survey: &'a Survey,
    /// The answers.
    pub wanted: Wanted,
    /// Who answers.
    pub who: &'a str,
    /// Where they are kept.
    pub store: &'a Arc<RunStore>,
}

impl Asked<'_> {
    /// The key of answer `k` to question `i`. What is drawn at random depends on the question's number in the task, the
    /// answer's number and the seed, whatever else is asked.
    pub fn key(&self, i: usize, k: usize) -> Key {
        let Wanted { max_tokens, top_p, seed, .. } = self.wanted;
        let how = match self.wanted.rollout(k) {
            None => format!("greedy, {max_tokens} tokens"),
            Some(rollout) => {
                let question = self.survey.indices[i];
                format!("temperature 1, top_p {top_p}, {max_tokens} tokens, seed {seed}, {question} {rollout}")
            }
        };
        Key::new(self.who, &self.survey.contents[i], &how)
    }

    /// Names answer `k` to question `i`, for people.
    pub fn label(&self, i: usize, k: usize) -> String {
        let of = self.wanted.rollout(k).map_or_else(|| "greedy".to_owned(), |rollout| format!("sample {rollout}"));
        format!("{} index {} {of}", self.spec.name, self.survey.indices[i])
    }

    /// The numbers of the answers to question `i` that are not there.
    pub fn missing(&self, i: usize) -> Result<Vec<usize>> {
        let (store, mut missing) = (self.store.get()?, Vec::new());
        for k in 0..self.wanted.answers() {
            if !store.has(&self.key(i, k))? {
                missing.push(k);
            }
        }
        Ok(missing)
    }

    /// The questions that lack an answer, and how many answers these lack.
    pub fn unanswered(&self) -> Result<(Vec<usize>, usize)> {
        self.share(0, 1)
    }

    /// Of these rank `rank` of `size`'s: by content, so that equal questions, of other tasks too, are one rank's, which asks
    /// once. The ranks' stores differ from the second task on and must not decide it.
    pub fn share(&self, rank: usize, size: usize) -> Result<(Vec<usize>, usize)> {
        let (mut questions, mut answers) = (Vec::new(), 0);
        let has = |[a, b, c, d, ..]: [u8; 32]| u32::from_le_bytes([a, b, c, d]) as usize % size == rank;
        for i in (0..self.survey.questions()).filter(|&i| has(self.survey.contents[i])) {
            let missing = self.missing(i)?.len();
            if missing > 0 {
                questions.push(i);
                answers += missing;
            }
        }
        Ok((questions, answers))
    }

    fn changed(&self, i: usize) -> Error {
        let found = format!("other questions than when the run began, from the one in place {} on", i + 1);
        Error::input(self.spec.name, found, "data that stay the same")
    }

    /// Keeps answer `k` to question `i`.
    pub fn keep(&self, i: usize, k: usize, answer: &Completion) -> Result<()> {
        self.store.get()?.put(&self.key(i, k), &self.label(i, k), answer)
    }
}

impl measured::Answers for Asked<'_> {
    /// Errors when one is missing.
    fn given(&mut self, i: usize, index: u64) -> Result<Given> {
        if self.survey.indices.get(i).is_none_or(|known| u64::from(*known) != index) {
            return Err(self.changed(i));
        }
        let store = self.store.get()?;
        let mut answers = Vec::with_capacity(self.wanted.answers());
        for k in 0..self.wanted.answers() {
            let lost = || Error::Failed(format!("{}: no answer to {}", store.path().display(), self.label(i, k)));
            answers.push(store.get(&self.key(i, k))?.ok_or_else(lost)?);
        }
        let sampled = answers.split_off(self.wanted.greedy);
        Ok(Given { greedy: answers.pop(), sampled })
    }

    fn over(&mut self, questions: usize, _: &[(u64, Crash)], _: bool) -> Result<()> {
        if questions == self.survey.questions() { Ok(()) } else { Err(self.changed(questions)) }
    }
}
