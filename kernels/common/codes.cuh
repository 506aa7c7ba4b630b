// Codes of a quantised weight and the bf16 numbers for which they stand (src/runtime/ops/quantized/mod.rs has the formats).
#pragma once

#include "isa/isa.cuh"

namespace codes {

// Terms that share a scale.
constexpr int BLOCK = 64;

// Integers times a power of two, one code per byte. The scale is the byte of the exponent.
struct Int8 {
    using Codes = uint2;
    __device__ __forceinline__ static Codes codes(const uint8_t* p, int64_t at) { return isa::load<uint2>(p + at); }
    __device__ __forceinline__ static float scale(const uint8_t* p, int64_t block) {
        return __uint_as_float((uint32_t)p[block] << 23);
    }
    // Returns two values, whose codes begin at bit `shift` of a word. Both products are bf16 numbers.
    __device__ __forceinline__ static uint32_t two(uint32_t word, int shift, float scale) {
        float low = (float)(int8_t)(word >> shift), high = (float)(int8_t)(word >> (shift + 8));
        return isa::pack(low * scale, high * scale);
    }
    __device__ __forceinline__ static uint4 values(Codes c, float scale) {
        return make_uint4(two(c.x, 0, scale), two(c.x, 16, scale), two(c.y, 0, scale), two(c.y, 16, scale));
    }
};

// Indices of 16 levels, two codes per byte. The scale is an f32.
struct Nf4 {
    using Codes = uint32_t;
    __device__ __forceinline__ static Codes codes(const uint8_t* p, int64_t at) {
        return isa::load<uint32_t>(p + at / 2);
    }
    __device__ __forceinline__ static float scale(const uint8_t* p, int64_t block) {
        return isa::load<float>((const float*)p + block);
    }
    // Level of a code, chosen by its bits.
    __device__ __forceinline__ static float level(uint32_t code) {
        constexpr float LEVELS[16] = {-1.0f,         -0.6961928f,  -0.52507305f, -0.3949175f,
                                      -0.28444138f,  -0.18477343f, -0.091050036f, 0.0f,
                                      0.0795803f,    0.1609302f,   0.2461123f,   0.33791524f,
                                      0.44070983f,   0.562617f,    0.72295684f,  1.0f};
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            v[i] = code & 8 ? LEVELS[8 + i] : LEVELS[i];
        }
#pragma unroll
        for (int half = 4; half > 0; half /= 2) {
#pragma unroll
            for (int i = 0; i < half; i++) {
                v[i] = code & half ? v[half + i] : v[i];
            }
        }
        return v[0];
    }
    __device__ __forceinline__ static uint32_t two(uint32_t word, int shift, float absmax) {
        return isa::pack(level(word >> shift & 15) * absmax, level(word >> (shift + 4) & 15) * absmax);
    }
    __device__ __forceinline__ static uint4 values(Codes c, float scale) {
        return make_uint4(two(c, 0, scale), two(c, 8, scale), two(c, 16, scale), two(c, 24, scale));
    }
};

// Eight adjacent codes and their scale.
template <class Format>
struct Eight {
    typename Format::Codes codes;
    float scale;

    // Loads the codes from element `at` on, a multiple of eight.
    __device__ __forceinline__ static Eight load(const uint8_t* codes, const uint8_t* scales, int64_t at) {
        return Eight{Format::codes(codes, at), Format::scale(scales, at / BLOCK)};
    }
    // Returns the values as bf16.
    __device__ __forceinline__ uint4 values() const { return Format::values(codes, scale); }
};

}  // namespace codes
