//! Formulas of logic, of Boolean algebra and of the algebra of sets: they are the same when their truth tables are.
//!
//! ```text
//! formula := side (('iff' | 'equiv') side)*      side := sum ('implies' side)?
//! sum     := product (('or' | 'cup' | 'xor' | '+' | 'minus') product)*
//! product := factor (('and' | 'cap' | '.')? factor)*   side by side only between capital letters
//! factor  := 'not' factor | ('forall' | 'exists') letter factor | atom ("'" | '^c')*
//! atom    := letter | letter '(' letters ')' | 'T' | 'F' | '0' | '1' | '(' formula ')' | bar '{' formula '}'
//! ```
//!
//! What a quantifier binds is an atom that is told by its letter and truth table; "exists" is "not all not".

use std::borrow::Cow;

use crate::reward::words::tables::{Bytes, all_as, replaced};

/// Most atoms of a formula.
const MAX_ATOMS: usize = 6;
/// Longest text.
const MAX_BYTES: usize = 300;
/// Deepest nesting.
const MAX_DEPTH: usize = 24;

// Signs of operations as characters that no text has: `|`, `=` and `^` mean other things elsewhere.
const IFF: char = '\u{1}';
const IMPLIES: char = '\u{2}';
const AND: char = '\u{3}';
const OR: char = '\u{4}';
const XOR: char = '\u{5}';
const MINUS: char = '\u{6}';
const NOT: char = '\u{7}';
const ALL: char = '\u{e}';
const SOME: char = '\u{f}';
const BAR: char = '\u{10}';

/// Ways to write the signs; of two that begin alike the longer stands first.
const SIGNS: [(char, &[&str]); 11] = [
    (
        IFF,
        &[
            "\\longleftrightarrow",
            "\\leftrightarrow",
            "\\Leftrightarrow",
            "\\iff",
            "\\equiv",
            "\u{2194}",
            "\u{21d4}",
            "\u{2261}",
            "<->",
            "<=>",
        ],
    ),
    (
        IMPLIES,
        &[
            "\\longrightarrow",
            "\\rightarrow",
            "\\Rightarrow",
            "\\implies",
            "\\supset",
            "\\to",
            "\u{2192}",
            "\u{21d2}",
            "->",
            "=>",
        ],
    ),
    (AND, &["\\land", "\\wedge", "\\cap", "\u{2227}", "\u{2229}", "&&", "&", "\\cdot", "\u{b7}", "\u{22c5}"]),
    (OR, &["\\lor", "\\vee", "\\cup", "\u{2228}", "\u{222a}", "||"]),
    (XOR, &["\\oplus", "\\veebar", "\\triangle", "\\Delta", "\u{2295}", "\u{22bb}", "\u{25b3}"]),
    (MINUS, &["\\setminus", "\\backslash", "\u{2216}"]),
    (NOT, &["\\neg", "\\lnot", "\\sim", "\u{ac}", "~"]),
    (ALL, &["\\forall", "\u{2200}"]),
    (SOME, &["\\exists", "\u{2203}"]),
    (BAR, &["\\overline", "\\bar"]),
    ('\'', &["^{\\complement}", "^\\complement", "^{c}", "^c", "^{C}", "^C", "^{\\prime}", "\u{2032}", "\u{2019}"]),
];

/// Words for signs.
const WORDS: [(&str, char); 12] = [
    ("if and only if", IFF),
    ("implies", IMPLIES),
    ("only if", IMPLIES),
    ("exclusive or", XOR),
    ("it is not the case that", NOT),
    ("and", AND),
    ("or", OR),
    ("xor", XOR),
    ("not", NOT),
    ("for all", ALL),
    ("there exists", SOME),
    ("union", OR),
];

/// True when both are formulas, one at least with an operation, and have one truth table.
pub(super) fn same_formula(a: &str, b: &str) -> bool {
    // Said in words, a conditional is no other of the same truth: the contrapositive is asked for as such.
    if (conditional(a).is_some() || conditional(b).is_some())
        && let (Some((p, q)), Some((r, s))) = (halves(a), halves(b))
    {
        let bare = |t: &str| t.trim().trim_matches(['$', '(', ')', ' ']).to_owned();
        let same = |x: &str, y: &str| bare(x) == bare(y) || same_formula(x, y);
        return same(&p, &r) && same(&q, &s);
    }
    let Some(a) = tokens(a) else { return false };
    let Some(b) = tokens(b) else { return false };
    let signs = [IFF, IMPLIES, AND, OR, XOR, MINUS, NOT, ALL, SOME, BAR, '\'', '+'];
    let works = |t: &[char]| t.iter().any(|c| signs.contains(c));
    if !(works(&a) || works(&b)) {
        return false;
    }
    // Sums of capital letters are Boolean where something is negated or added without carry.
    let boolean = |t: &[char]| t.iter().any(|c| [NOT, BAR, XOR, '\''].contains(c));
    let small = a.iter().chain(&b).any(char::is_ascii_lowercase);
    if a.iter().chain(&b).any(|c| *c == '+') && (small || !(boolean(&a) || boolean(&b))) {
        return false;
    }
    // Side by side is a product only there: "I and III" are two numbers, P(A \cap B) a probability.
    let products = !a.iter().chain(&b).any(|c| matches!(*c, AND | OR | IMPLIES | IFF | ALL | SOME | MINUS)) && !small;
    let mut atoms = Vec::new();
    let mut read = |t: &[char]| {
        let mut r = Formula { tokens: t, at: 0, atoms: &mut atoms, products };
        let f = r.formula(0)?;
        (r.at == t.len()).then_some(f)
    };
    let (Some(x), Some(y)) = (read(&a), read(&b)) else { return false };
    atoms.len() <= MAX_ATOMS && table(&x, atoms.len()) == table(&y, atoms.len())
}

/// A formula over numbered atoms.
enum Node {
    Const(bool),
    Atom(usize),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Xor(Box<Node>, Box<Node>),
}

fn not(x: Node) -> Node {
    Node::Not(Box::new(x))
}

fn holds(f: &Node, row: usize) -> bool {
    match f {
        Node::Const(b) => *b,
        Node::Atom(n) => row >> n & 1 == 1,
        Node::Not(x) => !holds(x, row),
        Node::And(x, y) => holds(x, row) && holds(y, row),
        Node::Or(x, y) => holds(x, row) || holds(y, row),
        Node::Xor(x, y) => holds(x, row) != holds(y, row),
    }
}

fn table(f: &Node, atoms: usize) -> Vec<bool> {
    (0..1usize << atoms).map(|row| holds(f, row)).collect()
}

/// What a conditional begins with and what it comes to, in words or with one arrow.
fn halves(text: &str) -> Option<(String, String)> {
    if let Some(halves) = conditional(text) {
        return Some(halves);
    }
    let tokens = tokens(text)?;
    let at = tokens.iter().position(|c| *c == IMPLIES)?;
    let (first, second) = (&tokens[..at], &tokens[at + 1..]);
    let whole = !second.contains(&IMPLIES) && !tokens.contains(&IFF);
    let level = |t: &[char]| t.iter().filter(|c| **c == '(').count() == t.iter().filter(|c| **c == ')').count();
    (whole && level(first)).then(|| (first.iter().collect(), second.iter().collect()))
}

/// The halves of "if p, then q".
fn conditional(text: &str) -> Option<(String, String)> {
    let text = text.trim().trim_end_matches('.');
    let rest = ["If ", "if ", "IF "].iter().find_map(|w| text.strip_prefix(w))?;
    let lower = rest.to_ascii_lowercase();
    let (at, joint) = [", then ", " then "].iter().find_map(|w| Some((lower.find(w)?, w)))?;
    let halves = (&rest[..at], &rest[at + joint.len()..]);
    // What has a condition of its own is no half.
    let plain = |t: &str| !format!(" {} ", t.to_ascii_lowercase()).contains(" if ");
    (plain(halves.0) && plain(halves.1)).then(|| (halves.0.to_owned(), halves.1.to_owned()))
}

/// Signs, letters and brackets of a text; `None` where there is anything else.
fn tokens(text: &str) -> Option<Vec<char>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    const BRACKETS: [(&str, &str); 5] =
        [("\\left(", "("), ("\\right)", ")"), ("\\left[", "("), ("\\right]", ")"), ("\\big", "")];
    const SPACES: [&str; 9] = ["\\,", "\\;", "\\ ", "\\quad", "\\!", "$", "\\text", "\\mathrm", "\\mathbf"];
    let text = conditional(text).map_or(Cow::Borrowed(text), |(p, q)| Cow::Owned(format!("({p}) -> ({q})")));
    let mut text = all_as(replaced(text, &BRACKETS), &SPACES, " ").into_owned();
    let held = Bytes::of(&text);
    for (sign, ways) in SIGNS {
        for way in ways.iter().filter(|way| held.may_hold(way)) {
            text = text.replace(way, &format!(" {sign} "));
        }
    }
    let mut out = Vec::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        if let Some((word, sign)) = WORDS.iter().find(|(w, _)| {
            rest.len() >= w.len()
                && rest.is_char_boundary(w.len())
                && rest[..w.len()].eq_ignore_ascii_case(w)
                && !rest[w.len()..].starts_with(|c: char| c.is_alphabetic())
        }) {
            out.push(*sign);
            rest = &rest[word.len()..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            ' ' => {}
            '{' | '[' => out.push('('),
            '}' | ']' => out.push(')'),
            c if c.is_ascii_alphabetic() => {
                // Words are no formulas; capital letters side by side are a product.
                if c.is_ascii_lowercase() && rest.starts_with(|c: char| c.is_ascii_lowercase()) {
                    return None;
                }
                out.push(c);
            }
            c if "'+(),01".contains(c) || ('\u{1}'..='\u{10}').contains(&c) => out.push(c),
            _ => return None,
        }
    }
    (!out.is_empty()).then_some(out)
}

struct Formula<'a> {
    tokens: &'a [char],
    at: usize,
    atoms: &'a mut Vec<String>,
    /// Letters side by side are a product.
    products: bool,
}

impl Formula<'_> {
    fn peek(&self) -> char {
        self.tokens.get(self.at).copied().unwrap_or('\0')
    }

    fn eat(&mut self, sign: char) -> bool {
        let found = self.peek() == sign;
        self.at += usize::from(found);
        found
    }

    fn formula(&mut self, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut f = self.side(depth)?;
        while self.eat(IFF) {
            f = not(Node::Xor(Box::new(f), Box::new(self.side(depth)?)));
        }
        Some(f)
    }

    fn side(&mut self, depth: usize) -> Option<Node> {
        let f = self.sum(depth)?;
        if depth > MAX_DEPTH || !self.eat(IMPLIES) {
            return Some(f);
        }
        Some(Node::Or(Box::new(not(f)), Box::new(self.side(depth + 1)?)))
    }

    fn sum(&mut self, depth: usize) -> Option<Node> {
        let mut f = self.product(depth)?;
        loop {
            let sign = self.peek();
            if !matches!(sign, OR | '+' | XOR | MINUS) {
                return Some(f);
            }
            self.at += 1;
            let g = Box::new(self.product(depth)?);
            f = match sign {
                XOR => Node::Xor(Box::new(f), g),
                MINUS => Node::And(Box::new(f), Box::new(not(*g))),
                _ => Node::Or(Box::new(f), g),
            };
        }
    }

    fn product(&mut self, depth: usize) -> Option<Node> {
        let mut f = self.factor(depth)?;
        loop {
            let joined = self.eat(AND);
            let next = self.peek();
            if !joined && !(self.products && (next.is_ascii_uppercase() || matches!(next, BAR | '('))) {
                return Some(f);
            }
            f = Node::And(Box::new(f), Box::new(self.factor(depth)?));
        }
    }

    fn factor(&mut self, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.eat(NOT) {
            return self.factor(depth + 1).map(not);
        }
        let all = self.peek() == ALL;
        if all || self.peek() == SOME {
            self.at += 1;
            let letter = self.peek();
            if !letter.is_ascii_lowercase() {
                return None;
            }
            self.at += 1;
            let inner = self.factor(depth + 1)?;
            let inner = if all { inner } else { not(inner) };
            let f = self.bound(letter, &inner)?;
            return Some(if all { f } else { not(f) });
        }
        let mut f = self.atom(depth)?;
        while self.eat('\'') {
            f = not(f);
        }
        Some(f)
    }

    /// The atom that "for all" makes of a formula: its letter, its atoms and their table.
    fn bound(&mut self, letter: char, f: &Node) -> Option<Node> {
        if self.atoms.len() > MAX_ATOMS {
            return None;
        }
        let rows = table(f, self.atoms.len());
        // Only atoms it depends on, in the order of their names.
        let depends = |n: usize| (0..rows.len()).any(|row| rows[row] != rows[row ^ (1 << n)]);
        let mut own: Vec<(usize, String)> =
            self.atoms.iter().enumerate().filter(|(n, _)| depends(*n)).map(|(n, a)| (n, a.clone())).collect();
        own.sort_by(|a, b| a.1.cmp(&b.1));
        let row = |k: usize| {
            let at = own.iter().enumerate().fold(0, |at, (i, (n, _))| at | ((k >> i & 1) << n));
            if rows[at] { '1' } else { '0' }
        };
        let told: String = (0..1usize << own.len()).map(row).collect();
        let names: Vec<&str> = own.iter().map(|(_, a)| a.as_str()).collect();
        let name = format!("all {letter} {} {told}", names.join(","));
        Some(self.named(name))
    }

    fn named(&mut self, name: String) -> Node {
        let n = self.atoms.iter().position(|a| *a == name).unwrap_or_else(|| {
            self.atoms.push(name);
            self.atoms.len() - 1
        });
        Node::Atom(n)
    }

    fn atom(&mut self, depth: usize) -> Option<Node> {
        let c = self.peek();
        self.at += 1;
        match c {
            '(' => {
                let f = self.formula(depth + 1)?;
                self.eat(')').then_some(f)
            }
            BAR => {
                if self.eat('(') {
                    let f = self.formula(depth + 1)?;
                    return self.eat(')').then(|| not(f));
                }
                self.atom(depth + 1).map(not)
            }
            '0' => Some(Node::Const(false)),
            '1' => Some(Node::Const(true)),
            c if c.is_ascii_alphabetic() => {
                // A probability is no formula.
                if c == 'P' && self.peek() == '(' && self.tokens.get(self.at + 1).is_some_and(char::is_ascii_uppercase)
                {
                    return None;
                }
                let mut name = c.to_string();
                // P(x, y), where what follows are letters.
                let close = self.tokens[self.at..].iter().position(|c| *c == ')');
                if c.is_ascii_uppercase()
                    && self.peek() == '('
                    && let Some(close) = close
                    && self.tokens[self.at + 1..self.at + close].iter().all(|c| c.is_ascii_lowercase() || *c == ',')
                    && close > 1
                {
                    name.extend(&self.tokens[self.at..=self.at + close]);
                    self.at += close + 1;
                }
                (self.atoms.len() <= MAX_ATOMS).then(|| self.named(name))
            }
            _ => None,
        }
    }
}
