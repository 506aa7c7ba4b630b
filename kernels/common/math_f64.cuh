// e^x in f64, a port of exp_f64 in src/base/math.rs: the same polynomial, and fma for mul_add. The CPU code, the emulator
// and a GPU therefore give equal bits, except for the payload of a NaN. Requires -fmad=false.
#pragma once

#include "isa/isa.cuh"

namespace math {

// Clamps x to `low`..`high`. NaN stays NaN; fmin and fmax would not keep it.
__device__ __forceinline__ double hold(double x, double low, double high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

__device__ __forceinline__ double pow2_f64(int n) { return __longlong_as_double((long long)((unsigned long long)(n + 1023) << 52)); }

// e^x. Minus infinity gives 0, overflow infinity.
__device__ __forceinline__ double exp_f64(double x) {
    // At 1.5 * 2^52 the last place is worth 1, so the low mantissa bits are the integer.
    constexpr double MAGIC = 6755399441055744.0;
    x = hold(x, -746.0, 710.0);
    double shifted = x * 1.4426950408889634 + MAGIC;
    int n = (int)(__double_as_longlong(shifted) - 0x4338000000000000LL);
    double whole = shifted - MAGIC;
    // ln(2), and the part that is lost when it is rounded to f64.
    double r = fma(whole, -2.3190468138462996e-17, fma(whole, -0.6931471805599453, x));
    // (e^r - 1 - r) / r^2 on [-ln(2)/2, ln(2)/2].
    double p = 2.0914679376583935e-09;
    p = fma(p, r, 2.510520637395701e-08);
    p = fma(p, r, 2.7557273661348637e-07);
    p = fma(p, r, 2.7557255425746435e-06);
    p = fma(p, r, 2.4801587325533363e-05);
    p = fma(p, r, 0.00019841269874800493);
    p = fma(p, r, 0.0013888888888883752);
    p = fma(p, r, 0.008333333333326141);
    p = fma(p, r, 0.04166666666666667);
    p = fma(p, r, 0.1666666666666667);
    p = fma(p, r, 0.5);
    p = fma(p * r, r, r) + 1.0;
    // Scales in two halves, because 2^n alone may not be a normal number.
    int half = n >> 1;
    return p * pow2_f64(half) * pow2_f64(n - half);
}

}  // namespace math
