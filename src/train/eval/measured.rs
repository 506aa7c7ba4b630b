//! Scores answers. Rows are read a second time, without their images, and their answers are scored in batches. Every
//! question is written to `samples.jsonl` and then dropped from memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use super::samples::{Answer, Sample};
use omr_base::client::Completion;
use omr_base::config::Mode;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::observe::Observer;
use omr_data::reward::judge::{Ruling, Summary};
use omr_data::reward::{Item, Judged, Shares};
use omr_data::rows::Row;
use omr_data::task::{Counted, Crash, Metrics, TaskRows, TaskSpec};

/// Limits of a batch of answers that are scored together: their number, and their size in bytes.
const TOGETHER: usize = 1024;
const BYTES_TOGETHER: usize = 32 << 20;

/// Answers to one question, before they are scored.
#[derive(Clone, Debug, Default)]
pub struct QuestionAnswers {
    /// Greedy answer.
    pub greedy: Option<Completion>,
    /// Answers at temperature 1.
    pub sampled: Vec<Completion>,
}

impl QuestionAnswers {
    fn all(&self) -> impl Iterator<Item = &Completion> {
        self.greedy.iter().chain(&self.sampled)
    }
}

/// A source of answers.
pub trait Answers {
    /// Returns the text that the turn of the answers to `row`, which has the number `index` in the task, had before them.
    fn opened(&self, row: &Row, index: u64) -> String;

    /// Returns the answers to question `i`, which has the number `index` in the task.
    fn given(&mut self, i: usize, index: u64) -> Result<QuestionAnswers>;

    /// Called after the last question. `crashed` lists the rows that were left out. `limited` is true if the task may have
    /// more questions. Returns an error if there are answers without a question.
    fn over(&mut self, questions: usize, crashed: &[(u64, Crash)], limited: bool) -> Result<()>;
}

/// Results of a task.
pub struct Measured {
    /// Description of the task.
    pub spec: &'static TaskSpec,
    /// Rows on which the published evaluation ends with an error. They are left out in compat.
    pub crashed: Vec<(u64, Crash)>,
    /// Number of images in all questions.
    pub images: usize,
    /// Number of answers without a score.
    pub(super) unscored: usize,
    pub(super) mode: Mode,
    pub(super) counted: Vec<Counted>,
    /// Shares of answers that the strict rules did not read; absent with other scorers.
    pub(super) shares: Option<Shares>,
    /// Metrics by the rules alone, for the questions whose metrics a judge changed. Keys are indices in `counted`.
    pub(super) rules_alone: BTreeMap<usize, Metrics>,
}

/// Results of the judge over all tasks.
pub struct Judge {
    /// Counts of the judge's verdicts.
    pub summary: Summary,
    /// Last error of the judge, if it stopped responding.
    pub down: Option<String>,
}

/// Results of all tasks, and of the judge if one was used.
pub struct MeasuredTasks {
    /// Results of the tasks, in their order.
    pub tasks: Vec<Measured>,
    /// Results of the judge.
    pub judge: Option<Judge>,
}

/// Scores the answers to each task's questions and writes `dir/samples.jsonl` atomically. Returns [`Error::Stopped`] if
/// the user requests a stop. Verdicts of a judge stay stored.
pub fn measure(
    dir: &Path,
    mut tasks: Vec<(&TaskRows, Box<dyn Answers + '_>)>,
    observer: &dyn Observer,
) -> Result<MeasuredTasks> {
    let name = tasks.first().and_then(|(rows, _)| rows.scoring.scorer.judge().map(str::to_owned));
    let mut judge = name.map(|name| Judge { summary: Summary::new(&name), down: None });
    let mut measured = Vec::with_capacity(tasks.len());
    observer.begin("score", "questions", 0, 0);
    files::write_with(dir.join("samples.jsonl"), |out| {
        for (rows, answers) in &mut tasks {
            let (spec, mode, crashed) = (rows.spec, rows.source.mode, Vec::new());
            let (counted, rules_alone) = (Vec::new(), BTreeMap::new());
            let shares = rows.scoring.scorer.is_strict().then(Shares::default);
            let empty = Measured { spec, crashed, images: 0, unscored: 0, mode, counted, shares, rules_alone };
            let before = measured.iter().map(|task: &Measured| task.counted.len()).sum();
            let (judge, batch) = (&mut judge, Vec::new());
            let scoring = Scoring { rows, out, judge, observer, before, measured: empty, batch, answers: 0, bytes: 0 };
            measured.push(scoring.all(&mut **answers)?);
        }
        Ok(())
    })?;
    observer.end();
    Ok(MeasuredTasks { tasks: measured, judge })
}

/// State of the scoring of one task.
struct Scoring<'a> {
    rows: &'a TaskRows<'a>,
    out: &'a mut dyn Write,
    judge: &'a mut Option<Judge>,
    observer: &'a dyn Observer,
    /// Number of questions in the previous tasks.
    before: usize,
    measured: Measured,
    /// Questions whose answers wait to be scored.
    batch: Vec<(u64, Row, String, QuestionAnswers)>,
    answers: usize,
    bytes: usize,
}

impl Scoring<'_> {
    fn all(mut self, answers: &mut dyn Answers) -> Result<Measured> {
        let rows = self.rows;
        let mut questions = 0;
        let limited = rows.each(|index, row| {
            match row {
                Ok(row) => {
                    let given = answers.given(questions, index)?;
                    questions += 1;
                    self.measured.images += row.images.len();
                    self.answers += given.all().count();
                    self.bytes += given.all().map(|answer| answer.text.len()).sum::<usize>();
                    let opened = answers.opened(&row, index);
                    let row = Row { extra: row.extra_info(), images: Vec::new(), ..row };
                    self.batch.push((index, row, opened, given));
                    if self.answers >= TOGETHER || self.bytes >= BYTES_TOGETHER {
                        self.score()?;
                    }
                }
                Err(crash) => self.measured.crashed.push((index, crash)),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.score()?;
        answers.over(questions, &self.measured.crashed, limited)?;
        self.measured.crashed.sort_by_key(|(index, _)| *index);
        if self.measured.unscored > 0 {
            let (name, unscored) = (rows.spec.name, self.measured.unscored);
            self.observer.note(&format!("{name}: {unscored} answers have no score and count as wrong"));
        }
        Ok(self.measured)
    }

    /// Scores the waiting batch.
    fn score(&mut self) -> Result<()> {
        self.observer.check_stop()?;
        let batch = std::mem::take(&mut self.batch);
        (self.answers, self.bytes) = (0, 0);
        let item = |row: &Row, opened: &str, answer: &Completion| self.rows.scoring.item(row, opened, &answer.text);
        let items: Vec<Item> = batch
            .iter()
            .flat_map(|(_, row, opened, given)| given.all().map(move |answer| item(row, opened, answer)))
            .collect();
        let mut judged = self.rows.scoring.scorer.score_all(items.clone()).into_iter().zip(items);
        for (index, row, opened, given) in batch {
            let mut answer = |completion: Completion| {
                let (judged, item) =
                    judged.next().ok_or_else(|| Error::Failed("an answer was not scored".to_owned()))?;
                let judged = self.with_judge_fallback(judged, &item)?;
                self.measured.unscored += usize::from(judged.score.score.is_none());
                self.measured.shares.iter_mut().for_each(|shares| shares.count(&completion.text, &judged.score.why));
                Ok(Answer { opened: opened.clone(), ..scored(completion, judged) })
            };
            let greedy = given.greedy.map(&mut answer).transpose()?;
            let sampled = given.sampled.into_iter().map(&mut answer).collect::<Result<_>>()?;
            self.count(&row, Sample { greedy, sampled, ..Sample::of(self.rows.spec.name, index, &row) })?;
        }
        self.observer.step((self.before + self.measured.counted.len()) as u64, &[]);
        Ok(())
    }

    /// Returns the final score. If the judge does not respond, the final score is the score by the rules.
    fn with_judge_fallback(&mut self, judged: Result<Judged>, item: &Item) -> Result<Judged> {
        let Some(judge) = self.judge else { return judged };
        let judged = match judged {
            Err(Error::Server { what, .. }) => {
                judge.down = Some(what.clone());
                let rules = Judged::by_rules(self.rows.scoring.scorer.by_rules(item)?);
                Judged { judge: Some(Ruling::Unjudged(what)), ..rules }
            }
            other => other?,
        };
        judge.summary.count(judged.judge.as_ref());
        Ok(judged)
    }

    /// Adds a question with its scores. On some questions the published evaluation ends with an error. In compat, such
    /// a question is left out and recorded. In strict, this function returns an error.
    fn count(&mut self, row: &Row, mut sample: Sample) -> Result<()> {
        let mode = self.rows.source.mode;
        let measured = &mut self.measured;
        let of = |rules_alone: bool| (measured.spec.score)(row, &sample.marks(rules_alone), mode);
        match (of(false), of(true)) {
            (Ok(metrics), Ok(rules_alone)) => {
                sample.metrics = metrics.clone();
                let clusters = sample.clusters.clone();
                if rules_alone != metrics {
                    measured.rules_alone.insert(measured.counted.len(), rules_alone);
                }
                measured.counted.push(Counted { metrics, clusters });
                let line = sample.line()?;
                self.out.write_all(line.as_bytes()).map_err(Error::io("samples.jsonl"))
            }
            (Err(crash), _) | (_, Err(crash)) if mode == Mode::Compat => {
                measured.crashed.push((sample.index, crash));
                Ok(())
            }
            (Err(crash), _) | (_, Err(crash)) => Err(crash.error(&row.place)),
        }
    }
}

fn scored(completion: Completion, judged: Judged) -> Answer {
    let Judged { score, judge, .. } = judged;
    Answer {
        opened: String::new(),
        response: completion.text,
        response_length: completion.completion_tokens as usize,
        finish_reason: completion.finish_reason,
        score: score.score,
        acc_score: score.acc_score,
        format_reward_score: score.format_reward_score,
        predict_str: score.predict_str,
        why: score.why.to_string(),
        judge,
    }
}
