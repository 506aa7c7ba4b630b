//! Stage `passrate`: generates several answers to each question with the built-in engine. Each row receives its pass
//! rate (the share of correct answers), which a curriculum or `filter` reads.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::json;

use crate::pipeline::files::Rejection;
use crate::pipeline::filter::PASS_RATE;
use crate::pipeline::pass::{Fate, Numbered, pass};
use crate::pipeline::stage::{Shard, Stage, StageJob, Work};
use crate::pipeline::summary::Summary;
use omr_base::answers::{self, Key, RunStore, Store};
use omr_base::client::Completion;
use omr_base::config::{ImageConfig, PassrateConfig};
use omr_base::error::{Error, Result};
use omr_data::image::JPEG_DECODER;
use omr_data::reward::judge;
use omr_data::reward::{Item, Judged, Scorer};
use omr_data::rows::chunks::Chunk;
use omr_data::rows::forms::answer::label;
use omr_data::rows::samples::encoder::Measured;
use omr_data::rows::{BadRow, Encoder, Index, Loader, Made, Reason, Row, RowResult, Shape};
use omr_model::engine::{EngineCoreRequest, Noise, Prompt, RequestParams};
use omr_model::llm::{self, Answerer, Llm, Workload};
use omr_model::nn::ModelConfig;
use omr_runtime::machine::Machine;
use omr_runtime::ops::sample::SamplingParams;
use omr_runtime::ranks::{self, Ranks};

/// Settings that an error message suggests if the answers need too much memory.
const LOWER: &str = "max_num_seqs or max_tokens";

/// Number of rows measured together.
const CHUNK: usize = 1024;
/// Number of prompts that each thread prepares in advance.
const AHEAD: usize = 4;
/// The share of a single rank.
const ALL: Shard = Shard { index: 0, count: 1 };

impl Stage for PassrateConfig {
    fn computes(&self) -> bool {
        true
    }

    fn job<'a>(&'a self, _: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>> {
        Ok(Box::new(Passrate::new(self)?))
    }
}

/// Generates the missing answers of the stage in `dir`. Each of the `ranks` generates its share. When rank 0 runs the
/// stage later, it finds the answers in the store. If any rank was asked to stop, every rank returns
/// [`Error::Stopped`]; answers generated so far are stored.
pub fn answer(config: &PassrateConfig, dir: &Path, ranks: &mut dyn Ranks, machine: &Machine) -> Result<()> {
    let (rank, size) = (ranks.rank(), ranks.size());
    if size == 1 {
        return Ok(());
    }
    ranks::by_first(ranks, "the existing answers", || answers::gather(dir))?;
    let store = RunStore::of_rank(dir, rank, size);
    let work = Work::open(config, dir, None, machine)?;
    let share = Shard { index: rank, count: size };
    let done = Passrate::new(config).and_then(|job| job.answer_share(&work, &store, share));
    let closed = store.close();
    ranks::agreed_at_last(ranks, "the end of answers", done.and(closed))
}

struct Passrate<'a> {
    config: &'a PassrateConfig,
    dir: &'a Path,
    llm: Llm,
}

impl StageJob for Passrate<'_> {
    fn describe(&self) -> String {
        let PassrateConfig { n, mode, judge, .. } = self.config;
        let judge = judge.as_ref().map_or("judge off".to_owned(), |judge| format!("judge {}", judge.model));
        format!("{n} answers per row by {}, {} rules, {judge}", self.dir.display(), mode.name())
    }

    fn run(&mut self, work: &Work) -> Result<Summary> {
        let store = work.store()?;
        let scorer = work.scorer(self.config.mode, &self.config.judge, store.clone())?;
        let mut totals = Summary { judge: scorer.judge().map(judge::Summary::new), ..Summary::default() };
        let who = self.llm.identity(work.machine.target.kind)?;
        let index = self.unanswered(work, store.get()?, &who, ALL)?;
        // If the store has every answer, no model is loaded.
        let mut answerer = if index.is_empty() { None } else { Some(self.answerer(work, &index)?) };
        let scorer = Arc::new(scorer);
        let mut summary = pass(work, &mut |_, rows| {
            let (config, encoder) = (self.config, &self.llm.encoder);
            let question = |numbered: Numbered| KeyedRow::new(numbered.row, config, encoder, &who);
            let mut keyed: Vec<RowResult<KeyedRow>> = rows.into_par_iter().map(question).collect();
            if let Some(answerer) = &mut answerer {
                for (question, bad) in self.answer(answerer, &keyed, &store)? {
                    keyed[question] = Err(bad);
                }
            }
            self.score(keyed, &store, &scorer, &mut totals)
        })?;
        (summary.requests, summary.tokens, summary.judge) = (totals.requests, totals.tokens, totals.judge);
        Ok(summary)
    }

    fn is_final(&self, summary: &Summary) -> bool {
        summary.unjudged == 0
    }
}

/// A row with the keys of its answers. There are no keys if its prompt is too long.
struct KeyedRow {
    /// The row. Its label is set: an SFT row has none of its own, so it is the answer in the final assistant message.
    row: Row,
    /// The row has a label of its own.
    own_label: bool,
    size: Measured,
    keys: Vec<Key>,
    /// Identifies the row's random draws. The value depends only on the content of the row, so the position and the
    /// shard of the row have no influence.
    noise: u32,
}

impl KeyedRow {
    fn new(mut row: Row, config: &PassrateConfig, encoder: &Encoder, who: &str) -> RowResult<KeyedRow> {
        let own_label = row.ground_truth.is_some();
        row.ground_truth = label(&row);
        let PassrateConfig { n, temperature, top_p, max_tokens, max_prompt_length, seed, .. } = *config;
        let size = encoder.measure(&row)?;
        let content = row.content().map_err(BadRow::of(Reason::MissingImage))?;
        let decoder = if size.has_jpeg { JPEG_DECODER } else { "" };
        let how = format!("temperature {temperature}, top_p {top_p}, {max_tokens} tokens, seed {seed}{decoder}");
        let wanted = if size.tokens <= max_prompt_length { n } else { 0 };
        let keys = (0..wanted).map(|k| Key::new(who, &content, &format!("{how}, {k}"))).collect();
        let noise = u32::from_le_bytes([content[0], content[1], content[2], content[3]]);
        Ok(KeyedRow { row, own_label, size, keys, noise })
    }

    /// Returns true if a rank with this share answers the row. The share is chosen by content, so equal questions belong to
    /// one rank.
    fn is_of(&self, share: Shard) -> bool {
        self.noise as usize % share.count == share.index
    }

    /// Returns the number of the first answer that is not in the store.
    fn first_missing(&self, store: &Store) -> Result<Option<usize>> {
        let missing = |(k, key)| store.has(key).map(|has| (!has).then_some(k)).transpose();
        self.keys.iter().enumerate().find_map(missing).transpose()
    }
}

impl<'a> Passrate<'a> {
    fn new(config: &'a PassrateConfig) -> Result<Passrate<'a>> {
        let dir = config.model.as_deref().ok_or_else(|| Error::input("model", "nothing", "a model directory"))?;
        let model_config = ModelConfig::load(&dir.join("config.json"))?;
        let llm = Llm::open(dir, model_config, &ImageConfig::default(), config.dtype)?;
        Ok(Passrate { config, dir, llm })
    }

    /// Generates the answers of a share that are missing in `store`. Writes nothing else.
    fn answer_share(&self, work: &Work, store: &RunStore, share: Shard) -> Result<()> {
        let who = self.llm.identity(work.machine.target.kind)?;
        let index = self.unanswered(work, store.get()?, &who, share)?;
        if index.is_empty() {
            return Ok(());
        }
        let mut answerer = self.answerer(work, &index)?;
        let (config, encoder) = (self.config, &self.llm.encoder);
        work.machine.observer.begin(work.kind, "rows", work.rows() as u64, 0);
        let mut done = 0;
        chunks(work, |rows| {
            done += rows.len() as u64;
            let keyed = rows.into_par_iter().map(|row| KeyedRow::new(row, config, encoder, &who));
            let keyed: Vec<RowResult<KeyedRow>> =
                keyed.filter(|keyed| keyed.as_ref().is_ok_and(|keyed| keyed.is_of(share))).collect();
            // A row with an undecodable image has no answer. The stage decides its fate later.
            self.answer(&mut answerer, &keyed, store)?;
            work.machine.observer.step(done, &[]);
            Ok(())
        })?;
        work.machine.observer.end();
        Ok(())
    }

    /// Returns the prompt sizes of the rows of a share for which at least one answer is missing.
    fn unanswered(&self, work: &Work, store: &Store, who: &str, share: Shard) -> Result<Index> {
        let (mut index, config, encoder) = (Index::default(), self.config, &self.llm.encoder);
        chunks(work, |rows| {
            let look = |row| {
                let keyed = KeyedRow::new(row, config, encoder, who).ok().filter(|keyed| keyed.is_of(share))?;
                keyed.first_missing(store).transpose().map(|missing| missing.map(|_| keyed.size))
            };
            let sizes: Vec<Measured> = rows.into_par_iter().filter_map(look).collect::<Result<_>>()?;
            for Measured { tokens, grids, .. } in &sizes {
                index.push(Shape { tokens: *tokens, targets: 0, grids });
            }
            Ok(())
        })?;
        Ok(index)
    }

    /// Loads the model with memory for prompts of the sizes in `index`.
    fn answerer<'b>(&'b self, work: &Work<'b>, index: &Index) -> Result<Answerer<'b>> {
        let PassrateConfig { n, max_num_seqs, .. } = *self.config;
        self.llm.load(work.machine, &Workload { index, n, params: self.params(0), max_num_seqs }, LOWER)
    }

    /// Returns the parameters of the answers to a row.
    fn params(&self, noise: u32) -> RequestParams {
        let PassrateConfig { temperature, top_p, max_tokens, seed, .. } = *self.config;
        RequestParams {
            sampling: SamplingParams {
                temperature: temperature as f32,
                top_p: top_p as f32,
                ..SamplingParams::default()
            },
            noise: Noise { seed, step: 0, prompt: noise },
            ..RequestParams::new(max_tokens, self.llm.stop_token_ids())
        }
    }

    /// Generates the answers that are missing in the store, and stores each when it ends. Returns the rows whose images
    /// cannot be decoded.
    fn answer(
        &self,
        answerer: &mut Answerer<'_>,
        keyed: &[RowResult<KeyedRow>],
        store: &RunStore,
    ) -> Result<Vec<(usize, BadRow)>> {
        let store = store.get()?;
        // Each element is the index of a row, the row, and the number of its first missing answer.
        let mut missing: Vec<(usize, &KeyedRow, usize)> = Vec::new();
        for (i, row) in keyed.iter().enumerate().filter_map(|(i, keyed)| Some((i, keyed.as_ref().ok()?))) {
            missing.extend(row.first_missing(store)?.map(|first| (i, row, first)));
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<Row> = missing.iter().map(|(_, keyed, _)| keyed.row.clone()).collect();
        let (encoder, model_config) = (self.llm.encoder.clone(), self.llm.config.clone());
        let prompts = move |i: usize| -> Result<Made<Prompt>> {
            Ok(llm::prompt(&encoder, &model_config, &rows[i]).map(|(prompt, _)| Arc::new(prompt)))
        };
        let groups = (0..missing.len()).map(|at| Ok(vec![at]));
        let workers = answerer.workers();
        let mut loader = Loader::new(Arc::new(prompts), Box::new(groups), workers, AHEAD * workers)?;
        let mut broken = Vec::new();
        let next = || {
            while let Some((at, made)) = loader.next_group()?.and_then(|mut group| group.pop()) {
                let (i, row, first) = missing[at];
                match made {
                    Ok(prompt) => {
                        let (n, params) = (self.config.n - first, self.params(row.noise));
                        let request = EngineCoreRequest { prompt, n, first_choice: first as u32, params };
                        return Ok(Some(((row, first), request)));
                    }
                    Err(bad) => broken.push((i, bad)),
                }
            }
            Ok(None)
        };
        answerer.answer(next, |&(row, first), index, answer| {
            let k = first + index;
            store.put(&row.keys[k], &format!("{} answer {k}", row.row.id), &answer)
        })?;
        Ok(broken)
    }

    /// Scores the answers in the store and returns the fates of the rows. Adds counts to `totals`.
    fn score(
        &self,
        keyed: Vec<RowResult<KeyedRow>>,
        store: &RunStore,
        scorer: &Arc<Scorer>,
        totals: &mut Summary,
    ) -> Result<Vec<Vec<Fate>>> {
        let (store, mut items) = (store.get()?, Vec::new());
        for keyed in keyed.iter().flatten() {
            for key in &keyed.keys {
                let lost = || Error::Failed(format!("{}: no answer to {}", store.path().display(), keyed.row.place));
                let Completion { text, completion_tokens, .. } = store.get(key)?.ok_or_else(lost)?;
                totals.tokens += completion_tokens;
                let question = Some(keyed.row.question()).filter(|question| !question.is_empty());
                let ground_truth = keyed.row.ground_truth.clone().unwrap_or_default();
                items.push(Item { response: text, ground_truth, question, ..keyed.row.item() });
            }
        }
        totals.requests += items.len();
        let mut judged = scorer.score_all(items).into_iter();
        let mut fates = Vec::with_capacity(keyed.len());
        for keyed in keyed {
            fates.push(vec![match keyed {
                Err(bad) => Fate::Bad(bad),
                Ok(KeyedRow { keys, size: Measured { tokens, .. }, .. }) if keys.is_empty() => {
                    let most = self.config.max_prompt_length;
                    Fate::Rejected(Rejection::row(Reason::Overlong.name(), format!("{tokens} tokens, at most {most}")))
                }
                Ok(KeyedRow { mut row, own_label, keys, .. }) => {
                    row.ground_truth.take_if(|_| !own_label);
                    let judged: Vec<Judged> = judged.by_ref().take(keys.len()).collect::<Result<_>>()?;
                    if let Some(judge_summary) = &mut totals.judge {
                        judged.iter().for_each(|judged| judge_summary.count(judged.judge.as_ref()));
                    }
                    rated(row, &judged)
                }
            }]);
        }
        Ok(fates)
    }
}

/// Passes the rows of `work` that can be read to `each`, at most [`CHUNK`] at a time.
fn chunks(work: &Work, mut each: impl FnMut(Vec<Row>) -> Result<()>) -> Result<()> {
    let mut rows = |chunk: Chunk| each(chunk.into_iter().filter_map(|(_, row)| row.ok()).collect());
    work.inputs.iter().try_for_each(|input| input.for_chunks(CHUNK, &mut rows))
}

/// Returns the row with its pass rate and average reward, or as unjudged if an answer has no verdict or no score.
fn rated(mut row: Row, judged: &[Judged]) -> Fate {
    if let Some(why) = judged.iter().find_map(Judged::undecided) {
        return Fate::Unjudged(Rejection::row("unjudged", why.to_owned()));
    }
    let mean = |of: &dyn Fn(&Judged) -> f64| judged.iter().map(of).sum::<f64>() / judged.len() as f64;
    let right = mean(&|judged| f64::from(u8::from(judged.score.acc_score > 0.0)));
    row.extra.insert(PASS_RATE.to_owned(), json!(right));
    row.extra.insert("avg_reward".to_owned(), json!(mean(&|judged| judged.score.score.unwrap_or(0.0))));
    Fate::Kept(row)
}
