//! Lists, rankings and chains of names.

use super::fold::plain;
use super::phrase::{Core, core, words};
use super::phrases;
use super::tables::replaced;

/// Most names in a list.
const MAX_NAMES: usize = 40;

/// Short words whose letters in another order are another word.
const ANAGRAMS: &[&str] = &[
    "act", "cat", "dog", "god", "tea", "eat", "ate", "eta", "rat", "art", "tar", "now", "won", "own", "saw", "was",
    "ten", "net", "tip", "pit", "top", "pot", "opt", "pan", "nap", "arm", "ram", "mar", "bat", "tab", "bin", "nib",
    "bus", "sub", "map", "amp", "ape", "pea", "ear", "are", "era", "gas", "sag", "leg", "gel", "lap", "pal", "alp",
    "not", "ton", "owl", "low", "pat", "tap", "apt", "pin", "nip", "pus", "ups", "raw", "war", "dam", "mad", "den",
    "end", "gum", "mug", "gun", "nut", "tun", "icy", "lid", "oar", "one", "eon", "pie", "rib", "tin", "nit", "rod",
    "sas", "ssa", "asa", "aas", "dna", "and", "sea", "sin", "ins", "sir", "son", "sum", "use", "sue", "who", "how",
    "yam", "may", "two", "tow", "who", "bad", "dab", "bed", "deb", "bag", "gab", "bog", "gob", "bud", "dub", "but",
    "tub", "cab", "cod", "doc", "ear", "elm", "mel", "emu", "far", "fir", "rif", "hut", "ant", "tan", "nat", "ion",
    "oil", "red", "toe", "yes", "rna", "ran", "add", "dad",
];

/// True for a short word that could be read as a product of its letters.
pub fn are_words(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ANAGRAMS.contains(&lower.as_str())
}

/// The members of a list of "yes" and "no" or "true" and "false", in which order matters.
pub fn told(text: &str) -> Option<Vec<String>> {
    let text = replaced(text, &[(" and ", ",")]);
    let parts: Vec<&str> = text.split([',', ';']).filter(|p| !p.trim().is_empty()).take(MAX_NAMES).collect();
    let polar = |part: &&str| Some(super::key(part)).filter(|w| matches!(w.as_str(), "true" | "false" | "yes" | "no"));
    (parts.len() > 1 && parts.len() < MAX_NAMES).then(|| parts.iter().map(polar).collect())?
}

/// Whether two names are one, of which one has initials for some of its words: J. S. Bach, *H. sapiens*.
pub fn initialled(gold: &str, answer: &str) -> bool {
    const LONGEST: usize = 60;
    if gold.len() > LONGEST || answer.len() > LONGEST || !(gold.contains('.') || answer.contains('.')) {
        return false;
    }
    let read = |t: &str| -> Vec<String> {
        plain(t).replace('.', ". ").split_whitespace().map(|w| w.trim_matches(['*', '_']).to_owned()).collect()
    };
    let (mut a, mut b) = (read(gold), read(answer));
    // A middle name may be left out where only its initial is told.
    if let (long, 2) | (2, long) = (a.len(), b.len())
        && long == 3
    {
        [&mut a, &mut b].into_iter().filter(|n| n.len() == 3 && n[1].len() == 2 && n[1].ends_with('.')).for_each(|n| {
            n.remove(1);
        });
    }
    let capital = |w: &str| w.starts_with(|c: char| c.is_uppercase());
    let name = |w: &String| w.len() > 2 && w.chars().all(|c| c.is_alphabetic() || matches!(c, '-' | '\''));
    let short = |i: &str, w: &String| {
        i.len() == 2 && i.ends_with('.') && capital(i) && name(w) && w.as_bytes().first() == i.as_bytes().first()
    };
    let (Some((x, first)), Some((y, second))) = (a.split_last(), b.split_last()) else { return false };
    let alike = |(a, b): (&String, &String)| a == b || short(a, b) || short(b, a);
    name(x) && x == y && !first.is_empty() && first.len() == second.len() && first.iter().zip(second).all(alike)
}

/// Whether one is the capitals with which the words of the other begin: KE, kinetic energy.
pub fn abbreviated(gold: &str, answer: &str) -> bool {
    const SMALL: [&str; 5] = ["of", "the", "and", "for", "in"];
    let capitals = |t: &str| (2..=5).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_uppercase());
    let stands = |short: &str, long: &str| {
        let long = long.trim_end_matches('.');
        let words: Vec<&str> = long.split([' ', '-']).filter(|w| !SMALL.contains(&w.to_lowercase().as_str())).collect();
        let name = |w: &&str| w.len() > 2 && w.bytes().all(|b| b.is_ascii_alphabetic()) && !capitals(w);
        long.len() < 60
            && capitals(short)
            && words.len() == short.len()
            && words.iter().all(name)
            && words.iter().zip(short.bytes()).all(|(w, c)| w.as_bytes()[0].eq_ignore_ascii_case(&c))
    };
    stands(gold, answer) || stands(answer, gold)
}

/// How names stand together.
#[derive(PartialEq)]
enum Order {
    /// In any order.
    Any,
    /// One after the other: in brackets, numbered, with arrows.
    Row,
    /// From the largest to the smallest, by the signs between them; with the sign's name.
    Down(&'static str),
    /// Neither of them.
    Neither,
    /// One of them.
    Either,
}

struct Names {
    order: Order,
    members: Vec<Core>,
}

/// Whether two texts list the same names: in the same order where the gold answer has an order.
pub fn lists(gold: &str, answer: &str) -> bool {
    let (Some(gold), Some(answer)) = (read(gold), read(answer)) else { return false };
    if gold.members.len() != answer.members.len() {
        return false;
    }
    let told = |n: &Names| n.members.iter().any(|m| matches!(m.key().as_str(), "true" | "false" | "yes" | "no"));
    let same = |a: &Core, b: &Core| phrases(a, b);
    let in_order = match (&gold.order, &answer.order) {
        (Order::Down(a), Order::Down(b)) if a == b => true,
        // One after the other, without the arrows.
        (Order::Down("to"), Order::Any | Order::Row) | (Order::Any | Order::Row, Order::Down("to")) => true,
        (Order::Down(_) | Order::Neither | Order::Either, _) | (_, Order::Down(_) | Order::Neither | Order::Either) => {
            if gold.order != answer.order {
                return false;
            }
            false
        }
        (Order::Row, _) => true,
        (_, Order::Row) => false,
        _ => told(&gold),
    };
    if in_order {
        return gold.members.iter().zip(&answer.members).all(|(a, b)| same(a, b));
    }
    let mut rest: Vec<&Core> = answer.members.iter().collect();
    gold.members.iter().all(|g| rest.iter().position(|a| same(g, a)).map(|n| rest.swap_remove(n)).is_some())
}

fn read(text: &str) -> Option<Names> {
    let text = plain(text);
    let text = text.trim().trim_end_matches('.').trim();
    // "From liquid to gas".
    let ends = text.strip_prefix("from ").or(text.strip_prefix("From ")).and_then(|t| t.split_once(" to "));
    let text = ends.map_or_else(|| text.to_owned(), |(a, b)| format!("{a} \u{2192} {b}"));
    let text = text.as_str();
    // A chain of comparisons, written from either end.
    const SIGNS: [(&str, &str); 5] = [
        (", then ", "\u{2192}"),
        (" followed by ", "\u{2192}"),
        (">=", "\u{2265}"),
        ("<=", "\u{2264}"),
        ("->", "\u{2192}"),
    ];
    let chain = replaced(text, &SIGNS);
    for (down, up, name) in [(">", "<", "more"), ("\u{2265}", "\u{2264}", "at least"), ("\u{2192}", "\u{2190}", "to")] {
        let text = &*chain;
        for (sign, reversed) in [(down, false), (up, true)] {
            if !text.contains(sign) {
                continue;
            }
            let mut members = members(text.split(sign))?;
            if members.len() < 2 || text.contains([',', ';', '=']) {
                return None;
            }
            if reversed {
                members.reverse();
            }
            return Some(Names { order: Order::Down(name), members });
        }
    }
    let wrapped = |open: char, close: char| text.strip_prefix(open).and_then(|t| t.strip_suffix(close));
    let (order, inner) = match (wrapped('(', ')'), wrapped('[', ']')) {
        (Some(inner), _) | (_, Some(inner)) if !inner.contains(['(', '[']) => (Order::Row, inner),
        _ => (Order::Any, text),
    };
    let lower = inner.to_lowercase();
    for (head, joint, order) in [("neither ", " nor ", Order::Neither), ("either ", " or ", Order::Either)] {
        if let Some(rest) = lower.strip_prefix(head) {
            let members = members(rest.split(joint).flat_map(|p| p.split(',')))?;
            return (members.len() > 1).then_some(Names { order, members });
        }
    }
    if lower.contains(" or ") {
        let members = members(inner.split(" or ").flat_map(|p| p.split(',')))?;
        return (members.len() > 1).then_some(Names { order: Order::Either, members });
    }
    let inner = lower.strip_prefix("both ").map_or(inner, |rest| &inner[inner.len() - rest.len()..]);
    let joined = replaced(inner, &[(" and ", ","), (" & ", ","), (" as well as ", ",")]);
    let members = members(joined.split([',', ';', '\n']))?;
    (members.len() > 1).then_some(Names { order, members })
}

fn members<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Vec<Core>> {
    let named: Vec<Core> = parts.map(words).filter(|w| !w.is_empty()).take(MAX_NAMES).map(|w| core(&w)).collect();
    (named.len() < MAX_NAMES).then_some(named)
}
