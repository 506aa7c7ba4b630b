//! Word tables: the different forms in which one thing is written, and the lookup of a form.
//!
//! A row is `kind, canonical, form|form|...`. A cell is plain text, never a pattern. Lookup ignores case,
//! points, apostrophes and hyphens (see [`folded`]), except for the kinds in which case matters.

mod unit;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

pub use unit::{AXES, Dimension, is_sign, unit};

/// The tables, in the order in which they are read.
const TABLES: [&str; 3] = [include_str!("notation.tsv"), include_str!("phrases.tsv"), include_str!("words.tsv")];

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal,)*) => {
        /// Kind of a row: the meaning that its words have.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        /// The kinds and their names in the tables.
        const KINDS: &[(&str, Kind)] = &[$(($name, Kind::$kind),)*];
    };
}

kinds! {
    /// Words that begin a remark after an answer and a comma: `as expected`.
    Aside "aside",
    /// Whole numbers up to ninety. The canonical cell is the number in digits.
    Cardinal "cardinal",
    /// Alternative names of LaTeX commands. The canonical cell is the name that the parser knows.
    Command "command",
    /// Words that begin the condition of a value: `when`, `for all`.
    Condition "condition",
    /// Chinese words between two values.
    Conjunction "conjunction",
    /// Signs, codes and names of currencies.
    Currency "currency",
    /// Words that negate a statement: `not`, `except`, `wrong`.
    Denial "denial",
    /// Commands that set their argument in another font. The canonical cell is `text` for upright fonts, otherwise
    /// `bold`.
    Face "face",
    /// Denominators that are not ordinals. The canonical cell is the number in digits.
    Fraction "fraction",
    /// Functions, by their names in LaTeX and in plain text.
    Function "function",
    /// Greek letters. The canonical cell is the name, with a capital for a capital letter.
    Greek "greek",
    /// Commands that only change the appearance.
    Hidden "hidden",
    /// Words after an amount that do not change it: `long`, `each`.
    Idle "idle",
    /// Words that introduce a conclusion: `therefore`, `which gives`.
    Joint "joint",
    /// Nouns that a following number identifies: `step`.
    Label "label",
    /// Subscript characters. The canonical cell is the plain character.
    Lowered "lowered",
    /// Words directly before an answer: `the answer is`.
    Marker "marker",
    /// Nouns for what an amount measures or counts: `area`, `page`.
    Measured "measured",
    /// Words that change the value after them: `less`, `twice`.
    Modifier "modifier",
    /// Months. The canonical cell is the number.
    Month "month",
    /// Nouns for an option: `choice`, `statement`.
    Option "option",
    /// Ordinals. The canonical cell is the number in digits.
    Ordinal "ordinal",
    /// Names of unit prefixes. The canonical cell is the power of ten or two: `1e3`, `2e10`.
    Prefix "prefix",
    /// Signs of unit prefixes.
    PrefixSign "prefix sign",
    /// Superscript characters. The canonical cell is the plain character.
    Raised "raised",
    /// Words that begin a reason or a remark after an answer: `because`, `rounded`.
    Reason "reason",
    /// Words that multiply a number: `million`, `dozen`. The canonical cell is the number.
    Scale "scale",
    /// Verbs that introduce a value: `equals`, `becomes`.
    Shows "shows",
    /// Unicode signs. The canonical cell is ASCII or LaTeX.
    Sign "sign",
    /// Relations and operations in words. The canonical cell is the sign.
    Spoken "spoken",
    /// Phrases with the same meaning.
    Synonym "synonym",
    /// Signs that are always a unit when they stand after a number.
    UnitSign "unit sign",
    /// Commands that are removed with their argument.
    Unsaid "unsaid",
    /// Directions of a value: `increase`, `left`. The canonical cell is the direction.
    Way "way",
}

impl Kind {
    /// Returns true if the canonical cell is also a form. For the other kinds it is only a value.
    fn names_itself(self) -> bool {
        use Kind::*;
        matches!(self, Currency | Function | Greek | Synonym | Way)
    }

    fn key(self, text: &str) -> Cow<'_, str> {
        use Kind::*;
        match self {
            Command | Face | Function | Greek | Hidden | Lowered | PrefixSign | Raised | Sign | UnitSign | Unsaid => {
                Cow::Borrowed(text)
            }
            _ => folded(text),
        }
    }
}

/// Canonical cell and forms of a row.
pub type Row = (&'static str, Vec<&'static str>);

/// Rows of one kind, with their lookup.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    canonical: HashMap<String, &'static str>,
    /// Largest number of words in a form.
    words: usize,
}

static LEXICON: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let mut tables: Vec<Table> = KINDS.iter().map(|_| Table::default()).collect();
    for (kind, canonical, forms) in lines() {
        let table = &mut tables[kind as usize];
        // In a row without forms, the canonical cell is the only form.
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

/// Returns the kind, the canonical cell and the forms of every row.
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

/// Returns the rows of a kind, in the order of the table.
pub fn rows(kind: Kind) -> &'static [Row] {
    &LEXICON[kind as usize].rows
}

/// Folds a text for lookup: removes case, points and apostrophes, replaces a hyphen by a space, and leaves
/// one space between words. Returns the text itself if nothing else is left.
pub fn folded(text: &str) -> Cow<'_, str> {
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
            c => out.push(c),
        }
    }
    let words: Vec<&str> = out.split(' ').filter(|w| !w.is_empty()).collect();
    if words.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(words.join(" ")) }
}

/// Returns the canonical cell of the row of `kind` that has `text` as a form.
pub fn look(kind: Kind, text: &str) -> Option<&'static str> {
    LEXICON[kind as usize].canonical.get(&*kind.key(text)).copied()
}

/// Returns true if a row of `kind` has `text` as a form.
pub fn is(kind: Kind, text: &str) -> bool {
    look(kind, text).is_some()
}

/// Returns the currency for a sign, a code, or a name in the singular or plural.
pub fn currency(text: &str) -> Option<&'static str> {
    let one = || text.strip_suffix(['s', 'S']).filter(|s| s.len() > 2);
    look(Kind::Currency, text).or_else(|| look(Kind::Currency, one()?))
}

/// Returns true for a character that can be part of a word.
fn inner(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '\'' | '\u{2019}' | '-')
}

/// Bit set of the kinds that have a phrase with this first word.
static STARTS: LazyLock<HashMap<&'static str, u64>> = LazyLock::new(|| {
    let mut starts: HashMap<&'static str, u64> = HashMap::new();
    for (kind, table) in LEXICON.iter().enumerate() {
        for key in table.canonical.keys() {
            *starts.entry(key.split(' ').next().unwrap_or(key)).or_default() |= 1 << kind;
        }
    }
    starts
});

/// Returns the length in bytes of the longest phrase of `kind` at the beginning of `text`.
pub fn leading(kind: Kind, text: &str) -> Option<usize> {
    let first = text.find(|c: char| !c.is_alphanumeric() && c != '\'').unwrap_or(text.len());
    let first = folded(&text[..first]);
    if STARTS.get(&*first).is_none_or(|kinds| kinds & (1 << kind as usize) == 0) {
        return None;
    }
    // A point inside an abbreviation ends a word here, but not in the table.
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

/// Returns the text after the longest phrase of `kind` at the beginning of `text`, without a following comma or colon.
pub fn behind(kind: Kind, text: &str) -> Option<&str> {
    let text = text.trim_start();
    leading(kind, text).map(|n| text[n..].trim_start_matches([' ', ',', ':', '\n']))
}

/// Returns the beginning and end of every phrase of `kind` in `text`. The longest phrase at each word is taken.
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
