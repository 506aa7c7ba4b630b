//! Whether an answer says the same as the gold answer.

use crate::config::Mode;

use super::answer::{MAX_ANSWER, bare, unbulleted};
use super::compare::compare;
use super::contradiction::contradiction;
use super::locate::{locate, stated};
use super::math::{self, BUDGET, Steps};
use super::options::{choices, labelled};
use super::prose::{last_sentence, unmarked};
use super::{choice, code, comparative, compat, fields, labels, layout, remarks, tail, words};

/// The verifier's word.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Whether they are equal.
    pub equal: bool,
    /// The gold answer as it was understood.
    pub gold_parsed: String,
    /// The answer as it was understood.
    pub answer_parsed: String,
    /// Which rule decided.
    pub why: &'static str,
    /// Steps of work that the comparison took; the same on every machine.
    pub steps: u64,
}

/// Compares an answer, bare or in a text, with the gold answer. Never panics and takes bounded time, whatever
/// the texts. `compat` gives the published scorer's equality.
pub fn verify(gold: &str, answer: &str, mode: Mode) -> Verdict {
    match mode {
        Mode::Strict => strict(gold, answer),
        Mode::Compat => compat::verify(gold, answer),
    }
}

/// Longest text around an answer that is searched for a choice's letter.
pub(super) const MAX_SENTENCE: usize = 600;

fn strict(gold: &str, answer: &str) -> Verdict {
    let steps = Steps::new(BUDGET);
    let raw = answer;
    let (gold, answer) = (&*layout::plain(gold), &*layout::plain(answer));
    let answer = &*unbulleted(answer);
    let found = locate(answer, &steps);
    if gold.len() > MAX_ANSWER || found.len() > MAX_ANSWER {
        let equal = gold == found;
        let why = if equal { "same text" } else { "too long to be an answer" };
        let shown = |t: &str| t.chars().take(200).collect();
        return Verdict { equal, gold_parsed: shown(gold), answer_parsed: shown(found), why, steps: steps.taken() };
    }
    let sides = Sides {
        gold: read(gold, &steps),
        found: read(found, &steps),
        whole: bare(answer),
        told: bare(stated(answer)),
        answer,
        steps: &steps,
    };
    let (equal, why) = sides.decide(raw);
    let Sides { gold: gold_parsed, found: answer_parsed, .. } = sides;
    Verdict { equal, gold_parsed, answer_parsed, why, steps: steps.taken() }
}

/// A text without its wrappers, in one notation.
fn read(text: &str, steps: &Steps) -> String {
    let bare = bare(text);
    let text = unmarked(&code::mathematical(&bare).unwrap_or(bare), steps);
    fields::absolute(&text).unwrap_or(text)
}

/// The rule of a comparison that holds.
fn holds((equal, why): (bool, &'static str)) -> Option<&'static str> {
    equal.then_some(why)
}

/// The gold answer, and an answer as it is looked at.
struct Sides<'a> {
    gold: String,
    /// The answer that was found in the text.
    found: String,
    /// The whole text without its wrappers.
    whole: String,
    /// The sentence that states the answer.
    told: String,
    /// The text itself.
    answer: &'a str,
    steps: &'a Steps,
}

impl Sides<'_> {
    /// Whether they are equal and by which rule; `raw` is the answer before its layout was changed.
    fn decide(&self, raw: &str) -> (bool, &'static str) {
        if let Some(decided) = self.of_its_own() {
            return decided;
        }
        let first = choices(&self.gold, &self.found, self.answer, self.steps)
            .unwrap_or_else(|| compare(&self.gold, &self.found, self.steps));
        let members = || holds(compare(&self.gold, &layout::members(raw)?, self.steps));
        let rule = holds(first)
            .or_else(|| self.beside())
            .or_else(members)
            .or_else(|| self.in_sentence())
            .or_else(|| self.at_the_end());
        let Some(rule) = rule else { return first };
        match contradiction(&self.gold, &self.found, self.answer, &self.whole, self.steps) {
            Some(reason) => (false, reason),
            None => (true, rule),
        }
    }

    /// What readers of their own decide about the whole answer, or what it comes to.
    fn of_its_own(&self) -> Option<(bool, &'static str)> {
        if let Some(same) = polar(&self.gold, self.answer) {
            return Some((same, if same { "equal words" } else { "the opposite" }));
        }
        let texts = distinct(&[&self.whole, &self.told]);
        if let Some(decided) = texts.iter().find_map(|text| of_its_own(&self.gold, text, self.steps)) {
            return Some(decided);
        }
        math::other_part(&self.gold, &self.whole).then_some((false, "a part of another name"))
    }

    /// True where the sentence around an answer is looked at: the gold answer is no option's letter.
    fn may_be_said(&self) -> bool {
        choice::letter(&self.gold).is_none() && self.answer.len() < MAX_SENTENCE
    }

    /// An option's letter, or the same number once more, stands beside the answer.
    fn beside(&self) -> Option<&'static str> {
        // "(D), (A) and (C)" are three options, and no text of the first.
        if choice::letter(&self.gold).is_some() || labels::read(&self.found).is_some() {
            return None;
        }
        let labelled = choice::labelled(&self.found).filter(|_| choice::labelled(&self.gold).is_none());
        let text = labelled.map(|l| bare(l.1)).or_else(|| said_twice(&self.found, self.steps))?;
        holds(compare(&self.gold, &text, self.steps))
    }

    /// The sentence as a whole, where a part of it was taken for the answer.
    fn in_sentence(&self) -> Option<&'static str> {
        if !self.may_be_said() {
            return None;
        }
        let twice = said_twice(&self.whole, self.steps);
        let whole = twice.as_deref().unwrap_or(&self.whole);
        let (before, inside) = remarks::before_bracket(&self.told);
        let says = |text: &&str| {
            let clauses = text.contains(" and ") && self.gold.contains(" and ");
            **text != *self.found
                && words::in_words(&self.gold, text)
                && ((clauses && words::lists(&self.gold, text)) || words::same(&self.gold, text))
        };
        if distinct(&[whole, &self.told, before, inside]).iter().any(says) {
            return Some("equal words");
        }
        // Bounds in words.
        let (a, b) = (math::said_bounds(&self.gold), math::said_bounds(whole));
        if (a.is_some() || b.is_some())
            && compare(a.as_deref().unwrap_or(&self.gold), b.as_deref().unwrap_or(whole), self.steps).0
        {
            return Some("equal bounds");
        }
        if distinct(&[&self.found, whole]).iter().any(|t| math::same_defined(&self.gold, t, self.steps)) {
            return Some("equal, its letters written out");
        }
        // What it describes, in notation.
        let texts = distinct(&[&self.found, whole, last_sentence(whole)]);
        texts.iter().any(|t| math::same_described(&self.gold, t, self.steps)).then_some("equal, described in words")
    }

    /// The end of a sentence that marks no answer.
    fn at_the_end(&self) -> Option<&'static str> {
        if !self.may_be_said() || self.answer.contains("boxed") {
            return None;
        }
        let says = |end: &&str| {
            let end = read(end, self.steps);
            of_its_own(&self.gold, &end, self.steps)
                .or_else(|| labelled(&self.gold, &end))
                .unwrap_or_else(|| compare(&self.gold, &end, self.steps))
                .0
        };
        // The sentence itself, where a letter of it was taken for the answer: "n is divisible by 4".
        let told = (self.found.len() == 1 && self.found.chars().all(char::is_alphabetic) && self.told.len() > 1)
            .then_some(&*self.told);
        let mut ends = told.into_iter().chain(tail::ends(&self.gold, self.answer));
        ends.any(|end| says(&end)).then_some("equal, at the end of the sentence")
    }
}

/// The texts without those that stand before.
fn distinct<'a>(texts: &[&'a str]) -> Vec<&'a str> {
    let again = |n: usize| texts[..n].contains(&texts[n]);
    (0..texts.len()).filter(|&n| !again(n)).map(|n| texts[n]).collect()
}

/// Comparisons, fields' own answers, cards and names with initials, which are no values and have readers of their own.
fn of_its_own(gold: &str, answer: &str, steps: &Steps) -> Option<(bool, &'static str)> {
    if words::initialled(gold, answer) {
        return Some((true, "equal words"));
    }
    if let Some(same) = comparative::same(gold, answer, steps) {
        return Some((same, if same { "the same comparison" } else { "another comparison" }));
    }
    if let Some(found) = fields::same(gold, answer, steps) {
        return Some(found);
    }
    let same = words::same_card(gold, answer)?;
    Some((same, if same { "the same card" } else { "another card" }))
}

/// The answer before a remark in brackets that says the same in another way, or nearly: `fourteen (14)`,
/// `1/3 (about 0.33)`.
fn said_twice(answer: &str, steps: &Steps) -> Option<String> {
    let (first, second) = answer.strip_suffix(')')?.rsplit_once(" (")?;
    let nearly = ["\u{2248}", "~", "\\approx", "approx", "about", "roughly", "around"];
    if nearly.iter().any(|n| second.starts_with(n)) && second.contains(|c: char| c.is_ascii_digit()) {
        return Some(bare(first));
    }
    let second = ["= ", "=", "or ", "i.e. ", "i.e., ", "that is, "]
        .iter()
        .find_map(|p| second.strip_prefix(p))
        .unwrap_or(second);
    // Kinetic energy (KE)
    let letters = |t: &str| t.chars().filter(|c| c.is_alphabetic()).collect::<String>().to_lowercase();
    let named = first.strip_prefix("The ").or(first.strip_prefix("the ")).unwrap_or(first);
    let initials: String = named.split([' ', '-']).filter_map(|w| w.chars().next()).collect();
    if first.contains(' ') && letters(&initials) == letters(second) {
        return Some(bare(first));
    }
    let (a, b) = (math::parse(&bare(first), true, steps), math::parse(&bare(second), true, steps));
    math::equal(&a, &b, steps).equal.then(|| bare(first))
}

/// Whether an answer in sentences begins with the gold answer's "yes" or "no", or with the other.
fn polar(gold: &str, answer: &str) -> Option<bool> {
    // F# is a key.
    if gold.contains(|c: char| c == '#' || c.is_ascii_digit()) || answer.contains(['\\', '<']) {
        return None;
    }
    let gold = words::key(gold);
    if !matches!(gold.as_str(), "yes" | "no" | "true" | "false") {
        return None;
    }
    let answer = answer.trim_start_matches(['*', ' ', '"']);
    let first = answer.split([',', '.', ';', ':', '*', ' ']).next()?;
    // "Yes and no", "true or false".
    let rest = answer[first.len()..].trim_start_matches(['*', ' ', ',']).to_ascii_lowercase();
    if ["and ", "or ", "/"].iter().any(|j| rest.starts_with(j)) {
        return None;
    }
    match words::key(first).as_str() {
        said @ ("yes" | "no") => Some(said == gold),
        // An adjective may also stand before a noun.
        said @ ("true" | "false") if !rest.starts_with(char::is_alphabetic) => Some(said == gold),
        _ => None,
    }
}
