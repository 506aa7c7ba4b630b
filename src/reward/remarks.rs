//! What stands around an answer in a sentence: reasons, remarks, conditions, words that only join.

use super::python;
use super::words::tables::Bytes;

/// "Therefore", "simply" and the like before an answer.
pub(super) fn without_adverbs(mut text: &str) -> &str {
    const ADVERBS: [&str; 16] = [
        "therefore ",
        "thus ",
        "then ",
        "hence ",
        "simply ",
        "just ",
        "indeed ",
        "clearly ",
        "still ",
        "now ",
        "also ",
        "most likely ",
        "actually ",
        "therefore, ",
        "thus, ",
        "in fact ",
    ];
    while let Some(rest) = ADVERBS.iter().find_map(|a| text.strip_prefix(a)) {
        text = rest;
    }
    text
}

/// The text without a last sentence of politeness, the end of a proof, a check or a remark.
pub(super) fn without_closing(text: &str) -> &str {
    const POLITE: &[&str] = &[
        "verification",
        "verify",
        "to verify",
        "check:",
        "(check",
        "(verif",
        "checking",
        "check that",
        "to check",
        "quick check",
        "double-check",
        "double check",
        "sanity check",
        "we can check",
        "we can verify",
        "you can check",
        "you can verify",
        "note:",
        "note that",
        "(note",
        "remark",
        "explanation:",
        "reason:",
        "reasoning:",
        "this is because",
        "this follows",
        "this matches",
        "this confirms",
        "this agrees",
        "recall that",
        "i hope",
        "hope this",
        "hope that",
        "let me know",
        "feel free",
        "please let",
        "if you have any",
        "if you need",
        "is there anything",
        "would you like",
        "do you want",
        "happy to help",
        "q.e.d",
        "qed",
    ];
    const MOST: usize = 6;
    let mut kept = text;
    for _ in 0..MOST {
        let end = python::strip(kept).trim_end_matches(['.', '!', '?', ' ', '*']);
        let last = ["\n", ". ", "! ", "? "].iter().filter_map(|e| end.rfind(e)).max().map_or(0, |at| at + 1);
        let tail = end.get(last..).unwrap_or_default().trim_start_matches(['*', ' ', '\n']).to_lowercase();
        if last > 0 && POLITE.iter().any(|p| tail.starts_with(p)) {
            kept = &kept[..last];
            continue;
        }
        break;
    }
    python::strip(kept)
}

/// The text without the reason behind it, or what it is told from.
pub(super) fn before_reason(text: &str) -> &str {
    const REASONS: &[&str] = &[
        ", which ",
        ", even though ",
        " even though ",
        ", although ",
        " although ",
        ", though ",
        ", whereas ",
        ", while ",
        ", despite ",
        ", as required",
        ", as expected",
        ", as desired",
        ", as claimed",
        ", as shown",
        ", as can be ",
        ", as we ",
        ", consistent with ",
        ", in agreement ",
        ", matching ",
        ", confirming ",
        ", verifying ",
        ", using ",
        ", rounded ",
        ", to the nearest ",
        ", by the ",
        " by the ",
        ", due to ",
        " due to ",
        ", given that ",
        " (which ",
        " (check",
        " (see ",
        " (by ",
        " (using ",
        ", up from ",
        ", down from ",
        " instead",
        ", unlike ",
        ", where we ",
        ", after ",
        " because ",
        " since ",
        " (because ",
        " (since ",
        " with arbitrary ",
        ", with arbitrary ",
        ", because ",
        ", since ",
        ", not ",
        " (not ",
        " rather than ",
        " instead of ",
    ];
    // "x = 7 (x = -3 is extraneous)", "x = 7; the other root is rejected".
    const REJECTED: [&str; 6] = ["extraneous", "reject", "discard", "invalid", "not valid", "impossible"];
    let rejected = [" (", "; ", ", "].iter().filter_map(|open| {
        let at = text.find(open).filter(|at| *at > 0)?;
        REJECTED.iter().any(|r| text[at..].contains(r)).then(|| &text[..at])
    });
    // ", where K is the constant of integration" says what a letter is, no answer.
    let constant = text.split_once(", where ").filter(|(_, told)| {
        told.contains("constant") && told.split(' ').nth(1).is_some_and(|w| matches!(w, "is" | "denotes" | "and"))
    });
    let held = Bytes::of(text);
    let reason = REASONS.iter().filter(|r| held.may_hold(r)).filter_map(|r| text.split_once(r)).map(|(s, _)| s);
    // ", and by the section formula" goes on, and so does "divided by the speed".
    let reason = reason.filter(|s| !s.ends_with(" and") && !s.ends_with("ided") && !s.ends_with("iplied"));
    let dash = [' ', ',', ';', '-', '\u{2013}', '\u{2014}'];
    reason
        .chain(rejected)
        .chain(constant.map(|(s, _)| s))
        .min_by_key(|s| s.len())
        .map_or(text, |s| s.trim_end_matches(dash))
}

/// The value in a sentence that also says where it is taken, or on what condition: "the maximum is 18 at x = 3",
/// "when x = 3, y = 18", "the minimum occurs at x = 3 and equals 18".
pub(super) fn taken_somewhere(text: &str) -> Option<&str> {
    const PLACES: [&str; 12] = [
        " at x",
        " at t",
        " at \\",
        " at $",
        " at the ",
        " when ",
        ", attained",
        ", achieved",
        ", reached",
        " attained",
        ", occurring",
        ", which occurs",
    ];
    const CONDITIONS: [&str; 6] = ["When ", "At ", "If ", "For ", "With ", "As "];
    let text = text.trim_end_matches(['.', ' ']);
    if let Some((_, rest)) =
        [" and equals ", " and is equal to ", " and its value is "].iter().find_map(|j| text.rsplit_once(j))
    {
        return Some(rest);
    }
    if CONDITIONS.iter().any(|c| text.starts_with(c)) {
        let (_, rest) = text.split_once(", ").or_else(|| text.rsplit_once(" value "))?;
        return Some([" is ", " has value "].iter().find_map(|v| rest.rsplit_once(v)).map_or(rest, |(_, r)| r));
    }
    // The divisor belongs to a remainder.
    let place = PLACES.iter().filter_map(|p| text.find(p)).min().filter(|at| !text[*at..].contains("divided"))?;
    let (_, rest) = [" is ", " equals ", " of "].iter().find_map(|v| text[..place].rsplit_once(v))?;
    Some(rest)
}

/// The text before a remark in brackets that takes nothing back, and the remark: "mitochondria (the powerhouse of the
/// cell)", "heart attack (myocardial infarction)"; twice the text where there is none.
pub(super) fn before_bracket(text: &str) -> (&str, &str) {
    let Some((before, remark)) = text.strip_suffix(')').and_then(|t| t.split_once(" (")) else {
        return (text, text);
    };
    let doubtful = |w: &str| matches!(w, "or" | "not" | "if" | "only" | "except" | "unless" | "but" | "and" | "no");
    let words = |t: &str| t.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).count();
    let sound = !remark.contains(['(', ')', '?']) && !remark.to_lowercase().split(' ').any(doubtful);
    if sound && words(before) > 0 && !remark.contains(|c: char| c.is_ascii_digit()) {
        (before, remark)
    } else {
        (text, text)
    }
}
