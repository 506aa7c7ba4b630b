//! Orders written as chains, and as lists with a word for their direction: `B > A = C`, "in increasing order C, N, O".

use super::math::{self, Steps};
use super::words;

/// An order: what stands on each place, from the least to the greatest where that is told.
struct Ranks {
    places: Vec<Vec<String>>,
    /// The signs or a word tell which end is the least.
    directed: bool,
    /// Signs stand between the names.
    signed: bool,
}

/// Longest text that is read so, and most names in it.
const MAX_BYTES: usize = 300;
const MAX_NAMES: usize = 12;

/// True where both name the same things in the same order, one of them as a chain of signs.
pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> bool {
    if !(gold.contains(['<', '>']) || answer.contains(['<', '>']) || gold.contains("\\gt") || gold.contains("\\lt")) {
        return false;
    }
    let (Some(a), Some(b)) = (read(gold), read(answer)) else { return false };
    let plain = |t: &str| t.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
    let named = |x: &str, y: &str| {
        x == y || (plain(x) && plain(y) && words::key(x) == words::key(y)) || {
            let (p, q) = (math::parse(x, true, steps), math::parse(y, true, steps));
            math::equal(&p, &q, steps).equal
        }
    };
    // Equal ones in any order.
    let place =
        |x: &Vec<String>, y: &Vec<String>| x.len() == y.len() && x.iter().all(|n| y.iter().any(|m| named(n, m)));
    if !(a.signed || b.signed) || a.places.len() < 2 {
        return false;
    }
    if a.directed && b.directed {
        return a.places.len() == b.places.len() && a.places.iter().zip(&b.places).all(|(x, y)| place(x, y));
    }
    // A list without a word for its direction says what a chain says in the order of writing.
    let (list, chain, falls) = if a.directed { (&b, &a, falls(gold)) } else { (&a, &b, falls(answer)) };
    let mut written = chain.places.clone();
    if falls {
        written.reverse();
    }
    list.places.len() > 2
        && list.places.len() == written.len()
        && list.places.iter().zip(&written).all(|(x, y)| place(x, y))
}

/// True for a chain that is written from the greatest down.
fn falls(text: &str) -> bool {
    text.contains('>') || text.contains("\\gt")
}

fn read(text: &str) -> Option<Ranks> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let lower = text.to_lowercase();
    let text = text.rsplit(": ").next()?.trim_end_matches('.').replace("\\gt", ">").replace("\\lt", "<");
    let rises = text.contains('<');
    let falls = text.contains('>');
    let relates = ["\\le", "\\ge", "\u{2264}", "\u{2265}", "->", "=>"].iter().any(|r| text.contains(r));
    if rises && falls || relates {
        return None;
    }
    let name = |t: &str| t.trim_matches(|c: char| c == '$' || c.is_whitespace()).to_owned();
    if rises || falls {
        let groups = text.split(['<', '>']).map(|g| g.split('=').map(name).collect::<Vec<_>>());
        let mut places: Vec<Vec<String>> = groups.collect();
        let filled = places.iter().flatten().all(|n| !n.is_empty() && !n.contains(','));
        if falls {
            places.reverse();
        }
        return (filled && places.len() <= MAX_NAMES).then_some(Ranks { places, directed: true, signed: true });
    }
    const RISING: [&str; 5] = [
        "increasing order",
        "ascending order",
        "from least to greatest",
        "from smallest to largest",
        "from lowest to highest",
    ];
    const FALLING: [&str; 5] = [
        "decreasing order",
        "descending order",
        "from greatest to least",
        "from largest to smallest",
        "from highest to lowest",
    ];
    let (up, down) = (RISING.iter().any(|w| lower.contains(w)), FALLING.iter().any(|w| lower.contains(w)));
    // What joins the word and the names.
    let small = text.to_lowercase();
    let told = RISING.iter().chain(&FALLING).filter_map(|w| small.find(w).map(|at| at + w.len())).max();
    let list = told.map_or(&*text, |at| text.get(at..).unwrap_or_default());
    let joined = |j: &&str| list.split_once(*j).filter(|(between, _)| told.is_some() && between.len() < 24);
    let list = [" we have ", " is ", " are ", " gives ", ", "].iter().find_map(joined).map_or(list, |(_, l)| l);
    let list = list.replace(", and ", ", ").replace(" and ", ", ");
    let mut places: Vec<Vec<String>> = list.split(", ").map(|n| vec![name(n)]).collect();
    if down {
        places.reverse();
    }
    let filled =
        places.len() > 1 && places.len() <= MAX_NAMES && places.iter().flatten().all(|n| !n.is_empty() && n.len() < 40);
    filled.then_some(Ranks { places, directed: up != down, signed: false })
}
