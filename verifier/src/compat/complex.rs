//! Powers and functions of the published grammar for complex numbers in double precision.

use std::f64::consts::{FRAC_PI_2, PI};

use num_complex::Complex64;

/// Returns a real number.
pub(super) fn real(re: f64) -> Complex64 {
    re.into()
}

/// Returns the principal logarithm. The branch cut on the negative real axis belongs to the upper side: adding zero
/// removes the sign of a negative zero.
fn ln(z: Complex64) -> Complex64 {
    (z + Complex64::ZERO).ln()
}

/// Returns a power.
pub(super) fn pow(z: Complex64, e: Complex64) -> Complex64 {
    if e.im == 0.0 && e.re.fract() == 0.0 && e.re.abs() <= 64.0 {
        return z.powi(e.re as i32);
    }
    if z == Complex64::ZERO {
        return if e.re > 0.0 { z } else { real(f64::NAN) };
    }
    if z.im == 0.0 && z.re > 0.0 && e.im == 0.0 {
        return real(z.re.powf(e.re));
    }
    (ln(z) * e).exp()
}

fn sqrt(z: Complex64) -> Complex64 {
    pow(z, real(0.5))
}

/// Returns the value of a function, or `None` if it is undefined.
pub(super) fn called(name: &str, all: &[Complex64]) -> Option<Complex64> {
    let [x, rest @ ..] = all else { return None };
    let x = *x;
    let plain = |x: Complex64| (x.im.abs() <= 1e-12 * (1.0 + x.re.abs())).then_some(x.re);
    // -i ln(ix + sqrt(1 - x^2))
    let asin = |x: Complex64| ln(x * Complex64::I + sqrt(1.0 - x * x)) * -Complex64::I;
    Some(match name {
        "log" => match rest {
            [base] => ln(x) / ln(*base),
            _ => ln(x),
        },
        "exp" => x.exp(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "tan" => x.sin() / x.cos(),
        "csc" => 1.0 / x.sin(),
        "sec" => 1.0 / x.cos(),
        "cot" => x.cos() / x.sin(),
        "arcsin" => asin(x),
        "arccos" => FRAC_PI_2 - asin(x),
        "arctan" => x.atan(),
        "arccsc" => asin(1.0 / x),
        "arcsec" => FRAC_PI_2 - asin(1.0 / x),
        "arccot" => (1.0 / x).atan(),
        "sinh" => x.sinh(),
        "cosh" => x.cosh(),
        "tanh" => x.sinh() / x.cosh(),
        "arcsinh" => ln(x + sqrt(x * x + 1.0)),
        "arccosh" => ln(x + sqrt(x + 1.0) * sqrt(x - 1.0)),
        "arctanh" => (ln(1.0 + x) - ln(1.0 - x)) * 0.5,
        "abs" => real(x.norm()),
        "floor" => real(plain(x)?.floor()),
        "ceil" => real(plain(x)?.ceil()),
        "factorial" => gamma(x + 1.0),
        "gamma" => gamma(x),
        "binomial" => {
            let k = *rest.first()?;
            if k.im == 0.0 && k.re.fract() == 0.0 && (0.0..=60.0).contains(&k.re) {
                (0..k.re as u32).map(f64::from).fold(real(1.0), |p, j| p * (x - j) / (j + 1.0))
            } else {
                gamma(x + 1.0) / (gamma(k + 1.0) * gamma(x - k + 1.0))
            }
        }
        _ => return None,
    })
}

/// Computes the gamma function by the Lanczos approximation (g = 7, nine terms, about 15 digits).
fn gamma(x: Complex64) -> Complex64 {
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x.re < 0.5 {
        return PI / ((x * PI).sin() * gamma(1.0 - x));
    }
    let x = x - 1.0;
    let total = TERMS.iter().enumerate().skip(1).fold(real(TERMS[0]), |s, (i, c)| s + c / (x + i as f64));
    let t = x + 7.5;
    pow(t, x + 0.5) * (-t).exp() * total * (2.0 * PI).sqrt()
}
