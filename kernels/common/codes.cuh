// Codes of a quantised weight and the bf16 numbers for which they stand (src/runtime/ops/quantized/mod.rs has the formats).
#pragma once

#include "isa/isa.cuh"

namespace codes {

// Terms that share a scale.
constexpr int BLOCK = 64;

// Integers times a power of two, one code per byte. The scale is the byte of the exponent.
struct Int8 {
    using Codes = uint2;
    // Bytes of a block of codes.
    static constexpr int BLOCK_BYTES = BLOCK;
    // The values of codes that a lane keeps in a register. Int8 needs none: a code is its value.
    struct Table {};
    __device__ __forceinline__ static Table table() { return {}; }
    __device__ __forceinline__ static Codes codes(const uint8_t* p, int64_t at) { return isa::load<uint2>(p + at); }
    __device__ __forceinline__ static float scale(const uint8_t* p, int64_t block) {
        return __uint_as_float((uint32_t)p[block] << 23);
    }
    // The aligned word that contains the scale of a block, and the scale in it.
    __device__ __forceinline__ static const uint32_t* word(const uint8_t* p, int64_t block) {
        return (const uint32_t*)(p + (block & ~int64_t(3)));
    }
    __device__ __forceinline__ static float scale_in(uint32_t word, int64_t block) {
        return __uint_as_float((word >> (8 * (block & 3)) & 255) << 23);
    }
    // Returns two values, whose codes begin at bit `shift` of a word. Both products are bf16 numbers.
    __device__ __forceinline__ static uint32_t two(uint32_t word, int shift, float scale) {
        float low = (float)(int8_t)(word >> shift), high = (float)(int8_t)(word >> (shift + 8));
        return isa::pack(low * scale, high * scale);
    }
    __device__ __forceinline__ static uint4 values(Codes c, float scale, Table) {
        return make_uint4(two(c.x, 0, scale), two(c.x, 16, scale), two(c.y, 0, scale), two(c.y, 16, scale));
    }
};

// Indices of 16 levels, two codes per byte. The scale is an f32.
struct Nf4 {
    using Codes = uint32_t;
    static constexpr int BLOCK_BYTES = BLOCK / 2;
    __device__ __forceinline__ static Codes codes(const uint8_t* p, int64_t at) {
        return isa::load<uint32_t>(p + at / 2);
    }
    __device__ __forceinline__ static float scale(const uint8_t* p, int64_t block) {
        return isa::load<float>((const float*)p + block);
    }
    __device__ __forceinline__ static const uint32_t* word(const uint8_t* p, int64_t block) {
        return (const uint32_t*)p + block;
    }
    __device__ __forceinline__ static float scale_in(uint32_t word, int64_t) { return __uint_as_float(word); }
    // Each lane keeps the level whose code is its number, modulo 16.
    using Table = float;
    __device__ __forceinline__ static Table table() {
        constexpr float LEVELS[16] = {-1.0f,         -0.6961928f,  -0.52507305f, -0.3949175f,
                                      -0.28444138f,  -0.18477343f, -0.091050036f, 0.0f,
                                      0.0795803f,    0.1609302f,   0.2461123f,   0.33791524f,
                                      0.44070983f,   0.562617f,    0.72295684f,  1.0f};
        int code = threadIdx.x % 16;
        float level = LEVELS[0];
#pragma unroll
        for (int i = 1; i < 16; i++) level = code == i ? LEVELS[i] : level;
        return level;
    }
    // A shuffle reads the five lowest bits of the number of a lane: a code and a bit of the next one.
    __device__ __forceinline__ static uint32_t two(uint32_t word, int shift, float absmax, Table level) {
        float low = isa::shfl(level, word >> shift), high = isa::shfl(level, word >> (shift + 4));
        return isa::pack(low * absmax, high * absmax);
    }
    // All lanes of a warp call it together.
    __device__ __forceinline__ static uint4 values(Codes c, float scale, Table level) {
        return make_uint4(two(c, 0, scale, level), two(c, 8, scale, level), two(c, 16, scale, level), two(c, 24, scale, level));
    }
};

}  // namespace codes
