// Adjacent elements of a row that a thread reads and writes at once: eight (16 bytes of bf16) where rows allow it, or one.
#pragma once

#include "isa/isa.cuh"

namespace elements {

constexpr int WIDE = 8;

// True if rows of this length, one after the other in an aligned array, all begin at a multiple of 16 bytes.
__device__ __forceinline__ bool are_wide(int columns) { return columns % WIDE == 0; }

// N elements in fp32.
template <int N>
struct Elements {
    static_assert(N == 1 || N == WIDE, "widths of an access");
    float v[N];

    __device__ __forceinline__ void load(const bf16* p) {
        if constexpr (N == 1) {
            v[0] = to_float(*p);
        } else {
            uint4 words = isa::load<uint4>(p);
            uint32_t pair[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
            for (int i = 0; i < 4; i++) v[2 * i] = lo(pair[i]), v[2 * i + 1] = hi(pair[i]);
        }
    }

    __device__ __forceinline__ void load(const float* p) {
        if constexpr (N == 1) {
            v[0] = *p;
        } else {
#pragma unroll
            for (int i = 0; i < N; i += 4) {
                float4 four = isa::load<float4>(p + i);
                v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
            }
        }
    }

    __device__ __forceinline__ void store(bf16* p) const {
        if constexpr (N == 1) {
            *p = to_bf16(v[0]);
        } else {
            isa::store(p, make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7])));
        }
    }

    __device__ __forceinline__ void store(float* p) const {
        if constexpr (N == 1) {
            *p = v[0];
        } else {
#pragma unroll
            for (int i = 0; i < N; i += 4) isa::store(p + i, make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]));
        }
    }

    __device__ __forceinline__ void add(const Elements& more) {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] += more.v[i];
    }

    // Adds w * more by fmaf.
    __device__ __forceinline__ void add(float w, const Elements& more) {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = fmaf(w, more.v[i], v[i]);
    }
};

}  // namespace elements
