//! Scores responses by the rules, by the rules and a judge, or by a custom reward command. Slow scoring runs
//! concurrently with other work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rayon::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc as channel};
use tokio::task::{JoinHandle, JoinSet};

use super::process::Pool;
use super::{Item, Judged, Mode, OnScored, Rubric, Score, judge, shares};
use crate::answers::RunStore;
use crate::config::{JudgeConfig, ScorerConfig};
use crate::error::{Error, Result};

/// Maximum number of responses that wait for the judge; when it is reached, `submit` blocks.
const WAITING: usize = 1024;

/// Scores responses.
pub struct Scorer {
    rubric: Rubric,
    method: Method,
}

enum Method {
    Rules,
    Judge { client: judge::Client, judge_tasks: JudgeTasks },
    Command { name: String, pool: Pool, next: AtomicU64 },
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
        Scorer { rubric: mode.into(), method: Method::Rules }
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
            Method::Command { name: config.command.join(" "), pool, next: AtomicU64::new(0) }
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
        Ok(Scorer { rubric, method })
    }

    /// Returns a description for the user: the judge's name and address, the command, or that there is no judge.
    pub fn describe(&self) -> String {
        match &self.method {
            Method::Rules => "judge off".to_owned(),
            Method::Judge { client, .. } => format!("judge {} at {}", client.model(), client.url()),
            Method::Command { name, .. } => format!("judge off, reward by {name}"),
        }
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
    /// that for the label.
    pub fn by_rules(&self, item: &Item) -> Score {
        let score = |label: &String| super::score(&item.response, label, item.question.as_deref(), self.rubric);
        let first = score(&item.ground_truth);
        let others = if first.acc_score == 0.0 { item.right_answers() } else { Vec::new() };
        others.iter().skip(1).map(score).find(|score| score.acc_score != 0.0).unwrap_or(first)
    }

    /// Submits `item` for scoring. If the rules decide, `reply` is called immediately on this thread. If a judge or a
    /// command is needed, `reply` is called later. Blocks only while the queue is full.
    pub fn submit(&self, item: Item, reply: OnScored) {
        if let Method::Command { pool, next, .. } = &self.method {
            return pool.submit(next.fetch_add(1, Ordering::Relaxed), item, reply);
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
        if let Method::Command { .. } = self.method {
            for (i, item) in items.into_iter().enumerate() {
                self.submit(item, reply(i));
            }
        } else {
            let rules: Vec<Score> = items.par_iter().map(|item| self.by_rules(item)).collect();
            for (i, (item, rules)) in items.into_iter().zip(rules).enumerate() {
                self.judge_or_reply(item, rules, reply(i));
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

    fn judge_or_reply(&self, item: Item, rules: Score, reply: OnScored) {
        match &self.method {
            Method::Judge { judge_tasks, .. } if rules.acc_score == 0.0 => {
                // The queue closes only with its runtime; `reply` is then dropped without a call.
                let _ = judge_tasks.pending.blocking_send(PendingVerdict { item, rules, reply });
            }
            _ => reply(Ok(Judged::by_rules(rules))),
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
            let Item { response, question, place, .. } = &item;
            let reference = item.right_answers().join(" or ");
            let judged = judge_task.client.score(rules, response, &reference, question.as_deref(), rubric).await;
            reply(judged.map_err(|error| error.within(place)));
            drop(permit);
        });
    }
    while asked.join_next().await.is_some() {}
}
