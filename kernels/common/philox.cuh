// Random numbers, a port of src/base/philox.rs: Philox4x32-10 (Salmon et al., 2011) and Gumbel noise. The key is (run seed,
// purpose and step). The counter identifies the item that needs the number.
#pragma once

#include "common/math.cuh"
#include "isa/isa.cuh"

namespace philox {

// Four random words.
struct Words {
    uint32_t x, y, z, w;

    // Returns word i % 4. It uses selects because an index that is not constant would put the words into local memory.
    __device__ __forceinline__ uint32_t at(uint32_t i) const {
        uint32_t low = i & 1 ? y : x;
        uint32_t high = i & 1 ? w : z;
        return i & 2 ? high : low;
    }
};

// Runs ten rounds on the counter (c0, c1, c2, c3) with the key (k0, k1).
__device__ __forceinline__ Words philox4x32_10(uint32_t k0, uint32_t k1, uint32_t c0, uint32_t c1, uint32_t c2,
                                               uint32_t c3) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)c0 * 0xd2511f53u;
        uint64_t b = (uint64_t)c2 * 0xcd9e8d57u;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return Words{c0, c1, c2, c3};
}

// Returns the Gumbel noise of one random word k: -ln(-log1p(-w)) with w = min(f32(k 2^-32 + 2^-33), 1 - 2^-24).
__device__ __forceinline__ float gumbel(uint32_t word) {
    // 2k + 1 has 33 bits, so the conversion rounds once, to nearest. The multiplication by a power of two is exact.
    float w = (float)((uint64_t)word * 2 + 1) * 1.16415321826934814453125e-10f;
    constexpr float LAST = 1.0f - 5.9604644775390625e-8f;
    w = w < LAST ? w : LAST;
    return -math::ln(-math::log1p(-w));
}

}  // namespace philox
