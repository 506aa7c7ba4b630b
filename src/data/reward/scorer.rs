//! Scores responses by the rules, by the rules and a judge, or by a custom reward command. Slow scoring runs
//! concurrently with other work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use omr_verify::typed::RewardType;
use omr_verify::{Format, extract};
use rayon::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc as channel};
use tokio::task::{JoinHandle, JoinSet};

use super::process::Pool;
use super::{Item, Judged, Mode, OnScored, PLAIN_LABEL, Rubric, Score, judge, shares, typed};
use omr_base::answers::RunStore;
use omr_base::config::{JudgeConfig, ProgramConfig, Rewards, ScorerConfig};
use omr_base::error::{Error, Result};

/// Maximum number of responses that wait for the judge; when it is reached, `submit` blocks.
const WAITING: usize = 1024;

/// Scores responses.
pub struct Scorer {
    rubric: Rubric,
    method: Method,
    /// Reward programs by the reward type of the rows that they score, in lower case.
    programs: BTreeMap<String, Pool>,
    /// Number of the next item for a reward program.
    next: AtomicU64,
}

enum Method {
    Rules,
    Judge { client: judge::Client, judge_tasks: JudgeTasks },
    Command { name: String, pool: Pool },
}

/// The tasks that send requests to the judge. Dropping this value waits until the tasks have released the answer store,
/// so that the store can be opened again.
struct JudgeTasks {
    pending: channel::Sender<PendingVerdict>,
    task: JoinHandle<()>,
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Drop for JudgeTasks {
    fn drop(&mut self) {
        self.task.abort();
        // Nothing is ever sent; the call returns when the last task has ended.
        let _ = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).recv();
    }
}

/// State of each task. The client is dropped before `_end`, so the store is free when the receiver of `_end` reports
/// the end.
#[derive(Clone)]
struct JudgeTask {
    client: judge::Client,
    _end: mpsc::Sender<()>,
}

/// A response that the rules call wrong and the judge must decide.
struct PendingVerdict {
    item: Item,
    rules: Score,
    reply: OnScored,
}

impl Scorer {
    /// Creates a scorer that uses only the rules.
    pub fn rules(mode: Mode) -> Scorer {
        Scorer { rubric: mode.into(), method: Method::Rules, programs: BTreeMap::new(), next: AtomicU64::new(0) }
    }

    /// Creates the scorer of a config. It uses `command` if that is set, otherwise the rules, with a judge if there is
    /// one. `store` stores the judge's verdicts. `place` names the config key of the command for errors. Requests to
    /// the judge run on `runtime`, and this scorer must not be used from its tasks.
    pub fn new(
        mode: Mode,
        judge: Option<&JudgeConfig>,
        config: &ScorerConfig,
        place: &str,
        store: Option<Arc<RunStore>>,
        runtime: impl FnOnce() -> Result<Handle>,
    ) -> Result<Scorer> {
        let rubric = config.rubric(mode);
        let method = if !config.command.is_empty() {
            let pool = Pool::start(config, place)?;
            Method::Command { name: config.command.join(" "), pool }
        } else if let Some(judge) = judge {
            let client = judge::Client::new(judge, "judge", store)?;
            let (pending, queue) = channel::channel(WAITING);
            let (end, ended) = mpsc::channel();
            let judge_task = JudgeTask { client: client.clone(), _end: end };
            let task = runtime()?.spawn(judge_all(judge_task, rubric, queue));
            Method::Judge { client, judge_tasks: JudgeTasks { pending, task, ended: Mutex::new(ended) } }
        } else {
            Method::Rules
        };
        Ok(Scorer { rubric, method, programs: BTreeMap::new(), next: AtomicU64::new(0) })
    }

    /// Returns the scorer that uses these programs for the rows of their reward types. `place` names the config key for
    /// errors.
    pub fn with_programs(mut self, rewards: &Rewards, place: &str) -> Result<Scorer> {
        for (name, program) in rewards {
            let ProgramConfig { command, workers, timeout_s } = program.clone();
            let config = ScorerConfig { command, workers, timeout_s, ..ScorerConfig::default() };
            self.programs.insert(name.trim().to_lowercase(), Pool::start(&config, &format!("{place}.{name}"))?);
        }
        Ok(self)
    }

    /// Returns a description for the user: the judge's name and address, the command, or that there is no judge.
    pub fn describe(&self) -> String {
        match &self.method {
            Method::Rules => "judge off".to_owned(),
            Method::Judge { client, .. } => format!("judge {} at {}", client.model(), client.url()),
            Method::Command { name, .. } => format!("judge off, reward by {name}"),
        }
    }

    /// Returns the hashes of the files that the reward commands name, such as the source of a program, when they were
    /// started. Large files, such as weights, are left out.
    pub fn files_hash(&self) -> String {
        let pool = if let Method::Command { pool, .. } = &self.method { Some(pool) } else { None };
        pool.into_iter().chain(self.programs.values()).map(|pool| pool.files_hash.as_str()).collect()
    }

    /// Returns what the rules expect of a response, for the user; `None` for a reward program.
    pub fn expectation(&self) -> Option<String> {
        (!self.is_program()).then(|| shares::expectation(self.rubric))
    }

    /// True if a reward program scores.
    pub fn is_program(&self) -> bool {
        matches!(self.method, Method::Command { .. })
    }

    /// Returns the judge's name, if there is one.
    pub fn judge(&self) -> Option<&str> {
        match &self.method {
            Method::Judge { client, .. } => Some(client.model()),
            _ => None,
        }
    }

    /// Returns true if the strict rules decide, which know unevaluated answers.
    pub fn is_strict(&self) -> bool {
        self.rubric.mode == Mode::Strict && !matches!(self.method, Method::Command { .. })
    }

    /// Returns the score of the rules alone. Any of the item's right answers is right; the score of a wrong response is
    /// that for the label. Errors name the row if its reward type is unknown, if the rules cannot use the label, or if it
    /// needs a judge and there is none.
    pub fn by_rules(&self, item: &Item) -> Result<Score> {
        if !item.label.is_null() {
            let found = if item.label.is_array() { "a list as the label" } else { "a struct as the label" };
            let expected = format!(
                "{PLAIN_LABEL}. A reward program takes any label: `reward.command`, or a command of `rewards` for the \
                 type of the row"
            );
            return Err(Error::input(&item.place, found, expected));
        }
        let kind = typed::kind(item, self.rubric.mode)?;
        if kind == Some(RewardType::LlmJudge) && self.judge().is_none() {
            let expected = "a judge, which scores such rows: `judge: {base_url: URL, model: NAME}`";
            return Err(Error::input(&item.place, "the reward_type llm_judge and no judge", expected));
        }
        let score = |label: &String| match kind {
            Some(kind) => typed::score(item, kind, label, self.rubric),
            None => Ok(super::score(&item.text(self.rubric.mode), label, item.question.as_deref(), self.rubric)),
        };
        let first = score(&item.ground_truth)?;
        let others = if first.acc_score == 0.0 { item.right_answers() } else { Vec::new() };
        let is_wrong = |score: &Result<Score>| matches!(score, Ok(score) if score.acc_score == 0.0);
        others.iter().skip(1).map(score).find(|score| !is_wrong(score)).unwrap_or(Ok(first))
    }

    /// Checks whether the rules can score answers to a prompt whose turn already has the text `opened`. Errors if they ask
    /// for thinking and the prompt has closed it. Returns a warning if `compat` does not see that the prompt opens it.
    pub fn check_opened(&self, opened: &str, is_typed: bool) -> Result<Option<String>> {
        let Rubric { mode, format, format_weight, .. } = self.rubric;
        let is_closed = extract::closes_thinking(opened);
        if self.is_program() || extract::opening(opened).is_none() {
            return Ok(None);
        }
        if mode == Mode::Compat {
            let warning = "the chat template opens the thinking, and mode compat scores the response alone, as the published \
                           scorer does: an answer in an unfinished thinking part counts, and no response has a format \
                           with think tags";
            return Ok((!is_closed).then(|| warning.to_owned()));
        }
        if is_closed && (is_typed || format_weight > 0.0 && format != Format::ThinkAnswerBoxed) {
            let name = if is_typed { "that of a reward_type" } else { format.name() };
            let found = format!("the format {name}, which asks for thinking, and a prompt that ends the thinking part");
            let hint =
                "open it with chat_template_kwargs, such as {enable_thinking: true}, or set reward.format_weight=0";
            let hint =
                if is_typed { "open it with chat_template_kwargs, such as {enable_thinking: true}" } else { hint };
            return Err(Error::input_hint("reward.format", found, Format::ThinkAnswerBoxed.name(), hint));
        }
        Ok(None)
    }

    /// Checks that the row of `item` can be scored. A reward program scores it; a judge is not asked.
    pub fn check(&self, item: Item) -> Result<()> {
        match self.program(&item) {
            Some(_) => self.score_all(vec![item]).into_iter().try_for_each(|judged| judged.map(drop)),
            None => self.check_label(&item),
        }
    }

    /// Checks that the rules can use the label of an item. An item that a reward program scores passes.
    pub fn check_label(&self, item: &Item) -> Result<()> {
        match self.program(item) {
            Some(_) => Ok(()),
            None => self.by_rules(item).map(drop),
        }
    }

    /// Returns a text that differs for scorers whose [`Scorer::check_label`] can differ. It is empty for the strict rules
    /// alone, so that indexes of earlier versions stay valid.
    pub fn label_rules(&self) -> String {
        if self.rubric == Rubric::from(Mode::Strict) && matches!(self.method, Method::Rules) && self.programs.is_empty()
        {
            return String::new();
        }
        let (is_program, has_judge) = (self.is_program(), self.judge().is_some());
        format!(" {:?} {is_program} {has_judge} {:?}", self.rubric, self.programs.keys())
    }

    /// Returns the reward program that scores an item, if one does.
    fn program(&self, item: &Item) -> Option<&Pool> {
        let named = typed::name(&item.extra_info, typed::REWARD_TYPE).map(str::to_lowercase);
        match (named.and_then(|name| self.programs.get(&name)), &self.method) {
            (None, Method::Command { pool, .. }) => Some(pool),
            (program, _) => program,
        }
    }

    /// Submits `item` for scoring. If the rules decide, `reply` is called immediately on this thread. If a judge or a
    /// command is needed, `reply` is called later. Blocks only while the queue is full.
    pub fn submit(&self, item: Item, reply: OnScored) {
        if let Some(pool) = self.program(&item) {
            return pool.submit(self.next.fetch_add(1, Ordering::Relaxed), item, reply);
        }
        let rules = self.by_rules(&item);
        self.judge_or_reply(item, rules, reply);
    }

    /// Returns the scores of many items, in order. The rules run on all cores.
    pub fn score_all(&self, items: Vec<Item>) -> Vec<Result<Judged>> {
        let count = items.len();
        let (send, scored) = mpsc::channel();
        let reply = |i: usize| -> OnScored {
            let send = send.clone();
            // The receiver no longer exists if this function has panicked.
            Box::new(move |judged| drop(send.send((i, judged))))
        };
        let rules = |item: &Item| self.program(item).is_none().then(|| self.by_rules(item));
        let rules: Vec<Option<Result<Score>>> = items.par_iter().map(rules).collect();
        for (i, (item, rules)) in items.into_iter().zip(rules).enumerate() {
            match rules {
                Some(rules) => self.judge_or_reply(item, rules, reply(i)),
                None => self.submit(item, reply(i)),
            }
        }
        drop(send);
        let mut out: Vec<Option<Result<Judged>>> = std::iter::repeat_with(|| None).take(count).collect();
        for (i, judged) in scored {
            out[i] = Some(judged);
        }
        let lost = || Err(Error::Failed("a response was not scored".to_owned()));
        out.into_iter().map(|judged| judged.unwrap_or_else(lost)).collect()
    }

    fn judge_or_reply(&self, item: Item, rules: Result<Score>, reply: OnScored) {
        // A judge has no say about the other types.
        let is_judged = typed::name(&item.extra_info, typed::REWARD_TYPE).is_none() || typed::is_rated(&item);
        match (rules, &self.method) {
            (Err(error), _) => reply(Err(error)),
            (Ok(rules), Method::Judge { judge_tasks, .. }) if rules.acc_score == 0.0 && is_judged => {
                // The queue closes only with its runtime; `reply` is then dropped without a call.
                let _ = judge_tasks.pending.blocking_send(PendingVerdict { item, rules, reply });
            }
            (Ok(rules), _) => reply(Ok(Judged::by_rules(rules))),
        }
    }
}

/// Sends the requests about each item to the judge, many concurrently.
async fn judge_all(judge_task: JudgeTask, rubric: Rubric, mut queue: channel::Receiver<PendingVerdict>) {
    // More tasks than concurrent requests, because equal requests and stored verdicts need no connection.
    let most = (4 * judge_task.client.concurrency()).clamp(1, Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(most));
    let mut asked = JoinSet::new();
    while let Some(PendingVerdict { item, rules, reply }) = queue.recv().await {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        while asked.try_join_next().is_some() {}
        let judge_task = judge_task.clone();
        asked.spawn(async move {
            let Item { question, place, .. } = &item;
            let (reference, question) = (item.right_answers().join(" or "), question.as_deref());
            let judged = match typed::is_rated(&item) {
                true => judge_task.client.rate(rules, &reference, question, rubric).await,
                false => judge_task.client.score(rules, &item.text(rubric.mode), &reference, question, rubric).await,
            };
            reply(judged.map_err(|error| error.within(place)));
            drop(permit);
        });
    }
    while asked.join_next().await.is_some() {}
}
