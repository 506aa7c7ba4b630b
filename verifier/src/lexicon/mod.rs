//! What is written in many ways, as tables: one list for each idea, one place to look a word up.
//!
//! A row is `kind, canonical, form|form|...`; a cell is text, never a pattern. Words are looked up without case, marks
//! on letters, points, apostrophes and hyphens (see [`folded`]), but for the kinds that are told by case.

mod unit;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

pub use unit::{AXES, Dimension, is_sign, unit};

/// The tables, in the order in which they are read.
const TABLES: [&str; 3] = [include_str!("notation.tsv"), include_str!("phrases.tsv"), include_str!("words.tsv")];

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal,)*) => {
        /// What a row says of its words.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        /// The kinds by their names in the tables.
        const KINDS: &[(&str, Kind)] = &[$(($name, Kind::$kind),)*];
    };
}

kinds! {
    /// What opens a remark behind an answer and its comma: `as expected`.
    Aside "aside",
    /// Whole numbers up to ninety; canonical in digits.
    Cardinal "cardinal",
    /// Other names of LaTeX commands; canonical is the name that is read.
    Command "command",
    /// What opens the condition of a value: `when`, `for all`.
    Condition "condition",
    /// Signs, codes and names of currencies.
    Currency "currency",
    /// Words that take something back: `not`, `except`, `wrong`.
    Denial "denial",
    /// Ends of words that are spelled in two ways behind any stem.
    Ending "ending",
    /// Commands that set their argument in another face; canonical is `text` for upright ones, else `bold`.
    Face "face",
    /// Denominators that are no ordinals; canonical in digits.
    Fraction "fraction",
    /// Functions, by their names in LaTeX and in plain text.
    Function "function",
    /// Greek letters; canonical is the name, with a capital for a capital.
    Greek "greek",
    /// Commands that only change how things look.
    Hidden "hidden",
    /// Words behind an amount that do not change it: `long`, `each`.
    Idle "idle",
    /// Words that lead to a conclusion: `therefore`, `which gives`.
    Joint "joint",
    /// Nouns that the number behind them tells apart: `step`.
    Label "label",
    /// Letters with marks; canonical is what is written where there are none.
    Letter "letter",
    /// Characters that are written lower; canonical is the plain one.
    Lowered "lowered",
    /// Words right before an answer: `the answer is`.
    Marker "marker",
    /// What an amount may be the amount of: `area`, `page`.
    Measured "measured",
    /// Words that change the value behind them: `less`, `twice`.
    Modifier "modifier",
    /// Months; canonical is the number.
    Month "month",
    /// Nouns of options: `choice`, `statement`.
    Option "option",
    /// Ordinals; canonical in digits.
    Ordinal "ordinal",
    /// Names of prefixes; canonical is the power of ten or two: `1e3`, `2e10`.
    Prefix "prefix",
    /// Signs of prefixes.
    PrefixSign "prefix sign",
    /// Characters that are written higher; canonical is the plain one.
    Raised "raised",
    /// What opens a reason or a remark behind an answer: `because`, `rounded`.
    Reason "reason",
    /// Words that a number is multiplied with: `million`, `dozen`; canonical is the number.
    Scale "scale",
    /// Verbs that show what follows: `equals`, `becomes`.
    Shows "shows",
    /// Unicode signs; canonical is ASCII or LaTeX.
    Sign "sign",
    /// Relations and operations in words; canonical is the sign.
    Spoken "spoken",
    /// Phrases of one meaning.
    Synonym "synonym",
    /// Signs that are a unit wherever they stand behind a number.
    UnitSign "unit sign",
    /// Commands that say nothing, nor does their argument.
    Unsaid "unsaid",
    /// Which way a value goes: `increase`, `left`; canonical is the way.
    Way "way",
    /// Days of the week; canonical is the number, Monday first.
    Weekday "weekday",
}

impl Kind {
    /// True where the canonical cell is a form too; elsewhere it is a value.
    fn names_itself(self) -> bool {
        use Kind::*;
        matches!(self, Currency | Function | Greek | Synonym | Way)
    }

    fn key(self, text: &str) -> Cow<'_, str> {
        use Kind::*;
        match self {
            Command | Face | Function | Greek | Hidden | Letter | Lowered | PrefixSign | Raised | Sign | UnitSign
            | Unsaid => Cow::Borrowed(text),
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
    TABLES.iter().flat_map(|table| table.lines()).filter_map(|line| {
        let mut cells = line.split('\t');
        let name = cells.next()?;
        let kind = KINDS.iter().find(|k| k.0 == name)?.1;
        Some((kind, cells.next()?, cells.next().unwrap_or_default()))
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

/// The currency that a sign, a code or a name says; names in singular or plural.
pub fn currency(text: &str) -> Option<&'static str> {
    let one = || text.strip_suffix(['s', 'S']).filter(|s| s.len() > 2);
    look(Kind::Currency, text).or_else(|| look(Kind::Currency, one()?))
}

/// True inside a word.
fn inner(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '\'' | '\u{2019}' | '-')
}

/// The kinds that have a phrase with this first word, a bit for each.
static STARTS: LazyLock<HashMap<&'static str, u64>> = LazyLock::new(|| {
    let mut starts: HashMap<&'static str, u64> = HashMap::new();
    for (kind, table) in LEXICON.iter().enumerate() {
        for key in table.canonical.keys() {
            *starts.entry(key.split(' ').next().unwrap_or(key)).or_default() |= 1 << kind;
        }
    }
    starts
});

/// The length of the longest phrase of `kind` that `text` begins with, in bytes.
pub fn leading(kind: Kind, text: &str) -> Option<usize> {
    let first = text.find(|c: char| !c.is_alphanumeric() && c != '\'').unwrap_or(text.len());
    let first = folded(&text[..first]);
    if STARTS.get(&*first).is_none_or(|kinds| kinds & (1 << kind as usize) == 0) {
        return None;
    }
    // Points inside a short form end a word here, and none in the table.
    let most = LEXICON[kind as usize].words + 2;
    let mut ends = Vec::new();
    let mut before = ' ';
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if inner(before) && !inner(c) {
            ends.push(at);
            if ends.len() == most {
                break;
            }
        }
        before = c;
    }
    ends.into_iter().rev().find(|&end| is(kind, &text[..end]))
}

/// What follows the longest phrase of `kind` that `text` begins with, without the comma or colon behind it.
pub fn behind(kind: Kind, text: &str) -> Option<&str> {
    let text = text.trim_start();
    leading(kind, text).map(|n| text[n..].trim_start_matches([' ', ',', ':', '\n']))
}

/// Where phrases of `kind` stand in `text`, the longest from each word on: where each begins and ends.
pub fn find(kind: Kind, text: &str) -> Vec<(usize, usize)> {
    let (mut found, mut until, mut before) = (Vec::new(), 0, ' ');
    for (at, c) in text.char_indices() {
        let begins = at >= until && inner(c) && !inner(before);
        before = c;
        if let Some(n) = begins.then(|| leading(kind, &text[at..])).flatten() {
            found.push((at, at + n));
            until = at + n;
        }
    }
    found
}
