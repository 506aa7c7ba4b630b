//! The questions about a chart, and the wording of answers to them.

use std::cmp::Ordering;

use super::drawing::Chart;
use crate::text::TEMPLATE_WORDS;
use omr_base::philox::{Purpose, Random};

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sum of all values.
    Sum,
    /// Largest value minus smallest value.
    Difference,
    /// Number of values above a bound.
    Count,
    /// Label of the largest value.
    Largest,
    /// Sum of the values above a bound.
    SumAbove,
}

/// Kinds of questions with their names and phrasings. `#` stands for the bound.
pub const KINDS: [(Kind, &str, [&str; 2]); 5] = [
    (Kind::Sum, "sum", ["What is the sum of all values?", "Add all values."]),
    (
        Kind::Difference,
        "difference",
        ["What is the range of all values?", "Subtract the smallest value from the largest."],
    ),
    (Kind::Count, "count", ["How many values are above #?", "Count the values above #."]),
    (Kind::Largest, "largest", ["Which label has the largest value?", "What is the label of the largest value?"]),
    (Kind::SumAbove, "sum_above", ["What is the sum of the values above #?", "Add the values above #."]),
];

/// First words of a careful answer, which states all values and the computation.
pub const HEADS: [&str; 2] = ["I see", "There are"];

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Kind of the question.
    pub kind: Kind,
    /// The bound, for kinds that have one.
    pub above: u8,
}

impl Question {
    fn row(self) -> &'static (Kind, &'static str, [&'static str; 2]) {
        KINDS.iter().find(|(kind, _, _)| *kind == self.kind).expect("the table has all kinds")
    }

    /// Returns the name of the kind in `extra_info.kind`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns the text of the question in phrasing 0 or 1.
    pub fn text(self, phrasing: usize) -> String {
        self.row().2[phrasing].replace('#', &self.above.to_string())
    }

    /// Returns the question that a text asks, or `None` for an unknown text.
    pub fn parse(text: &str) -> Option<Question> {
        let mut all = KINDS.iter().flat_map(|&(kind, _, _)| (1..10).map(move |above| Question { kind, above }));
        all.find(|question| (0..2).any(|phrasing| question.text(phrasing) == text.trim()))
    }

    /// True if the question has one answer.
    pub fn is_clear(self, chart: &Chart) -> bool {
        let largest = chart.values.iter().max();
        self.kind != Kind::Largest || chart.values.iter().filter(|value| Some(*value) == largest).count() == 1
    }

    /// Returns the correct answer.
    pub fn answer(self, chart: &Chart) -> String {
        self.steps(chart).pop().map_or_else(String::new, |(_, result)| result)
    }

    /// Returns a wrong answer near the correct one.
    pub fn slip(self, chart: &Chart, which: u64) -> String {
        let right = self.answer(chart);
        match right.parse::<u64>() {
            Ok(n) => if which.is_multiple_of(2) || n == 0 { n + 1 } else { n - 1 }.to_string(),
            Err(_) => {
                let mut others = chart.entries().map(|(label, _)| label.to_string()).filter(|label| *label != right);
                others.nth(which as usize % (chart.values.len() - 1)).unwrap_or_default()
            }
        }
    }

    /// Returns the reasoning text that leads from the values to `result`, or a hasty text without a head.
    pub fn thinking(self, head: Option<&str>, chart: &Chart, result: &str) -> String {
        let Some(head) = head else { return format!("It looks like {result}.") };
        // A value follows its label as the next token, so that the label decides where to look.
        let values: Vec<String> = chart.entries().map(|(label, value)| format!(" {label}{value}")).collect();
        let (count, noun, values) = (values.len(), chart.form.name(), values.join(","));
        let mut steps = self.steps(chart);
        steps.iter_mut().last().into_iter().for_each(|last| last.1 = result.to_owned());
        let steps: String = steps.iter().map(|(step, result)| format!(" {step} {result}.")).collect();
        format!("{head} {count} {noun}s:{values}.{steps} The answer is {result}.")
    }

    /// Returns the steps of the computation, each with its result. The result of the last step is the answer.
    fn steps(self, chart: &Chart) -> Vec<(String, String)> {
        let Question { kind, above } = self;
        let sign = |a: u8, b: u8| match a.cmp(&b) {
            Ordering::Less => '<',
            Ordering::Equal => '=',
            Ordering::Greater => '>',
        };
        // Compares each value with the best of those before it.
        let best_by = |better: fn(&u8, &u8) -> bool| {
            let (mut best, mut best_label, mut steps) = (chart.values[0], 'A', Vec::new());
            for (label, value) in chart.entries().skip(1) {
                let step = format!("{value} {} {best}, so", sign(value, best));
                (best, best_label) = if better(&value, &best) { (value, label) } else { (best, best_label) };
                let shown = if kind == Kind::Largest { best_label.to_string() } else { best.to_string() };
                steps.push((step, shown));
            }
            (steps, best)
        };
        match kind {
            Kind::Largest => best_by(u8::gt).0,
            Kind::Difference => {
                let ((mut steps, largest), (more, smallest)) = (best_by(u8::gt), best_by(u8::lt));
                steps.extend(more);
                steps.push((format!("{largest} - {smallest} ="), (largest - smallest).to_string()));
                steps
            }
            Kind::Sum | Kind::Count | Kind::SumAbove => {
                let mut total = 0;
                let step = |&value: &u8| {
                    let before = total;
                    let is_above = kind == Kind::Sum || value > above;
                    total += u8::from(is_above) * if kind == Kind::Count { 1 } else { value };
                    let compared = format!("{value} {} {above}, so", sign(value, above));
                    let step = match kind {
                        Kind::Sum => format!("{before} + {value} ="),
                        Kind::SumAbove if is_above => format!("{compared} {before} + {value} ="),
                        _ => compared,
                    };
                    (step, total.to_string())
                };
                chart.values.iter().map(step).collect()
            }
        }
    }
}

/// Returns texts that contain every word that the task can produce: all questions, answers in every style, and the
/// fixed parts of the chat template.
pub fn corpus() -> Vec<String> {
    let mut texts: Vec<String> = TEMPLATE_WORDS.map(str::to_owned).into();
    let mut random = Random::new(0, Purpose::Data, 0);
    for index in 0..2000 {
        let question = Question { kind: KINDS[index % KINDS.len()].0, above: 1 + (index % 9) as u8 };
        let chart = Chart::random(&mut random);
        let result = question.answer(&chart);
        texts.extend([0, 1].map(|phrasing| question.text(phrasing)));
        texts.extend([Some(HEADS[0]), Some(HEADS[1]), None].map(|head| {
            let thinking = question.thinking(head, &chart, &result);
            format!("<think>{thinking}</think><answer>{result}</answer>")
        }));
    }
    texts
}
