//! Shares of responses without an answer and of unevaluated answers, and the warning about them.

use omr_verify::{NO_ANSWER, UNEVALUATED};

/// Share of responses without an answer from which [`Shares::warning`] warns.
const MANY: f64 = 0.1;
/// Number of characters of the response that a warning shows.
const SHOWN: usize = 200;

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
                "{:.1} % of {} responses have no answer that the scorer reads, such as {example:?}: it reads \
                 <answer>...</answer>, \\boxed{{...}}, a number at the end of a line, or a response that consists of the \
                 answer. reward.flexible_extract=true (rl, eval) also reads an answer alone in the last line",
                100.0 * share,
                self.responses
            )
        })
    }
}
