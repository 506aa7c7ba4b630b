//! Tests the math functions against f64 references.

use omr_base::math;

/// Returns the distance of `got` from the true value, in units in the last place of the true value as f32.
fn ulps(got: f32, want: f64) -> f64 {
    let near = want as f32;
    if near.is_infinite() || got.is_infinite() {
        return if near == got { 0.0 } else { f64::INFINITY };
    }
    let exponent = (near.abs().max(f32::MIN_POSITIVE).to_bits() >> 23) as i32 - 127;
    (f64::from(got) - want).abs() / 2f64.powi(exponent - 23)
}

/// Returns the largest error of `f` against `g` over every 499th float of both signs in `range`, and its argument.
fn worst(f: impl Fn(f32) -> f32, g: impl Fn(f64) -> f64, range: std::ops::RangeInclusive<f32>) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for bits in (0..=f32::INFINITY.to_bits()).step_by(499) {
        for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
            if range.contains(&x) {
                let e = ulps(f(x), g(f64::from(x)));
                if e > worst.0 || e.is_nan() {
                    worst = (e, x);
                }
            }
        }
    }
    worst
}

/// Returns erf in f64: its series below 3, its continued fraction (Lentz) above. Both are correct to 1e-15.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term.abs() > 1e-17 * sum {
            n += 1.0;
            term *= a * a * 2.0 / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-a * a).exp() * sum
    } else {
        let mut f = a;
        for n in (1..60).rev() {
            f = a + f64::from(n) / 2.0 / f;
        }
        1.0 - (-a * a).exp() / f / std::f64::consts::PI.sqrt()
    };
    value.copysign(x)
}

#[test]
fn functions_keep_their_stated_error() {
    let all = f32::NEG_INFINITY..=f32::INFINITY;
    type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, std::ops::RangeInclusive<f32>, f64);
    let cases: [Case; 7] = [
        ("exp2", math::exp2, f64::exp2, all.clone(), 1.0),
        ("exp", math::exp, f64::exp, all.clone(), 1.1),
        ("ln", math::ln, f64::ln, 0.0..=f32::INFINITY, 1.0),
        ("log1p", math::log1p, f64::ln_1p, -1.0..=f32::INFINITY, 1.0),
        ("erf", math::erf, erf, all.clone(), 1.5),
        ("sigmoid", math::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -87.0..=f32::INFINITY, 2.5),
        ("silu", math::silu, |x| x / (1.0 + (-x).exp()), -80.0..=f32::MAX, 3.0),
    ];
    for (name, f, g, range, bound) in cases {
        let (e, x) = worst(f, g, range);
        println!("{name}: {e:.3} ulp at {x:e}");
        assert!(e <= bound, "{name}({x:e}) = {:e} is {e} ulp off", f(x));
    }
}

#[test]
fn special_values() {
    for f in [math::exp2, math::exp, math::ln, math::log1p, math::erf, math::sigmoid, math::silu] {
        assert!(f(f32::NAN).is_nan());
    }
    assert_eq!(math::exp2(f32::NEG_INFINITY), 0.0);
    assert_eq!(math::exp(f32::NEG_INFINITY), 0.0);
    for n in -149..=127 {
        assert_eq!(math::exp2(n as f32), 2f64.powi(n) as f32, "2^{n}");
    }
    assert_eq!((math::exp(0.0), math::ln(1.0), math::log1p(0.0)), (1.0, 0.0, 0.0));
    assert!(math::ln(-1.0).is_nan() && math::log1p(-1.5).is_nan());
    assert_eq!((math::ln(0.0), math::log1p(-1.0)), (f32::NEG_INFINITY, f32::NEG_INFINITY));
    assert_eq!((math::erf(5.0), math::erf(-5.0)), (1.0, -1.0));
}

#[test]
fn gelu_and_the_derivatives() {
    for i in -2000..=2000 {
        let x = i as f32 / 200.0;
        let d = f64::from(x);
        let cdf = 0.5 * (1.0 + erf(d / 2f64.sqrt()));
        let pdf = (-0.5 * d * d).exp() / std::f64::consts::TAU.sqrt();
        let s = 1.0 / (1.0 + (-d).exp());
        // The sum 1 + erf has an absolute error of about 2^-24, which is multiplied by x.
        let slack = 4.0 / 16_777_216.0 * d.abs().max(1.0);
        assert!((f64::from(math::gelu(x)) - d * cdf).abs() < slack, "gelu({x})");
        assert!((f64::from(math::gelu_grad(x)) - (cdf + d * pdf)).abs() < slack, "gelu'({x})");
        assert!((f64::from(math::silu_grad(x)) - (s + d * s * (1.0 - s))).abs() < slack, "silu'({x})");
        // Twice the argument of the tanh, its derivative, and 1 / (1 + exp(-argument)).
        let root = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
        let (twice, slope) = (root * (d + 0.044715 * d.powi(3)), root * (1.0 + 3.0 * 0.044715 * d * d));
        let t = 1.0 / (1.0 + (-twice).exp());
        assert!((f64::from(math::gelu_tanh(x)) - d * t).abs() < slack, "gelu_tanh({x})");
        assert!(
            (f64::from(math::gelu_tanh_grad(x)) - (t + d * t * (1.0 - t) * slope)).abs() < slack,
            "gelu_tanh'({x})"
        );
        let u = (x + 10.0) / 20.0;
        let (sin, cos) = math::sin_cos_turns(u);
        let angle = f64::from(u) * std::f64::consts::TAU;
        assert!((f64::from(sin) - angle.sin()).abs() < 2e-7 && (f64::from(cos) - angle.cos()).abs() < 2e-7);
    }
}
