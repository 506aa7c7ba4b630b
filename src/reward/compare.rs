//! Two answers without their wrappers, by one rule after another.

use super::math::{self, Steps, Unit, Value};
use super::{chemistry, ranks, substances, words};

/// Whether two answers without their wrappers say the same, and by which rule.
pub(super) fn compare(gold: &str, answer: &str, steps: &Steps) -> (bool, &'static str) {
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
    if matches!(words::key(gold).as_str(), said @ ("yes" | "no") if words::key(first) == said) {
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
    if ranks::same(gold, answer, steps) {
        return Some("the same order");
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
