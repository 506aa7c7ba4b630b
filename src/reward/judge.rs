//! The judge: a language model asked where the rules say no. When it is asked, with what, and what its reply does;
//! [`Client`] asks a server.

mod client;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

pub use client::Client;

use omr_verify::{extract, python};

use super::{Mode, Rubric, Score, composite};

/// Responses of this many characters and more are not sent whole.
const MAX_WHOLE: usize = 500;

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
    pub fn payload(&self, model: &str, max_tokens: usize, temperature: f64) -> Value {
        let content = json!([{"type": "text", "text": self.prompt()}]);
        let messages = json!([{"role": "user", "content": content}]);
        json!({"model": model, "max_tokens": max_tokens, "temperature": temperature, "messages": messages})
    }
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The judge's text, which may be empty.
    Said(String),
    /// This request has no answer: what happened. Others may have one.
    Failed(String),
}

/// The judge's word on a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// 1 for right, 0 for wrong; in compat any number it said.
    Said(i64),
    /// It was asked and gave neither: why.
    Unjudged(String),
}

impl Ruling {
    /// A reply's meaning. Whatever a judge thought first is left out; in strict only 0 and 1 count, in compat any
    /// whole number as Python reads it.
    pub fn of(reply: &Reply, mode: Mode) -> Ruling {
        let text = match reply {
            Reply::Said(text) => text,
            Reply::Failed(what) => return Ruling::Unjudged(what.clone()),
        };
        let word = match mode {
            Mode::Strict => text.rsplit("</think>").next().unwrap_or(text),
            Mode::Compat => text,
        };
        match python::int(word).filter(|n| mode == Mode::Compat || [0, 1].contains(n)) {
            Some(number) => Ruling::Said(number),
            None => Ruling::Unjudged(format!("the judge said {:?}", start(text))),
        }
    }

    /// What a summary counts: did it turn wrong into right?
    pub fn is_hit(&self) -> bool {
        matches!(self, Ruling::Said(number) if *number != 0)
    }
}

/// As `omr score` prints it: the number, or "unjudged".
impl Serialize for Ruling {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Ruling::Said(number) => serializer.serialize_i64(*number),
            Ruling::Unjudged(_) => serializer.serialize_str("unjudged"),
        }
    }
}

impl<'de> Deserialize<'de> for Ruling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Ruling, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Word {
            Number(i64),
            Text(String),
        }
        Ok(match Word::deserialize(deserializer)? {
            Word::Number(number) => Ruling::Said(number),
            Word::Text(text) => Ruling::Unjudged(text),
        })
    }
}

fn start(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A score and what the judge was asked for it.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged {
    /// The score. Where the judge was asked and has not said yes, it is the rules'.
    pub score: Score,
    /// The judge's word, when it was asked.
    pub judge: Option<Ruling>,
    /// How often it was asked.
    pub calls: usize,
}

impl Judged {
    /// A score no judge was asked about.
    pub fn by_rules(score: Score) -> Judged {
        Judged { score, judge: None, calls: 0 }
    }
}

/// The judge in a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The name of the model.
    pub model: String,
    /// Answers it was asked about.
    pub used: u64,
    /// Of these: called right.
    pub hits: u64,
    /// Of these: left without a verdict.
    pub unjudged: u64,
}

impl Summary {
    /// Of `model`, asked nothing yet.
    pub fn new(model: &str) -> Summary {
        Summary { model: model.to_owned(), used: 0, hits: 0, unjudged: 0 }
    }

    /// In a line, for people.
    pub fn line(&self) -> String {
        let Summary { model, used, hits, unjudged } = self;
        format!("judge {model}: asked about {used} answers, {hits} called right, {unjudged} unjudged")
    }

    /// Adds what it said of other answers.
    pub fn add(&mut self, other: &Summary) {
        self.used += other.used;
        self.hits += other.hits;
        self.unjudged += other.unjudged;
    }

    /// Counts its word on an answer, if it was asked.
    pub fn count(&mut self, ruling: Option<&Ruling>) {
        self.used += u64::from(ruling.is_some());
        self.hits += u64::from(ruling.is_some_and(Ruling::is_hit));
        self.unjudged += u64::from(matches!(ruling, Some(Ruling::Unjudged(_))));
    }
}

/// What is asked about one response, one request after another: first about the answer found, then, where the format
/// is missing and the response short, about the whole response. Nothing is asked where the rules said yes, and in
/// strict nothing about a response that only thinks. In compat a reply of 10 counts as 10; in strict only a 1 is a yes.
pub struct Inquiry<'a> {
    response: &'a str,
    ground_truth: &'a str,
    question: Option<&'a str>,
    rubric: Rubric,
    judged: Judged,
    over: bool,
}

impl<'a> Inquiry<'a> {
    /// Begins with the rules' score.
    pub fn new(
        score: Score,
        response: &'a str,
        ground_truth: &'a str,
        question: Option<&'a str>,
        rubric: Rubric,
    ) -> Inquiry<'a> {
        let unsaid = rubric.mode == Mode::Strict && extract::only_thinks(response);
        let over = score.acc_score != 0.0 || unsaid;
        Inquiry { response, ground_truth, question, rubric, judged: Judged::by_rules(score), over }
    }

    /// What is to be asked next; `None` when there is nothing left to ask.
    pub fn request(&self) -> Option<Request<'_>> {
        let full_response = self.judged.calls > 0;
        let prediction = if full_response { self.response } else { &self.judged.score.predict_str };
        let Inquiry { question, ground_truth, .. } = *self;
        (!self.over).then_some(Request { question, ground_truth, prediction, full_response })
    }

    /// Takes the reply to [`Inquiry::request`].
    pub fn told(&mut self, reply: &Reply) {
        let score = &mut self.judged.score;
        let ruling = Ruling::of(reply, self.rubric.mode);
        self.judged.calls += 1;
        if let Ruling::Said(number) = ruling
            && number != 0
        {
            score.acc_score = number as f64;
            score.score = composite(score.acc_score, score.format_reward_score, self.rubric.format_weight);
            score.why = "judge";
        }
        let whole = score.format_reward_score == 0.0 && python::len(self.response) < MAX_WHOLE;
        let failed = matches!(reply, Reply::Failed(_));
        self.over = ruling.is_hit() || failed || !whole || self.judged.calls == 2;
        // A no beside a request without an answer is no verdict.
        if ruling.is_hit() || !matches!(self.judged.judge, Some(Ruling::Unjudged(_))) {
            self.judged.judge = Some(ruling);
        }
    }

    /// The score as it stands.
    pub fn judged(self) -> Judged {
        self.judged
    }
}
