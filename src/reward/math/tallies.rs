//! Quantities of several named people, things or points: "Tom: 12, Anna: 8", "Anna has 8 and Tom has 12", "the boat
//! goes 15 km/h in still water and the current 3 km/h", "6 boxes with 4 left over". Each is told by its name, in any
//! order.

use super::Steps;
use super::compare::equal;
use super::described::{MAX, plain};
use super::parse::{is_unit, parse};
use super::restate::whole;
use crate::reward::words::tables::among;

/// Most quantities of one text.
const MAX_PARTS: usize = 8;

/// Words that name nothing: articles, verbs of having and moving, what is measured.
const IDLE: &str = " a an the of is are was were be has have had gets get got receives received owns holds contains \
    costs cost goes go runs moves travels flies blows flows rows swims walks drives rides weighs earned earns scored scores paid pays takes took makes made sells sold \
    needs each every there then now so thus hence therefore will must can it its they he she we his her their at \
    speed rate price cost age number numbers amount share count quantity value weight length score total for with by \
    equals equal in that and per one answer who which = : ";

/// Words that change a quantity, or say how it was told from another.
const CHANGING: &str = " more less fewer than least most over under about nearly almost half twice thrice double triple times \
    percent dozen hundred thousand million billion pair pairs score not no never none neither before after except without or \
    if unless respectively both ";

/// One quantity: the words before its number and those behind, and the number with its unit.
struct Tally {
    before: Vec<String>,
    behind: Vec<String>,
    value: String,
}

impl Tally {
    fn names(&self) -> impl Iterator<Item = &String> {
        self.before.iter().chain(&self.behind)
    }
}

/// Whether two texts give the same quantities to the same names; `None` where one of them names no several quantities,
/// or the names do not say which belong together.
pub(super) fn same_tallies(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    let (a, b) = (tallies(gold, steps)?, tallies(answer, steps)?);
    if a.len() != b.len() {
        return None;
    }
    let (own, other) = (telling(&a), telling(&b));
    let mut same = true;
    for (x, names) in a.iter().zip(&own) {
        // What is left over is no quotient.
        let left = |names: &[&String]| names.iter().any(|w| *w == "remainder");
        let quotient = |p: &[&String], q: &[&String]| p == ["quotient"] && !left(q);
        let either = |n: usize| quotient(names, &other[n]) || quotient(&other[n], names);
        let shares = |n: &usize| either(*n) || other[*n].iter().any(|w| names.contains(w));
        let mut partners = (0..b.len()).filter(shares).map(|n| (n, &b[n]));
        let ((n, y), None) = (partners.next()?, partners.next()) else { return None };
        // "Tom's sister" is not Tom.
        let named = |p: &Tally, q: &[&String]| p.before.iter().all(|w| q.contains(&w));
        let first = |of: &[Tally], p: &Tally| of[1..].iter().all(|t| t.before.is_empty()) && std::ptr::eq(p, &of[0]);
        let (all_x, all_y): (Vec<&String>, Vec<&String>) = (x.names().collect(), y.names().collect());
        // Three to the right are no three to the left.
        let more = |p: &Tally, q: &[&String]| p.behind.iter().any(|w| !q.contains(&w));
        if more(x, &all_y) && more(y, &all_x) {
            return None;
        }
        if !either(n) && !((named(x, &all_y) || first(&a, x)) && (named(y, &all_x) || first(&b, y))) {
            return None;
        }
        same &= equal(&parse(&x.value, true, steps), &parse(&y.value, true, steps), steps).equal;
    }
    Some(same)
}

/// True for a quotient with its remainder in words: "6 boxes with 4 left over".
pub(super) fn leaves_over(text: &str) -> bool {
    const LEFT: [&str; 4] = [" over", " leftover", " left", " remaining"];
    let numbered = |t: &str| t.bytes().any(|b| b.is_ascii_digit());
    let text = text.trim_end_matches(['.', ' ']);
    text.len() <= MAX
        && LEFT.iter().any(|w| text.ends_with(w))
        && text.split_once(" with ").is_some_and(|(a, b)| numbered(a) && numbered(b))
}

/// The words of each quantity that not all of them have.
fn telling(all: &[Tally]) -> Vec<Vec<&String>> {
    let common = |w: &String| all.iter().all(|t| t.names().any(|n| n == w));
    all.iter().map(|t| t.names().filter(|w| !common(w)).collect()).collect()
}

/// The quantities of a text that is nothing else, two at least.
fn tallies(text: &str, steps: &Steps) -> Option<Vec<Tally>> {
    if text.len() > MAX || !text.contains(' ') {
        return None;
    }
    steps.spend(text.len() as u64)?;
    // Dollars are no marks of mathematics.
    let text = plain(&text.replace("\\$", "\u{1}")).replace(':', " : ").replace("left over", "leftover");
    // 9 R 2
    let text = match text.split(' ').collect::<Vec<_>>().as_slice() {
        [q, "R" | "r" | "remainder", r] => format!("quotient {q}, remainder {r}"),
        _ => text.replace(" with ", ", "),
    };
    let mut found: Vec<Tally> = clauses(&text)?.into_iter().map(|c| tally(c, steps)).collect::<Option<_>>()?;
    // 12 with 4 left over
    if let [whole, rest] = found.as_mut_slice()
        && whole.names().next().is_none()
        && rest.names().any(|w| w == "remainder")
    {
        whole.before.push("quotient".to_owned());
    }
    ((2..=MAX_PARTS).contains(&found.len()) && telling(&found).iter().all(|names| !names.is_empty())).then_some(found)
}

/// The parts between commas and joining words outside brackets.
fn clauses(text: &str) -> Option<Vec<&str>> {
    const JOINTS: [&str; 6] = [", and ", ", ", "; ", " and ", " while ", " whereas "];
    let (mut out, mut from, mut at, mut depth) = (Vec::new(), 0, 0, 0i32);
    while let Some(c) = text.get(at..)?.chars().next() {
        depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
        match JOINTS.iter().find(|j| depth == 0 && text[at..].starts_with(*j)) {
            Some(joint) => {
                out.push(&text[from..at]);
                at += joint.len();
                from = at;
            }
            None => at += c.len_utf8(),
        }
    }
    out.push(&text[from..]);
    Some(out)
}

/// The one quantity of a clause and its names.
fn tally(clause: &str, steps: &Steps) -> Option<Tally> {
    let numeric = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '\u{1}' | '\u{20ac}' | '\u{a3}' | '('))
            || w.strip_prefix(['-', '+']).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
            || w.starts_with("\\frac")
            || w.starts_with("\\sqrt")
            || (w != "one" && whole(w).is_some())
    };
    let spaced = clause.replacen('(', " (", 1);
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let at = words.iter().position(|w| numeric(w))?;
    // A point may have spaces in it.
    let mut to = at + 1;
    while words[at].starts_with('(') && !words[to - 1].ends_with(')') {
        to += usize::from(to < words.len());
        if to == words.len() && !words[to - 1].ends_with(')') {
            return None;
        }
    }
    let unit = (to + 1..=words.len().min(to + 3)).rev().find(|&n| {
        let what = words[to..n].join(" ");
        // 15 km/h in still water: no inches.
        words[to + 1..n].iter().all(|w| *w == "per" || !among(IDLE, w)) && is_unit(what.trim_end_matches('.'), steps)
    });
    let end = unit.unwrap_or(to);
    let value = words[at..end].join(" ").replace('\u{1}', "\\$");
    let names = |words: &[&str]| -> Option<Vec<String>> {
        let mut out = Vec::new();
        for (n, word) in words.iter().enumerate() {
            let word = word.trim_matches(['.', '"', '*', '=']);
            // A capital letter by itself is a name.
            let noun = |w: &&str| w.starts_with(char::is_lowercase) && !among(IDLE, w);
            let article = word == "A" && n == 0 && words.get(1).is_some_and(noun);
            if word.len() == 1 && word.starts_with(|c: char| c.is_ascii_uppercase()) && !article {
                out.push(word.to_owned());
                continue;
            }
            let lower = word.to_lowercase().replace('\u{2019}', "'");
            let own = lower.strip_suffix("'s").filter(|_| words.get(n + 1).is_some_and(|w| among(IDLE, w)));
            let lower = own.unwrap_or(&lower).to_owned();
            if among(CHANGING, &lower) || numeric(&lower) || lower.contains(['\\', '^', '<', '>', '+']) {
                return None;
            }
            if lower.is_empty() || lower == "old" || among(IDLE, &lower) {
                continue;
            }
            out.push(match lower.as_str() {
                "leftover" | "left" | "remaining" | "remainder" | "remain" | "extra" => "remainder".to_owned(),
                word => word.strip_suffix('s').filter(|w| w.len() > 2 && !w.ends_with('s')).unwrap_or(word).to_owned(),
            });
        }
        Some(out)
    };
    Some(Tally { before: names(&words[..at])?, behind: names(&words[end..])?, value })
}
