//! What may stand around a phrase in a sentence: "It is a ...", "So the answer is ...", "The series ...".

use super::phrase::{Word, is_article};
use super::spelling::alike;

/// Words that open a conclusion.
const OPENINGS: [&[&str]; 31] = [
    &["so"],
    &["thus"],
    &["hence"],
    &["therefore"],
    &["then"],
    &["finally"],
    &["consequently"],
    &["accordingly"],
    &["overall"],
    &["clearly"],
    &["obviously"],
    &["indeed"],
    &["actually"],
    &["in", "conclusion"],
    &["in", "summary"],
    &["as", "a", "result"],
    &["in", "fact"],
    &["i", "think"],
    &["i", "believe"],
    &["i", "would", "say"],
    &["we", "conclude", "that"],
    &["we", "can", "conclude", "that"],
    &["we", "find", "that"],
    &["we", "see", "that"],
    &["it", "follows", "that"],
    &["this", "means", "that"],
    &["we", "have"],
    &["we", "get"],
    &["i", "get"],
    &["that"],
    &["answer"],
];

/// Pronouns that stand for what was asked.
const PRONOUNS: [&str; 12] =
    ["it", "this", "that", "they", "these", "those", "he", "she", "there", "here", "both", "which"];

/// Verbs between a subject and what it is.
const COPULAS: &[&str] = &[
    "flows",
    "rotates",
    "spins",
    "circulates",
    "travels",
    "deflects",
    "bends",
    "moves",
    "points",
    "falls",
    "lies",
    "occurs",
    "happens",
    "goes",
    "turns",
    "faces",
    "is",
    "are",
    "was",
    "were",
    "be",
    "becomes",
    "become",
    "became",
    "equals",
    "gets",
    "means",
    "represents",
];

/// Words behind such a verb that only say that a name follows.
const NAMINGS: &[&[&str]] = &[
    &["oriented"],
    &["connected"],
    &["undergoing"],
    &["located"],
    &["situated"],
    &["during"],
    &["due"],
    &["to", "the"],
    &["along"],
    &["called"],
    &["named"],
    &["termed"],
    &["known", "as"],
    &["also", "known", "as"],
    &["referred", "to", "as"],
    &["an", "example", "of"],
    &["a", "type", "of"],
    &["a", "kind", "of"],
    &["equal", "to"],
    &["directed"],
    &["made", "of"],
    &["made", "from"],
    &["made", "out", "of"],
    &["pointing"],
    &["always"],
    &["also"],
    &["simply"],
    &["indeed"],
    &["in"],
    &["on"],
    &["at"],
];

/// Nouns that only say of which kind a name is: "planet Mars", "Sir Isaac Newton".
const KINDS: &[&str] =
    &["planet", "mount", "square", "option", "choice", "answer", "sir", "mister", "mrs", "ms", "doctor", "professor"];

/// Such nouns where an article stands before them: "the colour red", but not "colour blind".
const KINDS_THE: &[&str] = &["color", "month", "year", "letter", "element", "river", "metal", "country", "city"];

/// Such nouns before "of": "the process of osmosis", "the city of Paris".
const KINDS_OF: &[&str] = &[
    "process",
    "phenomenon",
    "force",
    "country",
    "city",
    "continent",
    "month",
    "planet",
    "island",
    "state",
    "color",
    "season",
    "kingdom",
];

/// Words that turn what is said about a subject, or mean another one.
const TURNING: [&str; 30] = [
    "not",
    "no",
    "never",
    "neither",
    "nor",
    "opposite",
    "contrary",
    "converse",
    "inverse",
    "negation",
    "complement",
    "false",
    "wrong",
    "incorrect",
    "except",
    "without",
    "unless",
    "if",
    "or",
    "either",
    "than",
    "least",
    "hardly",
    "other",
    "rather",
    "instead",
    "cannot",
    "myth",
    "mistake",
    "unlike",
];

/// Verbs that answer by themselves: "it increases", "the limit exists".
const VERBS: &[&str] = &[
    "goes",
    "attract",
    "attracts",
    "repel",
    "repels",
    "shifts",
    "stretches",
    "reflects",
    "dne",
    "increases",
    "decreases",
    "converges",
    "diverges",
    "exists",
    "exist",
    "rises",
    "falls",
    "doubles",
    "triples",
    "quadruples",
    "halves",
    "remains",
    "stays",
    "changes",
    "expands",
    "contracts",
    "shrinks",
    "grows",
    "moves",
    "accelerates",
    "decelerates",
    "slows",
    "stops",
    "floats",
    "sinks",
    "melts",
    "freezes",
    "boils",
    "evaporates",
    "condenses",
    "oscillates",
    "vanishes",
    "tends",
    "approaches",
    "reverses",
    "rotates",
    "can",
    "could",
    "will",
    "does",
    "do",
    "did",
    "has",
    "have",
    "may",
    "might",
    "must",
    "should",
    "would",
    "is",
    "are",
    "was",
    "were",
    "increase",
    "decrease",
    "converge",
    "diverge",
    "remain",
    "stay",
];

/// Subjects that add nothing to what is said about them.
const SUBJECTS: [&str; 40] = [
    "series",
    "sequence",
    "limit",
    "integral",
    "function",
    "relationship",
    "relation",
    "answer",
    "value",
    "result",
    "statement",
    "claim",
    "system",
    "equation",
    "equations",
    "motion",
    "reaction",
    "process",
    "object",
    "conclusion",
    "argument",
    "graph",
    "curve",
    "matrix",
    "solution",
    "sum",
    "product",
    "quantity",
    "number",
    "expression",
    "quantities",
    "values",
    "numbers",
    "statements",
    "lines",
    "triangles",
    "triangle",
    "assertion",
    "conjecture",
    "hypothesis",
];

fn begins(words: &[Word], with: &[&str]) -> bool {
    words.len() > with.len() && words.iter().zip(with).all(|(w, t)| w.text == *t)
}

fn without_openings(mut words: &[Word]) -> &[Word] {
    while let Some(opening) = OPENINGS.iter().find(|o| begins(words, o)) {
        words = &words[opening.len()..];
    }
    words
}

fn without_articles(mut words: &[Word]) -> &[Word] {
    while let [first, rest @ ..] = words
        && is_article(first)
        && !rest.is_empty()
    {
        words = rest;
    }
    words
}

/// What follows a copula, and what follows the words that name behind it, and a noun of kind behind these.
fn named<'a>(mut words: &'a [Word], out: &mut Vec<&'a [Word]>) {
    out.push(words);
    while let Some(naming) = NAMINGS.iter().find(|n| begins(words, n)) {
        words = &words[naming.len()..];
        out.push(words);
    }
    if let [kind, of, rest @ ..] = without_articles(words)
        && kind.is(&["law", "principle"])
        && of.is(&["of"])
        && begins(rest, &["conservation"])
    {
        out.push(rest);
    }
    let defined = words.first().is_some_and(is_article);
    if let [kind, rest @ ..] = without_articles(words)
        && !rest.is_empty()
    {
        if begins(rest, &["of"]) && kind.is(KINDS_OF) {
            out.push(&rest[1..]);
        } else if kind.is(KINDS) || (defined && kind.is(KINDS_THE)) {
            out.push(rest);
        }
    }
}

/// The text without a reason and without remarks behind it.
fn ended(words: &[Word]) -> &[Word] {
    const REASONS: [&str; 2] = ["because", "since"];
    const REMARKS: [&[&str]; 19] = [
        &["of", "the", "picture"],
        &["of", "the", "image"],
        &["of", "the", "photograph"],
        &["in", "the", "picture"],
        &["in", "the", "image"],
        &["in", "the", "photograph"],
        &["is", "correct"],
        &["is", "the", "answer"],
        &["is", "the", "correct", "answer"],
        &["is", "the", "right", "answer"],
        &["is", "the", "correct", "one"],
        &["in", "color"],
        &["color"],
        &["in", "nature"],
        &["as", "well"],
        &["of", "motion"],
        &["of", "the", "circle"],
        &["each", "other"],
        &["1", "another"],
    ];
    let end = words.iter().position(|w| w.is(&REASONS)).filter(|&n| n > 0).unwrap_or(words.len());
    let words = &words[..end];
    let remark = REMARKS.iter().find(|r| {
        words.len() > r.len() && words[words.len() - r.len()..].iter().zip(r.iter()).all(|(w, t)| w.text == *t)
    });
    remark.map_or(words, |r| &words[..words.len() - r.len()])
}

/// A sentence without what a pronoun or an opening adds: the whole first.
pub(super) fn light(words: &[Word]) -> Vec<&[Word]> {
    let mut out = vec![words];
    let words = without_openings(ended(words));
    named(words, &mut out);
    if let [pronoun, rest @ ..] = words
        && pronoun.is(&PRONOUNS)
        && !rest.is_empty()
    {
        out.push(rest);
        if let [will, rest @ ..] = rest
            && will.is(&["will", "would"])
            && !rest.is_empty()
        {
            out.push(rest);
        }
        if let [copula, rest @ ..] = rest
            && (copula.is(COPULAS) || (pronoun.is(&["there"]) && copula.is(&["exists", "exist"])))
            && !rest.is_empty()
        {
            named(rest, &mut out);
        }
    }
    out
}

/// What a sentence says about its subject, the subject being anything that does not turn it.
pub(super) fn said(words: &[Word]) -> Vec<&[Word]> {
    const LONGEST: usize = 8;
    let words = without_openings(ended(words));
    let mut out = Vec::new();
    for (n, word) in words.iter().enumerate().take(LONGEST) {
        if word.is(&TURNING) {
            break;
        }
        let rest = &words[n + 1..];
        if n > 0 && word.is(COPULAS) && !rest.is_empty() {
            named(rest, &mut out);
        }
        if n > 1 && is_article(&words[0]) && word.is(VERBS) {
            out.push(&words[n..]);
        }
    }
    out
}

/// Whom or what a cleft sentence brings forward, alone and with what is said of it: "it was Alice who won" names Alice,
/// and says that Alice won.
pub(super) fn cleft(words: &[Word]) -> Option<[Vec<Word>; 2]> {
    let [it, copula, rest @ ..] = without_openings(ended(words)) else { return None };
    let at = rest.iter().position(|w| w.is(&["who", "that", "which"])).filter(|&n| n > 0 && n + 1 < rest.len())?;
    let (named, said) = (&rest[..at], &rest[at + 1..]);
    let brought = it.is(&["it"]) && copula.is(&["is", "was", "are", "were"]) && !named.iter().any(|w| w.is(&TURNING));
    brought.then(|| [named.to_vec(), [named, said].concat()])
}

/// The same for a subject that adds nothing: "the series converges".
pub(super) fn plain(words: &[Word]) -> Option<&[Word]> {
    match words {
        [article, subject, verb, ..] if is_article(article) && subject.is(&SUBJECTS) && verb.is(VERBS) => {
            Some(&words[2..])
        }
        _ => None,
    }
}

/// What somebody is at, has on or has in hand: "playing tennis", "wearing a hat", "holding an umbrella".
pub(super) fn object(words: &[Word]) -> Option<&[Word]> {
    const ACTS: &[&str] = &[
        "playing", "riding", "wearing", "holding", "eating", "drinking", "using", "carrying", "watching", "driving",
        "flying", "reading",
    ];
    let [act, rest @ ..] = words else { return None };
    let owned = |w: &Word| w.is(&["with", "his", "her", "their", "its", "my"]);
    let rest = if rest.len() > 1 && owned(&rest[0]) { &rest[1..] } else { rest };
    let rest = if begins(rest, &["a", "game", "of"]) { &rest[3..] } else { rest };
    (act.is(ACTS) && !rest.is_empty() && !rest.iter().any(|w| w.is(&TURNING))).then_some(rest)
}

/// What a rule is of, whatever it is called: "the SAS criterion", "SAS postulate".
pub(super) fn rule(words: &[Word]) -> Option<&[Word]> {
    const RULES: &[&str] = &["theorem", "rule", "criterion", "postulate", "test", "condition", "axiom"];
    let (last, rest) = words.split_last()?;
    (last.is(RULES) && rest.last().is_some_and(|w| !is_article(w))).then_some(rest)
}

/// A phrase without the nouns at its end, one after the other, where these only say of which kind it is: "an isosceles
/// triangle".
pub(super) fn headless(words: &[Word]) -> impl Iterator<Item = &[Word]> {
    std::iter::successors(beheaded(words), |w| beheaded(w))
}

fn beheaded(words: &[Word]) -> Option<&[Word]> {
    /// Behind an adjective; behind a noun they make another: a stem cell is no stem.
    const HEADS_OF_QUALITIES: &[&str] = &[
        "cell",
        "change",
        "plate",
        "boundary",
        "relationship",
        "flow",
        "expansion",
        "architecture",
        "painting",
        "organism",
        "tissue",
        "mixture",
        "compound",
        "fracture",
        "market",
        "demand",
        "energy",
        "condition",
        "material",
        "trait",
        "allele",
    ];
    const ADJECTIVES: &[&str] = &[
        "ic", "ical", "ial", "onal", "ural", "tral", "ular", "inar", "ive", "gent", "lent", "ous", "ory", "ible",
        "able",
    ];
    const HEADS: &[&str] = &[
        "direction",
        "season",
        "side",
        "line",
        "bar",
        "slice",
        "sector",
        "section",
        "segment",
        "property",
        "one",
        "triangle",
        "quadrilateral",
        "angle",
        "number",
        "reaction",
        "process",
        "rock",
        "bond",
        "theorem",
        "rule",
        "criterion",
        "congruence",
        "similarity",
        "postulate",
        "test",
        "motion",
        "function",
        "series",
        "matrix",
        "lens",
        "mirror",
        "method",
        "river",
        "desert",
        "ocean",
        "color",
        "sequence",
        "distribution",
        "correlation",
        "symmetry",
        "polygon",
        "polyhedron",
        "graph",
        "circuit",
        "equilibrium",
        "wave",
        "radiation",
        "solid",
        "planet",
        "order",
        "progression",
        "variable",
        "gate",
        "stage",
        "season",
        "phase",
        "moon",
        "relationship",
        "association",
        "inheritance",
        "shaped",
        "curve",
        "bars",
        "lines",
        "marker",
        "markers",
        "dots",
        "arrow",
        "trend",
        "geometry",
        "force",
        "bone",
        "muscle",
        "gland",
        "codon",
        "enzyme",
        "chord",
        "filter",
        "amplifier",
        "configuration",
        "structure",
        "inheritance",
        "pattern",
        "period",
        "era",
        "style",
        "dynasty",
        "group",
        "elimination",
        "substitution",
        "mechanism",
        "semiconductor",
        "transistor",
        "shape",
        "corner",
        "panel",
        "subplot",
    ];
    let (last, rest) = words.split_last()?;
    // The red one, the left one: "one" is a number.
    const SIDES: &[&str] = &["left", "right", "top", "bottom", "upper", "lower", "middle", "first", "last"];
    let single = last.is(&["1"])
        && words.first().is_some_and(is_article)
        && rest.last().is_some_and(|w| w.is(super::shapes::COLORS) || w.is(SIDES) || w.text.ends_with("est"));
    if single {
        return Some(rest);
    }
    // The right-hand side.
    if let [rest @ .., way, hand] = rest
        && hand.is(&["hand"])
        && way.is(&["left", "right"])
        && last.is(&["side"])
    {
        return Some(&words[..=rest.len()]);
    }
    // A right angle and a right triangle are nothing to the right.
    let side = match without_articles(rest) {
        [side] | [side, _] if side.is(&["right", "left"]) => {
            rest.last().is_some_and(|w| w.is(&["right", "left", "angled"]))
        }
        _ => false,
    };
    if side && !last.is(&["side", "one", "direction", "panel", "subplot"]) {
        return None;
    }
    let said = rest.last().is_some_and(|w| !is_article(w) && !w.is(&TURNING));
    let kind = |heads: &[&str]| heads.iter().any(|h| alike(h, &last.text));
    let quality = rest.last().is_some_and(|w| ADJECTIVES.iter().any(|end| w.text.ends_with(end)));
    (said && (kind(HEADS) || (quality && kind(HEADS_OF_QUALITIES)))).then_some(rest)
}
