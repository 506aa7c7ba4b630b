// 8-bit optimiser moments and stochastic rounding to bf16. This is a bit-exact port of src/runtime/ops/adamw/code8.rs, which
// describes the code. Requires -fmad=false and IEEE division.
#pragma once

#include "isa/isa.cuh"

namespace code8 {

// Elements that share a scale.
constexpr int BLOCK = 256;

// 2^n, for n from -126 to 127.
__device__ __forceinline__ float power(int n) { return __uint_as_float((uint32_t)(127 + n) << 23); }

// Returns the value of code `c` with S bits, for a scale of one.
template <int S>
__device__ __forceinline__ float value(int c) {
    uint32_t bits = __float_as_uint((float)c);
    int h = (int)(bits >> 23) - 127;
    float one_f = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
    float found = power(3 * ((h > 0 ? h : 0) + 1 - S)) * (0.875f * one_f - 0.75f);
    return c == 0 ? 0.0f : found;
}

// Returns the fractional position of `y` (not negative) among the codes with S bits.
template <int S>
__device__ __forceinline__ float position(float y) {
    int exponent = (int)(__float_as_uint(y) >> 23) - 127;
    int h = (((exponent > -3 * S ? exponent : -3 * S) + 3 * S) * 43) >> 7;
    float within = (y * power(3 * (S - 1 - h)) + 0.75f) * (8.0f / 7.0f) * power(h);
    return y < power(-3 * S) ? y * power(3 * S) : within;
}

// Returns the S-bit code nearest to the position of `y` plus `jitter`.
template <int S>
__device__ __forceinline__ int nearest(float y, float jitter) {
    constexpr int LAST = (1 << S) - 1;
    float at = fminf(position<S>(y), (float)LAST) + jitter;
    int c = (int)(__float_as_uint(at + 12582912.0f) - 0x4b400000u);
    return c < LAST ? c : LAST;
}

// Returns the scale of a block whose largest magnitude is `largest`.
template <int S>
__device__ __forceinline__ float scale(float largest) {
    return largest * (S == 8 ? 1024.0f / 1017.0f : 512.0f / 505.0f);
}

__device__ __forceinline__ float ratio(float x, float scale) { return scale > 0.0f ? x / scale : 0.0f; }

// Encodes a first moment: a sign bit above a code of seven bits, rounded to nearest.
__device__ __forceinline__ uint32_t to_signed(float x, float scale) {
    int c = nearest<7>(ratio(fabsf(x), scale), 0.0f);
    return (uint32_t)c | (x < 0.0f && c > 0 ? 0x80u : 0u);
}

__device__ __forceinline__ float of_signed(uint32_t c, float scale) {
    float x = value<7>((int)(c & 0x7fu)) * scale;
    return c & 0x80u ? -x : x;
}

// Encodes a second moment. The random `word` decides between rounding up and down, but the code is zero only if x is
// zero.
__device__ __forceinline__ uint32_t to_unsigned(float x, float scale, uint32_t word) {
    float jitter = (float)(int)(word >> 8) * (1.0f / 16777216.0f) - 0.5f;
    int c = nearest<8>(ratio(x, scale), jitter);
    return x > 0.0f ? (uint32_t)(c > 1 ? c : 1) : 0u;
}

__device__ __forceinline__ float of_unsigned(uint32_t c, float scale) { return value<8>((int)c) * scale; }

// Rounds x stochastically to bf16 and returns the bits. The probability of rounding away from zero is the fraction that
// truncation would lose.
__device__ __forceinline__ uint32_t stochastic(float x, uint32_t word) {
    uint32_t bits = __float_as_uint(x);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return (nan ? bits >> 16 | 0x40u : (bits + (word >> 16)) >> 16) & 0xffffu;
}

// Rounds like `stochastic`, but returns zero only if x is zero.
__device__ __forceinline__ uint32_t stochastic_above_zero(float x, uint32_t word) {
    uint32_t rounded = stochastic(x, word);
    return x > 0.0f && rounded == 0u ? 1u : rounded;
}

}  // namespace code8
