//! Text to tokens: LaTeX commands, numbers, letters and words, Unicode notation.

use super::notation::{DROPPED, FACES, INVISIBLE, ascii, canonical, upright};
use super::siunitx;
use super::unit::CURRENCIES;

use super::Steps;

/// Longest text that is read as mathematics.
const MAX_BYTES: usize = 12_000;

/// A piece of notation.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Tok {
    /// Digits with an optional point and exponent, as written (thousands separators removed).
    Num(String),
    /// A run of letters outside LaTeX commands.
    Word(String),
    /// A LaTeX command without its backslash; `{` and `}` for the escaped braces.
    Cmd(String),
    /// The content of `\text{...}` and its kin.
    Text(String),
    /// An operator, bracket or separator.
    Sym(char),
}

/// A token and whether white space stands before it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Token {
    pub(super) tok: Tok,
    pub(super) spaced: bool,
}

/// Tokens of `text`, or `None` when it is too long or holds what no notation has. With `grouped`, commas and
/// spaces between groups of three digits are thousands separators.
pub(super) fn lex(text: &str, grouped: bool, steps: &Steps) -> Option<Vec<Token>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    steps.spend(text.len() as u64)?;
    let mut ascii = match siunitx::plain(text) {
        Some(text) => ascii(&text),
        None => ascii(text),
    };
    if ascii.contains("float(") {
        ascii = ascii.replace("float('inf')", "\\infty").replace("float(\"inf\")", "\\infty");
    }
    for (from, to) in [("{,}", "\u{1}"), ("{:}", ":"), (",\\!", "\u{1}"), ("\\!", "")] {
        if ascii.contains(from) {
            ascii = ascii.replace(from, to);
        }
    }
    if ascii.contains('$') {
        ascii = unmarked(ascii);
    }
    // Escaped twice; only inside an environment are two backslashes a line break.
    if ascii.contains("\\\\") && !ascii.contains("\\begin") && !ascii.contains("\\cr") {
        ascii = ascii.replace("\\\\", "\\");
    }
    let chars: Vec<char> = ascii.chars().collect();
    Lexer { chars: &chars, at: 0, depth: 0, grouped, out: Vec::new(), spaced: false }.run()
}

/// The text without dollar signs that enclose formulas: in pairs, of which no second one stands before an amount.
fn unmarked(text: String) -> String {
    let marks: Vec<usize> =
        text.match_indices('$').map(|(at, _)| at).filter(|&at| !text[..at].ends_with('\\')).collect();
    let money = |at: usize| text[at + 1..].trim_start().starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if marks.is_empty() || marks.len() % 2 == 1 || marks.iter().skip(1).step_by(2).any(|&at| money(at)) {
        return text;
    }
    let mut out = text.into_bytes();
    for at in marks {
        out[at] = b' ';
    }
    String::from_utf8(out).unwrap_or_default()
}

pub(super) struct Lexer<'a> {
    pub(super) chars: &'a [char],
    pub(super) at: usize,
    /// Open brackets other than braces.
    pub(super) depth: usize,
    pub(super) grouped: bool,
    pub(super) out: Vec<Token>,
    pub(super) spaced: bool,
}

impl Lexer<'_> {
    pub(super) fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    pub(super) fn push(&mut self, tok: Tok) {
        self.out.push(Token { tok, spaced: self.spaced });
        self.spaced = false;
    }

    pub(super) fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let from = self.at;
        while self.at < self.chars.len() && keep(self.chars[self.at]) {
            self.at += 1;
        }
        self.chars[from..self.at].iter().collect()
    }

    fn run(mut self) -> Option<Vec<Token>> {
        while self.at < self.chars.len() {
            let c = self.peek(0);
            match c {
                ' ' | '~' | '\n' | '\t' | '\r' => {
                    self.at += 1;
                    self.spaced = true;
                }
                '0'..='9' => self.number(),
                '.' if self.peek(1).is_ascii_digit() => self.number(),
                '\\' => self.command()?,
                '*' if self.peek(1) == '*' => {
                    self.at += 2;
                    self.push(Tok::Sym('^'));
                }
                '<' | '>' | '!' | '=' if self.peek(1) == '=' => {
                    self.at += 2;
                    self.push(match c {
                        '<' => Tok::Cmd("le".into()),
                        '>' => Tok::Cmd("ge".into()),
                        '!' => Tok::Cmd("ne".into()),
                        _ => Tok::Sym('='),
                    });
                }
                '=' if self.peek(1) == '>' => {
                    self.at += 2;
                    self.push(Tok::Cmd("Rightarrow".into()));
                }
                '-' if self.peek(1) == '>' => {
                    self.at += 2;
                    self.push(Tok::Cmd("rightarrow".into()));
                }
                // A sum does not begin so.
                '+' if self.peek(1) == '-' && self.out.is_empty() && self.peek(2).is_ascii_digit() => {
                    self.at += 2;
                    self.push(Tok::Cmd("pm".into()));
                }
                '+' if self.peek(1) == '/' && self.peek(2) == '-' => {
                    self.at += 3;
                    self.push(Tok::Cmd("pm".into()));
                }
                '(' | '[' => {
                    self.depth += 1;
                    self.sign(c);
                }
                ')' | ']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.sign(c);
                }
                '+' | '-' | '*' | '/' | '^' | '_' | '{' | '}' | ',' | ';' | ':' | '|' | '!' | '%' | '=' | '<' | '>'
                | '\'' | '&' => self.sign(c),
                c if CURRENCIES.iter().any(|m| m.0 == c) => self.currency(c),
                '"' if self.inches() => {
                    self.at += 1;
                    self.push(Tok::Sym('\''));
                    self.push(Tok::Sym('\''));
                }
                '`' | '"' | '\u{1}' => {
                    self.at += 1;
                    self.spaced = true;
                }
                '.' if self.at + 1 == self.chars.len() || self.out.is_empty() => self.at += 1,
                '.' if self.peek(1) == '.' => {
                    self.take_while(|c| c == '.');
                    self.push(Tok::Cmd("dots".into()));
                }
                '.' => {
                    self.at += 1;
                    self.spaced = true;
                }
                c if c.is_alphabetic() => {
                    let word = self.take_while(|c| c.is_alphabetic());
                    // The module of a function in code: math.sqrt.
                    let module = ["math", "np", "numpy", "sympy", "sp", "cmath"].contains(&word.as_str());
                    if module && self.peek(0) == '.' && self.peek(1).is_alphabetic() {
                        self.at += 1;
                        continue;
                    }
                    self.push(Tok::Word(word));
                }
                '?' => self.at += 1,
                _ => return None,
            }
        }
        Some(self.out)
    }

    /// True for the mark of inches or of seconds of arc: behind a number, and no second quotation mark.
    fn inches(&self) -> bool {
        let behind = self.out.last().is_some_and(|t| matches!(t.tok, Tok::Num(_) | Tok::Sym('}')));
        behind && self.chars.iter().filter(|c| **c == '"').count() == 1
    }

    fn sign(&mut self, c: char) {
        self.at += 1;
        self.push(Tok::Sym(c));
    }

    /// A sign before or after an amount; a lone dollar sign elsewhere is a mark of mathematics.
    fn currency(&mut self, c: char) {
        self.at += 1;
        let before = self.chars[self.at..].iter().find(|c| **c != ' ').is_some_and(|c| c.is_ascii_digit() || *c == '.');
        let escaped = self.at >= 2 && self.chars[self.at - 2] == '\\';
        if before || escaped || c != '$' {
            self.push(Tok::Sym(c));
        } else {
            self.spaced = true;
        }
    }

    fn command(&mut self) -> Option<()> {
        self.at += 1;
        let name = self.take_while(|c| c.is_ascii_alphabetic());
        if name.is_empty() {
            let c = self.peek(0);
            if c == '$' {
                self.currency('$');
                return Some(());
            }
            self.at += 1;
            match c {
                '{' | '}' => self.push(Tok::Cmd(c.to_string())),
                '\\' => self.push(Tok::Cmd("\\".into())),
                '%' | '&' => self.push(Tok::Sym(c)),
                '|' => self.push(Tok::Cmd("Vert".into())),
                ' ' | ',' | ';' | ':' | '!' | '(' | ')' | '[' | ']' | '>' | '#' | '\0' | '\n' => self.spaced = true,
                '_' => self.push(Tok::Sym('_')),
                _ => return None,
            }
            return Some(());
        }
        match name.as_str() {
            n if FACES.contains(&n) => {
                if self.peek(0) == '*' {
                    self.at += 1;
                }
                let text = self.group()?;
                // One upright letter is a unit more often than a factor.
                self.spaced |= matches!(n, "text" | "mathrm" | "textrm" | "mbox");
                self.faced(text.trim());
            }
            "mathbb" | "mathcal" | "mathscr" | "mathfrak" => {
                let text = self.group()?;
                if name != "mathbb" && (self.peek(0) == '(' || text.trim() == "O") {
                    // \\mathcal{N}(0, 1)
                    self.push(Tok::Word(text.trim().to_owned()));
                    return Some(());
                }
                self.push(Tok::Cmd(format!("mathbb{}", text.trim())));
            }
            "begin" | "end" => {
                let text = self.group()?;
                self.push(Tok::Cmd(format!("{name} {}", text.trim().trim_end_matches('*'))));
                if name == "begin" && text.trim() == "array" && self.peek(0) == '{' {
                    self.group()?;
                }
            }
            n if DROPPED.contains(&n) => {
                self.group()?;
                self.spaced = true;
            }
            "overline" | "bar" | "vec" | "hat" | "widehat" | "overrightarrow" | "tilde" | "dot" | "ddot"
            | "widetilde" => self.accent(&name)?,
            "not" => {
                self.take_while(|c| c == ' ');
                let next = self.peek(0);
                if next == '=' {
                    self.at += 1;
                    self.push(Tok::Cmd("ne".into()));
                } else if next == '\\' {
                    self.at += 1;
                    let name = self.take_while(|c| c.is_ascii_alphabetic());
                    self.push(Tok::Cmd(format!("not{name}")));
                }
            }
            n if INVISIBLE.contains(&n) => {
                // The point of `\left.` is no bracket.
                if matches!(n, "left" | "right") && self.peek(0) == '.' {
                    self.at += 1;
                }
                self.spaced = true;
            }
            n => match canonical(n) {
                c @ ("<" | ">" | "|" | "(" | ")" | "[" | "]" | "%" | ":" | "'") => {
                    self.push(Tok::Sym(c.chars().next()?));
                }
                "$" => self.push(Tok::Sym('$')),
                "cdot" => self.push(Tok::Sym('*')),
                "div" => self.push(Tok::Sym('/')),
                c => self.push(Tok::Cmd(c.to_owned())),
            },
        }
        Some(())
    }

    /// What stands in another face: a number, a letter, signs, or words.
    fn faced(&mut self, text: &str) {
        let mut chars = text.chars();
        let (first, second) = (chars.next(), chars.next());
        match (first, second) {
            (None, _) => self.spaced = true,
            (Some(c), None) if c.is_alphabetic() => self.push(Tok::Word(text.to_owned())),
            (Some(c), _) if !text.chars().any(char::is_alphabetic) || (c.is_ascii_digit() && !text.contains(' ')) => {
                // Mathematics in upright letters.
                let inner: Vec<char> = ascii(text).chars().collect();
                let lexer = Lexer {
                    chars: &inner,
                    at: 0,
                    depth: 0,
                    grouped: self.grouped,
                    out: Vec::new(),
                    spaced: self.spaced,
                };
                match lexer.run() {
                    Some(tokens) => {
                        self.out.extend(tokens);
                        self.spaced = false;
                    }
                    None => self.push(Tok::Text(text.to_owned())),
                }
            }
            _ => self.push(Tok::Text(text.to_owned())),
        }
    }

    /// An accent is part of a name. Digits under one are no name.
    fn accent(&mut self, name: &str) -> Option<()> {
        let from = self.at;
        let text = self.group()?;
        let text = text.trim();
        if matches!(name, "overline" | "bar") && text.contains(['+', '-']) {
            // A bar over a sum is the conjugate.
            self.at = from;
            self.push(Tok::Cmd("conj".to_owned()));
            return Some(());
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits {
            return None;
        }
        let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
        // A letter in another face under its mark.
        let letters = FACES
            .iter()
            .find_map(|f| letters.strip_prefix(f).filter(|l| l.len() == 1))
            .map_or(letters.clone(), str::to_owned);
        let arrow = matches!(name, "vec" | "overrightarrow") && letters.len() == 2;
        if letters.len() > 1 && !arrow && letters.chars().all(char::is_uppercase) {
            // A segment or a ray, as often written without its mark.
            self.push(Tok::Word(letters));
            return Some(());
        }
        // One name for the same accent, wide or not.
        let name = match name {
            "overline" => "bar",
            "widehat" => "hat",
            "overrightarrow" => "vec",
            "widetilde" => "tilde",
            n => n,
        };
        self.push(Tok::Cmd(format!("name {name} {letters}")));
        Some(())
    }

    /// The balanced content of the `{...}` that follows, without inner backslashes and dollar signs.
    fn group(&mut self) -> Option<String> {
        self.take_while(|c| c == ' ');
        if self.peek(0) != '{' {
            let c = self.peek(0);
            if c.is_alphanumeric() {
                self.at += 1;
                return Some(c.to_string());
            }
            return (c == '\\').then(|| {
                self.at += 1;
                self.take_while(|c| c.is_ascii_alphabetic())
            });
        }
        let (mut depth, from) = (0usize, self.at + 1);
        while self.at < self.chars.len() {
            match self.peek(0) {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                let inner: String = self.chars[from..self.at - 1].iter().collect();
                return Some(upright(&inner));
            }
        }
        None
    }
}
