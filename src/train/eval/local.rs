//! Evaluates a model directory. Questions are read and prepared while the engine answers earlier ones. Each answer is
//! stored when it is complete.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::questions;
use super::survey::Survey;
use super::task_requests::{AnswerSettings, TaskQuestions};
use omr_base::answers::{self, RunStore};
use omr_base::config::EvalConfig;
use omr_base::error::Result;
use omr_data::rows::Row;
use omr_data::task::TaskRows;
use omr_model::engine::{EngineCoreRequest, Noise, Prompt, RequestParams};
use omr_model::llm::{self, Llm, Workload};
use omr_model::nn::ModelConfig;
use omr_runtime::device::{Plan, Target};
use omr_runtime::machine::Machine;
use omr_runtime::ranks::{self, OneRank, Ranks};

/// Settings that an error message suggests if an evaluation needs too much memory.
const LOWER: &str = "max_num_seqs or max_new_tokens";

/// A model directory to evaluate.
pub struct Local<'a> {
    config: &'a EvalConfig,
    llm: Llm,
    target: Target,
    who: String,
}

/// Questions of a task for a model directory.
pub struct Job<'a> {
    /// The questions.
    pub questions: TaskQuestions<'a>,
    local: &'a Local<'a>,
}

impl<'a> Local<'a> {
    /// Reads the settings of the model in `dir`. `target` is the device that will compute.
    pub fn new(dir: &'a Path, config: &'a EvalConfig, target: Target) -> Result<Local<'a>> {
        let model_config = ModelConfig::load(&dir.join("config.json"))?.quantized(config.quantization.as_ref())?;
        let llm = Llm::open(dir, model_config, &config.images, config.dtype)?;
        let llm = llm.with_variables(config.chat_template_kwargs.variables())?;
        let who = llm.identity(target.kind)?;
        Ok(Local { config, llm, target, who })
    }
}

impl<'a> Job<'a> {
    /// Reads the rows once. Errors name the row.
    pub fn new(local: &'a Local<'a>, rows: &'a TaskRows<'a>) -> Result<Job<'a>> {
        let survey = Survey::of(rows, Some((&local.llm.encoder, local.llm.config.text.max_position_embeddings)))?;
        let answer_settings = AnswerSettings::of(rows.spec, local.config);
        let chat = Some(&local.llm.encoder.chat);
        Ok(Job { questions: TaskQuestions { rows, survey, answer_settings, who: &local.who, chat }, local })
    }

    /// Returns the number of blocks of the KV cache and the bytes that each memory region needs; see [`Llm::plan`].
    pub fn plan(&self) -> Result<(Option<usize>, Plan)> {
        self.local.llm.plan(self.local.target, &self.workload(), LOWER)
    }

    fn workload(&self) -> Workload<'_> {
        Workload {
            index: &self.questions.survey.index,
            n: self.questions.answer_settings.answers().max(1),
            params: self.params(self.questions.answer_settings.greedy),
            max_num_seqs: self.local.config.max_num_seqs,
        }
    }

    /// Returns the parameters of answer `k`, with the noise of question 0.
    fn params(&self, k: usize) -> RequestParams {
        RequestParams {
            sampling: self.questions.answer_settings.sampling(k),
            noise: Noise { seed: self.questions.answer_settings.seed, ..Noise::default() },
            ..RequestParams::new(self.questions.answer_settings.max_tokens, self.local.llm.stop_token_ids())
        }
    }

    /// Makes the request for `n` answers to question `i`, starting with answer `k`.
    fn request(&self, i: usize, prompt: Arc<Prompt>, k: usize, n: usize) -> EngineCoreRequest {
        let mut params = self.params(k);
        params.noise.prompt = self.questions.survey.indices[i];
        let first_choice = self.questions.answer_settings.rollout(k).unwrap_or(0) as u32;
        EngineCoreRequest { prompt, n, first_choice, params }
    }

    /// Returns an error, on every rank, unless all ranks have the same model and questions.
    fn same_at(&self, ranks: &mut dyn Ranks) -> Result<()> {
        let mut questions = blake3::Hasher::new();
        for (index, content) in self.questions.survey.indices.iter().zip(&self.questions.survey.contents) {
            questions.update(&index.to_le_bytes()).update(content);
        }
        ranks.same("the model", self.questions.who)?;
        ranks.same("the questions", questions.finalize().to_hex().as_str())
    }

    /// Generates this rank's share of the answers that `store` lacks. Creates the device only if answers are missing.
    /// Returns [`Error::Stopped`](omr_base::error::Error::Stopped) if the user requests a stop. Finished answers stay stored.
    fn generate(&self, store: &Arc<RunStore>, place: OneRank, machine: &Machine, label: &str) -> Result<()> {
        let (task_requests, observer) = (self.questions.requests(store), machine.observer);
        let (questions, missing) = task_requests.share(place.rank(), place.size())?;
        if missing == 0 {
            return Ok(());
        }
        let mut answerer = self.local.llm.load(machine, &self.workload(), LOWER)?;
        // With several ranks, the total covers only the answers of this rank.
        let total = if place.size() == 1 { self.questions.answers() } else { missing };
        observer.begin(label, "answers", total as u64, (total - missing) as u64);
        let (encoder, model_config) = (&self.local.llm.encoder, &self.local.llm.config);
        let make = |row: Row| Ok(llm::prompt(encoder, model_config, &row)?.0);
        let mut done = total - missing;
        questions::stream(self.questions.rows, &self.questions.survey, &questions, answerer.workers(), make, |next| {
            let mut waiting = VecDeque::new();
            let requests = || {
                // An equal question may have been answered since, so that no answer is missing.
                while waiting.is_empty()
                    && let Some((i, prompt)) = next()?
                {
                    let runs = runs(&task_requests.missing(i)?, self.questions.answer_settings.greedy).into_iter();
                    waiting.extend(runs.map(|(k, n)| ((i, k), self.request(i, prompt.clone(), k, n))));
                }
                Ok(waiting.pop_front())
            };
            answerer.answer(requests, |&(i, k), index, answer| {
                task_requests.keep(i, k + index, &answer)?;
                done += 1;
                observer.step(done as u64, &[]);
                Ok(())
            })
        })?;
        observer.end();
        Ok(())
    }
}

/// Generates, on all `ranks`, the answers to `jobs` that the run in `dir` lacks. Each job has a label for the progress
/// display. Afterwards rank 0 finds all answers in `store`, the store of the run. With several ranks, no rank may have
/// opened `store` before. Returns [`Error::Stopped`](omr_base::error::Error::Stopped) on every rank if one was requested to stop. Finished answers stay
/// stored.
pub fn generate_answers(
    ranks: &mut dyn Ranks,
    jobs: &[(Job, String)],
    dir: &Path,
    store: &Arc<RunStore>,
    machine: &Machine,
) -> Result<()> {
    let place = OneRank::new(ranks.rank(), ranks.size());
    let generate_all =
        |store: &Arc<RunStore>| jobs.iter().try_for_each(|(job, label)| job.generate(store, place, machine, label));
    if place.size() == 1 {
        return generate_all(store);
    }
    jobs.iter().try_for_each(|(job, _)| job.same_at(ranks))?;
    ranks::by_first(ranks, "the stored answers", || answers::gather(dir))?;
    let own = RunStore::of_rank(dir, place.rank(), place.size());
    let done = generate_all(&own);
    let closed = own.close();
    ranks::agreed_at_last(ranks, "the end of answers", done.and(closed))
}

/// Groups the missing answers into requests. Each request is a pair: the number of its first answer, and its number of
/// consecutive answers. The greedy answer is a request of its own.
fn runs(missing: &[usize], greedy: usize) -> Vec<(usize, usize)> {
    missing.chunk_by(|&k, &next| next == k + 1 && k >= greedy).map(|run| (run[0], run.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn what_is_missing_is_asked_for_in_as_few_requests_as_can_be() {
        assert_eq!(runs(&[0, 1, 2, 3], 1), [(0, 1), (1, 3)]);
        assert_eq!(runs(&[0, 1, 3, 4, 7], 0), [(0, 2), (3, 2), (7, 1)]);
        assert_eq!(runs(&[], 1), []);
    }
}
