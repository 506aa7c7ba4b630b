//! What the rules expect of a response, and warnings about responses that are not as expected.

use omr_verify::{Format, NO_ANSWER, UNEVALUATED};

use super::{Rubric, Score};

/// Share of responses without an answer from which [`Shares::warning`] warns.
const MANY: f64 = 0.1;
/// Number of characters of the response that a warning shows.
const SHOWN: usize = 200;
/// Places in a response from which the rules read the answer.
const PLACES: &str =
    "<answer>...</answer>, \\boxed{...}, a number at the end of a line, or a response that consists of the answer";

/// Counts of scored responses by the reason of their verdict.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    responses: usize,
    no_answer: usize,
    unevaluated: usize,
    /// Beginning of the first response without an answer.
    example: Option<String>,
}

impl Shares {
    /// Counts a response. `why` is the reason of its verdict.
    pub fn count(&mut self, response: &str, why: &str) {
        self.responses += 1;
        self.unevaluated += usize::from(why == UNEVALUATED);
        if why == NO_ANSWER {
            self.no_answer += 1;
            self.example.get_or_insert_with(|| response.chars().take(SHOWN).collect());
        }
    }

    /// Returns the shares from 0 to 1, with the names of their metrics.
    pub fn named(&self) -> [(&'static str, f64); 2] {
        let share = |count: usize| count as f64 / self.responses.max(1) as f64;
        [("no_answer_ratio", share(self.no_answer)), ("unevaluated_ratio", share(self.unevaluated))]
    }

    /// Returns a warning with an example if the rules found no answer in many responses.
    pub fn warning(&self) -> Option<String> {
        let example = self.example.as_ref()?;
        let [(_, share), _] = self.named();
        (share >= MANY).then(|| {
            format!(
                "{:.1} % of {} responses have no answer that the scorer reads, such as {example:?}: it reads {PLACES}. \
                 reward.flexible_extract=true (rl, eval) also reads an answer alone in the last line",
                100.0 * share,
                self.responses
            )
        })
    }
}

/// Returns where the rules read an answer and what the format reward requires, for the user.
pub fn expectation(rubric: Rubric) -> String {
    let tags = "<think>...</think> and <answer>...</answer>";
    let format = match rubric.format {
        Format::ThinkAnswerBoxed => format!("{tags}, or \\boxed{{...}}"),
        Format::ThinkAnswer => tags.to_owned(),
        Format::ThinkBoxed => "<think>...</think>, then \\boxed{...}".to_owned(),
    };
    let last_line = if rubric.flexible_extract { ", or an answer alone in the last line" } else { "" };
    let weight = rubric.format_weight;
    format!("the reward reads the answer from {PLACES}{last_line}; {weight} of a score is for the format: {format}")
}

/// Returns a warning with an example if every response of a step has the score 0 or none, so that its update learns
/// nothing.
pub fn all_zero<'a>(responses: impl Iterator<Item = (&'a str, &'a Score)>) -> Option<String> {
    let (mut first, mut what) = (None, "no response has a score");
    for (response, score) in responses {
        match score.score {
            None => {}
            Some(0.0) => what = "all scores are 0",
            Some(_) => return None,
        }
        first.get_or_insert((response, score));
    }
    let (response, score) = first?;
    let shown: String = response.chars().take(SHOWN).collect();
    let read = match score.predict_str.is_empty() {
        true => String::new(),
        false => format!(", from which the answer {:?} is read", score.predict_str),
    };
    Some(format!("{what}, so the rewards teach nothing in this step; such as the response {shown:?}{read}"))
}
