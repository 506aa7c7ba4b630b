// Copies of complete rows by a warp, with the widest accesses that both ends allow. Row lengths are in words of two
// bytes, so that bf16 and f32 rows are handled alike.
#pragma once

#include "isa/isa.cuh"

namespace rows {

// A NaN in bf16 and, written twice, in f32. A row whose index is out of range is filled with it.
constexpr uint16_t NOT_A_NUMBER = 0x7fff;

template <class V>
__device__ __forceinline__ void copy_as(uint16_t* dst, const uint16_t* src, int words, int lane) {
    constexpr int WIDTH = sizeof(V) / sizeof(uint16_t);
    // Loads in flight per lane: 4 * 16 bytes * 32 lanes are 2 KiB per warp.
    constexpr int BATCH = 4;
    int count = words / WIDTH;
    for (int from = lane; from < count; from += 32 * BATCH) {
        V v[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int at = from + 32 * i;
            if (at < count) v[i] = isa::load<V>(src + at * WIDTH);
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int at = from + 32 * i;
            if (at < count) isa::store<V>(dst + at * WIDTH, v[i]);
        }
    }
}

// Copies src[0..words] to dst[0..words].
__device__ __forceinline__ void copy(uint16_t* dst, const uint16_t* src, int words, int lane) {
    uint64_t odd = (uint64_t)dst | (uint64_t)src | (uint64_t)words * sizeof(uint16_t);
    if (odd % 16 == 0) {
        copy_as<uint4>(dst, src, words, lane);
    } else if (odd % 8 == 0) {
        copy_as<uint2>(dst, src, words, lane);
    } else if (odd % 4 == 0) {
        copy_as<uint32_t>(dst, src, words, lane);
    } else {
        copy_as<uint16_t>(dst, src, words, lane);
    }
}

__device__ __forceinline__ void fill(uint16_t* dst, uint16_t value, int words, int lane) {
    for (int i = lane; i < words; i += 32) dst[i] = value;
}

}  // namespace rows
