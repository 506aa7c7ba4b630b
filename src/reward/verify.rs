//! Whether an answer says the same as the gold answer.

use crate::config::Mode;

use super::answer::{MAX_ANSWER, bare, unbulleted};
use super::locate::{locate, stated};
use super::math::{self, BUDGET, Steps, Unit, Value};
use super::prose::{last_sentence, unmarked};

use super::{chemistry, choice, code, comparative, compat, fields, labels, layout, remarks, substances, tail, words};

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
const MAX_SENTENCE: usize = 600;

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
    let read = |t: &str| {
        let bare = bare(t);
        let text = unmarked(&code::mathematical(&bare).unwrap_or(bare), &steps);
        fields::absolute(&text).unwrap_or(text)
    };
    let (gold_text, answer_text) = (read(gold), read(found));
    if let Some(same) = polar(&gold_text, answer) {
        let why = if same { "equal words" } else { "the opposite" };
        return Verdict { equal: same, gold_parsed: gold_text, answer_parsed: answer_text, why, steps: steps.taken() };
    }
    let whole = bare(answer);
    // The whole answer, or what it comes to.
    let told = bare(stated(answer));
    let texts = [&whole, &told];
    let texts = &texts[..if told == whole { 1 } else { 2 }];
    if let Some((same, why)) = texts.iter().find_map(|text| of_its_own(&gold_text, text, &steps)) {
        return Verdict { equal: same, gold_parsed: gold_text, answer_parsed: answer_text, why, steps: steps.taken() };
    }
    if math::other_part(&gold_text, &whole) {
        return Verdict {
            equal: false,
            gold_parsed: gold_text,
            answer_parsed: answer_text,
            why: "a part of another name",
            steps: steps.taken(),
        };
    }
    let (mut equal, mut why) = match choices(&gold_text, &answer_text, answer, &steps) {
        Some(decided) => decided,
        None => compare(&gold_text, &answer_text, &steps),
    };
    // An option's letter, or the same number once more, stands beside the answer.
    if !equal && choice::letter(&gold_text).is_none() {
        let beside = choice::labelled(&answer_text).filter(|_| choice::labelled(&gold_text).is_none());
        if let Some(text) = beside.map(|l| bare(l.1)).or_else(|| said_twice(&answer_text, &steps)) {
            (equal, why) = compare(&gold_text, &text, &steps);
        }
    }
    if !equal && let Some(members) = layout::members(raw) {
        (equal, why) = compare(&gold_text, &members, &steps);
    }
    // The sentence as a whole, where a part of it was taken for the answer.
    if !equal && choice::letter(&gold_text).is_none() && answer.len() < MAX_SENTENCE {
        let whole = said_twice(&whole, &steps).unwrap_or(whole);
        for text in [&*whole, &*told, remarks::before_bracket(&told).0, remarks::before_bracket(&told).1] {
            if !equal && text != answer_text && words::in_words(&gold_text, text) {
                let clauses = text.contains(" and ") && gold_text.contains(" and ") && words::lists(&gold_text, text);
                if clauses || words::same(&gold_text, text) {
                    (equal, why) = (true, "equal words");
                }
            }
        }
        // Bounds in words.
        let (a, b) = (math::said_bounds(&gold_text), math::said_bounds(&whole));
        if !equal && (a.is_some() || b.is_some()) {
            let (a, b) = (a.as_deref().unwrap_or(&gold_text), b.as_deref().unwrap_or(&whole));
            equal = compare(a, b, &steps).0;
            why = if equal { "equal bounds" } else { why };
        }
        if !equal && [&*answer_text, &whole].iter().any(|t| math::same_defined(&gold_text, t, &steps)) {
            (equal, why) = (true, "equal, its letters written out");
        }
        // What it describes, in notation.
        let mut texts = vec![&*answer_text, &whole, last_sentence(&whole)];
        texts.dedup();
        if !equal && texts.iter().any(|t| math::same_described(&gold_text, t, &steps)) {
            (equal, why) = (true, "equal, described in words");
        }
    }
    // The end of a sentence that marks no answer.
    if !equal && choice::letter(&gold_text).is_none() && answer.len() < MAX_SENTENCE && !answer.contains("boxed") {
        let said = |end: &&str| {
            let end = read(end);
            of_its_own(&gold_text, &end, &steps).unwrap_or_else(|| compare(&gold_text, &end, &steps)).0
        };
        if tail::ends(&gold_text, answer).iter().any(said) {
            (equal, why) = (true, "equal, at the end of the sentence");
        }
    }
    if equal && let Some(reason) = contradiction(&gold_text, &answer_text, answer, &steps) {
        (equal, why) = (false, reason);
    }
    Verdict { equal, gold_parsed: gold_text, answer_parsed: answer_text, why, steps: steps.taken() }
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

/// What an answer of equal values says against itself, or against the gold answer.
fn contradiction(gold: &str, found: &str, answer: &str, steps: &Steps) -> Option<&'static str> {
    if math::parts_differ(gold, found, steps) {
        return Some("another part");
    }
    if answer.len() < MAX_SENTENCE && !answer.contains("boxed") && math::turned(gold, &bare(answer)) {
        return Some("different directions");
    }
    if answer.len() < MAX_SENTENCE && math::another_level(gold, &bare(answer)) {
        return Some("another level of confidence");
    }
    if answer.len() < MAX_SENTENCE && math::another_divisor(gold, &bare(answer)) {
        return Some("another divisor");
    }
    if answer.len() < MAX_SENTENCE && math::defined_otherwise(gold, &bare(answer), steps) {
        return Some("other meanings of the letters");
    }
    if math::concluded_otherwise(gold, found) {
        return Some("another conclusion");
    }
    if math::another_extremum(gold, found, steps) && math::another_extremum(gold, &bare(answer), steps) {
        return Some("another extremum");
    }
    if math::counted_otherwise(gold, found) {
        return Some("other counts of a solid's parts");
    }
    // "x is 5" is no y = 5.
    let letter = |t: &str| {
        let name = t.rsplit(' ').next().unwrap_or_default().trim_matches('$');
        (name.len() == 1 && name != "a" && name.chars().all(char::is_alphabetic)).then(|| name.to_owned())
    };
    let value = |t: &str| t.len() < 24 && t.starts_with(|c: char| c.is_ascii_digit() || "$-+".contains(c));
    if let (Some(asked), Some(said)) = (
        gold.split_once('=').and_then(|(n, _)| letter(n.trim())),
        answer.rsplit_once(" is ").filter(|(_, v)| value(v)).and_then(|(s, _)| letter(s)),
    ) && asked != said
    {
        return Some("different names");
    }
    // "7 is wrong" is no 7.
    const WRONG: [&str; 8] = [
        " is incorrect",
        " is wrong",
        " is not correct",
        " is not right",
        " is false",
        " is ruled out",
        " is impossible",
        " is not the answer",
    ];
    let denied = WRONG.iter().find_map(|w| found.strip_suffix(w))?;
    compare(gold, denied, steps).0.then_some("said to be wrong")
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
    if gold.contains('#') {
        return None;
    }
    let gold = words::key(gold);
    if !matches!(gold.as_str(), "yes" | "no" | "true" | "false") || answer.contains(['\\', '<']) {
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

/// True for what a sentence says against another choice: "option C fails because...".
fn fails(text: &str) -> bool {
    let lower = text.to_lowercase();
    let rest =
        ["option ", "options ", "choice ", "choices ", "the other options "].iter().find_map(|w| lower.strip_prefix(w));
    const FAULTS: [&str; 6] = [" fails", " fail", " is wrong", " is incorrect", " is false", " are wrong"];
    rest.is_some_and(|r| FAULTS.iter().any(|f| r.contains(f)))
}

/// The rules for a gold answer that names one choice, several, or one with its text.
fn choices(gold: &str, found: &str, answer: &str, steps: &Steps) -> Option<(bool, &'static str)> {
    let verdict = |same: bool| (same, if same { "same choice" } else { "another choice" });
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
    if let (Some(a), Some(b)) = (labels::read(gold), labels::read(found).or_else(|| labels::read(&bare(answer))))
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

fn compare(gold: &str, answer: &str, steps: &Steps) -> (bool, &'static str) {
    if gold.is_empty() || answer.is_empty() {
        let same = gold == answer;
        return (same, if same { "both empty" } else { "no answer" });
    }
    if gold == answer {
        return (true, "same text");
    }
    let compact = |t: &str| t.split_whitespace().collect::<String>();
    let parted = |t: &str| {
        t.split_whitespace()
            .zip(t.split_whitespace().skip(1))
            .any(|(a, b)| a.ends_with(|c: char| c.is_ascii_digit()) && b.starts_with(|c: char| c.is_ascii_digit()))
    };
    // "Not able" is not notable.
    let denies = |t: &str| t.split_whitespace().any(|w| w.eq_ignore_ascii_case("not"));
    if denies(gold) == denies(answer)
        && (gold.contains('\\') || !(parted(gold) || parted(answer)))
        && compact(gold) == compact(answer)
    {
        return (true, "same notation");
    }
    // XI and IX are no products.
    if let Some(n) = math::roman(gold) {
        let said = math::roman(answer).or_else(|| answer.parse().ok());
        if let Some(m) = said {
            return (n == m, if n == m { "the same Roman numeral" } else { "different Roman numerals" });
        }
    } else if let Some(n) = math::roman(answer)
        && let Ok(m) = gold.parse::<u32>()
    {
        return (n == m, if n == m { "the same Roman numeral" } else { "different Roman numerals" });
    }
    // Nor are "cat" and "act".
    if words::are_words(gold) && words::are_words(answer) && !gold.eq_ignore_ascii_case(answer) {
        let same = words::same(gold, answer);
        return (same, if same { "equal words" } else { "different words" });
    }
    if let (Some(a), Some(b)) = (words::told(gold), words::told(answer)) {
        return (a == b, if a == b { "equal words" } else { "different words" });
    }
    // Nor are the outcomes of three tosses.
    if let Some(same) = words::same_rows(gold, answer) {
        return (same, if same { "the same row of letters" } else { "different rows of letters" });
    }
    // Nor is 6/8 time a number.
    if let Some(same) = math::same_format(gold, answer) {
        return (same, if same { "the same numbers of a form" } else { "different numbers of a form" });
    }
    // (i) and (j) are labels, and sun and sat no days.
    if lower_names(gold, answer) {
        return (false, "different words");
    }
    let (gold_value, answer_value) = (math::parse(gold, true, steps), math::parse(answer, true, steps));
    let comparison = math::equal(&gold_value, &answer_value, steps);
    if comparison.equal {
        return (true, comparison.why);
    }
    // Amounts are told by the case of their signs: 5 mW and 5 MW.
    if measured(&gold_value).is_some() && measured(&answer_value).is_some() {
        return match other_readings(gold, &gold_value, answer, &answer_value, steps) {
            Some(why) => (true, why),
            None => (false, comparison.why),
        };
    }
    if other_case(gold, answer) || chemistry::other_case(gold, answer) {
        return (false, comparison.why);
    }
    // Words that happen to read as mathematics: "No", "red".
    let wordy = is_wordy(gold, &gold_value) && is_wordy(answer, &answer_value);
    if wordy && words::key(gold) == words::key(answer) {
        return (true, "equal words");
    }
    // "the 1990s" and "1990s".
    let said = |t: &str| {
        t.chars().all(|c| c.is_alphanumeric() || " -',.".contains(c)) && t.contains(|c: char| c.is_alphabetic())
    };
    if said(gold)
        && said(answer)
        && gold.contains(' ')
        && !words::units_differ(gold, answer)
        && words::key(gold) == words::key(answer)
    {
        return (true, "equal words");
    }
    if words::in_words(gold, answer) && (words::same(gold, answer) || words::lists(gold, answer)) {
        return (true, "equal words");
    }
    // Indices on and below the line.
    if gold.contains('_') != answer.contains('_')
        && let (Some(a), Some(b)) = (on_the_line(gold), on_the_line(answer))
        && a == b
        && a.contains(char::is_alphabetic)
    {
        return (true, "the same letters and digits");
    }
    // Chemical formulas, in any face.
    if let (Some(a), Some(b)) = (math::formula(gold), math::formula(answer))
        && a == b
        && a.contains(char::is_alphabetic)
    {
        return (true, "the same formula");
    }
    if chemistry::same(gold, answer) == Some(true) {
        return (true, "the same chemical notation");
    }
    if words::abbreviated(gold, answer) {
        return (true, "the same name, in short");
    }
    if substances::same(gold, answer) {
        return (true, "the same substance");
    }
    // "Yes, it is."
    let first = answer.split([',', '.', ';', ':']).next().unwrap_or_default();
    if matches!(words::key(gold).as_str(), "yes" | "no") && words::key(first) == words::key(gold) {
        return (true, "equal words");
    }
    if let Some(why) = math::named_alike(gold, answer, steps) {
        return (true, why);
    }
    if let Some(why) = other_readings(gold, &gold_value, answer, &answer_value, steps) {
        return (true, why);
    }
    if steps.exhausted() {
        return (false, "too much work to compare");
    }
    (false, comparison.why)
}

/// True for letters in brackets that differ, and for a common word beside the name that it would be short for.
fn lower_names(gold: &str, answer: &str) -> bool {
    const SHORT: [&str; 6] = ["sun", "sat", "wed", "mar", "may", "dec"];
    let label = |t: &str| {
        let inner = t.strip_prefix('(')?.strip_suffix(')')?;
        (inner.len() == 1 && inner.bytes().all(|b| b.is_ascii_lowercase())).then(|| inner.to_owned())
    };
    if let (Some(a), Some(b)) = (label(gold), label(answer)) {
        return a != b;
    }
    let bare =
        |t: &str| t.strip_prefix("the ").or(t.strip_prefix("The ")).unwrap_or(t).trim_end_matches('.').to_owned();
    let (a, b) = (bare(gold), bare(answer));
    let short =
        |w: &str, other: &str| SHORT.contains(&w) && other.len() > w.len() && other.to_lowercase().starts_with(w);
    short(&a, &b) || short(&b, &a)
}

/// A number with a decimal comma and points or spaces between groups, the English way: `1.234,5` as `1234.5`.
fn european(text: &str) -> Option<String> {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    // A unit or a currency around it stays.
    let from = text.find(|c: char| c.is_ascii_digit() || c == '-')?;
    let to = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let (head, tail) = (text.get(..from)?, text.get(to..)?);
    let text = text.get(from..to)?;
    let around = |t: &str| t.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '%' | '$' | '\\') || !c.is_ascii());
    if !around(head) || !around(tail) {
        return None;
    }
    let (sign, plain) = text.strip_prefix('-').map_or(("", text), |t| ("-", t));
    let (whole, fraction) = plain.split_once(',').map_or((plain, None), |(w, f)| (w, Some(f)));
    let groups: Vec<&str> = whole.split(['.', ' ']).collect();
    let grouped = groups.len() > 1 && groups[0].len() <= 3 && groups[1..].iter().all(|g| g.len() == 3);
    let sure = match fraction {
        // One point before three digits is a decimal point, several are not.
        None => groups.len() > 2,
        Some(f) => digits(f) && (grouped || f.len() != 3),
    };
    let known = groups.iter().all(|g| digits(g)) && (groups.len() == 1 || grouped) && sure;
    let point = fraction.map(|f| format!(".{f}")).unwrap_or_default();
    known.then(|| format!("{head}{sign}{}{point}{tail}", groups.concat()))
}

/// Letters and digits of a formula with its indices on the line: `H_2O` as `H2O`.
fn on_the_line(text: &str) -> Option<String> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '{' | '}' | ' ' | '(' | ')');
    let plain = text.replace("\\mathrm", "").replace("\\text", "");
    plain.chars().all(known).then(|| plain.chars().filter(|c| !matches!(c, '_' | '{' | '}' | ' ')).collect())
}

/// Commas between groups of three digits may part members, and a comma between digits may be a decimal point.
fn other_readings(
    gold: &str,
    gold_value: &Value,
    answer: &str,
    answer_value: &Value,
    steps: &Steps,
) -> Option<&'static str> {
    let is_list = |v: &Value| matches!(v, Value::List(_) | Value::Set(_) | Value::Tuple(_));
    if gold.contains(',') && is_list(answer_value) {
        let value = math::parse(gold, false, steps);
        if is_list(&value) && math::equal(&value, answer_value, steps).equal {
            return Some("equal members");
        }
    }
    if answer.contains(',') && is_list(gold_value) {
        let value = math::parse(answer, false, steps);
        if is_list(&value) && math::equal(gold_value, &value, steps).equal {
            return Some("equal members");
        }
    }
    if days(gold, gold_value, answer, answer_value) {
        return Some("the same day");
    }
    if amounts(gold, gold_value, answer, answer_value, steps) {
        return Some("equal amounts");
    }
    if restated(gold, answer, steps) {
        return Some("equal, said another way");
    }
    if math::same_rounding(gold, answer, steps) {
        return Some("equal as it is rounded");
    }
    if let Some(text) = european(answer)
        && math::equal(gold_value, &math::parse(&text, true, steps), steps).equal
    {
        return Some("equal with a decimal comma");
    }
    if let Some(text) = european(gold)
        && math::equal(&math::parse(&text, true, steps), answer_value, steps).equal
    {
        return Some("equal with a decimal comma");
    }
    None
}

/// Days in digits: beside a day that is sure, in any order of day and month.
fn days(gold: &str, gold_value: &Value, answer: &str, answer_value: &Value) -> bool {
    let sure = |v: &Value| matches!(v, Value::Date(..));
    let all = |text: &str, v: &Value| if sure(v) { vec![v.clone()] } else { math::dates(text) };
    let (a, b) = (all(gold, gold_value), all(answer, answer_value));
    // Two of them only where one can be read in one way.
    let known = sure(gold_value) || sure(answer_value) || (a.len() == 1) != (b.len() == 1);
    known && a.iter().any(|x| b.contains(x))
}

/// The two in the ways in which quantities are said.
fn restated(gold: &str, answer: &str, steps: &Steps) -> bool {
    let all = |text: &str| [vec![text.to_owned()], math::restated(text)].concat();
    let (golds, answers) = (all(gold), all(answer));
    golds.iter().enumerate().any(|(i, a)| {
        let rest = answers.iter().skip(usize::from(i == 0));
        let value = math::parse(a, true, steps);
        rest.into_iter().any(|b| a == b || math::equal(&value, &math::parse(b, true, steps), steps).equal)
    })
}

/// True where one short sign behind a number is written in another case: 4 K and 4 k.
fn other_case(gold: &str, answer: &str) -> bool {
    let words = |t: &str| t.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (a, b) = (words(gold), words(answer));
    let number = |n: usize| n > 0 && a[n - 1].ends_with(|c: char| c.is_ascii_digit());
    let short = |w: &str| w.chars().count() <= 2 && w.chars().all(char::is_alphabetic);
    a.len() == b.len()
        && (0..a.len()).any(|n| number(n) && short(&a[n]) && a[n] != b[n] && a[n].eq_ignore_ascii_case(&b[n]))
}

/// A number with its unit; what it is called does not count.
fn measured(value: &Value) -> Option<&Value> {
    match value {
        // A letter before the unit may be one of its factors.
        Value::Scalar(e, Some(Unit::Measure(_) | Unit::Percent | Unit::Degree)) if !e.has_variables() => Some(value),
        Value::Assignment(_, v) => measured(v),
        _ => None,
    }
}

/// Amounts whose units read as letters: `15 N m` and `15 J`.
fn amounts(gold: &str, gold_value: &Value, answer: &str, answer_value: &Value, steps: &Steps) -> bool {
    // x = 2 + 3t, z = 4t are coordinates, and no tonnes.
    if [gold, answer].iter().any(|t| t.matches('=').count() > 1) {
        return false;
    }
    if let (Value::Assignment(a, _), Value::Assignment(b, _)) = (gold_value, answer_value)
        && !math::same_name(a, b)
    {
        return false;
    }
    let read = |text: &str, value: &Value| measured(value).cloned().or_else(|| math::amount(text, steps));
    match (measured(gold_value), measured(answer_value)) {
        (Some(_), Some(_)) => false,
        _ => match (read(gold, gold_value), read(answer, answer_value)) {
            (Some(a), Some(b)) => math::equal(&a, &b, steps).equal,
            _ => false,
        },
    }
}

/// True for a text of words, also where they read as mathematics: `No` is the product of N and o, too.
fn is_wordy(text: &str, value: &Value) -> bool {
    let letters = |c: char| c.is_alphabetic() || c.is_whitespace() || matches!(c, '-' | '.' | ',' | '"');
    text.chars().all(letters)
        && text.chars().any(char::is_alphabetic)
        && match value {
            Value::Text(_) => true,
            Value::Scalar(e, _) => !e.has_numbers(),
            Value::List(items) => items.iter().all(|v| is_wordy("a", v)),
            _ => false,
        }
}
