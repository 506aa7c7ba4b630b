//! Questions with their answers, verdicts and images. For one run, wrong answers come first. For several runs,
//! questions whose result changed come first. The images are limited to what a page may contain.

use super::images::Images;
use super::read::{Run, SHOWN, right, shown};
use crate::report::browser::{Answer, Browser, Row, THUMBNAIL_SIDE, Verdict};
use omr_data::reward::judge::Ruling;
use omr_train::eval::samples::{self, Sample};

/// Maximum number of bytes of images in a page, in their encoded form.
const BYTES: usize = 8 << 20;

/// Converts an answer for the browser.
pub fn answer(name: &str, answer: &samples::Answer) -> Answer {
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
        // The published scorer uses the word "none" for a rejected answer.
        why: if answer.why == "none" { "no rule accepts the answer".to_owned() } else { answer.why.clone() },
        tokens: Some(answer.response_length).filter(|tokens| *tokens > 0),
        ..whole
    }
}

/// A question with its answers and facets.
type Answered<'a> = (&'a Sample, Vec<Answer>, Vec<(String, String)>);

/// Makes the browser of `questions`, which are selected from `all` questions. `what` describes their order for the
/// note. Returns `None` if there are no questions.
fn browse(title: &str, what: &str, all: usize, questions: Vec<Answered>, images: &Images) -> Option<Browser> {
    if all == 0 {
        return None;
    }
    let (mut bytes, mut with, mut left_out) = (0, 0, 0);
    let mut row = |(sample, answers, mut facets): Answered| {
        facets.push(("task".to_owned(), sample.task.clone()));
        facets.extend(sample.subject.clone().map(|subject| ("subject".to_owned(), subject)));
        let mut row = Row {
            id: format!("{} {}", sample.task, sample.index),
            question: sample.question.clone(),
            gold: Some(sample.target.clone()),
            answers,
            facets,
            ..Row::default()
        };
        if let Some(small) = images.get(&(sample.task.clone(), sample.index)) {
            let size: usize = small.iter().map(String::len).sum();
            if bytes + size <= BYTES {
                (bytes, with) = (bytes + size, with + 1);
                row.images.clone_from(small);
            } else {
                left_out += 1;
                row.facts.push(("images".to_owned(), format!("{} left out", small.len())));
            }
        }
        row
    };
    let rows: Vec<Row> = questions.into_iter().map(&mut row).collect();
    let mut note = format!("{} of {all} questions, {what}; samples.jsonl contains all.", rows.len());
    if with > 0 {
        note += &format!(" {with} of them have images, scaled down to at most {THUMBNAIL_SIDE} pixels");
        let most = BYTES >> 20;
        note += &match left_out {
            0 => ".".to_owned(),
            n => format!("; {n} more are shown without images, because a page contains at most {most} MiB of them."),
        };
    }
    Some(Browser { title: title.to_owned(), note, rows })
}

/// Returns the questions of a run with all their answers.
pub fn of(run: &Run, images: &Images) -> Option<Browser> {
    let samples = run.tasks.iter().flat_map(|task| &task.samples);
    let questions = shown(samples.clone()).into_iter().map(|sample| {
        let greedy = sample.greedy.iter().map(|given| answer("greedy", given));
        let sampled = sample.sampled.iter().enumerate().map(|(i, given)| answer(&format!("sampled {}", i + 1), given));
        (sample, greedy.chain(sampled).collect(), Vec::new())
    });
    browse("The answers", "the wrong ones first", samples.count(), questions.collect(), images)
}

/// Returns the questions of several runs with the first answer of each run.
pub fn of_several(runs: &[Run], images: &Images) -> Option<Browser> {
    let mut all: Vec<(u8, &str, Vec<&Sample>)> = Vec::new();
    for task in &runs[0].tasks {
        let others: Vec<_> = runs[1..].iter().filter_map(|run| Some(run.task(&task.task)?.by_index())).collect();
        for sample in task.samples.iter().filter(|_| others.len() + 1 == runs.len()) {
            let same = others.iter().filter_map(|other| other.get(&sample.index).copied());
            let each: Vec<&Sample> = [sample].into_iter().chain(same).collect();
            if each.len() < runs.len() {
                continue;
            }
            let (rank, flipped) = match (right(sample), each.iter().filter(|sample| right(sample)).count()) {
                (_, 0) => (1, "wrong in all"),
                (_, n) if n == runs.len() => (2, "right in all"),
                _ if runs.len() > 2 => (0, "right in some"),
                (false, _) => (0, "gained"),
                (true, _) => (0, "lost"),
            };
            all.push((rank, flipped, each));
        }
    }
    all.sort_by_key(|(rank, ..)| *rank);
    let count = all.len();
    let questions = all.into_iter().take(SHOWN).map(|(_, flipped, each)| {
        let first =
            runs.iter().zip(&each).filter_map(|(run, sample)| Some(answer(&run.name, sample.answers().next()?)));
        (each[0], first.collect(), vec![("flipped".to_owned(), flipped.to_owned())])
    });
    let questions = questions.collect();
    browse("The answers side by side", "those whose result changed first", count, questions, images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_so_many_bytes_of_images_and_says_whose_are_missing() {
        let sample = |index| Sample { task: "t".to_owned(), index, ..Sample::default() };
        let samples: Vec<Sample> = (0..4).map(sample).collect();
        let large = |i: u64| (("t".to_owned(), i), vec!["x".repeat(BYTES / 2); 1 + usize::from(i == 1)]);
        let mut images: Images = [0, 2, 3].map(large).into();
        let page = |images: &Images| {
            browse("", "", 9, samples.iter().map(|sample| (sample, Vec::new(), Vec::new())).collect(), images).unwrap()
        };
        let found = page(&images);
        let bytes: usize = found.rows.iter().flat_map(|row| &row.images).map(String::len).sum();
        assert!(bytes <= BYTES && found.note.starts_with("4 of 9 questions"), "{bytes}");
        assert!(found.note.contains("2 of them have images") && found.note.contains("; 1 more"));
        assert_eq!(found.rows.iter().flat_map(|row| &row.facts).filter(|fact| fact.1 == "1 left out").count(), 1);
        images.extend([large(1)]);
        images.remove(&("t".to_owned(), 0));
        let found = page(&images).note;
        assert!(found.contains("1 of them have images") && found.contains("; 2 more"), "the first one fills the page");
        images.clear();
        assert!(!page(&images).note.contains("have images"));
    }
}
