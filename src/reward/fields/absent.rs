//! A count of nothing in words: "none", "no one is wearing a hat", "there are no red cars in the picture".

use crate::reward::words::tables::among;

/// What mathematics may lack, which is no count: that there are no solutions is not the solution 0.
const LACKING: &str = "solutions roots zeros values answers numbers integers limits points intercepts asymptotes \
    extremes extrema options choices statements axes terms restrictions conditions lines symmetries changes minimums \
    maximums factors angles";
/// Words in `s` that are no plurals.
const OTHERS: &str = "does yes always minus plus this thus perhaps sometimes equals means gives was";
/// Words with which a sentence says that there is something, after all.
const EXCEPTING: &str = "not except but besides other than only above these those options choices statements \
    sure certain knows correct right true answer wrong";
const SCENES: &str = "picture image photo photograph scene room view frame video foreground background";
const SEEN: &str = "visible shown present pictured seen there";

/// Whether an answer says in words that there are none, where the gold answer is the count 0; `None` for others. A gold
/// answer in words is no count.
pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    let (count, what) = gold.split_once(' ').unwrap_or((gold, ""));
    let plain = |t: &str| t.chars().all(|c| c.is_alphabetic() || c == ' ');
    if answer.len() > 120 || !matches!(count, "0" | "zero" | "Zero") || !plain(what) {
        return None;
    }
    let lower = answer.trim_end_matches('.').to_lowercase();
    let text = ["there are ", "there is ", "there were ", "i see ", "i can see "].iter();
    let text = text.filter_map(|w| lower.strip_prefix(w)).next().unwrap_or(&lower);
    let words: Vec<&str> = text.split(' ').collect();
    if !plain(text) || words.iter().any(|w| among(EXCEPTING, w)) {
        return None;
    }
    let scene = |words: &[&str]| match words {
        [] => true,
        ["at", "all"] => true,
        [be @ ("is" | "are" | "were"), seen] => !be.is_empty() && among(SEEN, seen),
        [seen] => among(SEEN, seen),
        [.., "in", "the" | "this", place] => words.len() < 6 && among(SCENES, place),
        _ => false,
    };
    let many = |noun: &str| {
        let plural = noun.len() > 3 && noun.ends_with('s') && !noun.ends_with("ss");
        (plural || among("people men women children sheep fish", noun)) && !among(LACKING, noun) && !among(OTHERS, noun)
    };
    let none = match words[..] {
        ["none" | "nobody"] | ["no", "one"] | ["none", "of", "them"] => true,
        ["nobody" | "none", verb, ..] | ["no", "one", verb, ..] if among("is are has have was were", verb) => true,
        ["none", "of", "them" | "the", ..] => words.iter().any(|w| among("is are has have was were", w)),
        ["no", ref rest @ ..] => (0..rest.len().min(3)).any(|n| many(rest[n]) && scene(&rest[n + 1..])),
        _ => false,
    };
    none.then_some(true)
}
