// bf16 as a bit pattern, and its conversions: widening is exact, narrowing rounds to nearest even. NaN becomes 0x7fff,
// as with cvt.rn.
#pragma once

struct alignas(2) bf16 {
    uint16_t bits;
};

__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }

// Return the low and the high half of a bf16x2 register.
__device__ __forceinline__ float lo(uint32_t x) { return __uint_as_float(x << 16); }
__device__ __forceinline__ float hi(uint32_t x) { return __uint_as_float(x & 0xffff0000u); }

#ifdef __CUDACC__
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Packs a bf16x2 with `low` in the lower half, which is at the lower address.
__device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
#else
inline bf16 to_bf16(float x) {
    uint32_t u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{0x7fff};
    return bf16{uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

inline uint32_t pack(float low, float high) {
    return uint32_t(to_bf16(low).bits) | uint32_t(to_bf16(high).bits) << 16;
}
#endif

namespace isa {
using ::bf16;
using ::hi;
using ::lo;
using ::pack;
using ::to_bf16;
using ::to_float;
}  // namespace isa
