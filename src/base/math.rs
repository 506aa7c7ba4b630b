//! Elementary functions in f32, and e^x in f64 for losses. Each is one polynomial, evaluated with fused multiply-adds
//! over a fixed table of coefficients, so that every CPU variant and the GPU kernels give bitwise identical results.
//!
//! Every function is branch-free (selects only) and `#[inline(always)]`, so loops that call it inside `cpu_kernel!`
//! vectorise. The coefficients were computed by interpolation at Chebyshev nodes in 50-digit arithmetic and rounded to
//! their type. Error bounds are in units in the last place (ulp), relative to the f64 functions; the tests check them.

/// log2(e).
pub const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln(2), rounded to f32.
const LN_2: f32 = std::f32::consts::LN_2;
/// ln(2) minus its f32 value.
const LN_2_LOW: f32 = -1.904_654_3e-9;

/// Coefficients of (2^f - 1) / f on [-1/2, 1/2].
const EXP2: [f32; 6] = [0.000_154_531_63, 0.001_339_086_3, 0.009_618_083, 0.055_503_57, 0.240_226_5, LN_2];
/// Coefficients of (e^r - 1 - r) / r^2 on [-ln(2)/2, ln(2)/2].
const EXP: [f32; 5] = [0.001_392_625_2, 0.008_363_233, 0.041_666_552, 0.166_665_76, 0.5];
/// Coefficients of (ln(1 + f) - f + f^2/2) / f^3 on [-1/3, 1/3].
const LN: [f32; 9] = [
    0.113_462_52,
    -0.124_390_88,
    0.109_130_524,
    -0.122_859_105,
    0.142_919_87,
    -0.166_734_46,
    0.199_999_47,
    -0.249_999_43,
    0.333_333_34,
];
/// Coefficients of erf(x) / x - 1 as a polynomial in x^2, for x^2 in [0, 0.86].
const ERF: [f32; 6] = [-0.000_597_925_8, 0.004_991_231, -0.026_765_56, 0.112_817_965, -0.376_124_92, 0.128_379_15];
/// Coefficients of -ln(1 - erf(x)) / x - 1 for x in [0.92, 3.95].
const ERF_TAIL: [f32; 7] =
    [1.674_599e-5, -0.000_375_557_98, 0.003_842_883_7, -0.024_146_967, 0.106_628_39, 0.634_952_96, 0.128_687_11];

/// Coefficients of x and x^3 in twice the argument of the tanh of GELU: 2 sqrt(2 / pi), and this times 0.044715.
const GELU_TANH: [f32; 2] = [1.595_769_2, 0.071_354_814];

/// Evaluates a polynomial by Horner's rule, highest coefficient first.
#[inline(always)]
fn poly<const N: usize>(c: &[f32; N], x: f32) -> f32 {
    let mut p = c[0];
    for &c in &c[1..] {
        p = p.mul_add(x, c);
    }
    p
}

/// Returns the nearest integer to `x` (|x| < 2^22), ties to even, as a float and as an integer.
#[inline(always)]
fn nearest(x: f32) -> (f32, i32) {
    // At 1.5 * 2^23 one unit in the last place is 1, so the low mantissa bits are the integer.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x + MAGIC;
    (shifted - MAGIC, (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32))
}

/// Returns `p` * 2^n for n in -252..=254 with a single rounding, so subnormal results are correct.
#[inline(always)]
fn scale(p: f32, n: i32) -> f32 {
    let half = n >> 1;
    let pow2 = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * pow2(half) * pow2(n.wrapping_sub(half))
}

/// Computes 2^x, within 1 ulp. Minus infinity gives 0; overflow gives infinity.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let x = x.clamp(-150.0, 129.0);
    let (whole, n) = nearest(x);
    let f = x - whole;
    scale(poly(&EXP2, f).mul_add(f, 1.0), n)
}

/// Computes e^x, within 1.1 ulp. Minus infinity gives 0; overflow gives infinity.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-104.0, 89.0);
    let (whole, n) = nearest(x * LOG2_E);
    let r = whole.mul_add(-LN_2_LOW, whole.mul_add(-LN_2, x));
    let p = (poly(&EXP, r) * r).mul_add(r, r) + 1.0;
    scale(p, n)
}

/// Splits a positive normal `x` = 2^k * (1 + f), with f in [-1/3, 1/3], into (k, f).
#[inline(always)]
fn split(x: f32) -> (f32, f32) {
    let bits = x.to_bits();
    let k = (bits.wrapping_sub(0x3f2a_aaab) as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((k << 23) as u32));
    (k as f32, m - 1.0)
}

/// Computes ln(2^k * (1 + f)) + small, for a `small` that is much smaller than the sum.
#[inline(always)]
fn ln_parts(k: f32, f: f32, small: f32) -> f32 {
    let tail = (f * f).mul_add(f.mul_add(poly(&LN, f), -0.5), k.mul_add(LN_2_LOW, small));
    k.mul_add(LN_2, f + tail)
}

/// Computes ln(x), within 1 ulp. Zero gives minus infinity; negative numbers give NaN.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let (k, f) = split(if tiny { x * 8_388_608.0 } else { x });
    let r = ln_parts(if tiny { k - 23.0 } else { k }, f, 0.0);
    let r = if x == 0.0 { f32::NEG_INFINITY } else { r };
    let r = if x == f32::INFINITY { x } else { r };
    if x >= 0.0 { r } else { f32::NAN }
}

/// Computes ln(1 + x), within 1 ulp, including tiny x. -1 gives minus infinity; numbers below -1 give NaN.
#[inline(always)]
pub fn log1p(x: f32) -> f32 {
    let u = 1.0 + x;
    // Exact rounding error of the sum (two-sum). It is used as ln(u + lost) = ln(u) + lost / u.
    let part = u - 1.0;
    let lost = (1.0 - (u - part)) + (x - part);
    let (k, f) = split(u);
    let r = ln_parts(k, f, lost / u);
    let r = if u == 0.0 { f32::NEG_INFINITY } else { r };
    let r = if x == f32::INFINITY { x } else { r };
    if x >= -1.0 { r } else { f32::NAN }
}

/// Computes erf(x), within 1.5 ulp.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let near = poly(&ERF, s).mul_add(x, x);
    // From 3.95 on, the result rounds to 1.
    let t = if a > 3.95 { 3.95 } else { a };
    let far = (1.0 - exp(poly(&ERF_TAIL, t).mul_add(-t, -t))).copysign(x);
    if a < 0.925 { near } else { far }
}

/// Computes the logistic function 1 / (1 + e^-x), within 2.5 ulp where the result is a normal number.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Computes x * sigmoid(x).
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Computes d silu(x) / dx = s + x s (1 - s), with s = sigmoid(x).
#[inline(always)]
pub fn silu_grad(x: f32) -> f32 {
    let s = sigmoid(x);
    (x * s).mul_add(1.0 - s, s)
}

/// Computes the exact GELU x (1 + erf(x / sqrt 2)) / 2.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Computes d gelu(x) / dx = (1 + erf(x / sqrt 2)) / 2 + x e^(-x^2 / 2) / sqrt(2 pi).
#[inline(always)]
pub fn gelu_grad(x: f32) -> f32 {
    const DENSITY: f32 = 0.398_942_3;
    let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    (x * DENSITY).mul_add(exp(-0.5 * x * x), cdf)
}

/// Returns x (1 + tanh(u)) / 2 = x sigmoid(2 u), the GELU with the approximation u = sqrt(2 / pi) (x + 0.044715 x^3).
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(x * (x * x).mul_add(GELU_TANH[1], GELU_TANH[0]))
}

/// Computes d gelu_tanh(x) / dx = s + x s (1 - s) d(2 u)/dx, with s = sigmoid(2 u). With p = e^-|2 u|, s (1 - s) is
/// p / (1 + p)^2, without the cancellation of 1 - s.
#[inline(always)]
pub fn gelu_tanh_grad(x: f32) -> f32 {
    let twice = x * (x * x).mul_add(GELU_TANH[1], GELU_TANH[0]);
    let p = exp(-twice.abs());
    let q = 1.0 / (1.0 + p);
    let s = if twice < 0.0 { p * q } else { q };
    (x * (p * q * q)).mul_add((x * x).mul_add(3.0 * GELU_TANH[1], GELU_TANH[0]), s)
}

/// Computes (sin, cos) of 2 pi u for u in [0, 1], within 2e-7.
#[inline(always)]
pub fn sin_cos_turns(u: f32) -> (f32, f32) {
    /// Taylor coefficients of sin(x) / x in x^2, highest first. At x = pi/4 the first omitted term is below 2^-28.
    const SIN: [f32; 5] = [1.0 / 362_880.0, -1.0 / 5_040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0];
    /// Taylor coefficients of cos(x) in x^2, with the same accuracy.
    const COS: [f32; 6] = [-1.0 / 3_628_800.0, 1.0 / 40_320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0];
    let (quarter, q) = nearest(u * 4.0);
    let x = quarter.mul_add(-0.25, u) * std::f32::consts::TAU;
    let (s, c) = (poly(&SIN, x * x) * x, poly(&COS, x * x));
    let (s, c) = if q & 1 == 0 { (s, c) } else { (c, -s) };
    if q & 2 == 0 { (s, c) } else { (-s, -c) }
}

/// Coefficients of (e^r - 1 - r) / r^2 on [-ln(2)/2, ln(2)/2].
const EXP_F64: [f64; 11] = [
    2.0914679376583935e-9,
    2.510520637395701e-8,
    2.7557273661348637e-7,
    2.7557255425746435e-6,
    2.4801587325533363e-5,
    0.00019841269874800493,
    0.0013888888888883752,
    0.008333333333326141,
    0.04166666666666667,
    0.1666666666666667,
    0.5,
];

/// Computes e^x in f64, within 1 ulp. Minus infinity gives 0; overflow gives infinity.
pub fn exp_f64(x: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    const LN_2_LOW: f64 = 2.3190468138462996e-17;
    // At 1.5 * 2^52 one unit in the last place is 1, so the low mantissa bits are the integer.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let x = hold_f64(x, -746.0, 710.0);
    let shifted = x * std::f64::consts::LOG2_E + MAGIC;
    let n = shifted.to_bits().wrapping_sub(MAGIC.to_bits()) as i32;
    let whole = shifted - MAGIC;
    let r = whole.mul_add(-LN_2_LOW, whole.mul_add(-LN_2, x));
    let mut p = EXP_F64[0];
    for &c in &EXP_F64[1..] {
        p = p.mul_add(r, c);
    }
    let p = (p * r).mul_add(r, r) + 1.0;
    // Multiply by two powers of two, because 2^n itself may not be a normal number.
    let pow2 = |n: i32| f64::from_bits((i64::from(n.wrapping_add(1023)) as u64) << 52);
    let half = n >> 1;
    p * pow2(half) * pow2(n.wrapping_sub(half))
}

/// Clamps `x` to `low..=high`; NaN stays NaN.
pub fn hold_f64(x: f64, low: f64, high: f64) -> f64 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}
