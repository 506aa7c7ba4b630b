//! Evaluates a model directory. Questions are read and prepared while the engine answers earlier ones. Each answer is
//! stored when it is complete.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::fits;
use super::questions;
use super::survey::Survey;
use super::task_requests::{AnswerSettings, TaskRequests};
use crate::answers::{self, RunStore};
use crate::client::Completion;
use crate::config::EvalConfig;
use crate::data::encoder::EncodingPurpose;
use crate::data::{Encoder, Row};
use crate::device::{Device, Kind, Plan, Region, Target};
use crate::engine::{Engine, EngineConfig, Event, Output, Prompt, Request, allowed_ids, stop_token_ids};
use crate::error::{Error, Result};
use crate::identity;
use crate::machine::Machine;
use crate::model::{Model, ModelConfig};
use crate::ranks::{self, OneRank, Ranks};
use crate::rollout::generate;
use crate::task::TaskRows;
use crate::tensor::DType;

/// Settings that an error message suggests if an evaluation needs too much memory.
const LOWER: &str = "max_num_seqs or max_new_tokens";

/// A model directory to evaluate.
pub struct Local<'a> {
    dir: &'a Path,
    config: &'a EvalConfig,
    encoder: Encoder,
    model_config: ModelConfig,
    stop_token_ids: Arc<[u32]>,
    target: Target,
    who: String,
}

/// Questions of a task for a model directory.
pub struct Job<'a> {
    /// Rows of the task.
    pub rows: &'a TaskRows<'a>,
    survey: Survey,
    answer_settings: AnswerSettings,
    local: &'a Local<'a>,
}

impl<'a> Local<'a> {
    /// Reads the settings of the model in `dir`. `target` is the device that will compute.
    pub fn new(dir: &'a Path, config: &'a EvalConfig, target: Target) -> Result<Local<'a>> {
        let model_config = ModelConfig::load(&dir.join("config.json"))?;
        let pixels = [config.image_min_pixels, config.image_max_pixels];
        let encoder = Encoder::load(dir, EncodingPurpose::Ask, model_config.text.vocab_size, pixels)?;
        let stop_token_ids = stop_token_ids(dir, &[encoder.chat.ids.im_end, encoder.chat.ids.endoftext])?;
        let (dtype, kind) = (DType::of(config.dtype, target.kind), target.kind.name());
        let mut who = format!("{} {dtype:?} {kind}", identity::of(dir)?);
        if pixels != [None, None] {
            who.push_str(&format!(" {} to {} pixels", encoder.processor.min_pixels, encoder.processor.max_pixels));
        }
        Ok(Local { dir, config, encoder, model_config, stop_token_ids, target, who })
    }
}

impl<'a> Job<'a> {
    /// Reads the rows once. Errors name the row.
    pub fn new(local: &'a Local<'a>, rows: &'a TaskRows<'a>) -> Result<Job<'a>> {
        let survey = Survey::of(rows, Some((&local.encoder, local.model_config.text.max_position_embeddings)))?;
        Ok(Job { rows, survey, answer_settings: AnswerSettings::of(rows.spec, local.config), local })
    }

    /// Returns the number of questions.
    pub fn questions(&self) -> usize {
        self.survey.questions()
    }

    /// Summarises the contents of the questions in a line for the user.
    pub fn seen(&self) -> String {
        self.survey.seen.line()
    }

    /// Combines the questions, their required answers and `store`.
    pub fn requests<'b>(&'b self, store: &'b Arc<RunStore>) -> TaskRequests<'b> {
        TaskRequests {
            spec: self.rows.spec,
            survey: &self.survey,
            answer_settings: self.answer_settings,
            who: &self.local.who,
            store,
        }
    }

    /// Returns the bytes that each memory region needs, and the number of blocks of the KV cache. They are counted in a
    /// dry run. Errors if the device does not have this memory.
    pub fn plan(&self) -> Result<(Plan, Option<usize>)> {
        let (target, largest) = (self.local.target, self.largest());
        let count = |dtype: DType| -> Result<(EngineConfig, Plan)> {
            let mut dev = Device::count_for(target);
            let model = Model::empty_of(&mut dev, self.local.dir, self.local.model_config.clone(), dtype)?;
            self.engine_config(&mut dev, None)?.fitted(&model, &mut dev, &largest, target.memory)
        };
        let (config, plan) = fits::within(target, self.dtype(target.kind), LOWER, count)?;
        Ok((plan, config.num_kv_blocks))
    }

    fn dtype(&self, kind: Kind) -> DType {
        DType::of(self.local.config.dtype, kind)
    }

    /// Makes as many requests as can run at once. They have the sizes of the questions with the most pixels, and
    /// placeholder content.
    fn largest(&self) -> Vec<Request> {
        let largest = generate::largest(&self.local.model_config, &self.survey.index, self.local.config.max_num_seqs);
        let request =
            |(i, prompt)| self.request(i, prompt, self.answer_settings.greedy, self.answer_settings.answers().max(1));
        largest.into_iter().map(request).collect()
    }

    /// Makes the request for `n` answers to question `i`, starting with answer `k`.
    fn request(&self, i: usize, prompt: Arc<Prompt>, k: usize, n: usize) -> Request {
        Request {
            prompt,
            n,
            sampling: self.answer_settings.sampling(k),
            max_tokens: self.answer_settings.max_tokens,
            stop_token_ids: self.local.stop_token_ids.clone(),
            noise: self.survey.indices[i],
            first_rollout: self.answer_settings.rollout(k).unwrap_or(0) as u32,
        }
    }

    /// Returns an error, on every rank, unless all ranks have the same model and questions.
    fn same_at(&self, ranks: &mut dyn Ranks) -> Result<()> {
        let mut questions = blake3::Hasher::new();
        for (index, content) in self.survey.indices.iter().zip(&self.survey.contents) {
            questions.update(&index.to_le_bytes()).update(content);
        }
        ranks.same("the model", &self.local.who)?;
        ranks.same("the questions", questions.finalize().to_hex().as_str())
    }

    /// Generates this rank's share of the answers that `store` lacks. Creates the device only if answers are missing.
    /// Returns [`Error::Stopped`] if the user requests a stop. Finished answers stay stored.
    fn generate(&self, store: &Arc<RunStore>, place: OneRank, machine: &Machine, label: &str) -> Result<()> {
        let (task_requests, observer) = (self.requests(store), machine.observer);
        let (questions, missing) = task_requests.share(place.rank(), place.size())?;
        if missing == 0 {
            return Ok(());
        }
        let (plan, num_kv_blocks) = self.plan()?;
        let dev = &mut (machine.device)(&plan)?;
        let model = Model::load_shown(dev, self.local.dir, self.dtype(dev.kind()), observer)?;
        let config = self.engine_config(dev, num_kv_blocks)?;
        let mut engine = Engine::new(&model, dev, config)?;
        // With several ranks, the total covers only the answers of this rank.
        let total = if place.size() == 1 { self.survey.questions() * self.answer_settings.answers() } else { missing };
        observer.begin(label, "answers", total as u64, (total - missing) as u64);
        let (encoder, model_config) = (self.local.encoder.clone(), self.local.model_config.clone());
        let make = Box::new(move |row: Row| Ok(generate::prompt(&encoder, &model_config, &row)?.0));
        let workers = dev.threads().max(1);
        let sent = RefCell::new(Vec::new());
        let mut done = total - missing;
        let answered = questions::stream(self.rows, &self.survey, &questions, workers, make, |next| {
            let mut waiting = VecDeque::new();
            let requests = || {
                // An equal question may have been answered since, so that no answer is missing.
                while waiting.is_empty()
                    && let Some((i, prompt)) = next()?
                {
                    let runs = runs(&task_requests.missing(i)?, self.answer_settings.greedy);
                    waiting.extend(runs.into_iter().map(|(k, n)| (i, k, n, prompt.clone())));
                }
                Ok(waiting.pop_front().map(|(i, k, n, prompt)| {
                    sent.borrow_mut().push((i as u32, k as u32));
                    self.request(i, prompt, k, n)
                }))
            };
            engine.stream(&model, dev, requests, |event| {
                if let Event::Finished(output) = event {
                    let (i, k) = sent.borrow()[output.request];
                    let answer = self.answer(i as usize, output);
                    task_requests.keep(i as usize, k as usize + output.rollout, &answer)?;
                    done += 1;
                    observer.step(done as u64, &[]);
                }
                if observer.stop_requested() { Err(Error::Stopped) } else { Ok(()) }
            })
        });
        engine.release(dev);
        answered?;
        observer.end();
        Ok(())
    }

    fn answer(&self, i: usize, output: &Output) -> Completion {
        Completion {
            text: generate::response_text(&self.local.encoder.chat, output),
            finish_reason: output.finish_reason.as_str().to_owned(),
            prompt_tokens: self.survey.index.tokens(i) as u64,
            completion_tokens: output.token_ids.len() as u64,
        }
    }

    fn engine_config(&self, dev: &mut Device, num_kv_blocks: Option<usize>) -> Result<EngineConfig> {
        let bitmap = allowed_ids(&self.local.model_config, &self.local.encoder.chat);
        let allowed = dev.upload(Region::Weights, &bitmap, &[bitmap.len()])?;
        let index = &self.survey.index;
        let longest = index.shapes().map(|shape| shape.tokens).max().unwrap_or(1);
        let mut config = EngineConfig::new(longest.saturating_add(self.answer_settings.max_tokens));
        config.max_num_seqs = self.local.config.max_num_seqs;
        config.vision_rows = generate::vision_rows(&self.local.model_config, index, self.local.config.max_num_seqs);
        config.num_kv_blocks = num_kv_blocks;
        config.allowed = Some(allowed);
        config.seed = self.answer_settings.seed;
        Ok(config)
    }
}

/// Generates, on all `ranks`, the answers to `jobs` that the run in `dir` lacks. Each job has a label for the progress
/// display. Afterwards rank 0 finds all answers in `store`, the store of the run. With several ranks, no rank may have
/// opened `store` before. Returns [`Error::Stopped`] on every rank if one was requested to stop. Finished answers stay
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
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &k in missing {
        match runs.last_mut() {
            Some((first, n)) if *first + *n == k && *first >= greedy => *n += 1,
            _ => runs.push((k, 1)),
        }
    }
    runs
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
