//! Lexer: splits text into LaTeX commands, letters, words and numbers. Numbers may have groups, points, repeating
//! digits and exponents.

use crate::lexicon::{self, Kind};
use crate::normalise::JOIN;
use crate::steps::Steps;

/// Maximum length in bytes of a text that is parsed as mathematics.
const MAX_BYTES: usize = 12_000;
/// Maximum nesting of brackets and functions.
pub(crate) const MAX_DEPTH: usize = 60;

/// The content of a token.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Tok {
    /// Digits with an optional point and exponent, as written, without thousands separators.
    Num(String),
    /// A run of letters outside LaTeX commands.
    Word(String),
    /// A LaTeX command without its backslash. The escaped braces are `{` and `}`.
    Cmd(String),
    /// The content of `\text{...}` and similar commands.
    Text(String),
    /// An operator, bracket or separator.
    Sym(char),
}

/// A token, with a flag for white space before it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) spaced: bool,
}

/// Returns true if a token is this sign.
pub(crate) fn is(token: Option<&Token>, sign: char) -> bool {
    token.is_some_and(|t| t.tok == Tok::Sym(sign))
}

/// Returns true if a token is this command.
pub(crate) fn is_cmd(token: Option<&Token>, name: &str) -> bool {
    token.is_some_and(|t| matches!(&t.tok, Tok::Cmd(c) if c == name))
}

/// Returns a token as text.
pub(crate) fn shown(tok: &Tok) -> String {
    match tok {
        Tok::Num(t) | Tok::Word(t) | Tok::Cmd(t) | Tok::Text(t) => t.trim().to_owned(),
        Tok::Sym(c) => c.to_string(),
    }
}

/// Returns true for the name of a Greek letter or of a similar symbol that stands for itself.
pub(crate) fn is_greek(name: &str) -> bool {
    name == "ell" || (name != "pi" && lexicon::is(Kind::Greek, name))
}

/// Returns the tokens of `text`, or `None` if it is too long or contains a character that no notation uses. If
/// `grouped` is true, commas and spaces between groups of three digits are thousands separators.
pub(crate) fn lex(text: &str, grouped: bool, steps: &Steps) -> Option<Vec<Token>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    steps.spend(text.len() as u64)?;
    let chars: Vec<char> = text.chars().collect();
    Lexer { chars: &chars, at: 0, depth: 0, grouped, out: Vec::new(), spaced: false }.run()
}

pub(crate) struct Lexer<'a> {
    pub(crate) chars: &'a [char],
    pub(crate) at: usize,
    /// Number of open brackets other than braces.
    pub(crate) depth: usize,
    pub(crate) grouped: bool,
    pub(crate) out: Vec<Token>,
    pub(crate) spaced: bool,
}

impl Lexer<'_> {
    pub(crate) fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    pub(crate) fn push(&mut self, tok: Tok) {
        self.out.push(Token { tok, spaced: self.spaced });
        self.spaced = false;
    }

    pub(crate) fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
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
                ' ' | '\n' | '\t' | '\r' => {
                    self.at += 1;
                    self.spaced = true;
                }
                '0'..='9' => self.number(),
                '.' if self.peek(1).is_ascii_digit() => self.number(),
                '\\' => self.command()?,
                c if self.operator(c) => {}
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
                '$' => self.currency(c),
                c if !c.is_alphanumeric() && lexicon::is(Kind::Currency, c.encode_utf8(&mut [0; 4])) => {
                    self.currency(c)
                }
                '`' | '"' | JOIN => {
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
                    self.push(Tok::Word(word));
                }
                '?' => self.at += 1,
                _ => return None,
            }
        }
        Some(self.out)
    }

    /// Reads an operator of two or three signs.
    fn operator(&mut self, c: char) -> bool {
        let (tok, length) = match (c, self.peek(1), self.peek(2)) {
            ('*', '*', _) => (Tok::Sym('^'), 2),
            ('<', '=', _) => (Tok::Cmd("le".into()), 2),
            ('>', '=', _) => (Tok::Cmd("ge".into()), 2),
            ('!', '=', _) => (Tok::Cmd("ne".into()), 2),
            ('=', '=', _) => (Tok::Sym('='), 2),
            ('=', '>', _) => (Tok::Cmd("Rightarrow".into()), 2),
            ('-', '>', _) => (Tok::Cmd("rightarrow".into()), 2),
            // At the beginning, `+-` means plus or minus, because no sum begins with it.
            ('+', '-', d) if self.out.is_empty() && d.is_ascii_digit() => (Tok::Cmd("pm".into()), 2),
            ('+', '/', '-') => (Tok::Cmd("pm".into()), 3),
            _ => return false,
        };
        self.at += length;
        self.push(tok);
        true
    }

    fn sign(&mut self, c: char) {
        self.at += 1;
        self.push(Tok::Sym(c));
    }

    /// Reads a currency sign before or after an amount. Any other dollar sign marks mathematics and is dropped.
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
                ' ' | ',' | ';' | ':' | '!' | '(' | ')' | '[' | ']' | '>' | '#' | '\0' | '\n' => self.spaced = true,
                _ => return None,
            }
            return Some(());
        }
        match name.as_str() {
            "text" | "bold" => {
                if self.peek(0) == '*' {
                    self.at += 1;
                }
                let text = self.group()?;
                // A single upright letter is more often a unit than a factor.
                self.spaced |= name == "text";
                self.faced(text.trim());
            }
            "mathbb" | "mathcal" => {
                let text = self.group()?;
                if name != "mathbb" && self.peek(0) == '(' {
                    // The notation `\mathcal{N}(0, 1)`.
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
            "bar" | "vec" | "hat" | "tilde" | "dot" | "ddot" => self.accent(&name)?,
            "boxed" | "fbox" => self.spaced = true,
            "cdot" => self.push(Tok::Sym('*')),
            "div" => self.push(Tok::Sym('/')),
            _ => self.push(Tok::Cmd(name)),
        }
        Some(())
    }

    /// Reads text in another font: a number, a letter, signs, or words.
    fn faced(&mut self, text: &str) {
        let mut chars = text.chars();
        let (first, second) = (chars.next(), chars.next());
        match (first, second) {
            (None, _) => self.spaced = true,
            (Some(c), None) if c.is_alphabetic() => self.push(Tok::Word(text.to_owned())),
            (Some(c), _) if !text.chars().any(char::is_alphabetic) || (c.is_ascii_digit() && !text.contains(' ')) => {
                // Mathematics in an upright font.
                let inner: Vec<char> = text.chars().collect();
                match (Lexer { chars: &inner, at: 0, depth: 0, out: Vec::new(), ..*self }).run() {
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

    /// Reads an accent as part of a name. Digits below an accent are not a name.
    fn accent(&mut self, name: &str) -> Option<()> {
        let text = self.group()?;
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits {
            return None;
        }
        let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
        if letters.len() > 1 && letters.chars().all(char::is_uppercase) {
            // A segment or a ray, which is often written without its accent.
            self.push(Tok::Word(letters));
            return Some(());
        }
        self.push(Tok::Cmd(format!("name {name} {letters}")));
        Some(())
    }

    /// Returns the balanced content of the following `{...}`, without inner backslashes.
    fn group(&mut self) -> Option<String> {
        self.take_while(|c| c == ' ');
        if self.peek(0) != '{' {
            let c = self.peek(0);
            if c.is_alphanumeric() {
                self.at += 1;
                return Some(c.to_string());
            }
            return None;
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
                // Thin spaces and dots between units.
                let spaced = inner.replace("\\,", " ").replace("\\;", " ").replace("\\cdot", " * ");
                return Some(spaced.replace('\\', ""));
            }
        }
        None
    }
}

impl Lexer<'_> {
    pub(crate) fn number(&mut self) {
        let mut text = self.take_while(|c| c.is_ascii_digit());
        if (1..=3).contains(&text.len()) && !text.starts_with('0') {
            while let Some(n) = self.separator().filter(|&n| self.triple(n)) {
                self.at += n;
                text += &self.take_while(|c| c.is_ascii_digit());
            }
        }
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            self.at += 1;
            text = format!("{text}.{}", self.take_while(|c| c.is_ascii_digit()));
        } else if self.peek(0) == '.' && self.repeating(1).is_some() {
            self.at += 1;
            text.push('.');
        } else if self.peek(0) == '.' && !self.peek(1).is_alphabetic() && self.peek(1) != '.' && self.peek(1) != '\\' {
            self.at += 1;
        }
        if text.contains('.') {
            if let Some((digits, length)) = self.repeating(0) {
                self.at += length;
                text = format!("{text}({digits}");
            } else if let Some(length) = self.dots() {
                self.at += length;
                if let Some(digits) = period(&text) {
                    text = format!("{text}({digits}");
                }
            }
        }
        // Exponents such as 1e3 and 1E-3. The letter must stand between digits.
        if matches!(self.peek(0), 'e' | 'E') {
            let sign = usize::from(matches!(self.peek(1), '+' | '-'));
            let digits = (0..8).take_while(|&k| self.peek(1 + sign + k).is_ascii_digit()).count();
            if digits > 0 && digits < 6 && !self.peek(1 + sign + digits).is_alphabetic() {
                text.push('e');
                text.extend((1..=sign + digits).map(|k| self.peek(k)));
                self.at += 1 + sign + digits;
            }
        }
        self.push(Tok::Num(text));
    }

    /// Returns true if exactly three digits follow at offset `ahead`.
    pub(crate) fn triple(&self, ahead: usize) -> bool {
        (0..3).all(|k| self.peek(ahead + k).is_ascii_digit()) && !self.peek(ahead + 3).is_ascii_digit()
    }

    /// Returns the number of characters that separate digit groups at this position: `1,000`, `1 000`, `1\,000`.
    pub(crate) fn separator(&self) -> Option<usize> {
        match (self.peek(0), self.peek(1)) {
            (JOIN, _) => Some(1),
            (',', _) if self.grouped && self.depth == 0 && !self.in_set() => Some(1),
            (' ', d) if self.grouped && d.is_ascii_digit() && self.depth == 0 => Some(1),
            ('\\', ',' | ' ' | ';' | ':') => Some(2),
            ('_' | '\'', d) if d.is_ascii_digit() && self.triple(1) => Some(1),
            _ => None,
        }
    }

    pub(crate) fn in_set(&self) -> bool {
        let escaped = |t: &&Token| matches!(&t.tok, Tok::Cmd(c) if c == "{" || c == "}");
        self.out.iter().rev().find(escaped).is_some_and(|t| t.tok == Tok::Cmd("{".into()))
    }

    /// Reads repeating digits, `\overline{36}` or `(36)`. Returns them and the length of their notation.
    pub(crate) fn repeating(&self, ahead: usize) -> Option<(String, usize)> {
        let rest = &self.chars[(self.at + ahead).min(self.chars.len())..];
        let opens = |mark: &str| rest.len() > mark.len() && mark.chars().zip(rest).all(|(a, b)| a == *b);
        let (mark, close) = [("\\bar{", '}'), ("\\dot{", '}'), ("(", ')')].into_iter().find(|(mark, _)| opens(mark))?;
        let digits: String = rest[mark.len()..].iter().take(60).take_while(|c| c.is_ascii_digit()).collect();
        let end = mark.len() + digits.len();
        (!digits.is_empty() && rest.get(end) == Some(&close)).then_some((digits, end + 1))
    }

    /// Returns the length of a sequence of dots that means that the digits continue.
    pub(crate) fn dots(&self) -> Option<usize> {
        let rest = &self.chars[self.at..];
        ["...", "\\dots"]
            .into_iter()
            .find(|mark| rest.len() >= mark.len() && mark.chars().zip(rest).all(|(a, b)| a == *b))
            .map(str::len)
    }
}

/// Returns the repeating digits at the end of a decimal that continues. A single digit must occur three times, a longer
/// block twice.
fn period(number: &str) -> Option<&str> {
    let (_, digits) = number.split_once('.')?;
    (1..=digits.len() / 2).find_map(|n| {
        let block = &digits[digits.len() - n..];
        let times = if n == 1 { 3 } else { 2 };
        digits.ends_with(&block.repeat(times)).then_some(block)
    })
}
