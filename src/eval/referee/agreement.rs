//! Another framework's verdicts beside ours: every answer scored by our rules, and how often the two agree.

use omr_verify::extract;
use serde::Serialize;

use super::row::{Framework, Row};
use crate::config::Mode;
use crate::error::Result;
use crate::reward::judge::Ruling;
use crate::reward::{Item, Judged, Scorer};

/// Responses scored together.
const TOGETHER: usize = 4096;

/// An answer with both verdicts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Whose log it is of.
    pub framework: Framework,
    /// The task, as its file names it.
    pub task: String,
    /// The row's number or name there.
    pub index: String,
    /// What was asked, options included, where the log says.
    pub question: Option<String>,
    /// The right answer.
    pub gold: String,
    /// The answer.
    pub response: String,
    /// Their verdict; none where the log has none.
    pub theirs: Option<bool>,
    /// The metric or column it stands in, and what they read.
    pub theirs_why: String,
    /// Our verdict.
    pub ours: bool,
    /// The rule that decided.
    pub ours_why: String,
    /// What was taken as the answer.
    pub predict_str: String,
    /// The judge's word, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<Ruling>,
}

impl Compared {
    /// True where the two verdicts are unlike.
    pub fn differs(&self) -> bool {
        self.theirs.is_some_and(|theirs| theirs != self.ours)
    }
}

/// How often a framework and our rules agree on a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Whose verdicts they are.
    pub framework: Framework,
    /// The task, as its file names it.
    pub task: String,
    /// Answers.
    pub n: usize,
    /// Right by both.
    pub both_right: usize,
    /// Right by theirs alone.
    pub only_theirs: usize,
    /// Right by ours alone.
    pub only_ours: usize,
    /// Wrong by both.
    pub both_wrong: usize,
    /// Without a verdict of theirs.
    pub no_verdict: usize,
}

impl Agreement {
    /// Share of answers with a verdict that are right by theirs and by ours.
    pub fn shares(&self) -> Option<[f64; 2]> {
        let n = self.n - self.no_verdict;
        (n > 0).then(|| [self.only_theirs, self.only_ours].map(|alone| (self.both_right + alone) as f64 / n as f64))
    }
}

/// Scores every answer, in compat as it stands; thinking is taken off first where `strip_thinking` says so.
pub fn compare(rows: &[Row], scorer: &Scorer, mode: Mode, strip_thinking: bool) -> Result<Vec<Compared>> {
    let mut all = Vec::with_capacity(rows.len());
    for part in rows.chunks(TOGETHER) {
        let items = part.iter().map(|row| item(row, mode, strip_thinking)).collect();
        for (row, judged) in part.iter().zip(scorer.score_all(items)) {
            all.push(compared(row, judged?));
        }
    }
    Ok(all)
}

/// Characters of a line that may be an answer by itself.
const ANSWER_CHARS: usize = 200;

/// What is scored of an answer. Models of other frameworks are asked for no format: where an answer keeps to none, its last
/// line is what it says.
fn scored(response: &str) -> String {
    if !extract::predict_str(response, Mode::Strict).0.is_empty() {
        return response.to_owned();
    }
    let said = extract::strip_think(response, Mode::Strict);
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    match last.filter(|line| line.chars().count() <= ANSWER_CHARS) {
        Some(line) => format!("<answer>{line}</answer>"),
        None => response.to_owned(),
    }
}

fn item(row: &Row, mode: Mode, strip_thinking: bool) -> Item {
    let response = if strip_thinking { extract::strip_think(&row.response, mode) } else { row.response.clone() };
    Item {
        response: if mode == Mode::Strict { scored(&response) } else { response },
        ground_truth: row.gold.clone(),
        question: row.question.clone(),
        place: row.place.clone(),
        ..Item::default()
    }
}

fn compared(row: &Row, judged: Judged) -> Compared {
    let Judged { score, judge, .. } = judged;
    Compared {
        framework: row.framework,
        task: row.task.clone(),
        index: row.index.clone(),
        question: row.question.clone(),
        gold: row.gold.clone(),
        response: row.response.clone(),
        theirs: row.theirs,
        theirs_why: row.theirs_why.clone(),
        ours: score.acc_score >= 0.5,
        ours_why: score.why.to_string(),
        predict_str: score.predict_str,
        judge,
    }
}

/// The table of agreement: a line for each framework's task, in the order they come.
pub fn agreements(compared: &[Compared]) -> Vec<Agreement> {
    let mut out: Vec<Agreement> = Vec::new();
    for row in compared {
        let at = out.iter().position(|known| known.framework == row.framework && known.task == row.task);
        let at = at.unwrap_or_else(|| {
            let (framework, task) = (row.framework, row.task.clone());
            let [n, both_right, only_theirs, only_ours, both_wrong, no_verdict] = [0; 6];
            out.push(Agreement { framework, task, n, both_right, only_theirs, only_ours, both_wrong, no_verdict });
            out.len() - 1
        });
        let counts = &mut out[at];
        counts.n += 1;
        *match (row.theirs, row.ours) {
            (Some(true), true) => &mut counts.both_right,
            (Some(true), false) => &mut counts.only_theirs,
            (Some(false), true) => &mut counts.only_ours,
            (Some(false), false) => &mut counts.both_wrong,
            (None, _) => &mut counts.no_verdict,
        } += 1;
    }
    out
}

/// The heads of [`cells`].
pub const HEADS: [&str; 10] = [
    "framework",
    "task",
    "n",
    "both right",
    "only theirs",
    "only ours",
    "both wrong",
    "no verdict",
    "theirs %",
    "ours %",
];

/// An agreement as texts, under [`HEADS`].
pub fn cells(row: &Agreement) -> [String; 10] {
    let percent = |i: usize| row.shares().map_or("-".to_owned(), |shares| format!("{:.1}", 100.0 * shares[i]));
    let [n, right, theirs, ours, wrong, none] =
        [row.n, row.both_right, row.only_theirs, row.only_ours, row.both_wrong, row.no_verdict].map(|n| n.to_string());
    let name = row.framework.name().to_owned();
    [name, row.task.clone(), n, right, theirs, ours, wrong, none, percent(0), percent(1)]
}

/// The table as text in columns.
pub fn table(agreements: &[Agreement]) -> String {
    let head = HEADS.map(str::to_owned);
    let rows: Vec<[String; 10]> = std::iter::once(head).chain(agreements.iter().map(cells)).collect();
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; 10]| {
        let cell = |(i, cell): (usize, &String)| {
            let width = width(i);
            if i < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}
