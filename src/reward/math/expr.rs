//! Expressions: exact rational value where there is one, complex value at a sample point otherwise.

use num_bigint::BigInt;
use num_rational::Ratio;

/// An exact rational number.
pub type BigRational = Ratio<BigInt>;

/// Largest size of an exact result, in bits: 10^10^10 must not be tried.
const MAX_BITS: u64 = 10_000;
/// Largest argument of an exact factorial.
const MAX_FACTORIAL: u32 = 1_000;

/// A scalar expression.
#[derive(Clone, PartialEq, Debug)]
pub enum Expr {
    /// A number as written; `decimals` counts digits after the point of a decimal.
    Num {
        /// Its exact value.
        value: BigRational,
        /// Digits after the point, when it has one.
        decimals: Option<u32>,
    },
    /// A variable or constant by name.
    Var(String),
    /// Sum.
    Add(Vec<Expr>),
    /// Product.
    Mul(Vec<Expr>),
    /// Power; roots are powers too.
    Pow(Box<Expr>, Box<Expr>),
    /// A function of its arguments.
    Call(&'static str, Vec<Expr>),
}

/// A complex number.
pub type Complex = (f64, f64);

/// An integer as a number.
pub fn integer(value: i64) -> Expr {
    Expr::Num { value: BigRational::from_integer(value.into()), decimals: None }
}

/// `-x`.
pub fn negate(x: Expr) -> Expr {
    match x {
        Expr::Num { value, decimals } => Expr::Num { value: -value, decimals },
        x => Expr::Mul(vec![integer(-1), x]),
    }
}

/// `1 / x`.
pub fn invert(x: Expr) -> Expr {
    Expr::Pow(Box::new(x), Box::new(integer(-1)))
}

fn bits(x: &BigRational) -> u64 {
    x.numer().bits() + x.denom().bits()
}

fn small(x: BigRational) -> Option<BigRational> {
    (bits(&x) <= MAX_BITS).then_some(x)
}

fn to_u32(x: &BigRational) -> Option<u32> {
    x.is_integer().then(|| u32::try_from(x.numer()).ok()).flatten()
}

impl Expr {
    /// The exact value, when the expression is rational and not too large.
    pub fn exact(&self) -> Option<BigRational> {
        match self {
            Expr::Num { value, .. } => Some(value.clone()),
            Expr::Var(_) => None,
            Expr::Add(terms) => {
                let mut sum = BigRational::from_integer(0.into());
                for t in terms {
                    sum = small(sum + t.exact()?)?;
                }
                Some(sum)
            }
            Expr::Mul(factors) => {
                let mut product = BigRational::from_integer(1.into());
                for f in factors {
                    product = small(product * f.exact()?)?;
                }
                Some(product)
            }
            Expr::Pow(base, exponent) => power(&base.exact()?, &exponent.exact()?),
            Expr::Call(name, args) => {
                let args: Vec<BigRational> = args.iter().map(Expr::exact).collect::<Option<_>>()?;
                call_exact(name, &args)
            }
        }
    }

    /// The value with each variable at a point of its own; not finite where it has none.
    pub fn at(&self, point: u64) -> Complex {
        match self {
            Expr::Num { value, .. } => (ratio(value), 0.0),
            Expr::Var(name) => variable(name, point),
            Expr::Add(terms) => terms.iter().fold((0.0, 0.0), |s, t| {
                let v = t.at(point);
                (s.0 + v.0, s.1 + v.1)
            }),
            Expr::Mul(factors) => factors.iter().fold((1.0, 0.0), |p, f| mul(p, f.at(point))),
            Expr::Pow(base, exponent) => pow(base.at(point), exponent.at(point)),
            Expr::Call(name, args) => call(name, &args.iter().map(|a| a.at(point)).collect::<Vec<_>>()),
        }
    }

    /// Digits after the point when the expression is one decimal, with or without sign, and how many of its
    /// digits are significant.
    pub fn decimal(&self) -> Option<(u32, u32)> {
        match self {
            Expr::Num { value, decimals: Some(d) } => {
                let scaled = value * BigRational::from_integer(BigInt::from(10).pow(*d));
                Some((*d, scaled.to_integer().magnitude().to_string().len() as u32))
            }
            _ => None,
        }
    }

    /// True when it is one variable.
    pub fn is_var(&self) -> bool {
        matches!(self, Expr::Var(_))
    }

    /// True when a number occurs.
    pub fn has_numbers(&self) -> bool {
        match self {
            Expr::Num { .. } => true,
            Expr::Var(_) => false,
            Expr::Add(list) | Expr::Mul(list) | Expr::Call(_, list) => list.iter().any(Expr::has_numbers),
            Expr::Pow(a, b) => a.has_numbers() || b.has_numbers(),
        }
    }

    /// True when a variable occurs, constants aside.
    pub fn has_variables(&self) -> bool {
        match self {
            Expr::Num { .. } => false,
            Expr::Var(name) => !matches!(name.as_str(), "pi" | "e" | "i" | "infty"),
            Expr::Add(list) | Expr::Mul(list) | Expr::Call(_, list) => list.iter().any(Expr::has_variables),
            Expr::Pow(a, b) => a.has_variables() || b.has_variables(),
        }
    }
}

/// Nearest f64; numbers beyond its range become infinite or 0.
fn ratio(x: &BigRational) -> f64 {
    let parse = |i: &BigInt| i.to_string().parse::<f64>().unwrap_or(f64::NAN);
    let (n, d) = (x.numer(), x.denom());
    if n.bits() < 1000 && d.bits() < 1000 {
        return parse(n) / parse(d);
    }
    let drop = n.bits().min(d.bits()).saturating_sub(900);
    parse(&(n >> drop)) / parse(&(d >> drop))
}

/// `base^exponent` where it is rational: integer exponents, and roots of perfect powers.
fn power(base: &BigRational, exponent: &BigRational) -> Option<BigRational> {
    let zero = BigRational::from_integer(0.into());
    if exponent.is_integer() {
        let n = i32::try_from(exponent.numer()).ok()?;
        if *base == zero && n <= 0 {
            return None;
        }
        let unit = base.numer().bits() <= 1 && base.denom().bits() <= 1;
        if !unit && bits(base).saturating_mul(u64::from(n.unsigned_abs())) > MAX_BITS {
            return None;
        }
        return Some(if unit && n % 2 == 0 {
            base * base
        } else if unit {
            base.clone()
        } else {
            base.pow(n)
        });
    }
    let root = u32::try_from(exponent.denom()).ok().filter(|&r| r <= 64)?;
    if *base < zero {
        return None;
    }
    let (n, d) = (base.numer().nth_root(root), base.denom().nth_root(root));
    if n.pow(root) != *base.numer() || d.pow(root) != *base.denom() {
        return None;
    }
    power(&BigRational::new(n, d), &BigRational::from_integer(exponent.numer().clone()))
}

fn call_exact(name: &str, args: &[BigRational]) -> Option<BigRational> {
    let whole = |i: BigInt| BigRational::from_integer(i);
    match (name, args) {
        ("abs", [x]) => Some(if *x < whole(0.into()) { -x } else { x.clone() }),
        ("floor", [x]) => Some(x.floor()),
        ("ceil", [x]) => Some(x.ceil()),
        ("factorial", [x]) => {
            let n = to_u32(x).filter(|&n| n <= MAX_FACTORIAL)?;
            Some(whole((1..=n).fold(BigInt::from(1), |p, k| p * k)))
        }
        ("binom", [n, k]) => {
            let (n, k) = (to_u32(n).filter(|&n| n <= MAX_FACTORIAL)?, to_u32(k)?);
            if k > n {
                return Some(whole(0.into()));
            }
            Some(whole((1..=k.min(n - k)).fold(BigInt::from(1), |p, j| p * (n + 1 - j) / j)))
        }
        ("base", [digits, base]) => {
            let base = to_u32(base).filter(|b| (2..=36).contains(b))?;
            let parsed =
                BigInt::parse_bytes(digits.is_integer().then(|| digits.numer().to_string())?.as_bytes(), base)?;
            Some(whole(parsed))
        }
        ("max", [first, rest @ ..]) => Some(rest.iter().fold(first, |m, x| m.max(x)).clone()),
        ("min", [first, rest @ ..]) => Some(rest.iter().fold(first, |m, x| m.min(x)).clone()),
        _ => None,
    }
}

/// A fixed value of a variable at a sample point, between 1/2 and 5/2, different for each name and point.
fn variable(name: &str, point: u64) -> Complex {
    match name {
        "pi" => return (std::f64::consts::PI, 0.0),
        "e" => return (std::f64::consts::E, 0.0),
        "i" => return (0.0, 1.0),
        "infty" => return (f64::INFINITY, 0.0),
        _ => {}
    }
    let mut h = 0xcbf2_9ce4_8422_2325u64 ^ point.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for b in name.bytes() {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        h ^= h >> 29;
    }
    (0.5 + 2.0 * ((h >> 11) as f64 / (1u64 << 53) as f64), 0.0)
}

fn mul(a: Complex, b: Complex) -> Complex {
    if a.1 == 0.0 && b.1 == 0.0 {
        return (a.0 * b.0, 0.0);
    }
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

fn pow(a: Complex, b: Complex) -> Complex {
    if a.1 == 0.0 && b.1 == 0.0 && (a.0 >= 0.0 || b.0.fract() == 0.0) {
        return (a.0.powf(b.0), 0.0);
    }
    if a == (0.0, 0.0) {
        return (f64::NAN, 0.0);
    }
    if b.1 == 0.0 && b.0.fract() == 0.0 && b.0.abs() <= 64.0 {
        let mut out = (1.0, 0.0);
        for _ in 0..b.0.abs() as u32 {
            out = mul(out, a);
        }
        let norm = out.0 * out.0 + out.1 * out.1;
        return if b.0 < 0.0 { (out.0 / norm, -out.1 / norm) } else { out };
    }
    let (ln, arg) = (a.0.hypot(a.1).ln(), a.1.atan2(a.0));
    let (re, im) = mul(b, (ln, arg));
    (re.exp() * im.cos(), re.exp() * im.sin())
}

fn call(name: &str, args: &[Complex]) -> Complex {
    const NONE: Complex = (f64::NAN, 0.0);
    let real: Vec<f64> = args.iter().map(|a| if a.1 == 0.0 { a.0 } else { f64::NAN }).collect();
    if let ("abs", [a]) = (name, args) {
        return (a.0.hypot(a.1), 0.0);
    }
    let value = match (name, real.as_slice()) {
        ("floor", [x]) => x.floor(),
        ("ceil", [x]) => x.ceil(),
        ("ln", [x]) if *x > 0.0 => x.ln(),
        ("log", [b, x]) if *x > 0.0 && *b > 0.0 => x.ln() / b.ln(),
        ("sin", [x]) => x.sin(),
        ("cos", [x]) => x.cos(),
        ("tan", [x]) => x.tan(),
        ("cot", [x]) => 1.0 / x.tan(),
        ("sec", [x]) => 1.0 / x.cos(),
        ("csc", [x]) => 1.0 / x.sin(),
        ("arcsin", [x]) => x.asin(),
        ("arccos", [x]) => x.acos(),
        ("arctan", [x]) => x.atan(),
        ("sinh", [x]) => x.sinh(),
        ("cosh", [x]) => x.cosh(),
        ("tanh", [x]) => x.tanh(),
        ("factorial", [x]) if (0.0..=170.0).contains(x) && x.fract() == 0.0 => (1..=*x as u32).map(f64::from).product(),
        ("max", [first, rest @ ..]) => rest.iter().fold(*first, |m, &x| m.max(x)),
        ("min", [first, rest @ ..]) => rest.iter().fold(*first, |m, &x| m.min(x)),
        ("degree", [x]) => x.to_radians(),
        _ => return NONE,
    };
    (value, 0.0)
}
