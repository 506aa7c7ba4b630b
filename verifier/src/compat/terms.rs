//! Parses tokens to expressions by the published grammar: the rules for factors side by side, for arguments, and for
//! operations that the library computes while it parses.

use super::number;
use super::token::{Kind, Token};
use super::tree::{Operator, Tree, beside, integer, negative, power, product, quotient, sum};
use crate::steps::Steps;

/// Maximum nesting, and maximum number of nested powers. The recursion of the published library cannot go deeper,
/// either.
pub(super) const MAX_DEPTH: usize = 30;

/// Brackets around a factor.
const BRACKETS: [(&str, &str); 9] = [
    ("{", "}"),
    ("(", ")"),
    ("[", "]"),
    ("\\{", "\\}"),
    ("lbrace", "rbrace"),
    ("lbrack", "rbrack"),
    ("lgroup", "rgroup"),
    ("floor", "floor"),
    ("ceil", "ceil"),
];

/// An expression and the position after it.
pub(super) type Term = Option<(Tree, usize)>;

/// Parser for the tokens of one formula.
pub(super) struct Reader<'a> {
    pub(super) tokens: &'a [Token],
    /// Position of the closing bracket for each opening round, square or curly bracket.
    pub(super) closes: Vec<Option<usize>>,
    /// True if letters stand for real numbers.
    pub(super) real: bool,
    pub(super) steps: &'a Steps,
}

/// Context in which a factor is parsed.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Context {
    /// True if functions are accepted here.
    pub(super) functions: bool,
    /// True inside bars. The next bar closes them.
    pub(super) bars: bool,
    pub(super) depth: usize,
}

/// A part of a product: an expression, or a derivative operator that applies to everything after it.
enum Piece {
    Tree(Tree),
    Derive(Tree),
}

impl<'a> Reader<'a> {
    pub(super) fn new(tokens: &'a [Token], real: bool, steps: &'a Steps) -> Self {
        let mut closes = vec![None; tokens.len()];
        let mut open: Vec<(usize, bool)> = Vec::new();
        for (i, t) in tokens.iter().enumerate() {
            let curly = matches!(t.text.as_str(), "{" | "}" | "\\{" | "\\}" | "lbrace" | "rbrace");
            match t.kind {
                Kind::Open => open.push((i, curly)),
                Kind::Close => match open.pop() {
                    Some((at, c)) if c == curly => closes[at] = Some(i),
                    _ => open.clear(),
                },
                _ => {}
            }
        }
        Reader { tokens, closes, real, steps }
    }

    pub(super) fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |t| t.text.as_str())
    }

    pub(super) fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|t| t.kind)
    }

    /// Returns true if the token is an operator or bracket with this text.
    pub(super) fn is(&self, at: usize, text: &str) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|t| t.text == text && matches!(t.kind, Kind::Sign | Kind::Open | Kind::Close | Kind::Relation))
    }

    pub(super) fn symbol(&self, name: &str) -> Tree {
        let lower = name.to_lowercase();
        match lower.as_str() {
            "pi" => Tree::Constant("pi"),
            "gamma" => Tree::Constant("gamma"),
            _ => Tree::Symbol(lower, self.real),
        }
    }

    /// Parses a sum.
    pub(super) fn expr(&self, at: usize, depth: usize) -> Term {
        self.additive(at, Context { functions: true, bars: false, depth })
    }

    pub(super) fn additive(&self, at: usize, c: Context) -> Term {
        if c.depth > MAX_DEPTH {
            return None;
        }
        self.steps.spend(4)?;
        let (mut left, mut at) = self.multiplicative(at, c)?;
        while self.is(at, "+") || self.is(at, "-") {
            let Some((right, end)) = self.multiplicative(at + 1, c) else { break };
            let right = if self.is(at, "-") { negative(right) } else { right };
            (left, at) = (sum(left, right), end);
        }
        Some((left, at))
    }

    pub(super) fn multiplicative(&self, at: usize, c: Context) -> Term {
        let (mut left, mut at) = self.unary(at, c)?;
        while let Some(sign) = self.tokens.get(at).filter(|t| t.kind == Kind::Sign) {
            if !matches!(sign.text.as_str(), "*" | "/" | ":" | "mod") {
                break;
            }
            let Some((right, end)) = self.unary(at + 1, c) else { break };
            left = match sign.text.as_str() {
                "*" => product(left, right),
                "mod" => Tree::Call("mod", vec![left, right]),
                _ => quotient(left, right),
            };
            at = end;
        }
        Some((left, at))
    }

    fn unary(&self, at: usize, c: Context) -> Term {
        let mut start = at;
        let mut minus = false;
        while self.is(start, "+") || self.is(start, "-") {
            minus ^= self.is(start, "-");
            start += 1;
        }
        let (mut pieces, mut at) = (Vec::new(), start);
        // In the argument of a function without brackets, only the first factor may be a function.
        while let Some((piece, end)) = self.postfix(at, Context { functions: c.functions || pieces.is_empty(), ..c }) {
            pieces.push(piece);
            at = end;
        }
        // The loop runs from the last factor to the first, because a mixed number takes the factor to its right. The
        // factors are stored in reverse order.
        let mut factors: Vec<Tree> = Vec::new();
        let gathered = |mut factors: Vec<Tree>| {
            factors.reverse();
            if factors.len() > 1 { Some(Tree::Mul(factors)) } else { factors.pop() }
        };
        while let Some(piece) = pieces.pop() {
            match piece {
                Piece::Derive(var) => factors = vec![derivative(gathered(factors)?, var)],
                Piece::Tree(t) => match (t, factors.len()) {
                    (t, 1) => match beside(t, factors.pop()?) {
                        Tree::Mul(all) => factors.extend(all.into_iter().rev()),
                        number => factors.push(number),
                    },
                    (Tree::Mul(all), 2..) => factors.extend(all.into_iter().rev()),
                    (t, _) => factors.push(t),
                },
            }
        }
        gathered(factors).map(|t| (if minus { negative(t) } else { t }, at))
    }

    fn postfix(&self, at: usize, c: Context) -> Option<(Piece, usize)> {
        self.steps.spend(2)?;
        if let Some((var, end)) = self.derives(at) {
            return Some((Piece::Derive(var), end));
        }
        let (mut base, mut at) = self.raised(at, c)?;
        for _ in 0..MAX_DEPTH {
            if self.is(at, "!") {
                base = Tree::Call("factorial", vec![base]);
            } else if self.is(at, "^T") {
                base = transposed(base);
            } else if !self.is(at, "degree") {
                break;
            }
            at += 1;
        }
        Some((Piece::Tree(base), at))
    }

    fn raised(&self, at: usize, c: Context) -> Term {
        let (mut base, mut at) = self.component(at, c)?;
        for _ in 0..MAX_DEPTH {
            if !self.is(at, "^") {
                break;
            }
            let Some((exponent, end)) = self.script(at + 1, c.depth) else { break };
            base = power(base, exponent);
            at = self.subscript(end, c.depth).map_or(end, |(_, e)| e);
        }
        Some((base, at))
    }

    /// Parses a superscript: an atom, or an expression in braces.
    pub(super) fn script(&self, at: usize, depth: usize) -> Term {
        if self.is(at, "{") { self.braced(at, depth) } else { self.atom(at, depth + 1) }
    }

    /// Parses an index and returns its text.
    pub(super) fn subscript(&self, at: usize, depth: usize) -> Option<(String, usize)> {
        if !self.is(at, "_") {
            return None;
        }
        let from = at + 1;
        if self.is(from, "{") {
            let (_, end) = self.several(from + 1, ",", depth)?;
            return self.is(end, "}").then(|| (self.spelled(from + 1, end), end + 1));
        }
        let (_, end) = self.atom(from, depth + 1)?;
        Some((self.spelled(from, end), end))
    }

    pub(super) fn spelled(&self, from: usize, to: usize) -> String {
        let command = |t: &Token| {
            let named = matches!(t.kind, Kind::Greek | Kind::Other | Kind::Function | Kind::Several | Kind::Accent)
                || (t.kind == Kind::Sign && t.text.len() > 1 && t.text.chars().all(|c| c.is_ascii_alphabetic()));
            let closed = if t.kind == Kind::Accent { "}" } else { "" };
            format!("{}{}{closed}", if named { "\\" } else { "" }, t.text)
        };
        self.tokens[from..to].iter().map(command).collect()
    }

    fn component(&self, at: usize, c: Context) -> Term {
        let token = self.tokens.get(at)?;
        if c.functions
            && let Some(found) = self.function(at, c)
        {
            return Some(found);
        }
        match (token.kind, token.text.as_str()) {
            (Kind::Open, open) if open.starts_with("rows") || open.starts_with("determinant") => {
                let (rows, end) = self.rows(at, c.depth)?;
                if open.starts_with("determinant") {
                    return number::determinant(&rows, self.steps).map(|d| (d, end));
                }
                Some((Tree::Matrix(rows), end))
            }
            (Kind::Open, open) => {
                let &(_, close) = BRACKETS.iter().find(|b| b.0 == open)?;
                let (e, end) = self.inside(at + 1, close, c.depth)?;
                let is_function = matches!(close, "floor" | "ceil");
                Some((if is_function { Tree::Call(close, vec![e]) } else { e }, end))
            }
            (Kind::Sign, bar @ ("|" | "vert" | "lvert")) => {
                if bar == "|" && c.bars {
                    return None;
                }
                let close = if bar == "lvert" { "rvert" } else { bar };
                let inner = Context { functions: true, bars: bar == "|", depth: c.depth + 1 };
                let (e, end) = self.additive(at + 1, inner)?;
                self.is(end, close).then(|| (Tree::Call("abs", vec![e]), end + 1))
            }
            (Kind::Sign, sign @ ("frac" | "binom")) => {
                let (upper, middle) = self.braced(at + 1, c.depth)?;
                let (lower, end) = self.braced(middle, c.depth)?;
                if sign == "binom" {
                    return Some((number::binomial(upper, lower), end));
                }
                let derived = self.differential_quotient(at, middle);
                Some((derived.unwrap_or_else(|| quotient(upper, lower)), end))
            }
            _ => self.atom(at, c.depth),
        }
    }

    /// Parses an expression and the bracket behind it.
    pub(super) fn inside(&self, at: usize, close: &str, depth: usize) -> Term {
        let (e, end) = self.expr(at, depth + 1)?;
        self.is(end, close).then_some((e, end + 1))
    }

    /// Parses an expression in braces.
    pub(super) fn braced(&self, at: usize, depth: usize) -> Term {
        if self.is(at, "{") { self.inside(at + 1, "}", depth) } else { None }
    }

    /// Parses expressions with a separator between them.
    pub(super) fn several(&self, at: usize, separator: &str, depth: usize) -> Option<(Vec<Tree>, usize)> {
        let (e, mut at) = self.expr(at, depth + 1)?;
        let mut all = vec![e];
        while self.is(at, separator) {
            let (e, end) = self.expr(at + 1, depth + 1)?;
            all.push(e);
            at = end;
        }
        Some((all, at))
    }

    /// Parses `\frac{d}{dx}` and returns the variable.
    fn derives(&self, at: usize) -> Term {
        let lower = self.is(at, "frac")
            && self.is(at + 1, "{")
            && self.text(at + 2) == "d"
            && self.is(at + 3, "}")
            && self.is(at + 4, "{")
            && self.kind(at + 5) == Some(Kind::Differential)
            && self.is(at + 6, "}");
        lower.then(|| (Tree::Symbol(self.text(at + 5).to_owned(), self.real), at + 7))
    }

    /// Parses `\frac{dy}{dx}`: the derivative of a letter.
    fn differential_quotient(&self, at: usize, middle: usize) -> Option<Tree> {
        if self.kind(middle + 1) != Some(Kind::Differential) || !self.is(middle + 2, "}") {
            return None;
        }
        let var = Tree::Symbol(self.text(middle + 1).to_owned(), self.real);
        let upper = self.tokens.get(at + 2).filter(|t| t.kind == Kind::Differential && at + 4 == middle)?;
        Some(derivative(self.symbol(&upper.text), var))
    }

    fn rows(&self, at: usize, depth: usize) -> Option<(Vec<Vec<Tree>>, usize)> {
        let kind = self.text(at).to_owned();
        let (mut rows, mut at) = (Vec::new(), at + 1);
        loop {
            let (row, end) = self.several(at, "&", depth)?;
            rows.push(row);
            let more = self.is(end, "\\\\");
            at = end + usize::from(more);
            if self.kind(at) == Some(Kind::Close) && self.text(at) == kind {
                // All rows have the same length.
                return rows.iter().all(|r| r.len() == rows[0].len()).then_some((rows, at + 1));
            }
            if !more {
                return None;
            }
        }
    }

    /// Parses a letter or name with index and exponent, a number, or infinity.
    pub(super) fn atom(&self, at: usize, depth: usize) -> Term {
        if depth > MAX_DEPTH {
            return None;
        }
        let token = self.tokens.get(at)?;
        match token.kind {
            Kind::Letter | Kind::Greek | Kind::Other | Kind::Accent => {
                let mut end = at + 1;
                let mut index = None;
                if let Some((text, e)) = self.subscript(end, depth) {
                    (index, end) = (Some(text), e);
                }
                // The published library drops index and exponent of a capital `I`.
                if token.kind == Kind::Letter && token.text == "I" {
                    return Some((Tree::Constant("i"), end));
                }
                Some((self.symbol(&self.name(at, index.as_deref())), end))
            }
            Kind::Number => {
                let end = self.subscript(at + 1, depth).map_or(at + 1, |(_, e)| e);
                Some((number::read(&token.text)?, end))
            }
            Kind::Power => Some((number::read(&token.text)?, at + 1)),
            Kind::Percent => Some((Tree::Percent(Box::new(number::read(&token.text)?)), at + 1)),
            Kind::CapitalE => Some((Tree::Symbol("e".to_owned(), self.real), at + 1)),
            Kind::Differential => Some((Tree::Symbol(format!("d{}", token.text), self.real), at + 1)),
            Kind::Function if matches!(token.text.as_str(), "Gamma" | "gamma") => {
                Some((Tree::Constant("gamma"), at + 1))
            }
            Kind::Sign if token.text == "infty" => Some((Tree::Infinite(true), at + 1)),
            _ => None,
        }
    }

    /// Returns the name of a letter, symbol or text, with its index.
    fn name(&self, at: usize, index: Option<&str>) -> String {
        let token = &self.tokens[at];
        let base = match (token.kind, token.text.split_once('{')) {
            (Kind::Accent, Some((accent, text))) => {
                let text = text.replace(' ', "");
                match accent {
                    "bar" | "overline" => format!("bar{{{text}}}"),
                    "vec" | "overrightarrow" => format!("vec{{{text}}}"),
                    "tilde" | "widetilde" => format!("tilde{{{text}}}"),
                    a if a.contains("text") || a == "mbox" => text.replace(['(', ')'], ""),
                    a if a.starts_with("math") => format!("math{{{text}}}"),
                    a => format!("{a}{{{text}}}"),
                }
            }
            _ => token.text.clone(),
        };
        let base = base.trim().to_owned();
        match index {
            None => base,
            Some(i) if i.chars().count() > 1 => format!("{base}_{{{i}}}"),
            Some(i) => format!("{base}_{i}"),
        }
    }
}

fn derivative(body: Tree, var: Tree) -> Tree {
    Tree::Bound(Operator::Derivative, Box::new(body), Box::new(var), Box::new([integer(0), integer(0)]))
}

fn transposed(t: Tree) -> Tree {
    match t {
        Tree::Matrix(rows) => {
            let columns = rows.first().map_or(0, Vec::len);
            Tree::Matrix((0..columns).map(|j| rows.iter().map(|r| r[j].clone()).collect()).collect())
        }
        t => t,
    }
}
