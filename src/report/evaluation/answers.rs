//! Questions with their answers and verdicts: those of a run, the wrong ones first, or those of two, the flipped ones first.

use super::paired;
use super::read::{Run, acc};
use crate::error::Result;
use crate::eval::samples::{self, Sample};
use crate::report::browser::{Answer, Browser, Row, Verdict, section};
use crate::reward::judge::Ruling;

/// Questions a page holds; the file of samples has the others.
const SHOWN: usize = 400;

fn shown(name: &str, answer: &samples::Answer) -> Answer {
    let verdict = match &answer.judge {
        Some(Ruling::Unjudged(_)) => Verdict::Unjudged,
        _ if answer.acc_score >= 0.5 => Verdict::Right,
        _ => Verdict::Wrong,
    };
    let whole = Answer::of(name, &answer.response);
    let taken = if answer.predict_str.is_empty() { whole.answer.clone() } else { answer.predict_str.clone() };
    Answer {
        answer: taken,
        verdict: Some(verdict),
        why: answer.why.clone(),
        tokens: Some(answer.response_length).filter(|tokens| *tokens > 0),
        ..whole
    }
}

fn row(sample: &Sample, answers: Vec<Answer>, mut facets: Vec<(String, String)>) -> Row {
    facets.push(("task".to_owned(), sample.task.clone()));
    facets.extend(sample.subject.clone().map(|subject| ("subject".to_owned(), subject)));
    Row {
        id: format!("{} {}", sample.task, sample.index),
        question: sample.question.clone(),
        gold: Some(sample.target.clone()),
        answers,
        facets,
        ..Row::default()
    }
}

fn browse(title: &str, what: &str, mut rows: Vec<(u8, Row)>) -> Result<String> {
    if rows.is_empty() {
        return Ok(String::new());
    }
    rows.sort_by_key(|(rank, _)| *rank);
    let all = rows.len();
    let rows: Vec<Row> = rows.into_iter().take(SHOWN).map(|(_, row)| row).collect();
    let note = format!("{} of {all} questions, {what}; samples.jsonl has them all.", rows.len());
    section(&Browser { title: title.to_owned(), note, rows })
}

/// The questions of a run with all their answers.
pub fn of(run: &Run) -> Result<String> {
    let samples = run.tasks.iter().flat_map(|task| &task.samples);
    let rows = samples.map(|sample| {
        let greedy = sample.greedy.iter().map(|answer| shown("greedy", answer));
        let sampled = sample.sampled.iter().enumerate().map(|(i, answer)| shown(&format!("sampled {}", i + 1), answer));
        (u8::from(acc(sample).is_some_and(|acc| acc >= 0.5)), row(sample, greedy.chain(sampled).collect(), Vec::new()))
    });
    browse("The answers", "those without a right answer first", rows.collect())
}

/// The questions of two runs with the first answer of each.
pub fn of_two(a: &Run, b: &Run) -> Result<String> {
    let both = a.tasks.iter().filter_map(|x| Some(paired(x, b.task(&x.task)?))).flatten();
    let rows = both.map(|(x, y)| {
        let right = |sample: &Sample| acc(sample).is_some_and(|acc| acc >= 0.5);
        let (rank, flip) = match (right(x), right(y)) {
            (false, true) => (0, "gained"),
            (true, false) => (0, "lost"),
            (false, false) => (1, "wrong in both"),
            (true, true) => (2, "right in both"),
        };
        let answers = [(&a.name, x), (&b.name, y)];
        let answers = answers.iter().filter_map(|(name, sample)| Some(shown(name, sample.answers().next()?))).collect();
        (rank, row(x, answers, vec![("flipped".to_owned(), flip.to_owned())]))
    });
    browse("The answers side by side", "those that flipped first", rows.collect())
}
