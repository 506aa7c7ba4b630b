//! Compares the verdicts of another framework with those of our rules. Every answer is scored with our rules, and equal
//! and different verdicts are counted.

use omr_verify::extract;
use serde::Serialize;
use serde_json::{Map, json};

use super::row::{Framework, Row};
use omr_base::config::Mode;
use omr_base::error::Result;
use omr_data::reward::judge::Ruling;
use omr_data::reward::{Item, Judged, RIGHT_ANSWERS, Scorer};

/// Number of responses that are scored together.
const TOGETHER: usize = 4096;

/// An answer with both verdicts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The answer with the verdict of the other framework.
    #[serde(flatten)]
    pub recorded: Row,
    /// Verdict of our rules.
    pub ours: bool,
    /// Rule that decided.
    pub ours_why: String,
    /// Answer that our rules extracted.
    pub predict_str: String,
    /// Ruling of the judge, if it was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<Ruling>,
}

impl Compared {
    /// True if the two verdicts differ.
    pub fn differs(&self) -> bool {
        self.recorded.theirs.is_some_and(|theirs| theirs != self.ours)
    }
}

/// Counts of equal and different verdicts of a framework and our rules on a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerdictCounts {
    /// Framework of the other verdicts.
    pub framework: Framework,
    /// Task, as named by its file.
    pub task: String,
    /// Number of answers.
    pub n: usize,
    /// Number of answers that both count as correct.
    pub both_right: usize,
    /// Number of answers that only the other framework counts as correct.
    pub only_theirs: usize,
    /// Number of answers that only our rules count as correct.
    pub only_ours: usize,
    /// Number of answers that both count as wrong.
    pub both_wrong: usize,
    /// Number of answers without a verdict of the other framework.
    pub no_verdict: usize,
}

impl VerdictCounts {
    /// Returns the shares of correct answers by the other framework and by our rules, among the answers with a verdict.
    pub fn shares(&self) -> Option<[f64; 2]> {
        let n = self.n - self.no_verdict;
        (n > 0).then(|| [self.only_theirs, self.only_ours].map(|alone| (self.both_right + alone) as f64 / n as f64))
    }
}

/// Scores every answer. In compat the response is scored unchanged. With `strip_thinking`, the thinking part is removed
/// first.
pub fn compare(rows: &[Row], scorer: &Scorer, mode: Mode, strip_thinking: bool) -> Result<Vec<Compared>> {
    let mut all = Vec::with_capacity(rows.len());
    for part in rows.chunks(TOGETHER) {
        let items = part.iter().map(|row| item(row, mode, strip_thinking)).collect();
        for (row, judged) in part.iter().zip(scorer.score_all(items)) {
            let Judged { score, judge, .. } = judged?;
            all.push(Compared {
                recorded: row.clone(),
                ours: score.acc_score >= 0.5,
                ours_why: score.why.to_string(),
                predict_str: score.predict_str,
                judge,
            });
        }
    }
    Ok(all)
}

/// Maximum length in characters of a line that counts as an answer.
const ANSWER_CHARS: usize = 200;

/// Returns the text to score. Other frameworks do not request a format from their models, so if a response contains no
/// marked answer, its last line is used as the answer.
fn scored(response: &str) -> String {
    if !extract::predict_str(response, Mode::Strict).0.is_empty() {
        return response.to_owned();
    }
    let answer_part = extract::strip_think(response, Mode::Strict);
    let last = answer_part.lines().rev().map(str::trim).find(|line| !line.is_empty());
    match last.filter(|line| line.chars().count() <= ANSWER_CHARS) {
        Some(line) => format!("<answer>{line}</answer>"),
        None => response.to_owned(),
    }
}

fn item(row: &Row, mode: Mode, strip_thinking: bool) -> Item {
    let response = if strip_thinking { extract::strip_think(&row.response, mode) } else { row.response.clone() };
    Item {
        response: if mode == Mode::Strict { scored(&response) } else { response },
        ground_truth: row.right_answers.first().unwrap_or(&row.gold).clone(),
        question: row.question.clone(),
        place: row.place.clone(),
        extra_info: Map::from_iter([(RIGHT_ANSWERS.to_owned(), json!(row.right_answers))]),
        ..Item::default()
    }
}

/// Counts the verdicts per framework and task, in the order of the rows.
pub fn verdict_counts(compared: &[Compared]) -> Vec<VerdictCounts> {
    let mut out: Vec<VerdictCounts> = Vec::new();
    for Compared { recorded: row, ours, .. } in compared {
        let at = out.iter().position(|known| known.framework == row.framework && known.task == row.task);
        let at = at.unwrap_or_else(|| {
            let (framework, task) = (row.framework, row.task.clone());
            let [n, both_right, only_theirs, only_ours, both_wrong, no_verdict] = [0; 6];
            out.push(VerdictCounts { framework, task, n, both_right, only_theirs, only_ours, both_wrong, no_verdict });
            out.len() - 1
        });
        let counts = &mut out[at];
        counts.n += 1;
        *match (row.theirs, *ours) {
            (Some(true), true) => &mut counts.both_right,
            (Some(true), false) => &mut counts.only_theirs,
            (Some(false), true) => &mut counts.only_ours,
            (Some(false), false) => &mut counts.both_wrong,
            (None, _) => &mut counts.no_verdict,
        } += 1;
    }
    out
}

/// Column heads of [`cells`].
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

/// Formats the counts as the texts of a row under [`HEADS`].
pub fn cells(row: &VerdictCounts) -> [String; 10] {
    let percent = |i: usize| row.shares().map_or("-".to_owned(), |shares| format!("{:.1}", 100.0 * shares[i]));
    let [n, right, theirs, ours, wrong, none] =
        [row.n, row.both_right, row.only_theirs, row.only_ours, row.both_wrong, row.no_verdict].map(|n| n.to_string());
    let name = row.framework.name().to_owned();
    [name, row.task.clone(), n, right, theirs, ours, wrong, none, percent(0), percent(1)]
}

/// Formats the counts as a text table.
pub fn table(verdict_counts: &[VerdictCounts]) -> String {
    let head = HEADS.map(str::to_owned);
    let rows: Vec<[String; 10]> = std::iter::once(head).chain(verdict_counts.iter().map(cells)).collect();
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
