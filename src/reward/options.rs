//! Answers that name one of the options, several, or one with its text.

use super::answer::bare;
use super::compare::compare;
use super::math::Steps;
use super::verify::MAX_SENTENCE;
use super::{choice, labels};

fn verdict(same: bool) -> (bool, &'static str) {
    (same, if same { "same choice" } else { "another choice" })
}

/// Whether two texts that are labels of options or statements name the same ones.
pub(super) fn labelled(gold: &str, text: &str) -> Option<(bool, &'static str)> {
    labels::read(gold)?.same(&labels::read(text)?).map(verdict)
}

/// The rules for a gold answer that names one choice, several, or one with its text.
pub(super) fn choices(gold: &str, found: &str, answer: &str, steps: &Steps) -> Option<(bool, &'static str)> {
    if let Some(letter) = choice::letter(gold) {
        // Without a box the sentence around may name the letter.
        let said = || {
            let whole = (!answer.contains("boxed") && answer.len() < MAX_SENTENCE).then(|| bare(answer))?;
            choice::named_letter(&whole).or_else(|| choice::concluded_letter(&whole))
        };
        // What follows is the reason, or what is wrong with another choice.
        let found = found.split_once("; ").filter(|(_, r)| fails(r)).map_or(found, |(before, _)| before);
        let found =
            [" because", " since "].iter().find_map(|w| found.split_once(w)).map_or(found, |(before, _)| before);
        return Some(match choice::named_letter(found).or_else(said) {
            Some(named) => verdict(named == letter),
            None => (false, "no choice named"),
        });
    }
    if let Some(a) = choice::letters(gold)
        && let Some(b) =
            choice::letters(found).or_else(|| choice::several(found)).or_else(|| choice::several(&bare(answer)))
    {
        // "B or D" leaves open which.
        let open = |t: &str| t.split_whitespace().any(|w| w.eq_ignore_ascii_case("or"));
        return Some(verdict(a == b && open(gold) == open(found)));
    }
    // The whole answer only where what was found in it has no labels.
    if let Some(a) = labels::read(gold)
        && let Some(b) = labels::read(found).or_else(|| labels::read(&bare(answer)))
        && let Some(same) = a.same(&b)
    {
        return Some(verdict(same));
    }
    let (letter, text) = choice::labelled(gold)?;
    if found.is_empty() {
        return None;
    }
    let named = choice::letter(found).or_else(|| choice::labelled(found).map(|l| l.0));
    let named = named.or_else(|| choice::label_behind(found));
    // The label may stand before the last sentence, where the answer was looked for, or in a sentence of its own.
    let whole = bare(answer);
    let named = named.or_else(|| choice::labelled(&whole).map(|l| l.0));
    let named = named.or_else(|| choice::named_letter(&whole).filter(|_| whole.len() < 24));
    Some(match named {
        Some(named) => verdict(named == letter),
        None => compare(&bare(text), found, steps),
    })
}

/// True for what a sentence says against another choice: "option C fails because...".
fn fails(text: &str) -> bool {
    let lower = text.to_lowercase();
    let rest =
        ["option ", "options ", "choice ", "choices ", "the other options "].iter().find_map(|w| lower.strip_prefix(w));
    const FAULTS: [&str; 6] = [" fails", " fail", " is wrong", " is incorrect", " is false", " are wrong"];
    rest.is_some_and(|r| FAULTS.iter().any(|f| r.contains(f)))
}
