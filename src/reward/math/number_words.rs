//! Numbers in words: `twenty-five`, `two thirds`, `one hundred and five`, `half`.

use num_bigint::BigInt;

use super::Rational;

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
/// Denominators in words that are no ordinals, and those of one word above twenty.
const PARTS: [(&str, i64); 12] = [
    ("half", 2),
    ("quarter", 4),
    ("thirtieth", 30),
    ("fortieth", 40),
    ("fiftieth", 50),
    ("sixtieth", 60),
    ("hundredth", 100),
    ("thousandth", 1_000),
    ("millionth", 1_000_000),
    ("billionth", 1_000_000_000),
    ("trillionth", 1_000_000_000_000),
    ("quadrillionth", 1_000_000_000_000_000),
];
/// Powers of ten by their names, from a thousand upwards, in the short scale.
const SCALES: [&str; 12] = [
    "thousand",
    "million",
    "billion",
    "trillion",
    "quadrillion",
    "quintillion",
    "sextillion",
    "septillion",
    "octillion",
    "nonillion",
    "decillion",
    "undecillion",
];

/// The power of ten, or the dozen, that a word multiplies a number with.
pub(super) fn scale(word: &str) -> Option<BigInt> {
    let one = word.strip_suffix('s').filter(|w| w.len() > 4).unwrap_or(word);
    if let Some(n) = SCALES.iter().position(|w| *w == one) {
        return Some(BigInt::from(1_000).pow(n as u32 + 1));
    }
    Some(BigInt::from(match one {
        "hundred" => 100,
        "grand" => 1_000,
        "lakh" | "lac" => 100_000,
        "crore" => 10_000_000,
        "milliard" => 1_000_000_000,
        "dozen" => 12,
        "score" => 20,
        "pair" | "couple" => 2,
        "gross" => 144,
        "googol" => return Some(BigInt::from(10).pow(100)),
        _ => return None,
    }))
}

pub(in crate::reward) fn small(word: &str) -> Option<i64> {
    if let Some(n) = SMALL.iter().position(|w| *w == word) {
        return Some(n as i64);
    }
    if let Some(n) = TENS.iter().position(|w| !w.is_empty() && *w == word) {
        return Some(n as i64 * 10);
    }
    match word {
        "fourty" => Some(40),
        "nil" | "nought" => Some(0),
        _ => None,
    }
}

/// The denominator a word names, in singular or plural.
pub(super) fn part(word: &str) -> Option<i64> {
    let word = match word {
        "halves" => "half",
        w => w.strip_suffix('s').unwrap_or(w),
    };
    let known = PARTS.iter().find(|(w, _)| *w == word).map(|p| p.1);
    known.or_else(|| ordinal(word).filter(|n| *n > 2))
}

/// True for a word of numbers: twenty, million, eighths.
pub fn is_number(word: &str) -> bool {
    small(word).is_some() || scale(word).is_some() || (word.ends_with('s') && part(word).is_some())
}

/// The denominator that one or two of `words` name: thirds, twenty-fifths, ten-thousandths.
fn parts(words: &[&str]) -> Option<(i64, usize)> {
    if let [first, second, ..] = words {
        let ones = part(second).filter(|n| *n < 10 && *n > 2);
        if let (Some(tens), Some(ones)) = (small(first).filter(|n| *n >= 20 && n % 10 == 0), ones) {
            return Some((tens + ones, 2));
        }
        let tens = match *first {
            "ten" => 10,
            "hundred" => 100,
            _ => 0,
        };
        if let Some(n) = part(second).filter(|n| *n >= 1_000 && tens > 0) {
            return Some((tens * n, 2));
        }
    }
    part(words.first()?).map(|n| (n, 1))
}

/// How many of `words` (lower case) begin a number, and which.
pub(super) fn read(words: &[&str]) -> Option<(Rational, usize)> {
    let negative = matches!(words.first(), Some(&("minus" | "negative")));
    let begin = usize::from(negative);
    let (value, at) = unsigned(words, begin)?;
    Some((if negative { -value } else { value }, at))
}

fn unsigned(words: &[&str], begin: usize) -> Option<(Rational, usize)> {
    let whole = |n: i64| Rational::from_integer(n.into());
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    // "half a dozen", "half a million".
    if word(begin) == "half"
        && matches!(word(begin + 1), "a" | "an")
        && let Some(n) = scale(word(begin + 2))
    {
        return Some((Rational::new(n, 2.into()), begin + 3));
    }
    let Some((number, mut at, unit)) = cardinal(words, begin) else {
        // "half" by itself.
        return (word(begin) == "half").then(|| (Rational::new(1.into(), 2.into()), begin + 1));
    };
    let mut value = Rational::from_integer(number.clone());
    // "two point five": digits behind the point one by one.
    if word(at) == "point" {
        let digits = words[at + 1..].iter().map_while(|w| small(w).filter(|n| *n < 10));
        let mut over = 1i64;
        for digit in digits.take(15) {
            over *= 10;
            value += Rational::new(digit.into(), over.into());
            at += 1;
        }
        if over == 1 {
            return None;
        }
        at += 1;
    } else if let Some((n, used)) = parts(&words[at.min(words.len())..])
        && number != BigInt::from(0)
    {
        // "two thirds".
        value /= whole(n);
        at += used;
    } else if word(at) == "and" {
        // "two and a half", "two and three quarters"; a million and a half are half a million more.
        let (over, used) = match word(at + 1) {
            "a" | "an" => (1, 2),
            w => (small(w).filter(|n| *n < 20).unwrap_or(0), 2),
        };
        let named = over > 0 && at + used < words.len();
        if let Some((n, length)) = parts(words.get(at + used..).unwrap_or_default()).filter(|_| named) {
            value += Rational::new(over.into(), n.into()) * Rational::from_integer(unit);
            at += used + length;
        }
    }
    // "two and a half million", "three quarters of a million".
    if !value.is_integer() || !word(at).is_empty() {
        let skip = if word(at) == "of" && word(at + 1) == "a" { 2 } else { 0 };
        if let Some(n) = scale(word(at + skip)).filter(|_| !value.is_integer()) {
            value *= Rational::from_integer(n);
            at += skip + 1;
        }
    }
    Some((value, at))
}

/// A whole number, where it ends, and what "and a half" behind it is half of.
fn cardinal(words: &[&str], begin: usize) -> Option<(BigInt, usize, BigInt)> {
    let zero = BigInt::from(0);
    let (mut total, mut group, mut at, mut any) = (zero.clone(), zero.clone(), begin, false);
    // The size of what was said last: smaller numbers may follow it.
    let mut last = BigInt::from(1_000);
    while let Some(&word) = words.get(at) {
        if let Some(n) = small(word) {
            // "twenty five", but not "five twenty".
            let fits = if n >= 10 { last >= BigInt::from(100) } else { last >= BigInt::from(20) };
            // The years: nineteen eighty-four.
            let century = any && at == begin + 1 && group >= BigInt::from(11) && group <= BigInt::from(20) && n >= 10;
            if any && !fits && !century {
                break;
            }
            if century {
                group *= 100;
            }
            group += n;
            last = BigInt::from(n.max(1));
        } else if word == "oh"
            && at == begin + 1
            && group >= BigInt::from(11)
            && words.get(at + 1).is_some_and(|w| small(w).is_some())
        {
            group *= 100;
            last = BigInt::from(100);
        } else if let Some(n) = scale(word) {
            if !any {
                // "a hundred" comes here as "hundred".
                group = BigInt::from(1);
            }
            if n == BigInt::from(100) {
                group *= &n;
            } else if group == zero {
                // A thousand million.
                total *= &n;
            } else {
                total += group * &n;
                group = zero.clone();
            }
            last = n;
        } else if word == "and"
            && any
            // Two hundred and one, four score and seven.
            && (last >= BigInt::from(100) || (group == zero && total != zero))
            && words.get(at + 1).is_some_and(|w| small(w).is_some())
            && words.get(at + 2).is_none_or(|w| part(w).is_none())
        {
            at += 1;
            continue;
        } else {
            break;
        }
        any = true;
        at += 1;
    }
    let counted = group == zero && (last == BigInt::from(12) || last >= BigInt::from(1_000_000));
    let unit = if counted { last } else { BigInt::from(1) };
    any.then_some((total + group, at, unit))
}

/// The text with its numbers in words as digits, and "to the fifth power" as an exponent; `None` without such.
pub(super) fn digits(text: &str) -> Option<String> {
    if text.len() > 300 || text.contains('\\') {
        return None;
    }
    let spaced = text.replace('-', " ");
    let lower = spaced.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let (mut out, mut at, mut found) = (Vec::new(), 0, false);
    while at < words.len() {
        if words[at] == "to" && words.get(at + 1) == Some(&"the") {
            let negative = matches!(words.get(at + 2), Some(&("minus" | "negative")));
            let place = at + 2 + usize::from(negative);
            let word = words.get(place).copied().unwrap_or_default();
            let power = words.get(place + 1) == Some(&"power");
            let number = ordinal(word)
                .or_else(|| ["th", "st", "nd", "rd"].iter().find_map(|e| word.strip_suffix(e)?.parse().ok()))
                .or_else(|| small(word).filter(|_| negative || power))
                .or_else(|| word.parse().ok().filter(|_| negative || power));
            if let Some(n) = number {
                out.push(format!("^{{{}{n}}}", if negative { "-" } else { "" }));
                at = place + 1 + usize::from(power);
                found = true;
                continue;
            }
        }
        match read(&words[at..]).filter(|(_, used)| *used > 0) {
            Some((n, used)) => {
                out.push(if n.is_integer() && n >= Rational::from_integer(0.into()) {
                    n.to_string()
                } else {
                    format!("({n})")
                });
                at += used;
                found = true;
            }
            None => {
                out.push(words[at].to_owned());
                at += 1;
            }
        }
    }
    found.then(|| out.join(" "))
}

/// The number of an ordinal.
pub(in crate::reward) fn ordinal(word: &str) -> Option<i64> {
    const NAMES: [&str; 20] = [
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "eleventh",
        "twelfth",
        "thirteenth",
        "fourteenth",
        "fifteenth",
        "sixteenth",
        "seventeenth",
        "eighteenth",
        "nineteenth",
        "twentieth",
    ];
    if let Some((tens, ones)) = word.split_once([' ', '-']) {
        let tens = small(tens).filter(|n| *n >= 20)?;
        return ordinal(ones).filter(|n| *n < 10).map(|n| tens + n);
    }
    NAMES.iter().position(|n| *n == word).map(|n| n as i64 + 1)
}
