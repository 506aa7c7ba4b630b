//! What languages call things, as tables: one list for each idea, one place to look a word up.
//!
//! A row is `kind, canonical, form|form|...`; a cell is text, never a pattern. Words are looked up without case, marks
//! on letters, points, apostrophes and hyphens (see [`folded`]), but for the kinds that are told by case.

mod spelling;
mod unit;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use num_bigint::BigInt;

pub use spelling::{alike, spelled};
pub use unit::{AXES, Dimension, Unit, is_sign, unit, units};

/// The tables, in the order in which they are read.
const TABLES: [(&str, &str); 2] =
    [("phrases.tsv", include_str!("phrases.tsv")), ("words.tsv", include_str!("words.tsv"))];

/// What a row says of its words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `the`, `some`.
    Article,
    /// `is`, `does`, `would`.
    Auxiliary,
    /// Whole numbers up to ninety; canonical in digits.
    Cardinal,
    /// Signs of units that are often written in another case; canonical is the sign.
    Case,
    /// Hundredths of currencies; canonical is the currency.
    Cent,
    /// Hours of the day and the halves of it: `am`, `pm`, `night`, `12` and `24` for the hours counted, or the time.
    Clock,
    /// What opens a closing remark: `note that`, `let me know`.
    Closing,
    /// Signs, codes and names of currencies.
    Currency,
    /// Words that take something back: `not`, `except`, `wrong`.
    Denial,
    /// Words of writing without spaces; canonical in English, `counter` for what only marks a count.
    Dense,
    /// Elements; canonical is the symbol.
    Element,
    /// Endings of plurals in other languages; canonical is the ending of the singular, `-` for none.
    Ending,
    /// LaTeX commands that change how their argument looks, and nothing else; told by case.
    Face,
    /// Words that add nothing: `exactly`, `of course`.
    Filler,
    /// Denominators that are no ordinals; canonical in digits.
    Fraction,
    /// Greek letters; canonical is the name, with a capital for a capital; told by case.
    Greek,
    /// Points of the compass; canonical in degrees clockwise from north.
    Heading,
    /// Words of doubt: `perhaps`, `about`, `either`.
    Hedge,
    /// Words that lead to a conclusion: `therefore`, `which gives`.
    Joint,
    /// Letters with marks; canonical is what is written where there are none.
    Letter,
    /// Words right before an answer: `the answer is`.
    Marker,
    /// Words that change the value behind them: `less`, `twice`.
    Modifier,
    /// Months; canonical is the number.
    Month,
    /// Nouns of options: `choice`, `statement`.
    Option,
    /// Ordinals; canonical in digits.
    Ordinal,
    /// Plurals that follow no rule; canonical is the singular.
    Plural,
    /// Names of prefixes; canonical is the power of ten or two: `1e3`, `2e10`.
    Prefix,
    /// Signs of prefixes, told by case.
    PrefixSign,
    /// `it`, `which`.
    Pronoun,
    /// What opens a reason or a remark behind an answer: `because`, `rounded`.
    Reason,
    /// Words that a number is multiplied with: `million`, `dozen`; canonical is the number.
    Scale,
    /// Verbs that show what follows: `equals`, `becomes`.
    Shows,
    /// Signs that are a unit wherever they stand behind a number; told by case.
    Sign,
    /// Words to which an `s` gives another word, not a plural.
    Singular,
    /// Words in several spellings or shortened.
    Spelling,
    /// Parts of words in several spellings.
    Stem,
    /// Nouns that add nothing to what is said of them: `the series`.
    Subject,
    /// Substances; canonical is the formula.
    Substance,
    /// Phrases of one meaning.
    Synonym,
    /// Verbs that answer by themselves: `increases`.
    Verb,
    /// Days of the week; canonical is the number, Monday first.
    Weekday,
    /// Words of one meaning wherever they stand.
    Word,
}

/// The kinds by their names in the tables, in the order of [`Kind`].
const KINDS: [(&str, Kind); 42] = [
    ("article", Kind::Article),
    ("auxiliary", Kind::Auxiliary),
    ("cardinal", Kind::Cardinal),
    ("case", Kind::Case),
    ("cent", Kind::Cent),
    ("clock", Kind::Clock),
    ("closing", Kind::Closing),
    ("currency", Kind::Currency),
    ("denial", Kind::Denial),
    ("dense", Kind::Dense),
    ("element", Kind::Element),
    ("ending", Kind::Ending),
    ("face", Kind::Face),
    ("filler", Kind::Filler),
    ("fraction", Kind::Fraction),
    ("greek", Kind::Greek),
    ("heading", Kind::Heading),
    ("hedge", Kind::Hedge),
    ("joint", Kind::Joint),
    ("letter", Kind::Letter),
    ("marker", Kind::Marker),
    ("modifier", Kind::Modifier),
    ("month", Kind::Month),
    ("option", Kind::Option),
    ("ordinal", Kind::Ordinal),
    ("plural", Kind::Plural),
    ("prefix", Kind::Prefix),
    ("prefix sign", Kind::PrefixSign),
    ("pronoun", Kind::Pronoun),
    ("reason", Kind::Reason),
    ("scale", Kind::Scale),
    ("shows", Kind::Shows),
    ("sign", Kind::Sign),
    ("singular", Kind::Singular),
    ("spelling", Kind::Spelling),
    ("stem", Kind::Stem),
    ("subject", Kind::Subject),
    ("substance", Kind::Substance),
    ("synonym", Kind::Synonym),
    ("verb", Kind::Verb),
    ("weekday", Kind::Weekday),
    ("word", Kind::Word),
];

impl Kind {
    /// True where the canonical cell is a form too; elsewhere it is a value.
    fn names_itself(self) -> bool {
        use Kind::*;
        matches!(self, Currency | Greek | Plural | Spelling | Synonym | Word)
    }

    fn key(self, text: &str) -> Cow<'_, str> {
        use Kind::*;
        match self {
            Face | Greek | Letter | PrefixSign | Sign => Cow::Borrowed(text),
            _ => folded(text),
        }
    }
}

/// Canonical and forms of a row.
pub type Row = (&'static str, Vec<&'static str>);

/// What is known of the words of one kind.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    canonical: HashMap<String, &'static str>,
    /// Most words of a form.
    words: usize,
}

static LEXICON: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let mut tables: Vec<Table> = KINDS.iter().map(|_| Table::default()).collect();
    for (kind, canonical, forms) in lines() {
        let table = &mut tables[kind as usize];
        // A row without forms is a word by itself.
        let own = (kind.names_itself() || forms.is_empty()).then_some(canonical);
        for form in own.into_iter().chain(split(forms)) {
            let key = kind.key(form);
            table.words = table.words.max(key.split(' ').count());
            table.canonical.entry(key.into_owned()).or_insert(canonical);
        }
        table.rows.push((canonical, split(forms).collect()));
    }
    tables
});

/// Kind, canonical and forms of all rows.
fn lines() -> impl Iterator<Item = (Kind, &'static str, &'static str)> {
    TABLES.iter().flat_map(|(_, table)| table.lines()).filter_map(|line| {
        let mut cells = line.split('\t');
        let name = cells.next()?;
        let at = KINDS.binary_search_by_key(&name, |k| k.0).ok()?;
        Some((KINDS[at].1, cells.next()?, cells.next().unwrap_or_default()))
    })
}

fn split(forms: &'static str) -> impl Iterator<Item = &'static str> {
    forms.split('|').filter(|f| !f.is_empty())
}

/// The rows of a kind, sorted.
pub fn rows(kind: Kind) -> &'static [Row] {
    &LEXICON[kind as usize].rows
}

/// A text without case, marks on letters, points and apostrophes, a space for a hyphen, one space between words; the
/// text itself where nothing else is left.
pub fn folded(text: &str) -> Cow<'_, str> {
    static LETTERS: LazyLock<HashMap<char, &str>> = LazyLock::new(|| {
        lines()
            .filter(|r| r.0 == Kind::Letter)
            .flat_map(|(_, canonical, forms)| forms.chars().filter(|c| *c != '|').map(move |c| (c, canonical)))
            .collect()
    });
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let spaced = |(n, &b): (usize, &u8)| b == b' ' && n > 0 && bytes.get(n + 1).is_some_and(|b| plain(*b));
    if bytes.iter().enumerate().all(|p| plain(*p.1) || spaced(p)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            '.' | '\'' | '\u{2019}' => {}
            '-' | '\u{2010}' | '\u{2011}' => out.push(' '),
            c if c.is_whitespace() => out.push(' '),
            c => match LETTERS.get(&c).filter(|_| !c.is_ascii()) {
                Some(plain) => out.push_str(plain),
                None => out.push(c),
            },
        }
    }
    let words: Vec<&str> = out.split(' ').filter(|w| !w.is_empty()).collect();
    if words.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(words.join(" ")) }
}

/// The canonical cell of the row of `kind` that has `text` as a form.
pub fn look(kind: Kind, text: &str) -> Option<&'static str> {
    LEXICON[kind as usize].canonical.get(&*kind.key(text)).copied()
}

/// True where a row of `kind` has `text` as a form.
pub fn is(kind: Kind, text: &str) -> bool {
    look(kind, text).is_some()
}

/// The phrase that stands for all of the same meaning.
pub fn synonym(text: &str) -> Option<&'static str> {
    look(Kind::Synonym, text)
}

/// The currency that a sign, a code or a name says; names in singular or plural.
pub fn currency(text: &str) -> Option<&'static str> {
    let one = || text.strip_suffix(['s', 'S']).filter(|s| s.len() > 2);
    look(Kind::Currency, text).or_else(|| look(Kind::Currency, one()?))
}

/// The number of a month, January first.
pub fn month(text: &str) -> Option<u8> {
    look(Kind::Month, text)?.parse().ok()
}

/// The number of a day of the week, Monday first.
pub fn weekday(text: &str) -> Option<u8> {
    look(Kind::Weekday, text)?.parse().ok()
}

/// The name of a Greek letter by its sign, its name or the name of a variant.
pub fn greek(text: &str) -> Option<&'static str> {
    look(Kind::Greek, text)
}

/// Degrees clockwise from north of a point of the compass.
pub fn heading(text: &str) -> Option<f64> {
    look(Kind::Heading, text)?.parse().ok()
}

/// What one word of numbers says.
#[derive(Clone, PartialEq, Debug)]
pub enum NumberWord {
    /// `twenty`.
    Cardinal(u64),
    /// `third`, which may be a part too.
    Ordinal(u64),
    /// `half`, `thirds`: the denominator.
    Part(u64),
    /// `million`, `dozen`: what the number before it is multiplied with.
    Scale(BigInt),
}

/// What one word of numbers says: `twenty`, `third`, `halves`, `million`.
pub fn number_word(text: &str) -> Option<NumberWord> {
    let number = |kind| look(kind, text).and_then(|n| n.parse().ok());
    let scale = || {
        let (n, power) = look(Kind::Scale, text).map(|n| n.split_once('e').unwrap_or((n, "0")))?;
        Some(NumberWord::Scale(n.parse::<BigInt>().ok()? * BigInt::from(10).pow(power.parse().ok()?)))
    };
    let cardinal = number(Kind::Cardinal).map(NumberWord::Cardinal);
    cardinal
        .or_else(|| number(Kind::Ordinal).map(NumberWord::Ordinal))
        .or_else(|| number(Kind::Fraction).map(NumberWord::Part))
        .or_else(scale)
}

/// True inside a word.
fn inner(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '\'' | '\u{2019}' | '-')
}

/// True in writing without spaces, where a word may end anywhere.
fn dense(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}')
}

/// The length of the longest phrase of `kind` that `text` begins with, in bytes.
pub fn leading(kind: Kind, text: &str) -> Option<usize> {
    // Points inside a short form end a word here, and none in the table.
    let most = LEXICON[kind as usize].words + 2;
    let mut ends = Vec::new();
    let mut before = ' ';
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let ended = inner(before) && !inner(c) || dense(before);
        if ended {
            ends.push(at);
            if ends.len() == most {
                break;
            }
        }
        before = c;
    }
    let end = ends.into_iter().rev().find(|&end| is(kind, &text[..end]))?;
    // The last point of a short form is its own.
    let point = text[..end].contains('.') && text[end..].starts_with('.');
    Some(end + usize::from(point))
}

/// What follows the longest phrase of `kind` that `text` begins with, without the comma or colon behind it.
pub fn behind(kind: Kind, text: &str) -> Option<&str> {
    let text = text.trim_start();
    leading(kind, text).map(|n| text[n..].trim_start_matches([' ', ',', ':', '\n']))
}

/// Where phrases of `kind` stand in `text`, the longest from each word on.
pub fn find(kind: Kind, text: &str) -> Vec<Range<usize>> {
    let (mut found, mut until, mut before) = (Vec::<Range<usize>>::new(), 0, ' ');
    for (at, c) in text.char_indices() {
        let begins = at >= until && inner(c) && (!inner(before) || dense(c));
        before = c;
        if let Some(n) = begins.then(|| leading(kind, &text[at..])).flatten() {
            found.push(at..at + n);
            until = at + n;
        }
    }
    found
}

#[cfg(test)]
mod tests;
