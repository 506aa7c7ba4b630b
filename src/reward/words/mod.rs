//! Answers in words: whether two phrases, sentences or lists of names say the same.
//!
//! A text becomes a row of words: letters without marks and faces (`fold`), one spelling and one form for each word
//! (`spelling`), no articles, no auxiliary verbs, "not" wherever a contraction hides it (`phrase`). Two rows are
//! compared word by word. Words that only one of them has make them different, unless they are the frame of a sentence
//! (`frame`): negations, opposites and qualifying words never are. Phrases of one meaning stand in a table (`same`).

mod cards;
pub(super) mod fold;
mod frame;
mod names;
mod phrase;
mod rows;
mod same;
mod shapes;
mod spelling;
pub(super) mod tables;

pub use cards::same_card;
pub use names::{abbreviated, are_words, initialled, lists, told};
pub use rows::same_rows;

use phrase::{Core, Word, core, words};

/// Longest text that is compared as words.
const MAX_BYTES: usize = 600;

/// A phrase in the form under which tables know it: "There are no solutions." is `no solution`.
pub fn key(text: &str) -> String {
    if text.len() > MAX_BYTES {
        return text.to_owned();
    }
    let phrase = meant(&words(text));
    same::group(&phrase).map_or_else(|| phrase.key(), str::to_owned)
}

/// True where short words beside numbers differ in their case: units do, `7 mW` and `7 MW`.
pub fn units_differ(a: &str, b: &str) -> bool {
    let numbers = |t: &str| t.bytes().any(|c| c.is_ascii_digit());
    let short = |w: &str| w.len() < 4 && w.chars().any(char::is_alphabetic);
    numbers(a)
        && numbers(b)
        && a.split_whitespace()
            .zip(b.split_whitespace())
            .skip(1)
            .any(|(x, y)| short(x) && x != y && x.eq_ignore_ascii_case(y))
}

/// Whether two answers are words rather than notation: neither has a sign of mathematics, and each a word of three
/// letters, or both are short forms that the table of phrases knows.
pub fn in_words(gold: &str, answer: &str) -> bool {
    let signs = ['\\', '^', '_', '=', '+', '*', '|', '/', '!'];
    let plain = |t: &str| t.len() <= MAX_BYTES && !fold::plain(t.trim_end_matches('!')).contains(signs);
    // A comparison by its sign alone, and what is not applicable.
    let sign = |t: &str| {
        matches!(
            fold::plain(t).trim(),
            "N/A" | "n/a" | "=" | "<" | ">" | "<=" | ">=" | "!=" | "\u{2264}" | "\u{2265}" | "\u{2260}"
        )
    };
    let plain = |t: &str| plain(t) || sign(t);
    let word = |t: &str| fold::plain(t).split(|c: char| !c.is_alphabetic()).any(|w| w.chars().count() > 2);
    let known = |t: &str| !t.ends_with('!') && t.split(',').all(|p| same::group(&meant(&words(p))).is_some());
    // The numbers of a point or a vector have an order.
    let tuple = |t: &str| {
        let inside = |rest: &str| {
            let inner = rest.split(')').next().unwrap_or_default();
            let short = |p: &str| p.trim().trim_start_matches('-').len() < 2;
            let number = |p: &str| p.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.'));
            inner.contains(',') && inner.split(',').all(|p| short(p) || number(p))
        };
        t.split('(').skip(1).any(inside)
    };
    plain(gold)
        && plain(answer)
        && !(tuple(gold) && tuple(answer))
        && !units_differ(gold, answer)
        && ((word(gold) || known(gold)) && (word(answer) || known(answer)))
}

/// Whether an answer says in words what the gold answer says.
pub fn same(gold: &str, answer: &str) -> bool {
    let (gold, answer) = (words(gold), words(answer));
    if gold.is_empty() || answer.is_empty() {
        return false;
    }
    let alike = |a: &[Word], b: &[Word]| phrases(&meant(a), &meant(b));
    let (short, light) = (frame::light(&gold), frame::light(&answer));
    if short.iter().any(|g| light.iter().any(|a| alike(g, a))) {
        return true;
    }
    let said = frame::said(&answer);
    let whole = |a: &[Word]| short.iter().any(|g| alike(g, a));
    // A noun of kind at the end of one of them.
    frame::headless(&gold).any(|g| light.iter().any(|a| alike(g, a)))
        || said.iter().any(|a| whole(a))
        || light.iter().chain(&said).flat_map(|a| frame::headless(a)).any(whole)
        || frame::rule(&gold).is_some_and(|g| light.iter().filter_map(|a| frame::rule(a)).any(|a| alike(g, a)))
        || frame::cleft(&answer).is_some_and(|c| c.iter().any(|a| whole(a)))
        || light.iter().chain(&said).filter_map(|a| frame::object(a)).any(whole)
        || frame::plain(&gold).is_some_and(|g| light.iter().any(|a| alike(g, a)))
}

/// True where a sentence says something of what the answer is not: "the opposite is".
pub(super) fn turned(text: &str) -> bool {
    const TURNS: &[&str] = &[
        "not",
        "never",
        "neither",
        "nor",
        "opposite",
        "contrary",
        "converse",
        "wrong",
        "incorrect",
        "false",
        "mistake",
        "except",
        "myth",
        "distractor",
        "trap",
        "common error",
    ];
    words(text).iter().any(|w| w.is(TURNS))
}

fn phrases(a: &Core, b: &Core) -> bool {
    a.same(b) || same::group(a).is_some_and(|g| same::group(b) == Some(g))
}

/// The core of a phrase, in which "both of them" and "both statements are true" are "both".
fn meant(words: &[Word]) -> Core {
    const ALL: [&str; 6] = ["both", "neither", "none", "all", "either", "any"];
    const THEM: [&str; 27] = [
        "of",
        "them",
        "these",
        "those",
        "above",
        "the",
        "2",
        "3",
        "4",
        "option",
        "options",
        "choice",
        "choices",
        "statement",
        "statements",
        "given",
        "listed",
        "answer",
        "answers",
        "is",
        "are",
        "mentioned",
        "following",
        "quantities",
        "one",
        "ones",
        "1",
    ];
    let words = without_source(words);
    // "From liquid to gas".
    let words = match words {
        [from, rest @ ..] if from.is(&["from"]) && rest.iter().any(|w| w.is(&["to"])) => rest,
        all => all,
    };
    // "There exist no solutions", "no solution exists".
    let words = match words {
        [no, inner @ .., last] if no.is(&["no"]) && !inner.is_empty() && last.is(&["exists", "exist"]) => {
            &words[..words.len() - 1]
        }
        [has, rest @ ..] if has.is(&["has", "have"]) && rest.first().is_some_and(|w| w.is(&["no", "infinitely"])) => {
            rest
        }
        all => all,
    };
    if let [first, rest @ ..] = words
        && first.is(&ALL)
        && !rest.is_empty()
    {
        let rest = match rest {
            [inner @ .., last] if last.is(&["true", "correct", "right"]) => inner,
            all => all,
        };
        if rest.iter().all(|w| w.is(&THEM)) {
            return core(&words[..1]);
        }
    }
    core(words)
}

/// A phrase without what it is told from: "from the given information".
fn without_source(words: &[Word]) -> &[Word] {
    const FROM: [&str; 6] = ["from", "with", "using", "based", "given", "by"];
    const SOURCE: [&str; 22] = [
        "the",
        "this",
        "given",
        "available",
        "provided",
        "information",
        "data",
        "diagram",
        "figure",
        "above",
        "in",
        "question",
        "alone",
        "only",
        "statements",
        "picture",
        "graph",
        "from",
        "on",
        "here",
        "conditions",
        "problem",
    ];
    let from = words.iter().position(|w| w.is(&FROM)).filter(|&n| n > 0);
    match from {
        Some(n) if n + 1 < words.len() && words[n + 1..].iter().all(|w| w.is(&SOURCE)) => &words[..n],
        _ => words,
    }
}
