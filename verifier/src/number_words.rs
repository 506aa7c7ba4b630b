//! Parser for numbers in words: `twenty-five`, `two thirds`, `one hundred and five`, `half`.

use num_bigint::BigInt;

use crate::lexicon::{Kind, look};
use crate::steps::Rational;

/// Returns the multiplier that a word stands for: a power of ten, a score, a dozen or a pair.
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
    let plural = || ordinal_word(word.strip_suffix('s')?);
    number(Kind::Fraction, word).or_else(|| ordinal_word(word).or_else(plural).filter(|n| *n > 2))
}

/// Returns the number of an ordinal: `first`, `twentieth`, `millionth`. The table has those that are not a
/// number word plus `th`, such as `fifth`.
fn ordinal_word(word: &str) -> Option<i64> {
    let tens = || small(&format!("{}y", word.strip_suffix("ieth")?));
    let regular = || {
        let stem = word.strip_suffix("th")?;
        small(stem).or_else(|| scale(stem)?.try_into().ok())
    };
    number(Kind::Ordinal, word).or_else(tens).or_else(regular)
}

/// Returns the number of an ordinal of one or two words.
pub(crate) fn ordinal(word: &str) -> Option<i64> {
    match word.split_once([' ', '-']) {
        Some((tens, ones)) => {
            let tens = small(tens).filter(|n| *n >= 20)?;
            ordinal_word(ones).filter(|n| *n < 10).map(|n| tens + n)
        }
        None => ordinal_word(word),
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
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let Some((number, at)) = cardinal(words, begin) else {
        // The word "half" alone.
        return (word(begin) == "half").then(|| (Rational::new(1.into(), 2.into()), begin + 1));
    };
    // Fractions such as "two thirds".
    let part = part(word(at)).filter(|_| number != BigInt::from(0));
    let used = at + usize::from(part.is_some());
    Some((Rational::new(number, part.unwrap_or(1).into()), used))
}

/// Parses a whole number. Returns the number and the position after it.
fn cardinal(words: &[&str], begin: usize) -> Option<(BigInt, usize)> {
    let zero = BigInt::from(0);
    let (mut total, mut group, mut at, mut any) = (zero.clone(), zero.clone(), begin, false);
    // Size of the last number word. It decides which number below one hundred may follow.
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
    any.then_some((total + group, at))
}
