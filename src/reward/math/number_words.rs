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
/// Denominators in words.
const PARTS: [(&str, i64); 16] = [
    ("half", 2),
    ("third", 3),
    ("quarter", 4),
    ("fourth", 4),
    ("fifth", 5),
    ("sixth", 6),
    ("seventh", 7),
    ("eighth", 8),
    ("ninth", 9),
    ("tenth", 10),
    ("eleventh", 11),
    ("twelfth", 12),
    ("hundredth", 100),
    ("thousandth", 1_000),
    ("twentieth", 20),
    ("millionth", 1_000_000),
];

/// The power of ten, or the dozen, that a word multiplies a number with.
pub(super) fn scale(word: &str) -> Option<i64> {
    Some(match word {
        "hundred" => 100,
        "thousand" => 1_000,
        "lakh" | "lac" => 100_000,
        "million" | "millions" => 1_000_000,
        "crore" => 10_000_000,
        "billion" | "billions" => 1_000_000_000,
        "trillion" | "trillions" => 1_000_000_000_000,
        "dozen" => 12,
        "score" | "scores" => 20,
        "pair" | "pairs" | "couple" => 2,
        "gross" => 144,
        _ => return None,
    })
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
    PARTS.iter().find(|(w, _)| *w == word).map(|p| p.1)
}

/// How many of `words` (lower case) begin a number, and which.
pub(super) fn read(words: &[&str]) -> Option<(Rational, usize)> {
    let negative = matches!(words.first(), Some(&("minus" | "negative")));
    let begin = usize::from(negative);
    let (mut total, mut group, mut at, mut any) = (BigInt::from(0), 0i64, begin, false);
    let mut last = 1_000i64;
    while let Some(&word) = words.get(at) {
        if let Some(n) = small(word) {
            // "twenty five", but not "five twenty".
            let fits = if n >= 10 { last >= 100 } else { last >= 20 || last >= 100 };
            if any && !fits {
                break;
            }
            group += n;
            last = n.max(1);
        } else if let Some(n) = scale(word) {
            if !any && begin == at {
                // "a hundred" comes here as "hundred".
                group = 1;
            }
            if n == 100 {
                group *= 100;
            } else {
                total += BigInt::from(group) * n;
                group = 0;
            }
            last = n;
        } else if word == "and" && any && last >= 100 && words.get(at + 1).is_some_and(|w| small(w).is_some()) {
            at += 1;
            continue;
        } else {
            break;
        }
        any = true;
        at += 1;
    }
    // "two point five": digits behind the point one by one.
    if any && words.get(at) == Some(&"point") {
        let digits = words[at + 1..].iter().map_while(|w| small(w).filter(|n| *n < 10));
        let (mut over, mut value) = (1i64, Rational::from_integer(total.clone() + group));
        for digit in digits.take(15) {
            over *= 10;
            value += Rational::new(digit.into(), over.into());
            at += 1;
        }
        return (over > 1).then(|| (if negative { -value } else { value }, at + 1));
    }
    let sign = |value: Rational| if negative { -value } else { value };
    // "half a dozen".
    if !any
        && let [Some(&"half"), Some(&("a" | "an")), Some(n)] = [words.get(at), words.get(at + 1), words.get(at + 2)]
        && let Some(n) = scale(n)
    {
        return Some((sign(Rational::new(n.into(), 2.into())), at + 3));
    }
    let number = Rational::from_integer(total + group);
    let zero = Rational::from_integer(0.into());
    if let Some(n) = words.get(at).and_then(|w| part(w)) {
        // "two thirds", "a half", "half".
        let over = Rational::new(1.into(), n.into());
        let singular = words[at] == "half" || words[at] == "quarter" || any;
        if singular && number != zero || words[at] == "half" {
            let value = if any { number * over } else { over };
            return Some((sign(value), at + 1));
        }
    }
    // "two and three quarters".
    if any
        && let [Some(&"and"), Some(n), Some(p)] = [words.get(at), words.get(at + 1), words.get(at + 2)]
        && let (Some(n), Some(under)) = (small(n), part(p))
    {
        return Some((sign(number + Rational::new(n.into(), under.into())), at + 3));
    }
    // "two and a half".
    if any
        && let [Some(&"and"), Some(&"a"), Some(p)] = [words.get(at), words.get(at + 1), words.get(at + 2)]
        && let Some(n) = part(p)
    {
        return Some((sign(number + Rational::new(1.into(), n.into())), at + 3));
    }
    any.then(|| (sign(number), at))
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
    if let Some((tens, ones)) = word.split_once(' ') {
        let tens = small(tens).filter(|n| *n >= 20)?;
        return ordinal(ones).filter(|n| *n < 10).map(|n| tens + n);
    }
    NAMES.iter().position(|n| *n == word).map(|n| n as i64 + 1)
}
