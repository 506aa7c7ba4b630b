//! Complex numbers in double precision, and the functions of the published grammar for them.

/// A complex number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Complex {
    pub(super) re: f64,
    pub(super) im: f64,
}

pub(super) fn real(re: f64) -> Complex {
    Complex { re, im: 0.0 }
}

impl Complex {
    pub(super) fn abs(self) -> f64 {
        self.re.hypot(self.im)
    }

    pub(super) fn add(self, o: Complex) -> Complex {
        Complex { re: self.re + o.re, im: self.im + o.im }
    }

    pub(super) fn sub(self, o: Complex) -> Complex {
        Complex { re: self.re - o.re, im: self.im - o.im }
    }

    pub(super) fn mul(self, o: Complex) -> Complex {
        Complex { re: self.re * o.re - self.im * o.im, im: self.re * o.im + self.im * o.re }
    }

    pub(super) fn scale(self, k: f64) -> Complex {
        Complex { re: self.re * k, im: self.im * k }
    }

    pub(super) fn div(self, o: Complex) -> Complex {
        let n = o.re * o.re + o.im * o.im;
        Complex { re: (self.re * o.re + self.im * o.im) / n, im: (self.im * o.re - self.re * o.im) / n }
    }

    pub(super) fn exp(self) -> Complex {
        let r = self.re.exp();
        Complex { re: r * self.im.cos(), im: if self.im == 0.0 { 0.0 } else { r * self.im.sin() } }
    }

    pub(super) fn ln(self) -> Complex {
        // The branch cut on the negative real axis belongs to the upper side. Adding 0.0 removes the sign of a negative
        // zero.
        Complex { re: self.abs().ln(), im: (self.im + 0.0).atan2(self.re) }
    }

    pub(super) fn pow(self, e: Complex) -> Complex {
        if e.im == 0.0 && e.re.fract() == 0.0 && e.re.abs() <= 64.0 {
            let (mut result, mut n) = (real(1.0), e.re.abs() as u32);
            let mut square = self;
            while n > 0 {
                if n & 1 == 1 {
                    result = result.mul(square);
                }
                square = square.mul(square);
                n >>= 1;
            }
            return if e.re < 0.0 { real(1.0).div(result) } else { result };
        }
        if self.re == 0.0 && self.im == 0.0 {
            return if e.re > 0.0 { real(0.0) } else { real(f64::NAN) };
        }
        if self.im == 0.0 && self.re > 0.0 && e.im == 0.0 {
            return real(self.re.powf(e.re));
        }
        self.ln().mul(e).exp()
    }

    pub(super) fn sqrt(self) -> Complex {
        self.pow(real(0.5))
    }

    pub(super) fn i(self) -> Complex {
        Complex { re: -self.im, im: self.re }
    }

    pub(super) fn finite(self) -> Option<Complex> {
        (self.re.is_finite() && self.im.is_finite()).then_some(self)
    }
}

/// Returns the value of a function, or `None` if it is undefined.
pub(super) fn called(name: &str, all: &[Complex]) -> Option<Complex> {
    let one = real(1.0);
    let [x, rest @ ..] = all else { return None };
    let x = *x;
    let plain = |x: Complex| (x.im.abs() <= 1e-12 * (1.0 + x.re.abs())).then_some(x.re);
    let sin = |x: Complex| x.i().exp().sub(x.i().scale(-1.0).exp()).div(Complex { re: 0.0, im: 2.0 });
    let cos = |x: Complex| x.i().exp().add(x.i().scale(-1.0).exp()).scale(0.5);
    let sinh = |x: Complex| x.exp().sub(x.scale(-1.0).exp()).scale(0.5);
    let cosh = |x: Complex| x.exp().add(x.scale(-1.0).exp()).scale(0.5);
    // -i ln(ix + sqrt(1 - x^2))
    let asin = |x: Complex| x.i().add(one.sub(x.mul(x)).sqrt()).ln().i().scale(-1.0);
    let acos = |x: Complex| real(std::f64::consts::FRAC_PI_2).sub(asin(x));
    let atan = |x: Complex| {
        let (a, b) = (one.sub(x.i()).ln(), one.add(x.i()).ln());
        a.sub(b).i().scale(0.5)
    };
    Some(match name {
        "log" => match rest {
            [base] => x.ln().div(base.ln()),
            _ => x.ln(),
        },
        "exp" => x.exp(),
        "sin" => sin(x),
        "cos" => cos(x),
        "tan" => sin(x).div(cos(x)),
        "csc" => one.div(sin(x)),
        "sec" => one.div(cos(x)),
        "cot" => cos(x).div(sin(x)),
        "arcsin" => asin(x),
        "arccos" => acos(x),
        "arctan" => match plain(x) {
            Some(x) => real(x.atan()),
            None => atan(x),
        },
        "arccsc" => asin(one.div(x)),
        "arcsec" => acos(one.div(x)),
        "arccot" => match plain(x) {
            Some(x) => real((1.0 / x).atan()),
            None => atan(one.div(x)),
        },
        "sinh" => sinh(x),
        "cosh" => cosh(x),
        "tanh" => sinh(x).div(cosh(x)),
        "arcsinh" => x.add(x.mul(x).add(one).sqrt()).ln(),
        "arccosh" => x.add(x.add(one).sqrt().mul(x.sub(one).sqrt())).ln(),
        "arctanh" => one.add(x).ln().sub(one.sub(x).ln()).scale(0.5),
        "abs" => real(x.abs()),
        "floor" => real(plain(x)?.floor()),
        "ceil" => real(plain(x)?.ceil()),
        "factorial" => gamma(x.add(one)),
        "gamma" => gamma(x),
        "binomial" => {
            let k = *rest.first()?;
            if k.im == 0.0 && k.re.fract() == 0.0 && (0.0..=60.0).contains(&k.re) {
                let count = k.re as u32;
                (0..count).fold(one, |p, j| p.mul(x.sub(real(f64::from(j)))).div(real(f64::from(j + 1))))
            } else {
                gamma(x.add(one)).div(gamma(k.add(one)).mul(gamma(x.sub(k).add(one))))
            }
        }
        _ => return None,
    })
}

/// Computes the gamma function by the Lanczos approximation (g = 7, nine terms, about 15 digits).
fn gamma(x: Complex) -> Complex {
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
    if x.im == 0.0 && x.re.fract() == 0.0 && (1.0..=60.0).contains(&x.re) {
        return real((1..x.re as u32).fold(1.0, |p, k| p * f64::from(k)));
    }
    let one = real(1.0);
    if x.re < 0.5 {
        let sine = called("sin", &[x.scale(std::f64::consts::PI)]).unwrap_or(real(f64::NAN));
        return real(std::f64::consts::PI).div(sine.mul(gamma(one.sub(x))));
    }
    let x = x.sub(one);
    let total =
        TERMS.iter().enumerate().skip(1).fold(real(TERMS[0]), |s, (i, c)| s.add(real(*c).div(x.add(real(i as f64)))));
    let t = x.add(real(7.5));
    let root = real((2.0 * std::f64::consts::PI).sqrt());
    root.mul(t.pow(x.add(real(0.5)))).mul(t.scale(-1.0).exp()).mul(total)
}
