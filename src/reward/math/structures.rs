//! Graphs, groups and paths by their names: `K_5` and "the complete graph on five vertices", `\mathbb{Z}_6` and
//! `\mathbb{Z}/6\mathbb{Z}`, `A \to B \to D` and "A - B - D".

use super::number_words;
use crate::reward::words::tables::{all_as, is_wordless, replaced};

/// What is named: its kind, and its sizes.
#[derive(PartialEq)]
enum Named {
    Graph(char, Vec<u32>),
    Group(char, u32),
    /// A product of cyclic groups by the powers of primes they split into.
    Cyclic(Vec<u32>),
    Path(Vec<String>),
    /// A ring or field, the bracket behind it, and what is adjoined to it, in any order.
    Generated(String, char, Vec<String>),
}

/// True when both name the same graph, group or path.
pub(super) fn same_structure(a: &str, b: &str) -> bool {
    let (x, y) = (all(a), all(b));
    x.iter().any(|x| y.contains(x))
}

/// True for words that name a graph or a group.
pub(super) fn is_named(text: &str) -> bool {
    text.len() <= 200 && !text.contains('_') && (graph(text).is_some() || group(text).is_some())
}

/// What a text may name: C_6 is a cycle and a group.
fn all(text: &str) -> Vec<Named> {
    if text.len() > 200 || is_wordless(text) {
        return Vec::new();
    }
    [graph(text), group(text), cyclic(text), path(text), generated(text)].into_iter().flatten().collect()
}

/// Words in lower case without the small ones, numbers in digits.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    // Without one of these nothing is named.
    if !["group", "complete", "cycle", "path", "wheel"].iter().any(|w| lower.contains(w)) {
        return Vec::new();
    }
    let plain = lower.replace(['$', '(', ')', ',', '{', '}', '-', '\\'], " ");
    let small = ["the", "a", "an", "on", "of", "with", "and", "is", "in", "its", "each", "isomorphic", "to"];
    let digits = |w: &str| number_words::read(&[w]).filter(|(_, n)| *n == 1).map(|(q, _)| q.to_string());
    plain.split_whitespace().filter(|w| !small.contains(w)).map(|w| digits(w).unwrap_or(w.to_owned())).collect()
}

/// The text without spaces, faces and braces.
fn dense(text: &str) -> String {
    const SHOWN: [&str; 14] =
        ["\\mathbb", "\\mathrm", "\\text", "\\mathbf", "\\left", "\\right", "\\,", "\\ ", "{", "}", " ", "$", "(", ")"];
    replaced(all_as(text, &SHOWN, ""), &[("\u{2124}", "Z")]).into_owned()
}

fn numbers(words: &[String]) -> Vec<u32> {
    words.iter().filter_map(|w| w.parse().ok()).collect()
}

fn indexed(text: &str) -> Option<(char, Vec<u32>)> {
    let dense = text.contains('_').then(|| dense(text))?;
    let (letter, index) = dense.split_once('_')?;
    let mut letters = letters_of(letter)?;
    let sizes = index.split(',').map(|n| n.parse().ok()).collect::<Option<Vec<u32>>>()?;
    Some((letters.next()?, sizes))
}

fn letters_of(text: &str) -> Option<std::str::Chars<'_>> {
    (text.chars().count() == 1).then(|| text.chars())
}

fn graph(text: &str) -> Option<Named> {
    if let Some((letter, sizes)) = indexed(text) {
        let known = matches!((letter, sizes.len()), ('K', 1 | 2) | ('C' | 'P' | 'W' | 'Q', 1));
        return known.then(|| Named::Graph(letter, sorted(sizes)));
    }
    let words = words(text);
    let has = |w: &str| words.iter().any(|x| x == w);
    let sizes = numbers(&words);
    let letter = match () {
        () if has("complete") && has("bipartite") && sizes.len() == 2 => 'K',
        () if has("complete") && has("graph") && !has("bipartite") && sizes.len() == 1 => 'K',
        () if has("cycle") && (has("vertices") || has("graph") || has("length")) && sizes.len() == 1 => 'C',
        () if has("path") && has("vertices") && sizes.len() == 1 => 'P',
        () if has("wheel") && sizes.len() == 1 => 'W',
        () => return None,
    };
    Some(Named::Graph(letter, sorted(sizes)))
}

fn sorted(mut sizes: Vec<u32>) -> Vec<u32> {
    sizes.sort_unstable();
    sizes
}

fn group(text: &str) -> Option<Named> {
    if let Some((letter, sizes)) = indexed(text) {
        return match (letter, sizes.as_slice()) {
            ('S' | 'A' | 'D', [n]) => Some(Named::Group(letter, *n)),
            ('Q', [8]) => Some(Named::Group('Q', 8)),
            ('V', [4]) => Some(Named::Cyclic(vec![2, 2])),
            _ => None,
        };
    }
    let words = words(text);
    let has = |w: &str| words.iter().any(|x| x == w);
    if !has("group") {
        return None;
    }
    match (numbers(&words).as_slice(), ()) {
        ([n], ()) if has("symmetric") => Some(Named::Group('S', *n)),
        ([n], ()) if has("alternating") => Some(Named::Group('A', *n)),
        ([n], ()) if has("dihedral") && has("order") && n % 2 == 0 => Some(Named::Group('D', n / 2)),
        (_, ()) if has("quaternion") => Some(Named::Group('Q', 8)),
        ([n], ()) if has("cyclic") => Some(Named::Cyclic(prime_powers(*n)?)),
        (_, ()) if has("klein") => Some(Named::Cyclic(vec![2, 2])),
        _ => None,
    }
}

/// Products of cyclic groups: `\mathbb{Z}_2 \times \mathbb{Z}_3`, `\mathbb{Z}/6\mathbb{Z}`, `C_6`.
fn cyclic(text: &str) -> Option<Named> {
    const TIMES: [&str; 4] = ["\\times", "\\oplus", "\u{d7}", "\u{2295}"];
    let dense = all_as(dense(&replaced(text, &[(" x ", " * ")])), &TIMES, "*");
    let mut powers = Vec::new();
    for part in dense.split('*') {
        let n = match part.strip_prefix("Z_").or_else(|| part.strip_prefix("C_")) {
            Some(n) => n,
            None => part.strip_prefix("Z/")?.strip_suffix('Z').or_else(|| part.strip_prefix("Z/"))?,
        };
        powers.extend(prime_powers(n.parse().ok()?)?);
    }
    Some(Named::Cyclic(sorted(powers)))
}

fn prime_powers(mut n: u32) -> Option<Vec<u32>> {
    if n == 0 || n > 1_000_000 {
        return None;
    }
    let (mut powers, mut p) = (Vec::new(), 2);
    while n > 1 {
        let mut power = 1;
        while n.is_multiple_of(p) {
            n /= p;
            power *= p;
        }
        if power > 1 {
            powers.push(power);
        }
        p = if p * p > n { n.max(p + 1) } else { p + 1 };
    }
    Some(sorted(powers))
}

/// What is generated over a ring or field: `\mathbb{Q}(\sqrt 2, i)`, `\mathbb{Z}[x, y]`.
fn generated(text: &str) -> Option<Named> {
    const FACES: [&str; 6] = ["\\left", "\\right", "\\,", " ", "$", "\\!"];
    const RINGS: [(&str, &str); 8] = [
        ("\\mathbf", "\\mathbb"),
        ("\\Bbb", "\\mathbb"),
        ("\u{211a}", "\\mathbb{Q}"),
        ("\u{2124}", "\\mathbb{Z}"),
        ("\u{211d}", "\\mathbb{R}"),
        ("\u{2102}", "\\mathbb{C}"),
        ("{", ""),
        ("}", ""),
    ];
    let dense = replaced(all_as(text, &FACES, ""), &RINGS);
    let rest = dense.strip_prefix("\\mathbb")?;
    let at = rest.find(['(', '['])?;
    let (ring, open) = (&rest[..at], rest[at..].chars().next()?);
    let known = ring.starts_with(['Q', 'Z', 'R', 'C', 'F', 'K']) && (ring.len() == 1 || ring[1..].starts_with('_'));
    let inner = rest[at + 1..].strip_suffix(if open == '(' { ')' } else { ']' })?;
    let mut adjoined: Vec<String> = inner.split(',').map(str::to_owned).collect();
    adjoined.sort();
    (known && adjoined.len() > 1).then(|| Named::Generated(ring.to_owned(), open, adjoined))
}

/// Places one after the other: three or more with arrows or dashes between.
fn path(text: &str) -> Option<Named> {
    const ARROWS: [&str; 9] =
        ["\\rightarrow", "\\longrightarrow", "\\to", "\u{2192}", "->", "\u{2013}", "\u{2014}", "\u{2212}", "-"];
    let plain = all_as(text, &ARROWS, " > ");
    if !plain.contains('>') {
        return None;
    }
    let behind = plain.rsplit_once(" is ").map_or(&*plain, |(_, rest)| rest).replace(['$', '.'], " ");
    let places: Vec<String> = behind.split('>').map(|p| p.trim().to_owned()).collect();
    let place = |p: &String| p.chars().count() == 1 && p.chars().all(char::is_alphabetic);
    (places.len() >= 3 && places.len() <= 40 && places.iter().all(place)).then_some(Named::Path(places))
}
