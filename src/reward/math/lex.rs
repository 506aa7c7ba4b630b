//! Text to tokens: LaTeX commands, numbers, letters and words, Unicode notation.

use crate::reward::python;

/// Longest text that is read as mathematics.
const MAX_CHARS: usize = 2_000;

/// A piece of notation.
#[derive(Clone, PartialEq, Debug)]
pub enum Tok {
    /// Digits with an optional point, as written (thousands separators removed).
    Num(String),
    /// A run of letters outside LaTeX commands.
    Word(String),
    /// A LaTeX command without its backslash.
    Cmd(String),
    /// The content of `\text{...}` and its kin.
    Text(String),
    /// `\{` and `\}`.
    Brace(bool),
    /// Operators, brackets, separators; the comparison signs are ASCII: `<`, `>`, `l` (at most), `g` (at least),
    /// `n` (not equal), `~` (about), `p` and `m` (plus-minus, minus-plus), `U` (union), `o` (degree).
    Sym(char),
}

/// A token and whether white space stands before it.
#[derive(Clone, PartialEq, Debug)]
pub struct Token {
    /// The token.
    pub tok: Tok,
    /// White space before it.
    pub spaced: bool,
}

/// Commands that only change how things look.
const INVISIBLE: [&str; 24] = [
    "left",
    "right",
    "big",
    "Big",
    "bigg",
    "Bigg",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "displaystyle",
    "textstyle",
    "limits",
    "nolimits",
    "quad",
    "qquad",
    "boldsymbol",
    "phantom",
    "hspace",
    "middle",
    "mathstrut",
    "boxed",
    "fbox",
    "bf",
];

/// Commands that are written as a sign.
fn command_sign(name: &str) -> Option<char> {
    Some(match name {
        "cdot" | "times" | "ast" => '*',
        "div" => '/',
        "le" | "leq" | "leqslant" => 'l',
        "ge" | "geq" | "geqslant" => 'g',
        "lt" => '<',
        "gt" => '>',
        "ne" | "neq" => 'n',
        "approx" | "sim" | "simeq" | "cong" | "equiv" => '~',
        "pm" => 'p',
        "mp" => 'm',
        "cup" => 'U',
        "circ" | "degree" => 'o',
        "colon" => ':',
        "mid" | "vert" | "lvert" | "rvert" => '|',
        "percent" => '%',
        "in" => 'i',
        _ => return None,
    })
}

/// Unicode notation as ASCII or LaTeX.
fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{2212}' | '\u{2013}' | '\u{2010}' | '\u{2011}' | '\u{fe63}' | '\u{ff0d}' => "-",
        '\u{d7}' | '\u{b7}' | '\u{22c5}' | '\u{2217}' | '\u{2062}' => "*",
        '\u{f7}' | '\u{2215}' | '\u{2044}' => "/",
        '\u{3c0}' => "\\pi ",
        '\u{221a}' => "\\sqrt ",
        '\u{221e}' => "\\infty ",
        '\u{2264}' | '\u{2a7d}' => "\\le ",
        '\u{2265}' | '\u{2a7e}' => "\\ge ",
        '\u{2260}' => "\\ne ",
        '\u{2248}' => "\\approx ",
        '\u{b1}' => "\\pm ",
        '\u{222a}' => "\\cup ",
        '\u{2208}' => "\\in ",
        '\u{b0}' | '\u{ba}' => "\\degree ",
        '\u{3b8}' => "\\theta ",
        '\u{b2}' => "^{2}",
        '\u{b3}' => "^{3}",
        '\u{b9}' => "^{1}",
        '\u{2070}' => "^{0}",
        '\u{2074}' => "^{4}",
        '\u{2075}' => "^{5}",
        '\u{2076}' => "^{6}",
        '\u{2077}' => "^{7}",
        '\u{2078}' => "^{8}",
        '\u{2079}' => "^{9}",
        '\u{bd}' => " \\frac{1}{2}",
        '\u{bc}' => " \\frac{1}{4}",
        '\u{be}' => " \\frac{3}{4}",
        '\u{2153}' => " \\frac{1}{3}",
        '\u{2154}' => " \\frac{2}{3}",
        '\u{215b}' => " \\frac{1}{8}",
        '\u{ff05}' => "%",
        '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' => " ",
        '\u{ff0e}' => ".",
        '\u{ff0c}' | '\u{3001}' => ",",
        '\u{ff08}' => "(",
        '\u{ff09}' => ")",
        '\u{ff1a}' => ":",
        '\u{20ac}' | '\u{a3}' | '\u{a5}' => "$",
        _ => return None,
    })
}

/// Tokens of `text`, or `None` when it is too long or holds what no notation has.
pub fn lex(text: &str) -> Option<Vec<Token>> {
    if text.chars().count() > MAX_CHARS {
        return None;
    }
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        match plain(c) {
            Some(s) => ascii.push_str(s),
            None => match python::digit_value(c) {
                Some(d) => ascii.push(char::from(b'0' + d)),
                None if python::is_space(c) => ascii.push(' '),
                None => ascii.push(c),
            },
        }
    }
    let mut ascii = ascii.replace("{,}", ",").replace(",\\!", ",").replace("\\!", "");
    // Escaped twice; only inside an environment are two backslashes a line break.
    if !ascii.contains("\\begin") {
        ascii = ascii.replace("\\\\", "\\");
    }
    if let Some(digits) = spaced_thousands(&ascii) {
        ascii = digits;
    }
    let chars: Vec<char> = ascii.chars().collect();
    Lexer { chars: &chars, at: 0, out: Vec::new(), spaced: false }.run()
}

/// `10 772 349` and `10\,772\,349` without the spaces, when the text is this one number.
fn spaced_thousands(text: &str) -> Option<String> {
    let text = text.trim().replace("\\,", " ");
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |d| ("-", d));
    let mut groups = digits.split(' ');
    let numeric = |g: &str| !g.is_empty() && g.bytes().all(|b| b.is_ascii_digit());
    let first = groups.next().is_some_and(|g| numeric(g) && g.len() <= 3);
    let rest: Vec<&str> = groups.collect();
    let grouped = first && !rest.is_empty() && rest.iter().all(|g| numeric(g) && g.len() == 3);
    grouped.then(|| format!("{sign}{}", digits.replace(' ', "")))
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
    out: Vec<Token>,
    spaced: bool,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn push(&mut self, tok: Tok) {
        self.out.push(Token { tok, spaced: self.spaced });
        self.spaced = false;
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
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
                ' ' | '~' => {
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
                '<' | '>' if self.peek(1) == '=' => {
                    self.at += 2;
                    self.push(Tok::Sym(if c == '<' { 'l' } else { 'g' }));
                }
                '+' | '-' | '*' | '/' | '^' | '_' | '(' | ')' | '[' | ']' | '{' | '}' | ',' | ';' | ':' | '|' | '!'
                | '%' | '=' | '<' | '>' => {
                    self.at += 1;
                    self.push(Tok::Sym(c));
                }
                // Currency and mathematics' own brackets say nothing about the value.
                '$' | '`' | '"' => {
                    self.at += 1;
                    self.spaced = true;
                }
                c if c.is_alphabetic() => {
                    let word = self.take_while(char::is_alphabetic);
                    self.push(Tok::Word(word));
                }
                '\'' => self.at += 1,
                _ => return None,
            }
        }
        Some(self.out)
    }

    /// `1,234,567.8`, `.5`, `12`; a comma belongs to the number when three digits follow, and no fourth.
    fn number(&mut self) {
        let mut text = self.take_while(|c| c.is_ascii_digit());
        let group =
            |s: &Self, at: usize| (1..=3).all(|k| s.peek(at + k).is_ascii_digit()) && !s.peek(at + 4).is_ascii_digit();
        if (1..=3).contains(&text.len()) && !text.starts_with('0') {
            while self.peek(0) == ',' && group(self, 0) {
                self.at += 1;
                text += &self.take_while(|c| c.is_ascii_digit());
            }
        }
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            self.at += 1;
            text = format!("{text}.{}", self.take_while(|c| c.is_ascii_digit()));
        } else if self.peek(0) == '.' && !self.peek(1).is_alphabetic() && self.peek(1) != '.' {
            self.at += 1;
        }
        // 1e3 and 1E-3, when the letter stands between digits.
        if matches!(self.peek(0), 'e' | 'E') {
            let sign = usize::from(matches!(self.peek(1), '+' | '-'));
            let digits = (0..).take_while(|&k| self.peek(1 + sign + k).is_ascii_digit()).count();
            if digits > 0 && digits < 6 && !self.peek(1 + sign + digits).is_alphabetic() {
                text.push('e');
                text.extend((1..=sign + digits).map(|k| self.peek(k)));
                self.at += 1 + sign + digits;
            }
        }
        self.push(Tok::Num(text));
    }

    fn command(&mut self) -> Option<()> {
        self.at += 1;
        let name = self.take_while(|c| c.is_ascii_alphabetic());
        match name.as_str() {
            "" => {
                let c = self.peek(0);
                self.at += 1;
                match c {
                    '{' => self.push(Tok::Brace(true)),
                    '}' => self.push(Tok::Brace(false)),
                    '%' | '|' => self.push(Tok::Sym(c)),
                    ' ' | ',' | ';' | ':' | '!' | '$' | '(' | ')' | '[' | ']' | '\\' | '>' | '&' | '#' | '\0' => {
                        self.spaced = true
                    }
                    _ => return None,
                }
            }
            "text" | "mathrm" | "textbf" | "textit" | "mathbf" | "mathit" | "mbox" | "textrm" | "operatorname"
            | "rm" | "mathsf" | "texttt" | "mathtt" => {
                let text = self.group()?;
                let text = text.trim();
                match text.parse::<f64>() {
                    // A number is a number also in upright letters.
                    Ok(_) if text.starts_with(|c: char| c.is_ascii_digit()) => self.push(Tok::Num(text.to_owned())),
                    _ if text.chars().count() == 1 && text.chars().all(char::is_alphabetic) => {
                        self.push(Tok::Word(text.to_owned()))
                    }
                    _ if text.is_empty() => self.spaced = true,
                    _ => self.push(Tok::Text(text.to_owned())),
                }
            }
            n if INVISIBLE.contains(&n) => self.spaced = true,
            n => match command_sign(n) {
                Some(sign) => self.push(Tok::Sym(sign)),
                None => self.push(Tok::Cmd(name)),
            },
        }
        Some(())
    }

    /// The balanced content of the `{...}` that follows.
    fn group(&mut self) -> Option<String> {
        self.take_while(|c| c == ' ');
        if self.peek(0) != '{' {
            return Some(self.take_while(char::is_alphanumeric));
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
                return Some(self.chars[from..self.at - 1].iter().filter(|&&c| c != '\\' && c != '$').collect());
            }
        }
        None
    }
}
