// Elementary functions in f32, a port of src/base/math.rs: the same polynomials with the same coefficients, and fmaf for
// mul_add. The CPU code, the emulator and a GPU therefore give equal bits, except for the payload of a NaN. Requires
// -fmad=false, no flush to zero, and IEEE division. Error bounds: src/base/math.rs.
#pragma once

#include "isa/isa.cuh"

namespace math {

constexpr float LOG2_E = 1.44269504088896340735992468100189214f;
// ln(2), and the part that is lost when it is rounded to f32.
constexpr float LN_2 = 0.693147180559945309417232121458176568f;
constexpr float LN_2_LOW = -1.9046543e-9f;
constexpr float FRAC_1_SQRT_2 = 0.707106781186547524400844362104849039f;
// Coefficients of x and x^3 in twice the argument of the tanh of GELU: 2 sqrt(2 / pi), and this times 0.044715.
constexpr float GELU_TANH_1 = 1.5957692f;
constexpr float GELU_TANH_3 = 0.071354814f;
// The smallest positive normal number.
constexpr float MIN_POSITIVE = 1.17549435e-38f;

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }
__device__ __forceinline__ float nan() { return __uint_as_float(0x7fc00000u); }
__device__ __forceinline__ float abs(float x) { return __uint_as_float(__float_as_uint(x) & 0x7fffffffu); }

// The magnitude of `x` with the sign of `sign`.
__device__ __forceinline__ float copysign(float x, float sign) {
    return __uint_as_float((__float_as_uint(x) & 0x7fffffffu) | (__float_as_uint(sign) & 0x80000000u));
}

// Evaluates a polynomial by Horner's rule, highest coefficient first.
template <class... C>
__device__ __forceinline__ float poly(float x, float p, C... c) {
    ((p = fmaf(p, x, c)), ...);
    return p;
}

// Returns the integer nearest to x (|x| < 2^22), ties to even, and stores it in `n` as an int.
__device__ __forceinline__ float nearest(float x, int& n) {
    // At 1.5 * 2^23 the last place is worth 1, so the low mantissa bits are the integer.
    constexpr float MAGIC = 12582912.0f;
    float shifted = x + MAGIC;
    n = (int)(__float_as_uint(shifted) - 0x4b400000u);
    return shifted - MAGIC;
}

__device__ __forceinline__ float pow2(int n) { return __uint_as_float((uint32_t)(n + 127) << 23); }

// Returns p * 2^n for n in -252..=254, rounded once, so that subnormal results are correct.
__device__ __forceinline__ float scale(float p, int n) {
    int half = n >> 1;
    return p * pow2(half) * pow2(n - half);
}

// Clamps x to `low`..`high`. NaN stays NaN; fminf and fmaxf would not keep it.
__device__ __forceinline__ float hold(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

// 2^x. Minus infinity gives 0, overflow infinity.
__device__ __forceinline__ float exp2(float x) {
    int n;
    x = hold(x, -150.0f, 129.0f);
    float f = x - nearest(x, n);
    // (2^f - 1) / f on [-1/2, 1/2].
    float p = poly(f, 0.00015453163f, 0.0013390863f, 0.009618083f, 0.05550357f, 0.2402265f, LN_2);
    return scale(fmaf(p, f, 1.0f), n);
}

// e^x. Minus infinity gives 0, overflow infinity.
__device__ __forceinline__ float exp(float x) {
    int n;
    x = hold(x, -104.0f, 89.0f);
    float whole = nearest(x * LOG2_E, n);
    float r = fmaf(whole, -LN_2_LOW, fmaf(whole, -LN_2, x));
    // (e^r - 1 - r) / r^2 on [-ln(2)/2, ln(2)/2].
    float p = poly(r, 0.0013926252f, 0.008363233f, 0.041666552f, 0.16666576f, 0.5f);
    return scale(fmaf(p * r, r, r) + 1.0f, n);
}

// Splits a positive normal x into 2^k * (1 + f) with f in [-1/3, 1/3].
__device__ __forceinline__ void split(float x, float& k, float& f) {
    uint32_t bits = __float_as_uint(x);
    int exponent = (int)(bits - 0x3f2aaaabu) >> 23;
    k = (float)exponent;
    f = __uint_as_float(bits - ((uint32_t)exponent << 23)) - 1.0f;
}

// Returns ln(2^k * (1 + f)) + small, where `small` is far below the sum.
__device__ __forceinline__ float ln_parts(float k, float f, float small) {
    // (ln(1 + f) - f + f^2/2) / f^3 on [-1/3, 1/3].
    float p = poly(f, 0.11346252f, -0.12439088f, 0.109130524f, -0.122859105f, 0.14291987f, -0.16673446f, 0.19999947f,
                   -0.24999943f, 0.33333334f);
    float tail = fmaf(f * f, fmaf(f, p, -0.5f), fmaf(k, LN_2_LOW, small));
    return fmaf(k, LN_2, f + tail);
}

// ln(x). Zero gives minus infinity, negative numbers NaN.
__device__ __forceinline__ float ln(float x) {
    bool tiny = x < MIN_POSITIVE;
    float k, f;
    split(tiny ? x * 8388608.0f : x, k, f);
    float r = ln_parts(tiny ? k - 23.0f : k, f, 0.0f);
    r = x == 0.0f ? -infinity() : r;
    r = x == infinity() ? x : r;
    return x >= 0.0f ? r : nan();
}

// ln(1 + x), accurate also for tiny x. -1 gives minus infinity, smaller numbers NaN.
__device__ __forceinline__ float log1p(float x) {
    float u = 1.0f + x;
    // The rounding error of the sum, exactly (two-sum). It enters as ln(u + lost) = ln(u) + lost / u.
    float part = u - 1.0f;
    float lost = (1.0f - (u - part)) + (x - part);
    // Often nothing is lost, and the division of a zero would take the slow path.
    bool exact = lost == 0.0f;
    float share = (exact ? 1.0f : lost) / u;
    float k, f;
    split(u, k, f);
    float r = ln_parts(k, f, exact ? lost : share);
    r = u == 0.0f ? -infinity() : r;
    r = x == infinity() ? x : r;
    return x >= -1.0f ? r : nan();
}

__device__ __forceinline__ float tanh(float x) {
    float a = abs(x);
    float s = x * x;
    // Approximates (tanh(x) / x - 1) / x^2 as a polynomial in x^2 on [0, 0.4].
    float p = poly(s, -0.006045165f, 0.02096133f, -0.053843264f, 0.13332719f, -0.33333328f);
    float near = fmaf(p * s, x, x);
    float far = copysign(1.0f - 2.0f / (exp(a + a) + 1.0f), x);
    return a < 0.625f ? near : far;
}

__device__ __forceinline__ float erf(float x) {
    float a = abs(x);
    float s = x * x;
    // Approximates erf(x) / x - 1 as a polynomial in x^2 on [0, 0.86].
    float p = poly(s, -0.0005979258f, 0.004991231f, -0.02676556f, 0.112817965f, -0.37612492f, 0.12837915f);
    float near = fmaf(p, x, x);
    // Approximates -ln(1 - erf(x)) / x - 1 on [0.92, 3.95]. From 3.95 on the result rounds to 1.
    float t = a > 3.95f ? 3.95f : a;
    float q = poly(t, 1.674599e-5f, -0.00037555798f, 0.0038428837f, -0.024146967f, 0.10662839f, 0.63495296f,
                   0.12868711f);
    float far = copysign(1.0f - exp(fmaf(q, -t, -t)), x);
    return a < 0.925f ? near : far;
}

// The logistic function 1 / (1 + e^-x).
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

// x * sigmoid(x). A zero stays as it is. Its division would take the slow path, and rows without a token are zeros.
__device__ __forceinline__ float silu(float x) {
    bool zero = x == 0.0f;
    float y = (zero ? 1.0f : x) / (1.0f + exp(-x));
    return zero ? x : y;
}

// d silu(x) / dx.
__device__ __forceinline__ float silu_grad(float x) {
    float s = sigmoid(x);
    return fmaf(x * s, 1.0f - s, s);
}

// The exact GELU x (1 + erf(x / sqrt 2)) / 2.
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erf(x * FRAC_1_SQRT_2)); }

// d gelu(x) / dx.
__device__ __forceinline__ float gelu_grad(float x) {
    float cdf = 0.5f * (1.0f + erf(x * FRAC_1_SQRT_2));
    // 1 / sqrt(2 pi).
    return fmaf(x * 0.3989423f, exp(-0.5f * x * x), cdf);
}

// x (1 + tanh(u)) / 2 = x sigmoid(2 u), the GELU with the approximation u = sqrt(2 / pi) (x + 0.044715 x^3).
__device__ __forceinline__ float gelu_tanh(float x) { return x * sigmoid(x * fmaf(x * x, GELU_TANH_3, GELU_TANH_1)); }

// d gelu_tanh(x) / dx = s + x s (1 - s) d(2 u)/dx with s = sigmoid(2 u). With p = e^-|2 u|, s (1 - s) is p / (1 + p)^2.
__device__ __forceinline__ float gelu_tanh_grad(float x) {
    float twice = x * fmaf(x * x, GELU_TANH_3, GELU_TANH_1);
    float p = exp(-abs(twice)), q = 1.0f / (1.0f + p);
    float s = twice < 0.0f ? p * q : q;
    return fmaf(x * (p * q * q), fmaf(x * x, 3.0f * GELU_TANH_3, GELU_TANH_1), s);
}

}  // namespace math
