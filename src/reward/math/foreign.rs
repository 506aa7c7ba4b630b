//! Numbers in the words of other languages: `quatre-vingt-dix-sept`, `siebenundneunzig`, Chinese numerals.

use super::Rational;

/// Words of one language and their values; joints between words count nothing.
type Words = &'static [(&'static str, u64)];

const FRENCH: Words = &[
    ("zero", 0),
    ("un", 1),
    ("une", 1),
    ("deux", 2),
    ("trois", 3),
    ("quatre", 4),
    ("cinq", 5),
    ("six", 6),
    ("sept", 7),
    ("huit", 8),
    ("neuf", 9),
    ("dix", 10),
    ("onze", 11),
    ("douze", 12),
    ("treize", 13),
    ("quatorze", 14),
    ("quinze", 15),
    ("seize", 16),
    ("vingt", 20),
    ("vingts", 20),
    ("trente", 30),
    ("quarante", 40),
    ("cinquante", 50),
    ("soixante", 60),
    ("septante", 70),
    ("quatrevingt", 80),
    ("quatrevingts", 80),
    ("huitante", 80),
    ("nonante", 90),
    ("cent", 100),
    ("cents", 100),
    ("mille", 1_000),
    ("million", 1_000_000),
    ("millions", 1_000_000),
    ("milliard", 1_000_000_000),
    ("milliards", 1_000_000_000),
    ("et", u64::MAX),
    ("de", u64::MAX),
];
const GERMAN: Words = &[
    ("null", 0),
    ("ein", 1),
    ("eins", 1),
    ("eine", 1),
    ("zwei", 2),
    ("drei", 3),
    ("vier", 4),
    ("funf", 5),
    ("sechs", 6),
    ("sieben", 7),
    ("acht", 8),
    ("neun", 9),
    ("zehn", 10),
    ("elf", 11),
    ("zwolf", 12),
    ("sechzehn", 16),
    ("siebzehn", 17),
    ("zwanzig", 20),
    ("dreissig", 30),
    ("vierzig", 40),
    ("funfzig", 50),
    ("sechzig", 60),
    ("siebzig", 70),
    ("achtzig", 80),
    ("neunzig", 90),
    ("hundert", 100),
    ("tausend", 1_000),
    ("million", 1_000_000),
    ("millionen", 1_000_000),
    ("milliarde", 1_000_000_000),
    ("milliarden", 1_000_000_000),
    ("und", u64::MAX),
];
const SPANISH: Words = &[
    ("cero", 0),
    ("un", 1),
    ("uno", 1),
    ("una", 1),
    ("dos", 2),
    ("tres", 3),
    ("cuatro", 4),
    ("cinco", 5),
    ("seis", 6),
    ("siete", 7),
    ("ocho", 8),
    ("nueve", 9),
    ("diez", 10),
    ("once", 11),
    ("doce", 12),
    ("trece", 13),
    ("catorce", 14),
    ("quince", 15),
    ("dieci", 10),
    ("veinte", 20),
    ("veinti", 20),
    ("treinta", 30),
    ("cuarenta", 40),
    ("cincuenta", 50),
    ("sesenta", 60),
    ("setenta", 70),
    ("ochenta", 80),
    ("noventa", 90),
    ("cien", 100),
    ("ciento", 100),
    ("doscientos", 200),
    ("trescientos", 300),
    ("cuatrocientos", 400),
    ("quinientos", 500),
    ("seiscientos", 600),
    ("setecientos", 700),
    ("ochocientos", 800),
    ("novecientos", 900),
    ("mil", 1_000),
    ("millon", 1_000_000),
    ("millones", 1_000_000),
    ("y", u64::MAX),
];
const ITALIAN: Words = &[
    ("zero", 0),
    ("un", 1),
    ("uno", 1),
    ("una", 1),
    ("due", 2),
    ("tre", 3),
    ("quattro", 4),
    ("cinque", 5),
    ("sei", 6),
    ("sette", 7),
    ("otto", 8),
    ("nove", 9),
    ("dieci", 10),
    ("undici", 11),
    ("dodici", 12),
    ("tredici", 13),
    ("quattordici", 14),
    ("quindici", 15),
    ("sedici", 16),
    ("diciassette", 17),
    ("diciotto", 18),
    ("diciannove", 19),
    ("venti", 20),
    ("vent", 20),
    ("trenta", 30),
    ("trent", 30),
    ("quaranta", 40),
    ("quarant", 40),
    ("cinquanta", 50),
    ("cinquant", 50),
    ("sessanta", 60),
    ("sessant", 60),
    ("settanta", 70),
    ("settant", 70),
    ("ottanta", 80),
    ("ottant", 80),
    ("novanta", 90),
    ("novant", 90),
    ("cento", 100),
    ("mille", 1_000),
    ("mila", 1_000),
    ("milione", 1_000_000),
    ("milioni", 1_000_000),
    ("miliardo", 1_000_000_000),
    ("e", u64::MAX),
];
const PORTUGUESE: Words = &[
    ("zero", 0),
    ("um", 1),
    ("uma", 1),
    ("dois", 2),
    ("duas", 2),
    ("tres", 3),
    ("quatro", 4),
    ("cinco", 5),
    ("seis", 6),
    ("sete", 7),
    ("oito", 8),
    ("nove", 9),
    ("dez", 10),
    ("onze", 11),
    ("doze", 12),
    ("treze", 13),
    ("catorze", 14),
    ("quatorze", 14),
    ("quinze", 15),
    ("dezesseis", 16),
    ("dezasseis", 16),
    ("dezessete", 17),
    ("dezoito", 18),
    ("dezenove", 19),
    ("vinte", 20),
    ("trinta", 30),
    ("quarenta", 40),
    ("cinquenta", 50),
    ("sessenta", 60),
    ("setenta", 70),
    ("oitenta", 80),
    ("noventa", 90),
    ("cem", 100),
    ("cento", 100),
    ("duzentos", 200),
    ("trezentos", 300),
    ("quatrocentos", 400),
    ("quinhentos", 500),
    ("seiscentos", 600),
    ("setecentos", 700),
    ("oitocentos", 800),
    ("novecentos", 900),
    ("mil", 1_000),
    ("milhao", 1_000_000),
    ("milhoes", 1_000_000),
    ("e", u64::MAX),
];

/// Chinese digits, then the signs that multiply.
const DIGITS: &str = "\u{3007}\u{4e00}\u{4e8c}\u{4e09}\u{56db}\u{4e94}\u{516d}\u{4e03}\u{516b}\u{4e5d}";
const TENS: [(char, u64); 4] = [('\u{5341}', 10), ('\u{767e}', 100), ('\u{5343}', 1_000), ('\u{5eff}', 20)];
const MYRIADS: [(char, u64); 7] = [
    ('\u{4e07}', 10_000),
    ('\u{842c}', 10_000),
    ('\u{b9cc}', 10_000),
    ('\u{4ebf}', 100_000_000),
    ('\u{5104}', 100_000_000),
    ('\u{c5b5}', 100_000_000),
    ('\u{5146}', 1_000_000_000_000),
];

/// The whole number that all of `text` says in French, German, Spanish, Italian or Portuguese.
pub(super) fn number(text: &str) -> Option<u64> {
    if text.len() > 120 || !text.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '-')) {
        return None;
    }
    let folded = super::unit::folded(text).replace('\u{df}', "ss").replace(' ', "");
    [FRENCH, GERMAN, SPANISH, ITALIAN, PORTUGUESE].into_iter().find_map(|words| value(&segments(&folded, words, 0)?))
}

/// The text as words, the longest first.
fn segments(text: &str, words: Words, depth: usize) -> Option<Vec<u64>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    if depth > 16 {
        return None;
    }
    let mut fitting: Vec<_> = words.iter().filter(|w| text.starts_with(w.0)).collect();
    fitting.sort_by_key(|w| std::cmp::Reverse(w.0.len()));
    fitting.into_iter().find_map(|(word, n)| {
        let mut rest = segments(&text[word.len()..], words, depth + 1)?;
        rest.insert(0, *n);
        Some(rest)
    })
}

/// Sums below a hundred, times the powers of ten that follow.
fn value(parts: &[u64]) -> Option<u64> {
    let (mut total, mut group, mut any) = (0u64, 0u64, false);
    for n in parts.iter().filter(|n| **n != u64::MAX) {
        match *n {
            100 => group = if group == 0 { 100 } else { group.checked_mul(100)? },
            n if n >= 1_000 => {
                total = total.checked_add(group.max(1).checked_mul(n)?)?;
                group = 0;
            }
            n => group = group.checked_add(n)?,
        }
        any = true;
    }
    any.then_some(total.checked_add(group)?)
}

/// The value of Chinese numerals, alone or behind digits, at the beginning of `text`, and the text behind them.
pub(super) fn chinese(text: &str) -> Option<(Rational, &str)> {
    let whole = |n: u64| Rational::from_integer(n.into());
    let (mut total, mut section, mut number) = (whole(0), whole(0), None::<Rational>);
    let (mut rest, mut signs) = (text, 0);
    while let Some(c) = rest.chars().next() {
        if c.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let super::expr::Expr::Num { value, .. } = super::numeral::number(rest[..end].trim_end_matches('.'))?
            else {
                return None;
            };
            number = Some(value);
            rest = &rest[end..];
            continue;
        }
        let digit = match c {
            '\u{96f6}' => Some(0),
            '\u{4e24}' | '\u{5169}' => Some(2),
            c => DIGITS.chars().position(|d| d == c),
        };
        if let Some(d) = digit {
            number = Some(number.take().unwrap_or_else(|| whole(0)) * whole(10) + whole(d as u64));
        } else if let Some((_, n)) = TENS.iter().find(|t| t.0 == c) {
            section += number.take().unwrap_or_else(|| whole(1)) * whole(*n);
        } else if let Some((_, n)) = MYRIADS.iter().find(|t| t.0 == c) {
            let before = section.clone() + number.take().unwrap_or_else(|| whole(0));
            total = if before == whole(0) { total * whole(*n) } else { total + before * whole(*n) };
            section = whole(0);
        } else {
            break;
        }
        signs += 1;
        rest = &rest[c.len_utf8()..];
    }
    (signs > 0).then(|| (total + section + number.unwrap_or_else(|| whole(0)), rest))
}
