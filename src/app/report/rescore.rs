//! The page of the re-scorer: how often the verdicts of other frameworks equal those of our rules, and every answer
//! with different verdicts.

use minijinja::context;

use super::Table;
use super::browser::{self, Answer, Browser, Row, Verdict};
use super::html::render;
use omr_base::error::Result;
use omr_train::eval::rescore::{Compared, HEADS, VerdictCounts, cells};

/// Returns the page of the comparison. `rules` describes the rules that were used.
pub fn page(verdict_counts: &[VerdictCounts], compared: &[Compared], rules: &str) -> Result<String> {
    let differing: Vec<&Compared> = compared.iter().filter(|row| row.differs()).collect();
    let table = Table {
        head: HEADS.map(str::to_owned).to_vec(),
        rows: verdict_counts.iter().map(|row| cells(row).to_vec()).collect(),
    };
    let browser = Browser {
        title: "Answers with different verdicts".to_owned(),
        note: "Each answer is shown with the verdict in the framework's log and with omr's verdict.".to_owned(),
        rows: differing.iter().map(|row| shown(row)).collect(),
    };
    let (title, compared, differing) = ("Comparison of verdicts on the same answers", compared.len(), differing.len());
    render("rescore.html", &[browser::SCRIPT], context! { title, compared, differing, rules, table, browser })
}

fn shown(compared: &Compared) -> Row {
    let row = &compared.recorded;
    let verdict = |right: bool| Some(if right { Verdict::Right } else { Verdict::Wrong });
    let theirs = Answer {
        verdict: row.theirs.and_then(verdict),
        why: row.theirs_why.clone(),
        ..Answer::of(row.framework.name(), &row.response)
    };
    let read = if compared.predict_str.is_empty() { "no answer found" } else { &compared.predict_str };
    let ours = Answer {
        name: "omr".to_owned(),
        answer: read.to_owned(),
        verdict: verdict(compared.ours),
        why: compared.ours_why.clone(),
        ..Answer::default()
    };
    let right = if compared.ours { "omr only" } else { "framework only" };
    let facets = [("correct according to", right), ("framework", row.framework.name()), ("task", row.task.as_str())];
    Row {
        id: format!("{} {}", row.task, row.index),
        question: row.question.clone().unwrap_or_default(),
        gold: Some(row.gold.clone()),
        answers: vec![theirs, ours],
        facets: facets.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Row::default()
    }
}
