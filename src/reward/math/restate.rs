//! Quantities said another way, as notation: `a one-in-six chance`, `1011 base 2`, `40 below zero`, `3 for $1.50`.
//!
//! Each rule keeps the value. They are tried where the texts as they stand are not equal.

use super::numerals::{century, chinese, roman, weekday};
use super::{Rational, foreign, number_words, unit};

/// Longest text that is restated.
const MAX: usize = 120;

/// The text said in other ways; without the text itself.
pub fn restated(text: &str) -> Vec<String> {
    if text.len() > MAX || text.is_empty() {
        return Vec::new();
    }
    let lower = text.to_lowercase();
    let upright = text.replace("\\text{", "").replace("\\mathrm{", "").replace('}', "");
    let upright = if upright.len() < text.len() && !upright.contains('{') { &*upright } else { text };
    let mut out: Vec<String> = [
        based(text),
        named_base(text),
        roman(text),
        chinese(text),
        foreign::number(text).map(|n| n.to_string()),
        weekday(&lower),
        chance(&upright.to_lowercase()),
        price(text),
        below(text),
        mixed(&lower),
        one(&lower),
        scale(&lower),
        odds(&lower),
        short(upright),
        ratio(&lower),
        proportion(text),
        none(&lower),
        dissolved(text),
        range(&lower),
        charge(text),
        uncertain(text),
        identifiers(text),
        times(&lower),
        sides(&lower),
        share(&lower),
        century(text),
        now(text),
        number_words::digits(text),
    ]
    .into_iter()
    .flatten()
    .filter(|t| t != text)
    .collect();
    out.dedup();
    out
}

/// Short Greek letters by name where the text has signs for its products, as programs have: `mu_0*I`.
fn identifiers(text: &str) -> Option<String> {
    if text.contains('\\') || !text.contains('*') {
        return None;
    }
    let bytes = text.as_bytes();
    let letter = |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric());
    let mut out = text.to_owned();
    for name in ["mu", "nu", "xi"] {
        let places: Vec<usize> = text.match_indices(name).map(|m| m.0).collect();
        let whole = |at: usize| !letter(at + 2) && (at == 0 || !letter(at - 1) && bytes[at - 1] != b'_');
        if places.iter().any(|&at| whole(at)) && places.iter().all(|&at| whole(at)) {
            out = out.replace(name, &format!("\\{name} "));
        }
    }
    Some(out.replace(" _", "_"))
}

pub(super) fn whole(word: &str) -> Option<i64> {
    let words: Vec<&str> = word.split([' ', '-']).filter(|w| !w.is_empty()).collect();
    let read = || number_words::read(&words).filter(|r| r.1 == words.len() && r.0.is_integer());
    word.trim().parse().ok().or_else(|| i64::try_from(read()?.0.numer()).ok())
}

pub(super) fn shown(n: &Rational) -> String {
    if n.is_integer() { n.to_string() } else { format!("({n})") }
}

fn is_digits(text: &str, base: u32) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_digit(base))
}

/// `1011 base 2`, `FF in hexadecimal`, `69 in base ten`.
fn based(text: &str) -> Option<String> {
    let plain = text.replace("\\text", "").replace("\\mathrm", "").replace(['{', '}'], "");
    let lower = plain.to_lowercase();
    let at = lower
        .find(" base")
        .or_else(|| lower.find(" (base"))
        .or_else(|| lower.find(" in "))
        .or_else(|| lower.find(" hex"))?;
    let (digits, rest) = (plain[..at].trim(), lower[at..].trim());
    let rest = rest.trim_start_matches("in ").trim_start_matches("the ").trim_start_matches("(").trim_end_matches(')');
    base(rest.trim()).and_then(|b| written(digits.trim_end_matches(" in"), b))
}

/// The base that words name.
fn base(words: &str) -> Option<u32> {
    let words = words.trim_end_matches(" notation").trim_end_matches(" system").trim();
    Some(match words {
        "binary" => 2,
        "ternary" => 3,
        "octal" => 8,
        "decimal" => 10,
        "hex" | "hexadecimal" => 16,
        words => words.strip_prefix("base").and_then(|n| whole(n.trim().trim_start_matches('-')))? as u32,
    })
    .filter(|b| (2..=36).contains(b))
}

fn written(digits: &str, base: u32) -> Option<String> {
    let digits = digits.trim().trim_matches(['(', ')', '#']).trim_start_matches("0x").replace(' ', "");
    is_digits(&digits, base).then(|| if base == 10 { digits } else { in_ten(&digits, base) })?.into()
}

/// The digits of a base with the base as an index.
fn in_ten(digits: &str, base: u32) -> String {
    match u64::from_str_radix(digits, base) {
        // An index behind letters is read as one of a name.
        Ok(n) if digits.starts_with(|c: char| c.is_alphabetic()) => n.to_string(),
        _ => format!("{digits}_{{{base}}}"),
    }
}

/// `binary 1011`, `0b1011`, `BEEF_{16}`, `1011b`, `#FF`.
fn named_base(text: &str) -> Option<String> {
    if let Some((name, digits)) = text.split_once(' ')
        && let Some(b) = base(&name.to_lowercase())
    {
        return written(digits, b);
    }
    let plain = text.replace("\\text", "").replace("\\mathrm", "").replace("\\mathtt", "");
    if let Some((digits, index)) = plain.split_once('_') {
        let b = index.trim_matches(['{', '}', ' ']).parse().ok().filter(|b| (2..=36).contains(b))?;
        let digits = digits.trim_matches(['{', '}', '(', ')', ' ']);
        return (digits.contains(|c: char| c.is_alphabetic()) && is_digits(digits, b))
            .then(|| u64::from_str_radix(digits, b).ok().map(|n| n.to_string()))?;
    }
    let binary = plain.strip_suffix(['b', 'B'])?;
    (binary.len() > 2).then(|| written(binary, 2))?
}

/// `a one-in-six chance`, `1 in 6 chance`, `one chance in six`, `fifty-fifty`.
fn chance(lower: &str) -> Option<String> {
    let mut text = lower.replace(['-', '/'], " ");
    for word in ["a ", "an ", "about "] {
        text = text.strip_prefix(word).unwrap_or(&text).to_owned();
    }
    for word in [" chance of happening", " chances", " chance", " probability", " odds", " shot"] {
        text = text.strip_suffix(word).unwrap_or(&text).to_owned();
    }
    // A 37.5% chance.
    let percent = text.strip_suffix('%').or_else(|| text.strip_suffix(" percent"));
    if text.len() < lower.len() && percent.is_some_and(|n| n.trim_end_matches('\\').parse::<f64>().is_ok()) {
        return Some(text);
    }
    if matches!(text.as_str(), "fifty fifty" | "50 50" | "50% 50%" | "even" | "equal") {
        return Some("1/2".to_owned());
    }
    let text = text
        .replace(" chances in ", " in ")
        .replace(" chance in ", " in ")
        .replace(" chances out of ", " in ")
        .replace(" chance out of ", " in ")
        .replace(" out of ", " in ")
        .replace(" of ", " in ")
        .replace(" in the ", " in ");
    let (over, under) = text.split_once(" in ")?;
    let under = under.trim_start_matches("every ");
    let (over, under) = (whole(over)?, whole(under).filter(|n| *n > 0)?);
    Some(format!("{over}/{under}"))
}

/// Odds as those against: `odds of 3 to 1 against`, `1:3 in favor`.
fn odds(lower: &str) -> Option<String> {
    let text = lower
        .trim_start_matches("the ")
        .trim_start_matches("odds ")
        .trim_start_matches("of ")
        .trim_start_matches("are ");
    let (text, against) =
        [(" against", true), (" in favor", false), (" in favour", false), (" for", false), (" on", false)]
            .iter()
            .find_map(|(end, side)| text.strip_suffix(end).map(|t| (t, *side)))
            .or_else(|| Some((text.strip_prefix("against are ").or_else(|| text.strip_prefix("against: "))?, true)))
            .or_else(|| {
                Some((text.strip_prefix("in favor are ").or_else(|| text.strip_prefix("in favour are "))?, false))
            })?;
    let (a, b) = text.split_once(" to ").or(text.split_once(':')).or(text.split_once('-')).or(text.split_once('/'))?;
    let (a, b) = (whole(a.trim())?, whole(b.trim())?);
    let (a, b) = if against { (a, b) } else { (b, a) };
    (a > 0 && b > 0).then(|| format!("odds {} against", Rational::new(a.into(), b.into())))
}

/// `3 for $1.50`, `3 pens for $1.50` as what one costs.
fn price(text: &str) -> Option<String> {
    let (count, cost) = text.split_once(" for ")?;
    let (count, thing) = count.split_once(' ').unwrap_or((count, ""));
    let count = whole(count).filter(|n| *n > 0)?;
    let amount = cost.trim_start_matches(['\\', '$', '\u{20ac}', '\u{a3}']);
    let money = amount.len() < cost.len() && amount.chars().all(|c| c.is_ascii_digit() || c == '.');
    let per = if thing.is_empty() { String::new() } else { format!(" per {}", unit::singular(thing)) };
    money.then(|| format!("\\${amount}/{count}{per}"))
}

/// `2k`, `$5 mn`, `1.5 bn`: short for powers of ten.
fn short(text: &str) -> Option<String> {
    const SHORT: [(&str, &str); 8] = [
        ("bn", "billion"),
        ("mn", "million"),
        ("tn", "trillion"),
        ("mil", "million"),
        ("k", "thousand"),
        ("K", "thousand"),
        ("M", "million"),
        ("B", "billion"),
    ];
    let (number, scale) = SHORT.iter().find_map(|(end, word)| Some((text.strip_suffix(end)?, *word)))?;
    // Behind a space one letter is a unit: 5 K, 2 M.
    let one = text.len() == number.len() + 1;
    let number = if one { number } else { number.trim() };
    let digits = number.trim_start_matches(['\\', '$', '\u{20ac}', '\u{a3}']);
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ','));
    plain.then(|| format!("{number} {scale}"))
}

/// `a ratio of 5 to 1`, `5:1 ratio`, `3 parts to 5 parts`.
fn ratio(lower: &str) -> Option<String> {
    let text = lower.trim_start_matches("a ").trim_start_matches("the ");
    let inner =
        text.strip_prefix("ratio of ").or_else(|| text.strip_prefix("ratio ")).or_else(|| text.strip_suffix(" ratio"));
    let parts = || text.contains(" parts").then(|| text.replace(" parts", "").replace(" part", ""));
    inner.map(str::to_owned).or_else(parts)
}

/// "asymptotes: none", "it has no asymptotes" as "no asymptotes".
fn none(lower: &str) -> Option<String> {
    const BEFORE: [&str; 6] =
        ["there are no ", "there is no ", "it has no ", "has no ", "the graph has no ", "the function has no "];
    let what =
        [": none", " none", ": n/a", " do not exist", " does not exist"].iter().find_map(|end| lower.strip_suffix(end));
    let what = what.or_else(|| BEFORE.iter().find_map(|w| lower.strip_prefix(w)))?;
    let plain = |c: char| c.is_alphabetic() || matches!(c, '-' | ' ');
    (!what.is_empty() && what.chars().all(plain)).then(|| format!("no {}", what.trim_start_matches("the ")))
}

/// `a 0.5 M solution` as its concentration.
fn dissolved(text: &str) -> Option<String> {
    let text = text.trim_start_matches("a ").trim_start_matches("an ");
    let (number, unit) = text.strip_suffix(" solution")?.split_once([' ', '-'])?;
    let known = matches!(unit, "M" | "mM" | "molar" | "mol/L" | "mmol/L");
    (known && number.parse::<f64>().is_ok()).then(|| format!("{number} {unit}"))
}

/// `a:b = 7:3` as an equation of two quotients.
fn proportion(text: &str) -> Option<String> {
    let plain = text.replace("\\colon", ":").replace(" to ", ":").replace(" is ", " = ");
    let (left, right) = plain.split_once('=')?;
    let quotient = |side: &str| {
        let (over, under) = side.split_once(':')?;
        let (over, under) = (over.trim(), under.trim());
        let part = |t: &str| !t.is_empty() && !t.contains([':', '=', ',']);
        (part(over) && part(under)).then(|| format!("\\frac{{{over}}}{{{under}}}"))
    };
    Some(format!("{} = {}", quotient(left)?, quotient(right)?))
}

/// `3-5 m`, `between 3 and 5 m`, with the unit at both ends.
fn range(lower: &str) -> Option<String> {
    let text = lower.trim_start_matches("from ").replace(['\u{2013}', '\u{2014}'], "-");
    let (a, rest) = match text.strip_prefix("between ") {
        Some(inner) => inner.split_once(" and ")?,
        None => text.split_once(" to ").or_else(|| text.split_once('-'))?,
    };
    let number = |t: &str| t.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    let (b, what) = rest.trim().split_once(' ')?;
    (number(a)? < number(b)? && unit::known(what)).then(|| format!("{} {what} to {b} {what}", a.trim()))
}

/// `12 cm \u{b1} 0.5 cm` with one unit behind both, and `5.67(3)` with its uncertainty written out.
fn uncertain(text: &str) -> Option<String> {
    let text = text.replace("\u{b1}", "\\pm").replace("+/-", "\\pm");
    if let Some((value, off)) = text.split_once("\\pm") {
        let (value, what) = value.trim().split_once(' ')?;
        let off = off.trim().strip_suffix(what.trim())?.trim();
        return Some(format!("({value} \\pm {off}) {}", what.trim()));
    }
    let (value, rest) = text.split_once('(')?;
    let (digits, unit) = rest.split_once(')')?;
    let (whole, decimals) = value.split_once('.')?;
    let plain = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole.trim_start_matches('-')) || !plain(decimals) || !plain(digits) || digits.len() > 2 {
        return None;
    }
    let off = Rational::new(digits.parse().ok()?, num_bigint::BigInt::from(10).pow(decimals.len() as u32));
    Some(format!("({value} \\pm {}) {}", shown(&off), unit.trim()).trim().to_owned())
}

/// `twice a week`, `threefold`, `a factor of 4`, `doubles`, `10 times as many`: so many times.
fn times(lower: &str) -> Option<String> {
    const WORDS: [(&str, i64); 14] = [
        ("once", 1),
        ("twice", 2),
        ("thrice", 3),
        ("double", 2),
        ("doubles", 2),
        ("doubled", 2),
        ("triple", 3),
        ("triples", 3),
        ("tripled", 3),
        ("quadruple", 4),
        ("quadruples", 4),
        ("quadrupled", 4),
        ("twofold", 2),
        ("threefold", 3),
    ];
    if let Some(rest) = lower.strip_suffix(" p.a.").or_else(|| lower.strip_suffix(" p.a")) {
        return Some(format!("{rest} per year"));
    }
    let (first, rest) = lower.split_once(' ').unwrap_or((lower, ""));
    if let Some((_, n)) = WORDS.iter().find(|w| w.0 == first)
        && (rest.is_empty() || ["a ", "an ", "per ", "every ", "daily", "weekly"].iter().any(|w| rest.starts_with(w)))
    {
        return Some(format!("{n} times {rest}").trim().to_owned());
    }
    for by in
        ["increases by a factor of ", "increased by a factor of ", "by a factor of ", "a factor of ", "factor of "]
    {
        if let Some(n) = lower.strip_prefix(by).and_then(whole) {
            return Some(format!("{n} times"));
        }
    }
    if let Some(n) = lower.strip_suffix("-fold").or_else(|| lower.strip_suffix("fold")).and_then(whole) {
        return Some(format!("{n} times"));
    }
    let rest = [" as many", " as much", " as large", " as big", " as long", " as fast", " larger"]
        .iter()
        .find_map(|end| lower.strip_suffix(end))?;
    rest.ends_with(" times").then(|| rest.to_owned())
}

/// `6 m by 4 m`, `2 × 3 cm`: the sides in the order of their sizes, with their unit.
fn sides(lower: &str) -> Option<String> {
    let text = lower.replace("\\times", " by ").replace(['\u{d7}', '*'], " by ").replace(" x ", " by ");
    let parts: Vec<&str> = text.split(" by ").map(str::trim).collect();
    let split = |t: &str| {
        let at = t.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(t.len());
        let super::expr::Expr::Num { value, .. } = super::numeral::number(&t[..at])? else { return None };
        Some((value, t[at..].trim().trim_matches(['\\', ',', ' ']).to_owned()))
    };
    let read: Vec<(Rational, String)> = parts
        .iter()
        .filter(|p| p.starts_with(|c: char| c.is_ascii_digit()))
        .map(|p| split(p))
        .collect::<Option<_>>()?;
    let what = read.last()?.1.clone();
    if !(2..=3).contains(&parts.len()) || read.len() != parts.len() || what.is_empty() {
        return None;
    }
    // One unit may stand for all.
    let metre = unit::readings("m")?.into_iter().next()?;
    let mut sizes = Vec::new();
    for (n, own) in &read {
        let own = if own.is_empty() { &what } else { own };
        let unit = unit::readings(own)?.into_iter().next().filter(|u| u.is_like(&metre))?;
        sizes.push(n * &unit.size);
    }
    sizes.sort();
    Some(format!("sides {}", sizes.iter().map(Rational::to_string).collect::<Vec<_>>().join(" by ")))
}

/// `oxidation state +3`.
fn charge(text: &str) -> Option<String> {
    const NAMES: [&str; 5] = ["oxidation state of ", "oxidation state ", "oxidation number ", "charge of ", "charge "];
    NAMES.iter().find_map(|p| text.strip_prefix(p)).map(str::to_owned)
}

/// `10% of 50`.
fn share(lower: &str) -> Option<String> {
    let (percent, of) = lower.split_once(" of ")?;
    let percent = percent
        .strip_suffix("\\%")
        .or_else(|| percent.strip_suffix('%'))
        .or_else(|| percent.strip_suffix(" percent"))?;
    let number = |t: &str| t.parse::<f64>().is_ok_and(f64::is_finite);
    let (amount, what) = of.split_once(' ').unwrap_or((of, ""));
    (number(percent) && number(amount)).then(|| format!("{percent}/100 * {amount} {what}").trim().to_owned())
}

/// `5 °C below zero`.
fn below(text: &str) -> Option<String> {
    let amount = [" below zero", " below 0"].iter().find_map(|end| text.strip_suffix(end))?;
    let bare = amount.strip_suffix(" degrees").or(amount.strip_suffix(" degree")).unwrap_or(amount);
    if bare.starts_with('-') {
        return None;
    }
    let number = whole(bare).map(|n| n.to_string());
    Some(format!("-{}", number.as_deref().unwrap_or(bare)))
}

/// `2 and a half`, `2 and 1/2 hours`.
fn mixed(lower: &str) -> Option<String> {
    let (whole_part, rest) = lower.split_once(" and ")?;
    let n: i64 = whole_part.trim().parse().ok()?;
    let words: Vec<&str> = rest.split([' ', '-']).collect();
    if let Some((over, under)) = words[0].split_once('/') {
        let (over, under): (i64, i64) = (over.parse().ok()?, under.parse().ok()?);
        return (over < under).then(|| format!("{n} {over}/{under} {}", words[1..].join(" ")).trim().to_owned());
    }
    let over = if matches!(words[0], "a" | "an") { 1 } else { whole(words[0])? };
    let under = number_words::part(words.get(1)?)?;
    (over < under).then(|| format!("{n} {over}/{under} {}", words[2..].join(" ")).trim().to_owned())
}

/// `a day`, `an hour`, `a quarter hour`, `a quarter million`.
fn one(lower: &str) -> Option<String> {
    let rest = lower.strip_prefix("a ").or_else(|| lower.strip_prefix("an ")).or_else(|| lower.strip_prefix("one "))?;
    if unit::known(rest) {
        return Some(format!("1 {rest}"));
    }
    let (share, what) = rest.split_once([' ', '-'])?;
    let n = number_words::part(share)?;
    let what = what.trim_start_matches("of a ").trim_start_matches("of an ");
    if let Some((by, rest)) = what
        .split_once(' ')
        .map_or(number_words::scale(what).map(|s| (s, "")), |(w, r)| number_words::scale(w).map(|s| (s, r)))
    {
        return Some(format!("{} {rest}", shown(&Rational::new(by, n.into()))).trim().to_owned());
    }
    unit::known(what).then(|| format!("1/{n} {what}"))
}

/// A scale of lengths: `1 cm represents 250 m`.
fn scale(lower: &str) -> Option<String> {
    let (a, b) = [" represents ", " represent ", " stands for ", " corresponds to ", " equals ", " = "]
        .iter()
        .find_map(|w| lower.split_once(w))?;
    let unit = |t: &str| t.trim().starts_with(|c: char| c.is_ascii_digit()) && t.contains(|c: char| c.is_alphabetic());
    (unit(a) && unit(b)).then(|| format!("{a} : {b}"))
}

/// `eight now`, `aged 8`, `8 years of age`.
fn now(text: &str) -> Option<String> {
    const BEHIND: [&str; 10] = [
        " now",
        " today",
        " currently",
        " at present",
        " altogether",
        " in total",
        " in all",
        " old",
        " place",
        " position",
    ];
    const BEFORE: [&str; 10] = [
        "aged ",
        "in the year ",
        "in ",
        "age ",
        "a total of ",
        "now ",
        "converges to ",
        "tends to ",
        "approaches ",
        "diverges to ",
    ];
    if let Some(rest) = text.strip_suffix(" of age") {
        return Some(rest.to_owned());
    }
    let rest = BEHIND
        .iter()
        .find_map(|w| text.strip_suffix(w))
        .or_else(|| BEFORE.iter().find_map(|w| text.strip_prefix(w)))?;
    (!rest.trim().is_empty()).then(|| rest.trim().to_owned())
}
