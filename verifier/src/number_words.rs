//! Parser for numbers in words: `twenty-five`, `two thirds`, `one hundred and five`, `half`.

use num_bigint::BigInt;

use crate::lexicon::{Kind, look};
use crate::steps::Rational;

/// Returns the multiplier that a word stands for: a power of ten, a score or a dozen.
pub(crate) fn scale(word: &str) -> Option<BigInt> {
    let (n, power) = look(Kind::Scale, word).map(|n| n.split_once('e').unwrap_or((n, "0")))?;
    Some(n.parse::<BigInt>().ok()? * BigInt::from(10).pow(power.parse().ok()?))
}

/// Returns the number that a word of the given kind stands for.
fn number(kind: Kind, word: &str) -> Option<i64> {
    look(kind, word)?.parse().ok()
}

/// Returns the value of a word for a number below one hundred.
pub(crate) fn small(word: &str) -> Option<i64> {
    number(Kind::Cardinal, word)
}

/// Returns the denominator that a word names, in the singular or the plural.
pub(crate) fn part(word: &str) -> Option<i64> {
    number(Kind::Fraction, word).or_else(|| number(Kind::Ordinal, word).filter(|n| *n > 2))
}

/// Returns the number of an ordinal of one or two words.
pub(crate) fn ordinal(word: &str) -> Option<i64> {
    let one = |w: &str| number(Kind::Ordinal, w);
    match word.split_once([' ', '-']) {
        Some((tens, ones)) => {
            let tens = small(tens).filter(|n| *n >= 20)?;
            one(ones).filter(|n| *n < 10).map(|n| tens + n)
        }
        None => one(word),
    }
}

/// Parses the number at the beginning of `words` (lower case). Returns its value and the number of words used.
pub(crate) fn read(words: &[&str]) -> Option<(Rational, usize)> {
    let negative = matches!(words.first(), Some(&("minus" | "negative")));
    let begin = usize::from(negative);
    let (value, at) = unsigned(words, begin)?;
    Some((if negative { -value } else { value }, at))
}

fn unsigned(words: &[&str], begin: usize) -> Option<(Rational, usize)> {
    let whole = |n: i64| Rational::from_integer(n.into());
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let Some((number, mut at, unit)) = cardinal(words, begin) else {
        // The word "half" alone.
        return (word(begin) == "half").then(|| (Rational::new(1.into(), 2.into()), begin + 1));
    };
    let mut value = Rational::from_integer(number.clone());
    // "two point five": the words after "point" are single digits.
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
    } else if let Some(n) = part(word(at)).filter(|_| number != BigInt::from(0)) {
        // Fractions such as "two thirds".
        value /= whole(n);
        at += 1;
    } else if word(at) == "and" {
        // Mixed numbers such as "two and a half" and "two and three quarters". "A million and a half" adds half a
        // million.
        let over = match word(at + 1) {
            "a" | "an" => 1,
            w => small(w).filter(|n| *n < 20).unwrap_or(0),
        };
        if let Some(n) = part(word(at + 2)).filter(|_| over > 0) {
            value += Rational::new(over.into(), n.into()) * Rational::from_integer(unit);
            at += 3;
        }
    }
    // A scale after a fraction: "two and a half million", "three quarters of a million".
    if !value.is_integer() || !word(at).is_empty() {
        let skip = if word(at) == "of" && word(at + 1) == "a" { 2 } else { 0 };
        if let Some(n) = scale(word(at + skip)).filter(|_| !value.is_integer()) {
            value *= Rational::from_integer(n);
            at += skip + 1;
        }
    }
    Some((value, at))
}

/// Parses a whole number. Returns the number, the position after it, and the unit that a following "and a half" refers
/// to.
fn cardinal(words: &[&str], begin: usize) -> Option<(BigInt, usize, BigInt)> {
    let zero = BigInt::from(0);
    let (mut total, mut group, mut at, mut any) = (zero.clone(), zero.clone(), begin, false);
    // Size of the last number word. Only smaller numbers may follow it.
    let mut last = BigInt::from(1_000);
    while let Some(&word) = words.get(at) {
        if let Some(n) = small(word) {
            // "twenty five" is one number, "five twenty" is not.
            let fits = if n >= 10 { last >= BigInt::from(100) } else { last >= BigInt::from(20) };
            if any && !fits {
                break;
            }
            group += n;
            last = BigInt::from(n.max(1));
        } else if let Some(n) = scale(word) {
            if !any {
                // The caller has removed the article of "a hundred".
                group = BigInt::from(1);
            }
            if n == BigInt::from(100) {
                group *= &n;
            } else if group == zero {
                // Two scales in a row, such as "a thousand million".
                total *= &n;
            } else {
                total += group * &n;
                group = zero.clone();
            }
            last = n;
        } else if word == "and"
            && any
            // Accepts "two hundred and one" and "four score and seven".
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
