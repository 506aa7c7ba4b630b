//! The judge: a language model asked where the rules say no. When it is asked, with what, and what its reply does.

use serde_json::{Value, json};

use super::{FORMAT_WEIGHT, Mode, Score, composite, python};
use crate::error::Result;

/// Responses of this many characters and more are not sent whole.
const MAX_WHOLE: usize = 500;
/// Tokens a reply may have.
const MAX_TOKENS: u32 = 5;

/// What the judge is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// The question, where it is known.
    pub question: Option<&'a str>,
    /// The right answer, as given.
    pub ground_truth: &'a str,
    /// The answer found in the response, or the whole response.
    pub prediction: &'a str,
    /// Whether `prediction` is the whole response.
    pub full_response: bool,
}

impl Request<'_> {
    /// The prompt.
    pub fn prompt(&self) -> String {
        let block = |title: &str, text: &str| format!("{title}:\n```\n{text}\n```\n\n");
        let mut prompt = String::from(
            "Decide whether an answer is correct. Compare the model's answer with the reference answer.\n\n",
        );
        prompt += &self.question.map(|q| block("Question", q)).unwrap_or_default();
        prompt += &block("Reference answer", self.ground_truth);
        prompt += &block("Model's answer", self.prediction);
        prompt
            + "Rules:\n\
            - Choices: the letter or the content of the right option is correct.\n\
            - Open questions: correct when the meaning is the same; partly right, or right with something wrong \
            added, is incorrect, however good the reasoning.\n\
            - Layout, case and spacing do not matter. Numbers must agree within sensible precision, units where \
            the question needs them.\n\n\
            Reply with one character: 1 if correct, 0 if not."
    }

    /// The body of a chat completion request.
    pub fn payload(&self, model: &str) -> Value {
        let content = json!([{"type": "text", "text": self.prompt()}]);
        json!({"model": model, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": content}]})
    }
}

/// Asks a judge; the reply's text, or `None` when it has none. A judge that cannot be reached is an error.
pub trait Judge {
    /// The reply to one request.
    fn ask(&mut self, request: &Request<'_>) -> Result<Option<String>>;
}

/// A score and what the judge was asked for it.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged {
    /// The score.
    pub score: Score,
    /// The last reply as a number, when the judge was asked; 0 where it was no number.
    pub judge: Option<i64>,
    /// How often the judge was asked.
    pub calls: usize,
}

/// Scores by rule, and asks the judge where the rules find no equality: first about the answer found, then, where
/// the format is missing and the response short, about the whole response. In compat a reply of 10 counts as 10;
/// in strict only a 1 is a yes.
pub fn score(
    response: &str,
    ground_truth: &str,
    question: Option<&str>,
    mode: Mode,
    judge: &mut dyn Judge,
) -> Result<Judged> {
    let mut judged = Judged { score: super::score(response, ground_truth, question, mode), judge: None, calls: 0 };
    let predict = judged.score.predict_str.clone();
    let whole = judged.score.format_reward_score == 0.0 && python::len(response) < MAX_WHOLE;
    for (prediction, full_response) in [(predict.as_str(), false), (response, true)] {
        if judged.score.acc_score != 0.0 || (full_response && !whole) {
            break;
        }
        let request = Request { question, ground_truth, prediction, full_response };
        let reply = judge.ask(&request)?.and_then(|r| python::int(&r)).unwrap_or(0);
        judged.calls += 1;
        judged.judge = Some(reply);
        let acc_score = if mode == Mode::Strict { f64::from(u8::from(reply == 1)) } else { reply as f64 };
        if acc_score != 0.0 {
            let score = composite(acc_score, judged.score.format_reward_score, FORMAT_WEIGHT);
            judged.score = Score { score, acc_score, why: "judge", ..judged.score };
        }
    }
    Ok(judged)
}
