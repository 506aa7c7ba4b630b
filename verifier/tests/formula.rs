//! Random formulas and the different ways to write each of them.

/// A small random number generator. The same seed gives the same numbers on every machine.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// A formula.
#[derive(Clone, Debug)]
pub enum Formula {
    Int(i64),
    Var(char),
    Add(Box<Formula>, Box<Formula>),
    Sub(Box<Formula>, Box<Formula>),
    Mul(Box<Formula>, Box<Formula>),
    Div(Box<Formula>, Box<Formula>),
    Pow(Box<Formula>, u32),
    Sqrt(Box<Formula>),
    Call(&'static str, Box<Formula>),
}

use Formula::{Add, Call, Div, Int, Mul, Pow, Sqrt, Sub, Var};

/// Returns a random formula of the given depth. Divisors and radicands are positive, so the formula has a value at some
/// point.
pub fn formula(rng: &mut Rng, depth: u32) -> Formula {
    if depth == 0 {
        return if rng.below(3) == 0 {
            Var(['x', 'y', 'n'][rng.below(3) as usize])
        } else {
            Int(rng.below(30) as i64 + 1)
        };
    }
    let inner = |rng: &mut Rng| Box::new(formula(rng, depth - 1));
    let positive = |rng: &mut Rng| {
        let square = Pow(Box::new(formula(rng, depth - 1)), 2);
        Box::new(Add(Box::new(square), Box::new(Int(rng.below(9) as i64 + 1))))
    };
    match rng.below(10) {
        0..3 => Add(inner(rng), inner(rng)),
        3 => Sub(inner(rng), inner(rng)),
        4..6 => Mul(inner(rng), inner(rng)),
        6 => Div(inner(rng), positive(rng)),
        7 => Pow(inner(rng), rng.below(3) as u32 + 2),
        8 => Sqrt(positive(rng)),
        _ => Call(["sin", "cos", "ln", "abs"][rng.below(4) as usize], positive(rng)),
    }
}

/// Style in which a formula is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// LaTeX without spaces.
    Tight,
    /// LaTeX with spaces, `\left` and `\right`, `\dfrac`, `\cdot`.
    Loose,
    /// Plain text.
    Plain,
}

/// Writes the formula in the given style.
pub fn write(f: &Formula, style: Style) -> String {
    let w = |f: &Formula| write(f, style);
    let group = |f: &Formula| match f {
        Int(n) if *n >= 0 => w(f),
        Var(_) => w(f),
        _ if style == Style::Loose => format!("\\left( {} \\right)", w(f)),
        _ => format!("({})", w(f)),
    };
    let (plus, minus) = if style == Style::Tight { ("+", "-") } else { (" + ", " - ") };
    match f {
        Int(n) => n.to_string(),
        Var(c) => c.to_string(),
        Add(a, b) => format!("{}{plus}{}", w(a), group(b)),
        Sub(a, b) => format!("{}{minus}{}", w(a), group(b)),
        Mul(a, b) => {
            let times = match style {
                Style::Tight => "\\cdot ",
                Style::Loose => " \\times ",
                Style::Plain => "*",
            };
            format!("{}{times}{}", group(a), group(b))
        }
        Div(a, b) => match style {
            Style::Tight => format!("\\frac{{{}}}{{{}}}", w(a), w(b)),
            Style::Loose => format!("\\dfrac {{ {} }} {{ {} }}", w(a), w(b)),
            Style::Plain => format!("({})/({})", w(a), w(b)),
        },
        Pow(a, n) => match style {
            Style::Plain => format!("({})^{n}", w(a)),
            _ => format!("{}^{{{n}}}", group(a)),
        },
        Sqrt(a) => {
            if style == Style::Plain {
                format!("sqrt({})", w(a))
            } else {
                format!("\\sqrt{{{}}}", w(a))
            }
        }
        Call("abs", a) => match style {
            Style::Tight => format!("|{}|", w(a)),
            Style::Loose => format!("\\left| {} \\right|", w(a)),
            Style::Plain => format!("abs({})", w(a)),
        },
        Call(name, a) => {
            if style == Style::Plain {
                format!("{name}({})", w(a))
            } else {
                format!("\\{name}({})", w(a))
            }
        }
    }
}

/// The number one, written in ten ways.
pub const ONES: [&str; 10] = [
    "1",
    "\\frac{7}{7}",
    "(3-2)",
    "\\sqrt{1}",
    "5^{0}",
    "\\sin^2(1)+\\cos^2(1)",
    "\\ln(e)",
    "|{-1}|",
    "0!",
    "\\log_{3}(3)",
];
