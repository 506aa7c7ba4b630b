//! A phrase as its words in one form: contractions in full, articles gone, numbers in digits.

use super::fold::{UMLAUT, plain};
use super::shapes;
use super::spelling::{self, alike};
use crate::reward::math::number_words;

/// Most words that are looked at as a phrase.
const MAX_WORDS: usize = 60;

/// A word in its one spelling.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Word {
    /// The word, umlauts without their marks.
    pub(super) text: String,
    /// The word with an `e` for every umlaut's mark, where it has one.
    long: Option<String>,
}

impl Word {
    /// A word in small letters.
    fn new(raw: &str) -> Word {
        let text = |t: &str| number(t).unwrap_or_else(|| spelling::one(t));
        if !raw.contains(UMLAUT) {
            return Word { text: text(raw), long: None };
        }
        Word { text: text(&raw.replace(UMLAUT, "")), long: Some(text(&raw.replace(UMLAUT, "e"))) }
    }

    pub(super) fn is(&self, words: &[&str]) -> bool {
        words.contains(&self.text.as_str())
    }

    /// True for a word that says nothing beside others: "is", "does".
    pub(super) fn is_auxiliary(&self) -> bool {
        self.is(&["is", "are", "was", "were", "be", "been", "being", "do", "does", "did", "am"])
    }

    fn same(&self, other: &Word) -> bool {
        let long = |a: &Word, b: &Word| a.long.as_ref().is_some_and(|l| alike(l, &b.text));
        alike(&self.text, &other.text) || long(self, other) || long(other, self)
    }
}

/// Numbers and places in words as digits: `third` and `3rd`, `two` and `2`.
fn number(word: &str) -> Option<String> {
    if let Some(n) = number_words::ordinal(word) {
        let end = match (n % 10, n % 100) {
            (_, 11..=13) => "th",
            (1, _) => "st",
            (2, _) => "nd",
            (3, _) => "rd",
            _ => "th",
        };
        return Some(format!("{n}{end}"));
    }
    number_words::small(word).map(|n| n.to_string())
}

/// Words before "not" that a contraction takes in, and those commonly written without the apostrophe.
fn contracted(word: &str) -> Option<(&str, &'static str)> {
    const BARE: [(&str, &str); 17] = [
        ("dont", "do"),
        ("doesnt", "does"),
        ("didnt", "did"),
        ("isnt", "is"),
        ("arent", "are"),
        ("wasnt", "was"),
        ("werent", "were"),
        ("hasnt", "has"),
        ("havent", "have"),
        ("hadnt", "had"),
        ("cant", "can"),
        ("cannot", "can"),
        ("couldnt", "could"),
        ("wont", "will"),
        ("wouldnt", "would"),
        ("shouldnt", "should"),
        ("mustnt", "must"),
    ];
    if let Some((_, verb)) = BARE.iter().find(|(w, _)| *w == word) {
        return Some((verb, "not"));
    }
    if let Some(verb) = word.strip_suffix("n't") {
        let verb = match verb {
            "ca" => "can",
            "wo" => "will",
            "sha" => "shall",
            verb => verb,
        };
        return Some((verb, "not"));
    }
    for (end, verb) in [("'re", "are"), ("'ll", "will"), ("'ve", "have")] {
        if let Some(subject) = word.strip_suffix(end) {
            return Some((subject, verb));
        }
    }
    let subject = word.strip_suffix("'s")?;
    ["it", "that", "there", "this", "he", "she", "what", "here", "let"].contains(&subject).then_some((subject, "is"))
}

/// The words of a text, articles included, in their one spelling.
pub(super) fn words(text: &str) -> Vec<Word> {
    let chars: Vec<char> = plain(text).chars().collect();
    let near = |i: usize, d: isize| chars.get(i.wrapping_add_signed(d)).copied().unwrap_or(' ');
    let mut raw: Vec<String> = Vec::new();
    let mut open = false;
    for (i, &c) in chars.iter().enumerate() {
        if raw.len() > MAX_WORDS {
            break;
        }
        let (before, behind) = (near(i, -1), near(i, 1));
        let inside = match c {
            c if c.is_alphanumeric() || c == UMLAUT || c == '\\' => true,
            '\'' => before.is_alphabetic() && behind.is_alphabetic(),
            '.' => before.is_ascii_digit() && behind.is_ascii_digit(),
            // A minus sign, a range of numbers.
            '-' => !before.is_alphabetic() && behind.is_ascii_digit(),
            _ => false,
        };
        // U.S.A. is one word.
        let initial = c == '.'
            && before.is_alphabetic()
            && behind.is_alphabetic()
            && !near(i, -2).is_alphanumeric()
            && !near(i, 2).is_alphanumeric();
        if initial {
            continue;
        }
        if inside {
            if !open {
                raw.push(String::new());
            }
            if let Some(last) = raw.last_mut() {
                last.push(c);
            }
            open = true;
        } else {
            open = false;
            let sign = "+*/=<>%&\u{2264}\u{2265}\u{2260}\u{2192}\u{2190}".contains(c)
                || (!c.is_ascii()
                    && !c.is_alphanumeric()
                    && !"\u{201c}\u{201d}\u{201e}\u{ab}\u{bb}\u{2022}".contains(c));
            if sign {
                raw.push(c.to_string());
            }
        }
    }
    let mut out = Vec::new();
    for (n, word) in raw.iter().enumerate() {
        let lower = word.to_lowercase();
        if let Some((first, second)) = contracted(&lower) {
            out.push(Word::new(first));
            out.push(Word::new(second));
            continue;
        }
        if let Some(full) = street(&raw, n) {
            out.push(Word::new(full));
            continue;
        }
        // A capital A is a name, but for the first word of a phrase.
        let behind = raw.get(n + 1);
        let opens =
            n == 0 && behind.is_some_and(|w| w.chars().count() > 1 && !matches!(w.as_str(), "and" | "or" | "is"));
        // So is a small one that ends it.
        if word == "A" && !opens || word == "a" && n > 0 && behind.is_none() {
            out.push(Word { text: "A".to_owned(), long: None });
            continue;
        }
        // World War II, type I: a Roman numeral behind the word it counts.
        let counted = n > 0 && raw[n - 1].chars().count() > 2 && raw[n - 1].chars().all(char::is_alphabetic);
        let value = if counted && (n + 1 == raw.len() || word.len() > 1) { roman(word) } else { None };
        match value {
            Some(value) => out.push(Word { text: value.to_string(), long: None }),
            // Newton's, Charles's
            None => {
                let plain = if is_genotype(word) {
                    Word { text: word.clone(), long: None }
                } else {
                    Word::new(&lower.strip_suffix("'s").unwrap_or(&lower).replace('\'', ""))
                };
                match out.last_mut() {
                    Some(tens)
                        if let Some(text) = joined(tens, &plain.text, n.checked_sub(1).map(|b| raw[b].as_str())) =>
                    {
                        *tens = Word { text, long: None };
                    }
                    _ => out.push(plain),
                }
            }
        }
    }
    out
}

/// The last word of a street's name in full: `Main St`, `5th Ave`. Before a name the same letters are a saint's or a
/// doctor's.
fn street(raw: &[String], n: usize) -> Option<&'static str> {
    const STREETS: [(&str, &str); 10] = [
        ("st", "street"),
        ("av", "avenue"),
        ("dr", "drive"),
        ("ln", "lane"),
        ("ct", "court"),
        ("pl", "place"),
        ("sq", "square"),
        ("pkwy", "parkway"),
        ("ter", "terrace"),
        ("cres", "crescent"),
    ];
    let name = raw.get(n.checked_sub(1)?)?;
    let named = name.chars().count() > 1 && name.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit());
    // A number with no ending before it counts: 5 ct.
    let counted = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    let word = raw.get(n).filter(|_| n + 1 == raw.len() && named && !counted)?;
    STREETS.iter().find(|(short, _)| word.eq_ignore_ascii_case(short)).map(|s| s.1)
}

/// True for pairs of alleles, `Aa`, `TTRr`, whose case tells the one from the other.
fn is_genotype(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len().is_multiple_of(2)
        && bytes.len() <= 12
        && bytes.chunks(2).all(|p| p[0].is_ascii_alphabetic() && p[0].eq_ignore_ascii_case(&p[1]))
}

/// Twenty and first are the twenty-first, thirty and two are 32, where the tens are a word.
fn joined(tens: &Word, ones: &str, raw: Option<&str>) -> Option<String> {
    let written = raw.is_some_and(|r| r.chars().all(char::is_alphabetic));
    let [digit, '0'] = tens.text.chars().collect::<Vec<_>>()[..] else { return None };
    let single =
        ones.starts_with(|c: char| ('1'..='9').contains(&c)) && !ones[1..].starts_with(|c: char| c.is_ascii_digit());
    (written && digit > '1' && single).then(|| format!("{digit}{ones}"))
}

/// The number of a Roman numeral in capital letters.
fn roman(word: &str) -> Option<u32> {
    match word {
        "I" => Some(1),
        "V" => Some(5),
        "X" => Some(10),
        word => crate::reward::math::roman(word),
    }
}

/// True for an article; the letter A is none.
pub(super) fn is_article(word: &Word) -> bool {
    word.is(&["the", "a", "an"])
}

/// What counts of a phrase: its words without articles and auxiliary verbs, and whether it says "only".
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) words: Vec<Word>,
    only: bool,
}

pub(super) fn core(words: &[Word]) -> Core {
    let mut only = false;
    let mut kept = Vec::new();
    for (n, word) in words.iter().enumerate() {
        if is_article(word) || (word.is_auxiliary() && words.len() > 1) {
            continue;
        }
        if word.is(&["only"]) && words.len() > 1 {
            only = true;
            continue;
        }
        // "Has increased".
        let done = words.get(n + 1).is_some_and(|w| w.text.ends_with("ed") || w.text.ends_with("en"));
        if word.is(&["has", "have", "had"]) && done {
            continue;
        }
        // A right-angled triangle.
        let angular = n > 0 && words[n - 1].is(&["right", "acute", "obtuse"]);
        let named = words.get(n + 1).is_some_and(|w| w.is(&["triangle", "triangles"]));
        if angular && (word.is(&["angled"]) || (named && word.is(&["angle"]))) {
            continue;
        }
        // To the left, on the right.
        let side = words.get(n + 1).is_some_and(|w| w.is(&["the"]))
            && words.get(n + 2).is_some_and(|w| w.is(&["left", "right"]));
        // The man on the left is no man left.
        if side && (word.is(&["to"]) || word.is(&["on"]) && kept.len() != 1) {
            continue;
        }
        kept.push(word.clone());
    }
    if kept.is_empty() {
        return Core { words: words.to_vec(), only: false };
    }
    shapes::one_way(&mut kept);
    Core { words: kept, only }
}

/// Nouns that stand behind what they are of as well: the speed of light, the light speed.
const MEASURES: [&str; 24] = [
    "speed",
    "velocity",
    "rate",
    "center",
    "conservation",
    "loss",
    "angle",
    "coefficient",
    "force",
    "radius",
    "axis",
    "density",
    "temperature",
    "frequency",
    "heat",
    "production",
    "transfer",
    "pressure",
    "coast",
    "color",
    "price",
    "formation",
    "growth",
    "concentration",
];

impl Core {
    /// The words in a row, for tables.
    pub(super) fn key(&self) -> String {
        let words: Vec<&str> = self.words.iter().map(|w| w.text.as_str()).collect();
        let only = if self.only { "only " } else { "" };
        format!("{only}{}", words.join(" "))
    }

    /// All words as one, a space beside numbers but behind a name of theirs: `nonlinear` and `non-linear`, `ResNet-50`
    /// and `ResNet50`, but `5 K` is no `5k`.
    fn joined(&self) -> String {
        let mut out = String::new();
        let digits = |t: Option<char>| t.is_some_and(|c| c.is_ascii_digit());
        for (n, w) in self.words.iter().enumerate() {
            let named = n > 0 && self.words[n - 1].text.chars().filter(|c| c.is_alphabetic()).count() > 2;
            if digits(out.chars().next_back()) || digits(w.text.chars().next()) && !named {
                out.push(' ');
            }
            out += &w.text;
        }
        out
    }

    /// Whether two phrases have the same words in the same order.
    pub(super) fn same(&self, other: &Core) -> bool {
        if self.only != other.only {
            return false;
        }
        let (a, b) = (&self.words, &other.words);
        if a.len() == 3 && b.len() == 2 || a.len() == 2 && b.len() == 3 {
            let (long, short) = if a.len() == 3 { (a, b) } else { (b, a) };
            if long[1].is(&["of"]) && long[0].is(&MEASURES) && long[0].same(&short[1]) && long[2].same(&short[0]) {
                return true;
            }
        }
        if a.len() == b.len() {
            return a.iter().zip(b).all(|(x, y)| x.same(y));
        }
        // Parted or joined: only letters, and none of them a word that turns the sense.
        let turns = |w: &Word| w.is(&["not", "no", "never", "or", "and"]);
        let whole = |c: &Core| c.words.iter().all(|w| !turns(w) && w.text.chars().all(char::is_alphanumeric));
        whole(self) && whole(other) && alike(&self.joined(), &other.joined())
    }
}
