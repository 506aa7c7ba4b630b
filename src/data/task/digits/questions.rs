//! The questions about two digits, and the wording of answers to them.

use crate::text::TEMPLATE_WORDS;
use omr_base::choice::choice;

choice! {
    /// A kind of question, with its name in `extra_info.kind`.
    pub enum Question {
        /// Sum: a + b
        Sum = "sum",
        /// Difference: |a - b|
        Difference = "difference",
        /// Larger digit: max(a, b)
        Larger = "larger",
        /// Number that the two digits form: 10 a + b
        Read = "read",
    }
}

/// Wording of an answer. Careful answers state the digits and the computation, hasty ones do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// "I see 3 and 5. ..."
    CarefulSee,
    /// "The digits are 3 and 5. ..."
    CarefulList,
    /// "It looks like 8."
    Hasty,
}

/// The phrasings of all questions.
pub const PHRASINGS: [(Question, [&str; 2]); 4] = [
    (Question::Sum, ["What is the sum of the two digits?", "Add the two digits."]),
    (Question::Difference, ["What is the difference of the two digits?", "How far apart are the two digits?"]),
    (Question::Larger, ["Which digit is larger?", "What is the larger of the two digits?"]),
    (Question::Read, ["What number do the two digits form?", "Read the two digits as a number."]),
];

impl Question {
    /// Returns the question that a text asks, or `None` for an unknown text.
    pub fn parse(text: &str) -> Option<Question> {
        let text = text.trim();
        PHRASINGS.iter().find(|(_, phrasings)| phrasings.contains(&text)).map(|&(question, _)| question)
    }

    /// Returns the correct answer for the digits `a` and `b`.
    pub fn answer(self, [a, b]: [u8; 2]) -> u8 {
        match self {
            Question::Sum => a + b,
            Question::Difference => a.abs_diff(b),
            Question::Larger => a.max(b),
            Question::Read => 10 * a + b,
        }
    }

    /// Returns a wrong answer of a kind that people give. `which` selects one of them.
    pub fn slip(self, digits @ [a, b]: [u8; 2], which: u64) -> u8 {
        let right = self.answer(digits);
        let off = |n: u8| if which.is_multiple_of(2) || n == 0 { n + 1 } else { n - 1 };
        match self {
            Question::Larger if a != b => a.min(b),
            Question::Read if a != b => 10 * b + a,
            _ => off(right),
        }
    }

    /// Returns the reasoning text that leads from the digits to `result`.
    pub fn thinking(self, style: Style, [a, b]: [u8; 2], result: u8) -> String {
        let seen = match style {
            Style::CarefulSee => format!("I see {a} and {b}."),
            Style::CarefulList => format!("The digits are {a} and {b}."),
            Style::Hasty => return format!("It looks like {result}."),
        };
        match self {
            Question::Sum => format!("{seen} {a} + {b} = {result}."),
            Question::Difference => format!("{seen} {} - {} = {result}.", a.max(b), a.min(b)),
            Question::Larger => format!("{seen} The larger is {result}."),
            Question::Read => format!("{seen} They form {result}."),
        }
    }
}

/// Returns every text that the task can produce, for training a tokenizer: questions, and answers to them in every
/// style.
pub fn corpus() -> Vec<String> {
    let mut texts = Vec::new();
    for (question, phrasings) in PHRASINGS {
        for digits in (0..10).flat_map(|a| (0..10).map(move |b| [a, b])) {
            let result = question.answer(digits);
            for style in [Style::CarefulSee, Style::CarefulList, Style::Hasty] {
                let thinking = question.thinking(style, digits, result);
                texts.push(format!("<think>{thinking}</think><answer>{result}</answer>"));
            }
            texts.extend(phrasings.map(str::to_owned));
        }
    }
    texts
}

/// Returns texts whose words should become single tokens: every question and wording, and the fixed parts of the chat
/// template.
pub fn words() -> Vec<String> {
    let mut words: Vec<String> = PHRASINGS.iter().flat_map(|(_, texts)| texts).map(|t| (*t).to_owned()).collect();
    for (question, _) in PHRASINGS {
        for style in [Style::CarefulSee, Style::CarefulList, Style::Hasty] {
            words.push(format!("<think>{}</think><answer>0</answer>", question.thinking(style, [1, 0], 0)));
        }
    }
    words.extend(TEMPLATE_WORDS.map(str::to_owned));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_wrong_and_phrasings_are_told_apart() {
        for (question, phrasings) in PHRASINGS {
            for text in phrasings {
                assert_eq!(Question::parse(&format!(" {text}\n")), Some(question));
            }
            for digits in (0..10).flat_map(|a| (0..10).map(move |b| [a, b])) {
                for which in 0..4 {
                    assert_ne!(question.slip(digits, which), question.answer(digits));
                }
            }
        }
        assert_eq!(Question::parse("What is the capital?"), None);
    }

    #[test]
    fn answers_read_as_the_recipe_words_them() {
        let think = |q: Question, style| q.thinking(style, [3, 5], q.answer([3, 5]));
        assert_eq!(think(Question::Sum, Style::CarefulSee), "I see 3 and 5. 3 + 5 = 8.");
        assert_eq!(think(Question::Difference, Style::CarefulList), "The digits are 3 and 5. 5 - 3 = 2.");
        assert_eq!(think(Question::Read, Style::Hasty), "It looks like 35.");
    }
}
